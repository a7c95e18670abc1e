"""The landmark loss of Deep3DFaceRecon, and landmark marching for the outline of the face."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

LANDMARK_WEIGHTS_68 = np.ones(68, np.float32)
"""Deep3DFaceRecon's weights [68]: 20 for the bridge and tip of the nose and for the inner mouth, else 1."""

LANDMARK_WEIGHTS_68[28:31] = 20.0

LANDMARK_WEIGHTS_68[-8:] = 20.0


def landmark_loss(
    predicted: Float[Array, "B L 2"],
    target: Float[Array | np.ndarray, "B L 2"],
    *,
    weights: Float[Array | np.ndarray, "*B L"] | None = None,
) -> Float[Array, "B"]:
    """Mean over the landmarks of weight times squared distance, as in Deep3DFaceRecon (Deng et al. 2019, section 3.1).

    The sum is divided by L, not by the weights or by the number of landmarks that are seen. 3DDFA-V3 writes
    "normalised by H x W" and weighs the whole with 1.6e-3; that factor fits this mean in square pixels of a 224 x 224
    picture.

    Args:
        predicted: image points in pixels, y down.
        target: image points in pixels, y down. A landmark of weight zero may hold anything, even NaN.
        weights: [L] or [B, L], for instance LANDMARK_WEIGHTS_68; 0 leaves a landmark out. None: all 1.

    Returns:
        [B] loss in square pixels; 0 where all weights are 0.

    Raises:
        ValueError: when shapes do not fit together.
    """
    if np.ndim(predicted) != 3 or np.shape(predicted) != np.shape(target):
        raise ValueError(f"expected two arrays [B, L, 2], got {np.shape(predicted)} and {np.shape(target)}")
    batch, count = np.shape(predicted)[:2]
    if count == 0:
        raise ValueError("there are no landmarks")
    if weights is None:
        weights = np.ones(count, np.float32)
    if np.shape(weights) not in ((count,), (batch, count)):
        raise ValueError(f"expected weights [{count}] or [{batch}, {count}], got {np.shape(weights)}")
    weights = jnp.broadcast_to(jnp.asarray(weights), (batch, count))
    difference = jnp.where((weights != 0)[..., None], jnp.asarray(predicted) - target, 0.0)
    return (weights * jnp.square(difference).sum(-1)).sum(-1) / count
