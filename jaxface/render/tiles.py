"""Which pixels each triangle has to be tested against: its bounding box, cut into small square tiles.

A triangle of a dense face mesh covers a pixel or two, one in the foreground may cover the whole image. Cutting every
box into tiles of one fixed size makes both the same kind of work: a list of (triangle, tile) pairs whose length is
known only at run time. `loop_over_tiles` walks through that list in chunks of static size; nothing is ever dropped.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxface.core.platforms import by_platform

State = TypeVar("State")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Boxes:
    """The pixels whose centres lie in each triangle's bounding box, and the tiles that cover them.

    Attributes:
        column: [N] first column.
        row: [N] first row.
        across: [N] number of tiles side by side; 0 if there is no pixel to test.
        down: [N] number of tiles one below the other; 0 if there is no pixel to test.
        tile: side of a tile in pixels; static.
    """

    column: Int[Array, "N"]
    row: Int[Array, "N"]
    across: Int[Array, "N"]
    down: Int[Array, "N"]
    tile: int = dataclasses.field(metadata={"static": True})


def height_and_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image given so, or by one number if it is square."""
    return (image_size, image_size) if isinstance(image_size, int) else (image_size[0], image_size[1])


def corners_of_all(vertices: Float[Array, "B V C"], triangles: Int[Array, "T 3"]) -> Float[Array, "C 3 N"]:
    """The three corners of all N = B * T triangles of a batch; triangles last, since the processor works along them."""
    corners = vertices[:, triangles]
    return corners.transpose(3, 2, 0, 1).reshape(vertices.shape[2], 3, vertices.shape[0] * triangles.shape[0])


def has_area(x: Float[Array, "3 N"], y: Float[Array, "3 N"]) -> Bool[Array, "N"]:
    """Which triangles with corners (x, y) have an area beyond what rounding alone would make.

    Corners that are not finite make it infinite or NaN on both sides of the comparison, which is then false.
    """
    left, right = (x[1] - x[0]) * (y[2] - y[0]), (y[1] - y[0]) * (x[2] - x[0])
    return jnp.abs(left - right) > 4 * jnp.finfo(x.dtype).eps * (jnp.abs(left) + jnp.abs(right))


def bounding_boxes(
    x: Float[Array, "3 N"],
    y: Float[Array, "3 N"],
    keep: Bool[Array, "N"],
    *,
    image_size: tuple[int, int],
    tile: int,
    margin: float = 0.0,
) -> Boxes:
    """Boxes of triangles with corners (x, y) in pixels, grown by `margin` pixels and clipped to the image.

    Args:
        x: of the three corners, in pixels.
        y: of the three corners, in pixels, down.
        keep: triangles to look at; the others get an empty box whatever their corners are (NaN, infinite).
        image_size: (height, width) in pixels.
        tile: side of a tile in pixels.
        margin: in pixels.
    """

    def interval(values: Float[Array, "3 N"], size: int) -> tuple[Int[Array, "N"], Int[Array, "N"]]:
        low = jnp.minimum(jnp.minimum(values[0], values[1]), values[2]) - margin
        high = jnp.maximum(jnp.maximum(values[0], values[1]), values[2]) + margin
        # Clipped before the conversion: integers cannot hold what lies far outside.
        first = jnp.ceil(jnp.clip(jnp.where(keep, low, 0.0), 0.0, size + 1.0) - 0.5)
        last = jnp.floor(jnp.clip(jnp.where(keep, high, -1.0), -1.0, float(size)) - 0.5)
        return first.astype(jnp.int32), jnp.maximum(last - first + 1, 0).astype(jnp.int32)

    height, width = image_size
    column, columns = interval(x, width)
    row, rows = interval(y, height)
    some = (columns > 0) & (rows > 0)
    across, down = (jnp.where(some, (extent + tile - 1) // tile, 0) for extent in (columns, rows))
    return Boxes(column=column, row=row, across=across, down=down, tile=tile)


def tile_pixels(
    column: Int[Array, "N"], row: Int[Array, "N"], tile: int
) -> tuple[Int[Array, "M N"], Int[Array, "M N"]]:
    """Columns and rows of the tile * tile = M pixels whose first is at (column, row)."""
    step = jnp.arange(tile * tile, dtype=jnp.int32)[:, None]
    return column[None, :] + step % tile, row[None, :] + step // tile


def loop_over_tiles(
    boxes: Boxes,
    visit: Callable[[State, Int[Array, "C"], Int[Array, "C"], Int[Array, "C"], Bool[Array, "C"]], State],
    state: State,
    *,
    chunk: int,
    visited: int = 0,
) -> State:
    """Calls `visit(state, triangle, column, row, valid)` on chunks of the list of all tiles, until it is done.

    Args:
        boxes: of N triangles.
        visit: takes the triangle and the first pixel of `chunk` tiles and returns the new state; tiles that are not
            `valid` pad the last chunk and must be ignored.
        state: where to start.
        chunk: how many tiles to visit at once.
        visited: how many tiles of each triangle, its first ones, to leave out.
    """
    counts = boxes.across * boxes.down
    counts = jnp.maximum(counts - visited, 0) if visited else counts
    ends = jnp.cumsum(counts)
    total = ends[-1]

    def step(carry: tuple[Int[Array, ""], State]) -> tuple[Int[Array, ""], State]:
        start, state = carry
        item = start + jnp.arange(chunk, dtype=jnp.int32)
        search = functools.partial(jnp.searchsorted, side="right")
        triangle = by_platform(search, functools.partial(search, method="scan_unrolled"), ends, item)
        triangle = jnp.minimum(triangle, ends.size - 1).astype(jnp.int32)
        across = jnp.maximum(boxes.across[triangle], 1)
        tile = visited + counts[triangle] - ends[triangle] + item  # counted from the first tile of its triangle
        column = boxes.column[triangle] + tile % across * boxes.tile
        row = boxes.row[triangle] + tile // across * boxes.tile
        return start + chunk, visit(state, triangle, column, row, item < total)

    # Made from the boxes, so that the loop can start from it under shard_map: it varies over devices as they do.
    start: tuple[Int[Array, ""], State]
    start = jax.tree.map(lambda array: array + (0 * total).astype(array.dtype), (jnp.int32(0), state))
    return jax.lax.while_loop(lambda carry: carry[0] < total, step, start)[1]
