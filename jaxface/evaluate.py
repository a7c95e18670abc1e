"""Measures a trained encoder on a folder of samples, or any fit on a public benchmark that you have.

    python -m jaxface.evaluate DATASET --checkpoint outputs/quickstart

prints Part IoU, landmark error and vertex error beside the mean face as baseline, and writes OUT/results.json (the same
figures, and each face's own) and OUT/faces.png (the best and the worst reconstructions). DATASET is a folder that
`python -m jaxface.preprocess` wrote.

    python -m jaxface.evaluate --benchmark now PATH [--predictions DIR | --checkpoint RUN]

fits the benchmark's photos (or takes what `python -m jaxface.fit --out DIR` wrote, or asks an encoder), measures them
by the benchmark's protocol, prints the figures beside published ones and writes OUT/results.json.
"""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from jaxface.files.command_line import print_summary, run
from jaxface.training.benchmarks import BENCHMARKS, run_benchmark
from jaxface.training.evaluation import evaluate_folder

_LAYOUTS = "\n\n".join(benchmark.layout for benchmark in BENCHMARKS.values())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.evaluate",
        description=(__doc__ or "").split("\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Benchmarks, and the folder that each expects at PATH, as it is given out:\n\n{_LAYOUTS}\n\n"
        "Predictions lie in DIR under the photo's name in the benchmark: DIR/image00002/face_0/coefficients.json;\n"
        "NoW's in DIR/SUBJECT/CHALLENGE/IMG_0045/face_0.",
    )
    parser.add_argument(
        "dataset",
        metavar="PATH",
        help="folder of samples, as written by python -m jaxface.preprocess; with --benchmark, the benchmark's folder",
    )
    parser.add_argument("--benchmark", choices=tuple(BENCHMARKS), help="a public benchmark's protocol (see below)")
    parser.add_argument(
        "--predictions",
        metavar="DIR",
        help="with --benchmark: what jaxface.fit or jaxface.reconstruct wrote (default: the photos are fitted)",
    )
    parser.add_argument(
        "--checkpoint",
        help="output folder of a training run, or a file such as net_recon.pth; without --benchmark it is required",
    )
    parser.add_argument(
        "--model", help="face model of the predictions or a file's encoder (default: the one they name)"
    )
    parser.add_argument(
        "--out",
        help="folder for the results (default: evaluation/ in the run's folder, beside a file; with --benchmark, "
        "outputs/benchmarks/NAME)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.benchmark:
        report = run_benchmark(
            options.benchmark,
            options.dataset,
            predictions=options.predictions,
            checkpoint=options.checkpoint,
            model=options.model,
            out=options.out,
        )
        return print_summary(report, [])
    if not options.checkpoint:
        parser.error("--checkpoint is required for a folder of samples; --benchmark measures a public benchmark")
    if options.predictions:
        parser.error("--predictions goes with --benchmark")
    report = evaluate_folder(options.dataset, options.checkpoint, model=options.model, out=options.out)
    print(report.summary())
    return report.exit_code


def console() -> NoReturn:
    """The command as a program: `jaxface evaluate` and `python -m jaxface.evaluate`."""
    run(main, keep_programs=True, wait_for_threads=False)


if __name__ == "__main__":
    console()
