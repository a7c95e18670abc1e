"""From photos on disk to results on disk: the loop that `jaxface.fit` and `jaxface.reconstruct` share."""

import argparse
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, UInt8

from jaxface.command_line import BatchReport, atomic_folder, collect_files, progress, unique_names
from jaxface.data.alignment import Alignment
from jaxface.data.images import read_image
from jaxface.data.sample import Sample
from jaxface.drawing import Reconstruction
from jaxface.errors import InputError
from jaxface.face_model import FaceModel
from jaxface.outputs import write_photo
from jaxface.preprocess import preprocess_photo

PAGE = "index.html"

Solve = Callable[[UInt8[np.ndarray, "H W 3"], Sequence[tuple]], Float[np.ndarray, "N K"]]


def process_photos(
    patterns: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    model: FaceModel,
    solve: Solve,
    *,
    faces: str = "all",
    description: str,
    settings: Mapping[str, str],
) -> tuple[BatchReport, list[Path]]:
    """Reads photos, finds their faces, solves them and writes the results, one folder per photo.

    A photo's folder appears whole or not at all. A bad photo is reported and does not stop the rest.

    Args:
        patterns: photos, folders of photos, glob patterns.
        out: folder for the results; made if need be.
        model: the face model.
        solve: solve(photo, what `preprocess_photo` found in it) -> a coefficient vector per face.
        faces: "all" faces of a photo, or the "largest" alone.
        description: what is done, for the progress bar and the page.
        settings: told in every result.

    Returns:
        What was done and what failed, and the HTML pages written.

    Raises:
        InputError: when `out` is a file.
        MissingDependencyError: when MediaPipe is not installed.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out names the folder for the results")
    paths = collect_files(patterns, exclude=out)
    report, pages = BatchReport(), []
    for path, name in progress(list(zip(paths, unique_names(paths), strict=True)), description=description):
        with report.guard(path):
            photo = read_image(path)
            found = preprocess_photo(photo, model)[: 1 if faces == "largest" else None]
            vectors = solve(photo, found)
            reconstructions = reconstructions_of(vectors, found)
            count = f"{len(found)} face{'' if len(found) == 1 else 's'}"
            with atomic_folder(out / name) as folder:
                write_photo(
                    folder,
                    model,
                    photo,
                    reconstructions,
                    photo_name=path.name,
                    subtitle=f"{count}, {description}",
                    settings=settings,
                )
            pages.append(out / name / PAGE)
            report.done += 1
    return report, pages


def reconstructions_of(
    vectors: Float[np.ndarray, "N K"], found: Sequence[tuple[Sample, Alignment, object]], *, label: str = "Face"
) -> list[Reconstruction]:
    """Joins vectors with the samples that they belong to; labels count from 1."""
    pairs = enumerate(zip(np.asarray(vectors), found, strict=True), start=1)
    return [
        Reconstruction(vector, sample, alignment, f"{label} {index}")
        for index, (vector, (sample, alignment, _)) in pairs
    ]


def add_photo_arguments(parser: argparse.ArgumentParser, *, out: str) -> None:
    """The arguments that all programs on photos share."""
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photos, folders of photos, or glob patterns")
    parser.add_argument("--out", default=out, metavar="DIR", help=f"folder for the results (default: {out})")
    parser.add_argument(
        "--faces", choices=("all", "largest"), default="all", help="which faces of a photo to take (default: all)"
    )


def keep_compiled() -> None:
    """Lets later runs of a program start without compiling: XLA's results stay in the user's cache folder.

    $JAX_COMPILATION_CACHE_DIR, if set, names another folder; where none can be made, nothing is kept.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxface"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))


def close(report: BatchReport, pages: Sequence[Path]) -> int:
    """Prints the summary and, last, the pages to open; returns the exit code."""
    print(report.summary())
    for page in pages:
        print(page)
    return report.exit_code
