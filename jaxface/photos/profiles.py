"""Faces that MediaPipe's mesh does not see, profiles above all, by the network that comes with jaxface.

The detector finds heads to 90 degrees of yaw, but the mesh learned from faces that look at the camera: beyond 55
degrees it refuses nearly all. The network learned from heads that are turned to any side. From a detection's box it
looks at a crop, then at the crop that its own answer asks for, and again. A face that is there is soon the same again,
and the network sure of its points; of what is no face, points and coefficients contradict each other.
"""

import functools
import importlib.util
import itertools
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from jaxface.core import face_models
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import vector_columns
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import vertex_points
from jaxface.core.landmarks import LANDMARKS
from jaxface.core.units import CROP_SIZE
from jaxface.models import load_face_model
from jaxface.photos.alignment import Alignment, fit_alignment
from jaxface.photos.face_boxes import FaceBox
from jaxface.photos.turning import template_of, turned, turned_crop, turned_points, upright_turn

if TYPE_CHECKING:  # loads Flax
    from jaxface.networks.parser import TrainedParser

LOOKS = 5
"""Crops of a face; each is the one that the look before asks for."""

_TRIES = tuple(itertools.product((2.0, 1.6, 2.5), (True, False)))
"""Side of the first crop, in sides of the detection's box, and whether crops are turned until the head is upright: the
first, and where the network doubts, the others. In profile a nod leans a head as well, which need not be undone."""

_UNSURE = 4.0
"""Pixels of the 224 crop: the median of the standard deviations of points, seen ones, that no face exceeds."""

_HOPELESS = 8.0
"""Likewise: beginning with another crop will not help."""

_STRAYED = 4.0
"""A crop that is so many times larger or smaller than the first shows something else."""

_CONTRADICTION = 2.5
"""Pixels of the 224 crop: how far the points may lie from where the coefficients put them, the median of those seen.

Of 70 drawn people with 55 to 92 degrees of yaw whom MediaPipe's mesh does not find, 63 stay below both (1.8 to 4.0, and
1.0 to 2.5); of 200 pictures without faces that the detector takes for some, none (from 4.6, or from 2.6)."""

_FRONTAL = 25.0
"""Degrees of yaw and pitch: what faces the camera and is refused by the mesh is no face, or hardly to be seen."""


class Look(NamedTuple):
    """What the network says of a crop.

    Attributes:
        vector: [K] coefficients.
        landmarks: [68, 2] in pixels of the crop, where these put ibug's landmarks.
        unsure: median of the standard deviations of the points that are seen, in pixels of the 224 crop.
        contradiction: median distance of these points from where the coefficients put them, likewise.
    """

    vector: Float[np.ndarray, "K"]
    landmarks: Float[np.ndarray, "68 2"]
    unsure: float
    contradiction: float

    def is_face(self, model: FaceModel) -> bool:
        """Whether the network is sure that it looked at a face that is turned away."""
        pitch, yaw, _ = self.vector[vector_columns(model)["angles"]]
        away = np.degrees(np.arccos(np.cos(pitch) * np.cos(yaw)))
        return self.unsure < _UNSURE and self.contradiction < _CONTRADICTION and away > _FRONTAL


class Profile(NamedTuple):
    """A face that the network found.

    Attributes:
        landmarks: [68, 2] ibug's, in pixels of the photo, those that are not seen as well.
        unsure: median of the standard deviations of the points that are seen, in pixels of the 224 crop.
    """

    landmarks: Float[np.ndarray, "68 2"]
    unsure: float


def find_profile(photo: Image.Image, box: FaceBox, *, quarter: int = 0) -> Profile | None:
    """The face in a detection's box, or None where the network sees none, or where Flax is not installed.

    Args:
        photo: RGB.
        box: in the photo's pixels.
        quarter: the face is turned clockwise by about so many quarters of a full turn.
    """
    if importlib.util.find_spec("flax") is None:
        return None
    pixels = np.asarray(photo)
    for factor, upright in _TRIES:
        first = _around(box, factor, photo)
        alignment, seen = _settled(pixels, first, 90 * quarter, upright=upright)
        if seen.is_face(_face_model()):
            return Profile(alignment.to_photo(seen.landmarks), seen.unsure)
        if seen.unsure > _HOPELESS:
            break
    return None


def _settled(
    photo: UInt8[np.ndarray, "H W 3"], first: Alignment, turn: int, *, upright: bool
) -> tuple[Alignment, Look]:
    """The last of a row of crops, each where the look at the one before says that the face is, and the look at it.

    The network sees each turned by so many degrees, or, if heads are to be upright, as the look before says.
    """
    alignment, template = first, template_of(_network().face_model)
    for number in range(LOOKS):
        seen = _look(turned_crop(photo, alignment, turn), turn)
        hopeless = seen.unsure > _HOPELESS and number > 1
        if number == LOOKS - 1 or hopeless or not np.isfinite(seen.unsure):
            break
        landmarks = alignment.to_photo(seen.landmarks)
        try:
            asked = fit_alignment(landmarks, template, photo_size=first.photo_size, size=first.size)
        except InputError:
            break
        if not 1 / _STRAYED < asked.scale / first.scale < _STRAYED:
            break
        alignment, turn = asked, upright_turn(seen.landmarks, template) if upright else turn
    return alignment, seen


def _around(box: FaceBox, factor: float, photo: Image.Image) -> Alignment:
    """The crop of the network's size around a detection."""
    size, (width, height) = _network().image_size, photo.size
    scale = size / (factor * float(max(box.box[2:] - box.box[:2])))
    x, y = (float(value) for value in (box.box[:2] + box.box[2:]) / 2)
    return Alignment(scale, size / 2 - scale * x, size / 2 - scale * y, size, (height, width))


def _look(crop: UInt8[np.ndarray, "S S 3"], turn: float) -> Look:
    """What the network says of a crop that is turned by so many degrees, told of the crop as it was before."""
    from jaxface.networks.parser import covariance
    from jaxface.networks.people_network import look

    size, pixel, network = len(crop), CROP_SIZE / len(crop), _network()
    answer = jax.tree.map(np.asarray, look(network.network, network.variables, crop[None]))
    vector = turned(answer.vector, -turn)[0]
    placed = np.asarray(vertex_points(_points(), vector[None], Camera().resized(size)))[0]
    position = size * turned_points(answer.points.position, -turn)[0]
    seen = answer.points.visibility[0] > 0
    if not seen.any():
        return Look(vector, placed[:LANDMARKS], np.inf, np.inf)
    variance = np.trace(covariance(answer.points.whitening[0]), axis1=-2, axis2=-1) / 2
    unsure, far = CROP_SIZE * np.sqrt(variance), pixel * np.linalg.norm(placed - position, axis=-1)
    return Look(vector, placed[:LANDMARKS], float(np.median(unsure[seen])), float(np.median(far[seen])))


def _network() -> "TrainedParser":
    from jaxface.networks.parser import load_parser  # loads Flax, which finding other faces can do without

    return load_parser()


@functools.cache
def _face_model() -> FaceModel:
    return load_face_model(_network().face_model)


@functools.cache
def _points() -> FaceModel:
    """The face model cut down to the network's points."""
    vertices = np.concatenate([np.asarray(_face_model().landmarks["68"]), _network().surface])
    return face_models.shape_of_vertices(_face_model(), vertices)
