"""The perceptual loss: its warp against numpy and scipy, and its place in the objective, in training and in the fit."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads
from scipy import ndimage

from jaxface import Camera, Coefficients, decode_face
from jaxface import train as training
from jaxface.core import parts
from jaxface.core.errors import MissingDependencyError
from jaxface.fitting import FitWeights, coefficient_prior, fit_faces
from jaxface.losses import ARCFACE_CHIP, DLIB_CHIP, ChipTemplate, align_chips, cosine_feature_loss, perceptual_loss
from jaxface.losses.perceptual import _chip_pixels, _point_weights
from jaxface.networks.face_recognition import FaceRecognizer
from jaxface.render import interpolate, rasterize
from jaxface.training import parallel
from jaxface.training.objective import total_loss
from jaxface.training.terms import TERMS
from toys.models import toy_model
from toys.training import toy_batch, toy_config

pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),  # how ml_collections reads config files
]

RANDOM = np.random.default_rng(0)
SMALL_CHIP = ChipTemplate(size=6, landmarks=((36, 39), (45,), (8,)), points=((2.0, 2.0), (4.5, 2.0), (3.0, 5.0)))
OFF = dict.fromkeys("prdl landmark photometric perceptual regularization light reflectance".split(), 0.0)


align = jax.jit(align_chips, static_argnames="chip")


def faces(count, size, chip=DLIB_CHIP):
    """Landmarks that lie roughly like the chip's points in pictures of this size, turned a little."""
    landmarks = RANDOM.uniform(0, size, (count, 68, 2))
    for group, point in zip(chip.landmarks, chip.points, strict=True):
        landmarks[:, list(group)] = np.array(point) * size / chip.size
    landmarks = landmarks @ np.array([[0.95, 0.3], [-0.3, 0.95]]) + RANDOM.normal(size=landmarks.shape) * size / 50
    return landmarks.astype(np.float32)


def template_points(chip, landmarks):
    return np.stack([landmarks[list(group)].mean(0) for group in chip.landmarks])


@pytest.mark.slow
@pytest.mark.parametrize("chip", [DLIB_CHIP, ARCFACE_CHIP], ids=["dlib", "arcface"])
def test_the_transform_is_the_least_squares_similarity(chip):
    landmarks = faces(2, 90, chip)
    weights = (RANDOM.uniform(size=(2, 68)) < 0.9).astype(np.float32)
    weights[0] = 1
    weights[1, list(chip.landmarks[0])] = 0, *np.ones(len(chip.landmarks[0]) - 1)  # half of a point is not enough
    points = np.stack([template_points(chip, one) for one in landmarks])
    known = _point_weights(jnp.asarray(weights), chip)
    places = np.asarray(_chip_pixels(jnp.asarray(points), known, chip))
    centers = np.stack(np.meshgrid(np.arange(chip.size) + 0.5, np.arange(chip.size) + 0.5), -1)
    for sample in range(2):
        chosen = [(weights[sample, list(group)] == 1).all() for group in chip.landmarks]
        (x, y), target = np.array(chip.points)[chosen].T, points[sample][chosen]
        ones, zeros = np.ones_like(x), np.zeros_like(x)
        # x' = a x - b y + c, y' = b x + a y + d
        system = np.concatenate([np.stack([x, -y, ones, zeros], -1), np.stack([y, x, zeros, ones], -1)])
        a, b, c, d = np.linalg.lstsq(system, target.T.ravel(), rcond=None)[0]
        cx, cy = centers[..., 0], centers[..., 1]
        np.testing.assert_allclose(places[sample], np.stack([a * cx - b * cy + c, b * cx + a * cy + d], -1), atol=2e-3)


@pytest.mark.slow
def test_chips_are_sampled_bilinearly_with_black_outside():
    image = RANDOM.uniform(size=(1, 30, 40, 3)).astype(np.float32)
    landmarks = faces(1, 30) - np.float32([12, 0])  # part of the chip lies beyond the left edge
    chips = np.asarray(align(image, landmarks))
    points = jnp.asarray(template_points(DLIB_CHIP, landmarks[0]))[None]
    places = np.asarray(_chip_pixels(points, jnp.ones((1, len(DLIB_CHIP.points))), DLIB_CHIP))[0]
    at = [places[..., 1] - 0.5, places[..., 0] - 0.5]
    # "grid-constant" goes to zero within a pixel of the image, as the warp does; "constant" would stop at once.
    expected = [ndimage.map_coordinates(image[0, ..., c], at, order=1, mode="grid-constant") for c in range(3)]
    np.testing.assert_allclose(chips[0], np.stack(expected, axis=-1), atol=1e-4)
    assert (chips == 0).any() and (chips > 0).any()


@pytest.mark.parametrize("chip", [DLIB_CHIP, ARCFACE_CHIP], ids=["dlib", "arcface"])
def test_landmarks_in_place_leave_the_picture_as_it_is(chip):
    landmarks = np.zeros((1, 68, 2), np.float32)
    for group, point in zip(chip.landmarks, chip.points, strict=True):
        landmarks[0, list(group)] = point
    image = RANDOM.uniform(size=(1, chip.size, chip.size, 3)).astype(np.float32)
    np.testing.assert_allclose(align(image, landmarks, chip=chip), image, atol=1e-4)


def test_the_templates_are_faces():
    for chip in (DLIB_CHIP, ARCFACE_CHIP):
        points = np.array(chip.points)
        assert len(points) == len(chip.landmarks) and ((points > 0) & (points < chip.size)).all()
        place = {group: point for group, point in zip(chip.landmarks, points, strict=True)}
        right_eye, left_eye = ((36,), (45,)) if chip is DLIB_CHIP else ((36, 39), (42, 45))
        nose, right_mouth, left_mouth = place[(30,)], place[(48,)], place[(54,)]
        assert place[right_eye][0] < nose[0] < place[left_eye][0] and right_mouth[0] < nose[0] < left_mouth[0]
        assert place[right_eye][1] < nose[1] < right_mouth[1]


def mean_colors(chips):
    """A stand-in for a network: colours of quarters."""
    size = chips.shape[1] // 2
    quarters = chips[:, : 2 * size, : 2 * size].reshape(len(chips), 2, size, 2, size, 3)
    return quarters.mean((2, 4)).reshape(len(chips), -1)


@pytest.mark.slow
def test_the_loss_compares_the_same_chips_of_both_pictures():
    rendered, photo = RANDOM.uniform(size=(2, 3, 20, 20, 3)).astype(np.float32)
    landmarks = faces(3, 20)
    weights = np.ones((3, 68), np.float32)
    landmarks[1, 50:], weights[1, 50:] = np.nan, 0
    weights[2, 1:], landmarks[2, 5] = 0, np.nan

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss_of(image):
        loss = perceptual_loss(image, photo, landmarks, features=mean_colors, weights=weights)
        return loss.sum(), loss

    (_, loss), gradient = loss_of(rendered)
    features = [mean_colors(align(image, landmarks, weights=weights)) for image in (rendered, photo)]
    np.testing.assert_allclose(loss[:2], cosine_feature_loss(*features)[:2], rtol=1e-6)
    assert loss[2] == 0 and not gradient[2].any()  # nothing to align by
    assert np.isfinite(gradient).all() and gradient[:2].any((1, 2, 3)).all()
    (_, equal), _ = loss_of(photo)
    np.testing.assert_allclose(equal, 0, atol=1e-6)
    with pytest.raises(ValueError, match="landmarks"):
        align_chips(photo, landmarks[:2])


@pytest.mark.slow
def test_gradients():
    with jax.enable_x64(True):
        image, photo = RANDOM.uniform(size=(2, 2, 8, 8, 3))
        landmarks = faces(2, 8, SMALL_CHIP)

        @jax.jit
        def loss(image, photo, landmarks):
            return perceptual_loss(image, photo, landmarks, features=mean_colors, chip=SMALL_CHIP).sum()

        check_grads(lambda image: loss(image, photo, landmarks), (image,), order=1, modes=["rev"])
        held_fixed = jax.jit(jax.grad(loss, argnums=(1, 2)))(image, photo, landmarks)
        assert not any(gradient.any() for gradient in held_fixed)


class Quarters(nn.Module):
    """The stand-in with weights."""

    @nn.compact
    def __call__(self, chips):
        return nn.Dense(5, name="fc")(mean_colors(chips))


@pytest.fixture
def recognizer():
    layer = {"kernel": RANDOM.normal(size=(12, 5)).astype(np.float32), "bias": np.zeros(5, np.float32)}
    return FaceRecognizer({"params": {"fc": layer}}, Quarters(), SMALL_CHIP)


@pytest.mark.slow
def test_the_objective_compares_the_seen_face_alone(recognizer):
    model = toy_model()
    batch = toy_batch(model, 2, 32)
    batch["landmark_weights"][:] = 1
    vector = jnp.asarray(batch["coefficients"])
    camera = Camera().resized(32)
    image = batch["image"].astype(np.float32) / 255

    @jax.jit
    def losses(labels):
        """The objective's, and one of a picture that is drawn here."""
        options = OFF | {"perceptual": 1.0, "features": recognizer, "chip": SMALL_CHIP}
        total, terms = total_loss(model, vector, batch | {"labels": labels}, camera, **options)
        assert list(terms) == ["perceptual"]
        face = decode_face(model, Coefficients.from_vector(vector, model), camera)
        fragments = rasterize(face.points, face.depth, model.triangles, image_size=32)
        rendered = interpolate(fragments, model.triangles, face.colors)
        drawn = jnp.where(((fragments.triangle >= 0) & (labels > 0))[..., None], rendered, image)
        expected = perceptual_loss(drawn, image, batch["landmarks"], features=recognizer, chip=SMALL_CHIP)
        return total, expected.mean()

    total, expected = losses(batch["labels"])
    np.testing.assert_allclose(total, expected, rtol=1e-4)
    assert 0 < total < 2
    # Where the photo shows no face, hair over the forehead say, it stays what it is.
    total, _ = losses(np.full_like(batch["labels"], parts.BACKGROUND))
    np.testing.assert_allclose(total, 0, atol=1e-6)


@pytest.mark.slow
def test_the_fit_comes_nearer_to_the_person(recognizer):
    """The loss at the fitted face falls when it has a weight, and off means off."""
    model, camera = toy_model(), Camera().resized(32)
    batch = toy_batch(model, 2, 32)
    batch["landmark_weights"][:] = 1
    prior = coefficient_prior(model)

    def fitted(weight):
        weights = FitWeights(posterior=1e-3, prdl=0.0, photometric=0.0, prior=1e-3, perceptual=weight)
        return fit_faces(model, batch, camera, prior, weights=weights, recognizer=recognizer, steps=30).vectors

    @jax.jit
    def loss(vector):
        options = OFF | {"perceptual": 1.0, "features": recognizer, "chip": SMALL_CHIP}
        return total_loss(model, vector, batch, camera, **options)[0]

    assert loss(fitted(1.0)) < loss(fitted(0.0)) - 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pmap", "sharded"])
def test_training_uses_the_network_of_the_config(kind, recognizer, monkeypatch):
    model, batch, asked = toy_model(), toy_batch(toy_model(), 2, 32), []
    monkeypatch.setattr(training, "load_recognizer", lambda name: asked.append(name) or recognizer)
    config = toy_config(**{f"loss.{name}": 0.0 for name in TERMS})
    assert training._objective_of(config, model)[1] is model and not asked  # off: nothing is loaded
    config.loss.perceptual = 0.2
    config.recognition = "arcface.pth"
    objective, constants = training._objective_of(config, model)
    assert asked == ["arcface.pth"]
    mapping = parallel.mapping(kind, devices=jax.devices()[:2])

    def step(_, batch, constants):
        loss, terms = objective(constants, batch["coefficients"], batch)
        return jax.lax.pmean((loss, terms), parallel.AXIS)

    nothing = mapping.replicate(np.zeros(()))
    loss, terms = mapping.fetch(mapping.compile(step)(nothing, mapping.shard(batch), mapping.replicate(constants)))
    options = OFF | {"perceptual": 0.2, "features": recognizer, "chip": SMALL_CHIP}
    camera = Camera().resized(32)
    expected, _ = jax.jit(lambda vector: total_loss(model, vector, batch, camera, **options))(batch["coefficients"])
    assert 0 < terms["perceptual"] < 2
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-7)  # one minus a cosine close to one, in float32


def test_training_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    config = toy_config(**{"output_dir": str(tmp_path), "loss.perceptual": 0.2})
    with pytest.raises(MissingDependencyError, match=r"pip install 'jaxface\[perceptual\]'"):
        training.train(config)
