"""Terms that keep coefficients, light and albedo plausible, as in Deep3DFaceRecon (Deng et al. 2019)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped


def coefficient_regularization(
    identity: Float[Array, "B Ki"],
    expression: Float[Array, "B Ke"],
    albedo: Float[Array, "B Ka"],
    *,
    identity_weight: float = 1.0,
    expression_weight: float = 0.8,
    albedo_weight: float = 1.7e-2,
) -> Float[Array, "B"]:
    """Weighted sum of squared coefficients: improbable faces cost more (3DDFA-V3's L_reg; weight 3e-4).

    Args:
        identity: in standard deviations of the basis.
        expression: likewise.
        albedo: likewise.
        identity_weight: factor of |identity|^2.
        expression_weight: factor of |expression|^2.
        albedo_weight: factor of |albedo|^2.

    Returns:
        [B] loss.
    """
    identity, expression, albedo = (jnp.square(jnp.asarray(x)).sum(-1) for x in (identity, expression, albedo))
    return identity_weight * identity + expression_weight * expression + albedo_weight * albedo


def light_regularization(light: Float[Array, "B 3 K"]) -> Float[Array, "B"]:
    """Mean squared deviation of each band from its mean over the colour channels: prefers white light (weight 10).

    Args:
        light: spherical-harmonics coefficients per colour channel.

    Returns:
        [B] loss.

    Raises:
        ValueError: when the shape is not [B, 3, K].
    """
    if np.ndim(light) != 3 or np.shape(light)[1] != 3:
        raise ValueError(f"expected light [B, 3, K], got {np.shape(light)}")
    light = jnp.asarray(light)
    return jnp.square(light - light.mean(1, keepdims=True)).mean((1, 2))


def reflectance_loss(
    albedo: Float[Array, "B V C"], mask: Shaped[Array | np.ndarray, "*B V"] | None = None
) -> Float[Array, "B"]:
    """Variance of the unlit albedo over the skin, summed over the colour channels: prefers even skin (weight 5).

    It keeps shadows of the photo in the light and out of the albedo.

    Args:
        albedo: colours in [0, 1] of vertices (or of pixels, flattened).
        mask: weights [V] or [B, V] of what is skin, boolean or in [0, 1]; held fixed for gradients. None: everything.

    Returns:
        [B] loss; 0 where the mask is empty.

    Raises:
        ValueError: when shapes do not fit together.
    """
    if np.ndim(albedo) != 3:
        raise ValueError(f"expected albedo [B, V, C], got {np.shape(albedo)}")
    batch, count = np.shape(albedo)[:2]
    albedo = jnp.asarray(albedo)
    if mask is None:
        mask = np.ones(count, np.float32)
    if np.shape(mask) not in ((count,), (batch, count)):
        raise ValueError(f"expected a mask [{count}] or [{batch}, {count}], got {np.shape(mask)}")
    weights = jnp.broadcast_to(jnp.asarray(mask).astype(albedo.dtype), (batch, count))
    total = weights.sum(-1, keepdims=True)
    weights = jax.lax.stop_gradient(weights / jnp.where(total == 0, 1.0, total))[..., None]
    mean = (weights * albedo).sum(1, keepdims=True)
    return (weights * jnp.square(albedo - mean)).sum((1, 2))
