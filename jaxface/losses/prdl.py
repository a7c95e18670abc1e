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
from jaxtyping import Array, Bool, Float, Shaped

from jaxface.losses import _distances

STATISTICS = ("min", "max", "mean")
"""The columns of a descriptor, in order."""


def grid_anchors(height: int, width: int, stride: int = 1) -> Float[np.ndarray, "A 2"]:
    """Centres (x, y) of every `stride`-th pixel, row by row, beginning in the middle of the first block of pixels.

    Stride 1 gives every pixel centre (0.5, 1.5, ...), stride 8 gives 4.5, 12.5, .... Rows and columns at the end that
    do not fill a block get no anchor, unless they are all there is.

    Returns:
        [A, 2] numpy array in pixels, A = max(1, height // stride) * max(1, width // stride): a constant, which lets
        `mask_descriptor` see that the anchors form a grid.
    """
    if min(height, width, stride) < 1:
        raise ValueError(f"height, width and stride must be positive, got {height}, {width}, {stride}")
    y, x = (min(stride // 2, n - 1) + 0.5 + stride * np.arange(max(1, n // stride)) for n in (height, width))
    return np.stack([np.tile(x, len(y)), np.repeat(y, len(x))], axis=-1).astype(np.float32)


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
    _refuse_non_finite(points, mask)
    members, weights, some = _members(points, mask)
    anchors = jax.lax.stop_gradient(jnp.asarray(anchors, members.dtype))
    return jnp.where(some, _distances.point_statistics(members, weights, anchors), 0.0)


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
    x, y, order = _distances.anchor_columns(anchors)
    mask = jnp.asarray(mask).astype(bool)
    near, far = _distances.mask_extremes(mask, x, y)
    mean = _distances.mask_mean(mask, jnp.asarray(anchors, x.dtype))
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

    3DDFA-V3, section 3.3. The squared difference is summed over the statistics; the mean over the anchors is the
    paper's normalisation by H x W. Every point and every pixel counts: there is no farthest-point sampling. The
    paper's weight of the whole is 0.8e-3, for pixels of a 224 x 224 picture.

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
    _check_parts(points, targets, anchors, weights, point_masks, statistics)
    columns = np.array([STATISTICS.index(name) for name in statistics])
    predicted = _describe_points(points, point_masks, anchors)
    described = _describe_targets({part: targets[part] for part in points}, anchors)
    losses = []
    for part, (descriptor, some) in predicted.items():
        target = jax.lax.stop_gradient(described[part].astype(descriptor.dtype))
        if descriptor.shape != target.shape:
            raise ValueError(f"{part}: the points give a descriptor {descriptor.shape}, the target {target.shape}")
        squared = jnp.square(descriptor - target)[:, :, columns].sum(-1).mean(-1)
        present = some & (target[:, :, 1] != 0).any(-1)
        weight = jnp.asarray(weights.get(part, 1.0), squared.dtype)
        losses.append(jnp.where(present, weight, 0.0) * squared)
    return jnp.stack(losses).sum(0)


def _members(points, mask) -> tuple[Float[Array, "N D"], Float[Array, "N"], Bool[Array, ""]]:
    """The points that count, in float32 or better, their weights with sum one, and whether there are any at all."""
    points = jnp.asarray(points)
    points = points.astype(jnp.promote_types(points.dtype, jnp.float32))
    if len(points) == 0:
        return jnp.zeros((1, points.shape[1]), points.dtype), jnp.zeros(1, points.dtype), jnp.asarray(False)
    if mask is None:
        return points, jnp.full(len(points), 1.0 / len(points), points.dtype), jnp.asarray(True)
    weights = jax.lax.stop_gradient(jnp.asarray(mask).astype(points.dtype))
    valid = weights > 0
    some = valid.any()
    # Points left out take the place of the first that counts: nothing changes for f_min and f_max, and should one of
    # these copies be matched, its gradient flows to the original.
    first = jnp.where(some, points[jnp.argmax(valid)], 0.0)
    weights = jnp.where(valid, weights, 0.0)
    return jnp.where(valid[:, None], points, first[None]), weights / jnp.where(some, weights.sum(), 1.0), some


def _refuse_non_finite(points, mask) -> None:
    """Raises for NaN and infinity where values are known (outside jit); inside, they make the loss NaN."""
    if isinstance(points, jax.core.Tracer) or isinstance(mask, jax.core.Tracer):
        return
    counts = True if mask is None else np.asarray(mask)[..., None] > 0
    if not np.isfinite(np.asarray(points, np.float32)).all(where=counts):
        raise ValueError("points must be finite; leave out those that are not with a mask")


def _check_parts(points, targets, anchors, weights, point_masks, statistics) -> None:
    """Names what does not fit, before shapes fail somewhere deep inside."""
    if not points:
        raise ValueError("points names no part")
    if missing := [part for part in points if part not in targets]:
        raise ValueError(f"no target for the part(s) {missing}; targets has {list(targets)}")
    if unknown := [part for part in [*weights, *point_masks] if part not in points]:
        raise ValueError(f"weights or point_masks name part(s) {unknown}; points has {list(points)}")
    if not statistics or not set(statistics) <= set(STATISTICS):
        raise ValueError(f"statistics must name some of {STATISTICS}, got {statistics!r}")
    batch, dimensions = np.shape(next(iter(points.values())))[0], np.shape(anchors)[-1]
    if np.ndim(anchors) != 2 or len(anchors) == 0:
        raise ValueError(f"expected anchors [A, D], got {np.shape(anchors)}")
    for part, array in points.items():
        if np.ndim(array) != 3 or np.shape(array)[::2] != (batch, dimensions) or len(targets[part]) != batch:
            shapes = f"points {np.shape(array)} and a target {np.shape(targets[part])}"
            raise ValueError(
                f"{part}: expected points [{batch}, N, {dimensions}] and a target [{batch}, ...], got {shapes}"
            )
        if part in point_masks and np.shape(point_masks[part]) != np.shape(array)[:2]:
            raise ValueError(f"{part}: expected a mask {np.shape(array)[:2]}, got {np.shape(point_masks[part])}")
        if np.shape(weights.get(part, 1.0)) not in ((), (batch,)):
            raise ValueError(f"{part}: expected one weight or [{batch}], got shape {np.shape(weights[part])}")


def _describe_points(points, point_masks, anchors) -> dict[str, tuple[Float[Array, "B A 3"], Bool[Array, "B"]]]:
    """Descriptor of every part, and whether it has any points.

    Parts of like size are padded to the same and share one loop, which compiles sooner.
    """
    groups: list[list[str]] = []
    for part in sorted(points, key=lambda part: -np.shape(points[part])[1]):
        if groups and 2 * np.shape(points[part])[1] >= np.shape(points[groups[-1][0]])[1]:
            groups[-1].append(part)
        else:
            groups.append([part])
    described: dict[str, tuple[Array, Array]] = {}
    for group in groups:
        padded, size = [], max(1, np.shape(points[group[0]])[1])
        for part in group:
            mask = point_masks.get(part)
            _refuse_non_finite(points[part], mask)
            members, weights, some = jax.vmap(_members, in_axes=(0, None if mask is None else 0))(points[part], mask)
            padded.append((_pad(members, members[:, :1], size), _pad(weights, weights[:, :1] * 0, size), some))
        members, weights, some = (jnp.stack(arrays) for arrays in zip(*padded, strict=True))
        describe = _distances.point_statistics
        for _ in ("batch", "parts"):
            describe = jax.vmap(describe, in_axes=(0, 0, None))
        descriptors = describe(members, weights, jax.lax.stop_gradient(jnp.asarray(anchors, members.dtype)))
        results = jnp.where(some[..., None, None], descriptors, 0.0)
        described |= dict(zip(group, zip(results, some, strict=True), strict=True))
    return {part: described[part] for part in points}


def _pad(array: Float[Array, "B N ..."], fill: Float[Array, "B 1 ..."], size: int) -> Float[Array, "B size ..."]:
    missing = (fill.shape[0], size - array.shape[1], *fill.shape[2:])
    return jnp.concatenate([array, jnp.broadcast_to(fill, missing)], axis=1)


def _describe_targets(targets, anchors) -> dict[str, Float[Array, "B A 3"]]:
    described: dict[str, Array] = {}
    masks: dict[str, Array] = {}
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
