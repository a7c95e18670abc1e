"""Measures a trained encoder on a folder of samples: Part IoU, landmark error, vertex error.

    python -m jaxface.evaluate DATASET --checkpoint outputs/quickstart

prints a table beside the mean face as baseline, and writes OUT/results.json (the same figures, and each face's own) and
OUT/faces.png (the best and the worst reconstructions). DATASET is a folder that `python -m jaxface.preprocess` wrote.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from jaxface import face_model as face_models
from jaxface import metrics
from jaxface.camera import Camera
from jaxface.coefficients import Coefficients
from jaxface.data.sample import Sample, stack_samples
from jaxface.face import Face, decode_face
from jaxface.face_model import FaceModel
from jaxface.losses import march_landmarks, unrolled_x
from jaxface.objective import PUBLISHED_SIZE
from jaxface.parts import PARTS, SEVEN_PARTS
from jaxface.render import interpolate, label_map, label_triangles, rasterize

BATCH_SIZE = 32

Measures = dict[str, Float[np.ndarray, "N"]]


def evaluate_predictions(
    model: FaceModel, vectors: Float[np.ndarray, "N K"], samples: Sequence[Sample], camera: Camera
) -> dict[str, float]:
    """Measures predicted coefficient vectors against samples; `summarize(measure_faces(...))`.

    The baseline of all comparisons is the zero vector: the mean face, frontal and centred.

    Args:
        model: the face model.
        vectors: predicted coefficients.
        samples: as in data/sample.py, in the order of the vectors.
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
        padded = jax.tree.map(_pad, (np.asarray(vectors[start : start + count]), batch))
        measures = _measure_batch(model, *padded, camera, triangle_labels)
        pieces.append({name: np.asarray(value)[:count] for name, value in measures.items()})
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def summarize(measures: Measures) -> dict[str, float]:
    """Means over the faces where a measure is known; part_iou is the mean of the seven parts' means."""
    means = {name: float(metrics.mean_over_known(values)) for name, values in measures.items()}
    parts = np.array([means[f"part_iou_{part}"] for part in SEVEN_PARTS])
    return means | {"part_iou": float(metrics.mean_over_known(parts))}


def draw_faces(model: FaceModel, vectors: Float[np.ndarray, "N K"], camera: Camera) -> dict[str, np.ndarray]:
    """Renders reconstructions for `visualize.preview_sheet`.

    Returns:
        colors [N, H, W, 3], normals [N, H, W, 3] (posed model space), labels [N, H, W], landmarks [N, 68, 2].
    """
    triangle_labels = label_triangles(model.parts, model.triangles)
    pieces = []
    for start in range(0, len(vectors), BATCH_SIZE):
        chosen = np.asarray(vectors[start : start + BATCH_SIZE])
        drawn = _draw_batch(model, _pad(chosen), camera, triangle_labels)
        pieces.append({name: np.asarray(value)[: len(chosen)] for name, value in drawn.items()})
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


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
        landmark_points(model, coefficients, face), batch["landmarks"], batch["landmark_weights"]
    )
    interocular = metrics.interocular_distance(batch["landmarks"], batch["landmark_weights"])
    true_shape = face_models.shape(model, truth.identity, truth.expression)
    vertex_error = metrics.vertex_error_mm(face.shape, true_shape, align="rigid")
    return {
        "part_iou": metrics.mean_part_iou(iou),
        **{f"part_iou_{part}": iou[:, index] for index, part in enumerate(PARTS)},
        "landmark_error_px": error * (PUBLISHED_SIZE / camera.image_size[1]),
        "landmark_error_interocular": error / interocular,
        "vertex_error_mm": jnp.where(batch["has_coefficients"] > 0, vertex_error, jnp.nan),
    }


@jax.jit
def _draw_batch(
    model: FaceModel, vector: Float[Array, "B K"], camera: Camera, triangle_labels: Integer[Array, "T"]
) -> dict[str, Array]:
    coefficients = Coefficients.from_vector(vector, model)
    face = decode_face(model, coefficients, camera)
    fragments = rasterize(face.points, face.depth, model.triangles, image_size=camera.image_size)
    return {
        "colors": interpolate(fragments, model.triangles, face.colors),
        "normals": interpolate(fragments, model.triangles, face.normals),
        "labels": label_map(fragments, triangle_labels),
        "landmarks": landmark_points(model, coefficients, face),
    }


def landmark_points(model: FaceModel, coefficients: Coefficients, face: Face) -> Float[Array, "B 68 2"]:
    """The 68 landmarks of a decoded face in pixels; those of the cheeks march to the outline that is seen."""
    indices = jnp.asarray(model.landmarks["68"])[None]
    if "68" in model.contours:
        x = unrolled_x(face.points, coefficients.angles[:, 2])
        indices = march_landmarks(x, model.landmarks["68"], model.contours["68"])
    return jnp.take_along_axis(face.points, indices[..., None], axis=1)


def _pad(array: np.ndarray) -> np.ndarray:
    """Repeats the last entry, so that every batch has the same size and nothing compiles twice."""
    return np.concatenate([array, np.repeat(array[-1:], BATCH_SIZE - len(array), axis=0)])
