"""Landmark schemes: which point is which, and those of the outline that march."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

# ibug-68 landmarks under a left-right flip: landmark i of the flipped image is landmark MIRRORED_68[i] of the original.
MIRRORED_68 = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    + [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
)

OUTER_EYE_CORNERS = (36, 45)
"""ibug-68 landmarks whose distance is the inter-ocular distance of the 300-W benchmark."""

LANDMARKS = 68
"""How many ibug's are."""

IBUG_68 = np.array(
    [162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389]  # jaw
    + [71, 63, 105, 66, 107, 336, 296, 334, 293, 301]  # brows
    + [168, 197, 5, 4, 75, 97, 2, 326, 305]  # nose
    + [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380]  # eyes
    + [61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87]  # lips
)
"""The mesh point of each ibug-68 landmark."""


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
