"""Soft silhouette: SoftRas (Liu et al. 2019, "Soft Rasterizer", equations 1 and 4), exact up to a bounded tail.

Each triangle covers a pixel with probability D = sigmoid(sign d^2 / sigma), d being the distance from the pixel's
centre to the triangle's outline and the sign positive inside; the silhouette is 1 - prod(1 - D). In logarithms that
product is a sum, a scatter-add, so nothing has to be sorted; and D falls off so fast that only pixels near a triangle
count.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from jaxface.core.platforms import by_platform
from jaxface.core.typed_jit import typed_jit
from jaxface.render.tiles import (
    Boxes,
    bounding_boxes,
    corners_of_all,
    has_area,
    height_and_width,
    loop_over_tiles,
    tile_pixels,
)

NEGLECTED = 5e-5
"""Bound on what all neglected triangles together could add to a pixel of the silhouette."""

EDGES = ((0, 1), (1, 2), (2, 0))  # edge i starts at corner i

PIXELS_AT_ONCE = 500_000
"""Pairs of pixel and triangle in one step of the loop: bounds the memory, whatever the mesh.

Not a power of two: chunks of such a size took three times as long on a CPU.
"""

ACCELERATOR_PIXELS_AT_ONCE = 16_000_000
"""The same on accelerators, which want few large steps; some 250 MB in the gradient."""


@typed_jit(static_argnames=("image_size", "sigma"))
def soft_silhouette(
    points: Float[Array | np.ndarray, "*B V 2"],
    triangles: Integer[Array | np.ndarray, "T 3"],
    *,
    image_size: int | tuple[int, int],
    sigma: float,
) -> Float[Array, "*B H W"]:
    """Probability that each pixel is covered by the mesh (SoftRas, equations 1 and 4), in [0, 1].

    Equal to the formula over all pixels and triangles to 1e-4 (NEGLECTED bounds the tail). Differentiable in the points
    (reverse mode). Time grows with sigma, memory does not grow with triangles x pixels. Triangles with no area or with
    a corner that is not finite do not count. Leading dimensions, any number, are a batch.

    Args:
        points: image points (x, y) in pixels, y down.
        triangles: vertex indices; either orientation.
        image_size: (height, width) in pixels, or one number for a square.
        sigma: sharpness, in squared units of half the image's height (SoftRas's [-1, 1] square); 1e-5 to 1e-4 is usual.

    Raises:
        ValueError: if sigma is not positive.
    """
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, not {sigma}")
    points, triangles = jnp.asarray(points), jnp.asarray(triangles, jnp.int32)
    size = height_and_width(image_size)
    shape = (*points.shape[:-2], *size)
    if points.size == 0 or triangles.shape[0] == 0:
        return jnp.zeros(shape, points.dtype)
    return silhouette(points, triangles, size, sigma, SOFTRAS).reshape(shape)


class Rim(NamedTuple):
    """How a triangle's coverage D falls off around its outline.

    Attributes:
        logarithm: -log(1 - D) of inside (bool) and of the squared distance to the outline over sigma; no more than
            about exp(-that) outside.
        slope: its derivative in the latter.
    """

    logarithm: Callable[[Array, Array], Array]
    slope: Callable[[Array, Array], Array]


SOFTRAS = Rim(
    # softplus(sign d^2 / sigma)
    logarithm=lambda inside, squared: jnp.where(inside, squared, 0.0) + jnp.log1p(jnp.exp(-squared)),
    slope=lambda inside, squared: jnp.where(inside, jax.nn.sigmoid(squared), -jax.nn.sigmoid(-squared)),
)
"""How a triangle fades at its rim in SoftRas."""


def silhouette(
    points: Float[Array, "*B V 2"], triangles: Int[Array, "T 3"], image_size: tuple[int, int], sigma: float, rim: Rim
) -> Float[Array, "N H W"]:
    """1 - prod(1 - D) over all triangles, of the flattened batch; sigma in squared units of half the image's height."""
    flat = points.reshape(math.prod(points.shape[:-2]), *points.shape[-2:])
    softness = sigma * image_size[0] ** 2 / 4  # sigma in squared pixels
    return -jnp.expm1(-_total_logarithm(flat, triangles, image_size, softness, rim))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _total_logarithm(
    points: Float[Array, "B V 2"], triangles: Int[Array, "T 3"], image_size: tuple[int, int], softness: float, rim: Rim
) -> Float[Array, "B H W"]:
    """-sum over triangles of log(1 - D) at every pixel."""
    total = functools.partial(_sum_over_tiles, image_size=image_size, softness=softness, rim=rim)
    at_once = functools.partial(total, pixels_at_once=ACCELERATOR_PIXELS_AT_ONCE)
    return by_platform(functools.partial(total, pixels_at_once=PIXELS_AT_ONCE), at_once, points, triangles)


def _sum_over_tiles(
    points: Float[Array, "B V 2"],
    triangles: Int[Array, "T 3"],
    image_size: tuple[int, int],
    softness: float,
    rim: Rim,
    pixels_at_once: int,
) -> Float[Array, "B H W"]:
    corners, boxes, chunk = _prepare(points, triangles, image_size, softness, pixels_at_once)

    def visit(
        total: Float[Array, "P"],
        item: Int[Array, "C"],
        column: Int[Array, "C"],
        row: Int[Array, "C"],
        valid: Bool[Array, "C"],
    ) -> Float[Array, "P"]:
        columns, rows, target = _pixels(item // triangles.shape[0], column, row, valid, boxes.tile, image_size)
        inside, squared, _, _ = _nearest(corners[..., item], columns, rows)
        exponent = jnp.minimum(jnp.minimum(squared[0], squared[1]), squared[2]) / softness
        return total.at[target].add(rim.logarithm(inside, exponent), mode="drop")

    total = jnp.zeros(points.shape[0] * math.prod(image_size), points.dtype)
    return loop_over_tiles(boxes, visit, total, chunk=chunk).reshape(points.shape[0], *image_size)


def _forward(
    points: Float[Array, "B V 2"], triangles: Int[Array, "T 3"], image_size: tuple[int, int], softness: float, rim: Rim
) -> tuple[Float[Array, "B H W"], tuple[Float[Array, "B V 2"], Int[Array, "T 3"]]]:
    return _total_logarithm(points, triangles, image_size, softness, rim), (points, triangles)


def _backward(
    image_size: tuple[int, int],
    softness: float,
    rim: Rim,
    saved: tuple[Float[Array, "B V 2"], Int[Array, "T 3"]],
    cotangent: Float[Array, "B H W"],
) -> tuple[Float[Array, "B V 2"], None]:
    gradient = functools.partial(_gradient_over_tiles, image_size=image_size, softness=softness, rim=rim)
    at_once = functools.partial(gradient, pixels_at_once=ACCELERATOR_PIXELS_AT_ONCE)
    return by_platform(functools.partial(gradient, pixels_at_once=PIXELS_AT_ONCE), at_once, *saved, cotangent), None


def _gradient_over_tiles(
    points: Float[Array, "B V 2"],
    triangles: Int[Array, "T 3"],
    cotangent: Float[Array, "B H W"],
    image_size: tuple[int, int],
    softness: float,
    rim: Rim,
    pixels_at_once: int,
) -> Float[Array, "B V 2"]:
    # A loop of unknown length cannot be differentiated backwards as it stands, nor should its steps be kept: the second
    # loop computes each tile anew and adds its gradient to the corners.
    corners, boxes, chunk = _prepare(points, triangles, image_size, softness, pixels_at_once)
    cotangent, count = cotangent.reshape(-1), triangles.shape[0]

    def visit(
        gradient: Float[Array, "N 2"],
        item: Int[Array, "C"],
        column: Int[Array, "C"],
        row: Int[Array, "C"],
        valid: Bool[Array, "C"],
    ) -> Float[Array, "N 2"]:
        columns, rows, target = _pixels(item // count, column, row, valid, boxes.tile, image_size)
        weights = cotangent.at[target].get(mode="fill", fill_value=0)
        change = _corner_gradient(corners[..., item], columns, rows, softness, rim, weights)
        vertex = triangles[item % count] + (item // count * points.shape[1])[:, None]
        vertex = jnp.where(valid[:, None], vertex, len(gradient))  # dropped, or many zeros would queue for one place
        return gradient.at[vertex].add(change.transpose(2, 1, 0))

    gradient = jnp.zeros((points.shape[0] * points.shape[1], 2), points.dtype)
    return loop_over_tiles(boxes, visit, gradient, chunk=chunk).reshape(points.shape)


_total_logarithm.defvjp(_forward, _backward)


def _prepare(
    points: Float[Array, "B V 2"],
    triangles: Int[Array, "T 3"],
    image_size: tuple[int, int],
    softness: float,
    pixels_at_once: int,
) -> tuple[Float[Array, "2 3 N"], Boxes, int]:
    """The corners of all triangles of the batch, their boxes, and how many tiles to visit at once."""
    count = triangles.shape[0]
    corners = corners_of_all(points, triangles)
    keep = has_area(corners[0], corners[1])
    corners = jnp.where(keep[None, None], corners, 0.0)  # a NaN would survive a zero cotangent
    # softplus(-r^2 / s) < exp(-r^2 / s), so `count` triangles farther than r add less than NEGLECTED.
    margin = math.sqrt(softness * math.log(count / NEGLECTED))
    tile = min(max(math.ceil(2 * margin) + 2, 4), 16)
    boxes = bounding_boxes(corners[0], corners[1], keep, image_size=image_size, tile=tile, margin=margin)
    return corners, boxes, max(min(pixels_at_once // tile**2, 2 * keep.size), 64)


def _pixels(
    sample: Int[Array, "C"],
    column: Int[Array, "C"],
    row: Int[Array, "C"],
    valid: Bool[Array, "C"],
    tile: int,
    image_size: tuple[int, int],
) -> tuple[Int[Array, "M C"], Int[Array, "M C"], Int[Array, "M C"]]:
    """Columns, rows and index into the flat batch of images [M, C]; out of range if outside or not valid."""
    columns, rows = tile_pixels(column, row, tile)
    inside = valid[None, :] & (columns < image_size[1]) & (rows < image_size[0])
    target = (sample * math.prod(image_size))[None, :] + rows * image_size[1] + columns
    return columns, rows, jnp.where(inside, target, jnp.iinfo(jnp.int32).max)


def _nearest(
    corners: Float[Array, "2 3 C"], columns: Int[Array, "M C"], rows: Int[Array, "M C"]
) -> tuple[Bool[Array, "M C"], list[Float[Array, "M C"]], list[Float[Array, "M C"]], list[tuple[Array, Array]]]:
    """For pixels against triangles: inside or not; and per edge, of the edge's point nearest to the pixel's centre,
    the squared distance, the place along the edge in [0, 1], and the offset (x, y) from the centre."""
    x = [corners[0, i][None] - (columns.astype(corners.dtype) + 0.5) for i in range(3)]
    y = [corners[1, i][None] - (rows.astype(corners.dtype) + 0.5) for i in range(3)]
    sides, squared, along, offset = [], [], [], []
    for i, j in EDGES:
        edge_x, edge_y = x[j] - x[i], y[j] - y[i]
        length = edge_x**2 + edge_y**2
        along.append(jnp.clip(-(x[i] * edge_x + y[i] * edge_y) / jnp.where(length > 0, length, 1.0), 0.0, 1.0))
        offset.append((x[i] + along[-1] * edge_x, y[i] + along[-1] * edge_y))
        squared.append(offset[-1][0] ** 2 + offset[-1][1] ** 2)
        sides.append(x[i] * y[j] - y[i] * x[j])
    positive = (sides[0] > 0) & (sides[1] > 0) & (sides[2] > 0)
    negative = (sides[0] < 0) & (sides[1] < 0) & (sides[2] < 0)
    return positive | negative, squared, along, offset


def _corner_gradient(
    corners: Float[Array, "2 3 C"],
    columns: Int[Array, "M C"],
    rows: Int[Array, "M C"],
    softness: float,
    rim: Rim,
    cotangent: Float[Array, "M C"],
) -> Float[Array, "2 3 C"]:
    """Gradient of sum(cotangent * logarithm) in the corners: d^2 pulls at the two ends of the nearest edge.

    The place of the nearest point along the edge counts as fixed: moving it does not change d^2 to first order.
    """
    inside, squared, along, offset = _nearest(corners, columns, rows)
    first = (squared[0] <= squared[1]) & (squared[0] <= squared[2])
    second = ~first & (squared[1] <= squared[2])

    def choose(values: Sequence[Float[Array, "M C"]]) -> Float[Array, "M C"]:
        return jnp.where(first, values[0], jnp.where(second, values[1], values[2]))

    pull = 2 * cotangent / softness * rim.slope(inside, choose(squared) / softness)
    pulls = [pull * choose([pair[axis] for pair in offset]) for axis in range(2)]
    # The compiler would compute all of this again for each of the six sums below.
    pulls, along, first, second = jax.lax.optimization_barrier((pulls, choose(along), first, second))
    chosen = (first, second, ~first & ~second)
    rows_of_gradient = []
    for pull in pulls:
        starts = [jnp.sum(jnp.where(edge, pull * (1 - along), 0.0), axis=0) for edge in chosen]
        ends = [jnp.sum(jnp.where(edge, pull * along, 0.0), axis=0) for edge in chosen]
        # Corner i is where edge i starts and edge i - 1 ends.
        rows_of_gradient.append(jnp.stack([starts[i] + ends[i - 1] for i in range(3)]))
    return jnp.stack(rows_of_gradient)
