"""Light as spherical harmonics of the surface normal (Ramamoorthi and Hanrahan 2001), in Deep3D's scaling."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

AMBIENT = 0.8
"""Added to band 0 of every channel, so that zero coefficients mean an even light."""


def spherical_harmonics(normals: Float[Array, "*B V 3"]) -> Float[Array, "*B V 9"]:
    """The nine basis functions of the first three bands, scaled by the Lambertian kernel as in Deep3D's code.

    Args:
        normals: unit vectors in posed model space (x right, y up, z towards the viewer).
    """
    a = (math.pi, 2 * math.pi / math.sqrt(3), 2 * math.pi / math.sqrt(8))
    c = (1 / math.sqrt(4 * math.pi), math.sqrt(3) / math.sqrt(4 * math.pi), 3 * math.sqrt(5) / math.sqrt(12 * math.pi))
    k0, k1, k2 = a[0] * c[0], a[1] * c[1], a[2] * c[2]
    x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
    basis = [
        jnp.full_like(x, k0),
        -k1 * y,
        k1 * z,
        -k1 * x,
        k2 * x * y,
        -k2 * y * z,
        k2 * (3 * z**2 - 1) / (2 * math.sqrt(3)),
        -k2 * x * z,
        k2 * (x**2 - y**2) / 2,
    ]
    return jnp.stack(basis, axis=-1)


def shade(
    albedo: Float[Array, "*B V 3"], normals: Float[Array, "*B V 3"], light: Float[Array | np.ndarray, "*B 3 9"]
) -> Float[Array, "*B V 3"]:
    """albedo * sum_k (light_k + ambient_k) Y_k(normal), per colour channel; not clipped.

    Args:
        albedo: in [0, 1].
        normals: unit vectors in posed model space.
        light: coefficients on top of AMBIENT in band 0.
    """
    total = jnp.asarray(light).at[..., 0].add(AMBIENT)
    basis = spherical_harmonics(normals)
    return albedo * jnp.einsum("...vk,...ck->...vc", basis, total, precision=jax.lax.Precision.HIGHEST)
