"""How far fits lie from drawn people as a detector sees them, by yaw, occlusion and skin, and whether the fit knows it.

    python experiments/fit_accuracy/run.py [--people 500] [--quick] [--work FOLDER] [--out FOLDER]

Draws people with skins and hair that the shipped network never saw, photographed from 0.6 to 2 m, heads turned up to 60
degrees; finds them as photos are found; fits them with the network's first look and without. What is drawn and fitted
lies in --work: a run that was cut short, or a later one with more people, goes on from there. Prints the tables of the
README and writes results.json and expected.png. Needs the extras `photo` and `perceptual`.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from drawn import Measure, Rows, batches, people

import jaxface
from jaxface.core.cameras import Camera
from jaxface.files import atomic, command_line, progress
from jaxface.fitting import SolvedFace, evidence_for, fit_faces, people_prior
from jaxface.fitting.first_look import onlooker_for
from jaxface.fitting.posterior import expected_error_mm
from jaxface.fitting.solver import find_recognizer

HERE = Path(__file__).resolve().parent
WORK = Path("outputs/experiments/fit_accuracy")
YAWS, HIDDEN = ((0, 15), (15, 30), (30, 60), (60, 91)), ((0, 10), (10, 30), (30, 101))
"""Degrees, and per cent of the face that something lies over."""

DARK = 0.45
"""Mean of the skin's colour between the two held-out skins."""

FIT, FIRST = "fit", "fit without the network's first look"


def groups(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Column of the tables -> which people."""
    yaws, hidden = np.abs(rows["yaw"]), 100 * rows["hidden"]
    found = {"all": np.ones(len(yaws), bool)}
    found |= {f"yaw {low} to {min(high, 90)}°": (yaws >= low) & (yaws < high) for low, high in YAWS}
    found |= {f"hidden {low} to {min(high, 100)} %": (hidden >= low) & (hidden < high) for low, high in HIDDEN}
    return found | {"lighter skin": rows["skin"] >= DARK, "darker skin": rows["skin"] < DARK}


def fit(model, rows: Rows, folder: Path, *, look: bool, quick: bool) -> list[SolvedFace]:
    """The faces of all people; batches that lie in the folder are not fitted again."""
    prior, evidence = people_prior(model), evidence_for(model, dense=True)
    recognizer = None if quick else find_recognizer("auto")[1]
    onlooker, faces = onlooker_for(model), list[SolvedFace]()
    assert onlooker is not None
    for some, batch in progress.progress(list(batches(rows)), description=folder.name, unit="batch"):
        path, count = folder / f"{some.start:06d}_{some.stop:06d}.npz", some.stop - some.start
        if not path.exists():
            found = fit_faces(
                model,
                batch,
                Camera(),
                prior,
                evidence=evidence,
                recognizer=recognizer,
                steps=1 if quick else 80,
                look=onlooker(batch["image"], batch["landmarks"]) if look else None,
            ).faces(count)
            arrays = {name: np.stack([getattr(face, name) for face in found]) for name in ("vector", "covariance")}
            with atomic.atomic_write(path) as partial, open(partial, "wb") as file:
                np.savez_compressed(file, stretch=[face.stretch for face in found], **arrays)
        with np.load(path) as arrays:
            found = [arrays[name] for name in ("vector", "stretch", "covariance")]
            faces += [SolvedFace(*one) for one in zip(*found, strict=True)]
    return faces


def knowledge(measure: Measure, faces: Sequence[SolvedFace], rows: Rows) -> dict:
    """Expected against true errors: by group, and how they go together over faces, parts of faces, and spots.

    The ceiling is the correlation that a fit would have which is right about itself: faces drawn from what it takes for
    possible stand for the true ones.
    """
    shapes = measure.shapes(np.stack([face.vector for face in faces]))
    true, expected, drawn, random = measure.vertex_errors(shapes), [], [], np.random.default_rng(0)
    for face in faces:
        expected.append(expected_error_mm(measure.model, face.vector, face.covariance, measure.vertices))
        size, vector = len(face.covariance), face.vector.copy()
        vector[:size] += random.multivariate_normal(np.zeros(size), face.covariance.astype(float), method="eigh")
        drawn.append(vector)
    expected = np.stack(expected)[:, measure.vertices]
    possible = measure.errors(shapes, measure.shapes(np.stack(drawn)))
    parts = [np.stack(list(measure.by_part(errors).values())) for errors in (expected, true)]
    faces_mm = {"expected": expected.mean(1), "true": true.mean(1)}
    return {
        "faces_mm": {name: values.tolist() for name, values in faces_mm.items()},
        "ratio": {
            name: float(faces_mm["expected"][chosen].mean() / faces_mm["true"][chosen].mean())
            for name, chosen in groups(rows).items()
            if chosen.any()
        },
        "correlation": {
            "faces": _correlation(*faces_mm.values()),
            "faces, ceiling": _correlation(faces_mm["expected"], possible),
            "parts of faces": _correlation(*parts),
            "spots": _correlation(expected.mean(0), true.mean(0)),
            "distance": _correlation(np.log([face.stretch for face in faces]), np.log(rows["distance"])),
        },
    }


def _correlation(a, b) -> float:
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


def run_experiment(count: int, out: Path, work: Path, *, quick: bool) -> dict:
    """Draws, fits and measures; writes results.json and expected.png to `out`, and returns what the former holds."""
    begin = time.perf_counter()
    model = jax.tree.map(jnp.asarray, jaxface.load_face_model("anny"))
    rows, missed = people(model, count, work / "people")
    measure, onlooker = Measure(model, rows["vector"]), onlooker_for(model)
    assert onlooker is not None
    looks = [onlooker(batch["image"], batch["landmarks"]).vectors for _, batch in batches(rows)]
    errors = {
        "mean face": measure.errors(jnp.asarray(model.mean_shape)[None]),
        "encoder alone": measure.errors(measure.shapes(np.concatenate(looks)[:count])),
    }
    for title, look in ((FIRST, False), (FIT, True)):
        name = ("quick_" if quick else "") + ("fit" if look else "first")
        faces = fit(model, rows, work / name, look=look, quick=quick)
        errors[title] = measure.errors(measure.shapes(np.stack([face.vector for face in faces])))
    told, chosen = knowledge(measure, faces, rows), groups(rows)
    lost = [int(((np.abs(missed) >= low) & (np.abs(missed) < high)).sum()) for low, high in YAWS]
    results = {
        "people": count,
        "missed": dict(zip(list(chosen)[1:], lost, strict=False)),
        "of_group": {name: int(these.sum()) for name, these in chosen.items()},
        "means_mm": {
            title: {name: float(values[these].mean()) for name, these in chosen.items() if these.any()}
            for title, values in errors.items()
        },
        "better": {
            name: float(np.mean((errors[FIT] < errors["mean face"])[these]))
            for name, these in chosen.items()
            if these.any()
        },
        "knowledge": told,
        "errors_mm": {title: values.tolist() for title, values in errors.items()},
        "minutes": (time.perf_counter() - begin) / 60,
    }
    with atomic.atomic_write(out / "results.json") as partial:
        partial.write_text(json.dumps(results, indent=1) + "\n")
    draw_expected(out / "expected.png", told)
    return results


def table(results: Mapping) -> str:
    """A line per group of people, for people and for the README."""
    titles, means, told = list(results["means_mm"]), results["means_mm"], results["knowledge"]
    lines = ["| mm | people | " + " | ".join(titles) + " | nearer than the mean face | expected / true |"]
    lines.append("| --- |" + " --: |" * (len(titles) + 3))
    for name, count in results["of_group"].items():
        if count:
            cells = [f"{means[title][name]:.2f}" for title in titles]
            cells += [f"{100 * results['better'][name]:.0f} %", f"{told['ratio'][name]:.2f}"]
            lines.append(f"| {name} | {count} | " + " | ".join(cells) + " |")
    lines += ["", "not found: " + ", ".join(f"{count} ({name})" for name, count in results["missed"].items())]
    lines.append("expected against true error, correlation over")
    lines += [f"- {name}: {value:.2f}" for name, value in told["correlation"].items()]
    return "\n".join([*lines, f"{results['minutes']:.0f} minutes"])


def draw_expected(path: Path, told: Mapping) -> None:
    """Expected against true error, a dot per face."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
    true, expected = (np.array(told["faces_mm"][name]) for name in ("true", "expected"))
    axes.scatter(expected, true, s=12, alpha=0.6)
    end = 1.05 * max(true.max(), expected.max())
    axes.plot([0, end], [0, end], color="grey", linewidth=1)
    axes.set(xlabel="expected error, mm", ylabel="true error, mm", xlim=(0, end), ylim=(0, end))
    with atomic.atomic_write(path) as partial:
        figure.savefig(partial, dpi=100)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--people", type=int, default=500, help="people to draw (default: 500)")
    parser.add_argument("--quick", action="store_true", help="a few people and a step each: does it run?")
    parser.add_argument("--work", type=Path, default=WORK, help=f"for people and fits (default: {WORK})")
    parser.add_argument("--out", type=Path, help="folder for the results (default: here; --work with --quick)")
    options = parser.parse_args(arguments)
    if options.people < 2:
        parser.error("--people: at least two are needed")
    out, count = options.out or (options.work if options.quick else HERE), 8 if options.quick else options.people
    print(table(run_experiment(count, out, options.work, quick=options.quick)))
    return 0


if __name__ == "__main__":
    command_line.keep_compiled()
    command_line.run(main)
