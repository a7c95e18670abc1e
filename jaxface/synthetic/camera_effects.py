"""What a camera does to a picture: blur, tone, noise and lossy compression."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxface.synthetic.dice import Dice

BLOCK = 8
"""Side of the blocks that JPEG compresses, in pixels."""


def photograph(
    dice: Dice, image: Float[Array, "S S 3"], *, sharpest: float = 0.0, shaken: float = 0.0
) -> Float[Array, "S S 3"]:
    """A clean picture as a camera of random quality would have taken it; values in [0, 1] in and out.

    Args:
        dice: random numbers.
        image: the picture.
        sharpest: the least blur in pixels.
        shaken: the share of pictures that are blurred along their rows or columns too, as by a hand that moved.
    """
    softness = jnp.maximum((0.3 + 0.4 * jnp.abs(dice.normal())) * image.shape[0] / 112, sharpest)
    spread = jnp.stack([softness, softness])
    if shaken:
        spread = jnp.hypot(spread, dice.chance(shaken) * _shake(dice, image.shape[0]))
    image = tone(dice, blur(jnp.clip(image, 0.0, 1.0), spread))
    # Photon noise grows with the square root of the light.
    strength = 0.014 * jnp.abs(dice.normal())
    image = image + strength * jnp.sqrt(0.3 + image) * dice.normal(*image.shape)
    return jnp.clip(compress(jnp.clip(image, 0.0, 1.0), 0.02 + 0.08 * dice.uniform() ** 3), 0.0, 1.0)


def _shake(dice: Dice, size: int) -> Float[Array, "2"]:
    """Deviation of a smear along columns or along rows, up to 3 % of the side long."""
    sigma = dice.uniform(low=0.005, high=0.03) * size / np.sqrt(12)
    upward = dice.chance(0.5)
    return sigma * jnp.stack([upward, 1 - upward])


def blur(image: Float[Array, "S S 3"], sigma: Float[Array, "*axes"]) -> Float[Array, "S S 3"]:
    """Gaussian blur of `sigma` pixels (up to about 2.5), by a product with a band matrix on each side.

    Args:
        image: the picture.
        sigma: one number, or two: along columns and along rows.
    """
    position = jnp.arange(image.shape[0], dtype=jnp.float32)
    weights = jnp.exp(-((position[:, None] - position[None]) ** 2)[None] / (2 * jnp.reshape(sigma, (-1, 1, 1)) ** 2))
    weights = weights / weights.sum(-1, keepdims=True)
    return jnp.einsum("ij,jwc,vw->ivc", weights[0], image, weights[-1])


def tone(dice: Dice, image: Float[Array, "S S 3"]) -> Float[Array, "S S 3"]:
    """Random saturation, white balance, contrast and gamma."""
    normal = dice.normal(4)
    gray = image @ jnp.array([0.299, 0.587, 0.114])
    saturation = (1 - dice.chance(0.04)) * jnp.exp(0.2 * normal[0])
    image = gray[..., None] + saturation * (image - gray[..., None])
    balance = jnp.stack([jnp.exp(0.05 * normal[1]), jnp.float32(1.0), jnp.exp(-0.05 * normal[1])])
    image = (image * balance[None, None] - 0.45) * jnp.exp(0.12 * normal[2]) + 0.45
    return jnp.clip(image, 1e-4, 1.0) ** jnp.exp(0.12 * normal[3])


def compress(image: Float[Array, "S S 3"], step: Float[Array, ""]) -> Float[Array, "S S 3"]:
    """JPEG's loss: rounding of the cosine transform of 8 x 8 blocks, coarser for fine detail and for colour.

    Args:
        image: in [0, 1].
        step: the coarseness; 0.02 is hardly to be seen, 0.12 is poor.
    """
    size = image.shape[0]
    padded_size = -(-size // BLOCK) * BLOCK
    padded = jnp.pad(image, ((0, padded_size - size), (0, padded_size - size), (0, 0)), mode="edge")
    count = padded_size // BLOCK
    transform, to_luma = jnp.asarray(_cosine_matrix()), jnp.asarray(_LUMA)
    blocks = (padded @ to_luma.T).reshape(count, BLOCK, count, BLOCK, 3)
    spectrum = jnp.einsum("ui,aibjc,vj->aubvc", transform, blocks, transform)
    frequency = np.arange(BLOCK, dtype=np.float32)
    detail = 1.0 + 0.35 * (frequency[:, None] + frequency[None])
    steps = step * detail[None, :, None, :, None] * np.array([1.0, 2.0, 2.0], np.float32)[None, None, None, None]
    spectrum = jnp.round(spectrum / steps) * steps
    blocks = jnp.einsum("ui,aubvc,vj->aibjc", transform, spectrum, transform)
    restored = blocks.reshape(padded_size, padded_size, 3) @ jnp.asarray(np.linalg.inv(_LUMA).T.astype(np.float32))
    return restored[:size, :size]


_LUMA = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]], np.float32)


@functools.cache
def _cosine_matrix() -> np.ndarray:
    """Orthonormal DCT-II matrix [8, 8]."""
    frequency, sample = np.meshgrid(np.arange(BLOCK), np.arange(BLOCK), indexing="ij")
    matrix = np.cos(np.pi * (sample + 0.5) * frequency / BLOCK) * np.sqrt(2 / BLOCK)
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)
