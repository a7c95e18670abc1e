import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface import decode_face
from jaxface.core import parts
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients, vector_size
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import landmark_points
from jaxface.core.lighting import shade
from jaxface.photos.alignment import fit_alignment, five_points
from jaxface.photos.samples import DTYPES, field_shapes, validate_sample
from jaxface.render import label_triangles
from jaxface.synthetic import camera_effects, drawing, random_faces
from jaxface.synthetic.dice import Dice
from jaxface.synthetic.portraits import draw_portraits
from jaxface.synthetic.source import Painter, SyntheticSource, draw_samples, generate_samples
from toys.models import toy_model

SIZE = 48
COUNT = 40


@pytest.fixture(scope="module")
def batch(anny):
    return generate_samples(anny, seed=1, count=COUNT, size=SIZE)


@pytest.fixture(scope="module")
def portraits(anny):
    """Of a face model without people: faces before painted heads, seen by the usual camera."""
    painter = dataclasses.replace(Painter.of(anny, seed=1), people=None)
    drawn = draw_samples(jax.tree.map(jnp.asarray, painter), np.arange(COUNT), size=SIZE)
    return {name: np.asarray(values) for name, values in drawn.items()}


@pytest.fixture(scope="module")
def names(anny):
    return anny.expression_names


def sample_at(batch, index):
    return {key: value[index, ...] for key, value in batch.items()}


@pytest.mark.slow
def test_samples_follow_the_layout(batch):
    assert {key: value.dtype for key, value in batch.items()} == DTYPES
    for index in range(COUNT):
        validate_sample(sample_at(batch, index), f"sample {index}", size=SIZE)
    assert (batch["has_coefficients"] == 1).all()
    assert batch["image"].std(axis=(1, 2, 3)).min() > 5


@pytest.mark.slow
def test_a_sample_depends_on_seed_and_index_alone(anny, batch):
    part = generate_samples(anny, seed=1, start=13, count=6, size=SIZE)
    assert all(np.array_equal(part[key], batch[key][13:19]) for key in part)
    other = generate_samples(anny, seed=2, start=0, count=2, size=SIZE)
    assert not np.array_equal(other["coefficients"], batch["coefficients"][:2])


@pytest.mark.slow
def test_coefficients_landmarks_and_labels_agree(anny, portraits):
    coefficients = Coefficients.from_vector(jnp.asarray(portraits["coefficients"]), anny)
    face = jax.jit(decode_face)(anny, coefficients, Camera().resized(SIZE))
    landmarks = np.asarray(landmark_points(anny, face.points, coefficients.angles[:, 2]))
    np.testing.assert_allclose(portraits["landmarks"], landmarks, atol=1e-3)
    inside = ((landmarks >= 0) & (landmarks <= SIZE)).all(-1)
    np.testing.assert_array_equal(portraits["landmark_weights"], inside)
    # Each part's pixels lie among the projections of its vertices; the subject's left is at larger x when frontal.
    points = np.asarray(face.points)
    for index in range(COUNT):
        centers = {part: parts.mask_points(portraits["labels"][index] == label) for part, label in parts.LABELS.items()}
        for part in ("nose", "left_eye", "right_eye", "upper_lip"):
            low, high = (f(points[index, anny.parts[part]], axis=0) for f in (np.min, np.max))
            assert ((centers[part] > low - 1) & (centers[part] < high + 1)).all()
        if abs(portraits["coefficients"][index, -32]) < 0.3 and len(centers["left_eye"]) and len(centers["right_eye"]):
            assert centers["left_eye"][:, 0].mean() > centers["right_eye"][:, 0].mean()


@pytest.mark.slow
def test_every_kind_of_variation_occurs(anny, portraits, names):
    coefficients = Coefficients.from_vector(portraits["coefficients"], anny)
    expression = np.asarray(coefficients.expression)
    assert expression.min() >= 0 and expression.max() <= 1
    for unit in ("eyeBlinkLeft", "jawOpen", "mouthSmileLeft", "browDownLeft"):
        assert (expression[:, names.index(unit)] > 0.4).any(), unit
    assert (expression == 0).all(axis=1).any()
    yaw = np.rad2deg(np.asarray(coefficients.angles)[:, 1])
    assert yaw.min() < -25 and yaw.max() > 25 and np.abs(yaw).max() <= 65
    hidden = [(portraits["labels"][index] == parts.BACKGROUND).mean() for index in range(COUNT)]
    assert np.std(hidden) > 0.02


@pytest.mark.slow
def test_crops_are_those_that_aligning_the_photo_would_cut(anny, names):
    @jax.jit
    def draw(model, keys, scale, shift):
        coefficients = random_faces.random_coefficients(keys, model)
        translation = random_faces.aligned_translation(model, coefficients, scale=scale, shift=shift)
        moved = coefficients.replace(translation=translation)
        return decode_face(model, moved, Camera()).points[:, model.landmarks["68"]]

    template = five_points(np.asarray(anny.mean_shape)[anny.landmarks["68"]])
    keys = jax.random.split(jax.random.key(3), 6)

    def alignments(scale, shift):
        landmarks = np.asarray(draw(anny, keys, jnp.array(scale), jnp.array(shift)))
        return [fit_alignment(each, template, photo_size=(224, 224)) for each in landmarks]

    for alignment in alignments([1.0] * 6, [[0.0, 0.0]] * 6):
        assert alignment.scale == pytest.approx(1, abs=2e-3)
        assert (alignment.offset_x, alignment.offset_y) == pytest.approx((0, 0), abs=0.3)
    for alignment in alignments([1.1] * 6, [[5.0, -3.0]] * 6):
        assert alignment.scale == pytest.approx(1 / 1.1, rel=3e-3)
        center = alignment.to_photo(np.array([112.0, 112.0]))  # the template's origin
        np.testing.assert_allclose(center, [117, 109], atol=0.4)


@pytest.mark.slow
def test_light_is_mostly_positive_on_what_the_camera_sees():
    light = jax.jit(jax.vmap(lambda key: random_faces.random_light(Dice(key))))(
        jax.random.split(jax.random.key(0), 200)
    )
    normals = np.random.default_rng(0).normal(size=(1, 300, 3))
    normals = (normals / np.linalg.norm(normals, axis=-1, keepdims=True)).astype(np.float32)
    normals = normals * np.where(normals[..., 2:] < 0, -1, 1)  # those that a camera sees
    shading = np.asarray(shade(jnp.ones((200, 300, 3)), jnp.tile(normals, (200, 1, 1)), light))
    assert np.mean(shading < 0) < 0.01
    assert 0.4 < np.median(shading) < 1.1


@pytest.mark.slow
def test_a_model_without_names_or_contours_will_do():
    steps = np.linspace(-0.9, 0.9, 12, dtype=np.float32)
    x, y = (axis.ravel() for axis in np.meshgrid(steps, steps))
    shape = np.stack([x, y, 0.5 - 0.4 * x**2 - 0.2 * y**2], -1)
    corner = (np.arange(11)[:, None] * 12 + np.arange(11)).reshape(-1, 1)
    triangles = np.concatenate([corner + [[0, 1, 13]], corner + [[0, 13, 12]]]).astype(np.int32)
    generator = np.random.default_rng(0)
    model = FaceModel(
        mean_shape=shape,
        identity_basis=0.01 * generator.normal(size=(144, 3, 4)).astype(np.float32),
        expression_basis=0.01 * generator.normal(size=(144, 3, 3)).astype(np.float32),
        mean_albedo=np.full((144, 3), 0.6, np.float32),
        albedo_basis=0.05 * generator.normal(size=(144, 3, 2)).astype(np.float32),
        triangles=triangles,
        parts={part: np.arange(16 * i, 16 * i + 16) for i, part in enumerate(parts.PARTS)},
        landmarks={"68": generator.permutation(144)[:68]},
        name="plate",
    )
    keys, labels = jax.random.split(jax.random.key(0), 5), label_triangles(model.parts, model.triangles)
    drawn = jax.eval_shape(lambda keys: draw_portraits(keys, model, labels, size=32), keys)
    assert {key: (value.dtype, value.shape) for key, value in drawn.items()} == {
        key: (DTYPES[key], (5, *shape)) for key, shape in field_shapes(32, vector_size(model)).items()
    }
    coefficients = jax.jit(lambda keys: random_faces.random_coefficients(keys, model))(keys)
    assert coefficients.expression.min() < 0 < coefficients.expression.max()


@pytest.mark.parametrize("seed", [0, -1, 2**31 - 1, 2**31, 2**31 + 999_999])
def test_every_seed_of_32_bits_has_a_key(seed):
    found = jax.random.key_data(jax.random.key(Painter.of(toy_model(), seed=seed).seed))
    np.testing.assert_array_equal(found, [0, seed % 2**32])


@pytest.mark.slow
def test_the_cache_is_whole_or_not_there(anny, tmp_path, monkeypatch, batch):
    settings, painter = {"count": 20, "size": SIZE, "cache_dir": tmp_path / "cache"}, Painter.of(anny, seed=1)
    source = SyntheticSource(painter, **settings)
    assert len(source) == 20
    for index in (0, 19):
        assert all(np.array_equal(value, batch[key][index]) for key, value in source[index].items())
        validate_sample(source[index], "cached")
    copy = pickle.loads(pickle.dumps(source))
    assert len(pickle.dumps(source)) < 1000 and np.array_equal(copy[3]["image"], source[3]["image"])

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("jaxface.synthetic.source.draw_samples", stop)
        assert np.array_equal(SyntheticSource(painter, **settings)[5]["labels"], source[5]["labels"])
        with pytest.raises(KeyboardInterrupt):
            SyntheticSource(Painter.of(anny, seed=7), **settings)
    folders = list((tmp_path / "cache").iterdir())
    assert len(folders) == 1 and folders[0].name.startswith("synthetic-")
    (folders[0] / "labels.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"damaged .*delete that folder"):
        SyntheticSource(painter, **settings)


def test_settings_that_cannot_work_are_named(anny, tmp_path):
    with pytest.raises(InputError, match="count >= 1"):
        SyntheticSource(Painter.of(anny, seed=0), count=0, size=SIZE)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        SyntheticSource(Painter.of(anny, seed=0), count=1, size=SIZE, cache_dir=tmp_path / "file")


@pytest.mark.slow
def test_dice_give_the_distributions_that_they_promise():
    def throw(key):
        dice = Dice(key)
        return dice.uniform(2, low=2, high=4), dice.normal(2, limit=2.0), dice.pick((1, 2, 1)), dice.chance(0.3)

    uniform, normal, picked, chance = (
        np.asarray(each) for each in jax.vmap(throw)(jax.random.split(jax.random.key(0), 4000))
    )
    assert uniform.min() >= 2 and uniform.max() < 4 and uniform.mean() == pytest.approx(3, abs=0.03)
    assert (uniform[:, 0] != uniform[:, 1]).all()
    assert np.abs(normal).max() <= 2.0001 and normal.std() == pytest.approx(0.96, abs=0.03)
    np.testing.assert_allclose(np.bincount(picked) / 4000, [0.25, 0.5, 0.25], atol=0.03)
    assert chance.mean() == pytest.approx(0.3, abs=0.03)


@pytest.mark.slow
def test_shapes_are_where_they_should_be():
    frame = drawing.head_frame(jnp.array([16.0, 16.0]), jnp.array([0.0, 0.0, np.pi / 2]), jnp.float32(8.0), size=32)
    # Rolled a quarter turn counter-clockwise, the head's right (x) points up in the picture.
    np.testing.assert_allclose(frame.locate(jnp.array([16.0, 8.0])), [1, 0], atol=1e-6)
    np.testing.assert_allclose(frame.position[8, 16], frame.locate(jnp.array([16.5, 8.5])), atol=1e-6)
    disc = drawing.cover(drawing.ellipse(frame.position, jnp.zeros(2), jnp.array([1.0, 1.0])), frame)
    assert float(disc.sum()) == pytest.approx(np.pi * 64, rel=0.02)
    corners = jnp.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    assert float(drawing.polygon(frame.position, corners).sum()) == 256
    bar = drawing.segment(frame.position, jnp.array([-1.0, 0.0]), jnp.array([1.0, 0.0]), 0.5)
    assert float(drawing.cover(bar, frame).sum()) == pytest.approx(64 * (2 + np.pi / 4), rel=0.03)


def test_blur_spreads_a_dot_as_a_bell_does():
    dot = jnp.zeros((31, 31, 3)).at[15, 15].set(1.0)
    for sigma in (jnp.float32(1.5), jnp.array([1.5, 1.5]), jnp.array([2.0, 0.8])):
        down, across = jnp.broadcast_to(sigma, 2)
        bells = [np.exp(-((np.arange(31) - 15) ** 2) / (2 * float(width) ** 2)) for width in (down, across)]
        expected = np.outer(*(bell / bell.sum() for bell in bells))
        np.testing.assert_allclose(camera_effects.blur(dot, sigma)[..., 1], expected, atol=1e-6)


@pytest.mark.slow
def test_compression_keeps_flat_pictures_and_loses_detail():
    flat = jnp.full((20, 20, 3), 0.5)
    np.testing.assert_allclose(camera_effects.compress(flat, jnp.float32(0.02)), flat, atol=0.02)
    noisy = jax.random.uniform(jax.random.key(0), (32, 32, 3))
    errors = [
        float(jnp.abs(camera_effects.compress(noisy, jnp.float32(step)) - noisy).mean()) for step in (1e-4, 0.02, 0.1)
    ]
    assert errors[0] < 1e-3 < errors[1] < errors[2] < 0.2
