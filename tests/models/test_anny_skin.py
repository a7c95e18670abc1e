"""The built-in face model's skin: tones of the world, symmetric, and wrinkled with age."""

import numpy as np
from skimage import color

from jaxface.synthetic.people import SKIN_TONES


def test_skin_tones_of_the_world(anny):
    """Each swatch of the Monk scale by tones alone, whose first direction is lightness; the mean is a middle one."""
    scale = "f6ede4 f3e7db f7ead0 eadaba d7bd96 a07e56 825c43 604134 3a312a 292420".split()
    swatches = color.rgb2lab(np.array([[int(tone[i : i + 2], 16) / 255 for i in (0, 2, 4)] for tone in scale]))
    skin = anny.parts["skin"]
    tone, directions = anny.mean_albedo[skin].mean(0), anny.albedo_basis[skin, :, :3].mean(0)
    assert 50 < color.rgb2lab(tone)[0] < 62
    ball = np.random.default_rng(0).normal(size=(200_000, 3))
    ball *= 2.5 * np.random.default_rng(1).random((len(ball), 1)) / np.linalg.norm(ball, axis=1, keepdims=True)
    found = color.rgb2lab(np.clip(tone + ball @ directions.T, 0.01, 0.99))
    nearest = np.array([np.linalg.norm(found - swatch, axis=1).min() for swatch in swatches])
    assert nearest.max() < 10 and np.median(nearest) < 3.5, nearest


def test_drawn_skins_are_those_of_people(anny):
    """The ten run from very light to dark evenly, and the light ones are no paper: reddish, and darker than it."""
    skin = anny.parts["skin"]
    tone, directions = anny.mean_albedo[skin].mean(0), anny.albedo_basis[skin, :, :3].mean(0)
    lightness, red, yellow = color.rgb2lab(tone + SKIN_TONES @ directions.T).T
    assert (np.diff(lightness) < 0).all() and lightness[0] < 76 and 20 < lightness[-1] < 25
    assert (red > 5).all() and (red[:5] > 8).all() and (yellow > 6).all()
    angle = np.degrees(np.arctan2(lightness - 50, yellow))  # the individual typology angle
    assert angle[0] > 55 and angle[-3:].max() < -30 and np.abs(np.diff(angle)).max() < 35
    assert np.linalg.norm(SKIN_TONES, axis=1).max() < 2.5  # within what is drawn


def test_skin_is_the_same_on_both_sides(anny):
    """The mean, and every direction but those that only tell the sides apart, and the freckles."""
    mean, basis = anny.mean_albedo, anny.albedo_basis
    np.testing.assert_allclose(mean[anny.mirror], mean, atol=1e-6)
    even, odd = (np.abs(basis[anny.mirror] + sign * basis).max((0, 1)) < 1e-6 for sign in (-1, 1))
    assert np.sum(odd & ~even) == 8 and np.sum(~odd & ~even) == 1
    assert even[:5].all()  # tones, age, sex


def test_old_skin_is_wrinkled(anny):
    """Towards age, skin varies more from each vertex to those beside it."""
    edges = anny.triangles[np.isin(anny.triangles, anny.parts["skin"]).all(1)][:, :2]
    young, old = (anny.mean_albedo + age * anny.albedo_basis[..., 3] for age in (-2, 2))
    rough_young, rough_old = (np.abs(np.diff(skin[edges], axis=1)).mean() for skin in (young, old))
    assert rough_old > 1.07 * rough_young
