"""Terms of the network that tells parts and points, against plain sums; and reduced samples, flips, covered faces."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxface import Camera
from jaxface.core import parts
from jaxface.core.coefficients import vector_sizes
from jaxface.core.landmarks import MIRRORED_68
from jaxface.losses.dense_points import class_loss, point_likelihood_loss
from jaxface.networks.people_answer import PeopleAnswer, PointsFound
from jaxface.training.augmentation import augment_colors, flip, reduced
from jaxface.training.objective import total_loss
from jaxface.training.terms import CLASS_WEIGHTS
from toys.models import toy_model
from toys.training import toy_batch

pytestmark = pytest.mark.usefixtures("quick_compilation")
SIZE, BATCH, POINTS = 32, 2, 5
NO_PAPER = dict.fromkeys(
    ["prdl", "landmark", "photometric", "perceptual", "regularization", "light", "reflectance"], 0.0
)


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def batch(model):
    random = np.random.default_rng(0)
    return toy_batch(model, BATCH, SIZE) | {
        "classes": random.integers(0, len(parts.CLASSES), (BATCH, SIZE, SIZE), np.uint8),
        "landmark_visible": random.integers(0, 2, (BATCH, 68)).astype(np.float32),
        "surface_points": random.uniform(0, SIZE, (BATCH, POINTS, 2)).astype(np.float32),
        "surface_visible": random.integers(0, 2, (BATCH, POINTS)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def answer(batch):
    random = np.random.default_rng(1)
    count = 68 + POINTS
    return PeopleAnswer(
        jnp.asarray(batch["coefficients"] + 0.1 * random.normal(size=batch["coefficients"].shape), jnp.float32),
        jnp.asarray(random.normal(size=batch["coefficients"].shape), jnp.float32),
        jnp.asarray(random.normal(size=(BATCH, SIZE // 2, SIZE // 2, len(parts.CLASSES))), jnp.float32),
        PointsFound(
            jnp.asarray(random.uniform(size=(BATCH, count, 2)), jnp.float32),
            jnp.asarray(random.uniform(5, 20, (BATCH, count, 3)), jnp.float32),
            jnp.asarray(random.normal(size=(BATCH, count)), jnp.float32),
        ),
    )


def terms_of(model, answer, batch, *names):
    return total_loss(model, answer, batch, Camera().resized(SIZE), **NO_PAPER | dict.fromkeys(names, 1.0))[1]


def test_points_and_labels_are_their_losses_on_all_points(model, answer, batch):
    found = terms_of(model, answer, batch, "points", "labels", "visibility")
    truth = np.concatenate([batch["landmarks"], batch["surface_points"]], 1) / SIZE
    position, whitening, visibility = answer.points
    distance = np.linalg.norm(position - truth, axis=-1).mean()
    expected = point_likelihood_loss(position, whitening, truth).mean() + 100 * distance
    np.testing.assert_allclose(found["points"], expected, rtol=1e-4)
    np.testing.assert_allclose(found["labels"], class_loss(answer.logits, batch["classes"], CLASS_WEIGHTS).mean())
    seen = np.concatenate([batch["landmark_visible"], batch["surface_visible"]], 1) > 0
    odds = 1 / (1 + np.exp(-np.asarray(visibility)))
    np.testing.assert_allclose(found["visibility"], -np.log(np.where(seen, odds, 1 - odds)).mean(), rtol=1e-5)


def test_every_group_of_coefficients_counts_alike_in_the_spread(model, answer, batch):
    error = np.asarray(answer.vector) - batch["coefficients"]
    sizes = (*vector_sizes(model)[:5], 2, 1)
    expected = np.zeros(BATCH)
    likelihood = 0.5 * (error / np.exp(answer.log_spread)) ** 2 + np.asarray(answer.log_spread)
    for part in np.split(likelihood, np.cumsum(sizes)[:-1], axis=1):
        expected += part.mean(1) / len(sizes)
    found = terms_of(model, answer, batch, "spread")["spread"]
    np.testing.assert_allclose(found, (expected * batch["has_coefficients"]).mean(), rtol=1e-5)


def test_true_coefficients_have_no_loss(model, answer, batch):
    true = answer._replace(vector=jnp.asarray(batch["coefficients"]))
    assert terms_of(model, true, batch, "coefficients")["coefficients"] == 0
    assert terms_of(model, answer, batch, "coefficients")["coefficients"] > 0


def test_terms_that_an_encoder_or_the_data_cannot_serve_are_named(model, answer, batch):
    with pytest.raises(ValueError, match="people18"):
        terms_of(model, answer.vector, batch, "labels")
    with pytest.raises(ValueError, match=r"config\.data\.people"):
        terms_of(model, answer, {name: values for name, values in batch.items() if name != "classes"}, "points")


def test_a_reduced_sample_shows_the_same(batch):
    sample = {name: values[0] for name, values in batch.items()}
    half = reduced(sample, SIZE // 2)
    image = sample["image"].reshape(SIZE // 2, 2, SIZE // 2, 2, 3).mean((1, 3))
    np.testing.assert_allclose(half["image"], image, atol=1)
    assert half["image"].dtype == np.uint8 and half["classes"].shape == half["labels"].shape == (SIZE // 2, SIZE // 2)
    for name in ("surface_points", "landmarks"):
        np.testing.assert_allclose(2 * half[name], sample[name])
    np.testing.assert_array_equal(half["coefficients"], sample["coefficients"])


def test_a_mirrored_person_has_mirrored_points_and_classes(batch):
    sample = {name: values[0] for name, values in batch.items()}
    mirrored = np.array([1, 0, 2, 4, 3])
    back = flip(flip(sample, None, mirrored), None, mirrored)
    for name in ("image", "classes", "landmark_visible", "surface_visible"):
        np.testing.assert_array_equal(back[name], sample[name])
    once = flip(sample, None, mirrored)
    np.testing.assert_allclose(back["surface_points"], sample["surface_points"], atol=1e-4)
    np.testing.assert_allclose(once["surface_points"][0], [SIZE, 0] + sample["surface_points"][1] * [-1, 1], rtol=1e-6)
    np.testing.assert_array_equal(once["landmark_visible"], sample["landmark_visible"][MIRRORED_68])
    left, right = (parts.CLASSES.index(name) for name in ("left_eye", "right_eye"))
    np.testing.assert_array_equal(once["classes"] == left, (sample["classes"] == right)[:, ::-1])


def test_what_a_rectangle_covers_is_not_seen(batch):
    sample = {name: values[0] for name, values in batch.items()}
    sample |= {"surface_visible": np.ones(POINTS, np.float32), "landmark_visible": np.ones(68, np.float32)}
    covered = 0
    for seed in range(400):
        changed = augment_colors(sample, np.random.default_rng(seed))
        there = (changed["classes"] != sample["classes"]) & (changed["classes"] == parts.CLASSES.index("other"))
        if not there.any():
            continue
        rows, columns = (np.flatnonzero(there.any(axis)) for axis in (1, 0))
        inside = (sample["surface_points"] >= [columns[0], rows[0]]) & (
            sample["surface_points"] < [columns[-1] + 1, rows[-1] + 1]
        )
        hidden = changed["surface_visible"] == 0
        assert (hidden >= inside.all(-1)).all()
        covered += hidden.sum()
    assert covered > 0
