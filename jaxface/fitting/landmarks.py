"""Pose and shape from landmarks alone, by Levenberg and Marquardt's method: a start that takes milliseconds."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxface.core import cameras, face_models
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients, column_mask
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import landmark_points
from jaxface.core.units import CROP_SIZE
from jaxface.fitting.priors import Prior

POSE_STEPS, SHAPE_STEPS = 12, 20
"""Damped steps on the pose alone, then on the shape as well."""

NOISE = 1.0
"""Standard deviation of a detector's landmark in pixels of the 224 picture: weighs the photo against the prior."""

ACROSS, ALONG = 1.5, 6.0
"""Of the face's outline, across it and along it: no spot of a cheek differs from the next."""

OUTLINE = 17
"""The first landmarks of ibug's 68 run along the outline, from ear to ear."""


def fit_landmarks(
    model: FaceModel,
    vector: Float[Array, "B K"],
    landmarks: Float[Array | np.ndarray, "B 68 2"],
    weights: Float[Array | np.ndarray, "B 68"],
    camera: Camera,
    prior: Prior,
    *,
    held: Bool[Array | np.ndarray, "K"] | None = None,
) -> Float[Array, "B K"]:
    """The most probable pose, identity and expression given the 68 landmarks (Levenberg 1944, Marquardt 1963).

    First the pose alone, then all of it. Albedo and light stay as they are. Landmarks of the outline march, and slide
    along it with ease.

    Args:
        model: the face model.
        vector: where to start, such as zeros.
        landmarks: ibug-68 points in pixels of the camera's picture.
        weights: 0 leaves a landmark out.
        camera: of the crops.
        prior: of the coefficients.
        held: coefficients that stay as they are; none by default.
    """
    held = jnp.zeros(vector.shape[-1], bool) if held is None else jnp.asarray(held)
    small = landmark_model(model)
    shape_columns = np.flatnonzero(column_mask(model, "identity", "expression"))
    pose_columns = np.flatnonzero(column_mask(model, "angles", "translation"))
    pixel = camera.image_size[0] / CROP_SIZE

    def fit_one(
        vector: Float[Array, "K"], target: Float[Array, "68 2"], weight: Float[Array, "68"]
    ) -> Float[Array, "K"]:
        def residuals(vector: Float[Array, "K"]) -> Float[Array, "R"]:
            return landmark_residuals(model_landmarks(small, vector, camera), target, weight, pixel=pixel).reshape(-1)

        vector = _levenberg_marquardt(residuals, vector, prior, held, columns=pose_columns, steps=POSE_STEPS)
        columns = np.concatenate([shape_columns, pose_columns])
        return _levenberg_marquardt(residuals, vector, prior, held, columns=columns, steps=SHAPE_STEPS)

    return jax.vmap(fit_one)(vector, jnp.asarray(landmarks), jnp.asarray(weights))


def landmark_residuals(
    points: Float[Array, "68 2"], target: Float[Array, "68 2"], weights: Float[Array, "68"], *, pixel: float
) -> Float[Array, "68 2"]:
    """Differences between landmarks in standard deviations of a detector, times the square root of their weights.

    Args:
        points: of the face model.
        target: of the photo; anything, even NaN, where the weight is 0.
        weights: 0 leaves a landmark out.
        pixel: how many pixels of these points one of the 224 picture measures.
    """
    known = (weights > 0)[:, None]
    target = jnp.where(known, target, 0.0)
    difference = jnp.where(known, points - target, 0.0) / pixel
    line = jnp.arange(OUTLINE)
    before, after = jnp.maximum(line - 1, 0), jnp.minimum(line + 1, OUTLINE - 1)
    # Between unknown neighbours the direction is unknown too: zero, and the landmark is held on all sides.
    along = jnp.where(known[before] & known[after], target[after] - target[before], 0.0)
    along = along / jnp.maximum(jnp.linalg.norm(along, axis=-1, keepdims=True), 1e-6)
    outline = difference[:OUTLINE]
    slid = (along * outline).sum(-1, keepdims=True) * along
    outline = outline / ACROSS - (1 / ACROSS - 1 / ALONG) * slid
    return jnp.sqrt(weights)[:, None] * jnp.concatenate([outline, difference[OUTLINE:] / NOISE])


def _levenberg_marquardt(
    residuals: Callable[[Float[Array, "K"]], Float[Array, "R"]],
    vector: Float[Array, "K"],
    prior: Prior,
    fixed: Bool[Array, "K"],
    *,
    columns: Int[np.ndarray, "C"],
    steps: int,
) -> Float[Array, "K"]:
    """Minimises |residuals|^2 + |vector / deviation|^2 over some columns, within the prior's bounds."""
    fixed = fixed[columns]
    precision = jnp.asarray(1.0 / prior.deviation**2)[columns]
    lower, upper = (jnp.asarray(bound)[columns] for bound in (prior.lower, prior.upper))

    def with_columns(values: Float[Array, "C"]) -> Float[Array, "K"]:
        return vector.at[columns].set(values)

    def cost(values: Float[Array, "C"]) -> Float[Array, ""]:
        return jnp.square(residuals(with_columns(values))).sum() + (precision * jnp.square(values)).sum()

    def step(
        state: tuple[Float[Array, "C"], Float[Array, ""]], _: None
    ) -> tuple[tuple[Float[Array, "C"], Float[Array, ""]], None]:
        values, damping = state
        residual = residuals(with_columns(values))
        jacobian = jax.jacfwd(lambda v: residuals(with_columns(v)))(values)
        normal = jnp.matmul(jacobian.T, jacobian, precision=jax.lax.Precision.HIGHEST) + jnp.diag(precision)
        gradient = jnp.matmul(jacobian.T, residual, precision=jax.lax.Precision.HIGHEST) + precision * values
        damped = normal + damping * jnp.diag(jnp.diag(normal) + 1e-6)
        held = fixed | pushed_on_bound(values, gradient, lower, upper)
        damped = jnp.where(held[:, None] | held[None], 0.0, damped) + jnp.diag(held.astype(values.dtype))
        moved = jnp.clip(values - jnp.linalg.solve(damped, jnp.where(held, 0.0, gradient)), lower, upper)
        better = cost(moved) < cost(values)
        return (jnp.where(better, moved, values), jnp.where(better, damping / 4, damping * 4)), None

    (values, _), _ = jax.lax.scan(step, (vector[columns], jnp.asarray(1e-2, vector.dtype)), length=steps)
    return with_columns(values)


def pushed_on_bound(
    values: Float[Array, "*B C"],
    slope: Float[Array, "*B C"],
    lower: Float[Array, "*B C"],
    upper: Float[Array, "*B C"],
) -> Bool[Array, "*B C"]:
    """What rests against a bound and would go on: it stays out of a step, else clipping spoils the others' part of it.

    Args:
        values: coefficients.
        slope: of the cost, in them.
        lower: their bounds.
        upper: their bounds.
    """
    return ((values <= lower) & (slope > 0)) | ((values >= upper) & (slope < 0))


def landmark_model(model: FaceModel) -> FaceModel:
    """The face model cut down to the vertices that may be landmarks: a few hundred instead of all."""
    vertices = jnp.asarray(model.landmarks["68"])
    contours: dict[str, Array] = {}
    if "68" in model.contours:
        lines = jnp.asarray(model.contours["68"])
        vertices = jnp.concatenate([vertices, lines.reshape(-1)])
        contours["68"] = 68 + jnp.arange(lines.size).reshape(lines.shape)
    small = face_models.shape_of_vertices(model, vertices)
    return dataclasses.replace(small, landmarks={"68": jnp.arange(68)}, contours=contours)


def model_landmarks(small: FaceModel, vector: Float[Array, "K"], camera: Camera) -> Float[Array, "68 2"]:
    """The 68 landmarks of one face in the picture; `small` is a `landmark_model`."""
    coefficients = Coefficients.from_vector(vector, small)
    shape = face_models.shape(small, coefficients.identity, coefficients.expression)
    posed = cameras.pose(shape, coefficients.angles, coefficients.translation)
    points = cameras.project(cameras.to_camera_space(posed, camera), camera)
    return landmark_points(small, points, coefficients.angles[:, 2])[0]
