"""The posterior has the covariance that the estimate tells, and its expected error is what its faces err."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.core import face_models
from jaxface.core.coefficients import column_mask
from jaxface.core.metrics import vertex_error_mm
from jaxface.fitting.estimate import Estimate
from jaxface.fitting.posterior import LEAST_MISFIT, expected_error_mm, posterior_of, shape_covariance, spread_of
from toys.models import toy_model

GEOMETRY = np.flatnonzero(np.r_[[True] * 5, [False] * 3, [True] * 3, [False] * 27, [True] * 3])


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def estimate(model):
    """Two faces with any covariances: 3 identity, 2 expression, 6 of the pose, 1 of the distance."""
    random = np.random.default_rng(0)
    root = random.normal(size=(2, 12, 12))
    precision = root @ root.transpose(0, 2, 1) + 4 * np.eye(12)
    shared = np.stack([np.linalg.inv(np.linalg.inv(one)[:3, :3]) for one in precision])
    vectors = 0.3 * random.normal(size=(2, 41))
    values = (vectors, np.array([0.5, 1.2]), precision, shared, np.array([1.0, 0.0]))
    return Estimate(*(jnp.asarray(value, jnp.float32) for value in values))


@pytest.mark.parametrize("fixed", [False, True])
def test_root_is_that_of_the_covariance_given_the_distance(model, estimate, fixed):
    held = column_mask(model, "identity") & fixed
    posterior = posterior_of(model, estimate, jnp.asarray(held))
    found = np.einsum("bkc,blc->bkl", posterior.root, posterior.root)
    free = np.flatnonzero(~held[GEOMETRY])
    for face in range(2):
        expected = np.linalg.inv(np.asarray(estimate.precision, np.float64)[face][np.ix_(free, free)])
        scale = np.ones(11)
        scale[-1] = estimate.stretch[face]
        expected = expected * np.outer(scale[free], scale[free])
        rows = GEOMETRY[free]
        np.testing.assert_allclose(found[face][np.ix_(rows, rows)], expected, rtol=1e-3, atol=1e-5)
        others = np.setdiff1d(np.arange(41), rows)
        assert not found[face][others].any()
    np.testing.assert_array_equal(posterior.at(jnp.zeros((2, 11))), estimate.vectors)


def test_shape_covariance_leaves_nothing_out(model, estimate):
    found = shape_covariance(model, estimate, jnp.zeros(41, bool))
    expected = np.linalg.inv(np.asarray(estimate.precision, np.float64))[:, :5, :5]
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-5)
    held = shape_covariance(model, estimate, jnp.asarray(column_mask(model, "identity")))
    assert not np.asarray(held)[:, :3].any()
    own = np.linalg.inv(np.asarray(estimate.precision, np.float64)[:, 3:, 3:])[:, :2, :2]
    np.testing.assert_allclose(held[:, 3:, 3:], own, rtol=2e-3)


def test_the_spread_follows_the_misfit(estimate):
    np.testing.assert_allclose(spread_of(estimate, np.float32([0.5, 0.3])), [np.exp(0.5), 1.0], rtol=1e-6)
    worse = dataclasses.replace(estimate, misfit=jnp.float32([4.0, 0.25]))
    np.testing.assert_allclose(
        spread_of(worse, np.float32([0.5, 0.3])), np.exp(0.5) * np.float32([4**0.3, 0.25**0.3]), rtol=1e-6
    )


def test_exact_points_do_not_make_a_face_sure_beyond_what_was_measured(estimate):
    exact = dataclasses.replace(estimate, misfit=jnp.float32([1e-9, LEAST_MISFIT]))
    spread = np.asarray(spread_of(exact, np.float32([0.5, 0.3])))
    assert spread[0] == spread[1] > 0.5


def test_expected_error_is_the_mean_of_what_faces_err(model, estimate):
    """Against faces drawn from the covariance and aligned one by one, by Procrustes."""
    random = np.random.default_rng(1)
    vector, covariance = np.asarray(estimate.vectors)[0], 0.02 * np.eye(5)
    covariance[0, 0] = 0.3
    found = expected_error_mm(model, vector, covariance)
    drawn = vector[:5] + random.multivariate_normal(np.zeros(5), covariance, 400).astype(np.float32)
    shapes = face_models.shape(model, jnp.asarray(drawn[:, :3]), jnp.asarray(drawn[:, 3:]))
    true = face_models.shape(model, jnp.asarray(vector[None, :3]), jnp.asarray(vector[None, 3:5]))
    errors = jax.vmap(lambda one: vertex_error_mm(one[None], true, align="similarity")[0])(shapes)
    assert abs(found.mean() / float(np.mean(errors)) - 1) < 0.15
    assert expected_error_mm(model, vector, np.zeros((5, 5))).max() == 0
