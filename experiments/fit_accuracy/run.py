"""How far fits lie from drawn people as a detector sees them, stage by stage, and whether the fit knows it.

    python experiments/fit_accuracy/run.py [--faces 300] [--quick] [--out FOLDER]

Draws people around the mean of real people, with skins and hair that the shipped network never saw, photographed from
0.6 to 2 m, heads turned up to 60 degrees; finds them with MediaPipe; fits them with more and more evidence. Prints the
tables of the README and writes results.json and expected.png. Needs the extra `photo`, and `perceptual` for the stages
with recognition.
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

import jaxface
from jaxface.core import face_models
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients
from jaxface.core.errors import InputError
from jaxface.core.metrics import align_points, vertex_error_mm
from jaxface.core.units import MM_PER_UNIT
from jaxface.files import atomic, command_line, progress
from jaxface.fitting import FitWeights, SolvedFace, evidence_for, fit_faces, people_prior
from jaxface.fitting.evidence import shipped_calibration
from jaxface.fitting.first_look import onlooker_for
from jaxface.fitting.posterior import expected_error_mm
from jaxface.fitting.solver import find_recognizer
from jaxface.photos.face_crops import preprocess_photo
from jaxface.photos.samples import Sample, pad_rows, stack_samples
from jaxface.render import label_triangles
from jaxface.synthetic.held_out import split_people
from jaxface.synthetic.people import load_people
from jaxface.synthetic.photographs import draw_photographs

HERE = Path(__file__).resolve().parent
SEED = 707
"""The shipped calibration was made with other seeds: no face of these has a part in it."""

LARGEST_YAW = 60.0
BINS = ((0, 15), (15, 30), (30, 45), (45, 60))
DRAWN, TOGETHER = 8, 16
ALL = "all: the fit"


@dataclasses.dataclass(frozen=True)
class Person:
    """A drawn person as the detector sees them.

    Attributes:
        sample: what the fit is given.
        labels: [S, S] the true label map of the crop.
        shape: [V, 3] the true face before the pose.
        yaw: in degrees.
        distance: of the camera, in model units.
    """

    sample: Sample
    labels: np.ndarray
    shape: np.ndarray
    yaw: float
    distance: float


def people(model, count: int) -> tuple[list[Person], int]:
    """The first `count` people that the detector sees, and how many it missed."""
    labels = jnp.asarray(label_triangles(model.parts, model.triangles))
    heads = jax.tree.map(jnp.asarray, split_people(load_people(model), held_out=True))
    draw, random = jax.jit(draw_photographs), np.random.default_rng(SEED)
    mean = jnp.asarray(shipped_calibration().identity_mean)
    found, missed, start = list[Person](), 0, 0
    with progress.progress_bar(count, description="draw and detect", unit="face") as bar:
        while len(found) < count:
            keys = jax.vmap(jax.random.key)(1_000_003 * SEED + start + jnp.arange(DRAWN))
            yaws = np.radians(random.uniform(-LARGEST_YAW, LARGEST_YAW, DRAWN)).astype(np.float32)
            drawn = jax.tree.map(np.asarray, draw(keys, model, labels, heads, yaws=yaws, identity_mean=mean))
            start += DRAWN
            for index in range(DRAWN):
                try:
                    crop = preprocess_photo(drawn["image"][index], model)[0]
                except InputError:
                    missed += 1
                    continue
                true = crop.alignment.crop_labels(drawn["labels"][index])
                yaw, distance = float(np.degrees(yaws[index])), float(drawn["distance"][index])
                found.append(Person(crop.sample, true, drawn["shape"][index], yaw, distance))
                bar.update(len(found) <= count)
    return found[:count], missed


@dataclasses.dataclass(frozen=True)
class Stage:
    """What a fit is given.

    Attributes:
        title: line of the table.
        weights: of its losses.
        look: whether the network says something.
        exact: whether it knows the true parts.
        recognition: whether it recognises people.
        steps: of the descent.
    """

    title: str
    weights: FitWeights
    look: bool = True
    exact: bool = False
    recognition: bool = True
    steps: int = 80


def stages() -> list[Stage]:
    """From the points alone to everything, and with masks that no detector drew."""
    usual = FitWeights()
    still = dataclasses.replace(usual, prdl=0.0, photometric=0.0)
    return [
        Stage("points", still, look=False, recognition=False, steps=1),
        Stage("points, first look", still, recognition=False, steps=1),
        Stage("all but the first look", usual, look=False),
        Stage(ALL, usual),
        Stage("all but PRDL", dataclasses.replace(usual, prdl=0.0)),
        Stage("all, true parts", usual, exact=True),
    ]


def fit(model, persons: Sequence[Person], stage: Stage, recognizer) -> list[SolvedFace]:
    """The faces of all people."""
    prior, evidence, faces = people_prior(model), evidence_for(model, dense=True), list[SolvedFace]()
    onlooker = onlooker_for(model) if stage.look else None
    for start in progress.progress(range(0, len(persons), TOGETHER), description=stage.title, unit="batch"):
        some = persons[start : start + TOGETHER]
        batch = stack_samples([person.sample for person in some])
        if stage.exact:
            batch["labels"] = np.stack([person.labels for person in some])
        batch = {name: pad_rows(values, TOGETHER) for name, values in batch.items()}
        network = recognizer if stage.recognition else None
        found = fit_faces(
            model,
            batch,
            Camera(),
            prior,
            evidence=evidence,
            weights=stage.weights,
            recognizer=network,
            steps=stage.steps,
            part_weights={} if stage.exact else None,
            look=None if onlooker is None else onlooker(batch["image"], batch["landmarks"]),
        )
        faces += found.faces(len(some))
    return faces


def _correlation(a, b) -> float:
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


class Measure:
    """Distances from the true shapes after a similarity, mean over the vertices of all parts, in mm."""

    def __init__(self, model, persons: Sequence[Person]):
        self.model, self.true = model, jnp.asarray(np.stack([person.shape for person in persons]))
        self.vertices = face_models.vertices_of_parts(model)
        self.yaws = np.abs([person.yaw for person in persons])
        self.distances = np.log([person.distance for person in persons])

    def errors(self, shapes, true=None) -> np.ndarray:
        """Of shapes [N, V, 3]; `true` may stand for the true ones."""
        true = self.true if true is None else true
        shapes = jnp.broadcast_to(jnp.asarray(shapes), true.shape)
        return np.asarray(vertex_error_mm(shapes, true, align="similarity", vertices=self.vertices))

    def vertex_errors(self, shapes) -> np.ndarray:
        """Of each vertex of all parts, in the order of `vertices`: [N, P]."""
        true = self.true[:, self.vertices]
        aligned = align_points(jnp.asarray(shapes)[:, self.vertices], true, scale=True)
        return MM_PER_UNIT * np.linalg.norm(np.asarray(aligned - true), axis=-1)

    def by_part(self, errors: np.ndarray) -> dict[str, np.ndarray]:
        """Part -> the mean of [N, P] over its vertices."""
        return {part: errors[:, np.isin(self.vertices, rows)].mean(1) for part, rows in self.model.parts.items()}

    def shapes(self, vectors):
        """Of coefficient vectors [N, K]."""
        coefficients = Coefficients.from_vector(jnp.asarray(vectors), self.model)
        return face_models.shape(self.model, coefficients.identity, coefficients.expression)

    def of(self, faces: Sequence[SolvedFace]) -> np.ndarray:
        """Of fitted faces."""
        return self.errors(self.shapes(np.stack([face.vector for face in faces])))

    def knowledge(self, faces: Sequence[SolvedFace]) -> dict:
        """Expected against true errors: of faces, of the parts of faces, of spots on average over faces.

        The ceiling is the correlation that a fit would have which is right about itself: faces drawn from what it takes
        for possible stand for the true ones.
        """
        shapes = self.shapes(np.stack([face.vector for face in faces]))
        true, rows, drawn, random = self.vertex_errors(shapes), [], [], np.random.default_rng(0)
        for face in faces:
            expected = expected_error_mm(self.model, face.vector, face.covariance, self.vertices)
            rows.append(expected[self.vertices])
            size, vector = len(face.covariance), face.vector.copy()
            vector[:size] += random.multivariate_normal(np.zeros(size), face.covariance.astype(float), method="eigh")
            drawn.append(vector)
        expected = np.stack(rows)
        possible = self.errors(shapes, self.shapes(np.stack(drawn)))
        parts = [np.stack(list(self.by_part(errors).values())) for errors in (expected, true)]
        stretch = np.log([face.stretch for face in faces])
        return {
            "faces_mm": {"expected": expected.mean(1).tolist(), "true": true.mean(1).tolist()},
            "parts_mm": {
                name: {part: float(values.mean()) for part, values in self.by_part(errors).items()}
                for name, errors in (("expected", expected), ("true", true))
            },
            "ratio_of_means": float(expected.mean() / true.mean()),
            "correlation": {
                "faces": _correlation(expected.mean(1), true.mean(1)),
                "faces, ceiling": _correlation(expected.mean(1), possible),
                "parts of faces": _correlation(*parts),
                "spots": _correlation(expected.mean(0), true.mean(0)),
                "distance": _correlation(stretch, self.distances),
            },
        }

    def by_yaw(self, errors: np.ndarray) -> list[float]:
        """Means over the faces of each bin of yaw."""
        chosen = [(self.yaws >= low) & (self.yaws < high) for low, high in BINS]
        return [float(errors[these].mean()) if these.any() else float("nan") for these in chosen]


def run_experiment(count: int, out: Path, chosen: Sequence[Stage]) -> dict:
    """Runs some stages and writes what they give to `out`; returns what results.json holds."""
    begin = time.perf_counter()
    model = jax.tree.map(jnp.asarray, jaxface.load_face_model("anny"))
    persons, missed = people(model, count)
    measure, recognizer = Measure(model, persons), find_recognizer("auto")[1]
    mean = jnp.asarray(model.mean_shape)
    real = face_models.linear(mean, model.identity_basis, jnp.asarray(shipped_calibration().identity_mean))
    results: dict = {"faces": count, "missed": missed, "bins": BINS, "errors_mm": {}}
    for title, shape in (("mean face", mean), ("mean of real people", real)):
        results["errors_mm"][title] = measure.errors(shape[None]).tolist()
    onlooker = onlooker_for(model)
    assert onlooker is not None
    looks = [onlooker(*(person.sample[name][None] for name in ("image", "landmarks"))).vectors for person in persons]
    results["errors_mm"]["first look alone"] = measure.errors(measure.shapes(np.concatenate(looks))).tolist()
    for stage in chosen:
        if stage.recognition and recognizer is None:
            continue
        faces = fit(model, persons, stage, recognizer)
        results["errors_mm"][stage.title] = measure.of(faces).tolist()
        if stage.title == ALL or len(chosen) < 3:
            results["knowledge"] = measure.knowledge(faces)
            draw_expected(out / "expected.png", results)
        by_yaw = {title: measure.by_yaw(np.array(errors)) for title, errors in results["errors_mm"].items()}
        results |= {"by_yaw_mm": by_yaw, "minutes": (time.perf_counter() - begin) / 60}
        with atomic.atomic_write(out / "results.json") as partial:  # after each stage: the whole takes hours
            partial.write_text(json.dumps(results, indent=1) + "\n")
    return results


def table(results: dict) -> str:
    """The errors by stage and yaw, for people and for the README."""
    lines = ["| mm | all | " + " | ".join(f"{low} to {high}°" for low, high in results["bins"]) + " |"]
    lines.append("| --- |" + " --: |" * (1 + len(results["bins"])))
    for title, errors in results["errors_mm"].items():
        bins = " | ".join(f"{value:.2f}" for value in results["by_yaw_mm"][title])
        lines.append(f"| {title} | {np.mean(errors):.2f} | {bins} |")
    told = results["knowledge"]
    lines.append("")
    lines.append(f"Expected against true error: ratio of means {told['ratio_of_means']:.2f}; correlation over")
    lines += [f"- {name}: {value:.2f}" for name, value in told["correlation"].items()]
    lines.append(f"{results['faces']} faces, {results['minutes']:.0f} minutes.")
    return "\n".join(lines)


def draw_expected(path: Path, results: dict) -> None:
    """Expected against true error, a dot per face."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
    true, expected = (np.array(results["knowledge"]["faces_mm"][name]) for name in ("true", "expected"))
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
    parser.add_argument("--faces", type=int, default=300, help="people to draw (default: 300)")
    parser.add_argument("--quick", action="store_true", help="a few faces and steps, to see that everything works")
    parser.add_argument("--out", type=Path, help="folder for the results (default: here; outputs/... with --quick)")
    options = parser.parse_args(arguments)
    if options.faces < 2:
        parser.error("--faces: at least two are needed")
    out = options.out or (Path("outputs/experiments/fit_accuracy") if options.quick else HERE)
    chosen = stages()
    if options.quick:  # a step each: what is compiled for the first serves the second
        chosen = [dataclasses.replace(stage, steps=1) for stage in chosen[:2]]
    results = run_experiment(8 if options.quick else options.faces, out, chosen)
    print(table(results))
    return 0


if __name__ == "__main__":
    command_line.keep_compiled()
    command_line.run(main)
