"""What a network says of crops counts in the estimate as its Gaussians say, by SciPy and by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from jaxface import Camera
from jaxface.core import face_models
from jaxface.core.coefficients import Coefficients, vector_size
from jaxface.core.faces import decode_face
from jaxface.fitting import coefficient_prior
from jaxface.fitting.estimate import estimate_faces, estimate_person
from jaxface.fitting.evidence import dense_evidence, errors_at, evidence_points
from jaxface.fitting.first_look import EXPRESSION_DOUBT, FirstLook, onlooker_for
from jaxface.models import load_face_model
from jaxface.photos.turning import turned
from toys.evidence import toy_calibration
from toys.models import toy_model

SIZE, VIEWS, POINTS = 64, 2, 30
pytestmark = [pytest.mark.usefixtures("quick_compilation"), pytest.mark.slow]
CAMERA = Camera().resized(SIZE)
IDENTITY, EXPRESSION, OWN = np.arange(3), np.arange(3, 5), np.r_[3:5, 8:11, 38:41]
LOG_STRETCH = np.float32([0.1, 0.3])
VERTICES = np.random.default_rng(2).integers(0, 81, POINTS)


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def evidence(model):
    return dense_evidence(model, toy_calibration(model, points=40, noise=1.0, correlated=2.0))


@pytest.fixture(scope="module")
def seen(model, evidence):
    """Two pictures: the truth, a detector's points, and what a network says."""
    random = np.random.default_rng(1)
    truth = np.zeros((VIEWS, vector_size(model)), np.float32)
    truth[:, OWN] = random.normal(size=(VIEWS, 8)) * ([0.7] * 2 + [0.2] * 3 + [0.05] * 3)
    truth[:, :3] = random.normal(size=3)
    points = np.stack([evidence_points(evidence, vector, CAMERA) for vector in jnp.asarray(truth)])
    position = decode_face(model, Coefficients.from_vector(jnp.asarray(truth), model), CAMERA).points[:, VERTICES]
    look = FirstLook(
        face_models.shape_of_vertices(model, VERTICES),
        jnp.asarray(truth + 0.3 * random.normal(size=truth.shape), jnp.float32),
        jnp.asarray(random.uniform(0.2, 0.8, truth.shape), jnp.float32),
        jnp.asarray(position + 0.5 * random.normal(size=position.shape), jnp.float32),
        jnp.asarray(random.uniform(0.5, 2, (VIEWS, POINTS, 3)), jnp.float32),
        jnp.asarray(random.uniform(0, 0.3, (VIEWS, POINTS)), jnp.float32),
    )
    return truth, (points + 0.4 * random.normal(size=points.shape)).astype(np.float32), look


def numpy_residuals(model, look, vector, stretch, index):
    """Of one face, point by point."""
    whole = decode_face(model, Coefficients.from_vector(jnp.asarray(vector)[None], model), CAMERA.stretched(stretch))
    places, found = np.asarray(whole.points)[0][VERTICES], []
    for place, told, (a, b, c), weight in zip(
        places, look.position[index], look.whitening[index], look.weight[index], strict=True
    ):
        matrix = np.array([[a, 0], [c, b]])
        found.append(np.sqrt(weight) * matrix @ (place - told))
    return np.concatenate(found)


def test_the_residuals_are_whitened_errors(model, seen):
    truth, _, look = seen
    for index in range(VIEWS):
        rows = {name: values[index] for name, values in look.of_crops().items()}
        found = look.residuals(jnp.asarray(truth[index]), CAMERA.stretched(1.3), rows)
        np.testing.assert_allclose(found, numpy_residuals(model, look, truth[index], 1.3, index), rtol=1e-3, atol=1e-3)


def test_one_picture_has_the_networks_prior(seen):
    _, _, look = seen
    one = jax.tree.map(lambda x: x[:1], look.of_crops())
    mean, deviation = dataclasses.replace(look, **one).identity(IDENTITY, jnp.ones(1), jnp.ones(3))
    np.testing.assert_allclose(mean, look.vectors[0, :3], rtol=1e-5)
    np.testing.assert_allclose(deviation, look.deviations[0, :3], rtol=1e-5)


def test_several_pictures_count_the_prior_once():
    """Of a normal number, measured with errors of 1 and of 2: each answer is drawn to zero, both together less."""
    truth, errors = np.array([0.8, -1.2]), np.array([1.0, 2.0])
    precision = 1 + 1 / errors**2
    vectors, deviations = truth / errors**2 / precision, 1 / np.sqrt(precision)
    empty = [jnp.zeros((2, 0))] * 3
    look = FirstLook(None, *(jnp.asarray(x, jnp.float32)[:, None] for x in (vectors, deviations)), *empty)
    mean, deviation = look.identity(np.array([0]), jnp.ones(2), jnp.ones(1))
    total = 1 + (1 / errors**2).sum()
    np.testing.assert_allclose(deviation, 1 / np.sqrt(total), rtol=1e-5)
    np.testing.assert_allclose(mean, (truth / errors**2).sum() / total, rtol=1e-5)
    nothing, free = look.identity(np.array([0]), jnp.zeros(2), jnp.ones(1))
    assert (nothing, free) == (0, 1)


def test_an_answer_less_sure_than_the_prior_says_nothing():
    look = FirstLook(None, jnp.full((3, 1), 2.0), jnp.full((3, 1), 1.5), *[jnp.zeros((3, 0))] * 3)
    mean, deviation = look.identity(np.array([0]), jnp.ones(3), jnp.ones(1))
    assert (mean, deviation) == (0, 1)


def test_the_minimum_is_scipys(model, evidence, seen):
    truth, points, look = seen
    prior, known = coefficient_prior(model), jnp.ones(points.shape[:2])
    log_stretch = jnp.broadcast_to(LOG_STRETCH, (VIEWS, 2))
    settings = {"held": np.zeros(41, bool), "log_stretch": log_stretch, "look": look}
    found = jax.jit(lambda p: estimate_faces(evidence, look.vectors, p, known, CAMERA, prior, **settings))(points)
    for index in range(VIEWS):
        vector = np.asarray(found.vectors)[index]
        variance, factor = (np.asarray(x, np.float64) for x in errors_at(evidence, jnp.float32(vector[9])))
        root = np.linalg.cholesky(np.diag(variance) + factor @ factor.T)
        guess, doubt = np.asarray(look.vectors)[index], np.asarray(look.deviations)[index].copy()
        doubt[EXPRESSION] *= EXPRESSION_DOUBT
        free = np.r_[IDENTITY, OWN]
        place, spread = guess.copy(), doubt.copy()
        place[OWN[2:]], spread[OWN[2:]] = prior.mean[OWN[2:]], prior.deviation[OWN[2:]]

        def residuals(values, index=index, root=root, place=place, spread=spread, free=free):
            full, stretch = np.zeros(41, np.float32), np.exp(values[-1])
            full[free] = values[:-1]
            error = np.asarray(evidence_points(evidence, jnp.asarray(full), CAMERA.stretched(stretch))) - points[index]
            rows = [np.linalg.solve(root, 224 / SIZE * error.ravel())]
            rows.append(numpy_residuals(model, look, full, stretch, index))
            rows.append((values[:-1] - place[free]) / spread[free] / np.r_[np.ones(len(free) - 1), stretch])
            return np.concatenate([*rows, [(values[-1] - LOG_STRETCH[0]) / LOG_STRETCH[1]]])

        ours = np.r_[vector[free], np.log(float(found.stretch[index]))]
        best = scipy.optimize.least_squares(residuals, ours, diff_step=1e-3)
        assert np.square(residuals(ours)).sum() <= 2 * best.cost * (1 + 1e-3)
        away = residuals(np.r_[truth[index, free], 0.0])
        assert np.square(residuals(ours)).sum() < np.square(away).sum()


def test_pictures_of_a_person_share_the_identity_that_all_looks_tell(evidence, model, seen):
    _, points, look = seen
    prior, none = coefficient_prior(model), jnp.zeros(points.shape[:2])
    options = {"held": np.zeros(41, bool), "log_stretch": jnp.broadcast_to(LOG_STRETCH, (VIEWS, 2))}
    solve = jax.jit(
        lambda known, look: (
            estimate_person(evidence, look.vectors, points, known, CAMERA, prior, look=look, **options).vectors
        )
    )
    both = np.asarray(solve(1 - none, look))
    np.testing.assert_array_equal(both[0, :3], both[1, :3])
    # A picture that counts nothing tells nothing.
    first = none.at[0].set(1)
    look = dataclasses.replace(look, weight=look.weight.at[1].set(0))
    other = dataclasses.replace(look, vectors=look.vectors.at[1].add(3), position=look.position.at[1].add(9))
    np.testing.assert_allclose(solve(first, look)[0], solve(first, other)[0], atol=1e-3)


def test_other_face_models_have_no_onlooker(model):
    assert onlooker_for(model) is None


def test_heads_on_their_side_are_looked_at_upright():
    anny, random, size = load_face_model("anny"), np.random.default_rng(0), 96
    onlooker, camera = onlooker_for(anny), Camera().resized(size)
    image = random.integers(0, 255, (size, size, 3), np.uint8)
    face = decode_face(anny, Coefficients.zeros(anny, 1), camera)
    landmarks = np.asarray(face.points)[0][np.asarray(anny.landmarks["68"])]
    images, points = [image], [landmarks]
    for _ in range(3):
        images.append(np.rot90(images[-1]))
        points.append(np.stack([points[-1][:, 1], size - points[-1][:, 0]], axis=-1))
    look = onlooker(np.stack(images), np.stack(points))
    vector = 0.1 * random.normal(size=vector_size(anny)).astype(np.float32)
    errors = []
    for row in range(4):
        np.testing.assert_allclose(turned(look.vectors[:1], 90 * row)[0], look.vectors[row], atol=1e-3)
        seen = {name: value[row] for name, value in look.of_crops().items()}
        white = look.residuals(
            jnp.asarray(turned(vector[None], 90 * row)[0]), camera, {**seen, "weight": jnp.ones(len(seen["position"]))}
        )
        errors.append(np.linalg.norm(np.asarray(white).reshape(-1, 2), axis=1))
    np.testing.assert_allclose(errors[1:], [errors[0]] * 3, rtol=2e-3, atol=1e-2)
    assert not np.allclose(onlooker(np.stack(images)).vectors[2], look.vectors[2], atol=0.01)  # as it lies


def test_pictures_that_only_the_network_knows_count_by_its_points(model, evidence, seen):
    """Profiles have no detector's points. What says nothing at all leaves the face model's prior."""
    _, points, look = seen
    prior, unknown = coefficient_prior(model), jnp.zeros(points.shape[:2])
    settings = {"held": np.zeros(41, bool), "log_stretch": jnp.broadcast_to(LOG_STRETCH, (VIEWS, 2))}
    solve = jax.jit(
        lambda look: estimate_person(evidence, look.vectors, points, unknown, CAMERA, prior, **settings, look=look)
    )
    sure = dataclasses.replace(look, weight=jnp.full_like(look.weight, 3.0))
    found, nothing = solve(sure), solve(dataclasses.replace(look, weight=jnp.zeros_like(look.weight)))
    for index in range(VIEWS):
        left = numpy_residuals(model, sure, np.asarray(found.vectors)[index], float(found.stretch[index]), index)
        before = numpy_residuals(model, sure, np.asarray(look.vectors)[index], 1.0, index)
        assert np.square(left).sum() < 0.5 * np.square(before).sum()
    assert np.isfinite(np.asarray(found.vectors)).all()
    np.testing.assert_allclose(np.asarray(nothing.vectors)[:, IDENTITY], 0, atol=1e-4)
