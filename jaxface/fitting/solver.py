"""Fits the faces of photos: prior, recognition network and batches of two sizes, put together for a face model."""

import os
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from jaxface.core.cameras import Camera
from jaxface.core.errors import MissingDependencyError
from jaxface.core.face_models import FaceModel
from jaxface.core.units import CROP_SIZE
from jaxface.fitting.descent import FitWeights, SolvedFace, fit_faces
from jaxface.fitting.evidence import Calibration, evidence_for, people_prior
from jaxface.fitting.first_look import onlooker_for
from jaxface.models.checks import require_parts
from jaxface.networks.face_recognition import FaceRecognizer, load_recognizer
from jaxface.photos.face_crops import FaceCrop
from jaxface.photos.prediction import PredictFaces
from jaxface.photos.samples import Sample, pad_rows, stack_samples

TOGETHER, ALONE = 16, 10
"""So many faces are fitted as one batch; up to so many left over, one by one.

Each size is a program to compile, so there are two. On two CPU cores sixteen faces together take as long as eleven or
twelve one by one (70 s of processor time against 5.5 s each), whether all sixteen are wanted or not.
"""

SolveFaces = Callable[[Sequence[Sample], Float[np.ndarray, "N K"] | None], list[SolvedFace]]
"""solve(samples, vectors to start from or None): a face per sample, perhaps of several photos."""

SolveCrops = Callable[[UInt8[np.ndarray, "H W 3"], Sequence[FaceCrop]], list[SolvedFace]]
"""solve(photo, crops): a face per crop."""


def fit_solver(
    model: FaceModel,
    predict: PredictFaces | None = None,
    *,
    recognition: str | os.PathLike = "auto",
    calibration: Calibration | None = None,
) -> SolveCrops:
    """solve(photo, crops): fits all faces that `preprocess_photo` cut out of a photo.

    Args:
        model: the face model.
        predict: an encoder's, to start from; by default the network that comes with jaxface, or the mean face where the
            face model is not the network's.
        recognition: network of the perceptual loss: "dlib", the path of an ArcFace checkpoint, "off", or "auto": dlib's
            where the extra `perceptual` is installed.
        calibration: of the detector with this face model; None takes the one that comes with jaxface.

    Raises:
        InputError: when the model or the network cannot be used.
    """
    solve_samples = sample_solver(model, find_recognizer(str(recognition))[1], calibration)

    def solve(photo: UInt8[np.ndarray, "H W 3"], crops: Sequence[FaceCrop]) -> list[SolvedFace]:
        return solve_samples([crop.sample for crop in crops], None if predict is None else predict(photo, crops))

    return solve


def sample_solver(
    model: FaceModel,
    recognizer: FaceRecognizer | None,
    calibration: Calibration | None = None,
    *,
    weights: FitWeights | None = None,
) -> SolveFaces:
    """solve(samples, initial): fits samples of any photos; at most two sizes of batch are ever compiled.

    Args:
        model: the face model.
        recognizer: network of the perceptual loss; None leaves it out.
        calibration: of the detector with this face model; None takes the one that comes with jaxface.
        weights: of the loss terms; None takes the usual ones.

    Raises:
        InputError: when the model lacks landmarks or parts, or the calibration is that of another one.
    """
    evidence = evidence_for(model, dense=True, calibration=calibration)
    require_parts(model, "the fit")
    prior = people_prior(model, calibration)
    camera = Camera().resized(CROP_SIZE)
    onlooker = onlooker_for(model)

    def solve(samples: Sequence[Sample], initial: Float[np.ndarray, "N K"] | None) -> list[SolvedFace]:
        faces: list[SolvedFace] = []
        for size in batch_sizes(len(samples)):
            some = slice(len(faces), len(faces) + size)
            batch = {name: pad_rows(values, size) for name, values in stack_samples(samples[some]).items()}
            start = None if initial is None else pad_rows(initial[some], size)
            fit = fit_faces(
                model,
                batch,
                camera,
                prior,
                evidence=evidence,
                initial=start,
                weights=weights,
                recognizer=recognizer,
                look=None if onlooker is None else onlooker(batch["image"], batch["landmarks"]),
            )
            faces += fit.faces(len(samples[some]))
        return faces

    return solve


def find_recognizer(recognition: str) -> tuple[str, FaceRecognizer | None]:
    """The network of the perceptual loss and what to call it.

    Args:
        recognition: as for `fit_solver`.

    Raises:
        InputError: when the network cannot be used.
    """
    if recognition == "off":
        return "off", None
    if recognition != "auto":
        return recognition, load_recognizer(recognition)
    try:
        return "dlib", load_recognizer("dlib")
    except MissingDependencyError:
        return "off", None


def batch_sizes(count: int) -> list[int]:
    """Sizes of the batches in which `count` faces are fitted: `TOGETHER` or 1, whichever is quicker; see `ALONE`.

    The last batch may be larger than what is left for it, and is then padded.
    """
    full, rest = divmod(count, TOGETHER)
    return [TOGETHER] * full + ([1] * rest if rest <= ALONE else [TOGETHER])
