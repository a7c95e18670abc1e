"""Membranes against a dense solve of the equation as it is written down."""

import numpy as np
import pytest

from jaxface.texture.membranes import STIFFNESS, membrane


def dense_membrane(values, weights, covered, links, screening):
    """sum over pairs (m_i - m_j)^2 + sum STIFFNESS w (m - v)^2 + screening sum m^2, by its normal equations."""
    height, width = covered.shape
    system, right = np.zeros((height * width,) * 2), np.zeros((height * width, values.shape[-1]))
    pairs = [(i * width + j, i * width + j + 1) for i in range(height) for j in range(width - 1)]
    pairs += [(i * width + j, (i + 1) * width + j) for i in range(height - 1) for j in range(width)]
    for a, b in [*pairs, *links]:
        if covered.flat[a] and covered.flat[b]:
            for i, j in ((a, b), (b, a)):
                system[i, i] += 1
                system[i, j] -= 1
    for i in range(height * width):
        system[i, i] += STIFFNESS * weights.flat[i] + screening
        right[i] = STIFFNESS * weights.flat[i] * values.reshape(-1, values.shape[-1])[i]
    result = np.linalg.solve(system, right).reshape(values.shape)
    return np.where(covered[..., None], result, 0)


@pytest.mark.parametrize("links", [[], [(3, 95), (40, 41), (0, 60)]])
def test_same_as_a_dense_solve(links):
    random = np.random.default_rng(0)
    covered = np.zeros((9, 12), bool)
    covered[1:8, 1:6] = covered[2:6, 7:11] = True  # two islands
    covered[4, 3] = False
    covered.flat[[3, 95, 40, 41]] = True
    weights = random.uniform(size=covered.shape) * (random.uniform(size=covered.shape) < 0.2)
    values = random.normal(size=(*covered.shape, 2)).astype(np.float32)
    result = membrane(values, weights, covered, links=np.array(links, int).reshape(-1, 2), screening=1e-3)
    expected = dense_membrane(values.astype(float), weights * covered, covered, links, 1e-3)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_a_constant_fills_its_island_and_no_other():
    covered = np.ones((16, 16), bool)
    covered[:, 8] = False
    weights = np.zeros((16, 16))
    weights[3, 2] = 1
    values = np.full((16, 16, 3), 0.7, np.float32)
    result = membrane(values, weights, covered)
    np.testing.assert_allclose(result[:, :8], 0.7, atol=1e-3)
    np.testing.assert_allclose(result[:, 8:], 0, atol=1e-6)
    joined = membrane(values, weights, covered, links=np.array([[7, 9]]))
    np.testing.assert_allclose(joined[:, 9:], 0.7, atol=1e-3)


def test_nothing_covered_or_known_is_zero():
    values = np.ones((4, 4, 3), np.float32)
    assert (membrane(values, np.ones((4, 4)), np.zeros((4, 4), bool)) == 0).all()
    assert (membrane(values, np.zeros((4, 4)), np.ones((4, 4), bool)) == 0).all()
