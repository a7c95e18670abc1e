"""What of a crop is bare skin, on pictures made of known pieces, and on a drawn person's photo."""

import sys

import numpy as np
import pytest
import scipy.ndimage

from jaxface.core.parts import CLASSES
from jaxface.texture import skin

SIZE, COARSE = skin.SIZE, 64
SKIN, HAIR, FRAME, WALL = (0.8, 0.6, 0.5), (0.25, 0.15, 0.1), (0.1, 0.1, 0.12), (0.3, 0.5, 0.7)
ROW, COLUMN = np.mgrid[:SIZE, :SIZE] + 0.5


def made():
    """A face with a fringe, a strand that hangs from it, and glasses: picture, true classes, parser's shares."""
    classes = np.zeros((SIZE, SIZE), int)
    across, down = COLUMN - 128, ROW - 140
    face = (across / 70) ** 2 + (down / 95) ** 2 < 1
    classes[face] = CLASSES.index("skin")
    for x, name in ((98, "right_eye"), (158, "left_eye")):
        classes[((COLUMN - x) / 12) ** 2 + ((ROW - 125) / 5) ** 2 < 1] = CLASSES.index(name)
    classes[face & (down < -55)] = CLASSES.index("hair")
    strand = face & (abs(COLUMN - 128) < 2) & (down < -43)
    rings = [abs(np.hypot(COLUMN - x, ROW - 125) - 22) < 2 for x in (98, 158)]
    frame = rings[0] | rings[1] | ((abs(COLUMN - 128) < 8) & (abs(ROW - 125) < 2))
    classes[frame] = CLASSES.index("glasses")
    told = classes.copy()  # the parser saw no strand
    classes[strand] = CLASSES.index("hair")
    colors = np.array([WALL if name == "background" else SKIN for name in CLASSES])
    colors[[CLASSES.index("hair"), CLASSES.index("glasses")]] = HAIR, FRAME
    colors[[CLASSES.index("left_eye"), CLASSES.index("right_eye")]] = 0.4, 0.3, 0.2
    picture = colors[classes] + 0.01 * np.random.default_rng(0).normal(size=(SIZE, SIZE, 3))
    picture = np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8)
    side = SIZE // COARSE
    shares = np.eye(len(CLASSES), dtype=np.float32)[told]
    shares = shares.reshape(COARSE, side, COARSE, side, -1).mean((1, 3))
    return picture, classes, shares, (face | (classes > 0)).astype(np.uint8)


def test_hair_strand_and_frames_are_no_skin():
    picture, classes, shares, drawn = made()
    bare = skin.bare_skin(picture, shares, drawn)
    assert bare.shape == (SIZE, SIZE) and bare.dtype == np.float32 and bare.min() >= 0 and bare.max() <= 1
    for name in ("background", "hair", "glasses"):
        assert bare[classes == CLASSES.index(name)].max() < 0.05, name
    cheeks = (classes == CLASSES.index("skin")) & (ROW > 165) & (np.hypot((COLUMN - 128) / 70, (ROW - 140) / 95) < 0.8)
    assert bare[cheeks].min() == 1
    assert bare[120:130, 93:103].min() == 1  # the eyes behind clear glasses stay


def test_glasses_may_stay():
    picture, classes, shares, drawn = made()
    glasses = (classes == CLASSES.index("glasses")) & (ROW > 115)
    kept = skin.bare_skin(picture, shares, drawn, keep_glasses=True)
    assert kept[glasses].mean() > 0.9
    assert kept[classes == CLASSES.index("hair")].max() < 0.05


def test_shining_glasses_show_no_eyes():
    picture, _, shares, drawn = made()
    lens = np.hypot(COLUMN - 98, ROW - 125) < 20
    picture[lens] = 240
    bare = skin.bare_skin(picture, shares, drawn)
    assert bare[lens].max() < 0.05 and bare[120:130, 153:163].min() == 1


def test_a_parser_that_sees_the_face_elsewhere_is_not_asked():
    picture, _, shares, drawn = made()
    nothing = np.zeros_like(shares)
    nothing[..., 0] = 1
    assert skin.bare_skin(picture, nothing, drawn) is None
    elsewhere = np.zeros_like(drawn)
    elsewhere[:60, :60] = 1
    assert skin.bare_skin(picture, shares, elsewhere) is None
    assert skin.bare_skin(picture, shares, 0 * drawn) is None


def test_a_picture_in_one_colour_is_as_the_parser_says():
    picture, classes, shares, drawn = made()
    bare = skin.bare_skin(np.full_like(picture, 128), shares, drawn)
    assert bare[classes == CLASSES.index("hair")].mean() < 0.2 and bare[200, 128] == 1


def test_the_inside_of_a_mouth():
    picture, _, shares, _ = made()
    shares = shares.copy()
    assert (skin.open_mouth(picture, shares) == 0).all()
    shares[48:52, 28:36] = np.eye(len(CLASSES))[CLASSES.index("inner_mouth")]
    picture[192:208, 112:144] = 250
    mouth = skin.open_mouth(picture, shares)
    assert mouth[195:205, 116:140].min() > 0.9 and mouth[:180].max() == 0 and mouth[220:].max() == 0


def test_guided_filter_is_its_definition():
    """He, Sun and Tang 2013, eq. 19 to 21, window by window."""
    random = np.random.default_rng(1)
    guide, values = random.uniform(size=(12, 12, 3)), random.uniform(size=(12, 12))
    radius, tolerance = 1, 0.01
    slopes, offsets = {}, {}
    for row in range(2, 10):
        for column in range(2, 10):
            window = (slice(row - radius, row + radius + 1), slice(column - radius, column + radius + 1))
            colors, told = guide[window].reshape(-1, 3), values[window].ravel()
            spread = np.cov(colors.T, bias=True) + tolerance * np.eye(3)
            slope = np.linalg.solve(spread, (colors * told[:, None]).mean(0) - colors.mean(0) * told.mean())
            slopes[row, column], offsets[row, column] = slope, told.mean() - slope @ colors.mean(0)
    around = [(row, column) for row in range(4, 7) for column in range(4, 7)]
    expected = np.mean([slopes[at] for at in around], 0) @ guide[5, 5] + np.mean([offsets[at] for at in around])
    found = skin._guided(values, guide, radius=radius, tolerance=tolerance)[5, 5]
    assert found == pytest.approx(np.clip(expected, 0, 1), abs=1e-6)


def test_hull_is_convex_and_tight():
    chosen = np.zeros((20, 20), bool)
    chosen[[2, 2, 15], [3, 17, 10]] = True
    hull = skin._hull(chosen)
    assert hull[chosen].all() and hull[8, 10] and not hull[15, 3] and not hull[16].any() and not hull[:2].any()
    assert hull.sum() == pytest.approx(0.5 * 14 * 13, rel=0.15)
    for flat in (np.zeros((5, 5), bool), np.eye(5, dtype=bool)[:1].repeat(5, 0)):
        assert (skin._hull(flat) == flat).all()


def test_distances_against_scipy():
    inside = np.random.default_rng(0).uniform(size=(9, 9)) < 0.7
    np.testing.assert_allclose(skin._distance(inside), scipy.ndimage.distance_transform_edt(inside), rtol=1e-6)
    assert (skin._distance(np.ones((4, 6), bool)) == 6).all()


def test_without_flax_the_parser_is_not_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "jaxface.networks.parser", None)
    picture, *_ = made()
    with pytest.raises(ModuleNotFoundError):  # a module of our own that is missing is no missing package
        skin.class_shares(picture)
    monkeypatch.undo()

    class Missing:
        def find_spec(self, name, *_):
            if name.startswith("jaxface.networks.parser"):
                raise ModuleNotFoundError("No module named 'flax'", name="flax")

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "jaxface.networks.parser", raising=False)
    assert skin.class_shares(picture) is None
