"""hidden_pixels against a plain even-odd test of every pixel, and where there is nothing to call hidden."""

import numpy as np
import pytest

from jaxface.core.parts import BACKGROUND, LABELS
from jaxface.fitting.occlusion import FACE_OUTLINE, hidden_pixels

SIZE = 40


def inside(polygon, x, y):
    """Even-odd rule: how often a ray to the right crosses an edge."""
    crossings = 0
    for (ax, ay), (bx, by) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if (ay > y) != (by > y) and x < ax + (y - ay) / (by - ay) * (bx - ax):
            crossings += 1
    return crossings % 2 == 1


def face(random, count=2):
    """Landmarks around a wobbly ellipse; labels with holes."""
    angles = np.linspace(0, 2 * np.pi, len(FACE_OUTLINE), endpoint=False)
    radius = 14 + random.uniform(-3, 3, (count, len(angles)))
    landmarks = random.uniform(0, SIZE, (count, 68, 2))
    landmarks[:, FACE_OUTLINE] = 20 + radius[..., None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    labels = np.where(random.uniform(size=(count, SIZE, SIZE)) < 0.7, LABELS["skin"], BACKGROUND)
    return labels.astype(np.uint8), landmarks.astype(np.float32)


@pytest.mark.slow
def test_matches_the_definition():
    labels, landmarks = face(np.random.default_rng(0))
    hidden = np.asarray(hidden_pixels(labels, landmarks, np.ones((2, 68))))
    for one, points, found in zip(labels, landmarks, hidden, strict=True):
        expected = [
            [one[i, j] == BACKGROUND and inside(points[FACE_OUTLINE], j + 0.5, i + 0.5) for j in range(SIZE)]
            for i in range(SIZE)
        ]
        assert 50 < np.sum(expected) < 400
        np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_nothing_is_hidden_without_a_face_or_without_its_outline():
    labels, landmarks = face(np.random.default_rng(1))
    weights = np.ones((2, 68))
    weights[0, 3] = 0
    weights[1, 40] = 0  # not of the outline
    hidden = np.asarray(hidden_pixels(labels, landmarks, weights))
    assert not hidden[0].any() and hidden[1].any()
    landmarks[:] = np.nan
    assert not np.asarray(hidden_pixels(labels, landmarks, np.zeros((2, 68)))).any()
    assert not np.asarray(
        hidden_pixels(np.full_like(labels, LABELS["nose"]), face(np.random.default_rng(2))[1], np.ones((2, 68)))
    ).any()
