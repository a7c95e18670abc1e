"""Heads that lie or stand upside down: crops are turned by quarters to stand upright, and the answers turned back.

Networks learn from few such heads. `np.rot90` turns counter-clockwise.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxface.core.coefficients import LAST_COLUMNS, LIGHT_BANDS
from jaxface.core.lighting import spherical_harmonics
from jaxface.photos.alignment import five_points


def quarter_turns(landmarks: Float[np.ndarray, "68 2"]) -> int:
    """How often `np.rot90` has to turn a picture until the face stands upright, to 45 degrees.

    The model's origin is in the middle of an aligned crop however the head rolls: the turned crop is that of the turned
    photo.

    Args:
        landmarks: of the face in the picture, y down; where they are unknown, nothing is turned.
    """
    right_eye, left_eye, _, *mouth = five_points(landmarks)
    x, y = np.mean(mouth, axis=0) - (right_eye + left_eye) / 2
    if not (math.isfinite(x) and math.isfinite(y)):
        return 0
    return round(-math.atan2(x, y) / (math.pi / 2)) % 4  # a turn moves what is below to the right


def turned(vectors: Float[np.ndarray, "N K"], turns: int) -> Float[np.ndarray, "N K"]:
    """Coefficients of the same faces in pictures that `np.rot90` turned so often, counter-clockwise."""
    if not turns % 4:
        return vectors
    vectors, angle = np.array(vectors), turns * np.pi / 2
    angles, light, translation = (vectors[:, LAST_COLUMNS[name]] for name in ("angles", "light", "translation"))
    # The roll is the last of the three rotations.
    angles[:, 2] = np.remainder(angles[:, 2] + angle + np.pi, 2 * np.pi) - np.pi
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]).round()
    translation[:] = translation @ rotation.T
    normals = np.random.default_rng(0).normal(size=(64, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    before, after = (np.asarray(spherical_harmonics(jnp.asarray(x))) for x in (normals, normals @ rotation.T))
    change = np.linalg.lstsq(after, before, rcond=None)[0].round(3)  # 0, 1 or -1: functions change places
    light[:] = (light.reshape(-1, 3, LIGHT_BANDS) @ change.T).reshape(len(light), -1)
    return vectors


def turned_points(position: Float[np.ndarray, "B P 2"], turns: int) -> Float[np.ndarray, "B P 2"]:
    """Of shares of a picture's sides, in the picture that `np.rot90` turned so often."""
    for _ in range(turns % 4):
        position = np.stack([position[..., 1], 1 - position[..., 0]], axis=-1)
    return position


def turned_whitening(whitening: Float[np.ndarray, "B P 3"], turns: int) -> Float[np.ndarray, "B P 3"]:
    """Likewise: (a, b, c) of the triangular matrix that whitens turned errors."""
    for _ in range(turns % 4):
        a, b, c = (whitening[..., i] for i in range(3))
        # W'W = [[a^2 + c^2, b c], [b c, b^2]]; a turn exchanges the diagonal and the sign beside it.
        last = np.sqrt(a**2 + c**2)
        whitening = np.stack([a * b / last, last, -b * c / last], axis=-1)
    return whitening
