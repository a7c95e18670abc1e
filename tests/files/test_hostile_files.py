"""Hostile and damaged files of every kind: data, or one line that says what is wrong, in bounded time and memory.

The mutations are a short form of `make soak`, which makes a thousand of each kind.
"""

import io
import json
import os
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from jaxface.clips.frames import open_clip
from jaxface.core.errors import InputError
from jaxface.files import containers
from jaxface.files.containers import read_arrays
from jaxface.files.images import read_image
from jaxface.files.matlab import read_matlab
from jaxface.files.names import BOOK, Owner, claim_names
from jaxface.files.obj_file import read_obj
from jaxface.photos.folder import read_alignment, read_dataset_file
from toys import hostile

MUTATIONS = 15


def test_damaged_files_are_data_or_refused_in_a_line(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(hostile.__file__).parents[1])])}
    environment |= {"TMPDIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, hostile.__file__, str(MUTATIONS), "7"], env=environment, capture_output=True, text=True
    )
    assert ended.returncode in (0, 1), ended.stderr[-3000:]
    figures = json.loads(ended.stdout)
    assert len(figures) >= 35 and sum(one["refused"] for one in figures.values()) > 300
    assert {told: one["faults"] for told, one in figures.items() if one["faults"]} == {}


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_bomb_of_a_kind_that_numpy_does_not_write(tmp_path, kind):
    array = io.BytesIO()
    np.save(array, np.zeros(2_000_000, np.float32))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", kind) as archive:
        archive.writestr("zeros.npy", array.getvalue())
    assert (tmp_path / "bomb.npz").stat().st_size < 10_000
    with pytest.raises(InputError, match=r"bomb.npz is compressed as NumPy does not; write it again"):
        read_arrays(tmp_path / "bomb.npz")


def test_entries_that_lie_over_one_another(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "file.npz", zeros=np.zeros(1_000_000))
    assert read_arrays(tmp_path / "file.npz")["zeros"].shape == (1_000_000,)
    monkeypatch.setattr(containers, "_MOST_DEFLATED", 100)
    with pytest.raises(InputError, match=r"holds 8,000,128 bytes, more than can be in a file of its size"):
        read_arrays(tmp_path / "file.npz")


def test_names_in_archives_that_lead_elsewhere(tmp_path):
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    (tmp_path / "inside").mkdir()
    with zipfile.ZipFile(tmp_path / "inside" / "file.npz", "w") as archive:
        archive.writestr("../../outside.npy", array.getvalue())
    assert list(read_arrays(tmp_path / "inside" / "file.npz")) == ["../../outside"]
    assert [path.name for path in tmp_path.rglob("*")] == ["inside", "file.npz"]


@pytest.mark.parametrize(("suffix", "options"), [("webp", {"lossless": True, "method": 0}), ("png", {})])
def test_a_picture_that_is_large_in_pixels_alone(tmp_path, suffix, options):
    path = tmp_path / f"bomb.{suffix}"
    Image.new("L" if suffix == "png" else "RGB", (8000, 5000)).save(path, **options)
    with pytest.raises(InputError, match=r"40 million pixels in a file of [\d,]+ bytes are no photo; make it smaller"):
        read_image(path)
    with path.open("ab") as file:
        file.write(bytes(200_000))  # as a photo's file is: decoders pass over what follows
    assert read_image(path).shape == (5000, 8000, 3)


def test_an_animation_that_is_large_in_pixels_alone(tmp_path, monkeypatch):
    path = tmp_path / "bomb.gif"
    Image.new("P", (4000, 3000), 1).save(path, save_all=True, append_images=[Image.new("P", (4000, 3000), 2)])
    with pytest.raises(InputError, match=r"12 million pixels in a file of [\d,]+ bytes are no photo"):
        open_clip(path)
    first, *rest = (Image.new("P", (1000, 750), number) for number in range(12))
    first.save(path, save_all=True, append_images=rest)
    assert open_clip(path).count == 12
    monkeypatch.setattr("jaxface.clips.frames._PLENTY", 2**20)
    monkeypatch.setattr("jaxface.clips.frames._PIXELS_PER_BYTE", 10)
    with pytest.raises(InputError, match=r"9 million pixels in a file of [\d,]+ bytes are no photo"):
        open_clip(path)


def test_faults_that_the_soak_found(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nf 1 2 99999999999999999999\n")
    with pytest.raises(InputError, match=r"a.obj: the line .* is not as OBJ files are"):
        read_obj(tmp_path / "a.obj")
    (tmp_path / "landmarks.json").write_text('{"alignment": {"scale": 1}}')
    with pytest.raises(InputError, match=r"landmarks.json: not an alignment"):
        read_alignment(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"size": ' + "9" * 10_000 + "}", "\ud800", "\0"])
def test_json_of_our_own(tmp_path, text):
    for name in ("dataset.json", BOOK):
        (tmp_path / name).write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(InputError, match=r"dataset.json: is not JSON"):
        read_dataset_file(tmp_path)
    assert claim_names(tmp_path, [Owner("photo", (tmp_path / "dataset.json",))]) == ["dataset"]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_matlab_arrays_are_those_that_scipy_reads(tmp_path, kind, compressed):
    content = {
        "a": np.arange(24).reshape(2, 3, 4).astype(kind),
        "text": "hello",
        "cell": np.array([1, "b"], object),
        "struct": {"x": 1.0},
        "long_name_of_an_array": np.ones((1, 1), kind),
        "none": np.zeros((0, 3), kind),
    }
    scipy.io.savemat(tmp_path / "file.mat", content, do_compression=compressed)
    names = ("a", "long_name_of_an_array", "none", "absent")
    found, expected = read_matlab(tmp_path / "file.mat", names), scipy.io.loadmat(tmp_path / "file.mat")
    assert found.keys() == set(names[:3])
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])
        assert array.shape == expected[name].shape and array.dtype == expected[name].dtype
    with pytest.raises(InputError, match=r"file.mat: 'text' is char \[1, 5\], expected an array of numbers"):
        read_matlab(tmp_path / "file.mat", ["text"])


def test_matlab_files_of_the_other_byte_order_and_of_other_versions(tmp_path):
    values = np.arange(6, dtype=">f8").reshape(2, 3)
    name = b"a".ljust(8, b"\0")
    parts = [(6, (6).to_bytes(4, "big") + bytes(4)), (5, np.array([2, 3], ">i4").tobytes())]
    body = b"".join(kind.to_bytes(4, "big") + len(part).to_bytes(4, "big") + part for kind, part in parts)
    body += (1).to_bytes(4, "big") + (1).to_bytes(4, "big") + name
    body += (9).to_bytes(4, "big") + (48).to_bytes(4, "big") + values.tobytes(order="F")
    element = (14).to_bytes(4, "big") + len(body).to_bytes(4, "big") + body
    header = b"MATLAB 5.0".ljust(124) + b"\x01\x00MI"
    (tmp_path / "big.mat").write_bytes(header + element)
    found = read_matlab(tmp_path / "big.mat", ["a"])["a"]
    np.testing.assert_array_equal(found, values)
    assert found.dtype == np.dtype("f8") and found.dtype.isnative
    scipy.io.savemat(tmp_path / "old.mat", {"a": values}, format="4")
    with pytest.raises(InputError, match=r"its header is not that of MATLAB 5 to 7.2; save it again"):
        read_matlab(tmp_path / "old.mat", ["a"])


def test_a_matlab_variable_that_says_it_is_larger_than_memory(tmp_path):
    body = (6).to_bytes(4, "little") + (8).to_bytes(4, "little") + (6).to_bytes(8, "little")
    body += (5).to_bytes(4, "little") + (8).to_bytes(4, "little") + np.array([2**30, 2**30], "<i4").tobytes()
    body += (0x00010001).to_bytes(4, "little") + b"a\0\0\0" + (9).to_bytes(4, "little") + (2**31).to_bytes(4, "little")
    element = zlib.compress((14).to_bytes(4, "little") + (2**32 - 8).to_bytes(4, "little") + body)
    header = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"
    path = tmp_path / "bomb.mat"
    path.write_bytes(header + (15).to_bytes(4, "little") + len(element).to_bytes(4, "little") + element)
    with pytest.raises(InputError, match=r"bomb.mat is damaged or not a MATLAB file \(it is cut off\)"):
        read_matlab(path, ["a"])
