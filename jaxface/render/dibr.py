"""Silhouette of DIB-R (Chen et al. 2019, "Learning to Predict 3D Objects with an Interpolation-based Differentiable
Renderer", section 3.2): a hard inside, and a soft rim that lets pixels outside pull at the triangles beside them.

As in the soft rasterizer (soft.py), the product over triangles is a sum of logarithms, and only pixels near a triangle
are visited. A triangle that covers a pixel adds an infinite logarithm, which makes the pixel 1 and its gradient 0.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from jaxface.core.typed_jit import typed_jit
from jaxface.render.soft import Rim, silhouette
from jaxface.render.tiles import height_and_width

FALLOFF = 7000.0
"""DIB-R's factor of d^2 in the exponent, for distances in a picture that spans [-1, 1]."""

SMALLEST = 1e-12
"""A squared distance over sigma below this counts as this, and has no gradient: a pixel's centre on an outline."""

DIBR = Rim(
    logarithm=lambda inside, squared: jnp.where(inside, jnp.inf, -jnp.log(-jnp.expm1(-jnp.maximum(squared, SMALLEST)))),
    slope=lambda inside, squared: jnp.where(
        inside | (squared < SMALLEST), 0.0, -1 / jnp.expm1(jnp.maximum(squared, SMALLEST))
    ),
)
"""How a triangle fades at its rim in DIB-R."""


@typed_jit(static_argnames=("image_size", "sigma"))
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
    return silhouette(points, triangles, size, sigma, DIBR).reshape(shape)
