"""Measures coefficients against samples: Part IoU, landmark error, vertex error; and an encoder on a whole folder."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from jaxface.core import face_models, metrics
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients, vector_size
from jaxface.core.errors import needs_extra
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import decode_face, landmark_points
from jaxface.core.parts import CLASSES, PARTS, SEVEN_PARTS
from jaxface.core.units import CROP_SIZE
from jaxface.files import atomic, progress, visualize
from jaxface.files.tables import aligned_table
from jaxface.models import load_face_model
from jaxface.models.checks import require_parts
from jaxface.networks.people_answer import PeopleAnswer
from jaxface.photos.folder import FolderSource
from jaxface.photos.samples import Sample, pad_rows, stack_samples
from jaxface.photos.shards import ShardSource, open_samples
from jaxface.render import label_map, label_triangles, rasterize, render_face

BATCH_SIZE = 32
"""Faces that are measured at once, unless told otherwise."""

SHOWN = 3
"""How many of the best and of the worst faces the picture shows."""

_ROWS = (
    ("Part IoU, mean of seven parts", "part_iou", 1),
    *((f"Part IoU, {part.replace('_', ' ')}", f"part_iou_{part}", 1) for part in PARTS),
    ("Landmark error, px at 224 x 224", "landmark_error_px", 1),
    ("Landmark error, % of the inter-ocular distance", "landmark_error_interocular", 100),
    ("Vertex error, mm", "vertex_error_mm", 1),
)

Measures = dict[str, Float[np.ndarray, "N"]]


def evaluate_predictions(
    model: FaceModel, vectors: Float[np.ndarray, "N K"], samples: Sequence[Sample], camera: Camera
) -> dict[str, float]:
    """Measures predicted coefficient vectors against samples; `summarize(measure_faces(...))`.

    The baseline of all comparisons is the zero vector: the mean face, frontal and centred.

    Args:
        model: the face model.
        vectors: predicted coefficients.
        samples: as in photos/samples.py, in the order of the vectors.
        camera: of the S x S crops, `Camera().resized(S)`.

    Returns:
        Means over the faces where each is known, else NaN: part_iou (the mean of the seven parts other than skin),
        part_iou_left_eye and so on, landmark_error_px (pixels of the 224 x 224 picture), landmark_error_interocular
        (in inter-ocular distances) and vertex_error_mm (shape before the pose, rigidly aligned).
    """
    return summarize(measure_faces(model, vectors, samples, camera))


def measure_faces(
    model: FaceModel, vectors: Float[np.ndarray, "N K"], samples: Sequence[Sample], camera: Camera
) -> Measures:
    """The measures of `evaluate_predictions` for each face, NaN where unknown; arguments as there."""
    triangle_labels = label_triangles(model.parts, model.triangles)
    pieces = []
    for start in range(0, len(samples), BATCH_SIZE):
        chosen = [samples[index] for index in range(start, min(start + BATCH_SIZE, len(samples)))]
        batch = {name: value for name, value in stack_samples(chosen).items() if name != "image"}
        count = len(chosen)
        some = (np.asarray(vectors[start : start + count]), batch)
        padded = jax.tree.map(lambda array: pad_rows(array, BATCH_SIZE), some)
        measures = _measure_batch(model, *padded, camera, triangle_labels)
        pieces.append({name: np.asarray(value)[:count] for name, value in measures.items()})
    return _joined(pieces)


def summarize(measures: Measures) -> dict[str, float]:
    """Means over the faces where a measure is known; part_iou is the mean of the seven parts' means."""
    means = {name: float(metrics.mean_over_known(values)) for name, values in measures.items()}
    parts = np.array([means[f"part_iou_{part}"] for part in SEVEN_PARTS])
    return means | {"part_iou": float(metrics.mean_over_known(parts))}


def evaluate_dense(answer: PeopleAnswer, samples: Sequence[Sample]) -> dict[str, float]:
    """Measures what a network says of pixels and points against drawn people.

    Args:
        answer: of the samples, as numpy arrays; `logits` [N, S, S] are the likeliest classes.
        samples: with the entries of `samples.DENSE_DTYPES`.

    Returns:
        class_iou_background and so on, the means over the pictures that show a class or the answer's one; parser_iou,
        the mean over the seven parts; found_landmarks_interocular and surface_points_px (pixels of the 224 x 224
        picture), means of the distances over the points that are seen; seen_accuracy, the share of points of which the
        network knows whether they are seen.
    """
    batch = stack_samples([samples[index] for index in range(len(samples))])
    figures = {}
    for index, name in enumerate(CLASSES):
        found, true = answer.logits == index, batch["classes"] == index
        union = (found | true).sum((1, 2))
        iou = (found & true).sum((1, 2)) / np.where(union > 0, union, np.nan)
        figures[f"class_iou_{name}"] = float(metrics.mean_over_known(iou))
    size = batch["image"].shape[1]
    marks = batch["landmarks"].shape[1]
    error = [
        np.linalg.norm(size * found - true, axis=-1)
        for found, true in (
            (answer.points.position[:, :marks], batch["landmarks"]),
            (answer.points.position[:, marks:], batch["surface_points"]),
        )
    ]
    eyes = metrics.interocular_distance(batch["landmarks"], batch["landmark_weights"])
    seen = np.concatenate([batch["landmark_visible"], batch["surface_visible"]], axis=1) > 0
    relative = np.where(seen[:, :marks], error[0] / np.asarray(eyes)[:, None], np.nan)
    return figures | {
        "parser_iou": float(np.mean([figures[f"class_iou_{part}"] for part in SEVEN_PARTS])),
        "found_landmarks_interocular": float(np.nanmean(relative)),
        "surface_points_px": float(CROP_SIZE / size * error[1][seen[:, marks:]].mean()),
        "seen_accuracy": float(((answer.points.visibility > 0) == seen).mean()),
    }


def draw_faces(model: FaceModel, vectors: Float[np.ndarray, "N K"], camera: Camera) -> dict[str, np.ndarray]:
    """Renders reconstructions for `visualize.preview_sheet`.

    Returns:
        colors [N, H, W, 3], normals [N, H, W, 3] (posed model space), labels [N, H, W], landmarks [N, 68, 2].
    """
    triangle_labels = label_triangles(model.parts, model.triangles)
    pieces = []
    for start in range(0, len(vectors), BATCH_SIZE):
        chosen = np.asarray(vectors[start : start + BATCH_SIZE])
        drawn = _draw_batch(model, pad_rows(chosen, BATCH_SIZE), camera, triangle_labels)
        pieces.append({name: np.asarray(value)[: len(chosen)] for name, value in drawn.items()})
    return _joined(pieces)


@jax.jit
def _measure_batch(
    model: FaceModel,
    vector: Float[Array, "B K"],
    batch: Mapping[str, Array],
    camera: Camera,
    triangle_labels: Integer[Array, "T"],
) -> dict[str, Float[Array, "B"]]:
    coefficients = Coefficients.from_vector(vector, model)
    truth = Coefficients.from_vector(batch["coefficients"], model)
    face = decode_face(model, coefficients, camera)
    fragments = rasterize(face.points, face.depth, model.triangles, image_size=camera.image_size)
    iou = metrics.part_iou(label_map(fragments, triangle_labels), batch["labels"])
    error = metrics.landmark_error(
        landmark_points(model, face.points, coefficients.angles[:, 2]), batch["landmarks"], batch["landmark_weights"]
    )
    interocular = metrics.interocular_distance(batch["landmarks"], batch["landmark_weights"])
    true_shape = face_models.shape(model, truth.identity, truth.expression)
    vertex_error = metrics.vertex_error_mm(face.shape, true_shape, align="rigid")
    return {
        "part_iou": metrics.mean_part_iou(iou),
        **{f"part_iou_{part}": iou[:, index] for index, part in enumerate(PARTS)},
        "landmark_error_px": error * (CROP_SIZE / camera.image_size[1]),
        "landmark_error_interocular": error / interocular,
        "vertex_error_mm": jnp.where(batch["has_coefficients"] > 0, vertex_error, jnp.nan),
    }


@jax.jit
def _draw_batch(
    model: FaceModel, vector: Float[Array, "B K"], camera: Camera, triangle_labels: Integer[Array, "T"]
) -> dict[str, Array]:
    coefficients = Coefficients.from_vector(vector, model)
    face = decode_face(model, coefficients, camera)
    view = render_face(face, model.triangles, image_size=camera.image_size)
    return {
        "colors": view.draw(face.colors),
        "normals": view.draw(face.normals),
        "labels": label_map(view.fragments, triangle_labels),
        "landmarks": landmark_points(model, face.points, coefficients.angles[:, 2]),
    }


def comparison_table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """Summaries side by side, as a table that Markdown and a terminal both show well.

    Args:
        columns: title -> result of `evaluate_predictions`. Measures that are known in no column are left out.
    """
    rows = [["", *columns]]
    for label, name, factor in _ROWS:
        values = [factor * summary.get(name, math.nan) for summary in columns.values()]
        if not all(math.isnan(value) for value in values):
            rows.append([label, *("-" if math.isnan(value) else f"{value:.3f}" for value in values)])
    return aligned_table(rows)


def evaluate_folder(
    dataset: str | os.PathLike,
    checkpoint: str | os.PathLike,
    *,
    model: str | os.PathLike | None = None,
    out: str | os.PathLike | None = None,
) -> progress.BatchReport:
    """Measures an encoder on a folder of samples beside the mean face, prints the table and writes the results.

    Args:
        dataset: its folder, in either format (docs/folder_format.md, docs/large_datasets.md).
        checkpoint: output folder of a training run, or a file of weights.
        model: name or path of the face model that a file's encoder was trained with; None takes the checkpoint's.
        out: folder for results.json and faces.png; by default evaluation/ in the run's folder, or beside a file.

    Returns:
        What was measured and what could not be read.

    Raises:
        InputError: when the dataset, the checkpoint or the model cannot be used.
    """
    with needs_extra("train", "an encoder"):
        from jaxface.networks.checkpoints import load_encoder
    predict, face_model, config = load_encoder(Path(checkpoint), model=load_face_model(model) if model else None)
    require_parts(face_model, "the evaluation")
    source = open_samples(dataset, size=config.image_size, coefficient_count=vector_size(face_model))
    camera = Camera().resized(config.image_size)
    report = progress.BatchReport(unit="face")
    indices, vectors, encoder, mean_face = [], [], [], []
    starts = range(0, len(source), BATCH_SIZE)
    for start in progress.progress(starts, description="evaluating", unit="batch"):
        samples = []
        for index in range(start, min(start + BATCH_SIZE, len(source))):
            with report.guard(source.name(index)):
                samples.append(source[index])
                indices.append(index)
        if samples:
            images = pad_rows(np.stack([sample["image"] for sample in samples]), BATCH_SIZE)
            vectors.append(predict(images)[: len(samples)])
            encoder.append(measure_faces(face_model, vectors[-1], samples, camera))
            mean_face.append(measure_faces(face_model, np.zeros_like(vectors[-1]), samples, camera))
            report.done += len(samples)
    if report.done:
        measures, baseline = _joined(encoder), _joined(mean_face)
        summaries = {"encoder": summarize(measures), "mean face": summarize(baseline)}
        print(comparison_table(summaries))
        names = [source.name(index) for index in indices]
        run = Path(checkpoint)
        folder = Path(out or (run if run.is_dir() else run.parent) / "evaluation")
        made_from = {"dataset": str(dataset), "checkpoint": str(checkpoint)}
        _write_results(folder / "results.json", made_from, summaries, names, measures)
        _write_faces(
            folder / "faces.png", face_model, camera, source, indices, names, np.concatenate(vectors), measures
        )
        print(f"written: {folder / 'results.json'}, {folder / 'faces.png'}")
    return report


def _joined(pieces: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _write_results(
    path: Path,
    made_from: Mapping[str, str],
    summaries: Mapping[str, Mapping[str, float]],
    names: Sequence[str],
    measures: Measures,
) -> None:
    def known(values: Mapping[str, float]) -> dict[str, float | None]:
        return {name: None if math.isnan(value) else round(float(value), 6) for name, value in values.items()}

    faces = [{"face": name, **known({m: v[i] for m, v in measures.items()})} for i, name in enumerate(names)]
    content = {
        **made_from,
        "face_count": len(names),
        **{title.replace(" ", "_"): known(summary) for title, summary in summaries.items()},
        "faces": faces,
    }
    with atomic.atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def _write_faces(
    path: Path,
    model: FaceModel,
    camera: Camera,
    source: FolderSource | ShardSource,
    indices: Sequence[int],
    names: Sequence[str],
    vectors: np.ndarray,
    measures: Measures,
) -> None:
    order = np.argsort(np.nan_to_num(-measures["part_iou"], nan=np.inf))  # the best first, the unknown last
    chosen = [*order[:SHOWN], *order[max(SHOWN, len(order) - SHOWN) :]]
    samples = [source[indices[i]] for i in chosen]
    captions = [f"{names[i]}: Part IoU {measures['part_iou'][i]:.3f}" for i in chosen]
    images, labels = (np.stack([sample[name] for sample in samples]) for name in ("image", "labels"))
    drawn = draw_faces(model, vectors[chosen], camera)
    visualize.save_png(path, visualize.preview_sheet(images, drawn, labels, captions=captions))
