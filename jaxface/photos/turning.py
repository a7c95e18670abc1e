"""Heads that lean, lie or stand upside down: crops are turned until they stand upright, and the answers turned back.

Networks learn from few such heads: of drawn people turned by 30 degrees, the encoder that ships errs by 2.61 mm as they
are and by 2.18 mm upright (by 2.23 mm where they did not lean). Turns are counter-clockwise in the picture, in degrees.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image

from jaxface.core.coefficients import LAST_COLUMNS, LIGHT_BANDS
from jaxface.core.lighting import spherical_harmonics
from jaxface.models import load_face_model
from jaxface.photos.alignment import Alignment, alignment_template, five_points, scaled_alignment

LEANING = 8
"""Degrees: heads that lean less are looked at as they are, as networks learned from such."""


def upright_turn(landmarks: Float[np.ndarray, "68 2"], template: Float[np.ndarray, "5 3"]) -> int:
    """By how many degrees, from -180 to 180, a picture is to be turned for the head's own up to point up.

    The model's origin is in the middle of an aligned crop however the head rolls: the turned crop is that of the turned
    photo.

    Args:
        landmarks: of the face in the picture, y down; where they are unknown, nothing is turned.
        template: of the face model, see `alignment.alignment_template`.
    """
    points = five_points(landmarks)
    if not np.isfinite(points).all():
        return 0
    flat = np.concatenate([template, np.ones((5, 1))], axis=1)
    x, y = np.linalg.lstsq(flat, points * [1, -1], rcond=None)[0][1]  # where the model's y axis points
    if math.hypot(x, y) < 1e-3:  # pixels: all in one place
        return 0
    degrees = round(math.degrees(math.atan2(x, y)))
    return degrees if abs(degrees) > LEANING else 0


@functools.cache
def template_of(face_model: str) -> Float[np.ndarray, "5 3"]:
    """The template of a face model, by its name."""
    return alignment_template(load_face_model(face_model))


def turned_picture(picture: Shaped[np.ndarray, "S S *C"], degrees: float, *, nearest: bool = False) -> np.ndarray:
    """A square picture, turned about its middle; black where it does not reach.

    Args:
        picture: colours or labels as bytes, or layers of float32.
        degrees: counter-clockwise; whole quarters move pixels, other turns mix them.
        nearest: takes the nearest pixel, as labels ask for.
    """
    if degrees % 90 == 0:
        return np.rot90(picture, round(degrees / 90))
    if picture.dtype != np.uint8 and picture.ndim == 3:
        return np.stack([turned_picture(layer, degrees) for layer in np.moveaxis(picture, -1, 0)], axis=-1)
    how = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(picture).rotate(degrees, how))


def turned_crop(photo: UInt8[np.ndarray, "H W 3"], alignment: Alignment, degrees: float) -> UInt8[np.ndarray, "S S 3"]:
    """A crop of a photo, turned about its middle: at twice the size, so that little of it blurs."""
    if degrees % 90 == 0:
        return turned_picture(alignment.crop_image(photo), degrees)
    large = turned_picture(scaled_alignment(alignment, 2 * alignment.size).crop_image(photo), degrees)
    return np.asarray(Image.fromarray(large).reduce(2))


def turned(vectors: Float[np.ndarray, "N K"], degrees: float) -> Float[np.ndarray, "N K"]:
    """Coefficients of the same faces in pictures that are turned so far."""
    if not degrees % 360:
        return vectors
    vectors, angle = np.array(vectors), math.radians(degrees)
    angles, light, translation = (vectors[:, LAST_COLUMNS[name]] for name in ("angles", "light", "translation"))
    # The roll is the last of the three rotations.
    angles[:, 2] = np.remainder(angles[:, 2] + angle + np.pi, 2 * np.pi) - np.pi
    rotation = np.eye(3)
    rotation[:2, :2] = _rotation(degrees)
    translation[:] = translation @ rotation.T
    normals = np.random.default_rng(0).normal(size=(64, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    before, after = (np.asarray(spherical_harmonics(jnp.asarray(x))) for x in (normals, normals @ rotation.T))
    change = np.linalg.lstsq(after, before, rcond=None)[0]  # functions of a degree mix
    light[:] = (light.reshape(-1, 3, LIGHT_BANDS) @ change.T).reshape(len(light), -1)
    return vectors


def turned_points(position: Float[np.ndarray, "B P 2"], degrees: float) -> Float[np.ndarray, "B P 2"]:
    """Where points of a picture, in shares of its sides, y down, lie in the turned picture."""
    return (position - 0.5) @ _rotation(degrees) + 0.5  # the inverse, transposed: y points down


def turned_whitening(whitening: Float[np.ndarray, "B P 3"], degrees: float) -> Float[np.ndarray, "B P 3"]:
    """(a, b, c) of the matrix W = [[a, 0], [c, b]] that whitens the turned points' errors."""
    a, b, c = (whitening[..., i] for i in range(3))
    zero = np.zeros_like(a)
    whiten = np.stack([np.stack([a, zero], -1), np.stack([c, b], -1)], -2) @ _rotation(degrees)
    precision = np.swapaxes(whiten, -1, -2) @ whiten
    # W'W = [[a^2 + c^2, b c], [b c, b^2]]
    b = np.sqrt(precision[..., 1, 1])
    c = precision[..., 0, 1] / b
    return np.stack([np.sqrt(np.linalg.det(precision)) / b, b, c], axis=-1)


def _rotation(degrees: float) -> Float[np.ndarray, "2 2"]:
    """Counter-clockwise where y points up; exact for quarters."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    cos, sin = (round(x) if degrees % 90 == 0 else x for x in (cos, sin))
    return np.array([[cos, -sin], [sin, cos]])
