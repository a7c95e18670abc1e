import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxface import Camera, Coefficients, decode_face
from jaxface.core import parts
from jaxface.fitting.occlusion import FACE_OUTLINE
from jaxface.losses.faces import part_loss, part_targets, vertex_part_loss
from jaxface.render import label_triangles, render_labels, visible_areas
from jaxface.training import terms
from jaxface.training.objective import total_loss
from toys.models import toy_model
from toys.training import toy_batch

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

SIZE, BATCH = 32, 4
CAMERA = Camera().resized(SIZE)
OFF = dict.fromkeys(
    [
        "prdl",
        "prdl_vertices",
        "prdl_paper",
        "landmark",
        "photometric",
        "perceptual",
        "regularization",
        "light",
        "reflectance",
        "reprojection",
        "shape",
        "color",
    ],
    0.0,
)


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def batch(model):
    return toy_batch(model, BATCH, SIZE)


@pytest.fixture(scope="module")
def vector(batch):
    noise = np.random.default_rng(1).normal(size=batch["coefficients"].shape)
    return jnp.asarray(batch["coefficients"] + 0.02 * noise, jnp.float32)


def _losses(model, vector, batch, **weights):
    return total_loss(model, vector, batch, CAMERA, **OFF | weights)


@pytest.mark.slow
def test_the_loss_is_the_weighted_sum_of_the_terms(model, vector, batch):
    weights = {"landmark": 0.5, "photometric": 2.0, "regularization": 0.1, "light": 3.0, "reflectance": 4.0}
    weights |= {"reprojection": 0.7, "shape": 0.3, "color": 0.2}
    loss, terms = _losses(model, vector, batch, **weights)
    assert terms.keys() == weights.keys()
    np.testing.assert_allclose(loss, sum(weights[name] * value for name, value in terms.items()), rtol=1e-6)
    for name in weights:
        alone, (term,) = (lambda pair: (pair[0], pair[1].values()))(_losses(model, vector, batch, **{name: 1.0}))
        np.testing.assert_allclose([alone, term], terms[name], rtol=1e-6)


def test_terms_of_weight_zero_are_not_computed(model, vector, batch, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("computed")

    for name in ("render_face", "decode_face", "part_loss", "marched_landmark_loss", "light_regularization"):
        monkeypatch.setattr(terms, name, refuse)
    _, computed = _losses(model, vector, batch, regularization=1.0)
    assert list(computed) == ["regularization"]


def test_supervised_terms_know_the_truth_and_where_there_is_none(model, batch):
    truth = jnp.asarray(batch["coefficients"])
    _, terms = _losses(model, truth, batch, reprojection=1.0, shape=1.0, color=1.0)
    assert max(terms.values()) < 2e-3  # the smoothing at zero
    moved = truth.at[:, -3].add(0.01)  # 1 mm to the right: another image, the same shape
    _, terms = _losses(model, moved, batch, reprojection=1.0, shape=1.0)
    offsets = _decoded(model, moved).points - _decoded(model, truth).points
    distance = 224 / SIZE * np.linalg.norm(offsets, axis=-1)
    expected = np.mean([distance[:, vertices].mean(-1) for vertices in model.parts.values()], axis=0)
    np.testing.assert_allclose(terms["reprojection"], (expected * batch["has_coefficients"]).mean(), rtol=1e-3)
    assert terms["shape"] < 2e-3
    brighter = truth.at[:, [-30, -21, -12]].add(0.1)  # band 0 of the light, per channel
    _, terms = _losses(model, brighter, batch, shape=1.0, color=1.0)
    albedo = np.asarray(_decoded(model, truth).albedo)
    expected = 0.1 * np.pi / np.sqrt(4 * np.pi) * np.linalg.norm(albedo, axis=-1).mean(-1)
    np.testing.assert_allclose(terms["color"], (expected * batch["has_coefficients"]).mean(), rtol=1e-3)
    assert terms["shape"] < 2e-3
    grown = truth.at[:, 0].add(0.1)
    _, terms = _losses(model, grown, batch, shape=1.0)
    expected = 100 * 0.1 * np.linalg.norm(model.identity_basis[:, :, 0], axis=-1).mean()
    np.testing.assert_allclose(terms["shape"], expected * batch["has_coefficients"].mean(), rtol=1e-3)


def _decoded(model, vector):
    return decode_face(model, Coefficients.from_vector(vector, model), CAMERA)


@pytest.mark.slow
def test_pixel_units_are_those_of_224(model, batch):
    # The same faces and targets on twice the pixels: the same loss.
    double = dict(batch)
    double["landmarks"] = 2 * batch["landmarks"]
    double["labels"] = np.repeat(np.repeat(batch["labels"], 2, 1), 2, 2)
    double["image"] = np.repeat(np.repeat(batch["image"], 2, 1), 2, 2)
    zeros = jnp.zeros(batch["coefficients"].shape)
    weights = OFF | {"prdl": 1.0, "landmark": 1.0}
    _, small = total_loss(model, zeros, batch, CAMERA, **weights, anchor_stride=1)
    _, large = total_loss(model, zeros, double, Camera().resized(2 * SIZE), **weights, anchor_stride=2)
    np.testing.assert_allclose(large["landmark"], small["landmark"], rtol=1e-4)
    np.testing.assert_allclose(large["prdl"], small["prdl"], rtol=0.3)  # other anchors; else a factor of 4


def test_landmark_loss_against_its_definition(model, vector, batch):
    _, terms = _losses(model, vector, batch, landmark=1.0)
    points = np.asarray(decode_face(model, Coefficients.from_vector(vector, model), CAMERA).points, np.float64)
    roll = np.asarray(vector)[:, -31]
    weights = np.ones(68)
    weights[28:31] = weights[60:] = 20
    total = 0.0
    for b in range(BATCH):
        x = np.cos(roll[b]) * points[b, :, 0] - np.sin(roll[b]) * points[b, :, 1]
        for i, vertex in enumerate(model.landmarks["68"]):
            if i < 8:
                vertex = min(model.contours["68"][i], key=lambda v: x[v])
            elif 8 < i < 17:
                vertex = max(model.contours["68"][i], key=lambda v: x[v])
            distance = ((points[b, vertex] - batch["landmarks"][b, i]) ** 2).sum()
            total += batch["landmark_weights"][b, i] * weights[i] * distance / 68 / BATCH
    np.testing.assert_allclose(terms["landmark"], total * (224 / SIZE) ** 2, rtol=1e-4)


@pytest.mark.slow
def test_prdl_is_zero_at_the_truth_whatever_hides_the_face(model, batch):
    """A hand between the landmarks of the outline: neither the target nor the drawn face shows what is under it."""
    truth = Coefficients.from_vector(jnp.asarray(batch["coefficients"]), model)
    face = decode_face(model, truth, CAMERA)
    labels = label_triangles(model.parts, model.triangles)
    drawn = np.asarray(render_labels(face.points, face.depth, model.triangles, labels, image_size=SIZE))
    landmarks = np.zeros((BATCH, 68, 2), np.float32)
    landmarks[:, FACE_OUTLINE] = 12 + 6 * np.stack([np.cos(CIRCLE), np.sin(CIRCLE)], -1)
    hand = np.zeros(drawn.shape, bool)
    hand[:, 9:15, 9:15] = True
    seen = batch | {"landmarks": landmarks, "landmark_weights": np.ones((BATCH, 68), np.float32)}
    covered, untold = (seen | {"labels": np.where(hand, 0, drawn)} for _ in range(2))
    untold["landmark_weights"] = 0 * untold["landmark_weights"]
    told_loss, untold_loss = (
        _losses(model, jnp.asarray(batch["coefficients"]), some, prdl=1.0)[0] for some in (covered, untold)
    )
    assert told_loss < 0.05 * untold_loss


CIRCLE = np.linspace(0, 2 * np.pi, len(FACE_OUTLINE), endpoint=False)


@pytest.mark.slow
def test_prdl_of_every_second_sample(model, vector, batch):
    some = {name: array[::2] for name, array in batch.items()}
    _, terms = _losses(model, vector, batch, prdl=1.0, prdl_every=2)
    np.testing.assert_allclose(terms["prdl"], _losses(model, vector[::2], some, prdl=1.0)[1]["prdl"], rtol=1e-5)
    whole = _losses(model, vector, batch, prdl=1.0, photometric=1.0)[1]["prdl"]
    np.testing.assert_allclose(whole, _losses(model, vector, batch, prdl=1.0)[1]["prdl"], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("by_area", [True, False])
def test_the_vertices_skin_is_cut_at_the_brows_only_where_the_target_was(model, batch, by_area):
    face = decode_face(model, Coefficients.from_vector(batch["coefficients"], model), CAMERA)
    without_brow = np.where(batch["labels"] == parts.LABELS["left_brow"], 0, batch["labels"])
    loss = functools.partial(_vertex_loss, model, face, by_area=by_area)
    gradient = jax.jit(jax.grad(lambda points, labels: loss(points, labels).sum()))
    skin = np.setdiff1d(model.parts["skin"], np.concatenate([model.parts[part] for part in parts.SEVEN_PARTS]))
    above = face.points[:, skin, 1] < face.points[:, model.parts["left_brow"], 1].mean(-1, keepdims=True) - 3
    pulled, pulled_without_brow = (
        np.asarray(gradient(face.points, labels))[:-1, skin].any(-1) for labels in (batch["labels"], without_brow)
    )
    above = above[:-1]  # the last sample has no right brow
    assert above.any(-1).all() and not pulled[above].any()
    assert pulled.any(-1).all() and pulled_without_brow[above].any()


def _vertex_loss(model, face, points, labels, by_area=True):
    moved = dataclasses.replace(face, points=points)
    return vertex_part_loss(model, moved, labels, CAMERA, anchor_stride=8, by_area=by_area)


@pytest.mark.slow
def test_hidden_vertices_do_not_count_unless_all_of_the_part_is_hidden(model, batch):
    zeros = Coefficients.zeros(model, BATCH)
    face = decode_face(model, zeros.replace(angles=zeros.angles + jnp.array([[0.0, 1.2, 0.0]])), CAMERA)
    loss = functools.partial(_vertex_loss, model, face)
    gradient = np.asarray(jax.grad(lambda points: loss(points, batch["labels"]).sum())(face.points))
    areas = visible_areas(face.points, face.depth, model.triangles, image_size=SIZE)
    skin = np.setdiff1d(model.parts["skin"], np.concatenate([model.parts[part] for part in parts.SEVEN_PARTS]))
    hidden = np.asarray(areas)[:, skin] == 0
    assert hidden.any() and not gradient[:, skin][hidden].any()
    outside = face.points + 1000.0
    gradient = jax.grad(lambda points: loss(points, batch["labels"]).sum())(outside)
    assert (np.asarray(gradient)[:, model.parts["nose"]].mean(1) > 0).all()  # every descent step pulls it back


def test_photometric_loss_sees_only_the_face(model, batch):
    vector = jnp.asarray(batch["coefficients"])
    outside = dict(batch)
    outside["image"] = np.where((batch["labels"] == 0)[..., None], 255 - batch["image"], batch["image"])
    assert _losses(model, vector, batch, photometric=1.0)[0] == _losses(model, vector, outside, photometric=1.0)[0]


@pytest.mark.slow
def test_perceptual_loss(model, batch, vector):
    def features(image):
        return image.reshape(len(image), -1)[:, ::7]

    loss, terms = total_loss(model, vector, batch, CAMERA, **OFF | {"perceptual": 1.0}, features=features)
    assert 0 < loss < 1 and list(terms) == ["perceptual"]
    with pytest.raises(ValueError, match="features="):
        _losses(model, vector, batch, perceptual=1.0)


@pytest.mark.slow
def test_gradient(model, batch):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, model)
        vector = jnp.asarray(0.5 * batch["coefficients"] + 0.01, jnp.float64)
        weights = {"landmark": 1e-3, "photometric": 1.0, "regularization": 0.1, "light": 1.0, "reflectance": 1.0}
        # PRDL is tested alone: its gradient is that of outlines, its value changes by whole pixels.
        weights |= {"reprojection": 0.01, "shape": 0.01}
        function = jax.jit(lambda v: total_loss(wide, v, batch, CAMERA, **OFF | weights, anchor_stride=8)[0])
        check_grads(function, (vector,), order=1, modes=["rev"], eps=1e-6, rtol=1e-3)


@pytest.mark.slow
def test_a_sample_without_anything_to_compare_is_finite(model, batch):
    empty = {name: np.zeros_like(value) for name, value in batch.items()}
    weights = OFF | {"prdl": 1.0, "landmark": 1.0, "photometric": 1.0, "reprojection": 1.0, "shape": 1.0}
    loss_of = jax.value_and_grad(lambda v: total_loss(model, v, empty, CAMERA, **weights, anchor_stride=8)[0])
    loss, gradient = jax.jit(loss_of)(jnp.zeros(batch["coefficients"].shape))
    assert loss == 0 and np.isfinite(gradient).all()


def test_part_loss_is_zero_for_an_empty_map_and_positive_otherwise(model, batch):
    face = decode_face(model, Coefficients.zeros(model, BATCH), CAMERA)
    labels = batch["labels"].copy()
    labels[0] = 0
    loss = part_loss(model, face, part_targets(labels))
    assert loss[0] == 0 and (loss[1:] > 0).all()
