"""Heads that lie or stand upside down: which way to turn them, and the coefficients of turned pictures."""

import numpy as np
import pytest

import jaxface
from jaxface import Camera, Coefficients, decode_face
from jaxface.core.coefficients import vector_size
from jaxface.photos.turning import quarter_turns, turned
from toys.models import toy_model


@pytest.mark.parametrize("turns", [0, 1, 2, 3, -1])
def test_coefficients_of_a_turned_picture_draw_the_turned_face(turns):
    model, random, size = toy_model(), np.random.default_rng(0), 64
    vectors = random.normal(size=(2, vector_size(model))).astype(np.float32) * 0.3
    camera = Camera().resized(size)
    before, after = (
        decode_face(model, Coefficients.from_vector(x, model), camera) for x in (vectors, turned(vectors, turns))
    )
    points = np.asarray(before.points)
    for _ in range(turns % 4):  # a quarter counter-clockwise: what was on the right is on top
        points = np.stack([points[..., 1], size - points[..., 0]], axis=-1)
    np.testing.assert_allclose(after.points, points, atol=1e-3)
    np.testing.assert_allclose(after.colors, before.colors, atol=1e-4)
    np.testing.assert_allclose(after.depth, before.depth, rtol=1e-5)
    assert (np.abs(turned(vectors, turns)[:, -33:-30]) <= np.pi + 1e-6).all()
    assert vectors.shape == (2, vector_size(model))


@pytest.mark.parametrize("roll", [0, 40, 50, 90, 130, 180, -50, -90, -140])
def test_a_face_is_turned_upright(roll):
    model = jaxface.load_face_model("anny")
    coefficients = Coefficients.zeros(model, 1).replace(angles=np.deg2rad([[0.0, 20.0, roll]]).astype(np.float32))
    face = decode_face(model, coefficients, Camera().resized(96))
    landmarks = np.asarray(face.points)[0][np.asarray(model.landmarks["68"])]
    left = (roll + 90 * quarter_turns(landmarks) + 180) % 360 - 180
    assert abs(left) <= 50 and quarter_turns(landmarks) == round(-roll / 90) % 4


def test_unknown_landmarks_turn_nothing():
    assert quarter_turns(np.zeros((68, 2))) == quarter_turns(np.full((68, 2), np.nan)) == 0
