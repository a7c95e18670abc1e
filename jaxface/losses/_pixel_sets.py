"""How the pixels of a label map's parts are described: signed distances to their outlines, mean and greatest distances.

The same function of the same kind of set describes a drawn face and its target, so that equal label maps differ by
exactly zero.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxface.losses._nearest_pixels import (
    AnchorGrid,
    Nearest,
    far,
    lead,
    masks_of,
    nearest_of_others,
    nearest_of_parts,
)

MEAN_ANCHORS = 12
"""Anchors of mean and greatest distance in a row and in a column: they change so slowly that more say nothing new."""

MOST_CELLS = 64
"""The mean is over square cells, at most so many along the longer side: each pixel counts at its cell's centre."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PixelSets:
    """The P parts of B label maps.

    Attributes:
        signed: [B, P, R, C] from each anchor to the part's outline in pixels: to its nearest pixel's edge outside it,
            and, negative, to the edge of the nearest other pixel inside it.
        greatest: [B, P, A] distance from few anchors to the furthest pixel.
        mean: [B, P, A] mean distance from few anchors to the part's pixels; as `greatest`, zero for an empty part.
        area: [B, P] number of pixels.
        nearest: which pixels were matched outside a part.
        other: which were matched inside.
    """

    signed: Float[Array, "B P R C"]
    greatest: Float[Array, "B P A"]
    mean: Float[Array, "B P A"]
    area: Float[Array, "B P"]
    nearest: Nearest
    other: Nearest


def describe(labels: UInt8[Array, "B H W"], grid: AnchorGrid) -> PixelSets:
    """Describes the parts of label maps."""
    nearest, other = nearest_of_parts(labels, grid), nearest_of_others(labels, grid)
    inside = masks_of(labels[:, grid.rows][:, :, grid.columns])
    squared = jnp.where(inside, other.squared, nearest.squared)
    distance = jnp.sqrt(jnp.minimum(squared, far(grid)).astype(jnp.float32)) - 0.5
    masks = masks_of(labels)
    area = masks.sum((2, 3), dtype=jnp.float32)
    mean = jnp.einsum("bpc,ca->bpa", cell_areas(masks, grid), cell_distances(grid), precision="highest")
    return PixelSets(
        signed=jnp.where(inside, -distance, distance),
        greatest=_greatest_distance(masks, grid),
        mean=mean / jnp.maximum(area, 1.0)[..., None],
        area=area,
        nearest=nearest,
        other=other,
    )


def mean_anchors(grid: AnchorGrid) -> Float[np.ndarray, "A 2"]:
    """(x, y) of the few anchors, spread evenly over the picture."""
    steps = (np.arange(MEAN_ANCHORS) + 0.5) / MEAN_ANCHORS
    x, y = np.meshgrid(grid.width * steps, grid.height * steps)
    return np.stack([x.ravel(), y.ravel()], axis=-1).astype(np.float32)


def cell_side(grid: AnchorGrid) -> int:
    """Side of a cell in pixels."""
    return -(-max(grid.height, grid.width) // MOST_CELLS)


def cell_areas(masks: Bool[Array, "B P H W"], grid: AnchorGrid) -> Float[Array, "B P cells"]:
    """Number of pixels of each part in every cell."""
    side = cell_side(grid)
    down, across = -(-grid.height // side), -(-grid.width // side)
    room = ((0, 0), (0, 0), (0, down * side - grid.height), (0, across * side - grid.width))
    blocks = jnp.pad(masks, room).reshape(*masks.shape[:2], down, side, across, side)
    return blocks.sum((3, 5), dtype=jnp.float32).reshape(*masks.shape[:2], down * across)


def cell_distances(grid: AnchorGrid) -> Float[np.ndarray, "cells A"]:
    """From the centres of the cells to the few anchors, in pixels."""
    side = cell_side(grid)
    y, x = ((np.arange(-(-size // side)) + 0.5) * side for size in (grid.height, grid.width))
    centers = np.stack(np.meshgrid(x, y), axis=-1).reshape(len(x) * len(y), 1, 2)
    distances: np.ndarray = np.linalg.norm(centers - mean_anchors(grid)[None], axis=-1)
    return distances.astype(np.float32)


def _greatest_distance(masks: Bool[Array, "B P H W"], grid: AnchorGrid) -> Float[Array, "B P A"]:
    return jnp.sqrt(_furthest_of_rows(masks, grid).max(-1))


def furthest_pixels(masks: Bool[Array, "B P H W"], grid: AnchorGrid) -> tuple[Int[Array, "B P A"], Int[Array, "B P A"]]:
    """Row and column of the pixel of each part that is furthest from each of the few anchors."""
    row = jnp.argmax(_furthest_of_rows(masks, grid), axis=-1).astype(jnp.int32)
    first, last = _ends_of_rows(masks)
    first, last = (jnp.take_along_axis(end, row, axis=-1) for end in (first, last))
    x = lead(mean_anchors(grid)[:, 0], 3)
    return row, jnp.where(jnp.square(first + 0.5 - x) >= jnp.square(last + 0.5 - x), first, last)


def _ends_of_rows(masks: Bool[Array, "B P H W"]) -> tuple[Int[Array, "B P H"], Int[Array, "B P H"]]:
    """The first and the last column of each part in each row of pixels."""
    column = lead(jnp.arange(masks.shape[3], dtype=jnp.int32), 4)
    return jnp.where(masks, column, masks.shape[3]).min(3), jnp.where(masks, column, -1).max(3)


def _furthest_of_rows(masks: Bool[Array, "B P H W"], grid: AnchorGrid) -> Float[Array, "B P A H"]:
    """Squared distance from the few anchors to the furthest pixel of each row; zero where it has none."""
    anchors = mean_anchors(grid)
    first, last = _ends_of_rows(masks)
    across = [jnp.square(end[:, :, None] + 0.5 - lead(anchors[:, :1], 4)) for end in (first, last)]
    down = lead(np.square(np.arange(grid.height, dtype=np.float32)[None] + 0.5 - anchors[:, 1:]), 4)
    return jnp.where((first <= last)[:, :, None], jnp.maximum(*across) + down, 0.0)
