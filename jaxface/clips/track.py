"""A face followed through a clip: one person, a pose, light and expression per frame, smooth in time without lag.

1. Identity and albedo are fitted to up to 8 key frames together: sharp, seen from the front, spread over the clip.
2. With these held, the frames are fitted chunk by chunk, each from the last solution before it.
3. The gaze to the side comes from the irises (`clips.eyes`).
4. Pose, expression and light are smoothed in time by Whittaker's smoother (`clips.smoothing`). It looks ahead as
   far as back, so nothing lags. Frames that stick out count less; those without a face are bridged; what stands far out
   of the expression's noise, such as a blink, is kept.

The pose of a frame is relative to its window, and the windows are smooth themselves (`jaxface.clips.tracking`). Hence
what is smooth in the window is smooth in the frame: no jitter of the alignment is left to move the translation.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from tqdm import tqdm

from jaxface.clips import smoothing
from jaxface.clips.eyes import follow_gaze
from jaxface.core import face_models
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import vector_columns, vector_size
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import vertex_points
from jaxface.core.units import CROP_SIZE
from jaxface.fitting.evidence import Evidence
from jaxface.fitting.one_person import CHUNK, fit_known_person, fit_same_person
from jaxface.fitting.priors import Prior
from jaxface.networks.face_recognition import FaceRecognizer
from jaxface.photos.alignment import Alignment
from jaxface.photos.samples import Sample, stack_samples

KEY_FRAMES = 8
"""Frames that are fitted together, to find out who the person is."""

TRACKING_STEPS = 30
"""Of the descent per frame: it starts near its end, from the frames before."""

CUTOFF = 4.0
"""Hz: quicker motion of the head is taken for noise."""

EXPRESSION_CUTOFF, LIGHT_CUTOFF = 1.5, 0.25
"""Times the cutoff of the head: lips and lids are quicker, light is slower."""


@dataclasses.dataclass(frozen=True)
class Track:
    """A face in every frame of a clip.

    Attributes:
        vectors: [F, K] coefficients, smooth in time; identity and albedo are the same in all.
        raw: [F, K] the same as fitted, before smoothing; gaps are filled by straight lines.
        windows: per frame the crop that the pose belongs to.
        found: whether the frame shows the face; the others are bridged.
        weights: what each frame counted in the smoothing, 0..1.
        key_frames: those that identity and albedo come from.
        times: of the frames, in seconds.
        seconds_per_frame: that the fit of a frame took, the median over the chunks; without key frames and detection.
    """

    vectors: Float[np.ndarray, "F K"]
    raw: Float[np.ndarray, "F K"]
    windows: Sequence[Alignment]
    found: Bool[np.ndarray, "F"]
    weights: Float[np.ndarray, "F"]
    key_frames: Sequence[int]
    times: Float[np.ndarray, "F"]
    seconds_per_frame: float

    @property
    def frame_rate(self) -> float:
        """Frames per second, on average over the clip."""
        steps = max(len(self.times) - 1, 1)
        return steps / (float(self.times[-1] - self.times[0]) or smoothing.STEP)


def track_face(
    model: FaceModel,
    samples: Sequence[Sample | None],
    windows: Sequence[Alignment],
    prior: Prior,
    *,
    times: Float[np.ndarray, "F"],
    cutoff: float = CUTOFF,
    recognizer: FaceRecognizer | None = None,
    evidence: Evidence | None = None,
) -> Track:
    """Fits a person to key frames, then the frames one after another, and smooths in time.

    Args:
        model: the face model.
        samples: per frame the crop, or None where there is no face; one frame at least has one.
        windows: per frame where the crop lies.
        prior: of the model's coefficients.
        times: of the frames, in seconds, increasing.
        cutoff: in Hz, of the head's motion; 0 smooths nothing.
        recognizer: network of the perceptual loss of the key frames.
        evidence: what the detector's points are worth; see `fit_faces`.
    """
    found = np.array([sample is not None for sample in samples])
    scores = np.array([-np.inf if sample is None else key_frame_score(sample) for sample in samples])
    chosen = smoothing.key_frames(scores, found, count=KEY_FRAMES)
    camera = Camera().resized(windows[0].size)
    # One distance for all frames: what little a frame tells of it would tremble.
    options: dict[str, Any] = {"evidence": evidence, "usual_distance": True}
    known = fit_same_person(model, _stack(samples, chosen), camera, prior, recognizer=recognizer, **options)
    start, durations = known[0].vector, []
    raw = np.full((len(samples), vector_size(model)), np.nan)
    frames = np.flatnonzero(found)
    with tqdm(total=len(frames), desc="fit", unit="frame", dynamic_ncols=True, disable=None) as bar:
        for first in range(0, len(frames), CHUNK):
            chunk = frames[first : first + CHUNK]
            began = time.perf_counter()
            batch = _stack(samples, chunk)
            fitted = fit_known_person(model, batch, start, camera, prior, steps=TRACKING_STEPS, **options)
            raw[chunk] = [face.vector for face in fitted]
            durations.append((time.perf_counter() - began) / len(chunk))
            start = raw[chunk[-1]].astype(np.float32)
            bar.update(len(chunk))
    raw = _continuous(smoothing.fill_gaps(raw, found, times=times), found, model, times)
    raw = follow_gaze(model, raw, _points(samples), camera, times=times)
    vectors, weights = smooth_vectors(raw, found, model, prior, times=times, cutoff=cutoff)
    seconds = float(np.median(durations))
    return Track(vectors, raw.astype(np.float32), windows, found, weights, chosen, times, seconds)


def _stack(samples: Sequence[Sample | None], indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    return stack_samples([sample for sample in (samples[index] for index in indices) if sample is not None])


def _points(samples: Sequence[Sample | None]) -> Float[np.ndarray, "F P 2"]:
    """The detector's points in each frame, NaN where it found no face."""
    nothing = np.full_like(next(sample["points"] for sample in samples if sample is not None), np.nan)
    return np.stack([nothing if one is None or not one["point_weights"].any() else one["points"] for one in samples])


def _continuous(vectors: np.ndarray, found: np.ndarray, model: FaceModel, times: np.ndarray) -> np.ndarray:
    """Angles without jumps by whole turns, which would make gaps turn the long way round."""
    columns = vector_columns(model)["angles"]
    vectors = vectors.copy()
    vectors[found, columns] = smoothing.continuous_angles(vectors[found, columns])
    return smoothing.fill_gaps(vectors, found, times=times)


def key_frame_score(sample: Sample) -> float:
    """How much a frame tells of a person: sharp and seen from the front is best.

    The logarithm of the face's contrast at the finest scale (the variance of its Laplacian), less a penalty for turned
    heads: how far the tip of the nose is from the middle of the eyes' outer corners.
    """
    grey = sample["image"].astype(np.float32).mean(-1)
    contrast = float(ndimage.laplace(grey)[sample["labels"] > 0].var())
    nose, right, left = (sample["landmarks"][index].astype(float) for index in (30, 36, 45))
    across = left - right
    along = float((nose - right) @ across / max(across @ across, 1e-6))
    return float(np.log(contrast + 1.0) - 4 * abs(along - 0.5))


def smooth_vectors(
    vectors: Float[np.ndarray, "F K"],
    found: Bool[np.ndarray, "F"],
    model: FaceModel,
    prior: Prior,
    *,
    times: Float[np.ndarray, "F"],
    cutoff: float = CUTOFF,
) -> tuple[Float[np.ndarray, "F K"], Float[np.ndarray, "F"]]:
    """Smooths pose, expression and light in time, without lag; identity and albedo stay.

    Args:
        vectors: coefficients per frame, without gaps.
        found: False for frames that were bridged.
        model: the face model.
        prior: expressions stay within its bounds.
        times: of the frames, in seconds, increasing.
        cutoff: in Hz, of the pose; 0 changes nothing.

    Returns:
        The smooth vectors, and what each frame counted: frames whose pose sticks out count less, for all that they say.
    """
    weights = np.where(found, 1.0, smoothing.GAP_WEIGHT)
    if cutoff == 0:
        return vectors.astype(np.float32), weights

    def stiffness(factor: float) -> float:
        return smoothing.smoothing_stiffness(factor * cutoff, frame_rate=1 / smoothing.usual_step(times))

    columns, smooth = vector_columns(model), np.asarray(vectors, np.float64).copy()
    pose = np.concatenate([smooth[:, columns["angles"]], smooth[:, columns["translation"]]], axis=1)
    weights = smoothing.outlier_weights(pose, weights, stiffness=stiffness(1.0), times=times)
    for kind, factor in (
        ("angles", 1.0),
        ("translation", 1.0),
        ("expression", EXPRESSION_CUTOFF),
        ("light", LIGHT_CUTOFF),
    ):
        values = smooth[:, columns[kind]]
        smooth[:, columns[kind]] = smoothing.smooth_in_time(values, weights, stiffness=stiffness(factor), times=times)
    expression = columns["expression"]
    # Lids close within three frames, which no smoothing would leave of them.
    smooth[:, expression] = smoothing.kept_events(vectors[:, expression], smooth[:, expression], weights)
    smooth[:, expression] = np.clip(smooth[:, expression], prior.lower[expression], prior.upper[expression])
    return smooth.astype(np.float32), weights


def jitter_of(model: FaceModel, track: Track) -> dict[str, dict[str, float]]:
    """What trembles, before and after smoothing: root mean square second differences from frame to frame.

    Returns:
        before and after: landmarks_px, of the 68 landmarks in the frame, in pixels of the 224 crop; angles_degrees.
    """
    scale = np.median([window.scale * CROP_SIZE / window.size for window in track.windows])
    measures = {}
    for name, vectors in (("before", track.raw), ("after", track.vectors)):
        angles = np.degrees(vectors[:, vector_columns(model)["angles"]])
        landmarks = scale * frame_landmarks(model, vectors, track.windows)
        measures[name] = {
            "landmarks_px": smoothing.jitter(landmarks, times=track.times),
            "angles_degrees": smoothing.jitter(angles, times=track.times),
        }
    return measures


def frame_landmarks(
    model: FaceModel, vectors: Float[np.ndarray, "F K"], windows: Sequence[Alignment]
) -> Float[np.ndarray, "F 68 2"]:
    """The model's 68 landmarks in pixels of the frames; those of the outline do not march."""
    small = face_models.shape_of_vertices(model, model.landmarks["68"])
    points = np.asarray(vertex_points(small, np.asarray(vectors, np.float32), Camera().resized(windows[0].size)))
    return np.stack([window.to_photo(one) for window, one in zip(windows, points, strict=True)])
