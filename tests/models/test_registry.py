"""load_face_model tells files apart by what is in them, and jaxface's own files keep every array."""

import dataclasses
import json
import pickle
import zipfile

import numpy as np
import pytest

from jaxface import load_face_model
from jaxface.core.errors import InputError
from jaxface.core.skinning import Skinning
from jaxface.models.native import BASIS_TYPES, read_face_model, write_face_model
from toys import stand_ins
from toys.models import toy_model


def jointed_model():
    model = toy_model()
    random = np.random.default_rng(0)
    skinning = Skinning(
        joints=random.random((3, 3)).astype(np.float32),
        joint_identity_basis=random.random((3, 3, 3)).astype(np.float32),
        joint_expression_basis=random.random((3, 3, 2)).astype(np.float32),
        weights=random.random((81, 3)).astype(np.float32),
        pose_basis=random.random((81, 3, 18)).astype(np.float32),
        parents=(-1, 0, 1),
        posed=(1, 2),
    )
    return dataclasses.replace(model, skinning=skinning, parts={"nose": model.parts["nose"]}, landmarks={}, mirror=None)


def assert_equal(before, after):
    assert type(before) is type(after) or not dataclasses.is_dataclass(before)
    if dataclasses.is_dataclass(before):
        for field in dataclasses.fields(before):
            assert_equal(getattr(before, field.name), getattr(after, field.name))
    elif isinstance(before, dict):
        assert before.keys() == after.keys()
        for key in before:
            assert_equal(before[key], after[key])
    elif isinstance(before, np.ndarray):
        np.testing.assert_array_equal(before, after)
        assert before.dtype == after.dtype
    else:
        assert before == after


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("make", [toy_model, jointed_model])
def test_native_files_keep_everything(tmp_path, suffix, make):
    path = tmp_path / f"toy.{suffix}"
    written = dataclasses.replace(make(), expression_names=("smile", "frown"), expression_bounds=(0.0, 1.0))
    write_face_model(written, path)
    model = load_face_model(path)
    assert_equal(written, model)
    renamed = path.rename(tmp_path / "renamed.bin")  # the content tells, not the name
    assert_equal(model, load_face_model(renamed))


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("basis_type", BASIS_TYPES)
def test_rounded_bases(tmp_path, suffix, basis_type):
    path = tmp_path / f"toy.{suffix}"
    model = toy_model()
    model = dataclasses.replace(model, expression_names=("one", "two"))
    write_face_model(model, path, basis_type=basis_type)
    read = read_face_model(path)
    assert read.expression_names == ("one", "two")
    relative = {"float32": 0.0, "float16": 2**-11, "bfloat16": 2**-8, "int16": 1e-9}[basis_type]
    for name in ("identity_basis", "expression_basis", "albedo_basis"):
        before, after = getattr(model, name), getattr(read, name)
        assert after.dtype == np.float32
        rest = np.abs(before).max() / 60_000 if basis_type == "int16" else 1e-7 * (relative > 0)
        assert (np.abs(after - before) <= relative * np.abs(before) + rest).all()
        assert relative == 0 or np.abs(after - before).max() > 0
    np.testing.assert_array_equal(read.mean_shape, model.mean_shape)


def test_safetensors_is_what_its_library_reads(tmp_path):
    path = tmp_path / "toy.safetensors"
    write_face_model(toy_model(), path)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"] == {"format": "jaxface face model 1", "name": "toy"}
    assert header["identity_basis"]["shape"] == [81, 3, 3] and header["identity_basis"]["dtype"] == "F32"


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_damaged_native_files_raise_nothing_else(tmp_path, suffix):
    write_face_model(jointed_model(), tmp_path / f"whole.{suffix}")
    whole, path = (tmp_path / f"whole.{suffix}").read_bytes(), tmp_path / "damaged"
    refused = 0
    for damaged in stand_ins.corruptions(whole, 200):
        path.write_bytes(damaged)
        try:
            load_face_model(path)
        except InputError as error:
            refused += 1
            assert "damaged" in str(error) and "\n" not in str(error)
    assert refused > 60


BAD_SKINNING = {
    "skinning/parents": np.array([-1, 1, 0]),
    "skinning/posed": np.array([3]),
    "skinning/weights": np.zeros((81, 2), np.float32),
    "skinning/joints": np.full((3, 3), np.nan, np.float32),
}


@pytest.mark.parametrize("name", BAD_SKINNING)
def test_joints_that_do_not_fit(tmp_path, name):
    path = tmp_path / "toy.npz"
    write_face_model(jointed_model(), path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **(arrays | {name: BAD_SKINNING[name]}))
    with pytest.raises(InputError, match=rf"toy\.npz: {name}"):
        load_face_model(path)
    del arrays[name]
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=f"lacks the array '{name}'"):
        load_face_model(path)


def test_an_npz_that_would_fill_the_memory(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("format.npy", b"\0" * 1000)
    content = path.read_bytes()
    sized = content.replace((1000).to_bytes(4, "little"), (2**32 - 2).to_bytes(4, "little"))
    path.write_bytes(sized)
    with pytest.raises(InputError, match=r"bomb\.npz"):
        load_face_model(path)
    header = (
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 3)}".ljust(127)
        + b"\n"
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mean_shape.npy", header)
    with pytest.raises(InputError, match=r"bomb\.npz"):
        load_face_model(path)


OTHERS = {
    "photo.jpg": b"\xff\xd8\xff\xe0" + bytes(200),
    "mesh.obj": b"v 0 0 0\nv 1 0 0\n",
    "empty": b"",
    "one byte": b"\x80",
    "text.npy": b"hello",
    "model.h5": b"\x89HDF\r\n\x1a\n" + bytes(200),
    "dictionary.pkl": pickle.dumps({"a": 1}),
    "list.pkl": pickle.dumps([1, 2], protocol=0),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(OTHERS[name])
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as error:
        load_face_model(path)
    assert "\n" not in str(error.value)


def test_other_arrays_are_refused(tmp_path):
    path = tmp_path / "other.npy"
    np.save(path, np.zeros((3, 3)))
    with pytest.raises(InputError, match=r"other\.npy is not a jaxface face model.* something else"):
        load_face_model(path)
    stand_ins.save_pickled(path, {"weights": np.zeros(3)})
    with pytest.raises(InputError, match=r"other\.npy is not .*\['weights'\]"):
        load_face_model(path)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("face_model.npy", "3DDFA-V3"),
        ("BFM_model_front.mat", "Deep3DFaceRecon"),
        ("faceverse_v4_2.npy", "FaceVerse"),
        ("FLAME2023.pkl", "flame.is.tue.mpg.de"),
        ("generic_model.pkl", "flame.is.tue.mpg.de"),
        ("FaceXModel", "ICT-FaceKit"),
    ],
)
def test_a_missing_licensed_file_tells_where_it_comes_from(tmp_path, name, source):
    with pytest.raises(InputError, match=rf"no face-model file at .*{name}.*{source}.*put it there"):
        load_face_model(tmp_path / name)


def test_unknown_names_list_what_can_be_read(tmp_path):
    for name in ("bfm", "", str(tmp_path)):
        with pytest.raises(InputError, match=r"unknown face model.*anny.*face_model\.npy.*\.pkl.*FaceXModel"):
            load_face_model(name)
