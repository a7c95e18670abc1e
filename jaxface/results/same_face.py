"""Which faces of several photos are one person's, told by a recognition network: the face meant, and strangers."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float

from jaxface.core.units import to_float
from jaxface.losses.perceptual import DLIB_CHIP
from jaxface.networks.face_recognition import FaceRecognizer, recognition_features
from jaxface.photos.face_crops import FaceCrop
from jaxface.photos.samples import Sample, stack_samples

_DLIB_APART, _ANGLES_APART = 0.55, 1.0
"""Distances to the mean of a person's other photos that are not that person's any more.

Of dlib, two photos nearer than 0.6 to each other are one person's; the mean of several is a little nearer.
"""

_FARTHER = 1.5
"""A stranger is farther from the others than they are from each other, so many times; blurred photos lie apart."""


def choose_faces(
    photos: Sequence[Sequence[FaceCrop]], recognizer: FaceRecognizer | None
) -> tuple[list[int], Float[np.ndarray, "N C"] | None]:
    """Which face of each photo is the person's, and its recognition features.

    Args:
        photos: at least one; the faces of each, the largest first.
        recognizer: None takes the largest face of each photo.
    """
    if recognizer is None:
        return [0] * len(photos), None
    features = [_features([crop.sample for crop in crops], recognizer) for crops in photos]
    chosen = choose_by_features(features)
    return chosen, np.stack([faces[face] for faces, face in zip(features, chosen, strict=True)])


def choose_by_features(features: Sequence[Float[np.ndarray, "_ C"]]) -> list[int]:
    """Of each photo the face whose features lie nearest to the mean of the other photos' chosen ones.

    Photos with a single face decide first, if there are any; else the largest faces do.

    Args:
        features: per photo those of its faces, the largest first.
    """
    single = np.array([len(faces) == 1 for faces in features])
    known = single if single.any() else np.ones(len(features), bool)
    chosen = [0] * len(features)
    for _ in range(5):
        for index, faces in enumerate(features):
            others = [features[i][chosen[i]] for i in np.flatnonzero(known).tolist() if i != index]
            if others:
                chosen[index] = int(np.linalg.norm(faces - np.mean(others, axis=0)[None], axis=1).argmin())
        known = np.ones(len(features), bool)
    return chosen


def distances_to_others(features: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N"]:
    """How far each is from the mean of the others; zero for one alone."""
    count = len(features)
    if count < 2:
        return np.zeros(count)
    return np.linalg.norm(features - (features.sum(0)[None] - features) / (count - 1), axis=1)


def find_strangers(features: Float[np.ndarray, "N C"], *, apart: float = _DLIB_APART) -> dict[int, float]:
    """Which photos show somebody else than the others do -> distance to the mean of those that remain.

    The farthest goes first, and then those that remain are looked at anew. More than half always remain, and two photos
    alone do not tell which of them is wrong.

    Args:
        features: of the chosen face of each photo.
        apart: the least distance of a stranger; below it, nobody is one however near the others are to each other.
    """
    remaining, strangers = list(range(len(features))), {}
    while len(remaining) > 2 and 2 * (len(remaining) - 1) > len(features):
        distances = distances_to_others(features[remaining])
        farthest = int(distances.argmax())
        rest = remaining[:farthest] + remaining[farthest + 1 :]
        among_them = float(np.median(distances_to_others(features[rest])))
        if distances[farthest] <= max(apart, _FARTHER * among_them):
            break
        strangers[remaining[farthest]] = float(distances[farthest])
        remaining = rest
    return strangers


def least_distance_of_strangers(recognizer: FaceRecognizer) -> float:
    """`apart` of `find_strangers`, for the features of a network as `choose_faces` gives them."""
    return _DLIB_APART if recognizer.chip == DLIB_CHIP else _ANGLES_APART


def _features(samples: Sequence[Sample], recognizer: FaceRecognizer) -> Float[np.ndarray, "N C"]:
    # One by one: photos hold different numbers of faces, and each number would be compiled anew.
    batches = [stack_samples([sample]) for sample in samples]
    features = np.concatenate([np.asarray(_one_feature(batch, recognizer)) for batch in batches])
    if recognizer.chip == DLIB_CHIP:
        return features
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)  # ArcFace's angles tell


@jax.jit
def _one_feature(batch, recognizer: FaceRecognizer):
    image = to_float(batch["image"])
    return recognition_features(image, batch["landmarks"], recognizer, weights=batch["landmark_weights"])
