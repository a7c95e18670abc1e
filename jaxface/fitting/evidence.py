"""What a detector's points are worth: where each lies on the face, how far it errs, and which err alike.

A detector is off by several pixels, and its points err together: when the nose goes astray, all of the nose does. A fit
that takes four hundred points for four hundred independent measurements believes every habit of the detector.
`jaxface calibrate` measures the errors on drawn faces, whose truth is known; here they become a normal distribution.
"""

import dataclasses
import functools
import os
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from jaxface.core import cameras, face_models
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.landmarks import IBUG_68
from jaxface.files.atomic import atomic_write
from jaxface.files.containers import read_arrays
from jaxface.fitting.priors import Prior, coefficient_prior

INNER = 17
"""The first 17 of ibug's 68 landmarks lie on the outline that a detector sees, not on a spot of the face: left out."""

FORMAT = "jaxface calibration 2"
"""What a table says of itself."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What `jaxface calibrate` found out about a detector, with a face model.

    Attributes:
        face_model: name of the face model.
        vertices: how many it has, by which its editions are told apart.
        detector: name of the detector.
        points: [P] which of the detector's points are evidence.
        triangles: [P, 3] the vertices between which each lies on the face model.
        barycentric: [P, 3] the weights of these vertices.
        yaws: [Y] in degrees, ascending.
        variances: [Y, 2 P] px^2 at 224 x 224: what each coordinate (x and y in turns) errs by itself.
        factors: [Y, 2 P, R] px: the covariance at a yaw is diag(variances) + factors factors'.
        identity_mean: [Ki] of real people, in the face model's identity coefficients.
        spread: c and g: true errors of fitted shapes are exp(c) misfit^g times what the posterior expects, on average
            over drawn faces; see `Estimate.misfit`.
        made: how, in words.
    """

    face_model: str
    vertices: int
    detector: str
    points: Integer[np.ndarray, "P"]
    triangles: Integer[np.ndarray, "P 3"]
    barycentric: Float[np.ndarray, "P 3"]
    yaws: Float[np.ndarray, "Y"]
    variances: Float[np.ndarray, "Y P2"]
    factors: Float[np.ndarray, "Y P2 R"]
    identity_mean: Float[np.ndarray, "Ki"]
    spread: Float[np.ndarray, "2"]
    made: str

    def is_of(self, model: FaceModel) -> bool:
        """Whether it was made with this edition of a face model."""
        return (self.face_model, self.vertices) == (model.name, len(model.mean_shape))

    def save(self, path: str | os.PathLike) -> None:
        """Writes an .npz file; numbers whose precision matters little as float16.

        Raises:
            InputError: when the file cannot be written.
        """
        arrays = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        arrays |= {name: arrays[name].astype(np.float16) for name in ("variances", "factors", "barycentric")}
        with atomic_write(path) as partial:
            np.savez_compressed(partial, format=FORMAT, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Calibration":
        """Reads what `save` wrote.

        Raises:
            InputError: when there is no such file, or it is no calibration, or one whose numbers cannot be.
        """
        try:
            arrays = read_arrays(path)
        except InputError as error:
            raise InputError(f"{path}: not a calibration of `jaxface calibrate` ({error})") from error
        try:
            if str(arrays["format"]) != FORMAT:
                raise InputError(
                    f"{path}: is of format {str(arrays['format'])[:80]!r}; this version reads {FORMAT!r}: make it "
                    "again with `jaxface calibrate`"
                )
            values: dict[str, Any] = {field.name: arrays[field.name] for field in dataclasses.fields(cls)}
            text = {name: str(values[name]) for name in ("face_model", "detector", "made")}
            floats = ("barycentric", "yaws", "variances", "factors", "identity_mean", "spread")
            numbers = {name: values[name].astype(np.float32) for name in floats}
            table = cls(**(values | text | numbers | {"vertices": int(values["vertices"])}))
        except InputError:
            raise
        except Exception as error:  # what lies there may be of any kind
            raise InputError(f"{path}: not a calibration of `jaxface calibrate` (another kind of file)") from error
        if wrong := _what_is_wrong(table):
            raise InputError(f"{path}: {wrong}; make the table again with `jaxface calibrate`")
        return table


def _what_is_wrong(table: Calibration) -> str:
    """What of a table's numbers cannot be; "" if all can."""
    points, turns = table.points.size, table.yaws.size
    shapes: dict[str, tuple[int | None, ...]] = {
        "points": (points,),
        "triangles": (points, 3),
        "barycentric": (points, 3),
        "yaws": (turns,),
        "variances": (turns, 2 * points),
        "factors": (turns, 2 * points, None),
        "identity_mean": (None,),
        "spread": (2,),
    }
    for name, wanted in shapes.items():
        array = getattr(table, name)
        if len(array.shape) != len(wanted) or any(
            size not in (None, found) for size, found in zip(wanted, array.shape, strict=True)
        ):
            return f"{name} of shape {list(array.shape)} do not go with {points} points and {turns} yaws"
        if not np.isfinite(array).all():
            return f"{name} are not all finite"
    steps = np.diff(table.yaws)
    if not points or turns < 2 or steps.min() <= 0 or np.ptp(steps) > 1e-3 * steps.max():
        return f"{points} points at {turns} yaws: wanted is a point or more, and yaws that ascend by equal steps"
    if any(array.dtype.kind not in "iu" or array.min() < 0 for array in (table.points, table.triangles)):
        return "points and triangles are not all indices"
    if table.triangles.max() >= table.vertices:
        return f"triangles have corners beyond the {table.vertices} vertices"
    if (table.variances <= 0).any() or np.abs(table.barycentric.sum(-1) - 1).max() > 0.01:
        return "variances are not all positive, or weights of three vertices do not add up to 1"
    return ""


@functools.cache
def shipped_calibration() -> Calibration:
    """The table of MediaPipe's face mesh on the built-in face model that comes with jaxface."""
    with resources.as_file(resources.files("jaxface.fitting") / "assets" / "anny_mediapipe.npz") as path:
        return Calibration.load(Path(path))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Evidence:
    """A detector's points on a face model, and the covariance of their errors by yaw. Its arrays form a JAX tree.

    Attributes:
        entry: of a sample, where the detector's points are: "points" or "landmarks"; static.
        rows: [P] which of them.
        surface: the face model cut down to the vertices around the points: P rows, or 3 P with joints.
        barycentric: [P, 3] weights of three vertices each; None where the rows of `surface` are the points.
        yaws: [Y] in radians, ascending and evenly spaced.
        variances: [Y, 2 P] px^2 at 224 x 224.
        factors: [Y, 2 P, R] px.
        spread: as in `Calibration`.
    """

    entry: str = dataclasses.field(metadata={"static": True})
    rows: Integer[Array | np.ndarray, "P"]
    surface: FaceModel
    barycentric: Float[Array | np.ndarray, "P 3"] | None
    yaws: Float[Array | np.ndarray, "Y"]
    variances: Float[Array | np.ndarray, "Y P2"]
    factors: Float[Array | np.ndarray, "Y P2 R"]
    spread: Float[Array | np.ndarray, "2"]


def dense_evidence(model: FaceModel, calibration: Calibration) -> Evidence:
    """All points of a detector that was calibrated with this face model.

    Raises:
        InputError: when the calibration is that of another face model.
    """
    if not calibration.is_of(model):
        raise InputError(
            f"the table was made with the face model {calibration.face_model!r} ({calibration.vertices} vertices), "
            f"not {model.name!r} ({len(model.mean_shape)}); run: jaxface calibrate --model {model.name}"
        )
    yaws = np.radians(calibration.yaws)
    surface, weights = _surface(model, calibration.triangles, calibration.barycentric)
    errors = calibration.variances, calibration.factors, calibration.spread
    return Evidence("points", calibration.points, surface, weights, yaws, *errors)


def landmark_evidence(model: FaceModel, calibration: Calibration) -> Evidence:
    """Those of ibug's 68 landmarks that are spots of the face: any face model has them.

    Their errors are the detector's, whatever the face model that it was calibrated with.

    Raises:
        InputError: when the face model has no 68 landmarks, or the calibration lacks one of the inner.
    """
    if "68" not in model.landmarks:
        raise InputError(f"the face model {model.name!r} has no 68 landmarks, which the fit needs")
    if not np.isin(IBUG_68[INNER:], calibration.points).all():
        raise InputError("the calibration does not hold all of the 51 inner landmarks, which the fit needs")
    rows = np.array([int(np.flatnonzero(calibration.points == point)[0]) for point in IBUG_68[INNER:]])
    vertices = np.asarray(model.landmarks["68"])[INNER:]
    both = np.stack([2 * rows, 2 * rows + 1], axis=-1).ravel()
    surface = face_models.shape_of_vertices(model, vertices)
    yaws = np.radians(calibration.yaws)
    return Evidence(
        "landmarks",
        np.arange(INNER, 68),
        surface,
        None,
        yaws,
        calibration.variances[:, both],
        calibration.factors[:, both],
        calibration.spread,
    )


def people_prior(model: FaceModel, calibration: Calibration | None = None) -> Prior:
    """The prior of real people: around their mean, where the calibration holds it for this face model.

    Args:
        model: the face model.
        calibration: None takes the one that comes with jaxface.
    """
    calibration = calibration or shipped_calibration()
    same = calibration.is_of(model) and len(calibration.identity_mean) == model.identity_basis.shape[-1]
    return coefficient_prior(model, identity_mean=calibration.identity_mean if same else None)


def evidence_for(model: FaceModel, *, dense: bool, calibration: Calibration | None = None) -> Evidence:
    """What a fit takes by default: all points, if there are any and the calibration is of this face model.

    Args:
        model: the face model.
        dense: whether the samples have "points".
        calibration: of the detector, with this face model; None takes the one that comes with jaxface, whose errors
            serve the landmarks of other face models as well.

    Raises:
        InputError: when the face model has no 68 landmarks, or a calibration is given that is not its own.
    """
    if calibration is None and not (dense and shipped_calibration().is_of(model)):
        return landmark_evidence(model, shipped_calibration())
    found = dense_evidence(model, calibration or shipped_calibration())
    return found if dense else landmark_evidence(model, calibration or shipped_calibration())


def _surface(
    model: FaceModel, triangles: Integer[np.ndarray, "P 3"], barycentric: Float[np.ndarray, "P 3"]
) -> tuple[FaceModel, Float[np.ndarray, "P 3"] | None]:
    corners = face_models.shape_of_vertices(model, triangles.ravel())
    if model.skinning is not None:
        return corners, barycentric  # joints turn the vertices before they are mixed

    def mix(rows: Array | np.ndarray) -> Array:
        corners_of = jnp.asarray(rows).reshape(-1, 3, *rows.shape[1:])
        return jnp.einsum("pc,pc...->p...", barycentric, corners_of, precision=jax.lax.Precision.HIGHEST)

    mixed = dataclasses.replace(
        corners,
        mean_shape=mix(corners.mean_shape),
        identity_basis=mix(corners.identity_basis),
        expression_basis=mix(corners.expression_basis),
    )
    return mixed, None


def evidence_points(evidence: Evidence, vector: Float[Array, "K"], camera: Camera) -> Float[Array, "P 2"]:
    """Where the points of one face lie in the camera's picture, in pixels."""
    coefficients = Coefficients.from_vector(vector, evidence.surface)
    shape = face_models.shape(evidence.surface, coefficients.identity, coefficients.expression)
    if evidence.barycentric is not None:
        corners = shape.reshape(1, -1, 3, 3)
        shape = (jnp.asarray(evidence.barycentric)[None, :, :, None] * corners).sum(2)
    posed = cameras.pose(shape, coefficients.angles, coefficients.translation)
    return cameras.project(cameras.to_camera_space(posed, camera), camera)[0]


def errors_at(evidence: Evidence, yaw: Float[Array, ""]) -> tuple[Float[Array, "P2"], Float[Array, "P2 R2"]]:
    """Variances and factors of the covariance at a yaw in radians: a straight line between those of two yaws.

    Beyond the last yaw they are those of the last.
    """
    yaws = jnp.asarray(evidence.yaws)
    place = jnp.clip((yaw - yaws[0]) / (yaws[1] - yaws[0]), 0.0, len(yaws) - 1.0)
    low = jnp.minimum(place.astype(jnp.int32), len(yaws) - 2)
    share = place - low
    variances, factors = jnp.asarray(evidence.variances), jnp.asarray(evidence.factors)
    variance = (1 - share) * variances[low] + share * variances[low + 1]
    both = [jnp.sqrt(1 - share) * factors[low], jnp.sqrt(share) * factors[low + 1]]
    return variance, jnp.concatenate(both, axis=-1)


def inverse_covariance(
    variance: Float[Array, "P2"], factor: Float[Array, "P2 R"], known: Float[Array, "P2"]
) -> "Precision":
    """The inverse of diag(variance) + factor factor' over the rows that are known (Woodbury 1950), ready to multiply.

    Rows that are not known are left out of the distribution, not taken for zero.
    """
    weights = known / variance
    weighted = weights[:, None] * factor
    inner = jnp.eye(factor.shape[1]) + _product(factor.T, weighted)
    return Precision(weights, weighted, jnp.linalg.cholesky(inner))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Precision:
    """The inverse of a covariance that is a diagonal plus a product; see `inverse_covariance`.

    Attributes:
        weights: [P2] inverse variances, 0 for unknown rows.
        weighted: [P2, R] weights times factors.
        root: [R, R] Cholesky's factor of 1 + factors' weights factors.
    """

    weights: Float[Array, "P2"]
    weighted: Float[Array, "P2 R"]
    root: Float[Array, "R R"]

    def times(self, columns: Float[Array, "P2 C"]) -> Float[Array, "P2 C"]:
        """The inverse covariance times columns."""
        inner = jax.scipy.linalg.cho_solve((self.root, True), _product(self.weighted.T, columns))
        return self.weights[:, None] * columns - _product(self.weighted, inner)


def _product(a: Float[Array, "I J"], b: Float[Array, "J K"]) -> Float[Array, "I K"]:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
