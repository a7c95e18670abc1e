"""3DDFA-V3's and Deep3D's BFM: every array where it belongs, bad files named, damaged ones refused."""

import copy
import functools
import tracemalloc

import numpy as np
import pytest

from jaxface import load_face_model
from jaxface.core.errors import InputError
from jaxface.core.parts import PARTS
from jaxface.models.bfm import contour_lines
from jaxface.models.checks import require_parts
from toys import stand_ins

VERTICES = 140


@pytest.fixture(scope="module")
def values():
    return stand_ins.three_ddfa_v3(VERTICES)


@pytest.fixture(scope="module")
def matlab():
    return stand_ins.deep3d(VERTICES)


def rows(flat):
    """x, y, z in turn -> [V, 3] or [V, 3, K], one number at a time."""
    flat = np.asarray(flat)
    flat = flat.reshape(3 * VERTICES, -1)
    result = np.zeros((VERTICES, 3, flat.shape[1]))
    for vertex in range(VERTICES):
        for axis in range(3):
            result[vertex, axis] = flat[3 * vertex + axis]
    return result


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_3ddfa_v3(tmp_path, dtype):
    values = stand_ins.three_ddfa_v3(VERTICES, dtype=dtype)
    model = load_face_model(stand_ins.save_pickled(tmp_path / "face_model.npy", values))
    np.testing.assert_allclose(model.mean_shape, rows(values["u"])[..., 0], rtol=1e-6)
    np.testing.assert_allclose(model.identity_basis, rows(values["id"]), rtol=1e-6)
    np.testing.assert_allclose(model.expression_basis, rows(values["exp"]), rtol=1e-6)
    np.testing.assert_allclose(model.mean_albedo, rows(values["u_alb"])[..., 0] / 255, rtol=1e-6)
    np.testing.assert_allclose(model.albedo_basis, rows(values["alb"]) / 255, rtol=1e-6)
    np.testing.assert_array_equal(model.triangles, values["tri"])
    np.testing.assert_array_equal(model.uv, values["uv_coords"][:, :2])
    assert {name: len(points) for name, points in model.landmarks.items()} == {"68": 68, "106": 106, "134": 134}
    for scheme, points in model.landmarks.items():
        np.testing.assert_array_equal(points, values[f"ldm{scheme}"])
    order = ("right_eye", "left_eye", "right_brow", "left_brow", "nose", "upper_lip", "lower_lip", "skin")
    assert set(model.parts) == set(PARTS)
    for part, vertices in zip(order, values["annotation"], strict=True):
        np.testing.assert_array_equal(model.parts[part], vertices)
    assert model.name == "3DDFA-V3" and model.mirror is None
    assert all(
        array.dtype == np.float32 for array in (model.mean_shape, model.identity_basis, model.albedo_basis, model.uv)
    )
    assert all(array.dtype == np.int32 for array in (model.triangles, *model.parts.values(), *model.contours.values()))
    require_parts(model, "this test")


def test_lines_of_the_outline(tmp_path, values):
    model = load_face_model(stand_ins.save_pickled(tmp_path / "face_model.npy", values))
    owner = {vertex: index for index, line in enumerate(values["parallel"]) for vertex in line}
    for index, line in enumerate(model.contours["106"]):
        assert set(line) == {vertex for vertex, last in owner.items() if last == index}
    assert len(model.contours["106"]) == 33
    np.testing.assert_array_equal(model.contours["68"], model.contours["106"][::2])


def test_an_empty_line_keeps_its_landmark():
    lines = [np.array([4, 2]), np.array([], int), np.array([3]), np.array([4])]
    result = contour_lines(lines, np.arange(10, 14), 20)
    np.testing.assert_array_equal(result, [[2], [11], [3], [4]])


def test_names_are_the_subjects_own(tmp_path, values):
    swapped = dict(values, annotation=[values["annotation"][index] for index in (1, 0, 3, 2, 4, 5, 6, 7)])
    model = load_face_model(stand_ins.save_pickled(tmp_path / "face_model.npy", swapped))
    for part in ("eye", "brow"):
        assert model.mean_shape[model.parts[f"left_{part}"], 0].min() > 0  # the picture's right
        assert model.mean_shape[model.parts[f"right_{part}"], 0].max() < 0
    np.testing.assert_array_equal(model.parts["nose"], values["annotation"][4])


def test_accepted_shapes(tmp_path, values):
    changed = dict(values)
    changed["u"], changed["u_alb"] = values["u"].reshape(VERTICES, 3), values["u_alb"].reshape(1, -1)
    changed["id"], changed["uv_coords"] = values["id"].reshape(VERTICES, 3, 80), values["uv_coords"][:, :2]
    changed["ldm68"] = values["ldm68"].reshape(68, 1).astype(np.float64)
    ragged = np.empty(33, object)
    ragged[:] = [np.array(line) for line in values["parallel"]]
    changed["parallel"] = ragged
    path, other = tmp_path / "a.npy", tmp_path / "b.npy"
    one = load_face_model(stand_ins.save_pickled(path, values))
    two = load_face_model(stand_ins.save_pickled(other, changed))
    for name in ("mean_shape", "identity_basis", "mean_albedo", "uv"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    np.testing.assert_array_equal(one.landmarks["68"], two.landmarks["68"])
    np.testing.assert_array_equal(one.contours["106"], two.contours["106"])


@pytest.mark.parametrize("save", [
    stand_ins.save_matlab, functools.partial(stand_ins.save_matlab, compress=True), stand_ins.save_matlab_73,
    functools.partial(stand_ins.save_matlab_73, compression="gzip"),
])  # fmt: skip
def test_deep3d(tmp_path, matlab, save):
    path = save(tmp_path / "any name.dat", matlab)
    model = load_face_model(path)
    mean = rows(matlab["meanshape"])[..., 0]
    np.testing.assert_allclose(model.mean_shape, mean - mean.mean(0), atol=1e-6)
    np.testing.assert_allclose(model.identity_basis, rows(matlab["idBase"]), rtol=1e-6)
    np.testing.assert_allclose(model.expression_basis, rows(matlab["exBase"]), rtol=1e-6)
    np.testing.assert_allclose(model.mean_albedo, rows(matlab["meantex"])[..., 0] / 255, rtol=1e-6)
    np.testing.assert_allclose(model.albedo_basis, rows(matlab["texBase"]) / 255, rtol=1e-6)
    np.testing.assert_array_equal(model.triangles, matlab["tri"].astype(int) - 1)
    np.testing.assert_array_equal(model.landmarks["68"], matlab["keypoints"][0].astype(int) - 1)
    np.testing.assert_array_equal(model.parts["skin"], np.flatnonzero(matlab["skinmask"][0]))
    assert list(model.parts) == ["skin"] and not model.contours and model.uv is None
    with pytest.raises(InputError, match=r"the part loss needs .*lacks left_eye, .*jaxface\.annotate"):
        require_parts(model, "the part loss")


def test_deep3d_takes_the_first_columns(tmp_path, matlab):
    random = np.random.default_rng(1)
    wide = {key: np.concatenate([matlab[key], random.random((3 * VERTICES, 20))], 1) for key in ("idBase", "exBase")}
    model = load_face_model(stand_ins.save_matlab(tmp_path / "wide.mat", matlab | wide))
    np.testing.assert_allclose(model.identity_basis, rows(matlab["idBase"]), rtol=1e-6)
    assert model.expression_basis.shape == (VERTICES, 3, 64)


BAD_NPY = {
    "u": [np.zeros((VERTICES, 2)), np.zeros(0), "text", {"a": 1}, np.full((3 * VERTICES, 1), np.nan)],
    "id": [np.zeros((3 * VERTICES + 3, 80)), np.zeros(5), np.full((3 * VERTICES, 80), np.inf)],
    "u_alb": [np.zeros((3 * VERTICES + 3, 1)), np.full((3 * VERTICES, 1), 1e300)],
    "tri": [np.array([[0, 1, VERTICES]]), np.array([[0, 1]]), np.array([[0.5, 1, 2]]), np.array([[-1, 1, 2]])],
    "ldm106": [[VERTICES], [1.5], [float("nan")], ["a"]],
    "annotation": [[[0]] * 7, 3, "eight...", *([[0]] * 7 + [last] for last in ([VERTICES], ["a"], [[0], [1, 2]]))],
    "parallel": [[[0]] * 32, None],
    "uv_coords": [np.zeros((VERTICES, 1)), np.zeros((3, 2)), np.full((VERTICES, 2), np.nan)],
}  # fmt: skip


@pytest.mark.parametrize(("key", "index"), [(key, index) for key in BAD_NPY for index in range(len(BAD_NPY[key]))])
def test_bad_values_are_named(tmp_path, values, key, index):
    path = stand_ins.save_pickled(tmp_path / "face_model.npy", dict(values, **{key: BAD_NPY[key][index]}))
    with pytest.raises(InputError, match=rf"face_model\.npy: '{key}") as error:
        load_face_model(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "key", ["u", "id", "exp", "u_alb", "alb", "tri", "uv_coords", "ldm68", "annotation", "parallel"]
)
def test_missing_keys_are_named(tmp_path, values, key):
    fewer = {name: value for name, value in values.items() if name != key}
    with pytest.raises(InputError, match=rf"face_model\.npy lacks the key '{key}'"):
        load_face_model(stand_ins.save_pickled(tmp_path / "face_model.npy", fewer))


@pytest.mark.parametrize("key", ["meanshape", "meantex", "idBase", "exBase", "texBase", "tri", "keypoints", "skinmask"])
def test_matlab_files_that_do_not_fit(tmp_path, matlab, key):
    fewer = {name: value for name, value in matlab.items() if name != key}
    with pytest.raises(InputError, match=rf"bfm\.mat lacks the key '{key}'"):
        load_face_model(stand_ins.save_matlab(tmp_path / "bfm.mat", fewer))
    for value in (
        np.zeros((2, 2)),
        "text",
        np.array([[{}]], object),
        {"field": 1.0},
        np.full(matlab[key].shape, np.nan),
    ):
        with pytest.raises(InputError, match=rf"bfm\.mat: '{key}"):
            load_face_model(stand_ins.save_matlab(tmp_path / "bfm.mat", matlab | {key: value}))


def test_indices_from_one(tmp_path, matlab):
    wrong = matlab | {"keypoints": matlab["keypoints"] * 0}
    with pytest.raises(InputError, match=r"'keypoints' refers to vertices 0 to 0, but there are 140, counted from 1"):
        load_face_model(stand_ins.save_matlab(tmp_path / "bfm.mat", wrong))


def test_other_matlab_files(tmp_path):
    path = stand_ins.save_matlab(tmp_path / "other.mat", {"a": np.zeros(3)})
    with pytest.raises(InputError, match="lacks the key 'meanshape'"):
        load_face_model(path)
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + b"\x89HDF\r\n\x1a\n".ljust(500, b"\0"))
    with pytest.raises(InputError, match=r"other\.mat"):
        load_face_model(path)


@pytest.mark.parametrize("kind", ["npy", "mat", "compressed mat"])
def test_damaged_files_raise_nothing_else(tmp_path, kind):
    path = tmp_path / "damaged"
    if kind == "npy":
        stand_ins.save_pickled(tmp_path / "whole.npy", stand_ins.three_ddfa_v3(40))
        whole = (tmp_path / "whole.npy").read_bytes()
    else:
        stand_ins.save_matlab(tmp_path / "whole.mat", stand_ins.deep3d(40), compress=kind != "mat")
        whole = (tmp_path / "whole.mat").read_bytes()
    refused = 0
    for content in stand_ins.corruptions(whole, 200):
        path.write_bytes(content)
        try:
            load_face_model(path)
        except InputError as error:
            refused += 1
            assert "damaged" in str(error) and "\n" not in str(error)
    assert refused > 60  # the others differ in a number or two


def test_reading_leaves_the_content_alone(values):
    from pathlib import Path

    from jaxface.models import bfm
    from jaxface.models.checks import Content

    before = copy.deepcopy(values)
    bfm.read_3ddfa_v3(Content(Path("x"), values))
    for key in ("u", "id", "alb", "tri"):
        np.testing.assert_array_equal(before[key], values[key])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_memory_at_full_size(tmp_path, dtype):
    path = stand_ins.save_pickled(tmp_path / "face_model.npy", stand_ins.three_ddfa_v3(dtype=dtype))
    tracemalloc.start()
    try:
        model = load_face_model(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    size = path.stat().st_size
    assert size > 100e6 and len(model.mean_shape) == 35_709
    assert 0.4 * size < peak < 3 * size


def test_the_stand_in_is_seen_from_outside(values):
    corners = values["u"].reshape(-1, 3)[values["tri"]]
    assert np.einsum("ti,ti->t", np.cross(corners[:, 0], corners[:, 1]), corners[:, 2]).sum() > 0
