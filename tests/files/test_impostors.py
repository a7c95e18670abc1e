"""What lies in the place of a model or checkpoint is told for what it is, by whatever reader meets it."""

import io
import tarfile
import zipfile

import numpy as np
import pytest

from jaxface import load_face_model
from jaxface.convert import main as convert
from jaxface.core.errors import InputError
from jaxface.files import containers, dlib_file, images, matlab, obj_file, pickles, torch_files
from jaxface.files.command_line import exit_code_of
from jaxface.fitting.evidence import Calibration
from jaxface.models.ict import read_vertices
from jaxface.networks import checkpoints, people_weights, weight_files

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a2146" * 8 + b"\nsize 123456789\n"


def archive(kind):
    stream = io.BytesIO()
    if kind == "tar":
        with tarfile.open(fileobj=stream, mode="w") as file:
            file.addfile(tarfile.TarInfo("model.npy"))
    else:
        with zipfile.ZipFile(stream, "w") as file:
            file.writestr("FLAME2020/generic_model.pkl", b"...")
    return stream.getvalue()


IMPOSTORS = {
    "pointer": (POINTER, r"Git LFS pointer, not the file of 123,456,789 bytes .*git lfs pull"),
    "page": (b"\n<!DOCTYPE html><html><title>Sign in</title>", "is a web page; download the file itself"),
    "error": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML text"),
    "json": (b'{"message": "rate limit exceeded"}', "a JSON text"),
    "gzip": (b"\x1f\x8b\x08" + bytes(30), "gzip archive: unpack it"),
    "tar": (archive("tar"), "tar archive: unpack it"),
    "empty": (b"", "empty"),
    "zeros": (bytes(4096), "zeros alone: its download was not finished"),
}

READERS = {
    "face model": load_face_model, "arrays": containers.read_arrays, "pickle": pickles.read_pickle,
    "pickled npy": pickles.read_pickled_npy, "torch": torch_files.read_torch, "weights": weight_files.read_state,
    "encoder": checkpoints.read_encoder, "people": people_weights.read_people_file, "obj": obj_file.read_obj,
    "ict": read_vertices, "matlab": lambda path: matlab.read_matlab(path, ("a",)), "photo": images.read_image,
    "calibration": Calibration.load, "dlib": dlib_file.read_dlib_network,
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", IMPOSTORS)
def test_every_reader_says_what_lies_there(tmp_path, kind, reader):
    content, message = IMPOSTORS[kind]
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"model\.bin.*{message}") as error:
        READERS[reader](path)
    assert "\n" not in str(error.value)


def test_a_zip_archive_says_what_is_in_it(tmp_path):
    (tmp_path / "FLAME2020.zip").write_bytes(archive("zip"))
    with pytest.raises(InputError, match=r"zip archive of 'FLAME2020/generic_model.pkl' .*unpack it"):
        load_face_model(tmp_path / "FLAME2020.zip")


def test_pointers_in_a_run_are_named(tmp_path):
    checkpoint = tmp_path / "run" / "checkpoints" / "5"
    (checkpoint / "encoder").mkdir(parents=True)
    (checkpoint / "config").mkdir()
    for name in ("_CHECKPOINT_METADATA", "config/metadata", "encoder/manifest.ocdbt"):
        (checkpoint / name).write_bytes(POINTER)
    with pytest.raises(InputError, match=r"5.*: is a Git LFS pointer"):
        checkpoints.read_encoder(tmp_path / "run")


@pytest.mark.parametrize("name", ["net_recon.pth", "face_model.npy", "x.safetensors"])
def test_the_command_ends_with_one_line(tmp_path, capsys, name):
    (tmp_path / name).write_bytes(POINTER)
    assert exit_code_of(lambda: convert([str(tmp_path / name), str(tmp_path / "out.npz")])) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Git LFS pointer" in error and error.count("\n") == 1


def test_files_themselves_are_none(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    np.save(tmp_path / "a.npy", np.zeros(3))
    assert containers.read_arrays(tmp_path / "a.npz").keys() == {"a"}
