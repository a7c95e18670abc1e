import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.spatial.transform import Rotation

from jaxface import Camera, Coefficients, decode_face
from jaxface.core import face_models
from jaxface.core.coefficients import vector_size, vector_sizes
from jaxface.core.face_models import shape_of_vertices
from jaxface.core.skinning import ANGLE_LIMIT, Skinning, axis_angle_offset, turn_joints
from jaxface.fitting.priors import coefficient_prior
from jaxface.losses.regularization import coefficient_regularization
from jaxface.networks.encoder import create_encoder
from jaxface.networks.morphable_model import MorphableModel
from jaxface.synthetic.random_faces import random_coefficients
from jaxface.training.augmentation import coefficient_mirror
from oracles.skinning import slow_skinning
from toys.models import toy_model

pytestmark = pytest.mark.usefixtures("quick_compilation")

PARENTS, POSED = (-1, 0, 1, 1, 2), (1, 2, 4)  # the last is a child of a posed joint, which hangs on a posed one itself


def skinned_model(dtype=np.float32):
    """The toy model with five joints and no albedo basis."""
    model = toy_model(albedo=0)
    random = np.random.default_rng(7)
    count, joints = len(model.mean_shape), len(PARENTS)
    weights = random.dirichlet(np.full(joints, 0.5), count)
    skinning = Skinning(
        joints=random.normal(size=(joints, 3)).astype(dtype),
        joint_identity_basis=0.1 * random.normal(size=(joints, 3, 3)).astype(dtype),
        joint_expression_basis=0.1 * random.normal(size=(joints, 3, 2)).astype(dtype),
        weights=weights.astype(dtype),
        pose_basis=0.1 * random.normal(size=(count, 3, 9 * (joints - 1))).astype(dtype),
        parents=PARENTS,
        posed=POSED,
    )
    model = jax.tree.map(lambda x: x.astype(dtype) if x.dtype == np.float32 else x, model)
    return dataclasses.replace(model, skinning=skinning)


@pytest.fixture(scope="module")
def model():
    return skinned_model()


shape_of = jax.jit(face_models.shape)
turn_of = jax.jit(axis_angle_offset)


def slow_shape(model, identity, expression):
    count = model.expression_basis.shape[-1]
    total = [
        np.asarray(mean, np.float64) + first @ np.float64(identity) + second @ np.float64(expression[:count])
        for mean, first, second in (
            (model.mean_shape, model.identity_basis, model.expression_basis),
            (model.skinning.joints, model.skinning.joint_identity_basis, model.skinning.joint_expression_basis),
        )
    ]
    return slow_skinning(*total, expression[count:], model.skinning)


@pytest.mark.parametrize("size", [0.0, 1e-5, 1e-2, 0.4, 2.5])
def test_rotations_against_scipy(size):
    angles = size * np.random.default_rng(0).normal(size=(20, 3))
    expected = Rotation.from_rotvec(angles).as_matrix() - np.eye(3)
    np.testing.assert_allclose(turn_of(np.float32(angles)), expected, atol=4e-7 * max(size, 1e-3))
    with jax.enable_x64(True):
        np.testing.assert_allclose(turn_of(jnp.asarray(angles)), expected, atol=1e-14)


@pytest.mark.slow
def test_shape_equals_the_definition(model):
    random = np.random.default_rng(1)
    identity, expression = random.normal(size=(4, 3)), random.normal(size=(4, 2 + 9))
    expected = np.stack([slow_shape(model, *pair) for pair in zip(identity, expression, strict=True)])
    got = shape_of(model, jnp.float32(identity), jnp.float32(expression))
    np.testing.assert_allclose(got, expected, atol=2e-5)
    one_by_one = jax.jit(jax.vmap(face_models.shape, (None, 0, 0)))(
        model, jnp.float32(identity), jnp.float32(expression)
    )
    np.testing.assert_allclose(one_by_one, got, atol=1e-6)
    with jax.enable_x64(True):
        model64 = skinned_model(np.float64)
        expected = slow_shape(model64, identity[0], expression[0])
        np.testing.assert_allclose(shape_of(model64, identity[0], expression[0]), expected, atol=1e-12)


@pytest.mark.slow
def test_without_turns_the_shape_is_exactly_linear(model):
    random = np.random.default_rng(2)
    identity, expression = (jnp.asarray(random.normal(size=(2, size)), jnp.float32) for size in (3, 2))
    linear = shape_of(dataclasses.replace(model, skinning=None), identity, expression)
    padded = jnp.concatenate([expression, jnp.zeros((2, 9))], axis=-1)
    np.testing.assert_array_equal(shape_of(model, identity, padded), linear)
    zeros = Coefficients.zeros(model)
    np.testing.assert_array_equal(shape_of(model, zeros.identity, zeros.expression)[0], model.mean_shape)


@pytest.mark.parametrize("joint", POSED)
def test_what_hangs_on_one_joint_alone_moves_rigidly_about_it(model, joint):
    skinning = model.skinning
    alone = dataclasses.replace(
        skinning,
        weights=np.tile(np.eye(len(PARENTS), dtype=np.float32)[joint], (81, 1)),
        pose_basis=np.zeros_like(skinning.pose_basis),
    )
    angles = np.zeros((len(POSED), 3), np.float32)
    angles[POSED.index(joint)] = 0.3, -0.5, 0.2
    moved = jax.jit(turn_joints)(jnp.asarray(model.mean_shape), jnp.asarray(skinning.joints), angles.ravel(), alone)
    place = skinning.joints[joint]
    rotation = Rotation.from_rotvec(angles[POSED.index(joint)]).as_matrix()
    np.testing.assert_allclose(moved, (model.mean_shape - place) @ rotation.T + place, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("size", [0.0, 0.0182, 0.6])
def test_gradients_at_zero_at_the_change_of_formula_and_beyond(size):
    with jax.enable_x64(True):
        model = skinned_model(np.float64)
        small = shape_of_vertices(model, np.array([3, 40, 40]))
        random = np.random.default_rng(3)
        angles = random.normal(size=(3, 3))
        angles *= size / np.linalg.norm(angles, axis=1, keepdims=True)
        arguments = (random.normal(size=3), np.concatenate([random.normal(size=2), angles.ravel()]))
        check_grads(lambda *c: shape_of(small, *c), arguments, order=1, modes=["fwd", "rev"])


@pytest.mark.slow
def test_some_vertices_alone_are_rows_of_the_whole(model):
    vertices = np.array([5, 80, 5, 0])
    for one in (model, toy_model()):
        vector = np.random.default_rng(4).normal(size=(2, vector_size(one)))
        c = Coefficients.from_vector(np.float32(vector), one)
        whole = shape_of(one, c.identity, c.expression)
        part = shape_of(shape_of_vertices(one, vertices), c.identity, c.expression)
        np.testing.assert_allclose(part, whole[:, vertices], atol=1e-5)


def test_coefficients_count_the_joints(model):
    assert vector_sizes(model) == (3, 2 + 9, 0, 3, 27, 3)
    vector = np.arange(47, dtype=np.float32)[None]
    coefficients = Coefficients.from_vector(vector, model)
    np.testing.assert_array_equal(coefficients.expression[0], np.arange(3, 14))
    np.testing.assert_array_equal(coefficients.to_vector(), vector)
    assert vector_sizes(toy_model()) == (3, 2, 3, 3, 27, 3)


@pytest.mark.slow
def test_the_flax_module_and_decode_face_turn_joints(model):
    vector = 0.3 * np.random.default_rng(5).normal(size=(2, 47))
    c = Coefficients.from_vector(jnp.float32(vector), model)
    expected = shape_of(model, c.identity, c.expression)
    module = MorphableModel(model)
    shape, albedo = jax.jit(module.init_with_output)(jax.random.key(0), c)[0]
    np.testing.assert_allclose(shape, expected, atol=1e-6)
    np.testing.assert_array_equal(albedo, np.broadcast_to(model.mean_albedo, albedo.shape))
    face = jax.jit(decode_face)(model, c, Camera())
    np.testing.assert_allclose(face.shape, expected, atol=1e-5)


def test_a_model_without_albedo_coefficients_trains_and_regularises(model):
    c = Coefficients.zeros(model, 2)
    losses = coefficient_regularization(c.identity + 1, c.expression, c.albedo)
    np.testing.assert_allclose(losses, 3.0)
    encoder = create_encoder("resnet10", vector_sizes(model)[:3], width_multiplier=0.125)
    shapes = jax.eval_shape(lambda: encoder.init_with_output(jax.random.key(0), jnp.zeros((2, 32, 32, 3)), train=False))
    assert shapes[0].shape == (2, 47)
    assert all(leaf.size for leaf in jax.tree.leaves(shapes[1]))  # checkpoints hold no empty arrays
    assert coefficient_mirror(model) is None  # joints have no mirror image there
    mirrored = coefficient_mirror(dataclasses.replace(toy_model(0, 0, 0), skinning=None))
    np.testing.assert_array_equal(mirrored[:3, :3], np.diag([1, -1, -1]))


@pytest.mark.slow
def test_priors_and_random_faces_keep_joints_within_their_limits(model):
    prior = coefficient_prior(model)
    np.testing.assert_array_equal(prior.upper[:15], [3] * 5 + [np.float32(ANGLE_LIMIT)] * 9 + [np.float32(np.pi)])
    assert prior.deviation.shape == (47,)
    faces = jax.jit(random_coefficients)(jax.random.split(jax.random.key(0), 3), model)
    angles = np.asarray(faces.expression[:, 2:])
    assert 0 < np.abs(angles).max() <= ANGLE_LIMIT and np.isfinite(faces.translation).all()
