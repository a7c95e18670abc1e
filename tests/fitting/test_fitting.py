"""The fit finds coefficients that drew a picture, each of its steps does its part, and bounds hold."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface import Camera, Coefficients, decode_face
from jaxface.core import parts
from jaxface.core.coefficients import vector_size, vector_sizes
from jaxface.core.faces import landmark_points
from jaxface.fitting import FitWeights, coefficient_prior, descent, fit_faces
from jaxface.fitting.appearance import fit_appearance
from jaxface.fitting.landmarks import ACROSS, ALONG, NOISE, OUTLINE, fit_landmarks, landmark_residuals
from jaxface.losses import faces
from jaxface.render import interpolate, label_map, label_triangles, rasterize
from toys.models import toy_model

SIZE = 64
CAMERA = Camera().resized(SIZE)
fit_landmarks = jax.jit(fit_landmarks)
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def prior(model):
    return coefficient_prior(model)


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


@pytest.mark.slow
def test_fit_finds_the_face(model, drawn, fitted):
    truth, batch = drawn
    before = landmark_distance(model, np.zeros_like(truth), batch)
    # The toy's parts are a few coarse triangles: half of one is as near as its points come to the mask's pixels.
    assert (landmark_distance(model, fitted, batch) < 0.6 * before).all()
    np.testing.assert_allclose(fitted[:, 8:11], truth[:, 8:11], atol=0.05)


@pytest.mark.slow
def test_fit_draws_the_picture(model, drawn, fitted):
    _, batch = drawn
    face = decode_face(model, Coefficients.from_vector(jnp.asarray(fitted), model), CAMERA)
    fragments = rasterize(face.points, face.depth, model.triangles, image_size=SIZE)
    image = np.asarray(interpolate(fragments, model.triangles, face.colors))
    inside = (np.asarray(fragments.triangle) >= 0) & (batch["labels"] > 0)
    assert np.abs(image - batch["image"] / 255)[inside].mean() < 0.04


@pytest.mark.slow
def test_faces_of_a_batch_do_not_touch_each_other(model, prior, drawn, fitted):
    _, batch = drawn
    other = {name: values[::-1].copy() for name, values in batch.items()}
    other["labels"][0] = 0
    again = np.asarray(fit_faces(model, other, CAMERA, prior, steps=15))
    np.testing.assert_allclose(again[1], fitted[0], atol=2e-3)


@pytest.mark.slow
def test_landmarks_alone_place_the_face_within_bounds(model, prior, drawn):
    truth, batch = drawn
    zeros = np.zeros_like(truth)
    vector = fit_landmarks(model, zeros, batch["landmarks"], batch["landmark_weights"], CAMERA, prior)
    assert landmark_distance(model, vector, batch).max() < 0.3
    narrow = coefficient_prior(dataclasses.replace(model, expression_bounds=(0.0, 1.0)))
    vector = np.asarray(fit_landmarks(model, zeros, batch["landmarks"], batch["landmark_weights"], CAMERA, narrow))
    assert (vector >= narrow.lower[None]).all() and (vector <= narrow.upper[None]).all()
    assert vector[:, 3:5].min() >= -0.1 - 1e-6  # the expression units


@pytest.mark.slow
def test_landmarks_of_weight_zero_may_be_anything(model, prior, drawn):
    truth, batch = drawn
    landmarks, weights = batch["landmarks"].copy(), batch["landmark_weights"].copy()
    landmarks[:, 20:30], weights[:, 20:30] = np.nan, 0
    vector = fit_landmarks(model, np.zeros_like(truth), landmarks, weights, CAMERA, prior)
    assert landmark_distance(model, vector, batch).max() < 0.5


def residuals_by_definition(points, target, weights, pixel):
    rows = []
    for i in range(68):
        if weights[i] == 0:
            rows.append([0.0, 0.0])
            continue
        difference = (points[i] - target[i]) / pixel
        if i >= OUTLINE:
            rows.append(np.sqrt(weights[i]) * difference / NOISE)
            continue
        before, after = max(i - 1, 0), min(i + 1, OUTLINE - 1)
        covariance = ACROSS**2 * np.eye(2)
        if weights[before] > 0 and weights[after] > 0:
            along = (target[after] - target[before]) / np.linalg.norm(target[after] - target[before])
            covariance = covariance + (ALONG**2 - ACROSS**2) * np.outer(along, along)
        values, vectors = np.linalg.eigh(covariance)
        rows.append(np.sqrt(weights[i]) * vectors @ ((vectors.T @ difference) / np.sqrt(values)))
    return np.array(rows)


@pytest.mark.slow
def test_landmark_residuals_are_standard_deviations():
    random = np.random.default_rng(3)
    points, target = random.normal(size=(2, 68, 2)).astype(np.float32) * 20
    weights = random.choice([0.0, 0.5, 1.0], 68, p=(0.2, 0.3, 0.5)).astype(np.float32)
    target[weights == 0] = np.nan
    found = landmark_residuals(jnp.asarray(points), jnp.asarray(target), jnp.asarray(weights), pixel=0.5)
    np.testing.assert_allclose(found, residuals_by_definition(points, target, weights, 0.5), rtol=2e-5, atol=2e-5)
    assert (np.asarray(found)[weights == 0] == 0).all()


@pytest.mark.slow
def test_landmark_residuals_have_a_gradient_where_they_vanish():
    target = jnp.asarray(np.random.default_rng(4).normal(size=(68, 2)).astype(np.float32))

    def loss(points):
        return jnp.square(landmark_residuals(points, target, jnp.ones(68), pixel=1.0)).sum()

    np.testing.assert_array_equal(jax.grad(loss)(target), 0)
    assert np.isfinite(jax.grad(loss)(jnp.zeros((68, 2)))).all()
    same = jnp.ones((68, 2))  # an outline that is one point has no direction
    value = landmark_residuals(jnp.zeros((68, 2)), same, jnp.ones(68), pixel=1.0)
    np.testing.assert_allclose(value[:OUTLINE], -1 / ACROSS, rtol=1e-6)


@pytest.mark.slow
def test_no_landmark_leaves_the_mean_face(model, prior, drawn):
    truth, batch = drawn
    vector = fit_landmarks(
        model, np.zeros_like(truth), batch["landmarks"], np.zeros((2, 68), np.float32), CAMERA, prior
    )
    np.testing.assert_allclose(vector, 0, atol=1e-6)


@pytest.mark.slow
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


@pytest.mark.slow
def test_weights_change_without_compiling_again(model, prior, drawn, fitted):
    _, batch = drawn
    compiled = descent._descend._cache_size()
    vector = fit_faces(model, batch, CAMERA, prior, steps=15, weights=FitWeights(prior=100.0))
    assert descent._descend._cache_size() == compiled
    assert np.abs(np.asarray(vector)[:, :8]).mean() < np.abs(fitted[:, :8]).mean()


@pytest.mark.slow
def test_crops_of_one_person_share_identity_and_albedo(model, prior, drawn):
    """The padding row shows someone else, and counts for nothing."""
    _, batch = drawn
    count = {name: np.concatenate([values, values[:1]]) for name, values in batch.items()}
    sizes = np.cumsum(vector_sizes(model))
    shared = np.r_[0 : sizes[0], sizes[1] : sizes[2]]
    people = np.float32([0, 1, 1])
    fitted = np.asarray(fit_faces(model, count, CAMERA, prior, steps=15, same_person=people))
    np.testing.assert_allclose(fitted[1, shared], fitted[2, shared], atol=1e-5)
    assert np.abs(fitted[1] - fitted[2]).max() > 0.01  # pose, light and expression are each crop's own
    other = {name: values.copy() for name, values in count.items()}
    other["image"][0], other["labels"][0], other["landmarks"][0] = 7, 0, 30
    again = np.asarray(fit_faces(model, other, CAMERA, prior, steps=15, same_person=people))
    np.testing.assert_allclose(again[1:], fitted[1:], atol=2e-3)


@pytest.mark.slow
def test_what_is_held_stays(model, prior, drawn):
    truth, batch = drawn
    sizes = np.cumsum(vector_sizes(model))
    held = np.zeros(vector_size(model), bool)
    held[: sizes[0]] = held[sizes[1] : sizes[2]] = True
    initial = np.where(held, truth[:1], 0).repeat(2, axis=0).astype(np.float32)
    fitted = np.asarray(fit_faces(model, batch, CAMERA, prior, steps=15, initial=initial, held=held))
    np.testing.assert_array_equal(fitted[:, held], initial[:, held])
    assert (np.abs(fitted - initial)[:, ~held].max(0) > 0).all()


@pytest.mark.slow
def test_what_hides_a_part_does_not_drag_it(anny):
    """A hand over half of the mouth: PRDL of the true face is small once the lips under it do not count."""
    camera = Camera().resized(112)
    face = decode_face(anny, Coefficients.zeros(anny), camera)
    fragments = rasterize(face.points, face.depth, anny.triangles, image_size=112)
    labels = np.asarray(label_map(fragments, label_triangles(anny.parts, anny.triangles)))
    covered = np.zeros((1, 112, 112), bool)
    covered[:, 65:90, 58:] = True
    covered &= labels > 0
    plain, halved = (
        faces.part_targets(np.where(hidden, parts.BACKGROUND, labels)) for hidden in (np.zeros_like(covered), covered)
    )
    loss = jax.jit(faces.part_loss)
    untold = loss(anny, face, halved)
    told = loss(anny, face, halved, hidden=jnp.asarray(covered))
    assert loss(anny, face, plain) < 1e-9 and told < 1e-9 and untold > 0.1
