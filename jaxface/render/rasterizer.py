"""Z-buffer rasterizer: which triangle is seen at each pixel, where on it, and how far away.

Plain jnp. Every triangle is tested against the pixels of the tiles that cover its box (see tiles.py). Two scatters
settle who is seen: the smallest depth at each pixel, then the lowest index among the triangles at that depth. CPUs walk
through all tiles in small chunks. Accelerators test the first tile of every triangle at once, which for a dense mesh is
nearly all there is to test, and only what is left of larger ones goes through a loop, in few large chunks.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from jaxface.core.platforms import by_platform
from jaxface.core.typed_jit import typed_jit
from jaxface.render.tiles import (
    bounding_boxes,
    corners_of_all,
    has_area,
    height_and_width,
    loop_over_tiles,
    tile_pixels,
)

TILE = 2
"""Side in pixels of the squares into which boxes of triangles are cut."""
CHUNK = 32768
"""Tiles that one step of the loop tests: bounds the memory."""

ACCELERATOR_TILE = 3
"""TILE on accelerators. Of the built-in face at 224 px, 6 of 10 tiles that hold any pixel are a triangle's first."""


def accelerator_chunk(triangle_count: int) -> int:
    """CHUNK on accelerators, for that many triangles in a batch: as many tiles as half of the first ones."""
    return max(CHUNK, triangle_count // 2)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Fragments:
    """What is seen at each pixel.

    Attributes:
        triangle: [..., H, W] index of the triangle; -1 where there is none.
        barycentric: [..., H, W, 3] weights of its three corners at the pixel's centre, perspective-correct, sum 1;
            0 where there is none.
        depth: [..., H, W] distance along the camera's axis, in the unit of the input; 0 where there is none.
    """

    triangle: Int[Array, "*B H W"]
    barycentric: Float[Array, "*B H W 3"]
    depth: Float[Array, "*B H W"]


@typed_jit(static_argnames="image_size")
def rasterize(
    points: Float[Array | np.ndarray, "*B V 2"],
    depth: Float[Array | np.ndarray, "*B V"],
    triangles: Integer[Array | np.ndarray, "T 3"],
    *,
    image_size: int | tuple[int, int],
) -> Fragments:
    """Draws a mesh into a z-buffer.

    A pixel shows the nearest triangle that contains its centre, from whichever side it is seen; between triangles at
    the same depth (to a few units in the last place) the lowest index wins. A centre on an edge shared by two triangles
    counts as inside both, so there are no cracks. Triangles with no area, with a corner at or behind the camera
    (depth <= 0), or with a corner that is not finite are left out.

    Differentiable in points and depth through the barycentric weights and the depth; which triangle is seen where is
    held constant, as in every z-buffer. Works under jit and vmap; leading dimensions, any number, are a batch.

    Args:
        points: image points (x, y) in pixels, y down; the centre of row i, column j is (j + 0.5, i + 0.5).
        depth: distance of each vertex from the camera along its axis, positive in front of it.
        triangles: vertex indices; either orientation.
        image_size: (height, width) in pixels, or one number for a square.
    """
    points, depth = jnp.asarray(points), jnp.asarray(depth)
    triangles = jnp.asarray(triangles, jnp.int32)
    size = height_and_width(image_size)
    vertices = jnp.concatenate([points, depth[..., None]], axis=-1)
    flat = vertices.reshape(math.prod(vertices.shape[:-2]), *vertices.shape[-2:])
    triangle = _visible_triangles(jax.lax.stop_gradient(flat), triangles, size)
    barycentric, seen_depth = jax.vmap(weights_and_depth, (0, None, 0))(flat, triangles, triangle)
    shape = (*points.shape[:-2], *size)
    return Fragments(
        triangle=triangle.reshape(shape),
        barycentric=barycentric.reshape(*shape, 3),
        depth=seen_depth.reshape(shape),
    )


def _visible_triangles(
    vertices: Float[Array, "B V 3"], triangles: Int[Array, "T 3"], image_size: tuple[int, int]
) -> Int[Array, "B H W"]:
    batch, pixels, count = vertices.shape[0], image_size[0] * image_size[1], triangles.shape[0]
    if vertices.size == 0 or count == 0:
        return jnp.full((batch, *image_size), -1, jnp.int32)
    if batch * count >= 2**31 or batch * pixels >= 2**31:
        raise ValueError(f"{batch} x {count} triangles, {batch} x {pixels} pixels: too many for 32-bit indices")
    draw = functools.partial(_draw, image_size=image_size)
    in_chunks = functools.partial(draw, tile=TILE, chunk=min(CHUNK, max(1024, 2 * batch * count)), first=False)
    chunk = accelerator_chunk(batch * count)
    at_once = functools.partial(draw, tile=ACCELERATOR_TILE, chunk=chunk, first=True)
    return by_platform(in_chunks, at_once, vertices, triangles)


def _draw(
    vertices: Float[Array, "B V 3"],
    triangles: Int[Array, "T 3"],
    image_size: tuple[int, int],
    tile: int,
    chunk: int,
    first: bool,
) -> Int[Array, "B H W"]:
    """The triangle seen at each pixel, by the given size of tiles and so many in a step of the loop.

    `first`: first tiles all at once, before the loop.
    """
    batch, pixels, count = vertices.shape[0], image_size[0] * image_size[1], triangles.shape[0]
    corners = corners_of_all(vertices, triangles)
    x, y, z = corners
    nearest, farthest = jnp.minimum(jnp.minimum(z[0], z[1]), z[2]), jnp.maximum(jnp.maximum(z[0], z[1]), z[2])
    keep = has_area(x, y) & (nearest > 0) & (farthest < jnp.inf)
    boxes = bounding_boxes(x, y, keep, image_size=image_size, tile=tile)

    nothing = batch * pixels  # out of range, so dropped
    slack = 1 - 4 * jnp.finfo(vertices.dtype).eps

    def draw(
        buffers: tuple[Float[Array, "P"], Int[Array, "P"]],
        item: Int[Array, "C"],
        column: Int[Array, "C"],
        row: Int[Array, "C"],
        valid: Bool[Array, "C"],
    ) -> tuple[Float[Array, "P"], Int[Array, "P"]]:
        """Draws one tile of each triangle `item` into the buffers of 1 / depth and of triangle indices."""
        columns, rows = tile_pixels(column, row, tile)
        at_tile = corners[..., item]
        inside, weights = cover(at_tile, columns, rows)
        nearness = nearness_between(weights, at_tile[2])
        inside &= valid[None, :] & (columns < image_size[1]) & (rows < image_size[0])
        target = jnp.where(inside, (item // count * pixels)[None, :] + rows * image_size[1] + columns, nothing)
        # Computed once, used twice: computed again, it might be rounded in another way and not be found below.
        target, nearness = jax.lax.optimization_barrier((target, nearness))
        before, index = buffers
        nearest = _scatter_maximum(before, target, nearness)
        seen = nearness >= slack * nearest.at[target].get(mode="fill", fill_value=jnp.inf)
        index = jnp.where(before >= slack * nearest, index, count)
        number = jnp.broadcast_to((item % count)[None, :], target.shape)
        return nearest, index.at[jnp.where(seen, target, nothing)].min(number, mode="drop")

    buffers = jnp.zeros(nothing, vertices.dtype), jnp.full(nothing, count, jnp.int32)
    if first:
        every = jnp.arange(batch * count, dtype=jnp.int32)
        buffers = draw(buffers, every, boxes.column, boxes.row, boxes.across > 0)
    _, index = loop_over_tiles(boxes, draw, buffers, chunk=chunk, visited=int(first))
    return jnp.where(index == count, -1, index).reshape(batch, *image_size)


def _scatter_maximum(
    buffer: Float[Array, "P"], target: Int[Array, "M N"], values: Float[Array, "M N"]
) -> Float[Array, "P"]:
    """buffer.at[target].max(values), of numbers that are not negative.

    As integers their bits have the same order, and of integers GPUs take the maximum in one atomic operation.
    """
    integer = jnp.int32 if buffer.dtype.itemsize == 4 else jnp.int64
    bits = (jax.lax.bitcast_convert_type(array, integer) for array in (buffer, values))
    return jax.lax.bitcast_convert_type(next(bits).at[target].max(next(bits), mode="drop"), buffer.dtype)


def cover(
    corners: Float[Array, "C 3 N"], columns: Int[Array, "M N"], rows: Int[Array, "M N"]
) -> tuple[Bool[Array, "M N"], list[Float[Array, "M N"]]]:
    """Whether pixel centres lie in triangles with corners (x, y, ...), and the shares of the three corners there.

    Shares in the image, as areas: not negative, their sum is any positive number.

    The corners are taken relative to the pixel: exact close by, and the same for two triangles that share an edge. What
    is left of rounding in an edge function is allowed for, so that a centre on the edge belongs to both.
    """
    dtype = corners.dtype
    x = [corners[0, i][None] - (columns.astype(dtype) + 0.5) for i in range(3)]
    y = [corners[1, i][None] - (rows.astype(dtype) + 0.5) for i in range(3)]
    products = [(x[i] * y[j], y[i] * x[j]) for i, j in ((1, 2), (2, 0), (0, 1))]
    edges = [left - right for left, right in products]
    slack = [4 * jnp.finfo(dtype).eps * (jnp.abs(left) + jnp.abs(right)) for left, right in products]
    forwards = (edges[0] >= -slack[0]) & (edges[1] >= -slack[1]) & (edges[2] >= -slack[2])
    backwards = (edges[0] <= slack[0]) & (edges[1] <= slack[1]) & (edges[2] <= slack[2])
    # Clipped at zero: in a thin triangle rounding may leave an edge function on the wrong side by more than the area.
    flip = jnp.where(forwards, 1.0, -1.0)
    weights = [jnp.maximum(flip * edge, 0.0) for edge in edges]
    return (forwards | backwards) & (weights[0] + weights[1] + weights[2] > 0), weights


def nearness_between(weights: list[Float[Array, "M N"]], depth: Float[Array, "3 N"]) -> Float[Array, "M N"]:
    """1 / depth, which is linear in the image, at given shares of three corners; see `cover`."""
    total = weights[0] + weights[1] + weights[2]
    nearness = sum(weight / z[None] for weight, z in zip(weights, depth, strict=True))
    result: Float[Array, "M N"] = nearness / jnp.where(total > 0, total, 1.0)
    return result


def weights_and_depth(
    vertices: Float[Array, "V 3"], triangles: Int[Array, "T 3"], triangle: Int[Array, "H W"]
) -> tuple[Float[Array, "H W 3"], Float[Array, "H W"]]:
    """Perspective-correct barycentric weights and depth at the pixel centres, for given triangles (-1: zeros)."""
    if triangles.shape[0] == 0 or vertices.shape[0] == 0:
        return jnp.zeros((*triangle.shape, 3), vertices.dtype), jnp.zeros(triangle.shape, vertices.dtype)
    seen = triangle >= 0
    corners = [jnp.split(jnp.moveaxis(c, -1, 0), 3) for c in gather_corners(vertices, triangles, triangle)]
    row, column = (jnp.arange(size, dtype=vertices.dtype) + 0.5 for size in triangle.shape)
    x = [corner[0][0] - column[None, :] for corner in corners]
    y = [corner[1][0] - row[:, None] for corner in corners]
    z = [jnp.where(seen, corner[2][0], 1.0) for corner in corners]
    # Screen-space weights (areas) divided by depth are the weights in space, up to a common factor.
    edges = [x[i] * y[j] - y[i] * x[j] for i, j in ((1, 2), (2, 0), (0, 1))]
    flip = jnp.where(edges[0] + edges[1] + edges[2] < 0, -1.0, 1.0)
    areas = [jnp.where(flip * edge >= 0, flip * edge, 0.0) for edge in edges]  # a maximum would halve gradients at 0
    area = areas[0] + areas[1] + areas[2]
    seen &= area > 0
    weights = [part / (jnp.where(seen, area, 1.0) * depth) for part, depth in zip(areas, z, strict=True)]
    depth = 1 / jnp.where(seen, weights[0] + weights[1] + weights[2], 1.0)
    barycentric = jnp.stack([jnp.where(seen, weight * depth, 0.0) for weight in weights], axis=-1)
    return barycentric, jnp.where(seen, depth, 0.0)


def gather_corners(
    attributes: Float[Array, "V C"], triangles: Int[Array, "T 3"], triangle: Int[Array, "H W"]
) -> list[Float[Array, "H W C"]]:
    """The attributes of the three corners of each pixel's triangle; zeros, with no gradient, where it is -1."""
    # Out-of-range rather than "some vertex, times zero": the backward pass would add all the background's zeros to it.
    vertices = [jnp.where(triangle >= 0, triangles[triangle, i], attributes.shape[0]) for i in range(3)]
    return [attributes.at[vertex].get(mode="fill", fill_value=0) for vertex in vertices]


@typed_jit
def interpolate(
    fragments: Fragments,
    triangles: Integer[Array | np.ndarray, "T 3"],
    attributes: Float[Array | np.ndarray, "*B V C"],
) -> Float[Array, "*B H W C"]:
    """Vertex attributes at the pixels, weighted by the barycentric weights; zeros where there is no triangle.

    Differentiable in the attributes and, through the weights, in what the fragments were made from.

    Args:
        fragments: from `rasterize`.
        triangles: the vertex indices given to `rasterize`.
        attributes: per vertex, in any unit: colours, normals, texture coordinates. With fewer leading dimensions than
            the fragments they serve the whole batch.
    """
    attributes, triangles = jnp.asarray(attributes), jnp.asarray(triangles, jnp.int32)
    lead, image = fragments.triangle.shape[:-2], fragments.triangle.shape[-2:]
    if attributes.shape[-2] == 0 or triangles.shape[0] == 0:
        return jnp.zeros((*lead, *image, attributes.shape[-1]), attributes.dtype)

    def one(
        triangle: Int[Array, "H W"], barycentric: Float[Array, "H W 3"], attributes: Float[Array, "V C"]
    ) -> Float[Array, "H W C"]:
        corners = gather_corners(attributes, triangles, triangle)
        weights = jnp.split(barycentric.astype(attributes.dtype), 3, axis=-1)
        return weights[0] * corners[0] + weights[1] * corners[1] + weights[2] * corners[2]

    attributes = jnp.broadcast_to(attributes, (*lead, *attributes.shape[-2:]))
    flat = math.prod(lead)
    result = jax.vmap(one)(
        fragments.triangle.reshape(flat, *image),
        fragments.barycentric.reshape(flat, *image, 3),
        attributes.reshape(flat, *attributes.shape[-2:]),
    )
    return result.reshape(*lead, *image, attributes.shape[-1])
