"""Makes a folder of samples from photos: detection, alignment, part masks.

python -m jaxface.preprocess PHOTOS... OUT
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from jaxface.core.parts import PARSER_LABELS
from jaxface.core.units import CROP_SIZE
from jaxface.files.command_line import keep_compiled, run
from jaxface.files.workers import available_cores
from jaxface.photos.parsing import PARSERS
from jaxface.photos.preparation import FORMATS, contact_sheet_name, preprocess_files


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.preprocess",
        description="Finds the faces in photos and writes, for each, an aligned crop, a map of its parts and its 68 "
        "landmarks: the folder that jaxface.train reads. Look at OUT/contact_sheet.png afterwards. Faces and landmarks "
        "always come from MediaPipe's networks; the parts from jaxface's own network, which sees hair, hands and "
        "glasses, from MediaPipe's points, from the DML-CSR network, or from label maps that you have.",
        epilog="example: python -m jaxface.preprocess holiday.jpg my_photos/ 'more/*.png' faces/   "
        "-- or, with label maps in CelebAMask-HQ's order: ... my_photos/ faces/ --labels celebamask --label-folder "
        "my_maps/   -- Run it again after adding photos: those done already are skipped. Exit code 0: all photos done; "
        "1: some failed; 2: nothing could be done.",
    )
    parser.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTOS",
        help="photos, folders of photos, or glob patterns; jaxface's own results are left out",
    )
    parser.add_argument("out", metavar="OUT", help="folder for the samples; made if it does not exist")
    parser.add_argument(
        "--size", type=_crop_size, default=CROP_SIZE, help="side of the crops in pixels, 32 to 2048 (default: 224)"
    )
    parser.add_argument(
        "--model", default="anny", help="face model that the crops are aligned to: a name or a file (default: anny)"
    )
    parser.add_argument(
        "--faces", choices=("all", "largest"), default="all", help="which faces of a photo to take (default: all)"
    )
    parser.add_argument(
        "--parser",
        choices=PARSERS,
        default=PARSERS[0],
        help="what finds the parts: jaxface's network, outlines through mediapipe's points, or dml_csr, which takes "
        "some 4 seconds a face on two CPU cores (default: jaxface)",
    )
    parser.add_argument(
        "--parser-weights",
        metavar="FILE",
        help="the PyTorch checkpoint of dml_csr (CelebAMask-HQ's 19 labels or LaPa's 11)",
    )
    parser.add_argument(
        "--labels",
        choices=tuple(PARSER_LABELS),
        help="take the parts from the label maps in --label-folder, whose values are in this order",
    )
    parser.add_argument(
        "--label-folder",
        metavar="DIR",
        help="label maps: for NAME.jpg the 8-bit, one-channel NAME.png of the same size; left and right are the "
        "subject's own",
    )
    parser.add_argument("--overwrite", action="store_true", help="make samples again that are there already")
    many = parser.add_argument_group("for many photos", "docs/large_datasets.md tells what to expect of 600,000")
    many.add_argument(
        "--format",
        choices=tuple(FORMATS),
        default="folders",
        help="a folder per photo, for people (default), or files of a thousand samples, for training",
    )
    many.add_argument(
        "--workers",
        type=_count,
        default=available_cores(),
        metavar="N",
        help="processes that decode and write beside this one, which finds the faces (default: one per core; 0: none)",
    )
    many.add_argument(
        "--shards", type=_count, default=1, metavar="N", help="split the photos into N shares, for as many machines"
    )
    many.add_argument("--shard", type=_count, default=1, metavar="I", help="the share to work on, 1 to N")
    return parser


def _crop_size(text: str) -> int:
    if not text.isdecimal() or not 32 <= int(text) <= 2048:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 32 to 2048")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > 9999:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 9999")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    keep_compiled()
    report = preprocess_files(
        options.photos,
        options.out,
        model=options.model,
        size=options.size,
        faces=options.faces,
        overwrite=options.overwrite,
        parser=options.parser,
        parser_weights=options.parser_weights,
        labels=options.labels,
        label_folder=options.label_folder,
        format=options.format,
        workers=options.workers,
        share=options.shard,
        shares=options.shards,
    )
    print(report.summary())
    if report.done:
        print(f"look at {Path(options.out) / contact_sheet_name(options.shard, options.shards)}")
    return report.exit_code


def console() -> NoReturn:
    """The command as a program: `jaxface preprocess` and `python -m jaxface.preprocess`."""
    run(main)


if __name__ == "__main__":
    console()
