"""The forward pass of 3DDFA-V3 and Deep3D at full size, against a plain transcription of its formulas in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface import Camera, Coefficients, decode_face, load_face_model
from jaxface.core.faces import landmark_points
from jaxface.core.landmarks import march_landmarks
from toys import stand_ins

pytestmark = pytest.mark.slow

BATCH = 2
FOCAL, CENTER, DISTANCE = 1015.0, 112.0, 10.0


def rotation(angles):
    pitch, yaw, roll = angles
    about_x = [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    about_y = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
    about_z = [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
    return (np.array(about_z) @ np.array(about_y) @ np.array(about_x)).T  # applied from the right to rows


def image_points(shape, angles, translation):
    """Camera-space points [V, 3] and image points [V, 2], y down and continuous: 224 - y_up."""
    posed = shape @ rotation(angles) + translation
    camera = np.stack([posed[:, 0], posed[:, 1], DISTANCE - posed[:, 2]], -1)
    x = FOCAL * camera[:, 0] / camera[:, 2] + CENTER
    y_up = FOCAL * camera[:, 1] / camera[:, 2] + CENTER
    return camera, np.stack([x, 224 - y_up], -1)


def unit(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def normals(shape, triangles):
    v1, v2, v3 = (shape[triangles[:, corner]] for corner in range(3))
    faces = unit(np.cross(v1 - v2, v2 - v3))
    total = np.zeros_like(shape)
    for corner in range(3):
        for axis in range(3):
            total[:, axis] += np.bincount(triangles[:, corner], faces[:, axis], len(shape))
    return unit(total)


def shading(normal, light):
    a = [np.pi, 2 * np.pi / np.sqrt(3), 2 * np.pi / np.sqrt(8)]
    c = [1 / np.sqrt(4 * np.pi), np.sqrt(3) / np.sqrt(4 * np.pi), 3 * np.sqrt(5) / np.sqrt(12 * np.pi)]
    x, y, z = normal.T
    k = a[2] * c[2]
    basis = [
        a[0] * c[0] * np.ones_like(x), -a[1] * c[1] * y, a[1] * c[1] * z, -a[1] * c[1] * x, k * x * y, -k * y * z,
        k * (3 * z**2 - 1) / (2 * np.sqrt(3)), -k * x * z, k * (x**2 - y**2) / 2,
    ]  # fmt: skip
    bands = light.reshape(3, 9).copy()
    bands[:, 0] += 0.8
    return np.stack(basis, -1) @ bands.T


def marched(values, scheme, step, shape, angles, translation):
    """Landmark by landmark: the outermost vertex of its line with the roll set to zero; the chin stays."""
    _, points = image_points(shape, angles * [1, 1, 0], translation)
    line_of = np.full(len(shape), -1)
    for index, line in enumerate(values["parallel"]):
        line_of[line] = index
    chosen = np.array(values[f"ldm{scheme}"])
    for landmark, index in enumerate(range(0, 33, step)):
        x = np.where(line_of == index, points[:, 0], np.nan)
        if index != 16:
            chosen[landmark] = np.nanargmin(x) if index < 16 else np.nanargmax(x)
    return chosen


def expected(values, vector):
    """Everything for one coefficient vector [257], in float64."""
    identity, expression, albedo, angles, light, translation = np.split(vector, np.cumsum([80, 64, 80, 3, 27]))
    shape = values["u"][:, 0] + values["id"] @ identity + values["exp"] @ expression
    shape = shape.reshape(-1, 3)
    camera, points = image_points(shape, angles, translation)
    turned = normals(shape, values["tri"]) @ rotation(angles)
    texture = ((values["u_alb"][:, 0] + values["alb"] @ albedo) / 255).reshape(-1, 3)
    return {
        "shape": shape,
        "vertices": camera,
        "points": points,
        "depth": camera[:, 2],
        "normals": turned,
        "albedo": texture,
        "colors": texture * shading(turned, light),
        "marched 106": marched(values, 106, 1, shape, angles, translation),
        "marched 68": marched(values, 68, 2, shape, angles, translation),
    }


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    values = stand_ins.three_ddfa_v3()
    model = load_face_model(stand_ins.save_pickled(tmp_path_factory.mktemp("bfm") / "face_model.npy", values))
    random = np.random.default_rng(3)
    vectors = random.standard_normal((BATCH, 257))
    vectors[:, 224:227] *= 0.4
    vectors[:, 227:] *= 0.2
    vectors = vectors.astype(np.float32)
    wide = {name: np.asarray(values[name], np.float64) for name in ("u", "id", "exp", "u_alb", "alb")}
    return values, model, vectors, [expected(values | wide, vector.astype(np.float64)) for vector in vectors]


@jax.jit
def decode(model, vector):
    return decode_face(model, Coefficients.from_vector(vector, model), Camera())


@pytest.fixture(scope="module")
def decoded(case, quick_compilation):
    _, model, vectors, _ = case
    return decode(model, vectors)


def relative_error(actual, wanted):
    return np.abs(np.asarray(actual) - wanted).max() / np.abs(wanted).max()


def test_the_model_has_the_sizes_of_the_file(case):
    _, model, _, _ = case
    assert model.mean_shape.shape == (35_709, 3) and model.triangles.shape == (70_789, 3)


@pytest.mark.parametrize("name", ["shape", "vertices", "points", "depth", "albedo"])
def test_forward_pass(case, decoded, name):
    for index, wanted in enumerate(case[3]):
        assert relative_error(getattr(decoded, name)[index], wanted[name]) < 1e-5


@pytest.mark.parametrize("name", ["normals", "colors"])
def test_normals_and_shading(case, decoded, name):
    """The normal of a sliver loses digits in float32, whoever computes it: one vertex may be off by more than 1e-5."""
    for index, wanted in enumerate(case[3]):
        error = np.linalg.norm(np.asarray(getattr(decoded, name)[index]) - wanted[name], axis=-1)
        assert np.sqrt(np.mean(error**2)) < 1e-5 * np.sqrt(np.mean(wanted[name] ** 2))
        assert error.max() < 1e-3


def test_forward_pass_in_double_precision(case, quick_compilation):
    values, model, vectors, truth = case
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda array: array.astype(np.float64) if array.dtype.kind == "f" else array, model)
        for name, key in (("mean_albedo", "u_alb"), ("albedo_basis", "alb")):  # the loader divides by 255 in float32
            exact = values[key].reshape(getattr(wide, name).shape) / np.float64(255)
            wide = dataclasses.replace(wide, **{name: exact})
        face = decode(wide, vectors.astype(np.float64))
        for name in ("shape", "vertices", "points", "depth", "albedo", "normals", "colors"):
            for index, wanted in enumerate(truth):
                assert relative_error(getattr(face, name)[index], wanted[name]) < 1e-9


@pytest.mark.parametrize("scheme", ["68", "106", "134"])
def test_landmarks_in_place(case, decoded, scheme):
    values, model, _, truth = case
    for index, wanted in enumerate(truth):
        points = np.asarray(decoded.points[index])[model.landmarks[scheme]]
        assert relative_error(points, wanted["points"][values[f"ldm{scheme}"]]) < 1e-5


@pytest.mark.parametrize("scheme", ["68", "106"])
def test_marching(case, decoded, scheme):
    """With the roll of the coefficients set to zero, as the reference code does, the same vertices are chosen."""
    _, model, vectors, truth = case
    upright = vectors.copy()
    upright[:, 226] = 0
    face = decode(model, upright)
    chosen = march_landmarks(face.points[..., 0], model.landmarks[scheme], model.contours[scheme])
    for index, wanted in enumerate(truth):
        np.testing.assert_array_equal(chosen[index], wanted[f"marched {scheme}"])


def test_landmark_points(case, decoded, quick_compilation):
    """Turning the picture back by the roll chooses the same vertices for faces near the middle."""
    _, model, vectors, truth = case
    points = landmark_points(model, decoded.points, jnp.asarray(vectors[:, 226]))
    for index, wanted in enumerate(truth):
        assert relative_error(points[index], wanted["points"][wanted["marched 68"]]) < 1e-5
