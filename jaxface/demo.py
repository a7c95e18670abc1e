"""Reconstructs the two portraits that installed packages carry, by an encoder and by a fit, side by side.

    python -m jaxface.demo --out outputs/demo

writes OUT/index.html, OUT/side_by_side.png and, per portrait, what `jaxface.results.photo_files` lists. The portraits
are NASA's of Eileen Collins (scikit-image's `astronaut`) and the U.S. Navy's of Grace Hopper (matplotlib's sample):
both in the public domain.
"""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from jaxface.files.command_line import run
from jaxface.results.demo import run_demo


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.demo",
        description="Reconstructs the two portraits that scikit-image and matplotlib carry, with an encoder and "
        "by a fit, and lays the results side by side.",
    )
    parser.add_argument(
        "--checkpoint", metavar="DIR", help="folder of a training run (default: the encoder that comes with jaxface)"
    )
    parser.add_argument("--out", default="outputs/demo", metavar="DIR", help="folder for the results")
    options = parser.parse_args(arguments)
    print(run_demo(options.checkpoint, options.out))
    return 0


def console() -> NoReturn:
    """The command as a program: `jaxface demo` and `python -m jaxface.demo`."""
    run(main, keep_programs=True)


if __name__ == "__main__":
    console()
