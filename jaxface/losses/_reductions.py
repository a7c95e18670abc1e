"""The distances of _distances.py and _masks.py as accelerators want them: one reduction over all pairs.

Thousands of small steps, which keep a processor's registers full, keep a GPU waiting. There, each result is written as
a reduction over an array of pairs that is only ever an expression: compilers for accelerators fuse what makes a pair
into the reduction, so that arrays [A, N] are never stored (seen in what XLA compiles for an H100: the gradient for 64
faces of 8,897 points and 784 anchors takes 16 MB, where one such array would take 1.8 GB).
"""

import functools
import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def squared_distances(first: Float[Array, "M D"], second: Float[Array, "N D"]) -> Float[Array, "M N"]:
    """Of all pairs: written column by column, an expression that loops and reductions take in whole."""
    squared = [jnp.square(first[:, axis, None] - second[None, :, axis]) for axis in range(first.shape[1])]
    return functools.reduce(operator.add, squared)


def extreme(
    points: Float[Array, "N D"], anchors: Float[Array, "A D"], sign: float
) -> tuple[Float[Array, "A"], Int[Array, "A"]]:
    """The nearest (sign 1) or furthest (sign -1) distance from each anchor, and the first point that is so far away."""
    search = jax.lax.argmin if sign > 0 else jax.lax.argmax
    found = search(squared_distances(anchors, points), 1, jnp.int32)
    apart = [points[found, axis] - anchors[:, axis] for axis in range(points.shape[1])]
    return jnp.sqrt(sum(jnp.square(difference) for difference in apart)), found


def weighted_distance(
    points: Float[Array, "N D"], weights: Float[Array, "N"], anchors: Float[Array, "A D"]
) -> Float[Array, "A"]:
    """Sum of the distances from each anchor to all points, times the points' weights."""
    return jnp.sum(weights[None] * jnp.sqrt(squared_distances(anchors, points)), axis=1)


def pulls(points: Float[Array, "N D"], anchors: Float[Array, "A D"], slopes: Float[Array, "A"]) -> Float[Array, "N D"]:
    """What all anchors pull at each point along the lines between them: sum of slopes times directions."""
    # No `where(squared == 0, ...)`: XLA's compiler for GPUs would store that comparison, an array [N, A]. Of an anchor
    # on the point the difference below is zero, whatever this is.
    squared = jnp.maximum(squared_distances(points, anchors), jnp.finfo(points.dtype).tiny)
    strength = slopes[None] * jax.lax.rsqrt(squared)
    pulls = [strength * (points[:, axis, None] - anchors[None, :, axis]) for axis in range(points.shape[1])]
    # And one reduction for all axes: of several, it may store what they share.
    zeros = [jnp.zeros((), points.dtype)] * len(pulls)
    totals = jax.lax.reduce(pulls, zeros, lambda one, other: [a + b for a, b in zip(one, other, strict=True)], (1,))
    return jnp.stack(totals, axis=-1)


def outermost(points: Float[Array, "N 2"], directions: Float[Array, "2 M"]) -> Int[Array, "M"]:
    """The first of the points that lie furthest in each direction."""
    x, y = points[:, 0], points[:, 1]
    return jax.lax.argmax(x[None] * directions[0, :, None] + y[None] * directions[1, :, None], 1, jnp.int32)


def overhang(
    points: Float[Array, "N 2"], corners: Float[Array, "M 2"], edges: Float[Array, "M 2"]
) -> Float[Array, "N"]:
    """How far each point lies outside the lines from corners along edges of length one: at most, and at least 0."""
    across = (points[:, 0, None] - corners[None, :, 0]) * edges[None, :, 1]
    down = (points[:, 1, None] - corners[None, :, 1]) * edges[None, :, 0]
    return jnp.maximum(jnp.max(across - down, axis=1), 0.0)


def next_masked(mask: Bool[Array, "H W"]) -> tuple[Int[Array, "W H"], Int[Array, "W H"]]:
    """For every pixel the last masked column up to it in its row (-1: none), and the first from it on (W: none)."""
    width = mask.shape[1]
    columns = jnp.arange(width, dtype=jnp.int32)[:, None]
    left = jax.lax.cummax(jnp.where(mask.T, columns, -1), axis=0)
    right = jax.lax.cummin(jnp.where(mask.T, columns, width), axis=0, reverse=True)
    return left, right


def mask_extremes(
    near: Float[Array, "H C"], far: Float[Array, "H C"], y: Float[Array, "C Y"]
) -> tuple[Float[Array, "C Y"], Float[Array, "C Y"]]:
    """Squared distance of C x Y anchors to the nearest and the furthest pixel, of those in each row of the mask.

    Args:
        near: in x, squared, from each column of anchors to the nearest pixel of each row; inf if there is none.
        far: likewise to the furthest; -inf if there is none.
        y: of the anchors in each column.
    """
    row_y = jnp.arange(len(near), dtype=y.dtype) + 0.5
    down = jnp.square(y[:, :, None] - row_y[None, None])
    nearest = jnp.min(near.T[:, None] + down, axis=2)
    furthest = jnp.max(far.T[:, None] + down, axis=2)
    return nearest, jnp.maximum(furthest, 0.0)
