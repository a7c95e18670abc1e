"""What a face model has, as a table, and how it looks, as a sheet of pictures."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from jaxface.core import cameras
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients, joint_numbers, vector_size
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import decode_face
from jaxface.core.parts import BACKGROUND, PARTS
from jaxface.core.typed_jit import typed_jit
from jaxface.core.units import MM_PER_UNIT
from jaxface.files import visualize
from jaxface.render import label_triangles, render_face

CELL = 256
"""Side of one picture in pixels."""

_MODES = 3

_DEVIATIONS = 2.0


_FILLED = 1.0  # share of the picture's side that the nearest plane of the mean face's box takes


def describe(model: FaceModel) -> str:
    """A table of what a face model has: sizes, parts, landmarks, extents in mm, memory."""
    shape = np.asarray(model.mean_shape)
    extents = np.ptp(shape, axis=0) * MM_PER_UNIT
    middle = (shape.min(0) + shape.max(0)) / 2 * MM_PER_UNIT
    joints = joint_numbers(model)
    counts = [array.shape[-1] for array in (model.identity_basis, model.expression_basis, model.albedo_basis)]
    expression = f"expression {counts[1]}" + (f" + {joints} angles of joints" if joints else "")
    memory = sum(np.asarray(array).nbytes for array in jax.tree.leaves(model))
    parts = [f"{part} {len(model.parts[part])}" for part in PARTS if part in model.parts]
    missing = [part for part in PARTS if part not in model.parts]
    rows = {
        "name": model.name,
        "vertices": f"{len(shape):,}",
        "triangles": f"{len(model.triangles):,}, {front_share(model):.0%} of their area faces the viewer",
        "coefficients": f"identity {counts[0]}, {expression}, albedo {counts[2]}; a vector has {vector_size(model)}",
        "expressions": _listed(model.expression_names) if model.expression_names else "without names",
        "parts": ", ".join(parts) or "none",
        "missing parts": ", ".join(missing) or "none",
        "landmarks": _listed([f"{scheme} ({len(rows)} points)" for scheme, rows in model.landmarks.items()]) or "none",
        "contours": _listed([f"{scheme} ({len(lines)} lines)" for scheme, lines in model.contours.items()]) or "none",
        "uv": "yes" if model.uv is not None else "no",
        "mirror": "yes" if model.mirror is not None else "no",
        "extents": " x ".join(f"{extent:.1f}" for extent in extents) + " mm (width x height x depth)",
        "middle": ", ".join(f"{place:.1f}" for place in middle) + " mm",
        "memory": f"{memory / 1e6:.1f} MB",
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def _listed(words: Sequence[str], limit: int = 6) -> str:
    rest = len(words) - limit
    return ", ".join(words[:limit]) + (f" and {rest} more" if rest > 0 else "")


def front_share(model: FaceModel) -> float:
    """Share of the surface, by area seen from the front, whose outside is turned to the viewer.

    Of a closed head half; of a face nearly all; little where the file has its triangles inside out.
    """
    corners = np.asarray(model.mean_shape)[np.asarray(model.triangles)]
    depth = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2]
    total = np.abs(depth).sum()
    return float(np.clip(depth, 0, None).sum() / total) if total > 0 else 0.0


def contact_sheet(model: FaceModel, *, cell: int = CELL) -> UInt8[np.ndarray, "H W 3"]:
    """The mean face (colours, shape, parts, landmarks, profile), and the first modes of each basis, made large.

    Modes in standard deviations are shown at -2 and +2, an artist's units at 1.

    Args:
        model: the face model.
        cell: side of one picture in pixels.
    """
    triangle_labels = label_triangles(model.parts, model.triangles)
    camera, middle = _framing(model, cell)
    zero = jax.tree.map(np.asarray, Coefficients.zeros(model))

    def draw(coefficients: Coefficients, yaw: float = 0.0) -> dict[str, np.ndarray]:
        angles = jnp.array([[0.0, yaw, 0.0]], jnp.float32)
        drawn = _draw(model, coefficients.replace(angles=angles), middle, camera, triangle_labels)
        return {name: np.asarray(value)[0] for name, value in drawn.items()}

    mean = draw(zero)
    paper = np.full((cell, cell, 3), 255, np.uint8)
    colored = visualize.overlay(paper, mean["colors"], mean["seen"])
    pictures = [
        colored,
        visualize.clay(mean["normals"], mean["seen"]),
        _clay(draw(zero, np.pi / 3)),
        visualize.draw_labels(colored, np.where(mean["seen"], mean["labels"], BACKGROUND), opacity=0.7),
        *(
            visualize.draw_landmarks(colored, mean["points"][np.asarray(vertices)], radius=cell / 170)
            for vertices in list(model.landmarks.values())[:2]
        ),
    ]
    rows, captions = [pictures], ["mean face: colours, shape, from the side, parts, landmarks"]
    for name, picture in (("identity", _clay), ("expression", _clay), ("albedo", _colors)):
        sizes = getattr(zero, name).shape[-1]
        count, amounts = _MODES, [-_DEVIATIONS, _DEVIATIONS]
        if name == "expression" and model.has_expression_units:  # they have no opposite
            count, amounts = 2 * _MODES, [model.expression_bounds[1]]
        steps = [(index, amount) for index in range(min(count, sizes)) for amount in amounts]
        if steps:
            drawn = [
                draw(zero.replace(**{name: step * np.eye(sizes, dtype=np.float32)[[index]]})) for index, step in steps
            ]
            rows.append([picture(face) for face in drawn])
            shown = ", ".join(model.expression_names[:count]) if name == "expression" else ""
            shown = shown or f"the first {len(steps) // len(amounts)} coefficients"
            captions.append(f"{name}: {shown} at {' and '.join(f'{amount:+g}' for amount in amounts)}")
    return visualize.grid(rows, captions=captions, cell=cell)


def _framing(model: FaceModel, size: int) -> tuple[Camera, Float[np.ndarray, "3"]]:
    """A camera that shows the mean face whole, and the middle of the face, which goes to the origin."""
    shape = np.asarray(model.mean_shape)
    low, high = shape.min(0), shape.max(0)
    half = max(float((high - low).max()) / 2, 1e-6)
    distance = 8 * half
    focal = _FILLED * size / 2 * (distance - half) / half
    camera = Camera(focal=focal, center=(size / 2, size / 2), distance=distance, image_size=(size, size))
    return camera, (low + high) / 2


@typed_jit
def _draw(
    model: FaceModel,
    coefficients: Coefficients,
    middle: Float[Array | np.ndarray, "3"],
    camera: Camera,
    triangle_labels: UInt8[Array | np.ndarray, "T"],
) -> dict[str, Array]:
    shift = -cameras.rotate(jnp.asarray(middle)[None, None], coefficients.angles)[:, 0]
    face = decode_face(model, coefficients.replace(translation=shift), camera)
    view = render_face(face, model.triangles, image_size=camera.image_size)
    return {
        "seen": view.seen,
        "colors": view.draw(face.colors),
        "normals": view.draw(face.normals),
        "labels": jnp.where(view.seen, jnp.asarray(triangle_labels)[view.fragments.triangle], BACKGROUND),
        "points": face.points,
    }


def _clay(drawn: dict[str, np.ndarray]) -> UInt8[np.ndarray, "H W 3"]:
    return visualize.clay(drawn["normals"], drawn["seen"])


def _colors(drawn: dict[str, np.ndarray]) -> UInt8[np.ndarray, "H W 3"]:
    paper = np.full((*drawn["seen"].shape, 3), 255, np.uint8)
    return visualize.overlay(paper, drawn["colors"], drawn["seen"])
