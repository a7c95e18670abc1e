"""The fit finds coefficients that drew a picture, each of its steps does its part, and bounds hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface import Camera, Coefficients, decode_face
from jaxface.coefficients import vector_size
from jaxface.face import landmark_points
from jaxface.fitting import FitWeights, coefficient_prior, fit, fit_faces
from jaxface.fitting.appearance import fit_appearance
from jaxface.fitting.landmarks import fit_landmarks
from jaxface.render import interpolate, label_map, label_triangles, rasterize
from toy import toy_model

SIZE = 64
CAMERA = Camera().resized(SIZE)
fit_landmarks = jax.jit(fit_landmarks)


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def prior(model):
    return coefficient_prior(model, expression_units=False)


@pytest.fixture(scope="module")
def drawn(model):
    """Two random faces and the samples that show them."""
    random = np.random.default_rng(1)
    vector = random.normal(size=(2, vector_size(model))).astype(np.float32)
    vector[:, 8:11] *= 0.15  # angles
    vector[:, 11:38] *= 0.1  # light
    vector[:, 38:] *= 0.05  # translation
    coefficients = Coefficients.from_vector(jnp.asarray(vector), model)
    face = decode_face(model, coefficients, CAMERA)
    fragments = rasterize(face.points, face.depth, model.triangles, image_size=SIZE)
    image = np.clip(np.asarray(interpolate(fragments, model.triangles, face.colors)), 0, 1)
    return vector, {
        "image": np.round(image * 255).astype(np.uint8),
        "labels": np.asarray(label_map(fragments, label_triangles(model.parts, model.triangles))),
        "landmarks": np.asarray(landmark_points(model, face.points, coefficients.angles[:, 2])),
        "landmark_weights": np.ones((2, 68), np.float32),
    }


@pytest.fixture(scope="module")
def fitted(model, prior, drawn):
    _, batch = drawn
    return np.asarray(fit_faces(model, batch, CAMERA, prior, steps=15))


def landmark_distance(model, vector, batch):
    coefficients = Coefficients.from_vector(jnp.asarray(vector), model)
    face = decode_face(model, coefficients, CAMERA)
    points = landmark_points(model, face.points, coefficients.angles[:, 2])
    return np.linalg.norm(np.asarray(points) - batch["landmarks"], axis=-1).mean(-1)


def test_fit_finds_the_face(model, drawn, fitted):
    truth, batch = drawn
    before = landmark_distance(model, np.zeros_like(truth), batch)
    # The toy's parts are a few coarse triangles: half of one is as near as its points come to the mask's pixels.
    assert (landmark_distance(model, fitted, batch) < 0.6 * before).all()
    print(fitted[:, 8:11], truth[:, 8:11], landmark_distance(model, fitted, batch))
    np.testing.assert_allclose(fitted[:, 8:11], truth[:, 8:11], atol=0.05)


def test_fit_draws_the_picture(model, drawn, fitted):
    _, batch = drawn
    face = decode_face(model, Coefficients.from_vector(jnp.asarray(fitted), model), CAMERA)
    fragments = rasterize(face.points, face.depth, model.triangles, image_size=SIZE)
    image = np.asarray(interpolate(fragments, model.triangles, face.colors))
    inside = (np.asarray(fragments.triangle) >= 0) & (batch["labels"] > 0)
    print("XX", np.abs(image - batch["image"] / 255)[inside].mean())
    assert np.abs(image - batch["image"] / 255)[inside].mean() < 0.04


def test_faces_of_a_batch_do_not_touch_each_other(model, prior, drawn, fitted):
    _, batch = drawn
    other = {name: values[::-1].copy() for name, values in batch.items()}
    other["labels"][0] = 0
    again = np.asarray(fit_faces(model, other, CAMERA, prior, steps=15))
    np.testing.assert_allclose(again[1], fitted[0], atol=2e-3)


def test_landmarks_alone_place_the_face_within_bounds(model, prior, drawn):
    truth, batch = drawn
    zeros = np.zeros_like(truth)
    vector = fit_landmarks(model, zeros, batch["landmarks"], batch["landmark_weights"], CAMERA, prior)
    assert landmark_distance(model, vector, batch).max() < 0.3
    narrow = coefficient_prior(model, expression_units=True)
    vector = np.asarray(fit_landmarks(model, zeros, batch["landmarks"], batch["landmark_weights"], CAMERA, narrow))
    assert (vector >= narrow.lower[None]).all() and (vector <= narrow.upper[None]).all()
    assert vector[:, 3:5].min() >= -0.1 - 1e-6  # the expression units


def test_landmarks_of_weight_zero_may_be_anything(model, prior, drawn):
    truth, batch = drawn
    landmarks, weights = batch["landmarks"].copy(), batch["landmark_weights"].copy()
    landmarks[:, 20:30], weights[:, 20:30] = np.nan, 0
    vector = fit_landmarks(model, np.zeros_like(truth), landmarks, weights, CAMERA, prior)
    assert landmark_distance(model, vector, batch).max() < 0.5


def test_no_landmark_leaves_the_mean_face(model, prior, drawn):
    truth, batch = drawn
    vector = fit_landmarks(
        model, np.zeros_like(truth), batch["landmarks"], np.zeros((2, 68), np.float32), CAMERA, prior
    )
    np.testing.assert_allclose(vector, 0, atol=1e-6)


def test_appearance_explains_the_picture(model, drawn):
    truth, batch = drawn
    coefficients = Coefficients.from_vector(jnp.asarray(truth), model)
    blank = coefficients.replace(albedo=jnp.zeros((2, 3)), light=jnp.zeros((2, 3, 9)))
    image, mask = batch["image"].astype(np.float32) / 255, (batch["labels"] > 0).astype(np.float32)
    vector = fit_appearance(model, blank.to_vector(), jnp.asarray(image), jnp.asarray(mask), CAMERA)
    before, after = (
        np.asarray(decode_face(model, Coefficients.from_vector(v, model), CAMERA).colors)
        for v in (blank.to_vector(), vector)
    )
    wanted = np.asarray(decode_face(model, coefficients, CAMERA).colors)
    assert np.abs(after - wanted).mean() < 0.5 * np.abs(before - wanted).mean()
    np.testing.assert_array_equal(vector[:, :5], truth[:, :5])  # the shape stays


def test_weights_change_without_compiling_again(model, prior, drawn, fitted):
    _, batch = drawn
    compiled = fit._descend._cache_size()
    vector = fit_faces(model, batch, CAMERA, prior, steps=15, weights=FitWeights(prior=100.0))
    assert fit._descend._cache_size() == compiled
    assert np.abs(np.asarray(vector)[:, :8]).mean() < np.abs(fitted[:, :8]).mean()
