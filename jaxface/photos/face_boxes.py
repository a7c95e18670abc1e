"""From a face detector's raw output to faces: anchors, decoding, and one detection of many that overlap.

Equations and constants are those of MediaPipe 0.10.14's graphs (SsdAnchors, TensorsToDetections, NonMaxSuppression).
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float

RIGHT_EYE, LEFT_EYE, NOSE, MOUTH, RIGHT_EAR, LEFT_EAR = range(6)
"""A detection's keypoints; right and left are the subject's."""

_OVERLAP = 0.3
"""Detections that share more of their union than this are one face."""


@dataclasses.dataclass(frozen=True)
class Detector:
    """What is to know of a detector's output.

    Attributes:
        network: its name in `FaceNetworks`.
        side: pixels of its input.
        grids: cells a side and anchors a cell, in the order of the output.
        threshold: the lowest score of a face.
    """

    network: str
    side: int
    grids: tuple[tuple[int, int], ...]
    threshold: float


FULL_RANGE = Detector("full_range", 192, ((48, 1),), 0.6)
"""For faces near and far."""

WIDE_RANGE = Detector("full_range", 448, ((112, 1),), 0.6)
"""The same network on more pixels at once: fewer are looked at twice, where windows overlap."""

SHORT_RANGE = Detector("short_range", 128, ((16, 2), (8, 6)), 0.5)
"""For a face that is most of the picture."""


@dataclasses.dataclass(frozen=True)
class FaceBox:
    """A detection, in the square that the detector was shown, whose corners are (0, 0) and (1, 1).

    Attributes:
        score: confidence in [0, 1].
        box: [4] left, top, right, bottom: from brows to chin.
        keypoints: [6, 2] see RIGHT_EYE and its neighbours.
    """

    score: float
    box: Float[np.ndarray, "4"]
    keypoints: Float[np.ndarray, "6 2"]

    def mapped(self, scale: float, offset: Float[np.ndarray, "2"]) -> "FaceBox":
        """The same detection where the square's points are scale * point + offset."""
        return FaceBox(self.score, self.box * scale + np.tile(offset, 2), self.keypoints * scale + offset)


@functools.cache
def _anchors(detector: Detector) -> Float[np.ndarray, "A 2"]:
    """The centres of the cells, as often as they have anchors, row by row."""
    centers = []
    for cells, count in detector.grids:
        middle = (np.arange(cells) + 0.5) / cells
        x, y = np.meshgrid(middle, middle)
        centers.append(np.repeat(np.stack([x, y], -1).reshape(-1, 2), count, axis=0))
    return np.concatenate(centers)


def face_boxes(boxes: Float[np.ndarray, "A 16"], scores: Float[np.ndarray, " A"], detector: Detector) -> list[FaceBox]:
    """The faces that a detector saw in one picture, the surest first.

    Args:
        boxes: centre and size of the box, and six keypoints, in pixels relative to the anchor: the network's.
        scores: before the sigmoid.
        detector: which it was.
    """
    sure = 1 / (1 + np.exp(-np.clip(np.asarray(scores, np.float64), -100, 100)))
    (kept,) = np.nonzero(sure >= detector.threshold)
    kept = kept[np.argsort(-sure[kept], kind="stable")]
    values = np.asarray(boxes, np.float64)[kept].reshape(-1, 8, 2) / detector.side
    places = _anchors(detector)[kept]
    center, size, keypoints = values[:, 0] + places, values[:, 1], values[:, 2:] + places[:, None]
    corners = np.concatenate([center - size / 2, center + size / 2], -1)
    return _suppress(sure[kept], corners, keypoints)


def _suppress(
    scores: Float[np.ndarray, " N"], boxes: Float[np.ndarray, "N 4"], keypoints: Float[np.ndarray, "N 6 2"]
) -> list[FaceBox]:
    """Weighted suppression: the surest takes in all that overlap it, averaged by their scores, and keeps its score."""
    faces, left = [], np.arange(len(scores))
    while len(left):
        near = overlap(boxes[left], boxes[left[0]]) > _OVERLAP
        near[0] = True  # a box without area overlaps nothing
        taken = left[near]
        box, points = (np.average(values[taken], axis=0, weights=scores[taken]) for values in (boxes, keypoints))
        faces.append(FaceBox(float(scores[left[0]]), box, points))
        left = left[~near]
    return faces


def overlap(a: Float[np.ndarray, "*B 4"], b: Float[np.ndarray, "4"]) -> Float[np.ndarray, "*B"]:
    """Intersection over union of boxes (left, top, right, bottom) with one."""
    shared = np.prod(np.maximum(np.minimum(a[..., 2:], b[2:]) - np.maximum(a[..., :2], b[:2]), 0), -1)
    union = np.prod(a[..., 2:] - a[..., :2], -1) + np.prod(b[2:] - b[:2]) - shared
    return np.divide(shared, union, out=np.zeros(np.shape(union)), where=union > 0)


def contains(box: Float[np.ndarray, "4"], point: Float[np.ndarray, "2"]) -> bool:
    """Whether a point lies in a box (left, top, right, bottom), or on its border."""
    return bool((box[:2] <= point).all() and (point <= box[2:]).all())
