"""Times jaxface on one accelerator: python benchmarks/accelerator.py [--only SECTION ...] [--seconds 300] [--out FILE]

Prints a line per figure as it comes, with the seconds that compiling took, and beside it what the project wants to
reach on an H100 and whether it does. Sections, in the order in which they run:

    agreement    decoding, drawing and losses on the accelerator beside the same on the CPU
    pixels       PRDL on pixels, value and gradient, drawing included; the drawing alone
    vertices     PRDL on vertices, value and gradient, 224 x 224 anchors, the built-in face's points
    torch        all pairs of the same in PyTorch, by torch.compile and eagerly  (needs torch)
    training     the train step of configs/3ddfa_v3_resnet50.py, batch 128, in bfloat16 and float32; the share of PRDL
                 and drawing  (needs flax and ml_collections)
    rasterizer   70,000 triangles and the built-in face, with and without the gradient of interpolation

What a machine lacks is left out and said, and so is what would begin after --seconds; figures of --only sections are
then to be had in a second run. All is written to FILE, with card and versions, anew after each figure. Exit code 1 if a
figure failed. Needs jaxface's base dependencies; --quick tries everything in tiny sizes on a CPU.
"""

import argparse
import importlib.metadata
import importlib.util
import os
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves PyTorch its share of the memory

import jax
from accelerator_report import Report
from accelerator_sections import FULL, QUICK, SECTIONS

from jaxface.files import command_line


def main(arguments=None):
    options = _parse(arguments)
    jax.config.update("jax_disable_most_optimizations", options.quick)  # compiles sooner, to slower code
    card = jax.devices()[0].device_kind
    header = {"card": card, "jax": jax.__version__, "torch": _version("torch"), "quick": options.quick}
    # A program that is loaded rather than compiled would be told as compiled in no time.
    header["compilation_cache"] = bool(jax.config.jax_compilation_cache_dir)
    print(", ".join(f"{name} {value}" for name, value in header.items()) + "; targets are for an H100", flush=True)
    report = Report(options.out, header, seconds=options.seconds, judged=not options.quick)
    sizes = QUICK if options.quick else FULL
    for name in options.only or SECTIONS:
        with report.keep_going(name):
            report.check_time()
            for figure, measure, *targets in SECTIONS[name](sizes):
                report.figure(f"{name}: {figure}", measure, *targets)
    results = report.results
    print(f"{len(results['figures'])} figures; written: {options.out}")
    for kind in ("left_out", "failed"):
        if results[kind]:
            print(f"{kind.replace('_', ' ')}: {'; '.join(results[kind])}")
    return 1 if results["failed"] else 0


def _version(package):
    return importlib.metadata.version(package) if importlib.util.find_spec(package) else None


def _parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--seconds", type=float, default=300.0, help="nothing begins later than that (default: 300)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for tests")
    default = Path("outputs/benchmarks/accelerator.json")
    parser.add_argument("--out", type=Path, default=default, help=f"file for the figures (default: {default})")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    command_line.run(main)
