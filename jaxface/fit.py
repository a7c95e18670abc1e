"""Fits the face model to photos and clips.

python -m jaxface.fit PHOTO... --out DIR
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from jaxface.clips.frames import VIDEO_SUFFIXES
from jaxface.core.errors import InputError
from jaxface.files.command_line import add_photo_arguments, close, keep_compiled, run
from jaxface.files.progress import BatchReport
from jaxface.results.clip import fit_video
from jaxface.results.drawing import DrawingOptions
from jaxface.results.person import fit_person
from jaxface.results.reconstruction import fit_photos


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
            drawing=DrawingOptions(delight=options.delight),
        )
    for clip in clips:
        with report.guard(clip):
            fitted, page = fit_video(clip, options.out, **several)
            report.done += fitted.done
            pages += page
    return close(report, pages, unit="photo" if photos else "clip")


def console() -> NoReturn:
    """The command as a program: `jaxface fit` and `python -m jaxface.fit`."""
    keep_compiled()
    run(main, wait_for_threads=False)


if __name__ == "__main__":
    console()
