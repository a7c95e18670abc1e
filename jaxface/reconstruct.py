"""Reconstructs faces with a trained encoder: python -m jaxface.reconstruct PHOTO... --checkpoint DIR.

The published encoders of 3DDFA-V3 and Deep3D serve as well: --checkpoint net_recon.pth --model face_model.npy.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from jaxface.checkpoint import load_encoder
from jaxface.command_line import BatchReport, run
from jaxface.errors import InputError
from jaxface.face_model import FaceModel
from jaxface.formats import load_face_model
from jaxface.photos import add_photo_arguments, close, keep_compiled, process_photos
from jaxface.results.drawing import scaled_alignment


def reconstruct_photos(
    patterns: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    checkpoint: str | os.PathLike,
    model: str | os.PathLike | None = None,
    faces: str = "all",
    overwrite: bool = False,
) -> tuple[BatchReport, list[Path]]:
    """Reconstructs the faces of photos with an encoder and writes the results.

    See `jaxface.results.outputs` and `photos.process_photos`.

    Args:
        patterns: photos, folders of photos, glob patterns.
        out: folder for the results; made if need be.
        checkpoint: a training run's folder, or weights from elsewhere: see `checkpoint.load_encoder`.
        model: name or path of the face model that the encoder was trained with; by default the one that the checkpoint
            names, which weights from elsewhere do not.
        faces: "all" faces of a photo, or the "largest" alone.
        overwrite: makes results again that are there already.

    Returns:
        What was done and what failed, and the HTML pages: of each photo and, last, the overview if there is one.

    Raises:
        InputError: when the checkpoint, the model or `out` cannot be used.
        MissingDependencyError: when MediaPipe is not installed.
    """
    predict, face_model = predict_faces(checkpoint, model=model)
    settings = {"method": "encoder", "face model": face_model.name, "checkpoint": str(checkpoint)}
    return process_photos(
        patterns,
        out,
        face_model,
        predict=predict,
        faces=faces,
        overwrite=overwrite,
        description="reconstruct",
        settings=settings,
    )


def predict_faces(
    checkpoint: str | os.PathLike, *, model: str | os.PathLike | None = None
) -> tuple[Callable, FaceModel]:
    """Loads an encoder as predict(photo, found) -> coefficient vectors [N, K], and its face model.

    `found` is what `preprocess_photo` found in the photo; the crops are cut anew at the encoder's own size.
    """
    given = None if model is None else load_face_model(model)
    predict, face_model, config = load_encoder(Path(checkpoint), model=given)
    if "68" not in face_model.landmarks:
        raise InputError(f"the face model {face_model.name!r} has no 68 landmarks, by which photos are aligned")
    size = int(config.image_size)

    def solve(photo: UInt8[np.ndarray, "H W 3"], found: Sequence[tuple]) -> Float[np.ndarray, "N K"]:
        crops = [scaled_alignment(alignment, size).crop_image(photo) for _, alignment, _ in found]
        return np.concatenate([predict(crop[None]) for crop in crops])

    return solve, face_model


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.reconstruct",
        description="Turns photos into 3D faces with a trained encoder, in one pass: textured meshes (OBJ, GLB), "
        "pictures, coefficients, and a page to look at in a browser, offline. jaxface.fit takes longer and fits "
        "closer.",
        epilog="example: python -m jaxface.reconstruct portrait.jpg --checkpoint outputs/quickstart   -- Stop it "
        "with Ctrl-C; the same command goes on from there, and skips what is done. Exit code 0: all photos done; "
        "1: some failed; 2: nothing could be done.",
    )
    add_photo_arguments(parser, out="outputs/reconstruct")
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="PATH",
        help="folder of a training run (jaxface.train), or weights of 3DDFA-V3 or Deep3D (net_recon.pth, .safetensors)",
    )
    parser.add_argument(
        "--model",
        help="face model that the encoder was trained with: a name or a file, such as face_model.npy (default: the one "
        "that the training run names)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    return close(
        *reconstruct_photos(
            options.photos,
            options.out,
            checkpoint=options.checkpoint,
            model=options.model,
            faces=options.faces,
            overwrite=options.overwrite,
        )
    )


if __name__ == "__main__":
    keep_compiled()
    run(main, wait_for_threads=False)
