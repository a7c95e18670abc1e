"""The fit by its stages, and without each of its losses: what every one of them does to the shape."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxface.core import face_models
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.units import CROP_SIZE, MM_PER_UNIT
from jaxface.files.images import photo_focal, read_image
from jaxface.files.progress import progress, progress_bar
from jaxface.fitting import FitWeights, evidence_for, fit_faces, people_prior
from jaxface.fitting.solver import find_recognizer
from jaxface.photos.face_crops import preprocess_photo
from jaxface.photos.samples import stack_samples

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
    evidence, prior, camera = evidence_for(model, dense=True), people_prior(model), Camera().resized(CROP_SIZE)
    found: dict[str, dict[str, Float[np.ndarray, "V 3"]]] = {title: {} for title in STAGES}
    with progress_bar(len(STAGES) * len(samples), description="stages", unit="fit") as bar:
        for title, weights in STAGES.items():
            for name, sample in samples.items():
                batch = stack_samples([sample])
                fit = fit_faces(model, batch, camera, prior, evidence=evidence, weights=weights, recognizer=recognizer)
                one = Coefficients.from_vector(fit.vectors, model)
                shape = face_models.shape(model, one.identity, one.expression)[0]
                found[title][name] = MM_PER_UNIT * np.asarray(shape)
                bar.update()
    return found
