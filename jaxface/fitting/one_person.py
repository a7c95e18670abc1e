"""Fits of several crops of one person: all together, or with a person who is known already."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxface.core.cameras import Camera
from jaxface.core.coefficients import column_mask
from jaxface.core.face_models import FaceModel
from jaxface.fitting.descent import SolvedFace, fit_faces
from jaxface.fitting.evidence import Evidence
from jaxface.fitting.first_look import FirstLook, onlooker_for
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
    evidence: Evidence | None = None,
    recognizer: FaceRecognizer | None = None,
    steps: int = 80,
    usual_distance: bool = False,
) -> list[SolvedFace]:
    """Fits crops of one person together: they share identity and albedo, and each has its own pose, light, expression.

    The identity comes from the points of all crops (`estimate_person`) and then stays; the descent moves all else.
    Compiled once for 2, 4, 8, 16, ... crops: those between are filled up with crops that count nothing.

    Args:
        model: the face model.
        batch: stacked samples.
        camera: of the crops.
        prior: of the model's coefficients.
        evidence: what the detector's points are worth; see `fit_faces`.
        recognizer: network of the perceptual loss.
        steps: of the descent.
        usual_distance: takes the distance of `camera` for granted instead of estimating it.
    """
    count = len(batch["labels"])
    padded = _filled_up(batch, 1 << (count - 1).bit_length())
    counts = (np.arange(len(padded["labels"])) < count).astype(np.float32)
    fit = fit_faces(
        model,
        padded,
        camera,
        prior,
        evidence=evidence,
        recognizer=recognizer,
        steps=steps,
        same_person=None if count == 1 else counts,
        usual_distance=usual_distance,
        look=_look(model, padded),
    )
    return fit.faces(count)


def fit_known_person(
    model: FaceModel,
    batch: Batch,
    start: Float[np.ndarray, "K"],
    camera: Camera,
    prior: Prior,
    *,
    evidence: Evidence | None = None,
    steps: int = 80,
    usual_distance: bool = False,
) -> list[SolvedFace]:
    """Fits pose, light and expression of crops of a person whose identity and albedo stay as they are.

    Args:
        model: the face model.
        batch: up to CHUNK stacked samples.
        start: the person, and where to start with all else, such as the solution of the frame before.
        camera: of the crops.
        prior: of the model's coefficients.
        evidence: what the detector's points are worth; see `fit_faces`.
        steps: of the descent.
        usual_distance: takes the distance of `camera` for granted instead of estimating it.

    Raises:
        ValueError: for more than CHUNK samples.
    """
    count = len(batch["labels"])
    if count > CHUNK:
        raise ValueError(f"at most {CHUNK} crops at a time, got {count}")
    initial = jnp.repeat(jnp.asarray(start, jnp.float32)[None], CHUNK, axis=0)
    padded = _filled_up(batch, CHUNK)
    fit = fit_faces(
        model,
        padded,
        camera,
        prior,
        evidence=evidence,
        initial=initial,
        steps=steps,
        held=column_mask(model, "identity", "albedo"),
        usual_distance=usual_distance,
        look=_look(model, padded),
    )
    return fit.faces(count)


def _look(model: FaceModel, batch: Batch) -> FirstLook | None:
    onlooker = onlooker_for(model)
    return None if onlooker is None else onlooker(batch["image"], batch["landmarks"])


def _filled_up(batch: Batch, count: int) -> dict[str, np.ndarray]:
    """The batch with its last sample repeated until there are `count`."""
    return {name: pad_rows(values, count) for name, values in batch.items()}
