"""Measures how far a face detector errs, so that the fit can weigh its points.

python -m jaxface.calibrate --out table.npz
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from jaxface.annotation.calibrator import DETECTORS, FACES, FEWEST, LARGEST_SEED, SEED, calibrate_file
from jaxface.core.errors import InputError
from jaxface.files.command_line import keep_compiled, run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.calibrate",
        description="Draws random people with a face model, has a detector find their points, and writes a table of "
        "where each point lies on the mesh and how far which points err together, by the head's turn (OUT), and a "
        "picture of it (OUT with .png). With --photos, the mean of real people is estimated as well, without any 3D.",
        epilog="example: python -m jaxface.calibrate --model face_model.npz --photos people/ --out table.npz   "
        "-- python -m jaxface.fit --model face_model.npz --calibration table.npz takes it. The built-in face model "
        "comes with a table. Exit code 0: done; 1: some photos were left out; 2: nothing could be done.",
    )
    parser.add_argument("--model", default="anny", help="face model: a name or a file (default: anny)")
    parser.add_argument("--out", type=Path, required=True, help="file for the table, .npz")
    parser.add_argument("--detector", choices=tuple(DETECTORS), help="default: mediapipe")
    parser.add_argument("--faces", type=int, help=f"to draw (default: {FACES}, a quarter of an hour)")
    parser.add_argument("--seed", type=int, help=f"of the drawn faces (default: {SEED})")
    parser.add_argument(
        "--photos", nargs="+", default=[], metavar="PHOTO", help="photos or folders, a person each: for people's mean"
    )
    parser.add_argument("--table", type=Path, help="an earlier table: draw nothing, estimate people's mean alone")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.out.suffix != ".npz":
        raise InputError(f"{options.out}: the table is an .npz file; let its name end so")
    drawing = {name: getattr(options, name) for name in ("detector", "faces", "seed")}
    given = {name: value for name, value in drawing.items() if value is not None}
    if options.table and given:
        parser.error(f"--{next(iter(given))}: the table of --table has its own, and nothing is drawn; leave it out")
    if given.get("faces", FACES) < FEWEST:
        parser.error(f"--faces: at least {FEWEST} faces have to be drawn, else the table would be a guess")
    if not 0 <= given.get("seed", SEED) <= LARGEST_SEED:
        parser.error(f"--seed: from 0 to {LARGEST_SEED}")
    if options.table and not options.photos:
        parser.error("--table without --photos leaves nothing to do")
    keep_compiled()
    table, report = calibrate_file(options.model, options.out, photos=options.photos, table=options.table, **given)
    frontal = int(np.argmin(np.abs(table.yaws)))
    variance = table.variances[frontal] + np.square(table.factors[frontal]).sum(-1)
    print(
        f"{len(table.points)} points, off by {np.sqrt(2 * variance.mean()):.1f} px rms of the 224 crop from the front"
    )
    print(f"{options.out}: {table.made}")
    print(f"look at {options.out.with_suffix('.png')}")
    return report.exit_code


def console() -> NoReturn:
    """The command as a program: `jaxface calibrate` and `python -m jaxface.calibrate`."""
    run(main)


if __name__ == "__main__":
    console()
