"""What each piece of a fit adds: parts, their PRDL, and every source of evidence, left out in turn (cf. Table 1).

    python experiments/fit_ablation/run.py [--people 16] [--shared-scans PATH] [--quick] [--work FOLDER] [--out FOLDER]

Fits the same pictures by each of `variants`: held-out drawn people (mm after a similarity, and Part IoU with the true
parts), and fourteen drawings of the two shared scans (mm by NoW's protocol), if there are any. What is drawn and fitted
lies in --work, so that a run which was cut short goes on. Prints the table of the README and writes results.json.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

sys.path.append(str(Path(__file__).resolve().parents[1] / "fit_accuracy"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "scan_accuracy"))
import drawing
from drawn import Measure, Rows, batches, other_labels, people
from scan_measures import Measure as ScanMeasure
from scan_measures import mean_face
from scans import Scan, shared_scans, upright
from variants import Variant, fit_batch, variants

import jaxface
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients
from jaxface.core.errors import InputError
from jaxface.core.faces import decode_face
from jaxface.core.metrics import mean_part_iou, part_iou
from jaxface.core.units import MM_PER_UNIT
from jaxface.files import atomic, command_line, progress
from jaxface.fitting.first_look import onlooker_for
from jaxface.fitting.solver import find_recognizer
from jaxface.photos.face_crops import preprocess_photo
from jaxface.photos.parsing import FIT_PARSER, create_parser
from jaxface.photos.samples import stack_samples
from jaxface.render import label_triangles, render_labels

HERE = Path(__file__).resolve().parent
WORK = Path("outputs/experiments/fit_ablation")
COLUMNS = MappingProxyType({"mm": "people, mm", "turned": "beyond 30°, mm", "iou": "Part IoU", "scan": "scans, mm"})
NAMES = tuple(COLUMNS)


def scan_rows(folder: Path, model: jaxface.FaceModel) -> tuple[Rows, list[tuple[Scan, str]]]:
    """Fourteen drawings of the shared scans as a fit gets them, and whose they are."""
    rows, owners, parser = list[Rows](), list[tuple[Scan, str]](), create_parser(FIT_PARSER)
    scans = [upright(scan, model) for scan in shared_scans(folder)]
    for scan in scans:
        for view in progress.progress(drawing.VIEWS, description=f"draw {scan.name}", unit="view"):
            photo = drawing.draw(scan, view)
            try:
                crop = preprocess_photo(photo, model, parser=parser)[0]
            except InputError:
                continue
            rows.append(dict(crop.sample) | other_labels(photo, crop))
            owners.append((scan, view.name))
    found = stack_samples(rows)
    return found | {"yaw": np.zeros(len(owners))}, owners


def fit(model, rows: Rows, variant: Variant, recognizer, folder: Path) -> Rows:
    """Vectors and stretches of all faces of a variant; what lies in the folder is not fitted again."""
    found = list[Rows]()
    for some, batch in batches(rows):
        path = folder / f"{variant.title.replace(' ', '_').replace('/', '_')}_{some.start}_{some.stop}.npz"
        if not path.exists():
            fitted = fit_batch(model, batch, variant, recognizer)
            count = some.stop - some.start
            with atomic.atomic_write(path) as partial, open(partial, "wb") as file:
                np.savez(file, vector=np.asarray(fitted.vectors)[:count], stretch=np.asarray(fitted.stretch)[:count])
        with np.load(path) as arrays:
            found.append(dict(arrays))
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


@jax.jit
def agreement(model, vector: Float[Array, "B K"], stretch: Float[Array, "B"], labels: Array) -> Float[Array, "B"]:
    """Part IoU with label maps, mean over the seven parts."""
    camera = Camera().resized(labels.shape[-1]).stretched(stretch[:, None])
    face = decode_face(model, Coefficients.from_vector(vector, model), camera)
    members = label_triangles(model.parts, model.triangles, face.points.shape[1])
    drawn = render_labels(face.points, face.depth, model.triangles, members, image_size=labels.shape[-1])
    return mean_part_iou(part_iou(drawn, labels))


def measure_people(model, rows: Rows, measure: Measure, faces: Rows) -> dict[str, float]:
    """The columns of drawn people."""
    errors = measure.errors(measure.shapes(faces["vector"]))
    iou = agreement(model, *(jnp.asarray(x) for x in (faces["vector"], faces["stretch"], rows["true_labels"])))
    turned = np.abs(rows["yaw"]) > 30
    return {"mm": _mean(errors), "turned": _mean(errors[turned]), "iou": _mean(np.asarray(iou))}


def measure_scans(shapes: Sequence[np.ndarray], owners: Sequence[tuple[Scan, str]], model) -> dict[str, float]:
    """Shapes in mm against their scans: the mean over scans alike, and how many are better than the mean face."""
    measures = {scan.name: ScanMeasure(scan, model) for scan, _ in owners}
    means = {name: one(mean_face(model))["mean"] for name, one in measures.items()}
    errors = np.array([measures[s.name](shape)["mean"] for (s, _), shape in zip(owners, shapes, strict=True)])
    own = {name: errors[[scan.name == name for scan, _ in owners]] for name in means}
    better = sum(int((values < means[name]).sum()) for name, values in own.items())
    return {"scan": _mean([values.mean() for values in own.values()]), "better": better, "views": len(errors)}


def _mean(values) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def run_experiment(options: argparse.Namespace, out: Path) -> dict:
    """All variants, and the mean face and the encoder alone; writes results.json after each."""
    model = jax.tree.map(jnp.asarray, jaxface.load_face_model("anny"))
    count = 2 if options.quick else options.people
    rows, _ = people(model, count, options.people_from or options.work / "people")
    measure, onlooker = Measure(model, rows["vector"]), onlooker_for(model)
    assert onlooker is not None
    scans, owners = scan_rows(options.shared_scans, model) if options.shared_scans else ({}, [])
    results: dict = {"people": count, "views": len(owners), "lines": {}}

    def note(title: str, drawn: Rows, scanned: Rows) -> None:
        line = measure_people(model, rows, measure, drawn)
        if owners:
            shapes = MM_PER_UNIT * np.asarray(measure.shapes(scanned["vector"]), np.float64)
            line |= measure_scans(shapes, owners, model)
        results["lines"][title] = line
        with atomic.atomic_write(out / "results.json") as partial:
            partial.write_text(json.dumps(results, indent=1) + "\n")

    def seen(of: Rows) -> Rows:
        looks = [onlooker(batch["image"], batch["landmarks"]).vectors for _, batch in batches(of)]
        return {"vector": np.concatenate(looks)[: len(of["yaw"])], "stretch": np.ones(len(of["yaw"]))}

    def mean(of: Rows) -> Rows:
        return {name: np.zeros_like(values) if name == "vector" else values for name, values in seen(of).items()}

    note("mean face", mean(rows), mean(scans) if owners else {})
    note("encoder alone", seen(rows), seen(scans) if owners else {})
    recognizer = find_recognizer("auto")[1]
    chosen = [one for one in variants() if not options.only or one.title in options.only]
    for variant in progress.progress(chosen[: 2 if options.quick else None], description="fit", unit="variant"):
        drawn = fit(model, rows, variant, recognizer, options.work / "people_fits")
        scanned = {}
        if owners and variant.labels != "true":
            scanned = fit(model, scans, variant, recognizer, options.work / "scan_fits")
        if variant.labels == "true":
            results["lines"][variant.title] = measure_people(model, rows, measure, drawn)
        else:
            note(variant.title, drawn, scanned)
    with atomic.atomic_write(out / "results.json") as partial:
        partial.write_text(json.dumps(results, indent=1) + "\n")
    return results


def table(results: Mapping) -> str:
    """A line per variant."""
    lines = ["| | " + " | ".join(COLUMNS.values()) + " | better than the mean face |", "| --- |" + " --: |" * 5]
    for title, line in results["lines"].items():
        cells = [
            f"{line[name]:.3f}" if name == "iou" else f"{line[name]:.2f}" if name in line else "" for name in NAMES
        ]
        better = f"{line['better']} of {line['views']}" if "better" in line and title != "mean face" else ""
        lines.append(f"| {title} | " + " | ".join([*cells, better]) + " |")
    return "\n".join([*lines, "", f"{results['people']} people, {results['views']} views of scans"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--people", type=int, default=16, help="people to draw (default: 16)")
    parser.add_argument("--people-from", type=Path, help="folder `people` of experiments/fit_accuracy's --work")
    parser.add_argument("--shared-scans", type=Path, metavar="PATH", help="the data folder of the shared scans")
    parser.add_argument("--only", nargs="+", metavar="TITLE", help="variants, as the table names them (default: all)")
    parser.add_argument("--quick", action="store_true", help="two people, two estimates: does it run?")
    parser.add_argument("--work", type=Path, default=WORK, help=f"for people and fits (default: {WORK})")
    parser.add_argument("--out", type=Path, help="folder for the results (default: here; --work with --quick)")
    options = parser.parse_args(arguments)
    if options.people < 2:
        parser.error("--people: at least two are needed")
    if unknown := set(options.only or ()) - {variant.title for variant in variants()}:
        parser.error(f"--only: there is no variant {min(unknown)!r}")
    print(table(run_experiment(options, options.out or (options.work if options.quick else HERE))))
    return 0


if __name__ == "__main__":
    command_line.keep_compiled()
    command_line.run(main)
