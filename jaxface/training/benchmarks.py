"""Public benchmarks on data that the user has: predictions measured by each one's protocol, beside published figures.

A benchmark is a `Benchmark` in `BENCHMARKS`: how its folder is read, how one photo is measured, how photos are summed
up, and what others published. Folders and files are those of `benchmark_folders`.
"""

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxface.core import metrics
from jaxface.core.errors import InputError
from jaxface.core.parts import PARTS, SEVEN_PARTS
from jaxface.files import atomic, progress
from jaxface.files.obj_file import read_obj
from jaxface.files.tables import aligned_table
from jaxface.photos.parsing import read_label_map
from jaxface.training import benchmark_folders as folders
from jaxface.training.benchmark_folders import Case, PredictedFace
from jaxface.training.region_errors import REGIONS, realy_errors
from jaxface.training.scan_errors import SEVEN_LANDMARKS, Surface, now_distances

Measured = Mapping[str, Any]
"""What one photo came to: figures by name; arrays are summed up but not written."""

Row = Mapping[str, float]
"""A line of the table: figures by column."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A protocol.

    Attributes:
        layout: which folder is expected, for the help and for messages.
        cases: reads the folder; one case per photo.
        measure: one photo's faces (the largest first) against what is known; the last argument is the face model, or
            None for that of the predictions.
        summarize: all photos' measures to the figures of the table.
        published: method -> figures.
        note: what to know when figures are compared.
        digits: behind the decimal point.
    """

    layout: str
    cases: Callable[[Path], list[Case]]
    measure: Callable[[Case, Sequence[PredictedFace], str | None], Measured]
    summarize: Callable[[Sequence[tuple[Case, Measured]]], Row]
    published: Mapping[str, Row]
    note: str
    digits: int


def _measure_now(case: Case, faces: Sequence[PredictedFace], model: str | None) -> Measured:
    vertices, triangles, landmarks = faces[0].neutral(model)
    scan, _ = read_obj(case.truth["scan"])
    known = folders.read_picked_points(case.truth["landmarks"])
    distances = now_distances(scan, known, Surface(vertices, triangles), landmarks[list(SEVEN_LANDMARKS)])
    return {**_median_mean_std(distances), "distances": distances}


def _median_mean_std(distances: np.ndarray) -> dict[str, float]:
    return {"median": float(np.median(distances)), "mean": float(distances.mean()), "std": float(distances.std())}


def _summarize_now(measured: Sequence[tuple[Case, Measured]]) -> Row:
    row = _median_mean_std(np.concatenate([one["distances"] for _, one in measured]))
    for challenge in sorted({case.group for case, _ in measured}):
        own = np.concatenate([one["distances"] for case, one in measured if case.group == challenge])
        row[f"median, {challenge.removeprefix('multiview_')}"] = float(np.median(own))
    return row


def _measure_realy(case: Case, faces: Sequence[PredictedFace], model: str | None) -> Measured:
    number = int(case.name.partition("_")[0])
    try:
        scale = float(dict(enumerate(case.truth["scale"].read_text().split(), 1))[number])
        if not 0 < scale < math.inf:
            raise ValueError("not a scale")
    except (ValueError, KeyError) as error:
        told = f"{case.truth['scale']}: has no positive number in line {number}, for the photo {case.photo.name}"
        raise InputError(told) from error
    regions = {name: read_obj(case.truth[name]) for name in REGIONS}
    keypoints, _ = read_obj(case.truth["keypoints"])
    return realy_errors(regions, keypoints, Surface(*faces[0].mesh()), faces[0].landmarks(), mm_per_unit=scale)


def _summarize_realy(measured: Sequence[tuple[Case, Measured]]) -> Row:
    row: dict[str, float] = {}
    for group in ("frontal", "side"):
        own = [one for case, one in measured if case.group == group]
        if own:
            row |= {f"{group}, {name}": float(np.mean([one[name] for one in own])) for name in (*REGIONS, "all")}
    return row


YAW_BINS = {"0-30": (0, 30), "30-60": (30, 60), "60-90": (60, math.inf)}
"""AFLW2000-3D's bins of the absolute yaw in degrees; a bin holds its upper end, the first its lower one too.

A few of its faces are turned beyond 90 degrees: they are in the last bin."""


def _measure_aflw2000(case: Case, faces: Sequence[PredictedFace], model: str | None) -> Measured:
    target, yaw = folders.read_aflw2000(case.truth["truth"])
    points = [face.image_landmarks() for face in faces]
    # The benchmark is told where its face is; we take, of those found, the one in that place.
    nearest = min(points, key=lambda one: float(np.linalg.norm(one.mean(0) - target.mean(0))))
    error = 100 * float(metrics.landmark_error_by_box(nearest, target))
    return {"error": error, "yaw": yaw}


def _summarize_aflw2000(measured: Sequence[tuple[Case, Measured]]) -> Row:
    yaw = np.abs([one["yaw"] for _, one in measured])
    errors = np.array([one["error"] for _, one in measured])
    row = {}
    for name, (low, high) in YAW_BINS.items():
        inside = (yaw <= high) & ((yaw > low) | (low == 0))
        row[name] = float(errors[inside].mean()) if inside.any() else math.nan
    return {**row, "mean of the bins": float(np.mean(list(row.values())))}


def _measure_part_iou(case: Case, faces: Sequence[PredictedFace], model: str | None) -> Measured:
    predicted = faces[0].visible_parts()
    path = case.truth["labels"]
    target = read_label_map(path, folders.label_order(path.parents[1]), predicted.shape)
    iou = 100 * np.asarray(metrics.part_iou(predicted, target), np.float64)
    return dict(zip(PARTS, iou.tolist(), strict=True))


def _summarize_part_iou(measured: Sequence[tuple[Case, Measured]]) -> Row:
    def mean(values: Iterable[float]) -> float:
        known = [value for value in values if not math.isnan(value)]
        return float(np.mean(known)) if known else math.nan

    means = {part.replace("_", " "): mean(one[part] for _, one in measured) for part in SEVEN_PARTS}
    return {"mean of seven": mean(means.values()), **means}


def _realy_row(frontal: float, side: float, regions: Sequence[float] = ()) -> Row:
    known = dict(zip((f"frontal, {name}" for name in REGIONS), regions, strict=False))
    return {**known, "frontal, all": frontal, "side, all": side}


BENCHMARKS: dict[str, Benchmark] = {
    "now": Benchmark(
        layout=folders.LAYOUTS["now"],
        cases=folders.now_cases,
        measure=_measure_now,
        summarize=_summarize_now,
        published={
            method: {"median": median, "mean": mean, "std": std}
            for method, median, mean, std in (
                ("PRNet", 1.50, 1.98, 1.88),
                ("MGCNet", 1.31, 1.87, 2.63),
                ("3DDFA-V2", 1.23, 1.57, 1.39),
                ("RingNet", 1.21, 1.53, 1.31),
                ("Deep3D", 1.11, 1.41, 1.21),
                ("DECA", 1.09, 1.38, 1.18),
            )
        },
        note="mm. Published figures are of the test set, whose scans are not given out; ours are of the validation "
        "set. The predicted face is measured without its expression, as the scans are.",
        digits=2,
    ),
    "realy": Benchmark(
        layout=folders.LAYOUTS["realy"],
        cases=folders.realy_cases,
        measure=_measure_realy,
        summarize=_summarize_realy,
        published={
            "PRNet": _realy_row(2.013, 2.032),
            "MGCNet": _realy_row(1.774, 1.787),
            "Deep3D": _realy_row(1.657, 1.691),
            "3DDFA-V2": _realy_row(1.926, 1.943),
            "HRN": _realy_row(1.537, 1.468),
            "DECA": _realy_row(2.010, 2.107),
            "3DDFA-V3 without PRDL": _realy_row(1.568, 1.528),
            "3DDFA-V3": _realy_row(1.436, 1.442, (1.586, 1.238, 1.810, 1.111)),
        },
        note="mm. Of the 85 keypoints that hold a region, ours uses the 68 that face models have.",
        digits=3,
    ),
    "aflw2000": Benchmark(
        layout=folders.LAYOUTS["aflw2000"],
        cases=folders.aflw2000_cases,
        measure=_measure_aflw2000,
        summarize=_summarize_aflw2000,
        published={
            "3DDFA (2016)": {"0-30": 3.78, "30-60": 4.54, "60-90": 7.93, "mean of the bins": 5.42},
            "3DDFA-V2": {"mean of the bins": 3.51},
        },
        note="Per cent of sqrt(width x height) of the box around the true landmarks; bins of the yaw in degrees. "
        "Published methods are given the place of the face, ours has to find it.",
        digits=2,
    ),
    "part_iou": Benchmark(
        layout=folders.LAYOUTS["part_iou"],
        cases=folders.part_iou_cases,
        measure=_measure_part_iou,
        summarize=_summarize_part_iou,
        published={
            method: {"mean of seven": value}
            for method, value in (
                ("PRNet", 63.66),
                ("MGCNet", 62.94),
                ("Deep3D", 69.51),
                ("3DDFA-V2", 55.88),
                ("HRN", 71.69),
                ("DECA", 61.93),
                ("3DDFA-V3 without PRDL", 72.08),
                ("3DDFA-V3", 73.82),
            )
        },
        note="Per cent. Published figures are of 500 photos of MEAD, where a parser looks for the mesh's parts in a "
        "drawing of it; ours are of your photos, and the mesh's parts are its own.",
        digits=2,
    ),
}
"""Name on the command line -> benchmark."""


def benchmark_table(benchmark: Benchmark, ours: Mapping[str, Row]) -> str:
    """Published figures and ours, one method per line, for a terminal and Markdown alike.

    Args:
        benchmark: its published figures.
        ours: method -> figures, below them.
    """
    methods = {**benchmark.published, **ours}
    columns = list(dict.fromkeys(name for row in [*ours.values(), *benchmark.published.values()] for name in row))
    rows = [["", *columns]]
    for method, row in methods.items():
        values = [row.get(name, math.nan) for name in columns]
        rows.append([method, *("-" if math.isnan(value) else f"{value:.{benchmark.digits}f}" for value in values)])
    return aligned_table(rows)


def run_benchmark(
    name: str,
    path: str | os.PathLike,
    *,
    predictions: str | os.PathLike | None = None,
    checkpoint: str | os.PathLike | None = None,
    model: str | None = None,
    out: str | os.PathLike | None = None,
) -> progress.BatchReport:
    """Measures a benchmark's photos, prints the table and writes OUT/results.json.

    Args:
        name: a key of `BENCHMARKS`.
        path: the benchmark's folder, as its makers give it out.
        predictions: folder of what `jaxface fit PHOTOS --out` wrote, each photo under its name in the benchmark; None
            makes the predictions, in OUT/predictions, and goes on where an earlier run stopped.
        checkpoint: of a trained encoder, which then predicts; None fits.
        model: name or path of the face model.
        out: by default outputs/benchmarks/NAME.

    Returns:
        How many photos were measured, and why others were not.

    Raises:
        InputError: when the folder is not laid out as expected, or the predictions cannot be made.
    """
    benchmark = BENCHMARKS[name]
    path, out = Path(path), Path(out or Path("outputs/benchmarks", name))
    if not path.is_dir():
        raise InputError(f"{path}: no such folder. Expected is {' '.join(benchmark.layout.split()[1:])}")
    if predictions is not None and checkpoint is not None:
        raise InputError("--predictions are there already, --checkpoint would make them: one of the two")
    cases = benchmark.cases(path)
    atomic.make_folder(out)
    if predictions is None:
        predictions = out / "predictions"
        _predict(cases, predictions, checkpoint, model)
    predictions = Path(predictions)
    if not predictions.is_dir():
        raise InputError(f"{predictions}: no such folder; it should hold what python -m jaxface.fit --out DIR wrote")
    report, measured = progress.BatchReport(), []
    for case in progress.progress(cases, description="measuring"):
        with report.guard(case.name), _well_formed(predictions / case.name):
            faces = folders.predicted_faces(predictions / case.name)
            measured.append((case, benchmark.measure(case, faces, model)))
            report.done += 1
    if measured:
        summary = benchmark.summarize(measured)
        ours = f"jaxface, {report.done} of {len(cases)} photos"
        print(f"{benchmark_table(benchmark, {ours: summary})}\n\n{benchmark.note}")
        if report.failures:
            print(f"{len(report.failures)} photos have no figure: such results cannot be compared with complete ones.")
        _write(out / "results.json", name, path, len(cases), summary, measured, report)
        print(f"written: {out / 'results.json'}")
    return report


def _predict(cases: Sequence[Case], predictions: Path, checkpoint: str | os.PathLike | None, model: str | None) -> None:
    """Each photo's faces into the folder of its name; photos that share a folder there are done together."""
    from jaxface.results.reconstruction import fit_photos, reconstruct_photos

    groups: dict[Path, list[Path]] = {}
    for case in cases:
        if not case.photo.is_file():
            raise InputError(f"{case.photo}: not found; without --predictions the photos are needed as well")
        groups.setdefault((predictions / case.name).parent, []).append(case.photo)
    for folder, photos in groups.items():
        if checkpoint is None:
            fit_photos(photos, folder, model=model)
        else:
            reconstruct_photos(photos, folder, checkpoint=checkpoint, model=model)


@contextlib.contextmanager
def _well_formed(folder: Path):
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: its coefficients.json is not as jaxface writes it ({error!r})") from error


def _write(
    path: Path,
    name: str,
    benchmark: Path,
    count: int,
    summary: Row,
    measured: Sequence[tuple[Case, Measured]],
    report: progress.BatchReport,
) -> None:
    def known(values: Mapping[str, Any]) -> dict[str, float | None]:
        figures = {key: value for key, value in values.items() if isinstance(value, float)}
        return {key: None if math.isnan(value) else round(value, 5) for key, value in figures.items()}

    content = {
        "benchmark": name,
        "folder": str(benchmark),
        "photo_count": count,
        "summary": known(summary),
        "photos": [{"photo": case.name, "group": case.group, **known(one)} for case, one in measured],
        "not_measured": report.reasons,
    }
    with atomic.atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")
