"""The fit finds coefficients that drew a picture, each of its steps does its part, and bounds hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface import Camera, Coefficients, decode_face
from jaxface.core import parts
from jaxface.core.coefficients import vector_size, vector_sizes
from jaxface.core.faces import landmark_points
from jaxface.core.metrics import vertex_error_mm
from jaxface.fitting import FitWeights, coefficient_prior, descent, fit_faces
from jaxface.fitting.appearance import fit_appearance
from jaxface.losses import faces
from jaxface.render import interpolate, label_map, label_triangles, rasterize
from toys.evidence import good_landmarks
from toys.models import toy_model

SIZE = 64
CAMERA = Camera().resized(SIZE)
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


def fit(model, batch, prior, **options):
    evidence = good_landmarks(model)
    return np.asarray(fit_faces(model, batch, CAMERA, prior, evidence=evidence, steps=15, **options).vectors)


@pytest.mark.slow
def test_no_stage_takes_the_shape_away_from_the_truth(model, prior, drawn):
    """Points that err by two pixels; the colours and the parts are true, and know more of the shape than they do."""
    vector, batch = drawn
    noise = np.random.default_rng(3).normal(scale=2.0, size=batch["landmarks"].shape).astype(np.float32)
    seen = batch | {"landmarks": batch["landmarks"] + noise}
    true = decode_face(model, Coefficients.from_vector(jnp.asarray(vector), model), CAMERA).shape

    def error(**weights):
        options = {"evidence": good_landmarks(model, noise=2.0), "part_weights": {}, "steps": 60}
        found = fit_faces(model, seen, CAMERA, prior, weights=FitWeights(perceptual=0.0, **weights), **options)
        shape = decode_face(model, Coefficients.from_vector(found.vectors, model), CAMERA).shape
        return float(vertex_error_mm(shape, true, align="similarity").mean())

    points, colors = error(prdl=0.0, photometric=0.0), error(prdl=0.0)
    parts, both = error(photometric=0.0), error()
    assert colors < points and parts < points and both < points, (points, colors, parts, both)
    assert both < 1.02 * min(colors, parts), (colors, parts, both)


@pytest.fixture(scope="module")
def fitted(model, prior, drawn):
    _, batch = drawn
    return fit(model, batch, prior)


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
    again = fit(model, other, prior)
    np.testing.assert_allclose(again[1], fitted[0], atol=2e-3)


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
    vector = fit(model, batch, prior, weights=FitWeights(prior=100.0))
    assert descent._descend._cache_size() == compiled
    assert np.abs(vector[:, 5:8]).mean() < np.abs(fitted[:, 5:8]).mean()


@pytest.mark.slow
def test_the_usual_distance_stays_whatever_the_focal_length_says(model, prior, drawn, fitted):
    _, batch = drawn
    told = batch | {"focal": np.full(2, 0.5 * CAMERA.focal, np.float32)}
    vectors = fit(model, told, prior, usual_distance=True)
    np.testing.assert_array_equal(vectors, fit(model, batch, prior, usual_distance=True))


@pytest.mark.slow
def test_crops_of_one_person_share_identity_and_albedo(model, prior, drawn):
    """The padding row shows someone else, and counts for nothing."""
    _, batch = drawn
    count = {name: np.concatenate([values, values[:1]]) for name, values in batch.items()}
    sizes = np.cumsum(vector_sizes(model))
    shared = np.r_[0 : sizes[0], sizes[1] : sizes[2]]
    people = np.float32([0, 1, 1])
    fitted = fit(model, count, prior, same_person=people)
    np.testing.assert_allclose(fitted[1, shared], fitted[2, shared], atol=1e-5)
    assert np.abs(fitted[1] - fitted[2]).max() > 0.01  # pose, light and expression are each crop's own
    other = {name: values.copy() for name, values in count.items()}
    other["image"][0], other["labels"][0], other["landmarks"][0] = 7, 0, 30
    again = fit(model, other, prior, same_person=people)
    np.testing.assert_allclose(again[1:], fitted[1:], atol=2e-3)


@pytest.mark.slow
def test_what_is_held_stays(model, prior, drawn):
    truth, batch = drawn
    sizes = np.cumsum(vector_sizes(model))
    held = np.zeros(vector_size(model), bool)
    held[: sizes[0]] = held[sizes[1] : sizes[2]] = True
    initial = np.where(held, truth[:1], 0).repeat(2, axis=0).astype(np.float32)
    fitted = fit(model, batch, prior, initial=initial, held=held)
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
