"""One identity from the landmarks of several pictures, against SciPy's minimum of the same cost."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxface import Camera
from jaxface.core.coefficients import vector_size
from jaxface.fitting import coefficient_prior
from jaxface.fitting.joint_landmarks import PRIOR_PER_PICTURE, _solve_arrow, fit_joint_landmarks
from jaxface.fitting.landmarks import NOISE, fit_landmarks, landmark_model, model_landmarks
from toys.models import toy_model

SIZE, VIEWS = 64, 3
pytestmark = pytest.mark.usefixtures("quick_compilation")
CAMERA = Camera().resized(SIZE)
OWN = np.r_[3:5, 8:11, 38:41]  # of the toy: expression, angles, translation
fit_joint = jax.jit(fit_joint_landmarks)


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def views(model):
    """Noisy landmarks of one identity in several poses, the truth, and what each picture says by itself."""
    random = np.random.default_rng(0)
    vectors = np.zeros((VIEWS, vector_size(model)), np.float32)
    vectors[:, :3] = random.normal(size=3)
    vectors[:, OWN] = random.normal(size=(VIEWS, 8)) * ([0.7] * 2 + [0.2] * 3 + [0.05] * 3)
    points = jax.vmap(lambda vector: model_landmarks(landmark_model(model), vector, CAMERA))(jnp.asarray(vectors))
    landmarks = (np.asarray(points) + 0.4 * random.normal(size=points.shape)).astype(np.float32)
    weights = np.ones((VIEWS, 68), np.float32)
    weights[0, :17] = 0
    prior = coefficient_prior(model)
    alone = jax.jit(fit_landmarks)(model, np.zeros_like(vectors), landmarks, weights, CAMERA, prior)
    return vectors, landmarks, weights, prior, alone


@pytest.mark.slow
def test_the_minimum_is_scipys(model, views):
    truth, landmarks, weights, prior, alone = views
    joint = np.asarray(fit_joint(model, alone, landmarks, weights, CAMERA, prior))
    assert np.ptp(joint[:, :3], axis=0).max() == 0
    small = landmark_model(model)
    project = jax.jit(jax.vmap(lambda vector: model_landmarks(small, vector, CAMERA)))

    def residuals(values):
        vectors = np.zeros_like(truth)
        vectors[:, :3], vectors[:, OWN] = values[:3], values[3:].reshape(VIEWS, 8)
        errors = np.sqrt(weights)[..., None] * (np.asarray(project(vectors)) - landmarks) / (NOISE * SIZE / 224)
        penalty = np.concatenate(
            [np.sqrt(PRIOR_PER_PICTURE * VIEWS) * values[:3], (vectors[:, OWN] / prior.deviation[OWN]).ravel()]
        )
        return np.concatenate([errors.ravel(), penalty])

    ours = np.concatenate([joint[0, :3], joint[:, OWN].ravel()])
    best = scipy.optimize.least_squares(residuals, ours, diff_step=1e-3).x
    assert np.square(residuals(ours)).sum() <= np.square(residuals(best)).sum() * (1 + 1e-4)
    np.testing.assert_allclose(ours[:3], best[:3], atol=0.02)


@pytest.mark.slow
def test_together_they_know_more(model, views):
    truth, landmarks, weights, prior, alone = views
    joint = np.asarray(fit_joint(model, alone, landmarks, weights, CAMERA, prior))
    single = np.linalg.norm(np.asarray(alone)[:, :3] - truth[:, :3], axis=1)
    assert np.linalg.norm(joint[0, :3] - truth[0, :3]) < single.mean()


@pytest.mark.slow
def test_pictures_without_landmarks_count_nothing(model, views):
    _, landmarks, weights, prior, alone = views
    two = fit_joint(model, alone, landmarks, weights * [[1], [1], [0]], CAMERA, prior)
    moved = landmarks.copy()
    moved[2] = np.nan
    again = fit_joint(model, alone, moved, weights * [[1], [1], [0]], CAMERA, prior)
    np.testing.assert_allclose(two, again, atol=1e-5)
    assert np.isfinite(again).all()


@pytest.mark.slow
def test_bounds_hold(model, views):
    _, landmarks, weights, _, alone = views
    narrow = coefficient_prior(dataclasses.replace(model, expression_bounds=(0.0, 1.0)))
    joint = np.asarray(fit_joint(model, alone, landmarks, weights, CAMERA, narrow))
    assert (joint >= narrow.lower - 1e-6).all() and (joint <= narrow.upper + 1e-6).all()


def test_the_arrow_is_solved():
    random = np.random.default_rng(0)
    full = random.normal(size=(11, 11))
    full = full @ full.T + 5 * np.eye(11)
    full[3:7, 7:] = full[7:, 3:7] = 0  # 3 shared, twice 4 of their own
    right = random.normal(size=11)
    shared, own = _solve_arrow(
        jnp.asarray(full[:3, :3]),
        jnp.asarray(np.stack([full[:3, 3:7], full[:3, 7:]])),
        jnp.asarray(np.stack([full[3:7, 3:7], full[7:, 7:]])),
        jnp.asarray(right[:3]),
        jnp.asarray(right[3:].reshape(2, 4)),
    )
    np.testing.assert_allclose(np.concatenate([shared, own.ravel()]), np.linalg.solve(full, right), atol=1e-5)
