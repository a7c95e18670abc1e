"""What the annotation tool leaves for a face model: parts, landmarks and contours in one .npz file."""

import dataclasses
import os

import numpy as np

from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.parts import PARTS
from jaxface.files.containers import read_arrays


def with_annotation(model: FaceModel, path: str | os.PathLike[str]) -> FaceModel:
    """The face model with the parts, landmarks and contours of an .npz in place of its own of the same name.

    Raises:
        InputError: when the file cannot be read, holds none, or refers to other vertices than the model's.
    """
    count = len(model.mean_shape)
    groups: dict[str, dict[str, np.ndarray]] = {"parts": {}, "landmarks": {}, "contours": {}}
    for key, array in read_arrays(path).items():
        group, _, name = key.rpartition("/")
        group = "parts" if group in ("", "part") and name in PARTS else group
        if group not in groups:
            continue
        fits = array.dtype.kind in "iu" and array.ndim == (2 if group == "contours" else 1)
        if not fits or (array.size and not (array.min() >= 0 and array.max() < count)):
            raise InputError(f"{path}: {key!r} does not hold indices of the {count} vertices of {model.name!r}")
        groups[group][name] = array.astype(np.int32)
    if not any(groups.values()):
        raise InputError(f"{path} holds no parts: its arrays should be called {', '.join(PARTS)}")
    return dataclasses.replace(
        model,
        parts={**model.parts, **groups["parts"]},
        landmarks={**model.landmarks, **groups["landmarks"]},
        contours={**model.contours, **groups["contours"]},
    )
