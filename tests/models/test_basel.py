"""Basel's own editions of its model: every array where it belongs, in model units; files that are not theirs named."""

import re
import sys

import numpy as np
import pytest

from jaxface import Camera, Coefficients, decode_face, load_face_model
from jaxface.core.coefficients import vector_size
from jaxface.core.errors import InputError, MissingDependencyError
from jaxface.models.conversion import convert_face_model
from toys import stand_ins

VERTICES = 140


def columns(flat):
    return np.asarray(flat, np.float64).reshape(VERTICES, 3, -1)


@pytest.fixture(scope="module")
def triangles():
    return stand_ins.head(VERTICES, np.random.default_rng(0))[1]


@pytest.mark.parametrize("save", [stand_ins.save_matlab, stand_ins.save_matlab_73])
def test_the_edition_of_2009(tmp_path, triangles, save):
    values = stand_ins.basel_2009(VERTICES, coefficients=7)
    model = load_face_model(save(tmp_path / "any.mat", values))
    np.testing.assert_allclose(model.mean_shape, columns(values["shapeMU"])[..., 0] / 1e5, rtol=1e-5)
    identity = columns(values["shapePC"] * values["shapeEV"].T) / 1e5
    np.testing.assert_allclose(model.identity_basis, identity, rtol=1e-5)
    np.testing.assert_allclose(model.mean_albedo, columns(values["texMU"])[..., 0] / 255, rtol=1e-5)
    np.testing.assert_allclose(model.albedo_basis, columns(values["texPC"] * values["texEV"].T) / 255, rtol=1e-5)
    np.testing.assert_array_equal(model.triangles, triangles)
    assert (model.name, model.expression_basis.shape) == ("Basel 2009", (VERTICES, 3, 0))
    vectors = np.zeros((1, vector_size(model)), np.float32)
    face = decode_face(model, Coefficients.from_vector(vectors, model), Camera())
    assert np.isfinite(face.points).all() and np.asarray(face.normals)[0, :, 2].max() > 0.9


@pytest.mark.parametrize("turned", [False, True])
def test_the_edition_of_2017(tmp_path, triangles, turned):
    values = stand_ins.basel_2017(VERTICES, coefficients=(7, 5, 6))
    stored = dict(values)
    if turned:  # inside out
        stored["shape/representer/cells"] = values["shape/representer/cells"][::-1]
    path = stand_ins.save_hdf5(tmp_path / "any.bin", stored, compression="gzip")
    model = load_face_model(path)
    mean = columns(values["shape/model/mean"] + values["expression/model/mean"])[..., 0] / 100
    np.testing.assert_allclose(model.mean_shape, mean, atol=1e-6)
    bases = {"shape": model.identity_basis, "expression": model.expression_basis, "color": model.albedo_basis}
    for name, array in bases.items():
        unit = 1 if name == "color" else 100
        expected = columns(values[f"{name}/model/pcaBasis"] * np.sqrt(values[f"{name}/model/pcaVariance"])) / unit
        np.testing.assert_allclose(array, expected, rtol=1e-5)
    np.testing.assert_allclose(model.mean_albedo, columns(values["color/model/mean"])[..., 0], rtol=1e-6)
    np.testing.assert_array_equal(model.triangles, triangles)
    convert_face_model(path, tmp_path / "own.npz")
    np.testing.assert_array_equal(load_face_model(tmp_path / "own.npz").identity_basis, model.identity_basis)


@pytest.mark.parametrize("key", ["shape/model/mean", "color/model/pcaVariance", "shape/representer/cells"])
def test_what_is_missing_or_does_not_fit_is_named(tmp_path, key):
    values = stand_ins.basel_2017(VERTICES, coefficients=(3, 3, 3))
    for wrong in (None, np.zeros((7, 7, 7)), np.full(np.shape(values[key]), np.nan)):
        changed = {name: value for name, value in (values | {key: wrong}).items() if value is not None}
        path = stand_ins.save_hdf5(tmp_path / "model2017.h5", changed)
        with pytest.raises(InputError, match=re.escape(key)) as error:
            load_face_model(path)
        assert "model2017.h5" in str(error.value) and "\n" not in str(error.value)


def test_without_its_library_hdf5_says_what_to_install(tmp_path, monkeypatch):
    values = stand_ins.basel_2017(VERTICES, coefficients=(3, 3, 3))
    paths = [stand_ins.save_hdf5(tmp_path / "a.h5", values), stand_ins.save_matlab_73(tmp_path / "a.mat", {"u": [1.0]})]
    monkeypatch.setitem(sys.modules, "h5py", None)
    for path in paths:
        with pytest.raises(MissingDependencyError, match=r"a\.(h5|mat): an HDF5 file needs h5py; .*jaxface\[hdf5\]"):
            load_face_model(path)
