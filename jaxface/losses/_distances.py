"""The three distances that PRDL is made of, from a set of points to anchors anywhere: loops over all pairs on CPUs.

XLA turns the loops' bodies into vectorised kernels, and no array of anchors times points is ever stored. Accelerators
have a way of their own, in _reductions.py; which one a program takes is settled when it is lowered for a platform. What
a regular grid of anchors makes cheaper is in _grids.py and _masks.py.
"""

import functools
import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from jaxface.core.platforms import by_platform
from jaxface.losses import _reductions

# Every loop takes a block per step, unrolled. Larger blocks are no faster and compile later (measured on CPU), but from
# 16 anchors on XLA stops computing the slopes of a block once per coordinate.
_BLOCK = 8
_ANCHOR_BLOCK = 16

_Saved = tuple[Float[Array, "N D"], Float[Array, "A D"], Float[Array, "A"], Int[Array, "A"]]
_SavedForMean = tuple[Float[Array, "N D"], Float[Array, "N"], Float[Array, "A D"]]


def blocks(array: Shaped[Array, "N ..."], size: int, fill: Array | float = 0) -> Shaped[Array, "M size ..."]:
    """Cuts the first axis into blocks; the last one is filled up with `fill`."""
    count = -(-len(array) // size)
    padding = jnp.broadcast_to(jnp.asarray(fill, array.dtype), (count * size - len(array), *array.shape[1:]))
    return jnp.concatenate([array, padding]).reshape(count, size, *array.shape[1:])


def zero(*arrays: Shaped[Array, "..."]) -> Float[Array, ""]:
    """0.0, made from the arrays so that a loop can start from it under shard_map: it varies over devices as they do."""
    return sum((jnp.where(array.ravel()[0] > 0, 0.0, 0.0) for array in arrays), start=jnp.zeros(()))


def _sum(terms: list[Array]) -> Array:
    return functools.reduce(operator.add, terms)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def nearest_distance(
    points: Float[Array, "N D"], anchors: Float[Array, "A D"], columns: int | None = None
) -> Float[Array, "A"]:
    """Distance from each anchor to the nearest point.

    Args:
        points: the set.
        anchors: where the distance is taken from.
        columns: if the anchors form a grid that is listed row by row: its number of columns. Then x and y differences
            are squared once per column and row, and a pair costs one addition and one comparison.
    """
    return _search(points, anchors, columns, 1.0)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def furthest_distance(
    points: Float[Array, "N D"], anchors: Float[Array, "A D"], columns: int | None = None
) -> Float[Array, "A"]:
    """Distance from each anchor to the furthest point; see `nearest_distance`."""
    return _search(points, anchors, columns, -1.0)[0]


def _search(
    points: Float[Array, "N D"], anchors: Float[Array, "A D"], columns: int | None, sign: float
) -> tuple[Float[Array, "A"], Int[Array, "A"]]:
    """The nearest (sign 1) or furthest (sign -1) distance, and what `_matched_points` needs to know of the point."""
    loop = functools.partial(_search_in_blocks, columns=columns, sign=sign)
    reduction = functools.partial(_reductions.extreme, sign=sign)
    return by_platform(loop, reduction, points, anchors)


def _search_in_blocks(
    points: Float[Array, "N D"], anchors: Float[Array, "A D"], columns: int | None, sign: float
) -> tuple[Float[Array, "A"], Int[Array, "A"]]:
    """The extreme distance and the block in which the point was found."""

    def squared_in_block(block: Float[Array, "block D"]) -> list[Float[Array, "..."]]:
        if columns is None:
            return list(_reductions.squared_distances(block, anchors))
        across = jnp.square(block[:, 0, None] - anchors[None, :columns, 0])
        down = jnp.square(block[:, 1, None] - anchors[None, ::columns, 1])
        return [down[k][:, None] + across[k][None] for k in range(_BLOCK)]

    better = jnp.minimum if sign > 0 else jnp.maximum

    def visit(
        carry: tuple[Float[Array, "*A"], Int[Array, "*A"]], item: tuple[Float[Array, "block D"], Int[Array, ""]]
    ) -> tuple[tuple[Float[Array, "*A"], Int[Array, "*A"]], None]:
        best, found = carry
        block, number = item
        # The barrier keeps XLA from computing the distances a second time for `found`.
        new = jax.lax.optimization_barrier(functools.reduce(better, [best, *squared_in_block(block)]))
        return (new, jnp.where(new != best, number, found)), None

    shape = (len(anchors),) if columns is None else (len(anchors) // columns, columns)
    nothing = zero(points, anchors).astype(points.dtype)
    start = jnp.broadcast_to(nothing + (jnp.inf if sign > 0 else -1.0), shape)
    items = blocks(points, _BLOCK, points[:1])
    numbers = jnp.arange(len(items), dtype=jnp.int32)
    found = jnp.broadcast_to(nothing.astype(jnp.int32), shape)
    (best, found), _ = jax.lax.scan(visit, (start, found), (items, numbers))
    return jnp.sqrt(best).reshape(-1), found.reshape(-1)


def _forward(
    sign: float, points: Float[Array, "N D"], anchors: Float[Array, "A D"], columns: int | None
) -> tuple[Float[Array, "A"], _Saved]:
    distance, found = _search(points, anchors, columns, sign)
    return distance, (points, anchors, distance, found)


def _backward(
    sign: float, columns: int | None, saved: _Saved, cotangent: Float[Array, "A"]
) -> tuple[Float[Array, "N D"], Float[Array, "A D"]]:
    points, anchors, distance, found = saved

    def loop(found: Int[Array, "A"]) -> Int[Array, "A"]:
        return _matched_points(points, anchors, found, sign)

    matched = by_platform(loop, lambda found: found, found)
    slope = jnp.where(distance == 0, 0.0, cotangent / jnp.where(distance == 0, 1.0, distance))
    pulls = [slope * (points[matched, axis] - anchors[:, axis]) for axis in range(points.shape[1])]
    gradient = jnp.stack([jnp.zeros_like(points[:, 0]).at[matched].add(pull) for pull in pulls], axis=-1)
    return gradient, jnp.zeros_like(anchors)


def _matched_points(
    points: Float[Array, "N D"], anchors: Float[Array, "A D"], found: Int[Array, "A"], sign: float
) -> Int[Array, "A"]:
    """Which point of its block each anchor found: the first one at the least (sign -1: greatest) distance."""
    members = blocks(points, _BLOCK, points[:1]).transpose(1, 2, 0)

    def visit(
        carry: tuple[Float[Array, "A"], Int[Array, "A"]], item: tuple[Int[Array, ""], Float[Array, "D M"]]
    ) -> tuple[tuple[Float[Array, "A"], Int[Array, "A"]], None]:
        best, chosen = carry
        offset, member = item
        squared = _sum([jnp.square(member[axis][found] - anchors[:, axis]) for axis in range(points.shape[1])])
        squared = jax.lax.optimization_barrier(sign * squared)
        return (jnp.minimum(best, squared), jnp.where(squared < best, offset, chosen)), None

    start = (jnp.full_like(anchors[:, 0], jnp.inf) + zero(points, anchors).astype(points.dtype), jnp.zeros_like(found))
    (_, chosen), _ = jax.lax.scan(visit, start, (jnp.arange(_BLOCK, dtype=jnp.int32), members))
    matched = _BLOCK * found + chosen
    return jnp.where(matched < len(points), matched, 0)  # the padding repeats the first point


nearest_distance.defvjp(functools.partial(_forward, 1.0), functools.partial(_backward, 1.0))
furthest_distance.defvjp(functools.partial(_forward, -1.0), functools.partial(_backward, -1.0))


@jax.custom_vjp
def mean_distance(
    points: Float[Array, "N D"], weights: Float[Array, "N"], anchors: Float[Array, "A D"]
) -> Float[Array, "A"]:
    """Weighted sum of the distances from each anchor to all points: their mean if the weights sum to one."""
    reduction = _reductions.weighted_distance
    return by_platform(_mean_in_blocks, reduction, points, weights, anchors)


def _mean_in_blocks(
    points: Float[Array, "N D"], weights: Float[Array, "N"], anchors: Float[Array, "A D"]
) -> Float[Array, "A"]:
    def visit(
        total: Float[Array, "A"], block: tuple[Float[Array, "block D"], Float[Array, "block"]]
    ) -> tuple[Float[Array, "A"], None]:
        block_points, block_weights = block
        distances = jnp.sqrt(_reductions.squared_distances(block_points, anchors))
        return total + _sum([block_weights[k] * distances[k] for k in range(_BLOCK)]), None

    start = jnp.zeros_like(anchors[:, 0]) + zero(points, weights, anchors).astype(anchors.dtype)
    return jax.lax.scan(visit, start, (blocks(points, _BLOCK), blocks(weights, _BLOCK)))[0]


def _mean_forward(
    points: Float[Array, "N D"], weights: Float[Array, "N"], anchors: Float[Array, "A D"]
) -> tuple[Float[Array, "A"], _SavedForMean]:
    return mean_distance(points, weights, anchors), (points, weights, anchors)


def _mean_backward(
    saved: _SavedForMean, cotangent: Float[Array, "A"]
) -> tuple[Float[Array, "N D"], Float[Array, "N"], Float[Array, "A D"]]:
    """Every anchor pulls every point along the line between them."""
    points, weights, anchors = saved
    total = by_platform(_pulls_in_blocks, _reductions.pulls, points, anchors, cotangent)
    return weights[:, None] * total, jnp.zeros_like(weights), jnp.zeros_like(anchors)


def _pulls_in_blocks(
    points: Float[Array, "N D"], anchors: Float[Array, "A D"], slopes: Float[Array, "A"]
) -> Float[Array, "N D"]:
    """See `_reductions.pulls`; elementwise over the points."""

    def visit(
        totals: list[Float[Array, "N"]], block: tuple[Float[Array, "block D"], Float[Array, "block"]]
    ) -> tuple[list[Float[Array, "N"]], None]:
        block_anchors, block_slopes = block
        squared = _reductions.squared_distances(block_anchors, points)
        pulls = block_slopes[:, None] * jax.lax.rsqrt(jnp.where(squared == 0, 1.0, squared))
        added = [
            _sum([pulls[k] * (points[:, axis] - block_anchors[k, axis]) for k in range(_ANCHOR_BLOCK)])
            for axis in range(len(totals))
        ]
        return [total + a for total, a in zip(totals, added, strict=True)], None

    start = [jnp.zeros_like(points[:, 0]) + zero(points, anchors, slopes).astype(points.dtype)] * points.shape[1]
    totals, _ = jax.lax.scan(visit, start, (blocks(anchors, _ANCHOR_BLOCK), blocks(slopes, _ANCHOR_BLOCK)))
    return jnp.stack(totals, axis=-1)


mean_distance.defvjp(_mean_forward, _mean_backward)
