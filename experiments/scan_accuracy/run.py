"""How far fits lie from 3D scans of the same faces, beside the mean face: what agreement with a photo does not tell.

    python experiments/scan_accuracy/run.py [SCANS] [--shared-scans PATH] [--profiles] [--distances] [--stages]
        [--quick]

Draws each scan from seven sides, fits the drawings by `python -m jaxface.fit`, each alone and all of a scan as one
person, and measures by NoW's protocol. Without scans, people of the face model stand in for them. README.md tells how a
folder of scans is laid out. Writes results.json (of made people made.json) and prints the table of the README. What is
drawn of scans, fits and their picture go to --work and nowhere else, for scans are seldom ours to give.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from drawing import DISTANCES, PROFILES, SIZE, VIEWS, View, write_views
from jaxtyping import Float
from picture import save_picture
from scan_measures import Measure, change_of_shape, fitted_mesh, mean_face, mean_face_line, summary, table
from scans import Scan, made_scans, read_folder, shared_scans, upright
from stages import fit_stages

import jaxface
from jaxface.core.errors import InputError
from jaxface.files import atomic, command_line, progress

HERE = Path(__file__).resolve().parent
WORK = Path("outputs/experiments/scan_accuracy")

METHODS: dict[str, list[str]] = {"fit": []}
"""Ways to fit each view by itself: line of the table -> further options of `python -m jaxface.fit`."""

PERSON = "fit, all views as one person"


def fit(photos: Sequence[Path], out: Path, options: Sequence[str]) -> None:
    """Fits photos by the public command; what is there already stays, photos without a face are left out.

    Raises:
        InputError: when the command could do nothing.
    """
    command = [sys.executable, "-m", "jaxface.fit", *map(str, photos), "--out", str(out), "--faces", "largest"]
    # The same jaxface as this program's, wherever it is started.
    own = {"PYTHONPATH": os.pathsep.join([str(Path(jaxface.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([*command, *options], env=os.environ | own, stdout=subprocess.DEVNULL)  # progress on stderr
    if done.returncode not in (0, 1):
        raise InputError(f"python -m jaxface.fit {' '.join(options)} failed; its message stands above")


def fit_all(
    scans: Sequence[Scan], views: Sequence[View], photos: Sequence[Path], work: Path, *, model: str, person: bool
) -> dict[str, dict[tuple[str, str], Float[np.ndarray, "V 3"]]]:
    """Method -> (scan, view) -> fitted vertices in millimetres; "person" is the view of what all views share."""
    found: dict[str, dict[tuple[str, str], Float[np.ndarray, "V 3"]]] = {}

    def collect(method: str, folder: Path, scan: Scan) -> None:
        for view in views:
            mesh = fitted_mesh(folder / f"{scan.name}_{view.name}")
            if mesh is not None:
                found.setdefault(method, {})[scan.name, view.name] = mesh

    for method, options in METHODS.items():
        folder = work / "fits" / method.replace(" ", "_")
        fit(photos, folder, ["--model", model, *options])
        for scan in scans:
            collect(method, folder, scan)
    usual = [view.name for view in views if view in VIEWS]
    for scan in scans if person else []:
        folder = work / "fits" / "person" / scan.name
        own = [photo for photo in photos if photo.stem in {f"{scan.name}_{name}" for name in usual}]
        if not (folder / "person" / "mesh.obj").exists():  # which the command would make again
            fit(own, folder, ["--model", model, "--same-person"])
        collect(PERSON, folder, scan)
        mesh = fitted_mesh(folder / "person")
        if mesh is not None:
            found.setdefault(PERSON, {})[scan.name, "person"] = mesh
    return found


def measure(
    scans: Sequence[Scan], model: jaxface.FaceModel, found: Mapping[str, Mapping[tuple[str, str], np.ndarray]]
) -> dict:
    """The errors of each fit and of the mean face."""
    measures = {scan.name: Measure(scan, model) for scan in scans}
    means = {name: one(mean_face(model)) for name, one in measures.items()}
    jobs = [(method, *key, mesh) for method, meshes in found.items() for key, mesh in meshes.items()]
    faces, persons = [], []
    for method, scan, view, mesh in progress.progress(jobs, description="measuring", unit="mesh"):
        errors = measures[scan](mesh)
        row = {"scan": scan, "view": view, "method": method, **errors, "mean_face": means[scan]["mean"]}
        (persons if view == "person" else faces).append(row)
    return {"mean_face": means, "faces": faces, "persons": persons}


def distance_rows(found: Mapping[tuple[str, str], np.ndarray], faces: Sequence[Mapping]) -> list[dict]:
    """The fit from each distance: its error, and how far its shape is from that of the fit from a metre."""
    errors = {(row["scan"], row["view"]): row["mean"] for row in faces if row["method"] == "fit"}
    rows = []
    for view in sorted((View(), *DISTANCES), key=lambda one: one.distance):
        own = [scan for scan, name in found if name == view.name and (scan, View().name) in found]
        if own:
            changes = [change_of_shape(found[scan, view.name], found[scan, View().name]) for scan in own]
            mean = float(np.mean([errors[scan, view.name] for scan in own]))
            rows.append({"metres": view.distance / 1000, "mean": mean, "change_of_shape": float(np.mean(changes))})
    return rows


def _scans(options: argparse.Namespace, model: jaxface.FaceModel) -> list[Scan]:
    scans = read_folder(options.scans) if options.scans else []
    scans += shared_scans(options.shared_scans) if options.shared_scans else []
    return scans or made_scans(model, count=1 if options.quick else 4, seed=options.seed)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("scans", nargs="?", type=Path, help="folder of scans with landmarks, see README.md")
    parser.add_argument("--shared-scans", type=Path, metavar="PATH", help="the data folder of the shared scans")
    parser.add_argument("--model", default="anny", help="face model (default: anny)")
    parser.add_argument("--profiles", action="store_true", help="also from 60, 75 and 90 degrees to both sides")
    parser.add_argument("--distances", action="store_true", help="also from 0.3, 0.6 and 2 m")
    parser.add_argument("--size", type=int, default=SIZE, help=f"of the drawings in pixels (default: {SIZE})")
    parser.add_argument("--exif", action="store_true", help="the drawings tell their focal length, as a camera's do")
    parser.add_argument("--stages", action="store_true", help="also the points alone, and all without one loss each")
    parser.add_argument("--no-person", action="store_true", help="leave out all views as one person")
    parser.add_argument("--quick", action="store_true", help="one made scan from two sides: does it run?")
    parser.add_argument("--seed", type=int, default=1, help="of the made scans (default: 1)")
    parser.add_argument("--work", type=Path, default=WORK, help=f"for drawings, fits and the picture (default: {WORK})")
    parser.add_argument("--out", type=Path, help="for results.json (default: this folder; with --quick, --work)")
    options = parser.parse_args(arguments)
    out = options.out or (options.work if options.quick else HERE)
    made = options.scans is None and options.shared_scans is None
    model = jaxface.load_face_model(options.model)
    views = list(VIEWS[:2] if options.quick else VIEWS)
    views += [*(PROFILES if options.profiles else ()), *(DISTANCES if options.distances else ())]
    scans = [upright(scan, model) for scan in _scans(options, model)]
    photos = write_views(options.work / "renders", scans, views, exif=options.exif, size=options.size)
    person = not (options.no_person or options.quick)
    found = fit_all(scans, views, photos, options.work, model=options.model, person=person)
    if options.stages:
        for stage, meshes in fit_stages(photos, model).items():
            keys = {f"{scan.name}_{view.name}": (scan.name, view.name) for scan in scans for view in views}
            found[stage] = {keys[name]: mesh for name, mesh in meshes.items()}
    measured = measure(scans, model, found)

    faces, means = measured["faces"], measured["mean_face"]
    lines = {"mean face": mean_face_line(means, views), **summary(faces, views, list(found))}
    distances = distance_rows(found.get("fit", {}), faces) if options.distances else []
    missing = [f"{scan.name}_{view.name}" for scan in scans for view in views]
    missing = [name for name in missing if name not in {f"{row['scan']}_{row['view']}" for row in faces}]
    content = {
        "scans": "made" if made else [scan.name for scan in scans],
        "face_model": options.model,
        "summary": lines,
        "not_found": missing,
        "distances": distances,
        **measured,
    }
    results, picture = out / "results.json", options.work / "picture.png"
    if made:  # may be shown
        results, picture = out / "made.json", out / "made.png"
    with atomic.atomic_write(results) as path:
        path.write_text(json.dumps(content, indent=1) + "\n")
    save_picture(picture, scans, photos, found.get("fit", {}), model)
    print(table(lines))
    for row in measured["persons"]:
        print(f"\nthe person of {row['scan']}: {row['mean']:.2f} mm, mean face {row['mean_face']:.2f} mm")
    for row in distances:
        print(f"\nfrom {row['metres']:g} m: {row['mean']:.2f} mm, {row['change_of_shape']:.2f} mm from the fit at 1 m")
    print(f"\nnot found: {', '.join(missing) or 'none'}")
    print(f"written: {results}, {picture}")


if __name__ == "__main__":
    command_line.run(main)
