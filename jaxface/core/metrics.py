"""Measures of a reconstruction: Part IoU, landmark error, vertex error. Pure functions, one value per sample.

What cannot be measured (a part that the target does not show, a face without visible landmarks) is NaN;
`mean_over_known` averages the rest.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from jaxface.core.landmarks import OUTER_EYE_CORNERS
from jaxface.core.parts import PARTS, SEVEN_PARTS
from jaxface.core.units import MM_PER_UNIT


def mean_over_known(values: Float[Array | np.ndarray, "*S"], *, axis: int | None = None) -> Float[Array, "*T"]:
    """Mean of the values that are not NaN along `axis` (of all by default); NaN where there is none."""
    values = jnp.asarray(values)
    known = ~jnp.isnan(values)
    return jnp.where(known, values, 0.0).sum(axis) / known.sum(axis)


def part_iou(
    predicted: Integer[Array | np.ndarray, "*B H W"], target: Integer[Array | np.ndarray, "*B H W"]
) -> Float[Array, "*B 8"]:
    """Intersection over union of each part's pixels in two label maps (3DDFA-V3, section 4.2).

    Args:
        predicted: label maps of the rendered reconstruction, values as in `parts.LABELS`.
        target: label maps of the photo.

    Returns:
        [*B, 8] in [0, 1], in the order of `parts.PARTS`; NaN for a part that the target does not show.
    """
    labels = jnp.arange(1, len(PARTS) + 1)

    def one_part(label: Array) -> Float[Array, "*B"]:
        in_predicted, in_target = jnp.asarray(predicted) == label, jnp.asarray(target) == label
        union = (in_predicted | in_target).sum((-2, -1))
        intersection = (in_predicted & in_target).sum((-2, -1))
        return jnp.where(in_target.any((-2, -1)), intersection / jnp.maximum(union, 1), jnp.nan)

    return jnp.moveaxis(jax.lax.map(one_part, labels), 0, -1)


def mean_part_iou(iou: Float[Array | np.ndarray, "*B 8"]) -> Float[Array, "*B"]:
    """The paper's Part IoU: mean over the seven parts other than skin, in [0, 1]; NaN parts are left out."""
    return mean_over_known(iou[..., : len(SEVEN_PARTS)], axis=-1)


def landmark_error(
    predicted: Float[Array | np.ndarray, "*B L 2"],
    target: Float[Array | np.ndarray, "*B L 2"],
    weights: Float[Array | np.ndarray, "*B L"],
) -> Float[Array, "*B"]:
    """Mean distance of the visible landmarks, in the unit of the points (pixels).

    Args:
        predicted: image points.
        target: image points.
        weights: landmarks that are positive count, all alike; NaN comes back when none is.
    """
    visible = jnp.asarray(weights) > 0
    distances = jnp.linalg.norm(jnp.asarray(predicted) - jnp.asarray(target), axis=-1)
    return jnp.where(visible, distances, 0.0).sum(-1) / visible.sum(-1)


def interocular_distance(
    landmarks: Float[Array | np.ndarray, "*B 68 2"], weights: Float[Array | np.ndarray, "*B 68"]
) -> Float[Array, "*B"]:
    """Distance between the outer eye corners (ibug-68 landmarks 36 and 45); NaN unless both have positive weight."""
    right, left = OUTER_EYE_CORNERS
    distance = jnp.linalg.norm(jnp.asarray(landmarks[..., left, :]) - jnp.asarray(landmarks[..., right, :]), axis=-1)
    known = (weights[..., left] > 0) & (weights[..., right] > 0)
    return jnp.where(known, distance, jnp.nan)


def landmark_error_by_box(
    predicted: Float[Array | np.ndarray, "*B L 2"], target: Float[Array | np.ndarray, "*B L 2"]
) -> Float[Array, "*B"]:
    """Mean distance of all landmarks over sqrt(width x height) of the target's box, AFLW2000-3D's measure.

    Args:
        predicted: image points, in the target's unit.
        target: image points of one face each.

    Returns:
        [*B], 0.03 for three per cent; NaN for a box without area.
    """
    predicted, target = jnp.asarray(predicted), jnp.asarray(target)
    area = jnp.prod(target.max(-2) - target.min(-2), axis=-1)
    distance = jnp.linalg.norm(predicted - target, axis=-1).mean(-1)
    return jnp.where(area > 0, distance / jnp.sqrt(jnp.where(area > 0, area, 1.0)), jnp.nan)


def vertex_error_mm(
    predicted: Float[Array | np.ndarray, "B V 3"],
    target: Float[Array | np.ndarray, "B V 3"],
    *,
    align: str = "rigid",
    vertices: Integer[Array | np.ndarray, "N"] | None = None,
) -> Float[Array, "B"]:
    """Mean distance between corresponding vertices of two meshes of the same topology, in millimetres.

    Args:
        predicted: in model units (10 cm).
        target: likewise.
        align: "none"; "rigid": predictions are first rotated and shifted onto the targets; "similarity": also scaled.
        vertices: indices of those to align and measure; all by default.

    Raises:
        ValueError: for an unknown `align`.
    """
    if align not in ("none", "rigid", "similarity"):
        raise ValueError(f'align must be "none", "rigid" or "similarity", not {align!r}')
    predicted, target = jnp.asarray(predicted), jnp.asarray(target)
    if vertices is not None:
        predicted, target = predicted[..., vertices, :], target[..., vertices, :]
    if align != "none":
        predicted = align_points(predicted, target, scale=align == "similarity")
    distances: Float[Array, "*B V"] = jnp.linalg.norm(predicted - target, axis=-1)
    return MM_PER_UNIT * distances.mean(-1)


def align_points(
    source: Float[Array | np.ndarray, "*B N 3"], target: Float[Array | np.ndarray, "*B N 3"], *, scale: bool = False
) -> Float[Array, "*B N 3"]:
    """Moves `source` by the rigid (or similarity) transform that brings it nearest to `target` in least squares.

    Corresponding points, never a reflection (Umeyama 1991, eq. 40 to 42). Points that all coincide are only shifted.
    """
    source, target = jnp.asarray(source), jnp.asarray(target)
    source_mean, target_mean = source.mean(-2, keepdims=True), target.mean(-2, keepdims=True)
    centered = source - source_mean
    precise = jax.lax.Precision.HIGHEST
    covariance = jnp.einsum("...ni,...nj->...ij", target - target_mean, centered, precision=precise)
    u, singular, vt = jnp.linalg.svd(covariance)
    sign = jnp.sign(jnp.linalg.det(jnp.matmul(u, vt, precision=precise)))
    signs = jnp.stack([jnp.ones_like(sign), jnp.ones_like(sign), sign], axis=-1)
    rotation = jnp.einsum("...ik,...k,...kj->...ij", u, signs, vt, precision=precise)
    moved = jnp.einsum("...ij,...nj->...ni", rotation, centered, precision=precise)
    if scale:
        spread = (centered**2).sum((-2, -1))
        factor = jnp.where(spread > 0, (singular * signs).sum(-1) / jnp.where(spread > 0, spread, 1.0), 1.0)
        moved = moved * factor[..., None, None]
    return moved + target_mean
