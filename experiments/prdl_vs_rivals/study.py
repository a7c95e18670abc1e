"""Why PRDL ends where it ends: its statistics, anchors, steps and rates, one changed at a time.

    python experiments/prdl_vs_rivals/study.py [--out FOLDER]

The test faces, starts and optimiser of run.py. Writes study.json and prints a table.
"""

import argparse
import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from descent import Fitter
from methods import METHODS
from run import HERE, Experiment
from settings import FULL
from tqdm import tqdm

from jaxface import losses
from jaxface.files.atomic import atomic_write
from jaxface.files.command_line import keep_compiled, run

FACTOR = 4.0
"""Of the rates: the one that run.py chose for PRDL and for its closest rivals."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to fit with PRDL.

    Attributes:
        statistics: that are compared.
        stride: of the anchors, in px.
        steps: of Adam.
        factor: of its rates.
        method: of METHODS, which says what counts, and is the loss unless it is PRDL.
        seams: a part has all vertices of the triangles that Part IoU counts as its own, as the silhouettes have.
    """

    statistics: tuple[str, ...] = losses.prdl.STATISTICS
    stride: int = FULL.anchor_stride
    steps: int = FULL.steps
    factor: float = FACTOR
    method: str = "prdl"
    seams: bool = False


VARIANTS = {
    "as it competes": Variant(),
    "f_min alone": Variant(statistics=("min",)),
    "f_max alone": Variant(statistics=("max",)),
    "f_ave alone": Variant(statistics=("mean",)),
    "without f_min": Variant(statistics=("max", "mean")),
    "without f_max": Variant(statistics=("min", "mean")),
    "without f_ave": Variant(statistics=("min", "max")),
    "anchors at every 2nd pixel": Variant(stride=2),
    "anchors at every 12th pixel": Variant(stride=12),
    "vertices at the seams too": Variant(seams=True),
    "vertices at the seams too, 120 steps": Variant(seams=True, steps=120),
    "rates x 2": Variant(factor=2.0),
    "rates x 8": Variant(factor=8.0),
    "120 steps": Variant(steps=120),
    "240 steps": Variant(steps=240),
    "SoftRas IoU": Variant(method="softras"),
    "SoftRas IoU, 120 steps": Variant(method="softras", steps=120),
    "Chamfer, 240 steps": Variant(method="chamfer", steps=240),
}

COLUMNS = {"mean_part_iou": ".3f", "vertex_error_mm": ".2f", "loss_at_fit_over_truth": ".2f"}


def fit(experiment: Experiment, variant: Variant) -> dict:
    """Fits the test faces; Part IoU, vertex error, and the loss beside what it is at the truth."""
    settings = dataclasses.replace(experiment.settings, anchor_stride=variant.stride)
    method = dataclasses.replace(METHODS[variant.method], draws=METHODS[variant.method].draws or variant.seams)
    loss = list(method.variants.values())[-1]  # of SoftRas the sharper one, which run.py chose
    if variant.method == "prdl":
        loss = functools.partial(_prdl, statistics=variant.statistics)
    fitter = Fitter(method, loss, experiment.model, experiment.prior, settings)
    fitted = fitter.run(experiment.test_start, experiment.test, variant.factor, variant.steps, lambda *_: None)
    found = experiment.measure(fitted)
    at_fit, at_truth = (fitter.losses_of(vector, experiment.test) for vector in (fitted, experiment.test.truth))
    known = experiment.test.known
    return {
        **dataclasses.asdict(variant),
        "mean_part_iou": float(np.mean(found["mean_part_iou"])),
        "part_iou": found["part_iou"],
        "vertex_error_mm": float(np.mean(found["vertex_error_mm"])),
        "loss_at_fit_over_truth": float(np.median((at_fit / at_truth)[known])),
        "below_truth": float(np.mean((at_fit < at_truth)[known])),
    }


def _prdl(points, targets, triangles, anchors, point_masks, *, statistics):
    return losses.prdl_loss(points, targets, anchors=anchors, point_masks=point_masks, statistics=statistics)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="VARIANT", help="some of the variants")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for study.json (default: here)")
    options = parser.parse_args(arguments)
    experiment = Experiment(dataclasses.replace(FULL, reach_faces=1))
    rows = {}
    for name in tqdm(options.only or VARIANTS, unit="variant", dynamic_ncols=True):
        rows[name] = fit(experiment, VARIANTS[name])
    with atomic_write(options.out / "study.json") as partial:
        partial.write_text(json.dumps(rows, indent=1) + "\n")
    print("| | Part IoU | vertices, mm | loss, of that at the truth |\n| --- | --: | --: | --: |")
    for name, row in rows.items():
        figures = (f"{row[key]:{form}}" for key, form in COLUMNS.items())
        print(f"| {name} | {' | '.join(figures)} |")


if __name__ == "__main__":
    keep_compiled()
    run(main)
