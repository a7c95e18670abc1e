"""Smoothing in time without lag, and jitter: numerics of a face followed through a video. NumPy and SciPy alone.

The smoother is Whittaker's (1923; Eilers 2003, "A perfect smoother"): x minimises

    sum_t w_t (x_t - y_t)^2 + stiffness * sum_t (x_(t-1) - 2 x_t + x_(t+1))^2.

It looks as far ahead as back, so nothing comes late: a sine passes with its phase, its amplitude times
1 / (1 + stiffness (2 sin(pi f))^4) for f cycles per frame. Straight lines pass unchanged.

That is for frames at equal steps. For frames at their own times, with steps a before and b after frame t in units of
the usual step (the median), the second difference becomes the second derivative, and the sum its integral:

    sum_t (a + b) / 2 * (2 / (a + b) * ((x_(t+1) - x_t) / b - (x_t - x_(t-1)) / a))^2.

Straight lines in time pass unchanged, and a pause holds little together. Each frame counts as one measurement.
"""

from collections.abc import Sequence

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float

from jaxface.clips.videos import FRAME_RATE

ROUNDS = 6
"""Of reweighting, in `outlier_weights`."""

OUTLIER = 4.0
"""So many typical deviations from the smooth curve halve a frame's weight."""

EVENT = 3.0
"""So many typical deviations from the smooth curve are as likely an event as noise, in `kept_events`."""

GAP_WEIGHT = 0.05
"""What a frame without a face counts: enough that a long gap is bridged by a straight line and does not swing."""

STEP = 1 / FRAME_RATE
"""Seconds between frames, where there is one frame alone."""

SHORTEST = 0.01
"""Of steps, in usual ones: shorter ones count as that."""


def usual_step(times: Float[np.ndarray, "F"]) -> float:
    """The median of the steps between frames in seconds, which neither pauses nor a wrong nominal rate change."""
    return float(np.median(np.diff(times))) if len(times) > 1 else STEP


def _steps(times: Float[np.ndarray, "F"] | None, frames: int) -> Float[np.ndarray, "E"]:
    """Between frames, in usual steps; all 1 without times."""
    if times is None or frames < 2:
        return np.ones(max(frames - 1, 0))
    return np.maximum(np.diff(np.asarray(times, np.float64)) / usual_step(times), SHORTEST)


def _second_differences(steps: Float[np.ndarray, "E"]) -> Float[np.ndarray, "G 3"]:
    """What three frames in a row are multiplied by for the second derivative by usual steps: 1, -2, 1 if equal."""
    before, after = 1 / steps[:-1], 1 / steps[1:]
    return np.stack([before, -before - after, after], axis=-1) * (2 / (steps[:-1] + steps[1:]))[:, None]


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
    values: Float[np.ndarray, "F C"],
    weights: Float[np.ndarray, "F"],
    *,
    stiffness: float,
    times: Float[np.ndarray, "F"] | None = None,
) -> Float[np.ndarray, "F C"]:
    """Whittaker's smoother of each column.

    Args:
        values: per frame, with something finite in every frame (see `fill_gaps`).
        weights: trust in each frame, at least 0; two frames or more need a positive one.
        stiffness: from `smoothing_stiffness`, for the usual step; 0 changes nothing.
        times: of the frames in seconds, increasing; None stands for equal steps.

    Raises:
        ValueError: when values or weights are not finite, or a weight is negative.
    """
    values, weights = np.asarray(values, np.float64), np.asarray(weights, np.float64)
    if not (np.isfinite(values).all() and np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("values and weights must be finite, and weights not negative")
    frames = len(values)
    if frames < 3 or stiffness == 0:
        return values.copy()
    steps = _steps(times, frames)
    difference = _second_differences(steps) * np.sqrt((steps[:-1] + steps[1:]) / 2)[:, None]
    # The upper bands of W + stiffness D'D, as SciPy wants them; every row of D adds to three places of each.
    bands = np.zeros((3, frames))
    for offset in range(3):
        for corner in range(3 - offset):
            place = slice(corner + offset, frames - 2 + corner + offset)
            bands[2 - offset, place] += stiffness * difference[:, corner] * difference[:, corner + offset]
    bands[2] += weights + 1e-12 * max(weights.max(), 1.0)
    return scipy.linalg.solveh_banded(bands, weights[:, None] * values)


def kept_events(
    values: Float[np.ndarray, "F C"], smooth: Float[np.ndarray, "F C"], weights: Float[np.ndarray, "F"]
) -> Float[np.ndarray, "F C"]:
    """Smooth curves that keep what stands far out of the noise, such as a blink of three frames.

    What is left of a column after smoothing is noise where it is about as large as it is typically, and an event where
    it is several times as large: a share d^2 / (d^2 + 1) of it is given back, d being its size in `EVENT` typical ones.

    Args:
        values: per frame, as they were measured.
        smooth: the same, smoothed.
        weights: trust in each frame, from 0 to 1: what stands out of one that is not trusted is no event.
    """
    left = np.asarray(values, np.float64) - smooth
    trusted = np.abs(left[weights > 0.5]) if np.any(weights > 0.5) else np.abs(left)
    typical = 1.4826 * np.median(trusted, axis=0) + 1e-9
    share = np.square(left / (EVENT * typical))
    return smooth + weights[:, None] * left * share / (1 + share)


def outlier_weights(
    values: Float[np.ndarray, "F C"],
    weights: Float[np.ndarray, "F"],
    *,
    stiffness: float,
    times: Float[np.ndarray, "F"] | None = None,
) -> Float[np.ndarray, "F"]:
    """Lower weights for frames that stick out of their neighbours' smooth curve (Cauchy's weights, reweighted).

    A frame is judged by all its columns together, each measured by its own typical deviation.

    Args:
        values: per frame, such as pose; something finite in every frame.
        weights: trust to begin with.
        stiffness: of the curve that frames are compared with.
        times: of the frames in seconds, increasing; None stands for equal steps.
    """
    values = np.asarray(values, np.float64)
    result = np.asarray(weights, np.float64)
    for _ in range(ROUNDS):
        deviation = np.abs(values - smooth_in_time(values, result, stiffness=stiffness, times=times))
        known = deviation[weights > 0] if np.any(weights > 0) else deviation
        typical = 1.4826 * np.median(known, axis=0) + 1e-3 * known.max(0) + 1e-9
        distance = np.sqrt(np.mean((deviation / typical) ** 2, axis=1))
        result = weights / (1 + (distance / OUTLIER) ** 2)
    return result


def fill_gaps(
    values: Float[np.ndarray, "F C"], found: Bool[np.ndarray, "F"], *, times: Float[np.ndarray, "F"] | None = None
) -> Float[np.ndarray, "F C"]:
    """Straight lines in time over the frames that were not found; before the first and after the last, what these hold.

    Args:
        values: per frame; those of frames that were not found do not matter.
        found: whether a frame shows the face.
        times: of the frames, increasing; None stands for equal steps.

    Raises:
        ValueError: when no frame was found.
    """
    found = np.asarray(found, bool)
    if not found.any():
        raise ValueError("no frame was found: there is nothing to fill gaps from")
    places = np.arange(len(values)) if times is None else np.asarray(times, np.float64)
    columns = np.asarray(values, np.float64).T
    return np.stack([np.interp(places, places[found], column[found]) for column in columns], axis=-1)


def continuous_angles(angles: Float[np.ndarray, "F 3"]) -> Float[np.ndarray, "F 3"]:
    """The same angles in radians without jumps by whole turns."""
    return np.unwrap(np.asarray(angles, np.float64), axis=0)


def jitter(values: Float[np.ndarray, "F *N D"], *, times: Float[np.ndarray, "F"] | None = None) -> float:
    """Root mean square length of the second difference in time: what trembles, in the unit of `values`.

    Args:
        values: points of D numbers per frame; three frames in a row that hold NaN do not count. A steady motion has no
            jitter.
        times: of the frames in seconds, increasing; differences are then those of the usual step. None stands for
            equal steps.

    Returns:
        NaN where no three frames in a row count.
    """
    values = np.asarray(values, np.float64)
    if len(values) < 3:
        return float("nan")
    weights = _second_differences(_steps(times, len(values)))
    triples = np.stack([values[:-2], values[1:-1], values[2:]], axis=-1)
    squares = (np.einsum("f...k,fk->f...", triples, weights) ** 2).sum(-1).reshape(len(weights), -1)
    known = np.isfinite(squares).all(1)
    return float(np.sqrt(squares[known].mean())) if known.any() else float("nan")


def key_frames(scores: Float[np.ndarray, "F"], found: Bool[np.ndarray, "F"], *, count: int) -> Sequence[int]:
    """Frames to learn a person from: the best of each of `count` stretches of the clip, in order.

    Args:
        scores: how good each frame is.
        found: whether a frame shows the face; others are never chosen.
        count: at most so many; fewer when fewer were found.
    """
    stretches = np.array_split(np.flatnonzero(found), min(count, int(np.sum(found))) or 1)
    return [int(stretch[np.argmax(np.asarray(scores)[stretch])]) for stretch in stretches if len(stretch)]
