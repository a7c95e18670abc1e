"""Light that a fit left in skin, and light that it made up."""

import numpy as np
import pytest

from jaxface.texture import lighting

SIZE = 96


def test_a_side_that_is_not_seen_has_no_colour_of_its_own():
    shading = np.array([[1.0, 1, 1], [1, 1, 1], [1, 1, 1], [0.7, 0.8, 1.1]], np.float32)
    seen = np.array([1.0, 1, 1, 0], np.float32)
    steady = lighting.steady_shading(shading, seen)
    np.testing.assert_allclose(steady[:3], 1, atol=0.02)
    assert np.ptp(steady[3]) < 1e-6 and steady[3, 0] == pytest.approx((0.7 * 0.8 * 1.1) ** (0.4 / 3), abs=0.02)


def test_medians_are_those_of_repeated_values():
    random = np.random.default_rng(0)
    values, counts = random.normal(size=(5, 5, 3)), random.integers(0, 5, (5, 5))
    plain = np.repeat(values.reshape(-1, 3), counts.ravel(), axis=0)
    found = lighting.weighted_medians(values, counts.astype(float))
    ranked = np.sort(plain, axis=0)
    np.testing.assert_allclose(found, ranked[(len(ranked) - 1) // 2])
    assert (lighting.weighted_medians(values, np.zeros((5, 5))) == 0).all()


def test_slow_light_is_found_and_a_beard_is_not():
    x = np.linspace(-1, 1, SIZE)[None, :, None].repeat(SIZE, 0).repeat(3, 2)
    light = 0.2 * x
    beard = np.zeros((SIZE, SIZE, 3))
    beard[70:80, 30:60] = -2.0
    found = lighting.uneven_light(0.7 + light + beard, np.ones((SIZE, SIZE)))
    inner = (slice(10, 60), slice(10, -10))
    np.testing.assert_allclose(found[inner], light[inner], atol=0.02)
    assert np.abs(found[72:78, 35:55] - light[72:78, 35:55]).max() < 0.1
    assert (lighting.uneven_light(light, np.zeros((SIZE, SIZE))) == 0).all()


def test_halves_become_alike_and_what_they_share_stays_in_part():
    mirror = np.array([1, 0, 2])
    uneven = np.array([[0.3] * 3, [-0.1] * 3, [0.2] * 3])
    left = uneven - lighting.evened_out(uneven, mirror)
    np.testing.assert_allclose(left[0], left[1])
    np.testing.assert_allclose(left[0], (1 - lighting.SYMMETRIC_SHARE) * 0.1)
    assert lighting.evened_out(uneven, None) == pytest.approx(lighting.SYMMETRIC_SHARE * uneven)
