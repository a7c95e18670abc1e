"""Coefficients of the faces of a photo, by a trained encoder."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from jaxface.core.coefficients import LAST_COLUMNS, LIGHT_BANDS
from jaxface.core.errors import InputError, needs_extra
from jaxface.core.face_models import FaceModel
from jaxface.core.lighting import spherical_harmonics
from jaxface.models import load_face_model
from jaxface.photos.alignment import quarter_turns, scaled_alignment
from jaxface.photos.face_crops import FaceCrop

PredictFaces = Callable[[UInt8[np.ndarray, "H W 3"], Sequence[FaceCrop]], Float[np.ndarray, "N K"]]
"""predict(photo, crops): a coefficient vector per face of a photo."""


def predict_faces(
    checkpoint: str | os.PathLike | None = None, *, model: str | os.PathLike | None = None
) -> tuple[PredictFaces, FaceModel]:
    """Loads an encoder as predict(photo, crops) -> coefficient vectors [N, K], and its face model.

    Args:
        checkpoint: as for `load_encoder`; None takes the encoder that comes with jaxface.
        model: the face model that the encoder was trained with; by default the one that the checkpoint names.

    `crops` are those of `preprocess_photo`; they are cut anew at the encoder's own size, and where a head lies or is
    upside down, turned by quarters: encoders learn from few such.

    Raises:
        InputError: when the checkpoint or the model cannot be used.
        MissingDependencyError: when Flax is not installed.
    """
    with needs_extra("photo", "an encoder"):
        from jaxface.networks.checkpoints import load_encoder
        from jaxface.networks.people_weights import SHIPPED
    given = None if model is None else load_face_model(model)
    predict, face_model, config = load_encoder(SHIPPED if checkpoint is None else Path(checkpoint), model=given)
    if "68" not in face_model.landmarks:
        raise InputError(f"the face model {face_model.name!r} has no 68 landmarks, by which photos are aligned")
    size = int(config.image_size)

    def predict_crops(photo: UInt8[np.ndarray, "H W 3"], crops: Sequence[FaceCrop]) -> Float[np.ndarray, "N K"]:
        vectors = []
        for crop in crops:
            turns = quarter_turns(crop.sample["landmarks"])
            image = np.rot90(scaled_alignment(crop.alignment, size).crop_image(photo), turns)
            vectors.append(turned(predict(image[None]), -turns))
        return np.concatenate(vectors)

    return predict_crops, face_model


def turned(vectors: Float[np.ndarray, "N K"], turns: int) -> Float[np.ndarray, "N K"]:
    """Coefficients of the same faces in pictures that `np.rot90` turned so often, counter-clockwise."""
    if not turns % 4:
        return vectors
    vectors, angle = np.array(vectors), turns * np.pi / 2
    angles, light, translation = (vectors[:, LAST_COLUMNS[name]] for name in ("angles", "light", "translation"))
    # The roll is the last of the three rotations.
    angles[:, 2] = np.remainder(angles[:, 2] + angle + np.pi, 2 * np.pi) - np.pi
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]).round()
    translation[:] = translation @ rotation.T
    normals = np.random.default_rng(0).normal(size=(64, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    before, after = (np.asarray(spherical_harmonics(jnp.asarray(x))) for x in (normals, normals @ rotation.T))
    change = np.linalg.lstsq(after, before, rcond=None)[0].round(3)  # 0, 1 or -1: functions change places
    light[:] = (light.reshape(-1, 3, LIGHT_BANDS) @ change.T).reshape(len(light), -1)
    return vectors
