"""The fit by its stages, and without each of its losses: what every one of them does to the shape."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxface.core import face_models
from jaxface.core.coefficients import Coefficients
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.units import MM_PER_UNIT
from jaxface.files.images import photo_focal, read_image
from jaxface.files.progress import progress
from jaxface.fitting import FitWeights
from jaxface.fitting.solver import find_recognizer, sample_solver
from jaxface.photos.face_crops import preprocess_photo

ALL = FitWeights()

STAGES = {
    "points alone": dataclasses.replace(ALL, prdl=0.0, photometric=0.0, perceptual=0.0),
    "without colours": dataclasses.replace(ALL, photometric=0.0),
    "without PRDL": dataclasses.replace(ALL, prdl=0.0),
    "without recognition": dataclasses.replace(ALL, perceptual=0.0),
}
"""Line of the table -> weights of what comes after the points; "fit" is all of it."""


def fit_stages(photos: Sequence[Path], model: FaceModel) -> dict[str, dict[str, Float[np.ndarray, "V 3"]]]:
    """Line of the table -> name of a drawing -> fitted vertices in mm; drawings without a face are left out."""
    samples = {}
    for photo in progress(photos, description="detect"):
        try:
            crops = preprocess_photo(read_image(photo), model, path=photo, focal=photo_focal(photo))
        except InputError:
            continue
        samples[photo.stem] = crops[0].sample
    recognizer = find_recognizer("auto")[1]
    found: dict[str, dict[str, Float[np.ndarray, "V 3"]]] = {}
    for title, weights in progress(STAGES.items(), description="stages", unit="stage"):
        faces = sample_solver(model, recognizer, weights=weights)(list(samples.values()), None)
        one = Coefficients.from_vector(np.stack([face.vector for face in faces]), model)
        shapes = MM_PER_UNIT * np.asarray(face_models.shape(model, one.identity, one.expression))
        found[title] = dict(zip(samples, shapes, strict=True))
    return found
