"""Where faces may be in a photo: the full-range detector on overlapping windows of the photo at several sizes."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxface.photos.face_boxes import FULL_RANGE, WIDE_RANGE, Detector, FaceBox, overlap
from jaxface.photos.network_batches import find_boxes

_DETECTORS = tuple(dataclasses.replace(detector, threshold=0.4) for detector in (FULL_RANGE, WIDE_RANGE))
"""Less sure than MediaPipe's, which sees 6 of 10 faces of 18 pixels; these see 9, and the mesh has the last word."""

_SMALLEST = 18
"""Pixels of the detector's input that a face needs to be found."""

_OVERLAP = 48
"""Pixels that windows share: a face of more than twice _SMALLEST is seen in the photo at half the size."""

_AT_ONCE = 128
"""Windows that are held at a time."""

_COARSEST = 128
"""Pixels that the photo is scaled to at last, or down to half as many: a face that fills its window is missed."""

_MARGIN = 24
"""Pixels around the photo that windows show: of small faces at its edge, every tenth is missed without."""

_FEWEST = 96
"""Pixels that smaller photos are scaled up to."""

_SAME = 0.5
"""Boxes that share more of their union are one face, found in two windows."""


@dataclasses.dataclass(frozen=True)
class _Window:
    """A piece of a photo.

    Attributes:
        picture: the detector's input.
        detector: that is to look at it.
        photo: the photo's place in the list.
        scale: photo pixels per pixel of the picture.
        corner: of the window, in pixels of the scaled photo.
    """

    picture: UInt8[np.ndarray, "S S 3"]
    detector: Detector
    photo: int
    scale: float
    corner: tuple[int, int]


def search(photos: Sequence[Image.Image], *, min_size: float, quarter: int = 0) -> list[list[FaceBox]]:
    """What may be faces in each photo, in its pixels, the surest first.

    Args:
        photos: of any size.
        min_size: pixels of the smallest face that matters; half the pixels take four times as long in large photos.
        quarter: looks for faces that are turned clockwise by so many quarters of a full turn.
    """
    found: list[list[FaceBox]] = [[] for _ in photos]
    every = (window for index, photo in enumerate(photos) for window in _windows(photo, index, min_size))
    while windows := list(itertools.islice(every, _AT_ONCE)):
        for detector in _DETECTORS:
            group = [window for window in windows if window.detector == detector]
            pictures = [np.rot90(window.picture, quarter) for window in group]
            for window, boxes in zip(group, find_boxes(pictures, detector), strict=True):
                side, corner = detector.side * window.scale, np.array(window.corner) * window.scale
                found[window.photo] += [_turn_back(box, quarter).mapped(side, corner) for box in boxes]
    return [_distinct(boxes) for boxes in found]


def _turn_back(box: FaceBox, quarter: int) -> FaceBox:
    """A face of a picture that was turned counterclockwise by quarters of a turn, where it was before."""
    turn = np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), quarter)  # rows times this: clockwise, y down
    corners = (box.box.reshape(2, 2) - 0.5) @ turn + 0.5
    return FaceBox(box.score, np.concatenate([corners.min(0), corners.max(0)]), (box.keypoints - 0.5) @ turn + 0.5)


def _distinct(boxes: list[FaceBox]) -> list[FaceBox]:
    kept: list[FaceBox] = []
    for box in sorted(boxes, key=lambda box: -box.score):
        if all(overlap(box.box, other.box) < _SAME for other in kept):
            kept.append(box)
    return kept


def _windows(photo: Image.Image, index: int, min_size: float) -> Iterator[_Window]:
    """Overlapping windows of the photo scaled to several sizes, each half the one before, the last with room around."""
    longer = max(photo.size)
    size = max(longer * min(1.0, _SMALLEST / min_size), _FEWEST)
    while True:
        width, height = (max(1, round(side * size / longer)) for side in photo.size)
        resized = photo.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        places, detector = window_places(width, height)
        for left, top in places:
            picture = np.asarray(resized.crop((left, top, left + detector.side, top + detector.side)))
            yield _Window(picture, detector, index, longer / size, (left, top))
        if size <= _COARSEST:
            return
        size /= 2


def window_places(width: int, height: int) -> tuple[list[tuple[int, int]], Detector]:
    """The corners (x, y) of windows that cover a picture, and the detector for them, of which there is less to do."""

    def corners(detector: Detector) -> list[tuple[int, int]]:
        across, down = (window_starts(length, detector.side) for length in (width, height))
        return [(left, top) for top in down for left in across]

    detector = min(_DETECTORS, key=lambda detector: detector.side**2 * len(corners(detector)))
    return corners(detector), detector


def window_starts(length: int, side: int) -> list[int]:
    """Where windows of a side begin along so many pixels."""
    if length <= side:
        return [(length - side) // 2]  # centred: room on both sides
    count = 1 + math.ceil((length + 2 * _MARGIN - side) / (side - _OVERLAP))
    return [round(start) for start in np.linspace(-_MARGIN, length + _MARGIN - side, count)]
