"""Part Re-projection Distance Loss: the descriptors of 3DDFA-V3 (Wang et al. 2024, arXiv 2312.00311), exact and lean.

A set of points B is described by its nearest, furthest and mean Euclidean distance from each anchor a of a grid over
the image:

    f_min(a) = min_b |b - a|     f_max(a) = max_b |b - a|     f_ave(a) = mean_b |b - a|

PRDL compares that descriptor of a part's projected vertices with that of the part's pixels in the segmentation. Anchors
outside the part count as much as those inside: they see the part from afar, which is where PRDL's far-reaching gradient
comes from (for one anchor and f_min it is 2 (v - a) (d_target / d_pred - 1) up to sign, the paper's eq. 11).

Memory is O(A + N): no array of anchors times points is stored. On a fine regular grid of anchors only f_min visits the
pairs, at one addition and one comparison each; f_ave is a convolution and f_max needs only the outermost points (see
_grids.py). Distances are taken from differences; the expanded form |a|^2 + |v|^2 - 2 a.v loses every digit where an
anchor nearly coincides with a point.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from jaxface.losses import _distances, _grids, _masks
from jaxface.losses._nearest_pixels import anchor_places
from jaxface.losses._part_sets import PointMasks, Points, Targets, Weights, check_parts, refuse_non_finite

Anchors = Float[Array | np.ndarray, "A D"]
Implementation = Literal["xla", "reference"]
Describe = Callable[[Float[Array, "N D"], Float[Array, "N"]], Float[Array, "A S"]]
Columns = dict[str, Callable[[], Float[Array, "A"]]]

STATISTICS: tuple[str, ...] = ("min", "max", "mean")
"""The columns of a descriptor, in order."""

FEW_ANCHORS = 1024
"""Up to so many, visiting all pairs is quicker than the convolution (measured on CPU), and exact."""

FEW_POINTS = 32
"""So few points, and all pairs are quicker too."""


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
    y, x = (anchor_places(count, stride) + 0.5 for count in (height, width))
    return np.stack([np.tile(x, len(y)), np.repeat(y, len(x))], axis=-1).astype(np.float32)


def point_descriptor(
    points: Float[Array | np.ndarray, "N D"],
    anchors: Float[Array | np.ndarray, "A D"],
    mask: Shaped[Array | np.ndarray, "N"] | None = None,
    *,
    exact: bool = False,
    implementation: Implementation = "xla",
) -> Float[Array, "A 3"]:
    """Nearest, furthest and mean distance from each anchor to a set of points (3DDFA-V3, eq. 5).

    Differentiable in the points only: anchors and mask are held fixed. f_min and f_max pass their gradient to the
    matched point, the first of them where several lie at exactly the same distance; a distance of zero has gradient
    zero. Works under jit, vmap, pmap and reverse-mode differentiation.

    Args:
        points: in pixels (any unit will do), in 2, 3 or more dimensions. bfloat16 is computed in float32.
        anchors: in the same unit and dimensions, see `grid_anchors`. A grid is recognised, and made use of, if its
            values are known when the function is traced: pass it as a numpy array, not as an argument of jit.
        mask: which points belong to the set; or non-negative weights of the points in the mean, where points of weight
            zero do not count for f_min and f_max either. Coordinates of points left out may be anything, even NaN.
        exact: visit all pairs also for f_max and f_ave on a grid of more than a thousand anchors. Otherwise they are
            right to a few thousandths of the grid's spacing there, and everything else is exact anyway.
        implementation: "reference" is the definition in plain array operations, with arrays [A, N]: for tests.

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
    refuse_non_finite(points, mask)
    describe = _describer(anchors, STATISTICS, exact, implementation)
    members, weights, some = _members(points, mask)
    return jnp.where(some, describe(members, weights), 0.0)


def mask_descriptor(
    mask: Shaped[Array | np.ndarray, "H W"], anchors: Float[Array | np.ndarray, "A 2"]
) -> Float[Array, "A 3"]:
    """Nearest, furthest and mean distance from each anchor to the pixel centres of a mask; exact, for any anchors.

    The same as `point_descriptor` of the mask's pixels, without visiting every pair for f_min and f_max: in one row of
    pixels the nearest is the next to the left or the right, and the furthest is the first or the last, so each costs
    one visit per anchor and ROW. Anchors known when the function is traced to form a grid (a constant array, as
    `grid_anchors` returns) share the search within the row, and a fine grid of pixel centres gets f_ave by FFT.
    Differentiable in nothing.

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
    grid = _grids.find_grid(anchors)
    mask = jnp.asarray(mask).astype(bool)
    points = jnp.asarray(anchors)
    points = points.astype(jnp.promote_types(points.dtype, jnp.float32))
    near, far = _masks.mask_extremes(mask, points, grid)
    if grid is not None and len(points) > FEW_ANCHORS and _masks.at_pixel_centers(grid, mask.shape):
        mean = _masks.grid_mask_mean(mask, grid, points.dtype)
    else:
        mean = _masks.mask_mean(mask, points)
    return jax.lax.stop_gradient(jnp.where(mask.any(), jnp.stack([near, far, mean], axis=-1), 0.0))


def prdl_loss(
    points: Points,
    targets: Targets,
    *,
    anchors: Float[Array | np.ndarray, "A D"],
    weights: Weights | None = None,
    point_masks: PointMasks | None = None,
    statistics: Sequence[str] | Mapping[str, Sequence[str]] = STATISTICS,
    exact: bool = False,
    implementation: Implementation = "xla",
) -> Float[Array, "B"]:
    """Part Re-projection Distance Loss: sum_p w_p |G(points_p) - G(target_p)|^2, averaged over the anchors.

    3DDFA-V3, eq. 5 to 7. The squared difference is summed over the statistics; the mean over the anchors is the paper's
    normalisation by H x W. Every point and every pixel counts: there is no farthest-point sampling. The paper's weight
    of the whole is 0.8e-3, for pixels of a 224 x 224 picture.

    Args:
        points: projected vertices of each part, in pixels, y down.
        targets: for each part of `points` its mask [B, H, W] (non-zero = part); or other points [B, M, 2]; or a
            descriptor [B, A, 3] from `mask_descriptor` or `point_descriptor`, made once where targets stay the same.
            What fits several of these is taken for a descriptor first, then for points. More parts than in `points`
            are ignored.
        anchors: [A, D] in pixels, usually `grid_anchors(height, width, stride)`; see `point_descriptor`.
        weights: w_p of each part, one number or one per sample; 1 for a part that is not listed. A part of a sample
            weighs nothing where its target is empty (a mask without pixels, a descriptor whose column max is zero) or
            all its points are masked.
        point_masks: which points count, or their weights in f_ave; parts not listed count whole. Weights in proportion
            to the visible area that each vertex stands for (`jaxface.render.visible_areas`) make the loss zero for
            the true face; the paper's plain form (no masks) is not, since its vertices are denser here than there.
        statistics: which of "min", "max", "mean" to compare; or that for each part, all for parts not listed.
        exact: see `point_descriptor`.
        implementation: see `point_descriptor`.

    Returns:
        [B] loss in square pixels. NaN where a coordinate that counts is NaN, so that a trainer can stop.

    Raises:
        ValueError: when parts, names or shapes do not fit together; outside jit also when a coordinate is not finite.
    """
    weights, point_masks = weights or {}, point_masks or {}
    named = statistics if isinstance(statistics, Mapping) else dict.fromkeys(points, statistics)
    chosen = dict.fromkeys(points, STATISTICS) | {part: tuple(names) for part, names in named.items()}
    _check(points, targets, anchors, weights, point_masks, chosen)
    targets = _describe_targets({part: targets[part] for part in points}, anchors, exact, implementation)
    predicted = _describe_points(points, point_masks, anchors, chosen, exact, implementation)
    losses = []
    for part, (descriptor, some) in predicted.items():
        target = targets[part].astype(descriptor.dtype)
        wanted = jnp.stack([target[..., STATISTICS.index(name)] for name in chosen[part]], axis=-1)
        squared = jnp.square(descriptor - jax.lax.stop_gradient(wanted)).sum(-1).mean(-1)
        present = some & (target[..., STATISTICS.index("max")] != 0).any(-1)
        weight = jnp.asarray(weights.get(part, 1.0), squared.dtype)
        losses.append(jnp.where(present, weight * squared, 0.0))
    return jnp.stack(losses).sum(0)


def _describer(anchors: Anchors, names: Sequence[str], exact: bool, implementation: Implementation) -> Describe:
    """describe(points [N, D], weights [N]) -> [A, len(names)]: the statistics by the quickest way for these anchors.

    The weights sum to one and the first point counts; points of weight zero are copies of it.
    """
    if implementation not in ("xla", "reference"):
        raise ValueError(f"implementation is {implementation!r}: choose 'xla' or 'reference'")
    grid = _grids.find_grid(anchors)

    def describe(points: Float[Array, "N D"], weights: Float[Array, "N"]) -> Float[Array, "A S"]:
        places = jax.lax.stop_gradient(jnp.asarray(anchors, points.dtype))
        if implementation == "reference":
            functions = _reference(points, weights, places)
        else:
            functions = _fastest(points, weights, places, grid, exact)
        descriptor = jnp.stack([functions[name]() for name in names], axis=-1)
        # Comparisons skip NaN.
        return jnp.where(jnp.isfinite(points).all(), descriptor, jnp.nan)

    return describe


def _fastest(
    points: Float[Array, "N D"],
    weights: Float[Array, "N"],
    anchors: Float[Array, "A D"],
    grid: _grids.Grid | None,
    exact: bool,
) -> Columns:
    # Sizes are known when a function is traced, so each shape compiles to one way only.
    # Narrow rows would not fill the processor's vector registers.
    columns = None if grid is None or grid.width < 32 else grid.width
    functions = {
        "min": lambda: _distances.nearest_distance(points, anchors, columns),
        "max": lambda: _distances.furthest_distance(points, anchors, columns),
        "mean": lambda: _distances.mean_distance(points, weights, anchors),
    }
    if grid is None or exact or len(anchors) <= FEW_ANCHORS:
        return functions
    if len(points) > FEW_POINTS:
        functions["mean"] = lambda: _grids.grid_mean_distance(points, weights, grid)
    if len(points) > _grids.DIRECTIONS + _grids.MORE:
        functions["max"] = lambda: _distances.furthest_distance(_grids.outermost(points), anchors, columns)
    return functions


def _reference(points: Float[Array, "N D"], weights: Float[Array, "N"], anchors: Float[Array, "A D"]) -> Columns:
    squared = jnp.square(anchors[:, None] - points[None]).sum(-1)
    distance = jnp.where(squared == 0, 0.0, jnp.sqrt(jnp.where(squared == 0, 1.0, squared)))
    return {
        "min": lambda: distance.min(1),
        "max": lambda: distance.max(1),
        "mean": lambda: jnp.matmul(distance, weights, precision=jax.lax.Precision.HIGHEST),
    }


def _members(
    points: Float[Array | np.ndarray, "N D"], mask: Shaped[Array | np.ndarray, "N"] | None
) -> tuple[Float[Array, "M D"], Float[Array, "M"], Bool[Array, ""]]:
    """The points that count, in float32 or better, their weights with sum one, and whether there are any at all."""
    points = jnp.asarray(points)
    points = points.astype(jnp.promote_types(points.dtype, jnp.float32))
    if len(points) == 0:
        return jnp.zeros((1, points.shape[1]), points.dtype), jnp.zeros(1, points.dtype), jnp.asarray(False)
    if mask is None:
        return points, jnp.full(len(points), 1.0 / len(points), points.dtype), jnp.asarray(True)
    weights = jax.lax.stop_gradient(jnp.asarray(mask).astype(points.dtype))
    valid = ~(weights <= 0)  # a weight that is NaN is not to hide its point
    some = valid.any()
    # Points left out take the place of the first that counts: nothing changes for f_min and f_max, and should one of
    # these copies be matched, its gradient flows to the original.
    first = jnp.where(some, points[jnp.argmax(valid)], 0.0)
    weights = jnp.where(valid, weights, 0.0)
    return jnp.where(valid[:, None], points, first[None]), weights / jnp.where(some, weights.sum(), 1.0), some


def _check(
    points: Points,
    targets: Targets,
    anchors: Anchors,
    weights: Weights,
    point_masks: PointMasks,
    statistics: Mapping[str, tuple[str, ...]],
) -> None:
    if np.ndim(anchors) != 2 or len(anchors) == 0:
        raise ValueError(f"expected anchors [A, D], got {np.shape(anchors)}")
    if unknown := [part for part in statistics if part not in points]:
        raise ValueError(f"statistics name part(s) {unknown}; points has {list(points)}")
    for names in statistics.values():
        if not names or not set(names) <= set(STATISTICS):
            raise ValueError(f"statistics must name some of {STATISTICS}, got {names!r}")
    kinds = "a mask [B, H, W], points or a descriptor [B, A, 3]"
    check_parts(points, targets, weights, point_masks, dimensions=np.shape(anchors)[1], target_kinds=kinds)


def _describe_points(
    points: Points,
    point_masks: PointMasks,
    anchors: Anchors,
    statistics: Mapping[str, tuple[str, ...]],
    exact: bool,
    implementation: Implementation,
) -> dict[str, tuple[Float[Array, "B A S"], Bool[Array, "B"]]]:
    """Descriptor of every part, and whether it has any points.

    Parts of like size and the same statistics are padded and share one loop, which compiles sooner.
    """
    groups: list[list[str]] = []
    for part in sorted(points, key=lambda part: (statistics[part], -np.shape(points[part])[1])):
        first = groups[-1][0] if groups else part
        alike = statistics[part] == statistics[first] and 4 * np.shape(points[part])[1] >= np.shape(points[first])[1]
        if groups and alike:
            groups[-1].append(part)
        else:
            groups.append([part])
    described: dict[str, tuple[Array, Array]] = {}
    for group in groups:
        padded, size = [], max(1, np.shape(points[group[0]])[1])
        for part in group:
            mask = point_masks.get(part)
            members, weights, some = jax.vmap(_members, in_axes=(0, None if mask is None else 0))(points[part], mask)
            padded.append((_pad(members, members[:, :1], size), _pad(weights, weights[:, :1] * 0, size), some))
        members, weights, some = (jnp.stack(arrays) for arrays in zip(*padded, strict=True))
        describe = jax.vmap(jax.vmap(_describer(anchors, statistics[group[0]], exact, implementation)))
        results = jnp.where(some[..., None, None], describe(members, weights), 0.0)
        described |= dict(zip(group, zip(results, some, strict=True), strict=True))
    return {part: described[part] for part in points}


def _pad(array: Float[Array, "B N ..."], fill: Float[Array, "B 1 ..."], size: int) -> Float[Array, "B size ..."]:
    missing = (fill.shape[0], size - array.shape[1], *fill.shape[2:])
    return jnp.concatenate([array, jnp.broadcast_to(fill, missing)], axis=1)


def _describe_targets(
    targets: Targets, anchors: Anchors, exact: bool, implementation: Implementation
) -> dict[str, Float[Array, "B A 3"]]:
    described: dict[str, Array] = {}
    masks: dict[str, Array] = {}
    for part, target in targets.items():
        shape = np.shape(target)
        if shape[1:] == (len(anchors), 3):
            described[part] = jnp.asarray(target)
        elif shape[2] == np.shape(anchors)[1]:
            describe = _describer(anchors, STATISTICS, exact, implementation)
            refuse_non_finite(target, None, label=f"{part}: target ")
            members, weights, some = jax.vmap(lambda points: _members(points, None))(target)
            described[part] = jnp.where(some[:, None, None], jax.vmap(describe)(members, weights), 0.0)
        else:
            masks[part] = jnp.asarray(target)
    if masks:  # in one call, so that the parts share the distances from pixels to anchors
        if len({mask.shape for mask in masks.values()}) > 1:
            raise ValueError(f"masks differ in shape: { {part: mask.shape for part, mask in masks.items()} }")
        stacked = jnp.stack([mask.astype(bool) for mask in masks.values()])
        results = jax.vmap(jax.vmap(lambda mask: mask_descriptor(mask, anchors)))(stacked)
        described |= dict(zip(masks, results, strict=True))
    return described
