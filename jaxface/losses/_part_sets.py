"""What the losses on {part: points} against {part: masks} share: checks, the points that count, the weighted sum."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

Points = Mapping[str, Float[Array | np.ndarray, "B N D"]]
Targets = Mapping[str, Shaped[Array | np.ndarray, "B ..."]]
Weights = Mapping[str, float | Float[Array | np.ndarray, "B"]]
PointMasks = Mapping[str, Shaped[Array | np.ndarray, "B N"]]
"""Booleans or weights."""


def check_parts(
    points: Points,
    targets: Targets,
    weights: Weights,
    point_masks: PointMasks,
    *,
    dimensions: int = 2,
    target_kinds: str = "a mask [B, H, W]",
) -> None:
    """Raises ValueError for what does not fit, before shapes fail somewhere deep inside.

    Of NaN and infinity too, where values are known (outside jit).
    """
    if not points:
        raise ValueError("points names no part")
    if missing := [part for part in points if part not in targets]:
        raise ValueError(f"no target for the part(s) {missing}; targets has {list(targets)}")
    if unknown := [part for part in [*weights, *point_masks] if part not in points]:
        raise ValueError(f"weights or point_masks name part(s) {unknown}; points has {list(points)}")
    batch = np.shape(next(iter(points.values())))[0]
    for part, array in points.items():
        if np.ndim(array) != 3 or np.shape(array)[::2] != (batch, dimensions):
            raise ValueError(f"{part}: expected points [{batch}, N, {dimensions}], got {np.shape(array)}")
        if np.ndim(targets[part]) != 3 or len(targets[part]) != batch:
            raise ValueError(f"{part}: expected {target_kinds} with B = {batch}, got {np.shape(targets[part])}")
        mask = point_masks.get(part)
        if mask is not None and np.shape(mask) != np.shape(array)[:2]:
            raise ValueError(f"{part}: expected a point mask {np.shape(array)[:2]}, got {np.shape(mask)}")
        if np.shape(weights.get(part, 1.0)) not in ((), (batch,)):
            raise ValueError(f"{part}: expected one weight or [{batch}], got shape {np.shape(weights[part])}")
        refuse_non_finite(array, mask, label=f"{part}: ")


def refuse_non_finite(
    points: Shaped[Array | np.ndarray, "*B N D"], mask: Shaped[Array | np.ndarray, "*B N"] | None, *, label: str = ""
) -> None:
    """Raises for NaN and infinity where values are known (outside jit); inside, they make the loss NaN."""
    if isinstance(points, jax.core.Tracer) or isinstance(mask, jax.core.Tracer):
        return
    counts = True if mask is None else np.asarray(mask)[..., None] > 0
    if not np.isfinite(np.asarray(points, np.float32)).all(where=counts):
        raise ValueError(f"{label}points must be finite; leave out those that are not with a mask")


def members(
    points: Float[Array | np.ndarray, "B N 2"], mask: Shaped[Array | np.ndarray, "B N"] | None
) -> tuple[Float[Array, "B M 2"], Float[Array, "B M"]]:
    """The points in float32 or better, those left out replaced by the first that counts, and weights of sum one.

    Where none counts, all points and all weights are zero.
    """
    points = jnp.asarray(points)
    points = points.astype(jnp.promote_types(points.dtype, jnp.float32))
    if points.shape[1] == 0:
        return jnp.zeros((len(points), 1, 2), points.dtype), jnp.zeros((len(points), 1), points.dtype)
    if mask is None:
        return points, jnp.full(points.shape[:2], 1.0 / points.shape[1], points.dtype)
    weights = jax.lax.stop_gradient(jnp.maximum(jnp.asarray(mask).astype(points.dtype), 0.0))
    first = jnp.take_along_axis(points, jnp.argmax(weights > 0, axis=1)[:, None, None], axis=1)
    first = jnp.where((weights > 0).any(1)[:, None, None], first, 0.0)
    total = weights.sum(1, keepdims=True)
    return jnp.where(weights[..., None] > 0, points, first), weights / jnp.where(total > 0, total, 1.0)


def weighted_total(
    losses: Mapping[str, Float[Array, "B"]],
    finite: Mapping[str, Bool[Array, "B"]],
    present: Mapping[str, Bool[Array, "B"]],
    weights: Weights,
) -> Float[Array, "B"]:
    """sum_p w_p loss_p over the parts that are present; NaN where a point that counts is not finite."""
    terms = []
    for part, loss in losses.items():
        weight = jnp.where(present[part], jnp.asarray(weights.get(part, 1.0), loss.dtype), 0.0)
        terms.append(jnp.where(finite[part], weight * loss, jnp.nan))
    return jnp.stack(terms).sum(0)
