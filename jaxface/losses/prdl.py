"""Part Re-projection Distance Loss: the descriptors of 3DDFA-V3 (Wang et al. 2024, arXiv 2312.00311), exact and lean.

A set of points B is described by its nearest, furthest and mean Euclidean distance from each anchor a of a grid over
the image:

    f_min(a) = min_b |b - a|     f_max(a) = max_b |b - a|     f_ave(a) = mean_b |b - a|

PRDL compares that descriptor of a part's projected vertices with that of the part's pixels in the segmentation. Anchors
outside the part count as much as those inside: they see the part from afar, which is where PRDL's far-reaching gradient
comes from (for one anchor and f_min it is 2 (v - a) (d_target / d_pred - 1) up to sign, the paper's eq. 11).

All pairs of points and anchors are visited, none are stored: memory is O(A + N). Distances are taken from differences;
the expanded form |a|^2 + |v|^2 - 2 a.v loses every digit where an anchor nearly coincides with a point.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, Shaped

STATISTICS = ("min", "max", "mean")
"""The columns of a descriptor, in order."""

# Points (or anchors, in the backward pass; or rows of a mask) per step of a loop whose body is one fused elementwise
# kernel over all anchors (points). Larger blocks save traffic to the running minimum, maximum and sum, smaller ones
# compile faster.
_BLOCK = 8
_ANCHOR_CHUNK = 4096  # bounds the kernel matrix [W, chunk] that a mask row is multiplied with


def grid_anchors(height: int, width: int, stride: int = 1) -> Float[np.ndarray, "A 2"]:
    """Centres (x, y) of every `stride`-th pixel, row by row; the first is in the middle of the first stride x stride block.

    Stride 1 gives every pixel centre (0.5, 1.5, ...); stride 8 gives 4.5, 12.5, .... Rows and columns that do not fill a
    block at the end get no anchor, unless they are all there is.

    Returns:
        [A, 2] numpy array in pixels, A = max(1, height // stride) * max(1, width // stride): a constant, which lets
        `mask_descriptor` see that the anchors form a grid.
    """
    if min(height, width, stride) < 1:
        raise ValueError(f"height, width and stride must be positive, got {height}, {width}, {stride}")
    y, x = (np.arange(min(stride // 2, size - 1), size, stride, np.float32) + 0.5 for size in (height, width))
    y, x = y[: max(1, height // stride)], x[: max(1, width // stride)]
    return np.stack([np.tile(x, len(y)), np.repeat(y, len(x))], axis=-1)


def point_descriptor(
    points: Float[Array | np.ndarray, "N D"],
    anchors: Float[Array | np.ndarray, "A D"],
    mask: Shaped[Array | np.ndarray, "N"] | None = None,
) -> Float[Array, "A 3"]:
    """Nearest, furthest and mean distance from each anchor to a set of points (3DDFA-V3, section 3.3).

    Differentiable in the points only: anchors and mask are held fixed. f_min and f_max pass their gradient to the
    matched point, the first of them where several lie at exactly the same distance; a distance of zero has gradient
    zero. Works under jit, vmap, pmap and reverse-mode differentiation.

    Args:
        points: in pixels (any unit will do), in 2, 3 or more dimensions. bfloat16 is computed in float32.
        anchors: in the same unit and dimensions, see `grid_anchors`.
        mask: which points belong to the set; or non-negative weights of the points in the mean, where points of weight
            zero do not count for f_min and f_max either. Coordinates of points left out may be anything, even NaN.

    Returns:
        [A, 3] columns min, max, mean in the unit of the points. All zero for a set without points: no real set is at
        distance zero from everywhere. NaN everywhere if a coordinate is NaN or infinite.

    Raises:
        ValueError: when shapes do not fit together, or (outside jit) when a point's coordinate is not finite.
    """
    if np.ndim(points) != 2 or np.ndim(anchors) != 2 or np.shape(points)[1] != np.shape(anchors)[1]:
        raise ValueError(f"expected points [N, D] and anchors [A, D], got {np.shape(points)} and {np.shape(anchors)}")
    if mask is not None and np.shape(mask) != np.shape(points)[:1]:
        raise ValueError(f"expected a mask of shape {np.shape(points)[:1]}, one value per point, got {np.shape(mask)}")
    points = jnp.asarray(points)
    points = points.astype(jnp.promote_types(points.dtype, jnp.float32))
    anchors = jnp.asarray(anchors, points.dtype)
    if len(points) == 0:
        return jnp.zeros((len(anchors), 3), points.dtype)
    weights = jnp.ones(len(points), points.dtype) if mask is None else jnp.asarray(mask).astype(points.dtype)
    weights = jax.lax.stop_gradient(weights)
    valid = weights > 0
    some = valid.any()
    # Points left out take the place of the first that counts: nothing changes for f_min and f_max, and should one of
    # these copies be matched, its gradient flows to the original.
    first = jnp.where(some, points[jnp.argmax(valid)], 0.0)
    points = jnp.where(valid[:, None], points, first[None])
    _refuse_non_finite(points)
    weights = jnp.where(valid, weights, 0.0)
    weights = weights / jnp.where(some, weights.sum(), 1.0)
    return jnp.where(some, _statistics(points, weights, jax.lax.stop_gradient(anchors)), 0.0)


def mask_descriptor(
    mask: Shaped[Array | np.ndarray, "H W"], anchors: Float[Array | np.ndarray, "A 2"]
) -> Float[Array, "A 3"]:
    """Nearest, furthest and mean distance from each anchor to the pixel centres of a mask; exact, for any anchors.

    The same as `point_descriptor` of the mask's pixels, without visiting every pair for f_min and f_max: in one row of
    pixels the nearest is the next to the left or the right, and the furthest is the first or the last, so each costs
    one visit per anchor and ROW. Anchors known when the function is traced to form a grid (a constant array, as
    `grid_anchors` returns) share the search within the row. Differentiable in nothing.

    Args:
        mask: non-zero where a pixel belongs to the part.
        anchors: (x, y) in pixels, y down, pixel centres at (column + 0.5, row + 0.5).

    Returns:
        [A, 3] columns min, max, mean in pixels; all zero for an empty mask.

    Raises:
        ValueError: when shapes are not [H, W] and [A, 2].
    """
    if np.ndim(mask) != 2 or np.ndim(anchors) != 2 or np.shape(anchors)[1] != 2:
        raise ValueError(f"expected a mask [H, W] and anchors [A, 2], got {np.shape(mask)} and {np.shape(anchors)}")
    x, y, order = _anchor_columns(anchors)
    mask = jnp.asarray(mask).astype(bool)
    near, far = _row_extremes(mask, x, y)
    mean = _mean_distance(mask, jnp.asarray(anchors, x.dtype))
    descriptor = jnp.stack([near.reshape(-1)[order], far.reshape(-1)[order], mean], axis=-1)
    return jax.lax.stop_gradient(jnp.where(mask.any(), descriptor, 0.0))


def prdl_loss(
    points: Mapping[str, Float[Array, "B N D"]],
    targets: Mapping[str, Shaped[Array | np.ndarray, "B H W"]],
    *,
    anchors: Float[Array | np.ndarray, "A D"],
    weights: Mapping[str, float | Float[Array, "B"]] | None = None,
    point_masks: Mapping[str, Bool[Array, "B N"]] | None = None,
    statistics: Sequence[str] = STATISTICS,
) -> Float[Array, "B"]:
    """Part Re-projection Distance Loss: sum_p w_p |G(points_p) - G(target_p)|^2, averaged over the anchors.

    3DDFA-V3, section 3.3. The squared difference is summed over the statistics; the mean over the anchors is the paper's
    normalisation by H x W. Every point and every pixel counts: there is no farthest-point sampling. The paper's weight
    of the whole is 0.8e-3, for pixels of a 224 x 224 picture.

    Args:
        points: projected vertices of each part, in pixels, y down.
        targets: for each part of `points` its mask [B, H, W] (non-zero = part), or its descriptor [B, A, 3] from
            `mask_descriptor` or `point_descriptor`; an array of shape [B, A, 3] is taken for a descriptor. More parts
            than in `points` are ignored.
        anchors: [A, D] in pixels, usually `grid_anchors(height, width, stride)`.
        weights: w_p of each part, one number or one per sample; 1 for a part that is not listed. A part of a sample
            weighs nothing where its target is empty (a mask or a descriptor of zeros) or all its points are masked.
        point_masks: which points count, or their weights in f_ave; parts not listed count whole.
        statistics: which of "min", "max", "mean" to compare.

    Returns:
        [B] loss in square pixels. NaN where a coordinate that counts is NaN, so that a trainer can stop.

    Raises:
        ValueError: when parts, names or shapes do not fit together; outside jit also when a coordinate is not finite.
    """
    weights, point_masks = weights or {}, point_masks or {}
    _check_parts(points, targets, weights, point_masks, statistics)
    columns = np.array([STATISTICS.index(name) for name in statistics])
    described = _describe_targets({part: targets[part] for part in points}, anchors)
    losses = []
    for part, part_points in points.items():
        masks = point_masks.get(part)
        predicted = _describe_points(part, part_points, anchors, masks)
        target = jax.lax.stop_gradient(described[part].astype(predicted.dtype))
        if predicted.shape != target.shape:
            raise ValueError(f"{part}: the points give a descriptor {predicted.shape}, the target {target.shape}")
        squared = jnp.square(predicted - target)[:, :, columns].sum(-1).mean(-1)
        present = (target[:, :, 1] > 0).any(-1) & (predicted[:, :, 1] != 0).any(-1)  # NaN counts as present
        weight = jnp.where(present, jnp.asarray(weights.get(part, 1.0), squared.dtype), 0.0)
        losses.append(weight * squared)
    return jnp.stack(losses).sum(0)


def _refuse_non_finite(points: Float[Array, "*B N D"]) -> None:
    if not isinstance(points, jax.core.Tracer) and not bool(jnp.isfinite(points).all()):
        raise ValueError("points must be finite; leave out those that are not with a mask")


def _check_parts(points, targets, weights, point_masks, statistics) -> None:
    if not points:
        raise ValueError("points names no part")
    if missing := [part for part in points if part not in targets]:
        raise ValueError(f"no target for the part(s) {missing}; targets has {list(targets)}")
    if unknown := [part for part in [*weights, *point_masks] if part not in points]:
        raise ValueError(f"weights or point_masks name part(s) {unknown}; points has {list(points)}")
    if not statistics or not set(statistics) <= set(STATISTICS):
        raise ValueError(f"statistics must name some of {STATISTICS}, got {statistics!r}")


def _describe_points(part, points, anchors, mask) -> Float[Array, "B A 3"]:
    if np.ndim(points) != 3 or (mask is not None and np.shape(mask) != np.shape(points)[:2]):
        raise ValueError(f"{part}: expected points [B, N, D] and mask [B, N], got {np.shape(points)}, {np.shape(mask)}")
    if mask is None:
        _refuse_non_finite(jnp.asarray(points))
        return jax.vmap(lambda p: point_descriptor(p, anchors))(points)
    return jax.vmap(lambda p, m: point_descriptor(p, anchors, m))(points, mask)


def _describe_targets(targets, anchors) -> dict[str, Float[Array, "B A 3"]]:
    described, masks = {}, {}
    for part, target in targets.items():
        if np.ndim(target) != 3:
            raise ValueError(f"{part}: expected a mask [B, H, W] or a descriptor [B, A, 3], got {np.shape(target)}")
        kind = described if np.shape(target)[1:] == (len(anchors), 3) else masks
        kind[part] = jnp.asarray(target)
    if masks:  # in one call, so that the parts share the distances from pixels to anchors
        if len({mask.shape for mask in masks.values()}) > 1:
            raise ValueError(f"masks differ in shape: { {part: mask.shape for part, mask in masks.items()} }")
        stacked = jnp.stack([mask.astype(bool) for mask in masks.values()])
        results = jax.vmap(jax.vmap(lambda mask: mask_descriptor(mask, anchors)))(stacked)
        described |= dict(zip(masks, results, strict=True))
    return described


def _blocks(array: Shaped[Array, "N ..."], fill: Array) -> Shaped[Array, "M block ..."]:
    """Cuts the first axis into blocks of _BLOCK; the last one is filled up with `fill`."""
    count = -(-len(array) // _BLOCK)
    padding = jnp.broadcast_to(fill, (count * _BLOCK - len(array), *array.shape[1:]))
    return jnp.concatenate([array, padding]).reshape(count, _BLOCK, *array.shape[1:])


def _squared_distance(point: Float[Array, "D"], others: Float[Array, "N D"]) -> Float[Array, "N"]:
    return sum(jnp.square(point[axis] - others[:, axis]) for axis in range(others.shape[1]))


@jax.jit
def _scan_points(points, weights, anchors):
    """One visit to every pair: the statistics [A, 3] and the indices [A] of the nearest and the furthest point.

    A loop over blocks of points whose body is elementwise over the anchors: XLA makes one vectorised kernel of it on
    every device, where reductions along rows of an [A, N] array stay scalar on CPUs (measured: 12 times slower).
    """

    def visit(carry, block):
        near, nearest, far, furthest, total = carry
        block_points, block_weights, start = block
        added = jnp.zeros_like(total)
        for i in range(_BLOCK):
            squared = _squared_distance(block_points[i], anchors)
            closer, further = squared < near, squared > far
            near, nearest = jnp.where(closer, squared, near), jnp.where(closer, start + i, nearest)
            far, furthest = jnp.where(further, squared, far), jnp.where(further, start + i, furthest)
            added += block_weights[i] * jnp.sqrt(squared)
        return (near, nearest, far, furthest, total + added), None

    zeros, index = jnp.zeros_like(anchors[:, 0]), jnp.zeros(len(anchors), jnp.int32)
    blocks = _blocks(points, points[:1]), _blocks(weights, weights[:1] * 0)
    starts = _BLOCK * jnp.arange(len(blocks[0]), dtype=jnp.int32)
    start = (zeros + jnp.inf, index, zeros - 1.0, index, zeros)
    (near, nearest, far, furthest, total), _ = jax.lax.scan(visit, start, (*blocks, starts))
    statistics = jnp.stack([jnp.sqrt(near), jnp.sqrt(far), total], axis=-1)
    # Comparisons skip NaN, the sum does not.
    return jnp.where(jnp.isfinite(total)[:, None], statistics, jnp.nan), nearest, furthest


@jax.custom_vjp
def _statistics(points: Float[Array, "N D"], weights: Float[Array, "N"], anchors: Float[Array, "A D"]):
    """[A, 3] nearest, furthest and weighted mean distance; the weights sum to one and the first point counts."""
    return _scan_points(points, weights, anchors)[0]


def _statistics_forward(points, weights, anchors):
    statistics, nearest, furthest = _scan_points(points, weights, anchors)
    return statistics, (points, weights, anchors, statistics, nearest, furthest)


@jax.jit
def _statistics_backward(saved, cotangent):
    points, weights, anchors, statistics, nearest, furthest = saved
    gradient = weights[:, None] * _scan_anchors(points, anchors, cotangent[:, 2])
    for column, matched in ((0, nearest), (1, furthest)):
        distance = statistics[:, column]
        slope = jnp.where(distance == 0, 0.0, cotangent[:, column] / jnp.where(distance == 0, 1.0, distance))
        gradient = gradient.at[matched].add(slope[:, None] * (points[matched] - anchors))
    return gradient, jnp.zeros_like(weights), jnp.zeros_like(anchors)


_statistics.defvjp(_statistics_forward, _statistics_backward)


def _scan_anchors(points, anchors, cotangent) -> Float[Array, "N D"]:
    """sum_a cotangent_a d|v - a| / dv for every point v: one visit to every pair, elementwise over the points."""

    def visit(totals, block):
        block_anchors, slopes = block
        added = [jnp.zeros_like(total) for total in totals]
        for i in range(_BLOCK):
            squared = _squared_distance(block_anchors[i], points)
            slope = slopes[i] * jax.lax.rsqrt(jnp.where(squared == 0, 1.0, squared))
            added = [a + slope * (points[:, axis] - block_anchors[i, axis]) for axis, a in enumerate(added)]
        return [total + a for total, a in zip(totals, added, strict=True)], None

    start = [jnp.zeros_like(points[:, 0])] * points.shape[1]
    blocks = _blocks(anchors, anchors[:1]), _blocks(cotangent, cotangent[:1] * 0)
    totals, _ = jax.lax.scan(visit, start, blocks)
    return jnp.stack(totals, axis=-1)


def _anchor_columns(anchors) -> tuple[Float[Array, "C"], Float[Array, "C Y"], Integer[np.ndarray, "A"]]:
    """Anchors as columns of equal x: x per column, y within it, and where each anchor is found in the flattened y.

    A constant grid has few columns; anything else is treated as A columns of one anchor each.
    """
    if not isinstance(anchors, jax.core.Tracer):
        values = np.asarray(anchors)
        x, column = np.unique(values[:, 0], return_inverse=True)
        y, row = np.unique(values[:, 1], return_inverse=True)
        if len(x) * len(y) <= 2 * len(values):
            return jnp.asarray(x), jnp.tile(jnp.asarray(y)[None], (len(x), 1)), column * len(y) + row
    anchors = jnp.asarray(anchors)
    return anchors[:, 0], anchors[:, 1:], np.arange(len(anchors))


@jax.jit
def _row_extremes(mask, x, y) -> tuple[Float[Array, "C Y"], Float[Array, "C Y"]]:
    """Distance from each anchor to the nearest and the furthest pixel centre of the mask (inf and 0 if it is empty)."""
    height, width = mask.shape
    centers = jnp.broadcast_to(jnp.arange(width, dtype=x.dtype) + 0.5, (height, width))
    # For every pixel: the last masked pixel up to it in its row, and the first from it on.
    left = jax.lax.cummax(jnp.where(mask, centers, -jnp.inf), axis=1)
    right = jax.lax.cummin(jnp.where(mask, centers, jnp.inf), axis=1, reverse=True)
    pixel = jnp.clip(jnp.floor(x), 0, width - 1).astype(jnp.int32)

    def visit(carry, block):
        near, far = carry
        for i in range(_BLOCK):
            left, right, row_y = (values[i] for values in block)
            first, last = right[0], left[-1]
            across_near = jnp.minimum(jnp.square(x - left[pixel]), jnp.square(x - right[pixel]))
            across_far = jnp.maximum(jnp.square(x - first), jnp.square(x - last))
            across_far = jnp.where(first <= last, across_far, -jnp.inf)
            down = jnp.square(y - row_y)
            near, far = jnp.minimum(near, across_near[:, None] + down), jnp.maximum(far, across_far[:, None] + down)
        return (near, far), None

    rows = jnp.arange(height, dtype=x.dtype) + 0.5
    blocks = (_blocks(left, -jnp.inf), _blocks(right, jnp.inf), _blocks(rows, 0.0))
    (near, far), _ = jax.lax.scan(visit, (jnp.full_like(y, jnp.inf), jnp.zeros_like(y)), blocks)
    return jnp.sqrt(near), jnp.sqrt(far)


@jax.jit
def _mean_distance(mask: Bool[Array, "H W"], anchors: Float[Array, "A 2"]) -> Float[Array, "A"]:
    """Mean distance from each anchor to the mask's pixel centres: row by row, mask @ distances.

    The distances do not depend on the mask: under vmap they are computed once, and the product becomes one matrix
    multiplication for all masks.
    """
    height, width = mask.shape
    columns = jnp.arange(width, dtype=anchors.dtype) + 0.5
    rows = jnp.arange(height, dtype=anchors.dtype) + 0.5
    weights = mask.astype(anchors.dtype) / jnp.maximum(mask.sum(), 1).astype(anchors.dtype)

    def chunk_mean(chunk):
        across = jnp.square(columns[:, None] - chunk[:, 0][None])

        def visit(total, row):
            row_y, row_weights = row
            distance = jnp.sqrt(across + jnp.square(row_y - chunk[:, 1])[None])
            return total + jnp.matmul(row_weights, distance, precision=jax.lax.Precision.HIGHEST), None

        return jax.lax.scan(visit, jnp.zeros_like(chunk[:, 0]), (rows, weights))[0]

    count = -(-len(anchors) // _ANCHOR_CHUNK)
    size = -(-len(anchors) // count)
    padded = jnp.concatenate([anchors, jnp.broadcast_to(anchors[:1], (count * size - len(anchors), 2))])
    return jax.lax.map(chunk_mean, padded.reshape(count, size, 2)).reshape(-1)[: len(anchors)]
