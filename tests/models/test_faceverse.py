"""FaceVerse v0 to v4: upright, in model units where the format has them, with its landmarks, skin and names."""

import numpy as np
import pytest

from jaxface import load_face_model
from jaxface.core.errors import InputError
from jaxface.models.checks import Content
from jaxface.models.faceverse import faceverse_version, read_faceverse, upside_down
from toys import stand_ins

VERTICES = 400
SIZES = {0: (120, 64, 200), 1: (150, 74, 251), 2: (150, 52, 251), 3: (150, 52, 251), 4: (156, 177, 251)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faceverse")
    contents = {version: stand_ins.faceverse(version, VERTICES) for version in range(5)}
    return {
        version: (stand_ins.save_pickled(folder / f"v{version}.npy", content), content)
        for version, content in contents.items()
    }


def in_our_frame(array, version):
    """Mean [V, 3] or basis [V, 3, K] from the file's frame, number by number: all real files are a half turn away,
    except v3, which lies as we do and is turned by its reference code."""
    unit, signs = (0.01 if version >= 3 else 1.0), ((1, 1, 1) if version == 3 else (1, -1, -1))
    array = np.asarray(array, np.float64).reshape(VERTICES, 3, -1)
    return np.stack([array[:, axis] * signs[axis] * unit for axis in range(3)], 1)


@pytest.mark.parametrize("version", range(5))
def test_versions(files, version):
    path, content = files[version]
    model = load_face_model(path)
    sizes = tuple(basis.shape[-1] for basis in (model.identity_basis, model.expression_basis, model.albedo_basis))
    assert sizes == SIZES[version] and model.name == f"FaceVerse v{version}"
    assert faceverse_version(Content(path, content)) == version
    expression = content["exBase_52" if version == 3 else "exBase"]
    np.testing.assert_allclose(model.mean_shape, in_our_frame(content["meanshape"], version)[..., 0], rtol=2e-6)
    np.testing.assert_allclose(model.identity_basis, in_our_frame(content["idBase"], version), rtol=2e-6)
    np.testing.assert_allclose(model.expression_basis, in_our_frame(expression, version), rtol=2e-6)
    np.testing.assert_allclose(model.mean_albedo.ravel(), content["meantex"].ravel() / 255, rtol=2e-6)
    np.testing.assert_allclose(
        model.albedo_basis, content["texBase"].reshape(VERTICES, 3, 251 if version else 200) / 255, rtol=2e-6
    )
    np.testing.assert_array_equal(model.triangles, content["tri"])
    points = model.mean_shape[model.landmarks["66" if version <= 2 else "68"]]
    assert points[17:27, 1].mean() > points[36:48, 1].mean() > points[48:, 1].mean() > points[8, 1]  # y is up
    assert points[30, 2] > points[0, 2] and points[:8, 0].mean() < points[9:17, 0].mean()  # z to the viewer, x right


@pytest.mark.parametrize("version", [0, 1, 2, 4])
def test_an_upright_file_stays_as_it_is(tmp_path, version):
    content = stand_ins.faceverse(version, VERTICES, upright=True)
    model = load_face_model(stand_ins.save_pickled(tmp_path / "a.npy", content))
    scale = 0.01 if version == 4 else 1.0
    np.testing.assert_allclose(model.mean_shape, content["meanshape"] * scale, rtol=2e-6)


def test_landmarks_that_tell_nothing_turn_nothing():
    mean = np.random.default_rng(0).standard_normal((80, 3))
    assert not upside_down(mean, {}) and not upside_down(mean, {"68": np.arange(68)})


def test_landmarks_and_parts(files):
    landmarks = {version: load_face_model(path).landmarks for version, (path, _) in files.items()}
    assert [set(landmarks[version]) for version in range(5)] == [
        {"66"}, {"66"}, {"66"}, {"mediapipe", "68", "66"}, {"mediapipe", "68", "370"},
    ]  # fmt: skip
    np.testing.assert_array_equal(landmarks[4]["68"], files[4][1]["keypoints_68"])
    np.testing.assert_array_equal(landmarks[3]["mediapipe"], files[3][1]["mediapipe_keypoints"][0])
    np.testing.assert_array_equal(landmarks[3]["68"], files[4][1]["keypoints_68"])  # the same head
    skin = load_face_model(files[4][0]).parts
    assert list(skin) == ["skin"]  # the file's hair is none of the eight
    np.testing.assert_array_equal(skin["skin"], np.flatnonzero(files[4][1]["parsing"]["skin"]))
    np.testing.assert_array_equal(
        load_face_model(files[0][0]).parts["skin"], np.flatnonzero(files[0][1]["skinmask"][0] > 0)
    )


def test_expression_names(files):
    assert load_face_model(files[2][0]).expression_names == tuple(f"unit{index}" for index in range(52))
    assert load_face_model(files[3][0]).expression_names == tuple(f"unit{index}" for index in range(52))
    assert load_face_model(files[0][0]).expression_names == load_face_model(files[4][0]).expression_names == ()


def test_simplified_v2(files):
    path, content = files[2]
    chosen = content["select_id"]
    full = read_faceverse(Content(path, content))
    small = read_faceverse(Content(path, content), simplified=True)
    # The small mesh's landmarks here are random: they say nothing of up and down, so it stays in the file's frame.
    np.testing.assert_array_equal(small.mean_shape, content["meanshape"][chosen])
    np.testing.assert_array_equal(small.albedo_basis, full.albedo_basis[chosen])
    np.testing.assert_array_equal(small.landmarks["66"], content["keypoints_select"][0])
    np.testing.assert_array_equal(small.triangles, content["tri_select"])
    assert len(small.mean_shape) == VERTICES * 6335 // 28632
    with pytest.raises(InputError, match=r"v1\.npy lacks the key 'select_id'"):
        read_faceverse(Content(files[1][0], files[1][1]), simplified=True)


@pytest.mark.parametrize("key", ["meanshape", "meantex", "idBase", "exBase", "texBase", "tri", "keypoints"])
def test_missing_and_wrong_values_are_named(tmp_path, files, key):
    content = files[1][1]
    path = tmp_path / "v1.npy"
    with pytest.raises(InputError, match=rf"v1\.npy lacks the key '{key}'"):
        load_face_model(stand_ins.save_pickled(path, {name: v for name, v in content.items() if name != key}))
    for value in ("text", np.full(np.shape(content[key]), np.nan), np.full((7, 1), 1e9)):
        with pytest.raises(InputError, match=rf"v1\.npy: '{key}'"):
            load_face_model(stand_ins.save_pickled(path, content | {key: value}))


def test_wrong_masks_are_named(tmp_path, files):
    content = files[4][1] | {"parsing": {"skin": np.zeros(3)}}
    with pytest.raises(InputError, match=r"""v4\.npy: "parsing\['skin'\]" is float64 \[3\], expected a number"""):
        load_face_model(stand_ins.save_pickled(tmp_path / "v4.npy", content))


@pytest.mark.parametrize("version", [1, 4])
def test_damaged_files_raise_nothing_else(tmp_path, version):
    whole = stand_ins.save_pickled(tmp_path / "whole.npy", stand_ins.faceverse(version, 30)).read_bytes()
    path, refused = tmp_path / "damaged.npy", 0
    for damaged in stand_ins.corruptions(whole, 200, seed=version):
        path.write_bytes(damaged)
        try:
            load_face_model(path)
        except InputError as error:
            refused += 1
            assert "damaged" in str(error) and "\n" not in str(error)
    assert refused > 60
