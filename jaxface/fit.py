"""Fits the face model to photos: python -m jaxface.fit PHOTO... --out DIR."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from jaxface.camera import Camera
from jaxface.command_line import BatchReport, run
from jaxface.data.alignment import CROP_SIZE
from jaxface.data.sample import stack_samples
from jaxface.errors import InputError, MissingDependencyError
from jaxface.face_model import FaceModel
from jaxface.fitting import coefficient_prior, fit_faces
from jaxface.formats import load_face_model
from jaxface.formats.checks import require_parts
from jaxface.networks.face_recognition import FaceRecognizer, load_recognizer
from jaxface.photos import add_photo_arguments, close, keep_compiled, process_photos
from jaxface.reconstruct import predict_faces

EXPRESSION_UNITS = ("anny", "ict", "ict_narrow", "FaceVerse v2", "FaceVerse v3")
"""Face models whose expression coefficients are shares of an artist's units, 0 to 1."""


def fit_photos(
    patterns: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    model: str | None = None,
    checkpoint: str | os.PathLike | None = None,
    faces: str = "all",
    recognition: str | os.PathLike = "auto",
) -> tuple[BatchReport, list[Path]]:
    """Fits the faces of photos and writes the results (see `jaxface.outputs`).

    Args:
        patterns: photos, folders of photos, glob patterns.
        out: folder for the results; made if need be.
        model: name or path of the face model; None takes the checkpoint's, or "anny" without one.
        checkpoint: an encoder to start from; None starts from the mean face.
        faces: "all" faces of a photo, or the "largest" alone.
        recognition: network of the perceptual loss, see `fit_solver`.

    Returns:
        What was done and what failed, and the HTML pages written.

    Raises:
        InputError: when the model, the checkpoint, the network or `out` cannot be used.
        MissingDependencyError: when MediaPipe is not installed.
    """
    predict = None
    if checkpoint is None:
        face_model = load_face_model(model or "anny")
    else:
        predict, face_model = predict_faces(checkpoint, model=model)
    settings = {"method": "fit", "face model": face_model.name, "start": str(checkpoint or "mean face")}
    solve = fit_solver(face_model, predict, recognition=recognition)
    return process_photos(patterns, out, face_model, solve, faces=faces, description="fit", settings=settings)


def fit_solver(
    model: FaceModel, predict: Callable | None = None, *, recognition: str | os.PathLike = "auto"
) -> Callable:
    """solve(photo, found) for `process_photos`: fits all faces of a photo, from zero or from an encoder's answer.

    Args:
        model: the face model.
        predict: an encoder's, to start from.
        recognition: network of the perceptual loss: "dlib", the path of an ArcFace checkpoint, "off", or "auto": dlib's
            where the extra `perceptual` is installed.

    Raises:
        InputError: when the model or the network cannot be used.
    """
    if "68" not in model.landmarks:
        raise InputError(f"the face model {model.name!r} has no 68 landmarks, which the fit needs")
    require_parts(model, "the fit")
    prior = coefficient_prior(model, expression_units=model.name in EXPRESSION_UNITS)
    recognizer = _recognizer(recognition)

    def solve(photo: UInt8[np.ndarray, "H W 3"], found: Sequence[tuple]) -> Float[np.ndarray, "N K"]:
        initial = None if predict is None else predict(photo, found)
        batch = stack_samples([sample for sample, _, _ in found])
        count = len(found)
        # One size of batch for one face, one for a few, ...: each is compiled once.
        padding = (1 << (count - 1).bit_length()) - count
        batch = {name: _pad(values, padding) for name, values in batch.items()}
        if initial is not None:
            initial = _pad(initial, padding)
        camera = Camera().resized(CROP_SIZE)
        return np.asarray(fit_faces(model, batch, camera, prior, initial=initial, recognizer=recognizer))[:count]

    return solve


def _recognizer(recognition: str | os.PathLike) -> FaceRecognizer | None:
    if str(recognition) == "off":
        return None
    if str(recognition) != "auto":
        return load_recognizer(recognition)
    try:
        return load_recognizer("dlib")
    except MissingDependencyError:
        return None


def _pad(values: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([values, np.repeat(values[-1:], count, axis=0)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.fit",
        description="Turns photos into 3D faces by optimisation: textured meshes (OBJ, GLB), pictures, coefficients, "
        "and a page to look at in a browser, offline.",
        epilog="example: python -m jaxface.fit portrait.jpg holiday/ --out outputs/fit   -- Exit code 0: all photos "
        "done; 1: some failed; 2: nothing could be done.",
    )
    add_photo_arguments(parser, out="outputs/fit")
    parser.add_argument("--model", help="face model: a name or a file (default: the checkpoint's, or anny)")
    parser.add_argument(
        "--checkpoint", metavar="PATH", help="start from this trained encoder's answer (default: from the mean face)"
    )
    parser.add_argument(
        "--recognition",
        default="auto",
        metavar="NETWORK",
        help="network of the perceptual loss: dlib (needs jaxface[perceptual]), an ArcFace checkpoint, or off "
        "(default: dlib if it is installed)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    return close(
        *fit_photos(
            options.photos,
            options.out,
            model=options.model,
            checkpoint=options.checkpoint,
            faces=options.faces,
            recognition=options.recognition,
        )
    )


if __name__ == "__main__":
    keep_compiled()
    run(main)
