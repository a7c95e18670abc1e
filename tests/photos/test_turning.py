"""Heads that lie or stand upside down: which way to turn them, and the coefficients of turned pictures."""

import numpy as np
import pytest

import jaxface
from jaxface import Camera, Coefficients, decode_face
from jaxface.core.coefficients import vector_size
from jaxface.photos.alignment import alignment_template
from jaxface.photos.turning import (
    LEANING,
    turned,
    turned_picture,
    turned_points,
    turned_whitening,
    upright_turn,
)
from toys.models import toy_model


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, -90, 33, -140])
def test_coefficients_of_a_turned_picture_draw_the_turned_face(degrees):
    model, random, size = toy_model(), np.random.default_rng(0), 64
    vectors = random.normal(size=(2, vector_size(model))).astype(np.float32) * 0.3
    camera = Camera().resized(size)
    before, after = (
        decode_face(model, Coefficients.from_vector(x, model), camera) for x in (vectors, turned(vectors, degrees))
    )
    points, angle = np.asarray(before.points), np.radians(degrees)
    x, y = points[..., 0] - size / 2, size / 2 - points[..., 1]  # y up: counter-clockwise is what it is in mathematics
    x, y = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    points = np.stack([size / 2 + x, size / 2 - y], axis=-1)
    np.testing.assert_allclose(after.points, points, atol=1e-3)
    np.testing.assert_allclose(size * turned_points(np.asarray(before.points) / size, degrees), points, atol=1e-3)
    np.testing.assert_allclose(after.colors, before.colors, atol=1e-4)
    np.testing.assert_allclose(after.depth, before.depth, rtol=1e-5)
    assert (np.abs(turned(vectors, degrees)[:, -33:-30]) <= np.pi + 1e-6).all()
    assert vectors.shape == (2, vector_size(model))


@pytest.mark.parametrize("degrees", [90, -90, 180, 25, -130])
def test_whitened_errors_of_turned_points_are_as_long(degrees):
    random = np.random.default_rng(0)
    whitening, error = random.uniform(0.5, 2, (1, 6, 3)), random.normal(size=(1, 6, 2))

    def length(whitening, error):
        a, b, c = np.moveaxis(whitening, -1, 0)
        return np.hypot(a * error[..., 0], c * error[..., 0] + b * error[..., 1])

    moved = turned_points(error + 0.5, degrees) - 0.5
    np.testing.assert_allclose(length(turned_whitening(whitening, degrees), moved), length(whitening, error))


@pytest.fixture(scope="module")
def template():
    return alignment_template(jaxface.load_face_model("anny"))


@pytest.mark.parametrize("yaw", [0, 45, 90])
@pytest.mark.parametrize("roll", [0, 5, 40, 90, 130, -50, -90, -140])
def test_a_face_is_turned_upright(template, roll, yaw):
    model = jaxface.load_face_model("anny")
    coefficients = Coefficients.zeros(model, 1).replace(angles=np.deg2rad([[0.0, yaw, roll]]).astype(np.float32))
    face = decode_face(model, coefficients, Camera().resized(96))
    landmarks = np.asarray(face.points)[0][np.asarray(model.landmarks["68"])]
    turn = upright_turn(landmarks, template)
    assert abs(roll + turn) <= 5  # perspective leans a profile a little
    assert turn == 0 or abs(turn) > LEANING


def test_pictures_turn_about_their_middle():
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[28:36, 50:58] = 200  # on the right
    for degrees, (row, column) in {90: (10, 32), 30: (21, 51), -45: (47, 47)}.items():
        rows, columns = np.nonzero(turned_picture(picture, degrees)[..., 0] > 100)
        np.testing.assert_allclose([rows.mean(), columns.mean()], [row, column], atol=1)
    labels = (picture[..., 0] > 0).astype(np.uint8) * 7
    assert set(np.unique(turned_picture(labels, 30, nearest=True))) == {0, 7}


def test_unknown_landmarks_turn_nothing(template):
    for value in (np.nan, 0, -1, 5, 112):
        assert upright_turn(np.full((68, 2), value), template) == 0


def test_layers_turn_as_bytes_do():
    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    layers = turned_picture(np.float32(picture), 33)
    np.testing.assert_allclose(layers.clip(0, 255), turned_picture(picture, 33), atol=1)
    assert layers.shape == (32, 32, 3) and layers.dtype == np.float32
