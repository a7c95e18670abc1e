"""The native face-model file: round trip, control meshes, and clear messages for bad files."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.parts import PARTS
from jaxface.core.skinning import Skinning
from jaxface.models import load_face_model
from jaxface.models.native import read_face_model, write_face_model

VERTICES = 6


@pytest.fixture
def model():
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return FaceModel(
        mean_shape=normal(VERTICES, 3),
        identity_basis=normal(VERTICES, 3, 4),
        expression_basis=normal(VERTICES, 3, 2),
        mean_albedo=normal(VERTICES, 3),
        albedo_basis=normal(VERTICES, 3, 5),
        triangles=np.int32([[0, 1, 2], [2, 3, 4], [3, 4, 5]]),
        parts={part: np.int32([i % VERTICES]) for i, part in enumerate(PARTS)},
        landmarks={"68": np.int32([0, 5])},
        contours={"68": np.int32([[0, 1], [2, 2]])},
        uv=rng.random((VERTICES, 2)).astype(np.float32),
        mirror=np.int32([1, 0, 2, 4, 3, 5]),
        name="toy",
    )


def arrays_of(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@st.composite
def models(draw):
    """Small models with and without texture coordinates, mirror table, joints, contours and names."""
    random = np.random.default_rng(draw(st.integers(0, 99)))
    vertices, identity, expression, albedo = (draw(st.integers(low, 7)) for low in (3, 0, 0, 0))

    def normal(*shape):
        return random.normal(size=shape).astype(np.float32)

    def some(*shape):
        return random.integers(0, vertices, shape).astype(np.int32)

    skinning, joints = None, draw(st.integers(0, 3))
    if joints:
        weights = random.dirichlet(np.ones(joints), vertices).astype(np.float32)
        skinning = Skinning(
            normal(joints, 3), normal(joints, 3, identity), normal(joints, 3, expression), weights,
            normal(vertices, 3, 9 * (joints - 1)), tuple(range(-1, joints - 1)), tuple(range(1, joints)),
        )  # fmt: skip
    named = draw(st.booleans())
    return FaceModel(
        normal(vertices, 3), normal(vertices, 3, identity), normal(vertices, 3, expression), normal(vertices, 3),
        normal(vertices, 3, albedo), random.permuted(np.tile(np.int32([0, 1, 2]), (4, 1)), axis=1),
        parts={part: some(random.integers(1, 4)) for part in draw(st.sets(st.sampled_from(PARTS)))},
        landmarks={scheme: some(68) for scheme in draw(st.sets(st.sampled_from(["68", "106"])))},
        contours={"68": some(17, 2)} if draw(st.booleans()) else {},
        uv=random.random((vertices, 2), np.float32) if draw(st.booleans()) else None,
        mirror=np.arange(vertices, dtype=np.int32)[::-1].copy() if draw(st.booleans()) else None,
        skinning=skinning,
        name=draw(st.sampled_from(["toy", "\u00e9 x"])),
        expression_names=tuple(f"unit{index}" for index in range(expression)) if named else (),
        expression_bounds=draw(st.sampled_from([(0.0, 1.0), (-3.0, 3.0), (-0.5, 2.0)])),
    )  # fmt: skip


def check_same(before, after):
    """Same values and types, in the arrays of a model and in those of its joints."""
    for field in dataclasses.fields(before):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if isinstance(old, Skinning):
            check_same(old, new)
        elif isinstance(old, dict):
            assert old.keys() == new.keys()
            for key in old:
                np.testing.assert_array_equal(old[key], new[key])
                assert new[key].dtype == np.int32
        elif isinstance(old, np.ndarray):
            np.testing.assert_array_equal(old, new)
            assert new.dtype == old.dtype
        else:
            assert old == new, field.name


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@settings(max_examples=30, deadline=None)
@given(model=models())
def test_round_trip(suffix, tmp_path_factory, model):
    path = tmp_path_factory.mktemp("models") / "sub" / f"toy.{suffix}"
    write_face_model(model, path)
    check_same(model, load_face_model(path))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_optional_arrays_may_be_missing(model, tmp_path):
    path = tmp_path / "toy.npz"
    write_face_model(dataclasses.replace(model, uv=None, mirror=None, contours={}), path)
    read = read_face_model(path)
    assert read.uv is None and read.mirror is None and read.contours == {}
    assert read_face_model(path).expression_names == ()


def test_steps_round_to_half_a_step(model, tmp_path):
    path = tmp_path / "toy.npz"
    write_face_model(model, path, steps={"identity_basis": 0.01, "mean_albedo": 0.05})
    read = read_face_model(path)
    assert np.abs(read.identity_basis - model.identity_basis).max() <= 0.0051
    assert np.abs(read.mean_albedo - model.mean_albedo).max() <= 0.0251
    assert arrays_of(path)["identity_basis"].dtype == np.int16
    assert arrays_of(path)["mean_albedo"].dtype == np.int8
    with pytest.raises(ValueError, match="too small"):
        write_face_model(model, path, steps={"identity_basis": 1e-6})


def test_control_mesh_is_expanded(model, tmp_path):
    path = tmp_path / "toy.npz"
    coarse = dataclasses.replace(
        model,
        mean_shape=model.mean_shape[:3],
        identity_basis=model.identity_basis[:3],
        expression_basis=model.expression_basis[:3],
    )
    matrix = np.float32([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0, 0.5, 0.5], [0.25, 0.25, 0.5]])
    write_face_model(coarse, path, subdivision=sp.csr_matrix(matrix))
    read = read_face_model(path)
    for name in ("mean_shape", "identity_basis", "expression_basis"):
        expected = np.einsum("vc,c...->v...", matrix, getattr(coarse, name))
        np.testing.assert_allclose(getattr(read, name), expected, rtol=1e-6, atol=1e-6)


def test_unknown_names_say_what_is_accepted(tmp_path):
    for name in ("anni", "BFM", tmp_path, ""):
        with pytest.raises(InputError, match=r"anny.*\.npz"):
            load_face_model(name)
    with pytest.raises(InputError, match="no face-model file"):
        load_face_model(tmp_path / "missing.npz")
    with pytest.raises(InputError, match="no face-model file"):
        load_face_model(tmp_path.with_suffix(".npz"))


def test_damaged_files(model, tmp_path):
    path = tmp_path / "toy.npz"
    write_face_model(model, path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3 : len(whole) // 3 + 200] = b"\xff" * 200
    for content in (b"", b"not a zip file", whole[: len(whole) // 2], whole[:-10], bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"toy\.npz"):
            load_face_model(path)


def test_files_with_objects_are_refused(tmp_path):
    path = tmp_path / "toy.npz"
    np.savez(path, format=np.array({"a": 1}, dtype=object))
    with pytest.raises(InputError, match=r"toy\.npz"):
        load_face_model(path)
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match="not a jaxface face model"):
        load_face_model(path)
    np.savez(path, a=np.zeros(3))
    with pytest.raises(InputError, match="not a jaxface face model"):
        load_face_model(path)


BAD = {
    "mean_shape": (np.zeros((VERTICES, 2), np.float32), "mean_shape"),
    "identity_basis": (np.zeros((VERTICES + 1, 3, 4), np.float32), "identity_basis"),
    "mean_albedo": (np.full((VERTICES, 3), np.nan, np.float32), "not finite"),
    "albedo_basis": (np.array([["a"]]), "albedo_basis"),
    "triangles": (np.array([[0, 1, VERTICES]]), "triangles"),
    "part/nose": (np.array([-1]), "nose"),
    "landmarks/68": (np.array([99]), "landmarks 68"),
    "uv": (np.zeros((2, 2), np.float32), "uv"),
    "mirror": (np.zeros(3, int), "mirror"),
}


@pytest.mark.parametrize("name", BAD)
def test_inconsistent_arrays_are_named(model, tmp_path, name):
    path = tmp_path / "toy.npz"
    write_face_model(model, path)
    value, message = BAD[name]
    np.savez(path, **(arrays_of(path) | {name: value}))
    with pytest.raises(InputError, match=message):
        load_face_model(path)


@pytest.mark.parametrize("name", ["mean_shape", "triangles", "name"])
def test_missing_arrays_are_named(model, tmp_path, name):
    path = tmp_path / "toy.npz"
    write_face_model(model, path)
    np.savez(path, **{key: value for key, value in arrays_of(path).items() if key != name})
    with pytest.raises(InputError, match=name):
        load_face_model(path)


def test_bad_subdivision(model, tmp_path):
    path = tmp_path / "toy.npz"
    write_face_model(model, path, subdivision=sp.identity(VERTICES, format="csr"))
    np.savez(path, **(arrays_of(path) | {"subdivision/indices": np.full(VERTICES, 999)}))
    with pytest.raises(InputError, match="subdivision"):
        load_face_model(path)
