"""What hides a face: pixels between its landmarks that the label map gives to no part of it."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from jaxface.core.parts import BACKGROUND
from jaxface.synthetic.drawing import polygon

FACE_OUTLINE = np.r_[0:17, 26:16:-1]
"""ibug-68 landmarks around the face: along the jaw from ear to ear, and back along the brows."""


def hidden_pixels(
    labels: Integer[Array | np.ndarray, "B S S"],
    landmarks: Float[Array | np.ndarray, "B 68 2"],
    weights: Float[Array | np.ndarray, "B 68"],
) -> Bool[Array, "B S S"]:
    """Where a hand, a microphone or hair lies over the face: inside the outline of its landmarks, yet labelled as none.

    A parser that does not see what hides a face labels it as if nothing did; then nothing is hidden here either.

    Args:
        labels: part labels.
        landmarks: ibug-68, in pixels of the label maps.
        weights: where a landmark of the outline has weight 0, its place is not known, and nothing is called hidden.
    """
    labels, landmarks = jnp.asarray(labels), jnp.asarray(landmarks)
    row, column = jnp.meshgrid(jnp.arange(labels.shape[1]) + 0.5, jnp.arange(labels.shape[2]) + 0.5, indexing="ij")
    inside = jax.vmap(lambda line: polygon(jnp.stack([column, row], axis=-1), line))(landmarks[:, FACE_OUTLINE]) > 0
    known = (jnp.asarray(weights)[:, FACE_OUTLINE] > 0).all(-1)
    return inside & (labels == BACKGROUND) & known[:, None, None]
