"""Fits the face model to photos and clips.

python -m jaxface.fit PHOTO... --out DIR
"""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from jaxface.files.command_line import add_photo_arguments, print_summary, run
from jaxface.photos.parsing import FIT_PARSER, PARSERS
from jaxface.results.drawing import DrawingOptions
from jaxface.results.reconstruction import fit_files


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.fit",
        description="Turns photos into 3D faces by optimisation: textured meshes (OBJ, GLB), pictures, coefficients, "
        "and a page to look at in a browser, offline. Clips become an animated mesh.",
        epilog="example: python -m jaxface.fit portrait.jpg holiday/ --out outputs/fit   -- Stop it with Ctrl-C; the "
        "same command goes on from there, and skips what is done; only a clip, or the joint fit of one person, that "
        "was interrupted begins anew. Nothing is drawn at random: the same photos give the same files. Exit code 0: "
        "all photos done; 1: some failed, or a clip is incomplete; 2: nothing could be done.",
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
    parser.add_argument(
        "--keep-strangers",
        action="store_true",
        help="with --same-person: take photos, too, that seem to show somebody else (default: they are left out and "
        "named)",
    )
    parser.add_argument(
        "--frame-rate",
        type=float,
        metavar="N",
        help="of clips, frames per second (default: the time that a file tells of each frame; 25 for a folder)",
    )
    parser.add_argument("--model", help="face model: a name or a file (default: the checkpoint's, or anny)")
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        help="start from this trained encoder's answer (default: from that of jaxface's own network, or with another "
        "face model than the network's from the mean face)",
    )
    parser.add_argument(
        "--delight",
        action="store_true",
        help="take the photo's light off the texture, for a mesh that will be lit anew (single photos; with "
        "--same-person and clips it is always done)",
    )
    parser.add_argument(
        "--keep-glasses",
        action="store_true",
        help="leave glasses in the texture (default: what they hide is completed from what is seen)",
    )
    parser.add_argument(
        "--recognition",
        default="auto",
        metavar="NETWORK",
        help="network of the perceptual loss: dlib (needs jaxface[perceptual]), an ArcFace checkpoint, or off "
        "(default: dlib if it is installed)",
    )
    parser.add_argument(
        "--parser",
        choices=PARSERS[:2],
        default=FIT_PARSER,
        help="what finds the parts: jaxface's network, which sees hair, hands and glasses, or outlines through "
        "mediapipe's points, with which fits were a little nearer to scans (default: mediapipe)",
    )
    parser.add_argument(
        "--calibration",
        metavar="TABLE",
        help="what the detector's points are worth on this face model, from `jaxface calibrate` (default: a table that "
        "comes with jaxface)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    report, pages = fit_files(
        options.photos,
        options.out,
        same_person=options.same_person,
        keep_strangers=options.keep_strangers,
        video=options.video,
        model=options.model,
        checkpoint=options.checkpoint,
        faces=options.faces,
        recognition=options.recognition,
        calibration=options.calibration,
        parser=options.parser,
        overwrite=options.overwrite,
        frame_rate=options.frame_rate,
        drawing=DrawingOptions(delight=options.delight, keep_glasses=options.keep_glasses),
    )
    return print_summary(report, pages)


def console() -> NoReturn:
    """The command as a program: `jaxface fit` and `python -m jaxface.fit`."""
    run(main, keep_programs=True, wait_for_threads=False)


if __name__ == "__main__":
    console()
