"""The distance between two faces' recognition features."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def cosine_feature_loss(
    features: Float[Array, "B D"], target_features: Float[Array | np.ndarray, "B D"]
) -> Float[Array, "B"]:
    """1 - cosine of the angle between two feature vectors (3DDFA-V3's L_per, as in Deep3DFaceRecon; weight 0.2).

    Args:
        features: of the rendered face, from a face recognition network; need not be normalised.
        target_features: of the photo, from the same network.

    Returns:
        [B] loss in [0, 2]; 1, with a finite gradient, where a vector is zero.

    Raises:
        ValueError: when the shapes are not the same [B, D].
    """
    if np.ndim(features) != 2 or np.shape(features) != np.shape(target_features):
        raise ValueError(f"expected two arrays [B, D], got {np.shape(features)} and {np.shape(target_features)}")
    return 1.0 - (_normalised(jnp.asarray(features)) * _normalised(jnp.asarray(target_features))).sum(-1)


def _normalised(features: Float[Array, "B D"]) -> Float[Array, "B D"]:
    squared = jnp.square(features).sum(-1, keepdims=True)
    return features / jnp.sqrt(jnp.where(squared == 0, 1.0, squared))
