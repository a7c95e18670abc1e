"""Tables of detectors: as written and read, as a covariance, and as points of a face model with and without joints."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface import Camera, Coefficients, decode_face, load_face_model
from jaxface.core.coefficients import vector_size
from jaxface.core.errors import InputError
from jaxface.fitting.evidence import (
    Calibration,
    dense_evidence,
    errors_at,
    evidence_for,
    evidence_points,
    inverse_covariance,
    landmark_evidence,
    people_prior,
    shipped_calibration,
)
from jaxface.models.flame import read_flame
from toys.evidence import toy_calibration
from toys.flame import flame_content, write_flame
from toys.models import toy_model

CAMERA = Camera().resized(64)


@pytest.fixture(scope="module")
def jointed(tmp_path_factory):
    """A face model whose jaw turns."""
    return read_flame(write_flame(tmp_path_factory.mktemp("flame") / "flame2023.pkl", flame_content(40, 60)))


@pytest.mark.parametrize("joints", [False, True])
def test_points_lie_between_their_vertices(joints, jointed):
    model = jointed if joints else toy_model()
    calibration = toy_calibration(model, points=30)
    random = np.random.default_rng(0)
    vector = 0.1 * random.normal(size=(1, vector_size(model))).astype(np.float32)
    found = evidence_points(dense_evidence(model, calibration), jnp.asarray(vector[0]), CAMERA)
    face = decode_face(model, Coefficients.from_vector(jnp.asarray(vector), model), CAMERA)
    corners = np.asarray(face.vertices, np.float64)[0][calibration.triangles]
    spots = (calibration.barycentric[..., None] * corners).sum(1)
    expected = np.stack([spots[:, 0], -spots[:, 1]], -1) * CAMERA.focal / spots[:, 2:] + np.array(CAMERA.center)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_landmarks_of_any_model_are_evidence():
    model = toy_model()
    evidence = landmark_evidence(model, shipped_calibration())
    vector = jnp.zeros(vector_size(model))
    points = decode_face(model, Coefficients.zeros(model), CAMERA).points[0, model.landmarks["68"][17:]]
    np.testing.assert_allclose(evidence_points(evidence, vector, CAMERA), points, atol=1e-4)
    assert evidence.rows.tolist() == list(range(17, 68)) and evidence.variances.shape[1] == 102
    with pytest.raises(InputError, match="no 68 landmarks"):
        landmark_evidence(dataclasses.replace(model, landmarks={}), shipped_calibration())


def test_the_built_in_model_takes_all_points():
    model = load_face_model("anny")
    assert evidence_for(model, dense=True).entry == "points"
    assert evidence_for(model, dense=False).entry == "landmarks"
    assert evidence_for(toy_model(), dense=True).entry == "landmarks"  # the table is that of another model
    earlier = dataclasses.replace(toy_model(), name="anny")  # a file of an earlier edition has the same name
    assert evidence_for(earlier, dense=True).entry == "landmarks"


def test_the_prior_lies_around_the_calibrations_people_of_the_same_face_model():
    model = load_face_model("anny")  # its mean face is that of people already
    assert not people_prior(model).mean.any() and not people_prior(toy_model()).mean.any()
    people = np.linspace(-1, 1, model.identity_basis.shape[-1], dtype=np.float32)
    table = dataclasses.replace(shipped_calibration(), identity_mean=people)
    np.testing.assert_array_equal(people_prior(model, table).mean[: len(people)], people)
    assert not people_prior(model, dataclasses.replace(table, vertices=11627)).mean.any()  # an earlier edition's
    with pytest.raises(InputError, match=r"'anny' \(11627 vertices\), not 'anny' \(13563\); run: jaxface calibrate"):
        dense_evidence(model, dataclasses.replace(table, vertices=11627))


def test_the_covariance_is_a_line_between_two_yaws():
    model = toy_model()
    evidence = dense_evidence(model, toy_calibration(model, points=5, correlated=1.0))

    def dense(yaw):
        variance, factor = (np.asarray(x) for x in errors_at(evidence, jnp.float32(np.radians(yaw))))
        return np.diag(variance) + factor @ factor.T

    np.testing.assert_allclose(dense(15), 0.75 * dense(0) + 0.25 * dense(60), rtol=1e-4, atol=1e-4)
    for beyond, last in ((-90, -60), (90, 60)):
        np.testing.assert_allclose(dense(beyond), dense(last), rtol=1e-5)


def test_the_inverse_covariance_is_that_of_the_known_rows():
    random = np.random.default_rng(0)
    variance, factor = random.uniform(0.5, 2, 12), random.normal(size=(12, 3))
    known = (np.arange(12) % 4 > 0).astype(float)
    with jax.enable_x64(True):
        found = inverse_covariance(jnp.asarray(variance), jnp.asarray(factor), jnp.asarray(known)).times(jnp.eye(12))
    rows = np.flatnonzero(known)
    expected = np.zeros((12, 12))
    expected[np.ix_(rows, rows)] = np.linalg.inv((np.diag(variance) + factor @ factor.T)[np.ix_(rows, rows)])
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_table_comes_back_from_its_file(tmp_path):
    table = toy_calibration(toy_model(), points=6, correlated=0.5)
    table.save(tmp_path / "table.npz")
    again = Calibration.load(tmp_path / "table.npz")
    for field in dataclasses.fields(table):
        one, other = getattr(table, field.name), getattr(again, field.name)
        if isinstance(one, str):
            assert one == other
        else:
            np.testing.assert_allclose(one, other, rtol=2e-3)


def test_other_files_and_other_models_are_refused(tmp_path):
    table, path = toy_calibration(toy_model(), points=6), tmp_path / "table.npz"
    with pytest.raises(InputError, match=r"not a calibration"):
        Calibration.load(path)
    path.write_bytes(b"no table")
    with pytest.raises(InputError, match=r"not a calibration"):
        Calibration.load(path)
    np.savez(path, format="jaxface calibration 9")
    with pytest.raises(InputError, match=r"calibration 9"):
        Calibration.load(path)
    np.savez(path, format=np.array([{}], object))
    with pytest.raises(InputError, match=r"not a calibration"):
        Calibration.load(path)
    with pytest.raises(InputError, match=r"'toy' \(81 vertices\), not 'other' \(81\)"):
        dense_evidence(dataclasses.replace(toy_model(), name="other"), table)


def test_damaged_tables_are_refused_in_a_line(tmp_path):
    whole, path = tmp_path / "whole.npz", tmp_path / "table.npz"
    toy_calibration(toy_model(), points=200).save(whole)
    content = whole.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
    for damaged in (b"", b"PK\x03\x04", content[: len(content) // 2], bytes(flipped), b"\x93NUMPY"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="not a calibration"):
            Calibration.load(path)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(InputError, match="not a calibration"):
        Calibration.load(tmp_path / "array.npy")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"yaws": np.float32([0.0])}, "do not go with"),
        ({"yaws": np.float32([-60.0, 50.0, 60.0])}, "equal steps"),
        ({"yaws": np.float32([60.0, 0.0, -60.0])}, "equal steps"),
        ({"yaws": np.array(["a", "b", "c"])}, "not a calibration"),
        ({"variances": np.zeros((3, 12), np.float32)}, "not all positive"),
        ({"variances": np.full((3, 12), np.nan, np.float32)}, "not all finite"),
        ({"factors": np.zeros((3, 10, 2), np.float32)}, "do not go with"),
        ({"spread": np.zeros(1, np.float32)}, "do not go with"),
        ({"points": np.arange(5)}, "do not go with"),
        ({"points": np.arange(6.0)}, "not all indices"),
        ({"triangles": np.full((6, 3), -1)}, "not all indices"),
        ({"barycentric": np.zeros((6, 3), np.float32)}, "add up to 1"),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path, change, told):
    path = tmp_path / "table.npz"
    dataclasses.replace(toy_calibration(toy_model(), points=6), **change).save(path)
    with pytest.raises(InputError, match=told):
        Calibration.load(path)


def test_landmarks_that_a_table_lacks_are_told():
    with pytest.raises(InputError, match="51 inner landmarks"):
        landmark_evidence(toy_model(), toy_calibration(toy_model(), points=6))
