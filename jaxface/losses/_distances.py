"""The passes over all pairs that PRDL is made of: loops whose bodies XLA turns into vectorised kernels.

No array of anchors times points is ever stored.
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax import dtypes
from jaxtyping import Array, Bool, Float, Integer, Shaped

# Every loop takes a block per step, unrolled: points, or rows of a mask, against all anchors; in the backward pass
# anchors against all points. Small blocks compile sooner; from 16 anchors on (measured on CPU) XLA stops computing the
# slopes of a block once per coordinate.
_BLOCK = 8
_ANCHOR_BLOCK = 16
_ANCHOR_CHUNK = 4096  # bounds the matrix of distances [W, chunk] that a row of the mask is multiplied with


def _blocks(array: Shaped[Array, "N ..."], size: int, fill: Array | float = 0) -> Shaped[Array, "M size ..."]:
    """Cuts the first axis into blocks; the last one is filled up with `fill`."""
    count = -(-len(array) // size)
    padding = jnp.broadcast_to(jnp.asarray(fill, array.dtype), (count * size - len(array), *array.shape[1:]))
    return jnp.concatenate([array, padding]).reshape(count, size, *array.shape[1:])


def _zero(*arrays: Shaped[Array, "..."]) -> Float[Array, ""]:
    """0.0, made from the arrays so that a loop can start from it under shard_map: it varies over devices as they do."""
    return sum((jnp.where(array.ravel()[0] > 0, 0.0, 0.0) for array in arrays), start=jnp.zeros(()))


def _squared_distances(block: Float[Array, "block D"], others: Float[Array, "N D"]) -> Float[Array, "block N"]:
    differences = [block[:, axis, None] - others[None, :, axis] for axis in range(others.shape[1])]
    return functools.reduce(operator.add, [jnp.square(difference) for difference in differences])


@jax.jit
def _scan_points(points, weights, anchors):
    """One visit to every pair: the statistics [A, 3] and the indices [A] of the nearest and the furthest point.

    A loop over blocks of points whose body is elementwise over the anchors: XLA makes vectorised kernels of it, where
    reductions along an [A, N] array stay scalar on CPUs (measured: 12 times slower).
    """

    def visit(carry, block):
        near, nearest, far, furthest, total = carry
        block_points, block_weights, start = block
        distances = jnp.sqrt(_squared_distances(block_points, anchors))
        added = jnp.zeros_like(total)
        for i, distance in enumerate(distances):
            closer, further = distance < near, distance > far
            near, nearest = jnp.where(closer, distance, near), jnp.where(closer, start + i, nearest)
            far, furthest = jnp.where(further, distance, far), jnp.where(further, start + i, furthest)
            added += block_weights[i] * distance
        return (near, nearest, far, furthest, total + added), None

    zeros = jnp.zeros_like(anchors[:, 0]) + _zero(points, weights, anchors).astype(anchors.dtype)
    index = zeros.astype(jnp.int32)
    blocks = _blocks(points, _BLOCK, points[:1]), _blocks(weights, _BLOCK)
    starts = _BLOCK * jnp.arange(len(blocks[0]), dtype=jnp.int32)
    start = (zeros + jnp.inf, index, zeros - 1.0, index, zeros)
    (near, nearest, far, furthest, total), _ = jax.lax.scan(visit, start, (*blocks, starts))
    statistics = jnp.stack([near, far, total], axis=-1)
    # Comparisons skip NaN, the sum does not.
    return jnp.where(jnp.isfinite(total)[:, None], statistics, jnp.nan), nearest, furthest


@jax.custom_vjp
def point_statistics(points: Float[Array, "N D"], weights: Float[Array, "N"], anchors: Float[Array, "A D"]):
    """[A, 3] nearest, furthest and weighted mean distance; the weights sum to one and the first point counts."""
    return _scan_points(points, weights, anchors)[0]


def _forward(points, weights, anchors):
    statistics, nearest, furthest = _scan_points(points, weights, anchors)
    return statistics, (points, weights, anchors, statistics, nearest, furthest)


@jax.jit
def _backward(saved, cotangent):
    points, weights, anchors, statistics, nearest, furthest = saved
    gradient = weights[:, None] * _scan_anchors(points, anchors, cotangent[:, 2])
    for column, matched in ((0, nearest), (1, furthest)):
        distance = statistics[:, column]
        slope = jnp.where(distance == 0, 0.0, cotangent[:, column] / jnp.where(distance == 0, 1.0, distance))
        gradient = gradient.at[matched].add(slope[:, None] * (points[matched] - anchors))
    return gradient, jnp.zeros_like(weights), jnp.zeros_like(anchors)


point_statistics.defvjp(_forward, _backward)


def _scan_anchors(points, anchors, cotangent) -> Float[Array, "N D"]:
    """sum_a cotangent_a d|v - a| / dv for every point v: one visit to every pair, elementwise over the points."""

    def visit(totals, block):
        block_anchors, slopes = block
        squared = _squared_distances(block_anchors, points)
        pulls = slopes[:, None] * jax.lax.rsqrt(jnp.where(squared == 0, 1.0, squared))
        added = [jnp.zeros_like(total) for total in totals]
        for i in range(_ANCHOR_BLOCK):
            added = [a + pulls[i] * (points[:, axis] - block_anchors[i, axis]) for axis, a in enumerate(added)]
        return [total + a for total, a in zip(totals, added, strict=True)], None

    start = [jnp.zeros_like(points[:, 0]) + _zero(points, anchors, cotangent).astype(points.dtype)] * points.shape[1]
    blocks = _blocks(anchors, _ANCHOR_BLOCK), _blocks(cotangent, _ANCHOR_BLOCK)
    totals, _ = jax.lax.scan(visit, start, blocks)
    return jnp.stack(totals, axis=-1)


def anchor_columns(
    anchors: Float[Array | np.ndarray, "A 2"],
) -> tuple[Float[Array, "C"], Float[Array, "C Y"], Integer[np.ndarray, "A"]]:
    """Anchors as columns of equal x: x per column, y within it, and where each anchor is found in the flattened y.

    A constant grid has few columns; anything else is treated as A columns of one anchor each.
    """
    dtype = dtypes.canonicalize_dtype(jnp.promote_types(anchors.dtype, jnp.float32))
    if not isinstance(anchors, jax.core.Tracer):
        values = np.asarray(anchors)
        x, column = np.unique(values[:, 0], return_inverse=True)
        y, row = np.unique(values[:, 1], return_inverse=True)
        if len(x) * len(y) <= 2 * len(values):
            return jnp.asarray(x, dtype), jnp.tile(jnp.asarray(y, dtype)[None], (len(x), 1)), column * len(y) + row
    anchors = jnp.asarray(anchors, dtype)
    return anchors[:, 0], anchors[:, 1:], np.arange(len(anchors))


@jax.jit
def mask_extremes(mask, x, y) -> tuple[Float[Array, "C Y"], Float[Array, "C Y"]]:
    """Distance from each anchor to the nearest and the furthest pixel centre of the mask (inf and 0 if it is empty)."""
    height, width = mask.shape
    columns = jnp.arange(width, dtype=jnp.int16 if width < 2**13 else jnp.int32)  # short integers scan faster
    pixel = jnp.clip(jnp.floor(x), 0, width - 1).astype(jnp.int32)

    def across(column):
        distance = jnp.square(x[None] - (column.astype(x.dtype) + 0.5))
        return jnp.where((column >= 0) & (column < width), distance, jnp.inf)

    def visit(carry, block):
        near, far = carry
        rows, row_y = block
        # For every pixel: the last masked column up to it in its row, and the first from it on.
        left = jax.lax.cummax(jnp.where(rows, columns[None], -1), axis=1)
        right = jax.lax.cummin(jnp.where(rows, columns[None], width), axis=1, reverse=True)
        across_near = jnp.minimum(across(left[:, pixel]), across(right[:, pixel]))
        first, last = right[:, :1], left[:, -1:]
        across_far = jnp.where(first <= last, jnp.maximum(across(first), across(last)), -jnp.inf)
        for i in range(_BLOCK):
            down = jnp.square(y - row_y[i])
            near = jnp.minimum(near, across_near[i, :, None] + down)
            far = jnp.maximum(far, across_far[i, :, None] + down)
        return (near, far), None

    blocks = _blocks(mask, _BLOCK), _blocks(jnp.arange(height, dtype=x.dtype) + 0.5, _BLOCK)
    zeros = jnp.zeros_like(y) + _zero(mask, x, y).astype(y.dtype)
    (near, far), _ = jax.lax.scan(visit, (zeros + jnp.inf, zeros), blocks)
    return jnp.sqrt(near), jnp.sqrt(far)


@jax.jit
def mask_mean(mask: Bool[Array, "H W"], anchors: Float[Array, "A 2"]) -> Float[Array, "A"]:
    """Mean distance from each anchor to the mask's pixel centres: row by row, mask @ distances.

    The distances do not depend on the mask: under vmap they are computed once, and the product becomes one matrix
    multiplication for all masks.
    """
    height, width = mask.shape
    column_x = jnp.arange(width, dtype=anchors.dtype) + 0.5
    row_y = jnp.arange(height, dtype=anchors.dtype) + 0.5
    rows = mask.astype(anchors.dtype)

    def chunk_total(chunk):
        across = jnp.square(column_x[:, None] - chunk[:, 0][None])

        def visit(total, row):
            weights, y = row
            distance = jnp.sqrt(across + jnp.square(y - chunk[:, 1])[None])
            return total + jnp.matmul(weights, distance, precision=jax.lax.Precision.HIGHEST), None

        zeros = jnp.zeros_like(chunk[:, 0]) + _zero(mask, chunk).astype(chunk.dtype)
        return jax.lax.scan(visit, zeros, (rows, row_y))[0]

    count = -(-len(anchors) // _ANCHOR_CHUNK)
    size = -(-len(anchors) // count)
    padded = jnp.concatenate([anchors, jnp.broadcast_to(anchors[:1], (count * size - len(anchors), 2))])
    total = jax.lax.map(chunk_total, padded.reshape(count, size, 2)).reshape(-1)[: len(anchors)]
    return total / jnp.maximum(mask.sum(), 1).astype(total.dtype)
