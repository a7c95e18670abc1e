"""One face followed through a clip: found in each frame, and cut out through a window that moves smoothly.

A photo's crop is aligned to its own landmarks, and these tremble: so would the crops, and with them the pose that is
fitted inside each. Here the windows are smoothed in time first. Any window will do, as long as the face is in it: the
pose inside makes up for where it lies. So smoothing windows loses nothing and delays nothing, and a pose that is smooth
inside smooth windows is smooth in the frame.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from tqdm import tqdm

from jaxface.clips.frames import Clip
from jaxface.clips.smoothing import (
    GAP_WEIGHT,
    fill_gaps,
    outlier_weights,
    smooth_in_time,
    smoothing_stiffness,
    usual_step,
)
from jaxface.core.coefficients import vector_size
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.units import CROP_SIZE
from jaxface.photos.alignment import Alignment, alignment_template, fit_alignment
from jaxface.photos.detection import DetectedFace, detect_faces
from jaxface.photos.face_crops import face_sample
from jaxface.photos.parsing import Parser, mediapipe_labels
from jaxface.photos.samples import Sample

WINDOW_CUTOFF = 2.5
"""Hz: what the window does not follow, the pose inside it does."""

SEARCH = 1.0
"""The face is looked for in its last box, enlarged by so much of its size on every side, before the whole frame."""

FARTHEST, FARTHER = 0.8, 2.5
"""How far the face may have gone since it was last seen, and more for each second beyond 1/25, in sizes of its box."""

SMALLEST = 32
"""Side in pixels of a region worth looking at."""


@dataclasses.dataclass(frozen=True)
class FollowedFace:
    """One face through a clip.

    Attributes:
        faces: per frame the face, or None.
        times: of the frames, in seconds.
        frame_size: (height, width) of the frames.
    """

    faces: Sequence[DetectedFace | None]
    times: Float[np.ndarray, "F"]
    frame_size: tuple[int, int]


def follow_face(clip: Clip) -> FollowedFace:
    """Finds one face in every frame: at first the largest, then the one nearest to where it was.

    Raises:
        InputError: when no frame shows a face.
    """
    faces: list[DetectedFace | None] = []
    times: list[float] = []
    last, seen, size = None, 0.0, None
    bar = tqdm(clip.frames(), desc="detect", unit="frame", total=clip.count, dynamic_ncols=True, disable=None)
    for time, frame in bar:
        face = None
        if frame is not None:
            size = size or frame.shape[:2]
            face = _find(frame, last, time - seen)
        faces.append(face)
        times.append(time)
        last, seen = (last, seen) if face is None else (face, time)
    if last is None or size is None:
        raise InputError(f"{clip.path}: no face was found in any of the {len(faces)} frames")
    return FollowedFace(faces, np.array(times), size)


def _find(frame: UInt8[np.ndarray, "H W 3"], last: DetectedFace | None, seconds: float) -> DetectedFace | None:
    """The face that was seen last, so many seconds ago."""
    if last is None:
        return next(iter(detect_faces(frame)), None)
    reach = last.size * (FARTHEST + FARTHER * max(seconds - 1 / 25, 0.0))
    margin = SEARCH * last.size + reach
    height, width = frame.shape[:2]
    low = np.clip(np.floor(last.box[:2] - margin), 0, None).astype(int)
    high = np.minimum(np.ceil(last.box[2:] + margin), (width, height)).astype(int)
    return _nearest(frame, low, high, last, reach) or _nearest(
        frame, np.zeros(2, int), np.array([width, height]), last, reach
    )


def _nearest(
    frame: UInt8[np.ndarray, "H W 3"], low: np.ndarray, high: np.ndarray, last: DetectedFace, reach: float
) -> DetectedFace | None:
    """Of the faces in a region of the frame, the one nearest to the last, if it is within reach and about as large."""
    if (high - low).min() < SMALLEST:
        return None
    center, best = _center(last), None
    for face in detect_faces(np.ascontiguousarray(frame[low[1] : high[1], low[0] : high[0]])):
        moved = face.moved(low)
        distance = float(np.linalg.norm(_center(moved) - center))
        if distance <= reach and 0.5 < moved.size / last.size < 2:
            best, reach = moved, distance
    return best


def _center(face: DetectedFace) -> Float[np.ndarray, "2"]:
    return face.box[:2] / 2 + face.box[2:] / 2


def smooth_windows(followed: FollowedFace, model: FaceModel, *, size: int = CROP_SIZE) -> list[Alignment]:
    """A crop for each frame, as `fit_alignment` places it, smoothed in time (Whittaker's smoother, without lag).

    Args:
        followed: frames without a face get a window between those of their neighbours.
        model: gives the alignment's template.
        size: side of the crops in pixels.

    Raises:
        InputError: when no face can be aligned.
    """
    template = alignment_template(model)
    values, error = np.full((len(followed.faces), 3), np.nan), None
    photo_size, times = followed.frame_size, followed.times
    for index, face in enumerate(followed.faces):
        if face is not None:
            try:
                alignment = fit_alignment(face.landmarks68, template, photo_size=photo_size, size=size)
            except InputError as problem:
                error = problem
                continue
            center = alignment.to_photo(np.full(2, size / 2))
            values[index] = np.log(alignment.scale), *center
    found = np.isfinite(values).all(-1)
    if not found.any():
        raise error or InputError("no face was found, so there is nothing to align")
    values = fill_gaps(values, found, times=times)
    stiffness = smoothing_stiffness(WINDOW_CUTOFF, frame_rate=1 / usual_step(times))
    weights = outlier_weights(values, np.where(found, 1, GAP_WEIGHT), stiffness=stiffness, times=times)
    windows = []
    for logarithm, x, y in smooth_in_time(values, weights, stiffness=stiffness, times=times):
        scale = float(np.exp(logarithm))
        windows.append(Alignment(scale, float(size / 2 - scale * x), float(size / 2 - scale * y), size, photo_size))
    return windows


def cut_samples(
    clip: Clip,
    followed: FollowedFace,
    windows: Sequence[Alignment],
    model: FaceModel,
    *,
    parser: Parser = mediapipe_labels,
) -> list[Sample | None]:
    """The aligned sample of every frame, through its window; None where there is no face, or no part of one in it.

    Args:
        clip: read once more; crops alone stay in memory, 0.2 MB a frame.
        followed: from `follow_face`.
        windows: from `smooth_windows`.
        model: tells the length of the (zero) coefficients.
        parser: labels the parts.
    """
    samples: list[Sample | None] = []
    for (_, frame), face, window in zip(clip.frames(), followed.faces, windows, strict=False):
        sample = None if frame is None or face is None else _sample(frame, face, window, model, parser)
        samples.append(sample if sample is not None and sample["labels"].any() else None)
    return samples + [None] * (len(followed.faces) - len(samples))


def _sample(
    frame: UInt8[np.ndarray, "H W 3"], face: DetectedFace, window: Alignment, model: FaceModel, parser: Parser
) -> Sample:
    labels = parser(frame, face, window)
    return face_sample(window.crop_image(frame), labels, face, window, coefficients=vector_size(model))
