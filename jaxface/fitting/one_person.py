"""Fits of several crops of one person: all together, or with a person who is known already."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxface.core.cameras import Camera
from jaxface.core.coefficients import column_mask, vector_size
from jaxface.core.face_models import FaceModel
from jaxface.core.typed_jit import typed_jit
from jaxface.fitting.descent import fit_faces
from jaxface.fitting.joint_landmarks import fit_joint_landmarks
from jaxface.fitting.landmarks import fit_landmarks
from jaxface.fitting.priors import Prior
from jaxface.networks.face_recognition import FaceRecognizer
from jaxface.photos.samples import pad_rows

CHUNK = 8
"""Crops that are fitted at a time once the person is known."""

Batch = Mapping[str, np.ndarray]


def fit_same_person(
    model: FaceModel,
    batch: Batch,
    camera: Camera,
    prior: Prior,
    *,
    recognizer: FaceRecognizer | None = None,
    steps: int = 80,
) -> Float[np.ndarray, "B K"]:
    """Fits crops of one person together: they share identity and albedo, and each has its own pose, light, expression.

    The identity comes from the landmarks of all crops (`fit_joint_landmarks`) and then stays; the descent moves all
    else. Of eight crops of drawn faces, a descent that moved the shared identity as well took it away from the truth:
    1.5 mm instead of 1.2 mm.

    Compiled once for 2, 4, 8, 16, ... crops: those between are filled up with crops that count nothing.

    Args:
        model: the face model.
        batch: stacked samples.
        camera: of the crops.
        prior: of the model's coefficients.
        recognizer: network of the perceptual loss; None leaves it out.
        steps: of the descent.
    """
    count = len(batch["labels"])
    padded = _filled_up(batch, 1 << (count - 1).bit_length())
    if count == 1:
        return np.asarray(fit_faces(model, padded, camera, prior, recognizer=recognizer, steps=steps))
    counts = (np.arange(len(padded["labels"])) < count).astype(np.float32)
    landmark_weights = padded["landmark_weights"] * counts[:, None]
    placed = _place_together(model, padded["landmarks"], landmark_weights, camera, prior)
    identity = column_mask(model, "identity")
    vectors = fit_faces(
        model,
        padded,
        camera,
        prior,
        initial=placed,
        recognizer=recognizer,
        steps=steps,
        same_person=counts,
        held=identity,
    )
    return np.asarray(vectors)[:count]


@typed_jit
def _place_together(
    model: FaceModel,
    landmarks: Float[Array | np.ndarray, "B 68 2"],
    weights: Float[Array | np.ndarray, "B 68"],
    camera: Camera,
    prior: Prior,
) -> Float[Array, "B K"]:
    zeros = jnp.zeros((landmarks.shape[0], vector_size(model)))
    alone = fit_landmarks(model, zeros, landmarks, weights, camera, prior)
    return fit_joint_landmarks(model, alone, landmarks, weights, camera, prior)


def fit_known_person(
    model: FaceModel,
    batch: Batch,
    start: Float[np.ndarray, "K"],
    camera: Camera,
    prior: Prior,
    *,
    steps: int = 80,
) -> Float[np.ndarray, "B K"]:
    """Fits pose, light and expression of crops of a person whose identity and albedo stay as they are.

    Args:
        model: the face model.
        batch: up to CHUNK stacked samples.
        start: the person, and where to start with all else, such as the solution of the frame before.
        camera: of the crops.
        prior: of the model's coefficients.
        steps: of the descent.

    Raises:
        ValueError: for more than CHUNK samples.
    """
    count = len(batch["labels"])
    if count > CHUNK:
        raise ValueError(f"at most {CHUNK} crops at a time, got {count}")
    initial = jnp.repeat(jnp.asarray(start, jnp.float32)[None], CHUNK, axis=0)
    vectors = fit_faces(
        model,
        _filled_up(batch, CHUNK),
        camera,
        prior,
        initial=initial,
        steps=steps,
        held=column_mask(model, "identity", "albedo"),
    )
    return np.asarray(vectors)[:count]


def _filled_up(batch: Batch, count: int) -> dict[str, np.ndarray]:
    """The batch with its last sample repeated until there are `count`."""
    return {name: pad_rows(values, count) for name, values in batch.items()}
