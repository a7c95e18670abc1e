"""Coefficients of the faces of a photo, by a trained encoder."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from jaxface.core.errors import InputError, needs_extra
from jaxface.core.face_models import FaceModel
from jaxface.models import load_face_model
from jaxface.photos.alignment import alignment_template, scaled_alignment
from jaxface.photos.face_crops import FaceCrop
from jaxface.photos.turning import turned, turned_crop, upright_turn

PredictFaces = Callable[[UInt8[np.ndarray, "H W 3"], Sequence[FaceCrop]], Float[np.ndarray, "N K"]]
"""predict(photo, crops): a coefficient vector per face of a photo."""


def predict_faces(
    checkpoint: str | os.PathLike | None = None, *, model: str | os.PathLike | None = None
) -> tuple[PredictFaces, FaceModel]:
    """Loads an encoder as predict(photo, crops) -> coefficient vectors [N, K], and its face model.

    Args:
        checkpoint: as for `load_encoder`; None takes the encoder that comes with jaxface.
        model: the face model that the encoder was trained with; by default the one that the checkpoint names.

    `crops` are those of `preprocess_photo`; they are cut anew at the encoder's own size. Heads that lie are turned
    upright, and for the network that ships those that lean: encoders learn from few such.

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
    # Encoders from elsewhere learned from photos, where heads lean: they need turning only where a head lies.
    shipped, size, template = checkpoint is None, int(config.image_size), alignment_template(face_model)

    def predict_crops(photo: UInt8[np.ndarray, "H W 3"], crops: Sequence[FaceCrop]) -> Float[np.ndarray, "N K"]:
        vectors = []
        for crop in crops:
            turn = upright_turn(crop.sample["landmarks"], template)
            turn = turn if shipped else 90 * round(turn / 90)
            image = turned_crop(photo, scaled_alignment(crop.alignment, size), turn)
            vectors.append(turned(predict(image[None]), -turn))
        return np.concatenate(vectors)

    return predict_crops, face_model
