"""Parts, landmarks and contour lines, found by drawing the model and asking the detector of photos where things are.

The masks of photographs come from the same detector (jaxface.photos.face_mesh), so that the two agree.
"""

import jax.numpy as jnp
import numpy as np
from matplotlib.path import Path as Polygon

from jaxface import Camera, Coefficients, decode_face
from jaxface.core.face_models import FaceModel
from jaxface.core.landmarks import MIRRORED_68
from jaxface.photos import face_mesh
from jaxface.photos.detection import detect_faces_in
from jaxface.render import interpolate, rasterize

SIZE = 512
BACKGROUND = (0.55, 0.58, 0.62)


def draw(model: FaceModel, coefficients: Coefficients, size: int = SIZE, zoom: float = 0.8):
    """Pictures [B, size, size, 3] uint8, the image points [B, V, 2] and whether each vertex is seen [B, V]."""
    camera = Camera(focal=1015.0 * zoom).resized(size)
    face = decode_face(model, coefficients, camera)
    fragments = rasterize(face.points, face.depth, model.triangles, image_size=size)
    colors = interpolate(fragments, model.triangles, face.colors)
    picture = np.array(jnp.where(fragments.triangle[..., None] >= 0, colors, jnp.array(BACKGROUND)[None, None, None]))
    points, depth = np.asarray(face.points), np.asarray(face.depth)
    buffer = np.asarray(jnp.where(fragments.triangle >= 0, fragments.depth, jnp.inf))
    columns, rows = (np.clip(points[..., i].astype(int), 0, size - 1) for i in (0, 1))
    seen = depth < buffer[np.arange(len(points))[:, None], rows, columns] + 0.02
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8), points, seen


def varied(model: FaceModel, rng: np.random.Generator, count: int, **expression: float) -> Coefficients:
    """The mean face and people near it, turned a little."""
    coefficients = Coefficients.zeros(model, count)
    soft = (np.arange(count) > 0)[:, None] * 0.5
    light = np.zeros((count, 3, 9), np.float32)
    light[:, :, 0], light[:, :, 2], light[:, :, 1] = 0.15, 0.25, -0.1
    angles = rng.normal(size=(count, 3)) * [0.08, 0.15, 0.03] * (np.arange(count) > 0)[:, None]
    return coefficients.replace(
        identity=soft * rng.normal(size=(count, model.identity_basis.shape[-1])),
        albedo=soft * rng.normal(size=(count, model.albedo_basis.shape[-1])),
        angles=angles,
        light=light,
    )


def detect(pictures: np.ndarray) -> list[np.ndarray | None]:
    """The mesh points [478, 2] in pixels per picture, None where no face is found."""
    return [faces[0].landmarks478 if faces else None for faces in detect_faces_in(list(pictures), min_size=100)]


def views(model: FaceModel, coefficients: Coefficients) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Per picture with a face that is found: its mesh points [478, 2], the vertices' points [V, 2], which are seen."""
    pictures, points, seen = draw(model, coefficients)
    found = zip(detect(pictures), points, seen, strict=True)
    return [(mesh, xy, visible) for mesh, xy, visible in found if mesh is not None]


def part_votes(model: FaceModel, pictures: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """Per part of `face_mesh.part_loops`: the share [V] of the pictures that show a vertex in which it lies inside.

    "seen" is the share of all pictures that show a vertex.
    """
    inside, shown = {}, np.zeros(len(model.mean_shape))
    for found, xy, visible in pictures:
        shown += visible
        for part, loop in face_mesh.part_loops(found).items():
            hit = Polygon(loop).contains_points(xy) & visible
            inside[part] = inside.get(part, 0) + hit
    votes = {part: count / np.maximum(shown, 1) for part, count in inside.items()}
    votes["seen"] = shown / shown.max()
    flip = {part: part.replace("left", "#").replace("right", "left").replace("#", "right") for part in votes}
    return {part: (votes[part] + votes[flip[part]][model.mirror]) / 2 for part in votes}


def landmark_costs(model: FaceModel, pictures: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
    """Mean squared pixel distance [68, V] between each landmark and each vertex, hidden vertices far away."""
    total = 0.0
    for found, xy, visible in pictures:
        squared = ((face_mesh.ibug_landmarks(found)[:, None] - xy[None]) ** 2).sum(-1)
        total = total + np.where(visible[None], np.minimum(squared, 400.0), 400.0)
    if not pictures:
        raise RuntimeError("the detector found no face in any of the pictures")
    total = total / len(pictures)
    return (total + total[MIRRORED_68][:, model.mirror]) / 2


def choose_landmarks(costs: np.ndarray, allowed: dict[int, np.ndarray], model: FaceModel) -> np.ndarray:
    """The best vertex of each landmark among those allowed, mirrored exactly; midline landmarks on the midline."""
    count = costs.shape[1]
    middle = np.flatnonzero(model.mirror == np.arange(count))
    result = np.full(68, -1)
    for landmark in range(68):
        other = MIRRORED_68[landmark]
        if other < landmark:
            continue
        candidates = allowed[landmark]
        if other == landmark:
            candidates = np.intersect1d(candidates, middle)
        result[landmark] = candidates[np.argmin(costs[landmark, candidates])]
        result[other] = model.mirror[result[landmark]]
    return result


def contour_lines(points: np.ndarray, jaw: np.ndarray, skin: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Lines [17, N] of vertices that run from each jaw landmark over the cheek towards the middle, and a bit outward.

    Each line is the cross-section of the face with the plane through the landmark and a point on the midline a little
    nearer to the mouth, along the view: there the outline lies when the head turns.
    """
    step = 0.02
    mouth = points[jaw[8], 1] * 0.5
    lines = []
    for index in range(8):
        start = points[jaw[index]]
        slope = 0.35 * (mouth - start[1])
        inner = 0.45 if index < 5 else 0.55
        candidates = skin[points[skin, 0] < 0.15 * start[0]]
        line = [int(jaw[index])]
        for part in np.arange(-0.12, 1 - inner, step):
            x, y = start[0] * (1 - part), start[1] + slope * part
            distance = (points[candidates, 0] - x) ** 2 + (points[candidates, 1] - y) ** 2
            best = candidates[np.argmin(distance)]
            if distance.min() < 0.03**2 and best not in line:
                line.append(int(best))
        lines.append(line)
    length = max(map(len, lines))
    return np.array(
        [line + [line[0]] * (length - len(line)) for line in lines]
        + [[jaw[8]] * length]
        + [mirror[line].tolist() + [mirror[line[0]]] * (length - len(line)) for line in reversed(lines)]
    )
