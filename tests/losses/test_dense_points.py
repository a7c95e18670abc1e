import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import special, stats

from jaxface.losses.dense_points import FAR, class_loss, point_likelihood_loss, spread_loss, visibility_loss

RANDOM = np.random.default_rng(0)


def points(count=7, near=1.0):
    """Means, whitening numbers and true points; most errors within `near` standard deviations."""
    position = RANDOM.normal(size=(2, count, 2))
    whitening = np.stack([*RANDOM.uniform(0.5, 3, (2, 2, count)), RANDOM.normal(size=(2, count))], -1)
    return position, whitening, position + near * RANDOM.normal(size=(2, count, 2)) / 5


def test_points_within_their_deviations_have_the_likelihood_of_a_gaussian():
    position, whitening, truth = points()
    expected = np.zeros(2)
    for sample in range(2):
        for mean, (a, b, c), point in zip(position[sample], whitening[sample], truth[sample], strict=True):
            matrix = np.array([[a, 0], [c, b]])
            cloud = stats.multivariate_normal(mean, np.linalg.inv(matrix.T @ matrix))
            expected[sample] -= (cloud.logpdf(point) + np.log(2 * np.pi)) / position.shape[1]
    with jax.enable_x64(True):
        found = point_likelihood_loss(*(jnp.asarray(array) for array in (position, whitening, truth)))
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_far_points_count_linearly_and_every_slope_is_right():
    position, whitening, truth = points(near=40)
    with jax.enable_x64(True):
        check_grads(lambda *a: point_likelihood_loss(*a, truth), (position, whitening), 1, modes=["rev"], rtol=1e-6)
        one = jnp.zeros((1, 1, 2)), jnp.ones((1, 1, 3)).at[..., 2].set(0)
        far = [float(point_likelihood_loss(*one, jnp.full((1, 1, 2), 0.0).at[..., 0].set(x))[0]) for x in (10, 11)]
        assert far[1] - far[0] == pytest.approx(FAR)
        at_truth = jax.grad(lambda p: point_likelihood_loss(p, one[1], jnp.zeros((1, 1, 2))).sum())(one[0])
        assert np.array_equal(at_truth, np.zeros((1, 1, 2)))


def test_the_likelihood_is_best_at_the_true_spread():
    errors = RANDOM.normal(size=(1, 4000, 2)) * [0.02, 0.05]
    at = [point_likelihood_loss(jnp.zeros_like(errors), jnp.array([[[a, 20.0, 0.0]]]), errors)[0] for a in (40, 50, 60)]
    assert at[1] < min(at[0], at[2])


def test_visibility_is_binary_cross_entropy():
    logits, seen = RANDOM.normal(size=(3, 5)) * 4, RANDOM.integers(0, 2, (3, 5))
    likelihood = np.where(seen > 0, special.expit(logits), special.expit(-logits))
    np.testing.assert_allclose(visibility_loss(jnp.asarray(logits), seen), -np.log(likelihood).mean(1), rtol=1e-5)
    assert np.isfinite(visibility_loss(jnp.array([[-1e4, 1e4]]), jnp.array([[1.0, 0.0]]))).all()


@pytest.mark.parametrize("block", [1, 2])
def test_class_loss_is_the_weighted_cross_entropy_of_every_pixel(block):
    logits, classes = RANDOM.normal(size=(2, 3, 4, 5)), RANDOM.integers(0, 5, (2, 3 * block, 4 * block))
    weights = np.array([1, 2, 0.5, 3, 1.0])
    expected = []
    for sample in range(2):
        total = weight = 0.0
        for row, column in np.ndindex(classes.shape[1:]):
            log = special.log_softmax(logits[sample, row // block, column // block])
            index = classes[sample, row, column]
            total, weight = total - weights[index] * log[index], weight + weights[index]
        expected.append(total / weight)
    np.testing.assert_allclose(class_loss(jnp.asarray(logits), classes, weights), expected, rtol=1e-5)
    with jax.enable_x64(True):
        check_grads(lambda x: class_loss(x, classes, weights), (logits,), 1, modes=["rev"], rtol=1e-6)


def test_spread_loss_is_a_gaussian_likelihood():
    error, log_spread = RANDOM.normal(size=(2, 6)), RANDOM.normal(size=(2, 6))
    weights = RANDOM.uniform(size=6)
    expected = -(weights * (stats.norm.logpdf(error, scale=np.exp(log_spread)) + 0.5 * np.log(2 * np.pi))).sum(1)
    np.testing.assert_allclose(spread_loss(jnp.asarray(error), jnp.asarray(log_spread), weights), expected, rtol=1e-5)
