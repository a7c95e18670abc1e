"""HDF5 files, as far as face models need them: named arrays of numbers, out of the file alone."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxface.core.errors import InputError, needs_extra

MAGIC = b"\x89HDF\r\n\x1a\n"
"""What the file begins with; MATLAB's own begin with 512 bytes of MATLAB's."""

_PACKED = 1032
"""Times by which an array may be larger than what the file holds of it: the most that its compression can do."""


def list_hdf5(path: str | os.PathLike) -> list[str]:
    """Names at the top of the file.

    Raises:
        InputError: when the file is damaged.
        MissingDependencyError: without the extra `hdf5`.
    """
    with _opened(path) as file:
        return list(file)


def read_hdf5(path: str | os.PathLike, names: Collection[str]) -> dict[str, np.ndarray]:
    """Reads those of the named arrays of numbers, such as "shape/model/mean", that the file holds.

    Raises:
        InputError: when the file is damaged, or a name stands for something else than numbers in this file.
        MissingDependencyError: without the extra `hdf5`.
    """
    with _opened(path) as file:
        found = {name: _lookup(file, name) for name in names}
        return {name: _numbers(item, f"{path}: {name!r}") for name, item in found.items() if item is not None}


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Any]:
    with needs_extra("hdf5", f"{path}: an HDF5 file"):
        import h5py
    try:
        with h5py.File(Path(path), "r", locking=False) as file:
            yield file
    except InputError:
        raise
    except Exception as error:  # the library meets damaged files with errors of many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is damaged or not an HDF5 file ({reason}); copy it again") from error


def _lookup(file: Any, name: str) -> Any:
    """What a name stands for, by the file's own links alone: others may lead to other files."""
    import h5py

    item = file
    for part in name.split("/"):
        if not isinstance(item, h5py.Group) or not isinstance(item.get(part, getlink=True), h5py.HardLink):
            return None
        item = item[part]
    return item


def _numbers(item: Any, told: str) -> np.ndarray:
    import h5py

    if not isinstance(item, h5py.Dataset) or item.shape is None or item.dtype.kind not in "fiub":
        raise InputError(f"{told} is {getattr(item, 'dtype', 'a group')}, expected an array of numbers")
    if item.external or item.is_virtual:
        raise InputError(f"{told} lies in another file, which jaxface does not open")
    if item.nbytes > _PACKED * item.id.get_storage_size():
        raise InputError(f"{told} holds fewer numbers than its shape {list(item.shape)} says; copy the file again")
    return np.asarray(item[()])
