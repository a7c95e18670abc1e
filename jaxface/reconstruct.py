"""Reconstructs faces with a trained encoder: python -m jaxface.reconstruct PHOTO... --checkpoint DIR."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from jaxface.checkpoint import load_encoder
from jaxface.command_line import BatchReport, run
from jaxface.drawing import scaled_alignment
from jaxface.face_model import FaceModel
from jaxface.photos import add_photo_arguments, close, keep_compiled, process_photos


def reconstruct_photos(
    patterns: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    *,
    checkpoint: str | os.PathLike,
    faces: str = "all",
) -> tuple[BatchReport, list[Path]]:
    """Reconstructs the faces of photos with an encoder and writes the results (see `jaxface.outputs`).

    Args:
        patterns: photos, folders of photos, glob patterns.
        out: folder for the results; made if need be.
        checkpoint: a training run's folder, or the folder `checkpoints` in it.
        faces: "all" faces of a photo, or the "largest" alone.

    Returns:
        What was done and what failed, and the HTML pages written.

    Raises:
        InputError: when the checkpoint or `out` cannot be used.
        MissingDependencyError: when MediaPipe is not installed.
    """
    predict, model = predict_faces(checkpoint)
    settings = {"method": "encoder", "face model": model.name, "checkpoint": str(checkpoint)}
    return process_photos(patterns, out, model, predict, faces=faces, description="reconstruct", settings=settings)


def predict_faces(checkpoint: str | os.PathLike) -> tuple[Callable, FaceModel]:
    """Loads an encoder as predict(photo, found) -> coefficient vectors [N, K], and its face model.

    `found` is what `preprocess_photo` found in the photo; the crops are cut anew at the encoder's own size.
    """
    predict, model, config = load_encoder(Path(checkpoint))
    size = int(config.image_size)

    def solve(photo: UInt8[np.ndarray, "H W 3"], found: Sequence[tuple]) -> Float[np.ndarray, "N K"]:
        crops = [scaled_alignment(alignment, size).crop_image(photo) for _, alignment, _ in found]
        return np.concatenate([predict(crop[None]) for crop in crops])

    return solve, model


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.reconstruct",
        description="Turns photos into 3D faces with a trained encoder, in one pass: textured meshes (OBJ, GLB), "
        "pictures, coefficients, and a page to look at in a browser, offline. jaxface.fit takes longer and fits "
        "closer.",
        epilog="example: python -m jaxface.reconstruct portrait.jpg --checkpoint outputs/quickstart   -- Exit code 0: "
        "all photos done; 1: some failed; 2: nothing could be done.",
    )
    add_photo_arguments(parser, out="outputs/reconstruct")
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="folder of a training run (jaxface.train)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    return close(*reconstruct_photos(options.photos, options.out, checkpoint=options.checkpoint, faces=options.faces))


if __name__ == "__main__":
    keep_compiled()
    run(main)
