"""MediaPipe's 478 face points: which of them are ibug's 68, and which bound the parts of the face.

Indices are those of MediaPipe's canonical face mesh with `refine_landmarks`. Loops run around a part; each side of a
brow or lip runs from the subject's right (smaller x) to the left.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

from jaxface.core import parts
from jaxface.core.landmarks import IBUG_68

POINTS = 478
"""Of the mesh, ten of them around the irises."""

IRISES = 468
"""The first of those: they follow the gaze, no spot of the face."""

FACE_OVAL = (
    [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377]
    + [152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]
)  # fmt: skip
"""Loop around the face."""

JAW = [177, 215, 138, 135, 169, 170, 140, 171, 175, 396, 369, 395, 394, 364, 367, 435, 401]
"""The line within the oval along the jaw, from below one ear to below the other."""

RIGHT_EYE = [33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7]
"""Loop around the subject's right eye."""

LEFT_EYE = [362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382]
"""Loop around the subject's left eye."""

RIGHT_BROW_TOP, RIGHT_BROW_BOTTOM = [70, 63, 105, 66, 107], [46, 53, 52, 65, 55]
"""Upper and lower side of the subject's right brow."""

LEFT_BROW_TOP, LEFT_BROW_BOTTOM = [336, 296, 334, 293, 300], [285, 295, 282, 283, 276]
"""Upper and lower side of the subject's left brow."""


# Down the subject's right side from between the eyes, around the wing, along the base, and up the left side.
NOSE = (
    [168, 193, 188, 174, 198, 209, 49, 129, 64, 98, 97, 2]
    + [326, 327, 294, 358, 279, 429, 420, 399, 412, 417]
)  # fmt: skip

UPPER_LIP_TOP = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291]
"""Outer side of the upper lip."""

UPPER_LIP_BOTTOM = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308]
"""Inner side of the upper lip."""

LOWER_LIP_TOP = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308]
"""Inner side of the lower lip."""

LOWER_LIP_BOTTOM = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291]
"""Outer side of the lower lip."""


def ibug_landmarks(points: Float[np.ndarray, "478 D"]) -> Float[np.ndarray, "68 D"]:
    """The ibug-68 landmarks among the mesh points."""
    return points[IBUG_68]


def part_loops(points: Float[np.ndarray, "478 2"]) -> dict[str, Float[np.ndarray, "N 2"]]:
    """Closed outlines, in the unit of `points`, of the parts ("skin" is the whole face) and of the open "mouth"."""

    def band(top: Sequence[int], bottom: Sequence[int]) -> np.ndarray:
        return points[[*top, *reversed(bottom)]]

    return {
        "left_eye": points[LEFT_EYE],
        "right_eye": points[RIGHT_EYE],
        "left_brow": band(LEFT_BROW_TOP, LEFT_BROW_BOTTOM),
        "right_brow": band(RIGHT_BROW_TOP, RIGHT_BROW_BOTTOM),
        "nose": points[NOSE],
        "upper_lip": band(UPPER_LIP_TOP, UPPER_LIP_BOTTOM),
        "lower_lip": band(LOWER_LIP_TOP, LOWER_LIP_BOTTOM),
        "skin": points[FACE_OVAL],
        "mouth": band(UPPER_LIP_BOTTOM, LOWER_LIP_TOP),
    }


def label_map(points: Float[np.ndarray, "478 2"], height: int, width: int) -> UInt8[np.ndarray, "H W"]:
    """Draws the part labels of a face from its mesh points, the forehead already cut.

    What hides the face (fringe, glasses, hands) is not known here and is labelled like the face behind it.

    Args:
        points: mesh points (x, y) in pixels of the picture to draw, which may reach beyond it.
        height: of the label map in pixels.
        width: likewise.
    """
    masks = {part: fill_polygon(loop, height, width) for part, loop in part_loops(points).items()}
    mouth = masks.pop("mouth")
    labels = parts.labels_from_masks(masks)
    labels[mouth & (labels == parts.LABELS["skin"])] = parts.FOREHEAD
    return parts.cut_forehead(labels)


def fill_polygon(polygon: Float[np.ndarray, "N 2"], height: int, width: int) -> Bool[np.ndarray, "H W"]:
    """Pixels whose centre lies inside a closed polygon (even-odd rule), its corners (x, y) in pixels."""
    start, end = np.asarray(polygon, np.float64), np.roll(np.asarray(polygon, np.float64), -1, axis=0)
    centers = np.arange(height)[:, None] + 0.5
    rows, edges = np.nonzero((start[:, 1] <= centers) != (end[:, 1] <= centers))
    (x0, y0), (x1, y1) = start[edges].T, end[edges].T
    crossings = x0 + (rows + 0.5 - y0) / (y1 - y0) * (x1 - x0)
    # Each crossing flips inside and outside for all pixel centres to its right.
    flips = np.zeros((height, width + 1), np.int32)
    np.add.at(flips, (rows, np.clip(np.ceil(crossings - 0.5), 0, width).astype(int)), 1)
    return np.cumsum(flips[:, :width], axis=1) % 2 == 1
