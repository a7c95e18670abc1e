"""The estimate is the minimum of its cost, of one picture and of several, by SciPy; it knows how sure it is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxface import Camera
from jaxface.core.coefficients import vector_size
from jaxface.fitting import coefficient_prior
from jaxface.fitting.estimate import SAME_MISTAKES, distance_prior, estimate_faces, estimate_person
from jaxface.fitting.evidence import dense_evidence, errors_at, evidence_points
from jaxface.fitting.posterior import posterior_of, shape_covariance
from toys.evidence import toy_calibration
from toys.models import toy_model

SIZE, VIEWS = 64, 3
pytestmark = [pytest.mark.usefixtures("quick_compilation"), pytest.mark.slow]
CAMERA = Camera().resized(SIZE)
OWN = np.r_[3:5, 8:11, 38:41]  # of the toy: expression, angles, translation
LOG_STRETCH = np.float32([0.1, 0.3])
NOTHING_HELD = np.zeros(41, bool)


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def prior(model):
    return coefficient_prior(model, identity_mean=np.float32([0.5, 0, -0.5]))


@pytest.fixture(scope="module")
def evidence(model):
    return dense_evidence(model, toy_calibration(model, points=40, noise=1.0, correlated=3.0))


@pytest.fixture(scope="module")
def views(model, evidence):
    """One person in three pictures: the truth, noisy points, and which are known."""
    random = np.random.default_rng(0)
    vectors = np.zeros((VIEWS, vector_size(model)), np.float32)
    vectors[:, :3] = random.normal(size=3)
    vectors[:, OWN] = random.normal(size=(VIEWS, 8)) * ([0.7] * 2 + [0.2] * 3 + [0.05] * 3)
    points = jax.vmap(lambda vector: evidence_points(evidence, vector, CAMERA))(jnp.asarray(vectors))
    noisy = (np.asarray(points) + 0.4 * random.normal(size=points.shape)).astype(np.float32)
    known = np.ones(noisy.shape[:2], np.float32)
    known[0, :7] = 0
    return vectors, noisy, known


@pytest.fixture(scope="module")
def estimate(evidence, prior):
    log_stretch = jnp.broadcast_to(LOG_STRETCH, (VIEWS, 2))

    @jax.jit
    def together(points, known, prior, held=NOTHING_HELD):
        zeros = jnp.zeros((VIEWS, 41))
        return estimate_person(evidence, zeros, points, known, CAMERA, prior, held=held, log_stretch=log_stretch)

    return together


@pytest.fixture(scope="module")
def alone(evidence, prior):
    log_stretch = jnp.broadcast_to(LOG_STRETCH, (VIEWS, 2))
    zeros = jnp.zeros((VIEWS, 41))
    return jax.jit(
        lambda points, known: estimate_faces(
            evidence, zeros, points, known, CAMERA, prior, held=NOTHING_HELD, log_stretch=log_stretch
        )
    )


def dense_covariances(evidence, yaws):
    """Of each picture, at its yaw, by the definition."""
    result = []
    for yaw in yaws:
        variance, factor = (np.asarray(x, np.float64) for x in errors_at(evidence, jnp.float32(yaw)))
        result.append(np.diag(variance) + factor @ factor.T)
    return result


def scipy_residuals(evidence, prior, noisy, known, covariances, tempering):
    """Whitened residuals of values identity 3 | per picture (expression, angles, translation, log stretch) 9."""

    @jax.jit
    def project(vector, stretch):
        return evidence_points(evidence, vector, CAMERA.stretched(stretch))

    def residuals(values):
        own = values[3:].reshape(-1, 9)
        rows = [(values[:3] - prior.mean[:3]) / prior.deviation[:3]]
        for index in range(len(own)):
            vector = np.zeros(41, np.float32)
            vector[:3], vector[OWN] = values[:3], own[index, :8]
            stretch = np.exp(own[index, 8])
            rows.append((own[index, :8] / prior.deviation[OWN]) / np.r_[np.ones(7), stretch])
            rows.append([(own[index, 8] - LOG_STRETCH[0]) / LOG_STRETCH[1]])
            seen = np.repeat(known[index] > 0, 2)
            error = ((np.asarray(project(vector, stretch)) - noisy[index]) * 224 / SIZE).ravel()[seen]
            root = np.linalg.cholesky(covariances[index][np.ix_(seen, seen)])
            rows.append(np.sqrt(tempering) * np.linalg.solve(root, error))
        return np.concatenate(rows)

    return residuals


def as_values(estimate):
    vectors, stretch = np.asarray(estimate.vectors), np.asarray(estimate.stretch)
    return np.concatenate([vectors[0, :3], np.concatenate([vectors[:, OWN], np.log(stretch)[:, None]], -1).ravel()])


def test_the_minimum_of_all_pictures_is_scipys(evidence, prior, views, estimate):
    _, noisy, known = views
    found = estimate(noisy, known, prior)
    assert np.ptp(np.asarray(found.vectors)[:, :3], axis=0).max() == 0
    covariances = dense_covariances(evidence, np.asarray(found.vectors)[:, 9])
    tempering = 1 / (1 + SAME_MISTAKES * (VIEWS - 1))
    residuals = scipy_residuals(evidence, prior, noisy, known, covariances, tempering)
    ours = as_values(found)
    best = scipy.optimize.least_squares(residuals, ours, diff_step=1e-3).x
    assert np.square(residuals(ours)).sum() <= np.square(residuals(best)).sum() * (1 + 1e-3)
    np.testing.assert_allclose(ours[:3], best[:3], atol=0.03)


def test_the_minimum_of_one_picture_is_scipys_and_its_spread_the_curvature(evidence, prior, views, alone):
    _, noisy, known = views
    found = alone(noisy, known)
    covariances = dense_covariances(evidence, np.asarray(found.vectors)[:, 9])
    for index in range(VIEWS):
        one = [slice(index, index + 1)]
        residuals = scipy_residuals(
            evidence, prior, noisy[one[0]], known[one[0]], covariances[index : index + 1], tempering=1.0
        )
        ours = as_values(jax.tree.map(lambda x, index=index: x[index : index + 1], found))
        fit = scipy.optimize.least_squares(residuals, ours, diff_step=1e-3)
        assert np.square(residuals(ours)).sum() <= 2 * fit.cost * (1 + 1e-3)
        precision = np.asarray(found.precision)[index]
        slopes = np.stack([(residuals(ours + d) - residuals(ours - d)) / 2e-2 for d in 1e-2 * np.eye(12)], axis=-1)
        curvature = slopes.T @ slopes
        depth_scale = np.ones(12)
        depth_scale[10] = np.asarray(found.stretch)[index]  # depth is counted in distances of the usual camera
        scale = np.sqrt(np.diag(precision))
        np.testing.assert_allclose(
            precision[:11, :11] / np.outer(scale, scale)[:11, :11],
            (curvature * np.outer(depth_scale, depth_scale) / np.outer(scale, scale))[:11, :11],
            atol=0.02,
        )
        together = np.linalg.inv(np.linalg.inv(precision)[:3, :3])
        np.testing.assert_allclose(np.asarray(found.shared)[index], together, rtol=2e-2, atol=2e-2)


def test_together_they_know_more(views, prior, estimate, alone):
    truth, noisy, known = views
    joint, single = estimate(noisy, known, prior), alone(noisy, known)
    assert (
        np.linalg.eigvalsh(np.asarray(joint.shared)[0]).min() > np.linalg.eigvalsh(np.asarray(single.shared)[0]).min()
    )
    errors = np.linalg.norm(np.asarray(single.vectors)[:, :3] - truth[:, :3], axis=1)
    assert np.linalg.norm(np.asarray(joint.vectors)[0, :3] - truth[0, :3]) < errors.mean()


def test_pictures_without_points_count_nothing(views, prior, estimate):
    _, noisy, known = views
    two = known * np.float32([[1], [1], [0]])
    moved = noisy.copy()
    moved[2] = np.nan
    for one, other in zip(
        jax.tree.leaves(estimate(noisy, two, prior)), jax.tree.leaves(estimate(moved, two, prior)), strict=True
    ):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, other, atol=1e-4, rtol=1e-4)
    none = estimate(moved, np.zeros_like(known), prior)
    np.testing.assert_allclose(none.vectors[:, :3], np.broadcast_to(prior.mean[:3], (3, 3)), atol=1e-5)


def test_bounds_hold_and_what_is_held_stays(model, views, prior, estimate):
    _, noisy, known = views
    narrow = coefficient_prior(dataclasses.replace(model, expression_bounds=(0.0, 1.0)))
    vectors = np.asarray(estimate(noisy, known, narrow).vectors)
    assert (vectors >= narrow.lower - 1e-6).all() and (vectors <= narrow.upper + 1e-6).all()
    held = NOTHING_HELD.copy()
    held[:4] = True
    np.testing.assert_array_equal(np.asarray(estimate(noisy, known, prior, held).vectors)[:, :4], 0)


def test_a_stretched_camera_is_found_where_the_points_tell_it(model, prior):
    """A face close by: its middle is larger. With nearly exact points the distance comes out, and without them not."""
    evidence = dense_evidence(model, toy_calibration(model, points=400, noise=0.01))
    truth = np.zeros((1, 41), np.float32)
    near = CAMERA.stretched(0.5)
    points = evidence_points(evidence, jnp.asarray(truth[0]), near)[None]
    options = {"held": np.arange(41) < 5, "log_stretch": jnp.array([[0.0, 0.5]])}
    known = jnp.ones((1, 400))
    zeros = jnp.zeros((1, 41))
    found = estimate_faces(evidence, zeros, points, known, CAMERA, prior, **options)
    assert abs(float(found.stretch[0]) - 0.5) < 0.02
    unknown = estimate_faces(evidence, zeros, points, 0 * known, CAMERA, prior, **options)
    assert abs(float(unknown.stretch[0]) - 1) < 1e-3


def test_what_is_held_is_sure_and_makes_the_others_surer(model, views, prior, estimate):
    """Half of the identity and half of the expression held: the rest has the covariance that the curvature gives."""
    _, noisy, known = views
    held = NOTHING_HELD.copy()
    held[[0, 3]] = True
    found = estimate(noisy, known, prior, held)
    covariance = np.asarray(shape_covariance(model, found, jnp.asarray(held)))
    assert not covariance[:, [0, 3]].any() and not covariance[:, :, [0, 3]].any()
    alone = np.asarray(found.precision, np.float64)
    together = np.zeros((3 + 9 * VIEWS, 3 + 9 * VIEWS))
    for index, one in enumerate(alone):
        own = slice(3 + 9 * index, 12 + 9 * index)
        together[:3, :3] += one[:3, :3] - np.diag([0, 1, 1])  # the prior of the identity counts once
        together[:3, own], together[own, :3], together[own, own] = one[:3, 3:], one[3:, :3], one[3:, 3:]
    together[:3, :3] += np.diag([0, 1, 1])
    inverse = np.linalg.inv(together)
    for index in range(VIEWS):
        free, rows = np.ix_([1, 2, 4], [1, 2, 4]), np.array([1, 2, 4 + 9 * index])
        np.testing.assert_allclose(covariance[index][free], inverse[np.ix_(rows, rows)], rtol=0.02)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_points_leave_the_pose_open_and_everything_finite(model, views, prior, estimate, alone, count):
    _, noisy, known = views
    few = known * (np.arange(known.shape[1]) < 7 + count) * (np.arange(known.shape[1]) >= 7)
    others = np.concatenate([few[:1], known[1:]])
    for found in (alone(noisy, few), estimate(noisy, few, prior), estimate(noisy, others, prior)):
        root = np.asarray(posterior_of(model, found, jnp.asarray(NOTHING_HELD)).root)
        assert np.isfinite(root).all() and np.abs(root).max() < 2
        covariance = np.asarray(shape_covariance(model, found, jnp.asarray(NOTHING_HELD)))
        assert np.linalg.eigvalsh(covariance).min() > 0 and np.linalg.eigvalsh(covariance).max() < 1.1


def test_points_that_are_not_finite_count_nothing(views, prior, estimate):
    _, noisy, known = views
    broken = noisy.copy()
    broken[0, :9], broken[1, 0, 0], broken[2] = np.nan, np.inf, np.nan
    unknown = known * np.isfinite(broken).all(-1)
    for one, other in zip(
        jax.tree.leaves(estimate(broken, known, prior)), jax.tree.leaves(estimate(noisy, unknown, prior)), strict=True
    ):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, other, atol=1e-4, rtol=1e-4)


def test_focal_lengths_that_cannot_be_are_not_believed():
    focal = np.float32([np.nan, 0, -5, np.inf, 3, 2000])
    found = np.asarray(distance_prior(focal, Camera(), deviation=0.4))
    np.testing.assert_allclose(found[:5], np.broadcast_to(np.float32([0, 0.4]), (5, 2)), atol=1e-6)
    np.testing.assert_allclose(found[5], [np.log(2000 / 1015), 0.05], rtol=1e-5)
