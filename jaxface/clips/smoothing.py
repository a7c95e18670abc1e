"""Smoothing in time without lag, and jitter: numerics of a face followed through a video. NumPy and SciPy alone.

The smoother is Whittaker's (1923; Eilers 2003, "A perfect smoother"): x minimises

    sum_t w_t (x_t - y_t)^2 + stiffness * sum_t (x_(t-1) - 2 x_t + x_(t+1))^2.

It looks as far ahead as back, so nothing comes late: a sine passes with its phase, its amplitude times
1 / (1 + stiffness (2 sin(pi f))^4) for f cycles per frame. Straight lines pass unchanged.
"""

from collections.abc import Sequence

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float

ROUNDS = 6
"""Of reweighting, in `outlier_weights`."""

OUTLIER = 4.0
"""So many typical deviations from the smooth curve halve a frame's weight."""

GAP_WEIGHT = 0.05
"""What a frame without a face counts: enough that a long gap is bridged by a straight line and does not swing."""


def smoothing_stiffness(cutoff: float, *, frame_rate: float) -> float:
    """The stiffness that halves the amplitude of what moves at `cutoff`.

    Args:
        cutoff: in Hz; beyond half the frame rate it counts as that half.
        frame_rate: frames per second.

    Raises:
        ValueError: when either is not positive.
    """
    if cutoff <= 0 or frame_rate <= 0:
        raise ValueError(f"cutoff and frame_rate must be positive, got {cutoff} and {frame_rate}")
    return float((2 * np.sin(np.pi * min(cutoff / frame_rate, 0.5))) ** -4)


def smooth_in_time(
    values: Float[np.ndarray, "F C"], weights: Float[np.ndarray, "F"], *, stiffness: float
) -> Float[np.ndarray, "F C"]:
    """Whittaker's smoother of each column.

    Args:
        values: per frame, with something finite in every frame (see `fill_gaps`).
        weights: trust in each frame, at least 0; two frames or more need a positive one.
        stiffness: from `smoothing_stiffness`; 0 changes nothing.

    Raises:
        ValueError: when values or weights are not finite, or a weight is negative.
    """
    values, weights = np.asarray(values, np.float64), np.asarray(weights, np.float64)
    if not (np.isfinite(values).all() and np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("values and weights must be finite, and weights not negative")
    frames = len(values)
    if frames < 3 or stiffness == 0:
        return values.copy()
    # The upper bands of W + stiffness D'D, as SciPy wants them; every row 1, -2, 1 of D adds to three places of each.
    difference, bands = np.array([1.0, -2.0, 1.0]), np.zeros((3, frames))
    for offset in range(3):
        for corner in range(3 - offset):
            place = slice(corner + offset, frames - 2 + corner + offset)
            bands[2 - offset, place] += stiffness * difference[corner] * difference[corner + offset]
    bands[2] += weights + 1e-12 * max(weights.max(), 1.0)
    return scipy.linalg.solveh_banded(bands, weights[:, None] * values)


def outlier_weights(
    values: Float[np.ndarray, "F C"], weights: Float[np.ndarray, "F"], *, stiffness: float
) -> Float[np.ndarray, "F"]:
    """Lower weights for frames that stick out of their neighbours' smooth curve (Cauchy's weights, reweighted).

    A frame is judged by all its columns together, each measured by its own typical deviation.

    Args:
        values: per frame, such as pose; something finite in every frame.
        weights: trust to begin with.
        stiffness: of the curve that frames are compared with.
    """
    values = np.asarray(values, np.float64)
    result = np.asarray(weights, np.float64)
    for _ in range(ROUNDS):
        deviation = np.abs(values - smooth_in_time(values, result, stiffness=stiffness))
        known = deviation[weights > 0] if np.any(weights > 0) else deviation
        typical = 1.4826 * np.median(known, axis=0) + 1e-3 * known.max(0) + 1e-9
        distance = np.sqrt(np.mean((deviation / typical) ** 2, axis=1))
        result = weights / (1 + (distance / OUTLIER) ** 2)
    return result


def fill_gaps(values: Float[np.ndarray, "F C"], found: Bool[np.ndarray, "F"]) -> Float[np.ndarray, "F C"]:
    """Straight lines over the frames that were not found; before the first and after the last, what these hold.

    Raises:
        ValueError: when no frame was found.
    """
    found = np.asarray(found, bool)
    if not found.any():
        raise ValueError("no frame was found: there is nothing to fill gaps from")
    frames = np.arange(len(values))
    columns = np.asarray(values, np.float64).T
    return np.stack([np.interp(frames, frames[found], column[found]) for column in columns], axis=-1)


def continuous_angles(angles: Float[np.ndarray, "F 3"]) -> Float[np.ndarray, "F 3"]:
    """The same angles in radians without jumps by whole turns."""
    return np.unwrap(np.asarray(angles, np.float64), axis=0)


def jitter(values: Float[np.ndarray, "F *N D"]) -> float:
    """Root mean square length of the second difference in time: what trembles, in the unit of `values`.

    Args:
        values: points of D numbers per frame. A steady motion has no jitter.

    Returns:
        NaN for fewer than three frames.
    """
    second = np.diff(np.asarray(values, np.float64), 2, axis=0)
    return float(np.sqrt((second**2).sum(-1).mean())) if second.size else float("nan")


def key_frames(scores: Float[np.ndarray, "F"], found: Bool[np.ndarray, "F"], *, count: int) -> Sequence[int]:
    """Frames to learn a person from: the best of each of `count` stretches of the clip, in order.

    Args:
        scores: how good each frame is.
        found: whether a frame shows the face; others are never chosen.
        count: at most so many; fewer when fewer were found.
    """
    stretches = np.array_split(np.flatnonzero(found), min(count, int(np.sum(found))) or 1)
    return [int(stretch[np.argmax(np.asarray(scores)[stretch])]) for stretch in stretches if len(stretch)]
