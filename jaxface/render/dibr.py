"""Silhouette of DIB-R (Chen et al. 2019, "Learning to Predict 3D Objects with an Interpolation-based Differentiable
Renderer", section 3.2): a hard inside, and a soft rim that lets pixels outside pull at the triangles beside them.

As in the soft rasterizer (soft.py), the product over triangles is a sum of logarithms, and only pixels near a triangle
are visited. A triangle that covers a pixel adds an infinite logarithm, which makes the pixel 1 and its gradient 0.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from jaxface.render.soft import _nearest, _pixels, _prepare
from jaxface.render.tiles import height_and_width, loop_over_tiles

FALLOFF = 7000.0
"""DIB-R's factor of d^2 in the exponent, for distances in a picture that spans [-1, 1]."""

SMALLEST = 1e-12
"""An exponent below this counts as this, without a gradient: a pixel's centre on the outline of a triangle."""


@functools.partial(jax.jit, static_argnames=("image_size", "sigma"))
def dibr_silhouette(
    points: Float[Array | np.ndarray, "*B V 2"],
    triangles: Integer[Array | np.ndarray, "T 3"],
    *,
    image_size: int | tuple[int, int],
    sigma: float = 1 / FALLOFF,
) -> Float[Array, "*B H W"]:
    """1 where a triangle covers the pixel's centre, else 1 - prod(1 - exp(-d^2 / sigma)); in [0, 1].

    d is the distance to a triangle. DIB-R takes the product over the triangles nearby; here over all, up to a tail
    bounded by 1e-4. Differentiable in the points (reverse mode). Triangles with no area or with a corner that is not
    finite do not count.

    Args:
        points: image points (x, y) in pixels, y down.
        triangles: vertex indices; either orientation.
        image_size: (height, width) in pixels, or one number for a square.
        sigma: width of the rim, in squared units of half the image's height; DIB-R has 1 / 7000.

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
    flat = points.reshape(math.prod(points.shape[:-2]), *points.shape[-2:])
    return -jnp.expm1(-_total_logarithm(flat, triangles, size, sigma * size[0] ** 2 / 4)).reshape(shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _total_logarithm(
    points: Float[Array, "B V 2"], triangles: Int[Array, "T 3"], image_size: tuple[int, int], softness: float
) -> Float[Array, "B H W"]:
    """-sum over triangles of log(1 - exp(-d^2 / softness)) at every pixel; infinite where one covers it."""
    # -log(1 - e^-x) differs from softplus(-x) in its second term only: soft.py's margin bounds this tail as well.
    corners, boxes, chunk = _prepare(points, triangles, image_size, softness)

    def visit(total, item, column, row, valid):
        columns, rows, target = _pixels(item // triangles.shape[0], column, row, valid, boxes.tile, image_size)
        inside, squared, _, _ = _nearest(corners[..., item], columns, rows)
        exponent = jnp.minimum(jnp.minimum(squared[0], squared[1]), squared[2]) / softness
        added = jnp.where(inside, jnp.inf, -jnp.log(-jnp.expm1(-jnp.maximum(exponent, SMALLEST))))
        return total.at[target].add(added, mode="drop")

    total = jnp.zeros(points.shape[0] * math.prod(image_size), points.dtype)
    return loop_over_tiles(boxes, visit, total, chunk=chunk).reshape(points.shape[0], *image_size)


def _forward(points, triangles, image_size, softness):
    return _total_logarithm(points, triangles, image_size, softness), (points, triangles)


def _backward(image_size, softness, saved, cotangent):
    points, triangles = saved
    corners, boxes, chunk = _prepare(points, triangles, image_size, softness)
    cotangent, count = cotangent.reshape(-1), triangles.shape[0]

    def visit(gradient, item, column, row, valid):
        columns, rows, target = _pixels(item // count, column, row, valid, boxes.tile, image_size)
        weights = cotangent.at[target].get(mode="fill", fill_value=0)
        change = _logarithm_gradient(corners[..., item], columns, rows, softness, weights)
        vertex = triangles[item % count] + (item // count * points.shape[1])[:, None]
        return gradient.at[vertex].add(change.transpose(2, 1, 0))

    gradient = jnp.zeros((points.shape[0] * points.shape[1], 2), points.dtype)
    return loop_over_tiles(boxes, visit, gradient, chunk=chunk).reshape(points.shape), None


_total_logarithm.defvjp(_forward, _backward)


def _logarithm_gradient(
    corners: Float[Array, "2 3 C"],
    columns: Int[Array, "M C"],
    rows: Int[Array, "M C"],
    softness: float,
    cotangent: Float[Array, "M C"],
) -> Float[Array, "2 3 C"]:
    """Gradient of sum(cotangent * logarithm) in the corners: d^2 pulls at the two ends of the nearest edge."""
    inside, squared, along, offset = _nearest(corners, columns, rows)
    nearest = [
        (squared[0] <= squared[1]) & (squared[0] <= squared[2]),
        (squared[1] < squared[0]) & (squared[1] <= squared[2]),
    ]

    def choose(values):
        return jnp.where(nearest[0], values[0], jnp.where(nearest[1], values[1], values[2]))

    exponent = choose(squared) / softness
    slope = -2 / softness / jnp.expm1(jnp.maximum(exponent, SMALLEST))
    pull = jnp.where(inside | (exponent < SMALLEST), 0.0, cotangent * slope)
    pulls = [pull * choose([pair[axis] for pair in offset]) for axis in range(2)]
    pulls, along, chosen = jax.lax.optimization_barrier((pulls, choose(along), nearest))  # as in soft.py
    chosen = [*chosen, ~chosen[0] & ~chosen[1]]
    rows_of_gradient = []
    for pull in pulls:
        starts = [jnp.sum(jnp.where(edge, pull * (1 - along), 0.0), axis=0) for edge in chosen]
        ends = [jnp.sum(jnp.where(edge, pull * along, 0.0), axis=0) for edge in chosen]
        rows_of_gradient.append(jnp.stack([starts[i] + ends[i - 1] for i in range(3)]))
    return jnp.stack(rows_of_gradient)
