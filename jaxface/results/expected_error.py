"""How far a fitted face is expected to lie from the true one: numbers by part, and a map to look at."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float, Integer, UInt8

from jaxface.core.face_models import FaceModel, vertices_of_parts
from jaxface.core.parts import PARTS
from jaxface.core.typed_jit import typed_jit
from jaxface.files import visualize
from jaxface.fitting.posterior import expected_error_mm
from jaxface.render import interpolate, rasterize
from jaxface.results.drawing import DrawnFace, Reconstruction

WORST_MM = 5.0
"""The map's last colour stands for so much, and for more."""

_COLORS = np.array([[38, 70, 140], [60, 160, 140], [240, 220, 110], [200, 50, 40]], np.float32)
"""From no error to `WORST_MM`, evenly spaced."""


def vertex_errors(model: FaceModel, reconstruction: Reconstruction) -> Float[np.ndarray, "V"] | None:
    """The expected distance of each vertex from the truth in mm; None where nobody says how sure the face is.

    So do numbers that are none, which the rest of a result need not suffer from.
    """
    if reconstruction.covariance is None or not np.isfinite(reconstruction.covariance).all():
        return None
    return expected_error_mm(model, reconstruction.vector, reconstruction.covariance, vertices_of_parts(model))


def error_measures(model: FaceModel, errors: Float[np.ndarray, "V"] | None) -> dict[str, Any]:
    """expected_error_mm, the mean over all parts, and expected_error_mm_of {part: mean}; NaN where unknown."""
    if errors is None:
        return {"expected_error_mm": float("nan"), "expected_error_mm_of": dict.fromkeys(PARTS, float("nan"))}
    each = {part: float(errors[vertices].mean()) for part, vertices in _parts(model).items()}
    return {
        "expected_error_mm": float(errors[vertices_of_parts(model)].mean()),
        "expected_error_mm_of": {part: each.get(part, float("nan")) for part in PARTS},
    }


def _parts(model: FaceModel) -> dict[str, np.ndarray]:
    return {part: np.asarray(vertices) for part, vertices in model.parts.items() if len(vertices)}


def error_picture(model: FaceModel, drawn: DrawnFace, errors: Float[np.ndarray, "V"]) -> UInt8[np.ndarray, "S S 3"]:
    """A map over the crop: blue where the face is expected to be right, over green and yellow to red at 5 mm."""
    rows = errors[None, :, None].astype(np.float32)
    found = _draw(drawn.face.points, drawn.face.depth, model.triangles, rows, size=drawn.picture.shape[0])
    drawn_errors, seen = (np.asarray(array)[0] for array in found)
    return visualize.overlay(drawn.picture, error_colors(drawn_errors[..., 0]) / np.float32(255), seen)


def error_colors(errors: Float[np.ndarray, "*B"]) -> Float[np.ndarray, "*B 3"]:
    """The colours of errors in mm, 0 to 255."""
    place = np.clip(errors / WORST_MM, 0, 1) * (len(_COLORS) - 1)
    return np.stack([np.interp(place, np.arange(len(_COLORS)), channel) for channel in _COLORS.T], axis=-1)


@typed_jit(static_argnames="size")
def _draw(
    points: Float[Array | np.ndarray, "1 V 2"],
    depth: Float[Array | np.ndarray, "1 V"],
    triangles: Integer[Array | np.ndarray, "T 3"],
    errors: Float[np.ndarray, "1 V 1"],
    *,
    size: int,
) -> tuple[Array, Array]:
    fragments = rasterize(points, depth, triangles, image_size=size)
    return interpolate(fragments, triangles, errors), fragments.triangle >= 0
