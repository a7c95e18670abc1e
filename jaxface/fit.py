"""Fits the face model to photos and clips: python -m jaxface.fit PHOTO... --out DIR."""

import argparse
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from jaxface.camera import Camera
from jaxface.command_line import BatchReport, run
from jaxface.data.alignment import CROP_SIZE
from jaxface.data.frames import VIDEO_SUFFIXES
from jaxface.data.images import read_image
from jaxface.data.sample import Sample, stack_samples
from jaxface.errors import InputError, MissingDependencyError
from jaxface.face_model import FaceModel
from jaxface.fitting import coefficient_prior, fit_faces
from jaxface.formats import load_face_model
from jaxface.formats.checks import require_parts
from jaxface.networks.face_recognition import FaceRecognizer, load_recognizer
from jaxface.person import fit_person
from jaxface.photo_queue import Predict, Solve, batch_sizes
from jaxface.photos import add_photo_arguments, close, keep_compiled, process_photos, reconstructions_of
from jaxface.preprocess import preprocess_photo
from jaxface.results.fitted_photo import FittedPhoto
from jaxface.video import fit_video

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
    overwrite: bool = False,
    delight: bool = False,
) -> tuple[BatchReport, list[Path]]:
    """Fits the faces of photos and writes the results (see `jaxface.results.outputs` and `photos.process_photos`).

    Nothing is drawn at random: the same photos give the same files.

    Args:
        patterns: photos, folders of photos, glob patterns.
        out: folder for the results; made if need be.
        model: name or path of the face model; None takes the checkpoint's, or "anny" without one.
        checkpoint: an encoder to start from; None starts from the mean face.
        faces: "all" faces of a photo, or the "largest" alone.
        recognition: network of the perceptual loss, see `fit_solver`.
        overwrite: makes results again that are there already.
        delight: takes the photo's light off the textures.

    Returns:
        What was done and what failed, and the HTML pages: of each photo and, last, the overview if there is one.

    Raises:
        InputError: when the model, the checkpoint, the network or `out` cannot be used.
        MissingDependencyError: when MediaPipe is not installed.
    """
    face_model, predict, solve, settings = _prepared(
        model, None if checkpoint is None else str(checkpoint), str(recognition)
    )
    return process_photos(
        patterns,
        out,
        face_model,
        predict=predict,
        solve=solve,
        faces=faces,
        overwrite=overwrite,
        delight=delight,
        description="fit",
        settings=settings,
    )


def fit_photo(
    photo: str | os.PathLike | UInt8[np.ndarray, "H W 3"],
    *,
    model: str | None = None,
    checkpoint: str | os.PathLike | None = None,
    faces: str = "all",
    recognition: str | os.PathLike = "auto",
    delight: bool = False,
) -> FittedPhoto:
    """Fits the faces of one photo; models and networks stay in memory for the next call.

        result = jaxface.fit_photo("portrait.jpg")
        result.faces[0].mesh().export("face.glb")
        result.save("results")

    Args:
        photo: a file, or RGB bytes [H, W, 3] with row 0 on top.
        model: as for `fit_photos`, like the others.
        checkpoint: an encoder to start from.
        faces: "all" faces of the photo, the largest first, or the "largest" alone.
        recognition: network of the perceptual loss.
        delight: takes the photo's light off the texture.

    Raises:
        InputError: when the photo cannot be read or shows no face, or the model, the checkpoint or the network cannot
            be used.
        MissingDependencyError: when MediaPipe is not installed.
    """
    if isinstance(photo, np.ndarray):
        name, pixels = "photo", photo
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3 or not pixels.size:
            raise InputError(f"the photo should be uint8 [H, W, 3], but is {pixels.dtype} {list(pixels.shape)}")
    else:
        name, pixels = Path(photo).name, read_image(photo)
    face_model, predict, solve, settings = _prepared(
        model, None if checkpoint is None else str(checkpoint), str(recognition)
    )
    found = preprocess_photo(pixels, face_model)[: 1 if faces == "largest" else None]
    vectors = solve([sample for sample, *_ in found], None if predict is None else predict(pixels, found))
    reconstructions = reconstructions_of(vectors, found)
    return FittedPhoto(face_model, pixels, reconstructions, name=name, settings=settings, delight=delight)


@functools.cache
def _prepared(
    model: str | None, checkpoint: str | None, recognition: str
) -> tuple[FaceModel, Predict | None, Solve, Mapping[str, str]]:
    """The face model, encoder and solver, and what a result says of them."""
    predict = None
    if checkpoint is None:
        face_model = load_face_model(model or "anny")
    else:
        from jaxface.reconstruct import predict_faces  # its checkpoints take a second to import

        predict, face_model = predict_faces(checkpoint, model=model)
    network, recognizer = find_recognizer(recognition)
    settings = {
        "method": "fit",
        "face model": face_model.name,
        "start": checkpoint or "mean face",
        "recognition network": network,
    }
    return face_model, predict, _sample_solver(face_model, recognizer), settings


def fit_solver(
    model: FaceModel, predict: Predict | None = None, *, recognition: str | os.PathLike = "auto"
) -> Callable:
    """solve(photo, found) -> vectors [N, K]: fits all faces that `preprocess_photo` found in a photo.

    Args:
        model: the face model.
        predict: an encoder's, to start from; by default the mean face.
        recognition: network of the perceptual loss: "dlib", the path of an ArcFace checkpoint, "off", or "auto": dlib's
            where the extra `perceptual` is installed.

    Raises:
        InputError: when the model or the network cannot be used.
    """
    solve_samples = _sample_solver(model, find_recognizer(str(recognition))[1])

    def solve(photo: UInt8[np.ndarray, "H W 3"], found: Sequence[tuple]) -> Float[np.ndarray, "N K"]:
        return solve_samples([sample for sample, *_ in found], None if predict is None else predict(photo, found))

    return solve


def _sample_solver(model: FaceModel, recognizer: FaceRecognizer | None) -> Solve:
    """solve(samples, initial) for `process_photos`; at most two sizes of batch are ever compiled."""
    if "68" not in model.landmarks:
        raise InputError(f"the face model {model.name!r} has no 68 landmarks, which the fit needs")
    require_parts(model, "the fit")
    prior = coefficient_prior(model, expression_units=model.name in EXPRESSION_UNITS)
    camera = Camera().resized(CROP_SIZE)

    def solve(samples: Sequence[Sample], initial: Float[np.ndarray, "N K"] | None) -> Float[np.ndarray, "N K"]:
        vectors: list[np.ndarray] = []
        for size in batch_sizes(len(samples)):
            some = slice(len(vectors), len(vectors) + size)
            batch = {name: _padded(values, size) for name, values in stack_samples(samples[some]).items()}
            start = None if initial is None else _padded(initial[some], size)
            solved = fit_faces(model, batch, camera, prior, initial=start, recognizer=recognizer)
            vectors += list(np.asarray(solved)[: len(samples[some])])
        return np.stack(vectors)

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


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([values, np.repeat(values[-1:], size - len(values), axis=0)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.fit",
        description="Turns photos into 3D faces by optimisation: textured meshes (OBJ, GLB), pictures, coefficients, "
        "and a page to look at in a browser, offline. Clips become an animated mesh.",
        epilog="example: python -m jaxface.fit portrait.jpg holiday/ --out outputs/fit   -- Stop it with Ctrl-C; the "
        "same command goes on from there, and skips what is done. Nothing is drawn at random: the same photos give the "
        "same files. Exit code 0: all photos done; 1: some failed; 2: nothing could be done.",
    )
    add_photo_arguments(parser, out="outputs/fit")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        "--same-person",
        action="store_true",
        help="all photos show one person: one identity and one texture for all, in OUT/person",
    )
    kinds.add_argument(
        "--video",
        action="store_true",
        help="each PHOTO is a clip: a folder with a picture per frame, or an animated picture; a file such as clip.mp4 "
        "is one without this",
    )
    parser.add_argument("--model", help="face model: a name or a file (default: the checkpoint's, or anny)")
    parser.add_argument(
        "--checkpoint", metavar="PATH", help="start from this trained encoder's answer (default: from the mean face)"
    )
    parser.add_argument(
        "--delight",
        action="store_true",
        help="take the photo's light off the texture, for a mesh that will be lit anew (single photos; with "
        "--same-person and clips it is always done)",
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
    clips = [path for path in options.photos if options.video or Path(path).suffix.lower() in VIDEO_SUFFIXES]
    photos = [path for path in options.photos if path not in clips]
    if options.checkpoint and (clips or options.same_person):
        raise InputError("--checkpoint starts the fit of single photos; leave it out with --same-person and clips")
    several = {"model": options.model or "anny", "recognition": options.recognition}
    report = BatchReport()
    pages: list[Path] = []
    if options.same_person:
        report, pages = fit_person(photos, options.out, **several)
    elif photos:
        report, pages = fit_photos(
            photos,
            options.out,
            model=options.model,
            checkpoint=options.checkpoint,
            faces=options.faces,
            recognition=options.recognition,
            overwrite=options.overwrite,
            delight=options.delight,
        )
    for clip in clips:
        with report.guard(clip):
            fitted, page = fit_video(clip, options.out, **several)
            report.done += fitted.done
            pages += page
    return close(report, pages, unit="photo" if photos else "clip")


if __name__ == "__main__":
    keep_compiled()
    run(main, wait_for_threads=False)
