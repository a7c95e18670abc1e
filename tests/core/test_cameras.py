import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.spatial.transform import Rotation

from jaxface.core import cameras
from jaxface.core.cameras import Camera, pose, project, rotation_matrix, to_camera_space


def test_rotation_is_scipys_extrinsic_xyz():
    angles = np.random.default_rng(0).uniform(-3, 3, (20, 3)).astype(np.float32)
    expected = Rotation.from_euler("xyz", angles).as_matrix()  # lower case: about fixed axes, x first
    np.testing.assert_allclose(rotation_matrix(angles), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("angles", "axis", "moved_to"),
    [
        ((0.1, 0.0, 0.0), (0, 0, 1), lambda v: v[1] < 0),  # positive pitch: the nose goes down
        ((0.0, 0.1, 0.0), (0, 0, 1), lambda v: v[0] > 0),  # positive yaw: the nose goes to the image's right
        ((0.0, 0.0, 0.1), (1, 0, 0), lambda v: v[1] > 0),  # positive roll: counter-clockwise
    ],
)
def test_signs_of_the_angles(angles, axis, moved_to):
    assert moved_to(rotation_matrix(np.array(angles, np.float32)) @ np.array(axis, np.float32))


@pytest.mark.slow
def test_projection_equals_deep3ds_formula_in_continuous_coordinates():
    random = np.random.default_rng(1)
    vertices = random.normal(size=(2, 50, 3))
    angles, translation = random.uniform(-1, 1, (2, 3)), random.normal(size=(2, 3))
    rotation = Rotation.from_euler("xyz", angles).as_matrix().transpose(0, 2, 1)
    posed = vertices @ rotation + translation[:, None]
    depth = 10 - posed[..., 2]
    x = 1015 * posed[..., 0] / depth + 112
    y_up = 1015 * posed[..., 1] / depth + 112
    expected = np.stack([x, 224 - y_up], -1)

    camera = Camera()
    in_camera = to_camera_space(pose(*(jnp.asarray(a, jnp.float32) for a in (vertices, angles, translation))), camera)
    np.testing.assert_allclose(in_camera[..., 2], depth, rtol=1e-5)
    np.testing.assert_allclose(project(in_camera, camera), expected, atol=2e-3)
    with jax.enable_x64(True):
        in_camera = to_camera_space(pose(*(jnp.asarray(a) for a in (vertices, angles, translation))), camera)
        np.testing.assert_allclose(project(in_camera, camera), expected, rtol=1e-12, atol=1e-9)


def test_the_origin_projects_to_the_centre_at_every_size():
    for size in (32, 112, 224, 450):
        camera = Camera().resized(size)
        assert camera.image_size == (size, size)
        np.testing.assert_allclose(project(jnp.array([[0.0, 0.0, 10.0]]), camera), [[size / 2, size / 2]])


def test_resizing_scales_the_picture():
    points = jnp.array([[0.3, -0.2, 9.5], [-0.5, 0.6, 10.5]])
    np.testing.assert_allclose(project(points, Camera().resized(112)) * 2, project(points, Camera()), rtol=1e-6)


def test_camera_is_a_tree_with_a_static_size():
    traces = []

    @jax.jit
    def center(camera):
        traces.append(camera.image_size)
        return camera.center[0] * 2

    assert center(Camera()) == 224 and center(Camera(focal=900.0)) == 224
    assert traces == [(224, 224)]


@pytest.mark.slow
def test_gradients():
    with jax.enable_x64(True):
        random = np.random.default_rng(2)
        vertices, angles, translation = random.normal(size=(1, 5, 3)), random.normal(size=(1, 3)), np.zeros((1, 3))

        def image_points(vertices, angles, translation):
            return project(to_camera_space(pose(vertices, angles, translation), Camera()), Camera()) / 100

        check_grads(image_points, (vertices, angles, translation), order=1, modes=["rev"])


def test_conventions_are_written_down():
    assert "y DOWN" in cameras.__doc__
