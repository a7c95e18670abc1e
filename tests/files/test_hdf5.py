"""Numbers out of HDF5 files: what they hold, and nothing that lies elsewhere or is not there."""

import numpy as np
import pytest

from jaxface.core.errors import InputError
from jaxface.files.hdf5 import list_hdf5, read_hdf5
from toys import stand_ins

h5py = pytest.importorskip("h5py", reason="HDF5 needs it; it is in the extra hdf5")


def test_named_arrays(tmp_path):
    path = stand_ins.save_hdf5(tmp_path / "a.h5", {"a": np.arange(6).reshape(2, 3), "b/c": np.float32([1, 2])})
    found = read_hdf5(path, ("a", "b/c", "b/d", "c/d", "a/b"))
    assert found.keys() == {"a", "b/c"} and set(list_hdf5(path)) == {"a", "b"}
    np.testing.assert_array_equal(found["a"], np.arange(6).reshape(2, 3))


def test_numbers_that_are_not_in_the_file_are_not_made(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", shape=(100_000, 100_000), dtype="f8", chunks=(100, 100), compression="gzip")
    with pytest.raises(InputError, match=r"a\.h5: 'a' holds fewer numbers than its shape \[100000, 100000\]"):
        read_hdf5(tmp_path / "a.h5", ("a",))


def test_links_lead_to_no_other_file(tmp_path):
    stand_ins.save_hdf5(tmp_path / "secret.h5", {"a": np.ones(3)})
    np.ones(3).tofile(tmp_path / "secret.bin")
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "a", (3,))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["link"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "a")
        file["soft"] = h5py.SoftLink("/link")
        file.create_dataset("raw", (3,), "f8", external=[(str(tmp_path / "secret.bin"), 0, 24)])
        file.create_virtual_dataset("virtual", layout)
    assert read_hdf5(tmp_path / "a.h5", ("link", "soft")) == {}
    for name in ("raw", "virtual"):
        with pytest.raises(InputError, match="lies in another file"):
            read_hdf5(tmp_path / "a.h5", (name,))


@pytest.mark.parametrize("value", ["text", np.array([(1, 2.0)], [("re", "f8"), ("im", "i4")]), h5py.Empty("f8")])
def test_what_is_no_number_is_named(tmp_path, value):
    path = stand_ins.save_hdf5(tmp_path / "a.h5", {"a": value})
    with pytest.raises(InputError, match=r"a\.h5: 'a' is .*, expected an array of numbers"):
        read_hdf5(path, ("a",))


def test_damaged_files_are_told(tmp_path):
    path = stand_ins.save_hdf5(tmp_path / "a.h5", {"a": np.arange(600.0)}, compression="gzip")
    whole = path.read_bytes()
    for length in (8, 100, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"a\.h5"):
            read_hdf5(path, ("a",))
