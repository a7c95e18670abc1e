import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from jax.test_util import check_grads

from jaxface import Camera, Coefficients, decode_face
from jaxface.core import face_models
from jaxface.core.face_models import vertex_normals
from jaxface.networks.morphable_model import MorphableModel
from toys.models import toy_model


@pytest.fixture(scope="module")
def model():
    return toy_model()


def _random_coefficients(model, batch=2, seed=0):
    random = np.random.default_rng(seed)
    zeros = Coefficients.zeros(model, batch)
    return jax.tree.map(lambda x: jnp.asarray(0.3 * random.normal(size=x.shape), jnp.float32), zeros)


def test_shape_and_albedo_are_linear(model):
    c = _random_coefficients(model)
    shape = model.mean_shape + np.einsum("vck,bk->bvc", model.identity_basis, c.identity)
    shape += np.einsum("vck,bk->bvc", model.expression_basis, c.expression)
    np.testing.assert_allclose(face_models.shape(model, c.identity, c.expression), shape, atol=1e-6)
    albedo = model.mean_albedo + np.einsum("vck,bk->bvc", model.albedo_basis, c.albedo)
    np.testing.assert_allclose(face_models.albedo(model, c.albedo), albedo, atol=1e-6)


def test_normals_by_a_slow_loop(model):
    vertices = np.asarray(model.mean_shape, np.float64)
    expected = np.zeros_like(vertices)
    for triangle in model.triangles:
        v1, v2, v3 = vertices[triangle]
        normal = np.cross(v1 - v2, v2 - v3)
        expected[triangle] += normal / np.linalg.norm(normal)
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(vertex_normals(model.mean_shape, model.triangles), expected, atol=1e-5)


def test_normals_of_a_sphere_point_outwards():
    sphere = trimesh.creation.icosphere(3)
    normals = vertex_normals(np.asarray(sphere.vertices, np.float32), np.asarray(sphere.faces))
    assert (np.sum(normals * sphere.vertices, -1) > 0.999).all()


@pytest.mark.slow
def test_normals_of_degenerate_and_lonely_vertices_are_zero_with_finite_gradients():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [5, 5, 5]], np.float32)
    triangles = np.array([[0, 1, 2]])
    np.testing.assert_array_equal(vertex_normals(vertices, triangles), np.zeros((4, 3)))
    gradient = jax.grad(lambda v: vertex_normals(v, triangles).sum())(vertices)
    assert np.isfinite(gradient).all()


@pytest.mark.slow
def test_decode_face_by_hand(model):
    c = _random_coefficients(model, seed=1)
    face = decode_face(model, c, Camera())
    from scipy.spatial.transform import Rotation

    rotation = Rotation.from_euler("xyz", c.angles).as_matrix()
    shape = face_models.shape(model, c.identity, c.expression)
    posed = np.einsum("bij,bvj->bvi", rotation, shape) + np.asarray(c.translation)[:, None]
    np.testing.assert_allclose(face.vertices[..., :2], posed[..., :2], atol=1e-5)
    np.testing.assert_allclose(face.depth, 10 - posed[..., 2], rtol=1e-5)
    np.testing.assert_array_equal(face.depth, face.vertices[..., 2])
    normals = np.einsum("bij,bvj->bvi", rotation, vertex_normals(shape, model.triangles))
    np.testing.assert_allclose(face.normals, normals, atol=1e-5)
    assert face.points.shape == (2, 81, 2) and face.colors.shape == (2, 81, 3)


@pytest.mark.slow
def test_the_mean_face_is_upright_in_the_picture(model):
    points = decode_face(model, Coefficients.zeros(model), Camera()).points[0]
    assert points[model.parts["left_eye"], 0].mean() > 112 > points[model.parts["right_eye"], 0].mean()
    assert points[model.parts["upper_lip"], 1].mean() > points[model.parts["nose"], 1].mean()


def test_one_compilation_serves_new_values(model):
    traces = []

    @jax.jit
    def points(model, coefficients):
        traces.append(1)
        return decode_face(model, coefficients, Camera()).points

    points(model, _random_coefficients(model, seed=2))
    points(model, _random_coefficients(model, seed=3))
    assert len(traces) == 1


@pytest.mark.slow
def test_gradients_through_everything(model):
    with jax.enable_x64(True):
        model64 = jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, model)
        random = np.random.default_rng(4)
        vector = 0.1 * random.normal(size=(1, 3 + 2 + 3 + 3 + 27 + 3))

        def numbers(vector):
            face = decode_face(model64, Coefficients.from_vector(vector, model64), Camera())
            return jnp.concatenate([face.points.ravel() / 100, face.colors.ravel(), face.depth.ravel()])

        check_grads(numbers, (vector,), order=1, modes=["rev"])


def test_flax_module_frozen_and_trainable(model):
    c = _random_coefficients(model)
    expected = face_models.shape(model, c.identity, c.expression), face_models.albedo(model, c.albedo)
    frozen = MorphableModel(model)
    variables = frozen.init(jax.random.key(0), c)
    assert set(variables) == {"face_model"}
    for got, want in zip(frozen.apply(variables, c), expected, strict=True):
        np.testing.assert_allclose(got, want)
    trainable = MorphableModel(model, trainable=True)
    variables = trainable.init(jax.random.key(0), c)
    assert set(variables["params"]) >= {"identity_basis", "albedo_basis"}
    gradient = jax.grad(lambda p: trainable.apply({"params": p}, c)[0].sum())(variables["params"])
    assert np.abs(gradient["identity_basis"]).sum() > 0
