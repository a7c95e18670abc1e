"""What speaks against trusting a face: short sentences, from what the detector, the network and the fit say of it.

`docs/results.md` tells how often each is right, on drawn people (experiments/doubts).
"""

import dataclasses
import importlib.util
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from jaxface.core.coefficients import LAST_COLUMNS
from jaxface.core.errors import needs_extra
from jaxface.core.landmarks import LANDMARKS
from jaxface.photos.face_crops import FaceCrop
from jaxface.photos.turning import turned_points
from jaxface.photos.upright_look import upright_look
from jaxface.results.drawing import Reconstruction

UPSIDE_DOWN = 120.0
"""Degrees of roll."""

PROFILE = 60.0
"""Degrees of yaw, by the fit or by the network: of a face turned further, one side is guessed."""

HIDDEN = 0.2
"""Share of the inner landmarks that something lies over, by the network's word."""

SMALL = 48.0
"""Pixels of the photo that a face should have, its longer side."""

FACE = 0.68
"""Longer side of a face's outline, in sides of the crop that was aligned to it."""

AS_LARGE = 0.75
"""Of the size of a face: others that are no smaller could be meant as well."""

CONTRADICTION = 0.12
"""Eye distances that two detectors' landmarks lie apart, the median."""

EYE_DISTANCE = 0.4
"""Between the outer corners of the eyes of a face that looks ahead, in sides of the crop that was aligned to it."""

UNSURE_MM = 3.3
"""Expected error of a shape in millimetres; the mean face is about 4 mm from people."""

OUTLINE = 17
"""The first of ibug's landmarks lie on an outline that each detector sees elsewhere."""

TURNED = 55.0
"""Degrees of yaw beyond which the far side hides itself."""

RIGHT_SIDE = (*range(17, 22), 31, 32, *range(36, 42), 48, 49, 50, 58, 59, 60, 61, 67)
"""Ibug's inner landmarks on the subject's right side."""

LEFT_SIDE = (*range(22, 27), 34, 35, *range(42, 48), 52, 53, 54, 55, 56, 63, 64, 65)
"""Likewise on the left side."""


@dataclasses.dataclass(frozen=True)
class Signs:
    """What tells how far to trust a face; NaN where nobody knows.

    Attributes:
        roll: of the head in degrees, in the photo.
        yaw: in degrees; the larger of two, where fit and network say one each.
        size: of the face in pixels of the photo, the longer side.
        hidden: share of the inner landmarks that something lies over.
        contradiction: how far the landmarks of two detectors lie apart, in eye distances.
        expected_error_mm: of the shape.
        rivals: how many other faces of the photo are about as large.
    """

    roll: float
    yaw: float
    size: float
    hidden: float = math.nan
    contradiction: float = math.nan
    expected_error_mm: float = math.nan
    rivals: int = 0


def doubts_of(signs: Signs) -> list[str]:
    """What speaks against trusting a face, a sentence each; none for most faces. A number that is NaN says nothing."""
    others = f"{signs.rivals} other face{' is' if signs.rivals == 1 else 's are'}"
    found = {
        f"upside down: the head is turned by {abs(signs.roll):.0f} degrees": abs(signs.roll) > UPSIDE_DOWN,
        f"extreme profile: turned by {abs(signs.yaw):.0f} degrees, the far side is guessed": abs(signs.yaw) > PROFILE,
        f"hidden: something seems to lie over {100 * signs.hidden:.0f} % of the face": signs.hidden > HIDDEN,
        f"too small: {signs.size:.0f} pixels; faces should have {SMALL:.0f} or more": signs.size < SMALL,
        f"several candidates: {others} about as large": signs.rivals > 0,
        f"detectors disagree: their points are {100 * signs.contradiction:.0f} % of the eye distance apart": (
            signs.contradiction > CONTRADICTION
        ),
        f"unsure: the shape is expected to be off by {signs.expected_error_mm:.1f} mm": (
            signs.expected_error_mm > UNSURE_MM
        ),
    }
    return [sentence for sentence, holds in found.items() if holds]


def rivals_of_first(crops: Sequence[FaceCrop]) -> int:
    """How many of the other faces that were found in a photo are about as large as the first, which is the largest."""
    return sum(AS_LARGE * crop.alignment.scale <= crops[0].alignment.scale for crop in crops[1:])


def contradiction(
    first: Float[np.ndarray, "68 2"], second: Float[np.ndarray, "68 2"], weights: Float[np.ndarray, "68"], *, size: int
) -> float:
    """How far the landmarks of two detectors lie apart, the median, in eye distances; NaN where no landmark counts.

    Args:
        first: ibug's 68 landmarks in an aligned crop; those of the outline, which each detector sees elsewhere, do
            not count.
        second: the same by another detector.
        weights: 1, or 0 for landmarks that count nothing.
        size: side of the crop in pixels.
    """
    counted = np.flatnonzero(weights[OUTLINE:] > 0) + OUTLINE
    if not counted.size:
        return math.nan
    return float(np.median(np.linalg.norm(first[counted] - second[counted], axis=-1))) / (EYE_DISTANCE * size)


def hidden_share(visible: Float[np.ndarray, "68"], yaw: float) -> float:
    """Share of the landmarks that something lies over: 1 - their mean probability to be seen.

    Args:
        visible: of ibug's 68 landmarks; those of the outline do not count, which hair covers on many heads.
        yaw: degrees; of a face in profile the far side hides itself and does not count.
    """
    far = () if abs(yaw) < TURNED else LEFT_SIDE if yaw > 0 else RIGHT_SIDE
    counted = np.setdiff1d(np.arange(OUTLINE, LANDMARKS), far)
    return float(1 - visible[counted].mean())


def signs_of(reconstruction: Reconstruction, *, expected_error_mm: float = math.nan) -> Signs:
    """What tells how far to trust a face: of one that a detector found, the network that ships gives a second opinion.

    Args:
        reconstruction: the face; where no detector found it (its sample has no "points"), or Flax is not installed,
            pose and size alone are known.
        expected_error_mm: of its shape.
    """
    sample, alignment = reconstruction.sample, reconstruction.alignment
    _, yaw, roll = np.degrees(reconstruction.vector[LAST_COLUMNS["angles"]])
    size = FACE * alignment.size / alignment.scale
    signs = Signs(float(roll), float(yaw), size, expected_error_mm=expected_error_mm, rivals=reconstruction.rivals)
    if "points" not in sample or importlib.util.find_spec("flax") is None:
        return signs
    looked = second_look(sample["image"], sample["landmarks"])
    hidden = hidden_share(looked.visible, looked.yaw)
    found = dataclasses.replace(signs, yaw=max(signs.yaw, looked.yaw, key=abs), hidden=hidden)
    if not sample["point_weights"].any():
        return found  # the network itself found the face: there is nobody to contradict
    side, weights = len(sample["image"]), sample["landmark_weights"]
    apart = contradiction(sample["landmarks"], looked.landmarks, weights, size=side)
    return dataclasses.replace(found, contradiction=apart)


@dataclasses.dataclass(frozen=True)
class SecondLook:
    """What the network that ships says of a crop.

    Attributes:
        yaw: degrees.
        landmarks: [68, 2] in pixels of the crop.
        visible: [68] probability that each is seen.
    """

    yaw: float
    landmarks: Float[np.ndarray, "68 2"]
    visible: Float[np.ndarray, "68"]


def second_look(image: UInt8[np.ndarray, "S S 3"], landmarks: Float[np.ndarray, "68 2"]) -> SecondLook:
    """Looks at an aligned crop with the network that ships; where the head leans, the crop is turned before.

    Args:
        image: the crop, of any size.
        landmarks: of the face, in its pixels.

    Raises:
        MissingDependencyError: when Flax is not installed.
    """
    with needs_extra("photo", "a second look at faces"):
        answer, turn = upright_look(image, landmarks)
    found = len(image) * turned_points(np.asarray(answer.points.position)[:, :LANDMARKS], -turn)[0]
    logits = np.asarray(answer.points.visibility[0, :LANDMARKS], np.float64)
    yaw = np.degrees(np.asarray(answer.vector)[0, LAST_COLUMNS["angles"]][1])
    return SecondLook(float(yaw), found, 1 / (1 + np.exp(-logits)))
