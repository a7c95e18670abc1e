"""For every anchor of a grid: the nearest pixel of each part of a label map, and the nearest that is not of its own.

Squared distances between pixel centres are whole numbers, so the search is exact. Within a row of pixels the nearest of
a part is the next to the left or to the right; over the rows then one minimum of a sum, d_x^2(row) + d_y^2, finds
distance and row together: both fit into one integer. On a CPU the two steps are loops over columns and rows with
vectorised bodies, elsewhere a cumulative maximum and a reduction, without any loop.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Shaped, UInt8

from jaxface.core.parts import PARTS
from jaxface.core.platforms import by_platform

NO_LABEL = 255
"""What no pixel of a label map has."""
_ROWS_AT_ONCE = 8


@dataclasses.dataclass(frozen=True)
class AnchorGrid:
    """Anchors on the centres of pixels: those of `prdl.grid_anchors`.

    Attributes:
        height: of the picture in pixels.
        width: of the picture in pixels.
        stride: anchors lie on every n-th pixel in x and y.
    """

    height: int
    width: int
    stride: int

    @property
    def rows(self) -> Int[np.ndarray, "R"]:
        """The rows of pixels with anchors."""
        return anchor_places(self.height, self.stride)

    @property
    def columns(self) -> Int[np.ndarray, "C"]:
        """The columns of pixels with anchors."""
        return anchor_places(self.width, self.stride)


def lead(array: Shaped[Array | np.ndarray, "..."], dimensions: int) -> Shaped[Array, "..."]:
    """The array with axes of length one before its own, so that it has so many in all."""
    return jnp.reshape(array, (1,) * (dimensions - np.ndim(array)) + np.shape(array))


def anchor_places(count: int, stride: int) -> Int[np.ndarray, "N"]:
    """Which of `count` rows or columns of pixels have anchors: the middle one of each block of `stride`."""
    return (min(stride // 2, count - 1) + stride * np.arange(max(1, count // stride))).astype(np.int32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Nearest:
    """The nearest pixel to each anchor: of each of the P parts, or (P = 1) that has another label than the anchor's.

    Attributes:
        squared: [B, P, R, C] squared distance in pixels; `far(grid)` or more where there is no such pixel.
        row: [B, P, R, C] of that pixel, the first of several equally near.
        in_row: [B, P, H, C] the nearest such column of each row of pixels to each column of anchors.
        own: [B, H, C] labels at the columns of anchors, where a pixel counts if it has another than the anchor's.
        grid: of the anchors; static.
    """

    squared: Int[Array, "B P R C"]
    row: Int[Array, "B P R C"]
    in_row: Int[Array, "B P H C"]
    own: UInt8[Array, "B H C"] | None
    grid: AnchorGrid = dataclasses.field(metadata={"static": True})

    @property
    def column(self) -> Int[Array, "B P R C"]:
        """Of the nearest pixel, in the picture even where there is none."""
        column = jnp.take_along_axis(self.in_row, self.row, axis=2)
        if self.own is not None:  # where the pixel at the anchor's own column has another label, it is the nearest
            other = jnp.take_along_axis(self.own, self.row[:, 0], axis=1) != self.own[:, self.grid.rows]
            column = jnp.where(other[:, None], lead(self.grid.columns, 4), column)
        return jnp.clip(column, 0, self.grid.width - 1)


def far(grid: AnchorGrid) -> int:
    """A squared distance that no two pixels of the picture have."""
    return grid.height**2 + grid.width**2


def masks_of(labels: UInt8[Array, "B H W"]) -> Bool[Array, "B P H W"]:
    """One mask per part."""
    return labels[:, None] == _part_numbers(labels)[None, :, None, None]


def _part_numbers(labels: UInt8[Array, "..."]) -> UInt8[Array, "P"]:
    return jnp.arange(1, 1 + len(PARTS), dtype=labels.dtype)


def _nowhere(grid: AnchorGrid) -> tuple[int, int]:
    """Columns to the left and to the right that are further off than any pixel of the picture."""
    return -grid.height - grid.width, grid.height + 2 * grid.width


def nearest_of_parts(labels: UInt8[Array, "B H W"], grid: AnchorGrid) -> Nearest:
    """The nearest pixel of each of `PARTS` to each anchor."""
    by_scan, at_once = (functools.partial(way, grid=grid) for way in (_part_columns_by_scan, _part_columns))
    in_row = by_platform(by_scan, at_once, labels)
    return _over_rows(in_row, grid)


def _part_columns(labels: UInt8[Array, "B H W"], *, grid: AnchorGrid) -> Int[Array, "B P H C"]:
    column = lead(jnp.arange(grid.width, dtype=jnp.int32), 4)
    mine = masks_of(labels)
    left = jax.lax.cummax(jnp.where(mine, column, _nowhere(grid)[0]), axis=3)
    right = jax.lax.cummin(jnp.where(mine, column, _nowhere(grid)[1]), axis=3, reverse=True)
    return _nearer(left[..., grid.columns], right[..., grid.columns], grid)


def _nearer(left: Int[Array, "*S C"], right: Int[Array, "*S C"], grid: AnchorGrid) -> Int[Array, "*S C"]:
    """The nearer of two columns of pixels to each column of anchors; out of the picture if both are."""
    anchor = lead(grid.columns, left.ndim)
    return jnp.where(anchor - left <= right - anchor, left, right)


def _part_columns_by_scan(labels: UInt8[Array, "B H W"], *, grid: AnchorGrid) -> Int[Array, "B P H C"]:
    numbers = _part_numbers(labels)[:, None, None]

    def pass_by(
        last: Int[Array, "P B H"], item: tuple[UInt8[Array, "K B H"], Int[Array, "K"]]
    ) -> tuple[Int[Array, "P B H"], Int[Array, "P B H"]]:
        block, columns = item
        for k in range(len(block)):
            last = jnp.where(block[k][None] == numbers, columns[k], last)
        return last, last

    blank = jnp.zeros((len(PARTS), 1, 1), jnp.int32)
    blank += 0 * labels[None, :, :, 0].astype(jnp.int32)  # varies over devices as the labels do
    by_column = jnp.concatenate(
        [labels.transpose(2, 0, 1), jnp.full_like(labels, NO_LABEL, shape=(1, *labels.shape[:2]))]
    )
    up_to, from_on = _blocks_of_columns(grid)
    _, left = jax.lax.scan(pass_by, blank + _nowhere(grid)[0], (by_column[up_to], jnp.asarray(up_to)))
    _, right = jax.lax.scan(
        pass_by, blank + _nowhere(grid)[1], (by_column[from_on], jnp.asarray(from_on)), reverse=True
    )
    left, right = (side.transpose(2, 1, 3, 0) for side in (left, right))
    return _nearer(left, right, grid)


def _blocks_of_columns(grid: AnchorGrid) -> tuple[Int[np.ndarray, "C K"], Int[np.ndarray, "C M"]]:
    """The columns that each column of anchors adds to those left of it, and to those right of it; `width` fills up."""
    before = [-1, *grid.columns[:-1]]
    after = [*grid.columns[1:], grid.width]
    up_to = [np.arange(a + 1, b + 1) for a, b in zip(before, grid.columns, strict=True)]
    from_on = [np.arange(a, b)[::-1] for a, b in zip(grid.columns, after, strict=True)]

    def filled(blocks: list[np.ndarray]) -> Int[np.ndarray, "C K"]:
        size = max(len(block) for block in blocks)
        return np.stack([np.pad(block, (0, size - len(block)), constant_values=grid.width) for block in blocks])

    return filled(up_to).astype(np.int32), filled(from_on).astype(np.int32)


def nearest_of_others(labels: UInt8[Array, "B H W"], grid: AnchorGrid) -> Nearest:
    """The nearest pixel with another label to each anchor (P = 1)."""
    column = lead(jnp.arange(grid.width, dtype=jnp.int32), 3)
    changes = labels[..., 1:] != labels[..., :-1]
    begins = jnp.where(jnp.pad(changes, ((0, 0), (0, 0), (1, 0))), column, 0)
    ends = jnp.where(jnp.pad(changes, ((0, 0), (0, 0), (0, 1))), column, grid.width - 1)
    left = jax.lax.cummax(begins, axis=2)[..., grid.columns] - 1
    right = jax.lax.cummin(ends, axis=2, reverse=True)[..., grid.columns] + 1
    left = jnp.where(left < 0, _nowhere(grid)[0], left)
    right = jnp.where(right >= grid.width, _nowhere(grid)[1], right)
    own = labels[..., grid.columns]
    return _over_rows(_nearer(left, right, grid)[:, None], grid, own)


def _over_rows(in_row: Int[Array, "B P H C"], grid: AnchorGrid, own: UInt8[Array, "B H C"] | None = None) -> Nearest:
    """The nearest of the columns found in each row.

    Args:
        in_row: the column found in each row of pixels for each column of anchors.
        grid: of the anchors.
        own: labels of the pixels at the columns of anchors, if one counts that has another than the anchor's.
    """
    across = jnp.minimum(jnp.square(in_row - lead(grid.columns, 4)), far(grid))
    bits = max(1, (grid.height - 1).bit_length())
    if 2 * far(grid) < 2 ** (31 - bits):
        by_scan, at_once = (functools.partial(way, grid=grid, bits=bits) for way in (_packed_by_scan, _packed))
        best = by_platform(by_scan, at_once, across, own)
        return Nearest(best >> bits, best & (2**bits - 1), in_row, own, grid)
    squared, row = by_platform(
        functools.partial(_least_by_scan, grid=grid), functools.partial(_least, grid=grid), across, own
    )
    return Nearest(squared, row, in_row, own, grid)


def _candidates(
    across: Int[Array, "B P K C"],
    own: UInt8[Array, "B H C"] | None,
    rows: Int[Array | np.ndarray, "K"],
    grid: AnchorGrid,
) -> Int[Array, "B P R K C"]:
    """Squared distances of the anchors to what was found in K rows of pixels."""
    down = lead(jnp.square(rows[None] - grid.rows[:, None])[:, :, None], 5)
    across = across[:, :, None]
    if own is not None:
        across = jnp.where(own[:, None, None, rows] != own[:, None, grid.rows, None], 0, across)
    return across + down


def _packed(
    across: Int[Array, "B P H C"], own: UInt8[Array, "B H C"] | None, *, grid: AnchorGrid, bits: int
) -> Int[Array, "B P R C"]:
    """The least squared distance, and in its last bits the row in which it was found."""
    rows = jnp.arange(grid.height, dtype=jnp.int32)
    return (_candidates(across, own, rows, grid) << bits | lead(rows[:, None], 5)).min(3)


def _packed_by_scan(
    across: Int[Array, "B P H C"], own: UInt8[Array, "B H C"] | None, *, grid: AnchorGrid, bits: int
) -> Int[Array, "B P R C"]:
    size = -(-grid.height // _ROWS_AT_ONCE) * _ROWS_AT_ONCE
    rows = jnp.minimum(jnp.arange(size, dtype=jnp.int32), grid.height - 1).reshape(-1, _ROWS_AT_ONCE)

    def visit(best: Int[Array, "B P R C"], block: Int[Array, "K"]) -> tuple[Int[Array, "B P R C"], None]:
        for k in range(_ROWS_AT_ONCE):
            row = block[k : k + 1]
            found = _candidates(across[:, :, row], own, row, grid) << bits | row[0]
            best = jnp.minimum(best, found[:, :, :, 0])
        return best, None

    start = jnp.full((1, 1, len(grid.rows), 1), 2**31 - 1, jnp.int32) + 0 * across[:, :, :1]
    return jax.lax.scan(visit, start, rows)[0]


_Least = tuple[Int[Array, "B P R C"], Int[Array, "B P R C"]]


def _least(across: Int[Array, "B P H C"], own: UInt8[Array, "B H C"] | None, *, grid: AnchorGrid) -> _Least:
    """The least squared distance and its row, of pictures so large that one integer does not hold both."""
    candidates = _candidates(across, own, jnp.arange(grid.height, dtype=jnp.int32), grid)
    return candidates.min(3), jax.lax.argmin(candidates, 3, jnp.int32)


def _least_by_scan(across: Int[Array, "B P H C"], own: UInt8[Array, "B H C"] | None, *, grid: AnchorGrid) -> _Least:
    def visit(best: _Least, row: Int[Array, ""]) -> tuple[_Least, None]:
        found = _candidates(across[:, :, row[None]], own, row[None], grid)[:, :, :, 0]
        nearer = found < best[0]
        return (jnp.where(nearer, found, best[0]), jnp.where(nearer, row, best[1])), None

    nothing = jnp.zeros((1, 1, len(grid.rows), 1), jnp.int32) + 0 * across[:, :, :1]
    rows = jnp.arange(grid.height, dtype=jnp.int32)
    best: _Least = jax.lax.scan(visit, (nothing + (2**31 - 1), nothing), rows, unroll=_ROWS_AT_ONCE)[0]
    return best
