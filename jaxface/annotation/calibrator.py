"""From a detector to its table: drawn faces, what it finds in them, and the mean of people by photos of them."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer, UInt8

from jaxface.annotation.calibration import (
    LOST,
    YAWS,
    Detections,
    covariance_table,
    crop_points,
    detection_errors,
    mirror_points,
    vote_places,
)
from jaxface.core import face_models
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients, vector_columns, vector_size
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.metrics import vertex_error_mm
from jaxface.core.typed_jit import typed_jit
from jaxface.core.units import CROP_SIZE
from jaxface.files import visualize
from jaxface.files.atomic import make_folder
from jaxface.files.images import photo_focal, read_image
from jaxface.files.inputs import collect_files
from jaxface.files.progress import BatchReport, progress
from jaxface.fitting.estimate import Estimate, distance_prior, estimate_faces
from jaxface.fitting.evidence import Calibration, Evidence, dense_evidence
from jaxface.fitting.posterior import expected_error_mm, shape_covariance
from jaxface.fitting.priors import Prior, coefficient_prior
from jaxface.models import load_face_model
from jaxface.models.checks import require_parts
from jaxface.photos import face_mesh
from jaxface.photos.detection import detect_faces
from jaxface.photos.face_crops import NoFaceError, preprocess_photo
from jaxface.photos.samples import Sample, pad_rows
from jaxface.render import label_triangles
from jaxface.synthetic.people import find_people
from jaxface.synthetic.photographs import draw_photographs

FACES = 1600
"""Drawn by default."""

SEED = 101
"""Of the faces that the shipped table was made of."""

LARGEST_SEED = 2000
"""A face's key is a million times the seed and more, in 32 bits."""

LARGEST_YAW = 70.0
"""Degrees: heads are turned evenly up to this."""

ROUNDS = 4
"""Of the mean of people: each takes the mean of the faces that are most probable under the mean of the round before."""

BLOCK = 8
"""Photographs drawn, and photos estimated, at a time."""

SPREAD_FACES = 400
"""Drawn faces that are fitted to learn how far fits stray."""

FEWEST = 200
"""Faces: with fewer the covariance would be a guess."""

FindPoints = Callable[[UInt8[np.ndarray, "H W 3"]], Float[np.ndarray, "P 2"] | None]


@dataclasses.dataclass(frozen=True)
class Detector:
    """Something that finds a face's points in a picture.

    Attributes:
        find: the points of the largest face in pixels, or None.
        used: which of them are spots of the face: neither of its outline nor of the irises.
    """

    find: FindPoints
    used: Integer[np.ndarray, "P"]


def _mediapipe(picture: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "478 2"] | None:
    meshes = (face.landmarks478 for face in detect_faces(picture))
    return next((mesh for mesh in meshes if mesh is not None), None)


DETECTORS = {
    "mediapipe": Detector(_mediapipe, np.setdiff1d(np.arange(face_mesh.IRISES), face_mesh.FACE_OVAL + face_mesh.JAW)),
}
"""The detectors that can be calibrated, by name; one more is one more line."""


def calibrate_file(
    model: str,
    out: str | os.PathLike,
    *,
    detector: str = "mediapipe",
    faces: int = FACES,
    seed: int = SEED,
    photos: Sequence[str | os.PathLike] = (),
    table: str | os.PathLike | None = None,
) -> tuple[Calibration, BatchReport]:
    """Calibrates a detector with a face model and writes the table, and a picture of it beside.

    Args:
        model: name or path of the face model.
        out: the .npz file to write.
        detector: a key of `DETECTORS`.
        faces: to draw.
        seed: of the drawn faces.
        photos: of people, for their mean: photos, folders, glob patterns; none leaves the mean as it was, or zero.
        table: an earlier table, of which only the mean of people is made anew; None draws faces.

    Returns:
        The table, and which photos were used.

    Raises:
        InputError: when the model, the photos or a file cannot be used.
        MissingDependencyError: when the detector is not installed.
    """
    face_model = load_face_model(model)
    require_parts(face_model, "calibration")
    if "68" not in face_model.landmarks:
        raise InputError(f"the face model {face_model.name!r} has no 68 landmarks, which calibration needs")
    if Path(out).is_dir():
        raise InputError(f"{out}: is a folder; the table is a file in it, such as {Path(out, 'table.npz')}")
    make_folder(Path(out).parent)
    calibration = None if table is None else Calibration.load(table)
    if calibration is not None:
        dense_evidence(face_model, calibration)  # refuses the table of another face model
    samples, report = samples_of(face_model, photos)  # before the drawing, which takes long
    if calibration is None:
        found, lost = draw_and_detect(face_model, DETECTORS[detector].find, count=faces, seed=seed)
        made = f"{faces} drawn faces, seed {seed}; the detector saw no face in {lost} of them"
        calibration = calibration_of(face_model, found, DETECTORS[detector].used, detector=detector, made=made)
    if photos:
        mean = people_mean(face_model, dense_evidence(face_model, calibration), samples)
        made = f"{calibration.made}; mean of people by {ROUNDS} rounds over {len(samples)} photos"
        calibration = dataclasses.replace(calibration, identity_mean=mean, made=made)
    calibration.save(out)
    visualize.save_png(Path(out).with_suffix(".png"), draw_table(face_model, calibration))
    return calibration, report


def draw_and_detect(model: FaceModel, find: FindPoints, *, count: int, seed: int) -> tuple[Detections, int]:
    """Draws photographs of random people and asks a detector for their points.

    Args:
        model: the face model.
        find: of the detector.
        count: how many to draw.
        seed: other seeds give other people.

    Returns:
        What was found, and in how many pictures no face was.

    Raises:
        InputError: when too few faces were found, or would be.
    """
    if count < FEWEST:
        raise InputError(f"{count} faces would make the covariance a guess; at least {FEWEST} are needed")
    labels, people = label_triangles(model.parts, model.triangles), find_people(model)
    model, labels, people = jax.tree.map(jnp.asarray, (model, labels, people))
    draw, random = jax.jit(draw_photographs), np.random.default_rng(seed)
    points, truth = [], []
    for start in progress(range(0, count, BLOCK), description="draw and detect", unit="block"):
        keys = jax.vmap(jax.random.key)(1_000_003 * seed + start + jnp.arange(BLOCK))
        yaws = np.radians(random.uniform(-LARGEST_YAW, LARGEST_YAW, BLOCK)).astype(np.float32)
        drawn = jax.tree.map(np.asarray, draw(keys, model, labels, people, yaws=yaws))
        for index in range(min(BLOCK, count - start)):
            seen = find(drawn["image"][index])
            if seen is not None:
                points.append(seen)
                truth.append([drawn[name][index] for name in ("coefficients", "focal", "center", "distance")])
    if len(points) < FEWEST:
        raise InputError(f"the detector found {len(points)} of {count} drawn faces; at least {FEWEST} are needed")
    return Detections(np.stack(points), *(np.stack(values) for values in zip(*truth, strict=True))), count - len(points)


def calibration_of(
    model: FaceModel, found: Detections, used: Integer[np.ndarray, "P"], *, detector: str, made: str
) -> Calibration:
    """The table of a detector; faces that it lost are left out.

    Args:
        model: the face model.
        found: drawn faces and the points seen in them.
        used: which of the points the table holds.
        detector: its name.
        made: how the faces were made, in words.

    Raises:
        InputError: when a point never lies on the face.
    """
    triangles, barycentric, stray = vote_places(model, found)
    if np.isnan(stray[used]).any():
        raise InputError(
            f"{int(np.isnan(stray[used]).sum())} of the detector's points lie beside the face model {model.name!r} in "
            "all drawn faces; is it a face, in the pose and unit of ours?"
        )
    errors = detection_errors(model, found, triangles, barycentric)
    kept = np.median(np.linalg.norm(errors, axis=-1), axis=1) < LOST
    triangles, barycentric = triangles[used], barycentric[used]
    places = (barycentric[..., None] * np.asarray(model.mean_shape)[triangles]).sum(1)
    variances, factors = covariance_table(errors[kept][:, used], found.yaws[kept], mirror_points(places))
    calibration = Calibration(
        face_model=model.name,
        vertices=len(model.mean_shape),
        detector=detector,
        points=used,
        triangles=triangles,
        barycentric=barycentric,
        yaws=YAWS,
        variances=variances,
        factors=factors,
        identity_mean=np.zeros(model.identity_basis.shape[-1], np.float32),
        spread=np.zeros(2, np.float32),
        made=f"{made}, and another face in {int((~kept).sum())}",
    )
    own = Detections(*(getattr(found, field.name)[kept] for field in dataclasses.fields(found)))
    return dataclasses.replace(calibration, spread=error_spread(model, calibration, own))


def error_spread(model: FaceModel, calibration: Calibration, found: Detections) -> Float[np.ndarray, "2"]:
    """How much larger the errors of fitted shapes are than the posterior expects, by the misfit; `Calibration.spread`.

    Args:
        model: the face model.
        calibration: without this.
        found: drawn faces, whose people have the face model's own mean; up to `SPREAD_FACES` of them count.
    """
    evidence, prior, truth = dense_evidence(model, calibration), coefficient_prior(model), found.coefficients
    points = crop_points(model, found)[:SPREAD_FACES, calibration.points].astype(np.float32)
    vertices = face_models.vertices_of_parts(model)
    expected, true, misfit = [], [], []
    for start in progress(range(0, len(points), BLOCK), description="spread", unit="block"):
        some = pad_rows(points[start : start + BLOCK], BLOCK)
        unknown = np.full(BLOCK, np.nan, np.float32)
        estimate = _estimated(evidence, some, np.ones(some.shape[:2], np.float32), unknown, prior)
        shapes = _shapes(model, estimate.vectors), _shapes(model, pad_rows(truth[start : start + BLOCK], BLOCK))
        errors = np.asarray(vertex_error_mm(*shapes, align="similarity", vertices=vertices))
        covariance = np.asarray(shape_covariance(model, estimate, jnp.zeros(vector_size(model), bool)))
        for index in range(min(BLOCK, len(points) - start)):
            error = expected_error_mm(model, np.asarray(estimate.vectors)[index], covariance[index], vertices)
            expected.append(error[vertices].mean())
            true.append(errors[index])
            misfit.append(float(estimate.misfit[index]))
    ratio, logarithm = np.array(true) / np.array(expected), np.log(misfit)
    slope = np.polyfit(logarithm, np.log(ratio), 1)[0]
    level = np.log(ratio.mean() / np.exp(slope * logarithm).mean())
    return np.array([level, slope], np.float32)


@typed_jit
def _shapes(model: FaceModel, vectors: Float[jax.Array | np.ndarray, "B K"]) -> Float[jax.Array, "B V 3"]:
    coefficients = Coefficients.from_vector(vectors, model)
    return face_models.shape(model, coefficients.identity, coefficients.expression)


def samples_of(model: FaceModel, photos: Sequence[str | os.PathLike]) -> tuple[list[Sample], BatchReport]:
    """The largest face of each photo that has points, and which photos show none.

    Raises:
        InputError: when there are photos, but none shows such a face.
    """
    report, samples = BatchReport(), list[Sample]()
    for path in progress(collect_files(photos), description="detect"):
        with report.guard(path):
            crops = preprocess_photo(read_image(path), model, focal=photo_focal(path))
            known = [crop.sample for crop in crops if crop.sample["point_weights"].any()]
            if not known:  # of a profile, the mean would learn itself
                raise NoFaceError("MediaPipe's mesh sees no face; the mean of people is found by its points")
            samples.append(known[0])
            report.done += 1
    if photos and not samples:
        raise InputError("none of the photos shows a face; the mean of people cannot be estimated")
    return samples, report


def people_mean(model: FaceModel, evidence: Evidence, samples: Sequence[Sample]) -> Float[np.ndarray, "Ki"]:
    """The identity that is the mean of its own most probable faces: m <- mean over photos of the MAP under N(m, 1).

    It takes no 3D (empirical Bayes, Robbins 1956). What of it is not symmetric is chance, and taken off.

    Args:
        model: the face model.
        evidence: its points.
        samples: faces with points, each of another person.
    """
    identity, mean = vector_columns(model)["identity"], np.zeros(model.identity_basis.shape[-1], np.float32)
    points = np.stack([sample["points"][evidence.rows] for sample in samples])
    weights = np.stack([sample["point_weights"][evidence.rows] for sample in samples])
    focal = np.stack([sample["focal"] for sample in samples])
    for _ in progress(range(ROUNDS), description="mean of people", unit="round"):
        prior = coefficient_prior(model, identity_mean=mean)
        found = []
        for start in range(0, len(samples), BLOCK):
            seen, known, told = (pad_rows(rows[start : start + BLOCK], BLOCK) for rows in (points, weights, focal))
            estimate = _estimated(evidence, seen, known, told, prior)
            found.append(np.asarray(estimate.vectors)[: len(points) - start, identity])
        mean = symmetric_identity(model, np.concatenate(found).mean(0))
    return mean


@typed_jit
def _estimated(
    evidence: Evidence,
    points: Float[np.ndarray, "B P 2"],
    weights: Float[np.ndarray, "B P"],
    focal: Float[np.ndarray, "B"],
    prior: Prior,
) -> Estimate:
    size = vector_size(evidence.surface)
    camera, held = Camera().resized(CROP_SIZE), np.zeros(size, bool)
    zeros, distance = jnp.zeros((len(points), size)), distance_prior(focal, camera)
    return estimate_faces(
        evidence, zeros, jnp.asarray(points), jnp.asarray(weights), camera, prior, held=held, log_stretch=distance
    )


def symmetric_identity(model: FaceModel, identity: Float[np.ndarray, "Ki"]) -> Float[np.ndarray, "Ki"]:
    """The identity whose face is nearest to the mean of a face and its mirror image; itself without mirror pairs."""
    if model.mirror is None:
        return identity
    basis = np.asarray(model.identity_basis, np.float64)
    offset = basis @ identity
    mirrored = offset[np.asarray(model.mirror)] * np.array([-1.0, 1.0, 1.0])
    both = ((offset + mirrored) / 2).ravel()
    return np.linalg.lstsq(basis.reshape(len(both), -1), both, rcond=None)[0].astype(np.float32)


def draw_table(model: FaceModel, calibration: Calibration) -> UInt8[np.ndarray, "H W 3"]:
    """A picture of the table: the points on the mean of people, from the front and from the side, and how far they err.

    Green points err by little, red ones by 8 px of the 224 crop or more.
    """
    side, scale = 512, 230.0
    shape = np.asarray(model.mean_shape) + np.asarray(model.identity_basis) @ calibration.identity_mean
    places = (calibration.barycentric[..., None] * shape[calibration.triangles]).sum(1)
    middle = int(np.argmin(np.abs(calibration.yaws)))
    variance = calibration.variances[middle] + np.square(calibration.factors[middle]).sum(-1)
    share = np.clip(np.sqrt(variance.reshape(-1, 2).sum(-1)) / 8, 0, 1)[:, None]
    colors = (1 - share) * np.array([40, 180, 60]) + share * np.array([220, 40, 40])
    views = []
    for across in (np.array([1.0, 0, 0]), np.array([0, 0, 1.0])):
        picture = np.full((side, side, 3), 255, np.uint8)
        for points, color, size in ((shape, np.full((len(shape), 3), 205), 1), (places, colors, 4)):
            column = np.round(side / 2 + scale * (points @ across) * (1 if across[0] else -1)).astype(int)
            row = np.round(side / 2 - scale * points[:, 1]).astype(int)
            for dx in range(size):
                for dy in range(size):
                    picture[np.clip(row + dy, 0, side - 1), np.clip(column + dx, 0, side - 1)] = color
        views.append(picture)
    return np.concatenate(views, axis=1)
