"""Measures a trained encoder on a folder of samples: Part IoU, landmark error, vertex error.

    python -m jaxface.evaluate DATASET --checkpoint outputs/quickstart

prints a table beside the mean face as baseline, and writes OUT/results.json (the same figures, and each face's own) and
OUT/faces.png (the best and the worst reconstructions). DATASET is a folder that `python -m jaxface.preprocess` wrote.
"""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from jaxface.files.command_line import run
from jaxface.training.evaluation import evaluate_folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jaxface.evaluate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dataset", help="folder of samples, as written by python -m jaxface.preprocess")
    parser.add_argument(
        "--checkpoint", required=True, help="output folder of a training run, or a file such as net_recon.pth"
    )
    parser.add_argument("--model", help="face model that a file's encoder was trained with (default: the checkpoint's)")
    parser.add_argument(
        "--out", help="folder for results.json and faces.png (default: evaluation/ in the run's folder, beside a file)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    report = evaluate_folder(options.dataset, options.checkpoint, model=options.model, out=options.out)
    print(report.summary())
    return report.exit_code


def console() -> NoReturn:
    """The command as a program: `jaxface evaluate` and `python -m jaxface.evaluate`."""
    run(main)


if __name__ == "__main__":
    console()
