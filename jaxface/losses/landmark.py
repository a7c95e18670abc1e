"""The landmark loss of Deep3DFaceRecon, and landmark marching for the outline of the face."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

LANDMARK_WEIGHTS_68 = np.ones(68, np.float32)
LANDMARK_WEIGHTS_68[28:31] = 20.0
LANDMARK_WEIGHTS_68[-8:] = 20.0
"""Deep3DFaceRecon's weights [68]: 20 for the bridge and tip of the nose and for the inner mouth, else 1."""


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


def march_landmarks(
    x: Float[Array, "B V"],
    landmarks: Integer[Array | np.ndarray, "L"],
    contours: Integer[Array | np.ndarray, "C N"],
) -> Integer[Array, "B L"]:
    """Moves the landmarks of the face's outline to the contour that is seen (landmark marching, Zhu et al. 2015).

    Detectors put the landmarks of jaw and cheeks on the visible outline, which is another line on the mesh for every
    pose. Landmark i < C may lie on any vertex of line i: the vertex with the smallest x is chosen for the lines before
    the middle one (the picture's left), the one with the largest x for those behind it. The middle line, the chin,
    keeps its landmark, as do landmarks C and up.

    Args:
        x: horizontal image coordinate of every vertex with the roll set to zero, see `unrolled_x`. Any unit and offset.
        landmarks: vertex indices of the fixed landmarks, outline first (ibug's order: left to right in the picture).
        contours: vertex indices of the lines; short lines repeat a vertex.

    Returns:
        [B, L] vertex indices, to be used as `jnp.take_along_axis(points, indices[..., None], axis=1)`. The choice
        has no gradient; the points chosen have theirs.

    Raises:
        ValueError: when there are more lines than landmarks or shapes do not fit.
    """
    if np.ndim(x) != 2 or np.ndim(landmarks) != 1 or np.ndim(contours) != 2 or len(contours) > len(landmarks):
        shapes = [np.shape(array) for array in (x, landmarks, contours)]
        raise ValueError(f"expected x [B, V], landmarks [L], contours [C, N] with C <= L, got {shapes}")
    lines = len(contours)
    contours, landmarks = jnp.asarray(contours), jnp.asarray(landmarks)
    outward = jnp.sign(jnp.arange(lines) - (lines - 1) / 2)  # -1 left, 0 chin, 1 right
    x = jax.lax.stop_gradient(jnp.asarray(x))
    furthest = jnp.argmax(x[:, contours] * outward[None, :, None], axis=-1)
    chosen = jnp.take_along_axis(contours[None], furthest[..., None], axis=-1)[..., 0]
    chosen = jnp.where((outward == 0)[None], landmarks[None, :lines], chosen)
    fixed = jnp.broadcast_to(landmarks[None, lines:], (len(x), len(landmarks) - lines))
    return jnp.concatenate([chosen, fixed], axis=1)


def unrolled_x(points: Float[Array, "B V 2"], roll: Float[Array, "B"]) -> Float[Array, "B V"]:
    """Horizontal coordinate of image points after turning the picture back by the roll, up to an offset per face.

    Args:
        points: in pixels, y down.
        roll: in radians, positive = counter-clockwise in the picture (angles[:, 2] of the coefficients).
    """
    cos, sin = jnp.cos(roll)[:, None], jnp.sin(roll)[:, None]
    return cos * points[..., 0] - sin * points[..., 1]
