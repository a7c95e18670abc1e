"""Z-buffer of triangles with holes: cards of hair, brows, lashes and clothes, whose picture says where they are.

Each picture of a batch has triangles of its own, without common vertices, and all take their alpha from one atlas. A
triangle counts at a pixel only if its alpha there passes a test, so that what lies behind a hole is seen through it.

The same loop over tiles as in rasterizer.py. Depth and index of a triangle are packed into one integer, so that the
maximum of these at each pixel settles who is seen, in one scatter.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxface.core.platforms import by_platform
from jaxface.core.typed_jit import typed_jit
from jaxface.render.rasterizer import Fragments, accelerator_chunk, cover, nearness_between, weights_and_depth
from jaxface.render.tiles import bounding_boxes, has_area, height_and_width, loop_over_tiles, tile_pixels

TILE = 4
"""Side in pixels of the squares into which boxes of triangles are cut."""
CHUNK = 4096
"""Tiles that one step of the loop tests: what they need stays in a CPU's cache."""


@typed_jit(static_argnames="image_size")
def rasterize_cutouts(
    points: Float[Array | np.ndarray, "B T 3 2"],
    depth: Float[Array | np.ndarray, "B T 3"],
    uv: Float[Array | np.ndarray, "B T 3 2"],
    alpha: UInt8[Array | np.ndarray, "R S"],
    *,
    image_size: int | tuple[int, int],
    threshold: float | Float[Array | np.ndarray, "*B H W"] = 0.5,
    behind: Float[Array | np.ndarray, "B H W"] | None = None,
) -> Fragments:
    """Draws triangles with holes into a z-buffer.

    A pixel shows the nearest of the triangles that contain its centre, from whichever side it is seen, and whose alpha
    there is greater than the threshold: the alpha of the one texel at the perspective-correct texture coordinate. Of
    triangles at the same depth the lowest index wins. Depths count as the same within one of 2^31 / T or more equal
    steps (of their logarithm) between the nearest and the farthest corner of the picture's triangles: of 6,000
    triangles of a head 1 m away, within some micrometres. Triangles with no area, with a corner at or behind the camera
    (depth <= 0), or with a coordinate that is not finite are left out and cost next to nothing: pad with zeros.

    In float32. Not differentiable: no gradient passes. Works under jit and vmap.

    What the corners carry is drawn with `interpolate`, given every triangle's own three vertices:

        corners = np.arange(3 * T).reshape(T, 3)
        at = interpolate(fragments, corners, uv.reshape(B, 3 * T, 2))

    Args:
        points: image points (x, y) of the corners in pixels, y down.
        depth: distance of the corners from the camera along its axis, positive in front of it.
        uv: texture coordinates of the corners, u right, v up, [0, 1] over the atlas; beyond it, its border goes on.
        alpha: the atlas, row 0 at v = 1; for small pictures a reduced one, with about one texel per pixel.
        image_size: (height, width) in pixels, or one number for a square.
        threshold: in [0, 1), for alpha / 255; also per pixel, [H, W] or [B, H, W]: with random numbers there, a surface
            is seen in a share of the pixels that is its alpha, and thin strands dissolve rather than vanish.
        behind: depth [B, H, W] of what is already drawn; of its farther side nothing is seen. 0 or infinite for none.

    Raises:
        ValueError: if the triangles are too many to be told apart.
    """
    arrays = (jnp.asarray(array, jnp.float32) for array in (points, depth, uv))
    points, depth, uv = jax.lax.stop_gradient(tuple(arrays))
    alpha = jnp.asarray(alpha)
    size = height_and_width(image_size)
    batch, count = depth.shape[:2]
    shape = (batch, *size)
    # For integers, alpha > 255 threshold is the same as alpha > its whole part.
    limit = jnp.floor(255 * jax.lax.stop_gradient(jnp.asarray(threshold, jnp.float32))).astype(jnp.int32)
    limit = jnp.broadcast_to(limit, shape) if limit.ndim else limit
    nearness = jnp.zeros(shape, jnp.float32)
    if behind is not None:
        behind = jax.lax.stop_gradient(jnp.asarray(behind, jnp.float32))
        nearness = jnp.where(behind > 0, 1 / behind, 0.0)
    triangle = jnp.full(shape, -1, jnp.int32)
    if triangle.size and count and alpha.size:
        if batch * count >= 2**31 or count >= 2**24 or triangle.size >= 2**31:
            raise ValueError(f"{batch} x {count} triangles, {shape} pixels: too many for 32-bit indices")
        draw = functools.partial(_draw, image_size=size)
        in_chunks = functools.partial(draw, chunk=CHUNK, accelerator=False)
        at_once = functools.partial(draw, chunk=accelerator_chunk(batch * count), accelerator=True)
        corners = jnp.concatenate([points, depth[..., None], uv], -1)
        corners = corners.reshape(batch * count, 3, 5).transpose(2, 1, 0)
        triangle = by_platform(in_chunks, at_once, corners, alpha, limit, nearness)
    vertices = jnp.concatenate([points, depth[..., None]], -1).reshape(batch, 3 * count, 3)
    own = jnp.arange(3 * count, dtype=jnp.int32).reshape(count, 3)
    barycentric, seen_depth = jax.vmap(weights_and_depth, (0, None, 0))(vertices, own, triangle)
    return Fragments(triangle, barycentric, seen_depth)


def _draw(
    corners: Float[Array, "5 3 N"],
    alpha: UInt8[Array, "R S"],
    limit: Int[Array, ""] | Int[Array, "B H W"],
    behind: Float[Array, "B H W"],
    *,
    image_size: tuple[int, int],
    chunk: int,
    accelerator: bool,
) -> Int[Array, "B H W"]:
    """The triangle seen at each pixel; corners as (x, y, depth, u, v), `behind` as 1 / depth.

    Accelerators test all first tiles at once, and write the pixels that are covered; CPUs walk through all tiles in
    chunks, and write whole tiles.
    """
    (height, width), batch = image_size, behind.shape[0]
    count, pixels = corners.shape[2] // batch, height * width
    x, y, z = corners[:3]
    keep = has_area(x, y) & (z > 0).all(0) & jnp.isfinite(corners).all((0, 1))
    boxes = bounding_boxes(x, y, keep, image_size=image_size, tile=TILE)
    low, high, shift = _depth_steps(z, boxes.across > 0, batch)
    code_bits = count.bit_length()

    def step_of(
        nearness: Float[Array, "*S"], low: Int[Array, "*S"], high: Int[Array, "*S"], shift: Int[Array, "*S"]
    ) -> Int[Array, "*S"]:
        return ((jnp.clip(_bits(nearness), low, high) - low) >> shift) << code_bits

    def visit(
        buffer: Int[Array, "B h w"],
        item: Int[Array, "C"],
        column: Int[Array, "C"],
        row: Int[Array, "C"],
        valid: Bool[Array, "C"],
    ) -> Int[Array, "B h w"]:
        """Draws one tile of each triangle `item`."""
        columns, rows = tile_pixels(column, row, TILE)
        at_tile, picture = corners[..., item], item // count
        inside, weights = cover(at_tile, columns, rows)
        inside &= valid[None] & (columns < width) & (rows < height)
        scale = (low[picture][None], high[picture][None], shift[picture][None])
        key = step_of(nearness_between(weights, at_tile[2]), *scale) + (count - item % count)[None]
        texel = jnp.where(inside, _texel(weights, at_tile, alpha.shape), 0)
        target = picture[None] * pixels + rows * width + columns

        def solid(key: Int[Array, "M C"], texel: Int[Array, "M C"], target: Int[Array, "M C"]) -> Int[Array, "M C"]:
            limits = limit.reshape(-1).at[target].get(mode="clip") if limit.ndim else limit
            return jnp.where(alpha.reshape(-1)[texel] > limits, key, 0)

        # A branch of its own, taken always but in the padding of the last chunk: what it is given was computed before.
        # Fused with look-ups, the arithmetic above would go pixel by pixel: 7 ms a picture rather than 5 on CPUs.
        look_up = solid if accelerator else lambda *given: jax.lax.cond(valid[0], solid, lambda key, *_: key, *given)
        key = look_up(jnp.where(inside, key, 0), texel, target)
        if accelerator:
            target = jnp.where(key > 0, target, batch * pixels)  # out of range, so dropped
            return buffer.at[target].max(key, mode="drop")
        first = jnp.stack([picture, jnp.minimum(row, height - 1), jnp.minimum(column, width - 1)], -1)
        return _maximum_of_tiles(buffer, first, key)

    steps = (array[:, None, None] for array in (low, high + (1 << shift), shift))
    buffer = jnp.where(behind > 0, step_of(behind, *steps), 0)
    if accelerator:
        every = jnp.arange(corners.shape[2], dtype=jnp.int32)
        buffer = visit(buffer.reshape(-1), every, boxes.column, boxes.row, boxes.across > 0)
    else:  # tiles may reach over the border
        buffer = jnp.pad(buffer, ((0, 0), (0, TILE - 1), (0, TILE - 1)))
    buffer = loop_over_tiles(boxes, visit, buffer, chunk=chunk, visited=int(accelerator))
    buffer = buffer.reshape(behind.shape) if accelerator else buffer[:, :height, :width]
    code = buffer & ((1 << code_bits) - 1)
    return jnp.where(code == 0, -1, count - code)


def _bits(numbers: Float[Array, "*S"]) -> Int[Array, "*S"]:
    """The bits of positive float32 numbers as integers: these have the same order, about that of the logarithm."""
    return jax.lax.bitcast_convert_type(numbers, jnp.int32)


def _depth_steps(
    z: Float[Array, "3 N"], drawn: Bool[Array, "N"], batch: int
) -> tuple[Int[Array, "B"], Int[Array, "B"], Int[Array, "B"]]:
    """Per picture, the least and the greatest `_bits` of 1 / depth of its triangles, and how many last bits to drop.

    So many that what is left, one more, and an index fit into 31 bits.
    """
    count = z.shape[1] // batch
    near = jnp.where(drawn, 1 / z, jnp.nan).reshape(3, batch, count)
    low, high = _bits(jnp.nanmin(near, (0, 2))), _bits(jnp.nanmax(near, (0, 2)))
    none = ~drawn.reshape(batch, count).any(1)
    low, high = (jnp.where(none, 0, bits) for bits in (low, high))
    too_many = (high - low) // (2 ** (31 - count.bit_length()) - 2)
    return low, high, 32 - jax.lax.clz(too_many)


def _texel(
    weights: list[Float[Array, "M N"]], corners: Float[Array, "5 3 N"], size: tuple[int, ...]
) -> Int[Array, "M N"]:
    """Place in the flat atlas of the texel at each pixel."""
    near = [weight / z[None] for weight, z in zip(weights, corners[2], strict=True)]
    total = near[0] + near[1] + near[2]
    scale = 1 / jnp.where(total > 0, total, 1.0)
    u, v = (sum(part * at[None] for part, at in zip(near, axis, strict=True)) * scale for axis in corners[3:])
    row, column = _row_and_column(u, v, size)
    return row * size[1] + column


def _row_and_column(u: Float[Array, "*N"], v: Float[Array, "*N"], size: tuple[int, ...]) -> list[Int[Array, "*N"]]:
    """The texel at texture coordinates."""
    # Clipped before the conversion: integers cannot hold what lies far outside.
    places = ((1 - v) * size[0], size[0]), (u * size[1], size[1])
    return [jnp.clip(place, 0, count - 1).astype(jnp.int32) for place, count in places]


def _maximum_of_tiles(
    buffer: Int[Array, "B h w"], first: Int[Array, "N 3"], tiles: Int[Array, "M N"]
) -> Int[Array, "B h w"]:
    """The maximum of a buffer and of square tiles of it, given (picture, row, column) of their first pixels."""
    windows = jax.lax.ScatterDimensionNumbers(
        update_window_dims=(0, 1), inserted_window_dims=(0,), scatter_dims_to_operand_dims=(0, 1, 2)
    )
    tiles = tiles.reshape(TILE, TILE, tiles.shape[1])
    inside = jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
    return jax.lax.scatter_max(buffer, first, tiles, windows, mode=inside)


def sample_texture(
    texture: UInt8[Array | np.ndarray, "R S C"], uv: Float[Array | np.ndarray, "*N 2"]
) -> Float[Array, "*N C"]:
    """The texel at each texture coordinate, in [0, 1]: the one whose alpha `rasterize_cutouts` tests.

    Args:
        texture: row 0 at v = 1.
        uv: texture coordinates, u right, v up; beyond [0, 1] the border goes on.
    """
    texture, uv = jnp.asarray(texture), jnp.asarray(uv)
    row, column = _row_and_column(uv[..., 0], uv[..., 1], texture.shape[:2])
    return texture[row, column].astype(jnp.float32) / 255


def halve_texture(texture: UInt8[Array | np.ndarray, "R S 4"]) -> UInt8[Array, "R/2 S/2 4"]:
    """A texture of half the size, for pictures that show it small: what is clear lends no colour to its neighbours."""
    texture = jnp.asarray(texture)
    height, width = (side // 2 for side in texture.shape[:2])
    blocks = texture[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 4).astype(jnp.float32)
    alpha = blocks[..., 3:].sum((1, 3))
    plain, weighted = blocks[..., :3].mean((1, 3)), (blocks[..., :3] * blocks[..., 3:]).sum((1, 3))
    color = jnp.where(alpha > 0, weighted / jnp.maximum(alpha, 1.0), plain)
    return jnp.round(jnp.concatenate([color, alpha / 4], axis=-1)).astype(jnp.uint8)
