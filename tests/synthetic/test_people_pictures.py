"""Pictures of drawn people: what is told of them is what they show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.core import cameras, face_models, lighting, parts
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients
from jaxface.photos.samples import DTYPES, validate_sample
from jaxface.render import label_triangles
from jaxface.synthetic.people import load_people
from jaxface.synthetic.people_pictures import draw_crops, random_people

SIZE, COUNT = 64, 12
CLASS = parts.CLASSES.index
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def setting(anny):
    labels = jnp.asarray(label_triangles(anny.parts, anny.triangles))
    return jax.tree.map(jnp.asarray, (anny, load_people(anny), labels))


@pytest.fixture(scope="module")
def draw(setting):
    compiled = jax.jit(lambda keys, *setting: draw_crops(keys, *setting, size=SIZE, details=True))
    return lambda keys: compiled(keys, *setting)


@pytest.fixture(scope="module")
def keys():
    return jax.vmap(jax.random.key)(jnp.arange(COUNT))


@pytest.fixture(scope="module")
def drawn(draw, keys):
    return {name: np.asarray(values) for name, values in draw(keys).items()}


def test_samples_are_valid(drawn):
    for index in range(COUNT):
        validate_sample({name: drawn[name][index] for name in DTYPES}, f"sample {index}", size=SIZE)


def test_a_picture_depends_on_its_key_alone(draw, drawn, keys):
    order = np.random.default_rng(0).permutation(COUNT)
    again = draw(keys[order])
    for name in ("labels", "landmarks", "classes", "triangle"):
        np.testing.assert_array_equal(again[name], drawn[name][order])
    assert abs(np.asarray(again["image"], int) - drawn["image"][order]).max() <= 2  # XLA may round in another order


def test_labels_are_the_classes_that_are_the_face_s_own(drawn):
    labels, classes = drawn["labels"], drawn["classes"]
    own = (classes > 0) & (classes < parts.FOREHEAD)
    np.testing.assert_array_equal(labels[own], classes[own])
    both = [(labels == parts.LABELS[f"{side}_brow"]).any((1, 2)) for side in ("left", "right")]
    for index, seen in enumerate(both[0] & both[1]):  # where a brow is hidden, nothing says where to cut
        forehead = labels[index][classes[index] == parts.FOREHEAD]
        assert set(np.unique(forehead)) <= {parts.FOREHEAD} | (set() if seen else {parts.LABELS["skin"]})
    assert set(np.unique(labels[classes == CLASS("beard")])) <= {parts.LABELS["skin"]}
    assert set(np.unique(labels[classes == CLASS("inner_mouth")])) <= {parts.FOREHEAD}
    for hidden in ("background", "hair", "glasses", "other", "other_skin"):
        assert not labels[classes == CLASS(hidden)].any()
    for name in ("skin", "nose", "left_eye", "hair", "other_skin", "other", "background"):
        assert (classes == CLASS(name)).any(), name


def test_each_pixel_of_the_face_shows_the_spot_that_it_tells(setting, drawn):
    """Triangle and weights, projected by the camera that the sample tells, come back to the pixel."""
    model = setting[0]
    coefficients = Coefficients.from_vector(jnp.asarray(drawn["coefficients"]), model)
    usual = Camera().resized(SIZE)
    camera = usual.stretched(jnp.asarray(drawn["focal"])[:, None] / usual.focal)
    stretched = coefficients.translation.at[:, 2].multiply(camera.distance[:, 0] / usual.distance)
    shape = face_models.shape(model, coefficients.identity, coefficients.expression)
    view = cameras.to_camera_space(cameras.pose(shape, coefficients.angles, stretched), camera)
    points, depth = np.asarray(cameras.project(view, camera)), np.asarray(view[..., 2])
    for index in range(COUNT):
        row, column = np.nonzero(drawn["triangle"][index] >= 0)
        corners = np.asarray(model.triangles)[drawn["triangle"][index][row, column]]
        weights = drawn["barycentric"][index][row, column]
        far = (depth[index][corners] * weights).sum(-1)
        place = (points[index][corners] * (weights * depth[index][corners])[..., None]).sum(1) / far[:, None]
        off = place - np.stack([column + 0.5, row + 0.5], -1)
        np.testing.assert_allclose(off, 0, atol=1e-3)
        np.testing.assert_allclose(drawn["depth"][index][row, column], far, atol=2e-3)


def test_landmarks_that_are_seen_are_nowhere_hidden(drawn):
    outside = [CLASS(name) for name in ("background", "hair", "other")]
    wrong = seen = 0
    for classes, landmarks, visible in zip(
        drawn["classes"], drawn["landmarks"], drawn["landmark_visible"], strict=True
    ):
        inner = landmarks[17:][visible[17:] > 0].astype(int)
        wrong += np.isin(classes[inner[:, 1], inner[:, 0]], outside).sum()
        seen += len(inner)
    assert seen > 0.6 * 51 * COUNT and wrong < 0.06 * seen  # at borders


def test_nothing_is_seen_of_the_face_behind_dark_glasses_and_hands(setting, draw):
    model, people, _ = setting
    keys = jax.vmap(jax.random.key)(jnp.arange(200))
    _, looks = jax.jit(lambda keys: random_people(keys, model, people))(keys)
    dark = np.flatnonzero((np.asarray(looks.tint) > 0.5) & (np.asarray(looks.styles["glasses"]) > 0))
    drawn = {name: np.asarray(values) for name, values in draw(keys[np.resize(dark, COUNT)]).items()}
    glasses = drawn["classes"] == CLASS("glasses")
    assert glasses.any() and (drawn["triangle"][glasses] == -1).all()
    hands = 0
    for start in range(0, 4 * COUNT, COUNT):
        drawn = {name: np.asarray(values) for name, values in draw(keys[start : start + COUNT]).items()}
        for index in range(COUNT):
            other = drawn["classes"][index] == CLASS("other")
            assert (drawn["triangle"][index][other] == -1).all()
            column, row = np.clip(drawn["landmarks"][index][17:].astype(int), 1, SIZE - 2).T
            around = [other[row + down, column + right] for down in (-1, 0, 1) for right in (-1, 0, 1)]
            deep = np.all(around, axis=0)
            hands += deep.sum()
            assert not drawn["landmark_visible"][index][17:][deep].any()
    assert hands > 10


def test_the_light_that_is_told_explains_the_picture(setting, drawn):
    model = setting[0]
    coefficients = Coefficients.from_vector(jnp.asarray(drawn["coefficients"]), model)
    albedo = np.asarray(face_models.albedo(model, coefficients.albedo))
    light = np.asarray(coefficients.light.at[..., 0].add(lighting.AMBIENT))
    errors, plain = [], []
    for index in range(COUNT):
        skin = (drawn["labels"][index] == parts.LABELS["skin"]) & (drawn["triangle"][index] >= 0)
        corners = np.asarray(model.triangles)[drawn["triangle"][index][skin]]
        own = (albedo[index][corners] * drawn["barycentric"][index][skin][..., None]).sum(1)
        basis = np.asarray(lighting.spherical_harmonics(jnp.asarray(drawn["normal"][index][skin])))
        shown = drawn["image"][index][skin] / 255
        errors.append(abs(own * (basis @ light[index].T) - shown).mean())
        plain.append(abs(own - shown).mean())
    assert np.mean(errors) < 0.1 and np.mean(errors) < 0.7 * np.mean(plain)


def test_people_are_those_whom_the_keys_make(setting, drawn, keys):
    model, people, _ = setting
    who, looks = jax.jit(lambda keys: random_people(keys, model, people))(keys)
    coefficients = Coefficients.from_vector(jnp.asarray(drawn["coefficients"]), model)
    for name in ("identity", "expression", "albedo", "angles"):
        np.testing.assert_allclose(getattr(who, name), getattr(coefficients, name), atol=1e-5)
    bald = np.asarray(looks.styles["hair"]) == 0
    for index in range(COUNT):
        share = (drawn["classes"][index] == CLASS("hair")).mean()
        assert share == 0 if bald[index] else share > 0.005
