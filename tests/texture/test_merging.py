"""Textures of several photos in one: exposures made equal, hidden places left to other photos, details kept."""

import numpy as np
import pytest

from jaxface.texture import merging

SIZE = 64


@pytest.fixture(scope="module")
def truth():
    """Slow colours with fine detail on them."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    slow = np.stack([0.5 + 0.1 * np.sin(3 * x), 0.4 + 0.1 * y, 0.35 + 0.05 * np.cos(4 * y)], axis=-1)
    return slow + 0.05 * random.normal(size=(SIZE, SIZE, 1))


def halves():
    """Two photos that see the left and the right part; both see the middle."""
    x = np.linspace(0, 1, SIZE)[None].repeat(SIZE, 0)
    return [np.clip(3 - 4 * x, 0, 1), np.clip(4 * x - 1, 0, 1)]


def test_one_texture_is_returned(truth):
    assert merging.merge_textures([truth], [np.ones((SIZE, SIZE))]) is truth


def test_equal_textures_stay(truth):
    merged = merging.merge_textures([truth, truth, truth], [*halves(), np.zeros((SIZE, SIZE))])
    np.testing.assert_allclose(merged, truth, atol=1e-5)


def test_each_half_comes_from_the_photo_that_sees_it(truth):
    left, right = halves()
    wrong = np.array([0.9, 0.1, 0.1])
    textures = [np.where(left[..., None] > 0, truth, wrong), np.where(right[..., None] > 0, truth, wrong)]
    merged = merging.merge_textures(textures, [left, right])
    assert np.abs(merged - truth)[:, 4:-4].mean() < 0.02
    assert np.abs(np.mean(textures, 0) - truth).mean() > 0.07


def test_exposures_are_made_equal(truth):
    textures = [0.8 * truth, 1.25 * truth * [1.1, 1.0, 1 / 1.1]]
    merged = merging.merge_textures(textures, halves())
    wanted = truth * np.sqrt([0.8 * 1.25 * 1.1, 0.8 * 1.25, 0.8 * 1.25 / 1.1])
    assert np.abs(merged - wanted).mean() < 0.01
    ratio = merged / truth
    assert ratio[:, :16].mean() / ratio[:, -16:].mean() == pytest.approx(1, abs=0.02)


def test_what_one_photo_of_many_shows_differently_is_left_out(truth):
    odd = truth.copy()
    odd[20:44, 20:44] = [0.1, 0.9, 0.9]  # a hand
    everywhere = np.ones((SIZE, SIZE))
    merged = merging.merge_textures([truth, odd, truth, truth], [everywhere] * 4)
    assert np.abs(merged - truth)[24:40, 24:40].mean() < 0.02


def test_details_are_not_averaged_away():
    random = np.random.default_rng(0)
    textures = [0.5 + 0.1 * random.choice([-1, 1], size=(SIZE, SIZE, 1)) * np.ones(3) for _ in range(4)]
    weights = [np.full((SIZE, SIZE), weight) for weight in (1.0, 0.5, 0.5, 0.5)]
    merged = merging.merge_textures(textures, weights)
    assert merged.std() > 0.08 > 0.06 > np.mean(textures, 0).std()


def test_light_that_differs_across_the_face_leaves_no_edge():
    """One photo darkens to the right, the other to the left and is redder; they meet in the middle."""
    size, step = 256, 16
    x = np.linspace(-1, 1, size)[None, :, None].repeat(size, 0)
    skin = 0.5 + 0.02 * np.random.default_rng(0).normal(size=(size, size, 3))
    textures = [skin * np.exp(-0.25 * x), skin * np.exp(0.25 * x) * np.array([1.2, 1.0, 0.8])]
    weights = [np.float32(x[..., 0] < 0.3), np.float32(x[..., 0] > -0.3)]

    def sharpest_bend(texture):
        along = np.log(texture / skin).mean(0)
        return np.abs(along[2 * step :] - 2 * along[step:-step] + along[: -2 * step]).max()

    pasted = sum(t * w[..., None] for t, w in zip(textures, weights, strict=True)) / sum(weights)[..., None]
    assert sharpest_bend(merging.merge_textures(textures, weights)) < 0.07 < sharpest_bend(pasted) / 2
