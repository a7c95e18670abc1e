"""Distances between point sets that segmentation may be fitted with: ICP, Chamfer and density-aware Chamfer.

The point-based rivals of PRDL (3DDFA-V3, figures 8 and 9). One set is a part's projected vertices, the other the pixel
centres of its mask. All of them compare matched pairs, the nearest in one set for each member of the other: a vertex
inside its mask and a pixel that has a vertex beside it feel no pull, however the rest of the two sets lies.

Matches are searched in blocks and held fixed for gradients; no array of points times pixels is stored.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jaxface.losses import _part_sets
from jaxface.losses._part_sets import PointMasks, Points, Targets, Weights

_POINT_BLOCK = 8
_PIXEL_BLOCK = 512


def icp_loss(
    points: Points,
    targets: Targets,
    *,
    direction: Literal["to_target", "to_points"] = "to_target",
    weights: Weights | None = None,
    point_masks: PointMasks | None = None,
) -> Float[Array, "B"]:
    """Squared distance to the nearest neighbour, in one direction (iterative closest point, Besl and McKay 1992).

    The published sum divided by the number of its terms, so that every part weighs alike: a factor that does not change
    while a face is fitted. Multiply `weights` by the number of points or of pixels to have the sum.

    Args:
        points: projected vertices of each part, in pixels, y down.
        targets: for each part its mask, non-zero where a pixel belongs to it.
        direction: "to_target" matches every vertex with the nearest pixel of the mask; "to_points" every pixel of the
            mask with the nearest vertex.
        weights: w_p of each part, one number or one per sample; 1 for a part that is not listed. A part of a sample
            weighs nothing where its target is empty or all its points are masked.
        point_masks: which points count, or their weights in means over the points; parts not listed count whole.

    Returns:
        [B] loss in square pixels. NaN where a coordinate that counts is not finite.

    Raises:
        ValueError: when parts, names or shapes do not fit together; outside jit also when a coordinate is not finite.
    """
    if direction not in ("to_target", "to_points"):
        raise ValueError(f'direction must be "to_target" or "to_points", not {direction!r}')
    mean_square = _to_target if direction == "to_target" else _to_points
    return _sum_over_parts(lambda part: mean_square(part)[0], points, targets, weights, point_masks)


def chamfer_loss(
    points: Points, targets: Targets, *, weights: Weights | None = None, point_masks: PointMasks | None = None
) -> Float[Array, "B"]:
    """Chamfer distance: mean squared distance to the nearest neighbour, both directions added (Fan et al. 2017).

    Arguments, result and errors as in `icp_loss`; [B] in square pixels.
    """
    return _sum_over_parts(
        lambda part: _to_target(part)[0] + _to_points(part)[0], points, targets, weights, point_masks
    )


def density_aware_chamfer_loss(
    points: Points,
    targets: Targets,
    *,
    alpha: float = 1000.0,
    exponent: float = 1.0,
    weights: Weights | None = None,
    point_masks: PointMasks | None = None,
) -> Float[Array, "B"]:
    """Density-aware Chamfer distance (Wu et al. 2021, arXiv 2111.12702).

    Half the sum over both directions of mean(1 - exp(-alpha d^2) / n^exponent), with d the distance to the nearest
    neighbour and n how many share that neighbour, held fixed. The authors normalise their shapes; here half the
    picture's height is 1. With alpha = 1000 a match farther off than a twentieth of the height has hardly a gradient.

    Args:
        points: projected vertices of each part, in pixels, y down.
        targets: for each part its mask, non-zero where a pixel belongs to it.
        alpha: how steeply a match loses worth with its squared distance.
        exponent: lambda, how much crowding counts.
        weights: as in `icp_loss`.
        point_masks: as in `icp_loss`; a point of positive weight counts as one in n.

    Returns:
        [B] loss, in [0, 1] per part.

    Raises:
        ValueError: as in `icp_loss`.
    """

    def one_part(part: "_Part") -> Float[Array, "B"]:
        scale = alpha / (part.mask.shape[1] / 2) ** 2
        halves = []
        for match in (_to_target, _to_points):
            _, squared, share, crowd = match(part)
            worth = jnp.exp(-scale * squared) / jnp.maximum(crowd, 1.0) ** exponent
            halves.append((share * (1 - worth)).sum(1))
        return (halves[0] + halves[1]) / 2

    return _sum_over_parts(one_part, points, targets, weights, point_masks)


class _Part(NamedTuple):
    """Points of one part, their weights in means over the points (sum one), and the part's mask."""

    points: Float[Array, "B N 2"]
    shares: Float[Array, "B N"]
    mask: Bool[Array, "B H W"]


class _Matches(NamedTuple):
    """Each member of one set against the nearest of the other.

    Attributes:
        mean: [B] of the squared distances.
        squared: [B, M] squared distances in pixels.
        shares: [B, M] weights in the mean, of sum one; zero for members that do not count.
        crowd: [B, M] how many members have this one's neighbour.
    """

    mean: Float[Array, "B"]
    squared: Float[Array, "B M"]
    shares: Float[Array, "B M"]
    crowd: Float[Array, "B M"]


def _sum_over_parts(
    one_part: Callable[[_Part], Float[Array, "B"]],
    points: Points,
    targets: Targets,
    weights: Weights | None,
    point_masks: PointMasks | None,
) -> Float[Array, "B"]:
    weights, point_masks = weights or {}, point_masks or {}
    _part_sets.check_parts(points, targets, weights, point_masks)
    losses, finite, present = {}, {}, {}
    for name, array in points.items():
        part = _Part(*_part_sets.members(array, point_masks.get(name)), jnp.asarray(targets[name]).astype(bool))
        losses[name] = one_part(part)
        finite[name] = jnp.isfinite(part.points).all((1, 2))
        present[name] = (part.shares > 0).any(1) & part.mask.any((1, 2))
    return _part_sets.weighted_total(losses, finite, present, weights)


def _to_target(part: _Part) -> _Matches:
    """Every vertex with the nearest pixel of the mask."""
    held = jax.lax.stop_gradient(part.points)
    column, row = jax.vmap(_nearest_pixel)(held, part.mask)
    pixels = jnp.stack([column, row], axis=-1) + 0.5
    squared = jnp.square(part.points - pixels.astype(held.dtype)).sum(-1)
    width = part.mask.shape[2]
    counts = _count(row * width + column, part.shares > 0, part.mask.shape[1] * width)
    return _Matches((part.shares * squared).sum(1), squared, part.shares, counts)


def _to_points(part: _Part) -> _Matches:
    """Every pixel of the mask with the nearest vertex."""
    pixels, counts_as_pixel = _list_pixels(part.mask, part.points.dtype)
    # A point left out has its stand-in's place, and may be matched in its stead: then they share the crowd.
    index = _nearest_point(jax.lax.stop_gradient(part.points), pixels, counts_as_pixel.sum(1).max())
    matched = jnp.take_along_axis(part.points, index[..., None], axis=1)
    squared = jnp.square(matched - pixels).sum(-1)
    shares = counts_as_pixel / jnp.maximum(counts_as_pixel.sum(1, keepdims=True), 1).astype(squared.dtype)
    counts = _count(index, counts_as_pixel, part.points.shape[1])
    return _Matches((shares * squared).sum(1), squared, shares, counts)


def _count(index: Int[Array, "B M"], counts: Bool[Array, "B M"], size: int) -> Float[Array, "B M"]:
    """For each member, how many members that count have the same index."""
    totals = jax.vmap(lambda index, counts: jnp.zeros(size).at[index].add(counts))(index, counts.astype(jnp.float32))
    return jnp.take_along_axis(totals, index, axis=1)


def _nearest_pixel(points: Float[Array, "N 2"], mask: Bool[Array, "H W"]) -> tuple[Int[Array, "N"], Int[Array, "N"]]:
    """Column and row of the mask's pixel nearest to each point; exact. (0, 0) for an empty mask.

    In a row of pixels that is the next to the left or to the right: one visit per point and row.
    """
    height, width = mask.shape
    columns = jnp.arange(width, dtype=points.dtype)
    left = jax.lax.cummax(jnp.where(mask, columns[None], -jnp.inf), axis=1)
    right = jax.lax.cummin(jnp.where(mask, columns[None], jnp.inf), axis=1, reverse=True)
    x, y = points[:, 0] - 0.5, points[:, 1] - 0.5
    pixel = jnp.clip(jnp.round(x), 0, width - 1).astype(jnp.int32)

    def visit(
        nearest: tuple[Float[Array, "N"], Float[Array, "N"], Float[Array, "N"]],
        line: tuple[Float[Array, "W"], Float[Array, "W"], Float[Array, ""]],
    ) -> tuple[tuple[Float[Array, "N"], Float[Array, "N"], Float[Array, "N"]], None]:
        squared, column, row = nearest
        left, right, number = line
        before, after = left[pixel], right[pixel]
        candidate = jnp.where(x - before <= after - x, before, after)
        distance = jnp.square(x - candidate) + jnp.square(y - number)
        closer = distance < squared
        return (
            jnp.where(closer, distance, squared),
            jnp.where(closer, candidate, column),
            jnp.where(closer, number, row),
        ), None

    zeros = jnp.zeros_like(x)
    lines = (left, right, jnp.arange(height, dtype=points.dtype))
    (_, column, row), _ = jax.lax.scan(visit, (zeros + jnp.inf, zeros, zeros), lines)
    return column.astype(jnp.int32), row.astype(jnp.int32)


def _list_pixels(mask: Bool[Array, "B H W"], dtype: DTypeLike) -> tuple[Float[Array, "B M 2"], Bool[Array, "B M"]]:
    """Centres of the mask's pixels, before as many that do not count; which count. M is H * W, rounded up to blocks."""
    height, width = mask.shape[1:]
    size = -(-height * width // _PIXEL_BLOCK) * _PIXEL_BLOCK
    index = jax.vmap(lambda flat: jnp.nonzero(flat, size=size, fill_value=0)[0])(mask.reshape(len(mask), -1))
    pixels = jnp.stack([index % width, index // width], axis=-1).astype(dtype) + 0.5
    return pixels, jnp.arange(size)[None] < mask.sum((1, 2))[:, None]


def _nearest_point(
    points: Float[Array, "B N 2"], pixels: Float[Array, "B M 2"], count: Int[Array, ""]
) -> Int[Array, "B M"]:
    """Index of the point nearest to each of the first `count` pixels of every sample; 0 for the others.

    A loop over blocks of pixels, as many as are needed; in it a loop over blocks of points whose body is elementwise
    over the pixels, which XLA turns into vectorised kernels.
    """
    missing = -points.shape[1] % _POINT_BLOCK
    padded = jnp.concatenate([points, jnp.broadcast_to(points[:, :1], (len(points), missing, 2))], axis=1)
    blocks = padded.reshape(len(points), -1, _POINT_BLOCK, 2).transpose(1, 2, 3, 0)[..., None]
    starts = _POINT_BLOCK * jnp.arange(len(blocks), dtype=jnp.int32)

    def match(number: Int[Array, ""], result: Int[Array, "B M"]) -> Int[Array, "B M"]:
        offset = number * _PIXEL_BLOCK
        block = jax.lax.dynamic_slice_in_dim(pixels, offset, _PIXEL_BLOCK, axis=1)
        x, y = block[..., 0], block[..., 1]

        def visit(
            nearest: tuple[Float[Array, "B P"], Int[Array, "B P"]], item: tuple[Float[Array, "Q 2 B 1"], Int[Array, ""]]
        ) -> tuple[tuple[Float[Array, "B P"], Int[Array, "B P"]], None]:
            squared, index = nearest
            candidates, start = item
            for i in range(_POINT_BLOCK):
                distance = jnp.square(x - candidates[i, 0]) + jnp.square(y - candidates[i, 1])
                closer = distance < squared
                squared, index = jnp.where(closer, distance, squared), jnp.where(closer, start + i, index)
            return (squared, index), None

        start = (jnp.full_like(x, jnp.inf), jnp.zeros_like(x, jnp.int32))
        (_, index), _ = jax.lax.scan(visit, start, (blocks, starts))
        return jax.lax.dynamic_update_slice_in_dim(result, index, offset, axis=1)

    result: Int[Array, "B M"] = jnp.zeros(pixels.shape[:2], jnp.int32)
    result = jax.lax.fori_loop(0, -(-count // _PIXEL_BLOCK), match, result)
    return result
