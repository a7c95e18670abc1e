"""The mesh points of faces whose places are known about, each seen upright, and looked at again before it is believed.

The road is that of MediaPipe's FaceMesh: the short-range detector on a crop around the face says how it stands, the
mesh looks at a square turned like it. Then the mesh looks once more, at the square that its own points ask for. A face
that is there gives the same points again. What is not there, or stands on its head, gives others, or the mesh is surer
of it when the square is turned; then all is tried again from a crop that is turned.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from jaxface.core.landmarks import IBUG_68
from jaxface.networks.mediapipe_faces import MESH_POINTS, MESH_SIDE
from jaxface.photos.face_boxes import LEFT_EYE, RIGHT_EYE, SHORT_RANGE, FaceBox, contains
from jaxface.photos.network_batches import find_boxes, find_mesh
from jaxface.photos.warping import Square, cut_square, shrink

_CROP_FACTORS = (2.0, 1.4)
"""Sides of the crops, in sides of the box of the face. The second is for faces with others near them."""

_LARGEST_CROP = 512
"""Pixels a side."""

_REGION_FACTOR = 1.5
"""Side of the mesh's square, in sides of the box."""

_UPRIGHT = math.radians(20)
"""A face that stands within this angle in its crop is seen upright."""

_SURE = 20.0
"""Presence, before the sigmoid, that only upright faces have."""

_LIKELY = 14.0
"""Presence that a face has at least, a small or blurred one. MediaPipe takes 0, but cloth that is taken for a face has
9 to 13. Of 100 faces of 25 pixels (scikit-image's `lfw_subset`), 96 are found with it."""

_SAME = 0.04
"""Mean distance, in distances between the outer corners of the eyes, of the points of two looks at one face."""

_TRIES = 3
"""Crops of one size that a face is given, each turned as the one before asks for."""

RIGHT_CORNER, LEFT_CORNER = 33, 263
"""Mesh points: the outer corners of the eyes."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a face may be.

    Attributes:
        photo: the photo's place in the list.
        box: what the detector said, in the photo's pixels.
        angle: that the face is turned by, about; in radians, clockwise.
        factor: of the crop, which of _CROP_FACTORS.
        tries: how many crops of that size came before.
    """

    photo: int
    box: FaceBox
    angle: float
    factor: int = 0
    tries: int = 0


@dataclasses.dataclass(frozen=True)
class FaceLook:
    """What the mesh says of a square of a picture: points in the picture's pixels, presence before the sigmoid."""

    points: Float[np.ndarray, "478 2"]
    presence: float


@dataclasses.dataclass(frozen=True)
class _Crop:
    """A picture, and where it lies in its photo."""

    picture: UInt8[np.ndarray, "S S 3"]
    square: Square

    def to_photo(self, points: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 2"]:
        """MediaPipe's points to the photo's.

        MediaPipe has the centres of pixels at whole numbers: without the half pixel, a photo that is turned by 180
        degrees gives points that are moved by (1, 1) when turned back, at whatever size.
        """
        return self.square.to_picture((points + 0.5) / len(self.picture))


def find_points(photos: Sequence[Image.Image], places: Sequence[Place]) -> list[tuple[Place, FaceLook]]:
    """The faces among the places, with their points in the photos' pixels, those of which the mesh is surest first.

    Args:
        photos: that the places speak of.
        places: where faces may be.
    """
    found: list[tuple[Place, FaceLook]] = []
    waiting = dict(enumerate(places))
    while waiting:
        seen = dict(zip(waiting, _look(photos, list(waiting.values())), strict=True))
        found += [(waiting[index], answer) for index, answer in seen.items() if isinstance(answer, FaceLook)]
        waiting = {index: answer for index, answer in seen.items() if isinstance(answer, Place)}
    return sorted(found, key=lambda pair: -pair[1].presence)


def _look(photos: Sequence[Image.Image], places: Sequence[Place]) -> list[FaceLook | Place | None]:
    """Per place the face, or the place to try instead, or None."""
    crops = [_crop(photos[place.photo], place) for place in places]
    regions = _regions([crop.picture for crop in crops])
    known = [index for index, region in enumerate(regions) if region is not None]
    pictures = [crops[index].picture for index in known]
    first = _mesh(pictures, [regions[index] for index in known])
    own = [own_square(look.points) for look in first]
    second = _mesh(pictures, own)
    unsure = [k for k in range(len(known)) if not (second[k].presence > _SURE and _same(first[k], second[k]))]
    turned = _turned([pictures[k] for k in unsure], [own[k] for k in unsure])
    turns = {
        k: turn_of(second[k].presence, others, same=_same(first[k], second[k]))
        for k, others in zip(unsure, turned, strict=True)
    }
    answers: list[FaceLook | Place | None] = [_smaller_crop(place) for place in places]
    for k, index in enumerate(known):
        place, turn = places[index], turns.get(k, 0.0)
        points = crops[index].to_photo(first[k].points)
        if turn is None or not contains(place.box.box, points[IBUG_68[30]]):  # else it went for a neighbour's face
            continue
        angle = math.remainder(own[k].angle + turn, 2 * math.pi)
        if abs(angle) < _UPRIGHT:
            answers[index] = FaceLook(points, second[k].presence)
        elif place.tries < _TRIES:
            answers[index] = dataclasses.replace(place, angle=place.angle + angle, tries=place.tries + 1)
    return answers


def _smaller_crop(place: Place) -> Place | None:
    if place.factor + 1 == len(_CROP_FACTORS):
        return None
    return dataclasses.replace(place, factor=place.factor + 1, tries=0)


def turn_of(presence: float, turned: Sequence[float], *, same: bool) -> float | None:
    """The angle by which the square is to be turned for the mesh to be sure of a face; None where it is in no square.

    Args:
        presence: in the square as it is.
        turned: in the square turned by 90, 180 and 270 degrees.
        same: whether two looks at the square gave the same points.
    """
    best = int(np.argmax(turned))
    if turned[best] > max(presence, _SURE):
        return (best + 1) * math.pi / 2
    return 0.0 if same and presence > max(_LIKELY, 2 * turned[best]) else None


def _crop(photo: Image.Image, place: Place) -> _Crop:
    """A square around a face, turned like it, with at most _LARGEST_CROP pixels a side; black outside the photo."""
    low, high = place.box.box[:2], place.box.box[2:]
    center, side = low / 2 + high / 2, _CROP_FACTORS[place.factor] * max(high - low)
    length = math.ceil(side)
    if place.angle == 0:
        left, top = np.floor(center - side / 2).astype(int).tolist()
        picture = shrink(photo, (left, top, left + length, top + length), _LARGEST_CROP)
        return _Crop(picture, Square((left + length / 2, top + length / 2), length))
    square = Square((float(center[0]), float(center[1])), length, place.angle)
    reach = math.ceil(length * np.abs(square.axes).sum(0).max() / 2) + 1
    left, top = np.floor(center).astype(int) - reach
    around = shrink(
        photo, (left, top, left + 2 * reach, top + 2 * reach), math.ceil(2 * reach * min(1, _LARGEST_CROP / length))
    )
    scale, size = len(around) / (2 * reach), min(length, _LARGEST_CROP)
    half = square.axes.sum(0) / 2 * length * scale / size - 0.5  # `cut_square` counts from the centres of pixels
    x, y = (center - (left, top)) * scale + half
    inside = Square((float(x), float(y)), length * scale, place.angle)
    return _Crop(cut_square(around, inside, size, repeat_border=False), square)


def _regions(pictures: Sequence[UInt8[np.ndarray, "S S 3"]]) -> list[Square | None]:
    """The mesh's square for the surest face of each picture; None where the short-range detector sees none."""
    whole = [Square((len(picture) / 2, len(picture) / 2), len(picture)) for picture in pictures]
    small = [
        cut_square(picture, square, SHORT_RANGE.side, repeat_border=False)
        for picture, square in zip(pictures, whole, strict=True)
    ]
    return [
        face_square(boxes[0].mapped(square.side, np.zeros(2))) if boxes else None
        for boxes, square in zip(find_boxes(small, SHORT_RANGE), whole, strict=True)
    ]


def face_square(box: FaceBox) -> Square:
    """The square of a detected face that the mesh is to look at, its eyes level."""
    x, y = box.keypoints[LEFT_EYE] - box.keypoints[RIGHT_EYE]
    width, height = box.box[2:] - box.box[:2]
    center = box.box[:2] / 2 + box.box[2:] / 2
    return Square((float(center[0]), float(center[1])), _REGION_FACTOR * float(max(width, height)), math.atan2(y, x))


def own_square(points: Float[np.ndarray, "478 2"]) -> Square:
    """The square that a face's points ask for: the corners of its eyes level, as much room as for a detection."""
    x, y = points[LEFT_CORNER] - points[RIGHT_CORNER]
    square = Square((0.0, 0.0), 1.0, math.atan2(y, x))
    level = points[:MESH_POINTS] @ square.axes.T
    low, high = level.min(0), level.max(0)
    center = (low + high) / 2 @ square.axes
    return Square((float(center[0]), float(center[1])), _REGION_FACTOR * float(max(high - low)), square.angle)


def _mesh(pictures: Sequence[UInt8[np.ndarray, "S S 3"]], squares: Sequence[Square | None]) -> list[FaceLook]:
    pairs = [(picture, square) for picture, square in zip(pictures, squares, strict=True) if square is not None]
    found = find_mesh([cut_square(picture, square, MESH_SIDE, repeat_border=True) for picture, square in pairs])
    return [
        FaceLook(square.to_picture(points[:, :2] / MESH_SIDE), presence)
        for (_, square), (points, presence) in zip(pairs, found, strict=True)
    ]


def _turned(pictures: Sequence[UInt8[np.ndarray, "S S 3"]], squares: Sequence[Square]) -> list[list[float]]:
    """Per picture the mesh's presence in its square turned by 90, 180 and 270 degrees."""
    turns = [dataclasses.replace(square, angle=square.angle + k * math.pi / 2) for square in squares for k in (1, 2, 3)]
    looks = _mesh([picture for picture in pictures for _ in range(3)], turns)
    return [[look.presence for look in looks[k : k + 3]] for k in range(0, len(looks), 3)]


def _same(first: FaceLook, second: FaceLook) -> bool:
    distance = np.linalg.norm(first.points - second.points, axis=-1).mean()
    return bool(distance < _SAME * np.linalg.norm(second.points[LEFT_CORNER] - second.points[RIGHT_CORNER]))
