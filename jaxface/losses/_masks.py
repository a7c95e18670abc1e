"""Distances from anchors to the pixels of a mask, without visiting every pair; differentiable in nothing."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Shaped

from jaxface.core.platforms import by_platform
from jaxface.core.typed_jit import typed_jit
from jaxface.losses import _reductions
from jaxface.losses._distances import blocks, zero
from jaxface.losses._grids import Grid, convolve_with_distance, periodic_size

Results = TypeVar("Results")

_BLOCK = 8  # rows of the mask per step
# Bounds of the matrix of distances [rows * W, chunk] that the mask is multiplied with.
_ANCHOR_CHUNK = 4096
_DISTANCES_AT_ONCE = 2**20
# The same on accelerators: a quarter of a gigabyte, for a few large products.
_MOST_DISTANCES = 2**26
# Columns of anchors whose distances to every row are looked at together there: of a grid, all.
_COLUMNS_AT_ONCE = 4096
# Where these bounds would make a loop longer than this, they give way.
_MOST_CHUNKS = 64


def mask_extremes(
    mask: Bool[Array, "H W"], anchors: Float[Array, "A 2"], grid: Grid | None
) -> tuple[Float[Array, "A"], Float[Array, "A"]]:
    """Distance from each anchor to the nearest and the furthest pixel centre of the mask (inf and 0 if it is empty).

    One visit per anchor and row of the mask: in a row the nearest pixel is the next to the left or the right, and the
    furthest is the first or the last. Anchors of a grid share the search within the row.
    """
    if grid is None:
        near, far = _extremes_of_columns(mask, anchors[:, 0], anchors[:, 1:])
        return near[:, 0], far[:, 0]
    x, y = anchors[: grid.width, 0], anchors[:: grid.width, 1]
    near, far = _extremes_of_columns(mask, x, jnp.broadcast_to(y[None], (len(x), len(y))))
    return near.T.reshape(-1), far.T.reshape(-1)


@typed_jit
def _extremes_of_columns(
    mask: Bool[Array, "H W"], x: Float[Array, "C"], y: Float[Array, "C Y"]
) -> tuple[Float[Array, "C Y"], Float[Array, "C Y"]]:
    """Of C columns of anchors: column c has the x of x[c] and the y of y[c]."""
    near, far = by_platform(_extremes_by_rows, _extremes_at_once, mask, x, y)
    return jnp.sqrt(near), jnp.sqrt(far)


def _extremes_at_once(
    mask: Bool[Array, "H W"], x: Float[Array, "C"], y: Float[Array, "C Y"]
) -> tuple[Float[Array, "C Y"], Float[Array, "C Y"]]:
    left, right = _reductions.next_masked(mask)

    def of_columns(x: Float[Array, "M"], y: Float[Array, "M Y"]) -> tuple[Float[Array, "M Y"], Float[Array, "M Y"]]:
        return _reductions.mask_extremes(*_across(left, right, x), y)

    return _in_chunks(of_columns, x, y, size=_COLUMNS_AT_ONCE)


def _extremes_by_rows(
    mask: Bool[Array, "H W"], x: Float[Array, "C"], y: Float[Array, "C Y"]
) -> tuple[Float[Array, "C Y"], Float[Array, "C Y"]]:
    height = len(mask)
    across_near, across_far = _across(*_next_masked(mask), x)

    def visit(
        carry: tuple[Float[Array, "C Y"], Float[Array, "C Y"]],
        block: tuple[Float[Array, "block C"], Float[Array, "block C"], Float[Array, "block"]],
    ) -> tuple[tuple[Float[Array, "C Y"], Float[Array, "C Y"]], None]:
        near, far = carry
        block_near, block_far, row_y = block
        for i in range(_BLOCK):
            down = jnp.square(y - row_y[i])
            near = jnp.minimum(near, block_near[i, :, None] + down)
            far = jnp.maximum(far, block_far[i, :, None] + down)
        return (near, far), None

    row_y = jnp.arange(height, dtype=x.dtype) + 0.5
    rows = blocks(across_near, _BLOCK, jnp.inf), blocks(across_far, _BLOCK, -jnp.inf), blocks(row_y, _BLOCK)
    zeros = jnp.zeros_like(y) + zero(mask, x, y).astype(y.dtype)
    (near, far), _ = jax.lax.scan(visit, (zeros + jnp.inf, zeros), rows)
    return near, far


def _across(
    left: Int[Array, "W H"], right: Int[Array, "W H"], x: Float[Array, "C"]
) -> tuple[Float[Array, "H C"], Float[Array, "H C"]]:
    """Squared distance in x from each column of anchors to the nearest and the furthest pixel of every row.

    inf and -inf for a row without pixels.

    Args:
        left: for every pixel the last masked column up to it in its row; -1 if there is none.
        right: the first from it on; W if there is none.
        x: of the columns of anchors.
    """
    width = len(left)
    pixel = jnp.clip(jnp.floor(x), 0, width - 1).astype(jnp.int32)

    def across(column: Int[Array, "#C H"]) -> Float[Array, "C H"]:
        distance = jnp.square(x[:, None] - (column.astype(x.dtype) + 0.5))
        return jnp.where((column >= 0) & (column < width), distance, jnp.inf)

    near = jnp.minimum(across(left[pixel]), across(right[pixel]))
    first, last = right[:1], left[-1:]
    far = jnp.where(first <= last, jnp.maximum(across(first), across(last)), -jnp.inf)
    return near.T, far.T


def _next_masked(mask: Bool[Array, "H W"]) -> tuple[Int[Array, "W H"], Int[Array, "W H"]]:
    """See `_reductions.next_masked`. As loops over the columns, five times as fast on CPU as cummax and cummin."""
    width = mask.shape[1]
    columns = jnp.arange(width, dtype=jnp.int16 if width < 2**13 else jnp.int32)

    def visit(
        last: Int[Array, "H"], item: tuple[Bool[Array, "H"], Int[Array, ""]]
    ) -> tuple[Int[Array, "H"], Int[Array, "H"]]:
        masked, column = item
        last = jnp.where(masked, column, last)
        return last, last

    start = jnp.zeros_like(columns, shape=len(mask)) + zero(mask).astype(columns.dtype)
    _, left = jax.lax.scan(visit, start - 1, (mask.T, columns))
    _, right = jax.lax.scan(visit, start + width, (mask.T, columns), reverse=True)
    return left, right


def grid_mask_mean(mask: Bool[Array, "H W"], grid: Grid, dtype: DTypeLike) -> Float[Array, "A"]:
    """Mean distance from anchors at pixel centres to the mask's pixels: a convolution with |r| by FFT, exact."""
    height, width = mask.shape
    reach = (2 * height, 2 * width)
    padded = jnp.zeros(periodic_size(reach), dtype).at[:height, :width].set(mask.astype(dtype))
    step, first_row, first_column = int(grid.spacing), int(grid.y), int(grid.x)
    at_anchors = convolve_with_distance(padded, reach, 0.0)[
        first_row : first_row + step * grid.height : step, first_column : first_column + step * grid.width : step
    ]
    return at_anchors.reshape(-1) / jnp.maximum(mask.sum(), 1).astype(dtype)


def at_pixel_centers(grid: Grid, mask_shape: tuple[int, ...]) -> bool:
    """Whether all anchors lie on centres of pixels of the mask."""
    last = np.array([grid.y, grid.x]) + grid.spacing * (np.array([grid.height, grid.width]) - 1)
    whole = all(float(value).is_integer() for value in (grid.x - 0.5, grid.y - 0.5, grid.spacing))
    return whole and min(grid.x, grid.y) > 0 and bool((last < mask_shape).all())


@typed_jit
def mask_mean(mask: Bool[Array, "H W"], anchors: Float[Array, "A 2"]) -> Float[Array, "A"]:
    """Mean distance from anchors anywhere to the mask's pixel centres: mask @ distances, some rows at a time.

    The distances do not depend on the mask: under vmap they are computed once, and the product becomes one matrix
    multiplication for all masks.
    """
    total = by_platform(_total_by_rows, _total_at_once, mask, anchors)
    return total / jnp.maximum(mask.sum(), 1).astype(total.dtype)


def _total_at_once(mask: Bool[Array, "H W"], anchors: Float[Array, "A 2"]) -> Float[Array, "A"]:
    height, width = mask.shape
    row, column = jnp.divmod(jnp.arange(height * width, dtype=jnp.int32), width)
    pixels = jnp.stack([column, row], axis=-1).astype(anchors.dtype) + 0.5
    weights = mask.reshape(-1).astype(anchors.dtype)

    def of_anchors(anchors: Float[Array, "M 2"]) -> Float[Array, "M"]:
        distance = jnp.sqrt(_reductions.squared_distances(pixels, anchors))
        return jnp.matmul(weights, distance, precision=jax.lax.Precision.HIGHEST)

    return _in_chunks(of_anchors, anchors, size=max(1, _MOST_DISTANCES // mask.size))


def _in_chunks(function: Callable[..., Results], *arrays: Shaped[Array, "N ..."], size: int) -> Results:
    """function(*arrays), of `size` entries at a time."""
    count = min(-(-len(arrays[0]) // size), _MOST_CHUNKS)
    if count == 1:
        return function(*arrays)
    chunks = [blocks(array, -(-len(array) // count), array[:1]) for array in arrays]
    results: Results = jax.lax.map(lambda chunk: function(*chunk), chunks)
    results = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[: len(arrays[0])], results)
    return results


def _total_by_rows(mask: Bool[Array, "H W"], anchors: Float[Array, "A 2"]) -> Float[Array, "A"]:
    height, width = mask.shape
    column_x = jnp.arange(width, dtype=anchors.dtype) + 0.5
    row_y = jnp.arange(height, dtype=anchors.dtype) + 0.5
    rows_at_once = min(height, max(1, _DISTANCES_AT_ONCE // (width * min(len(anchors), _ANCHOR_CHUNK))))
    row_blocks = blocks(mask.astype(anchors.dtype), rows_at_once), blocks(row_y, rows_at_once)

    def chunk_total(chunk: Float[Array, "M 2"]) -> Float[Array, "M"]:
        across = jnp.square(column_x[:, None] - chunk[:, 0][None])

        def visit(
            total: Float[Array, "M"], block: tuple[Float[Array, "R W"], Float[Array, "R"]]
        ) -> tuple[Float[Array, "M"], None]:
            weights, y = block
            down = jnp.square(y[:, None] - chunk[:, 1][None])
            distance = jnp.sqrt(across[None] + down[:, None]).reshape(rows_at_once * width, len(chunk))
            return total + jnp.matmul(weights.reshape(-1), distance, precision=jax.lax.Precision.HIGHEST), None

        zeros = jnp.zeros_like(chunk[:, 0]) + zero(mask, chunk).astype(chunk.dtype)
        return jax.lax.scan(visit, zeros, row_blocks)[0]

    count = -(-len(anchors) // _ANCHOR_CHUNK)
    size = -(-len(anchors) // count)
    padded = jnp.concatenate([anchors, jnp.broadcast_to(anchors[:1], (count * size - len(anchors), 2))])
    chunk_totals: Float[Array, "chunks M"] = jax.lax.map(chunk_total, padded.reshape(count, size, 2))
    return chunk_totals.reshape(-1)[: len(anchors)]
