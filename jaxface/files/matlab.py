"""MATLAB files, as far as face models need them: named arrays of numbers."""

import io
import math
import os
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import scipy.io

from jaxface.core.errors import InputError
from jaxface.files.hdf5 import list_hdf5, read_hdf5
from jaxface.files.impostors import refuse_impostor

_NUMERIC = frozenset("double single int8 uint8 int16 uint16 int32 uint32 int64 uint64 logical".split())

_IN_HDF5 = b"MATLAB 7.3 MAT-file"

_LIMIT = 2**30
"""Elements of one array; what declares more is damaged or hostile."""


def is_matlab(start: bytes) -> bool:
    """Whether a file that begins with `start` (at least 19 bytes) is a MATLAB file that this module reads."""
    return start.startswith((b"MATLAB 5.0 MAT-file", _IN_HDF5))


def list_matlab(path: str | os.PathLike) -> list[str]:
    """Names of the variables of a .mat file.

    Raises:
        InputError: when the file is damaged.
        MissingDependencyError: for one of version 7.3, without the extra `hdf5`.
    """
    with _opened(Path(path)) as file:
        return list_hdf5(path) if file is None else [name for name, _, _ in scipy.io.whosmat(file)]


def read_matlab(path: str | os.PathLike, names: Collection[str]) -> dict[str, np.ndarray]:
    """Reads those of the named arrays of numbers that a .mat file holds; no code can run.

    Other variables, such as cells, structs and objects, are passed over unread.

    Raises:
        InputError: when the file is damaged, or a named variable holds something else than numbers.
        MissingDependencyError: for a file of version 7.3, which is HDF5, without the extra `hdf5`.
    """
    path = Path(path)
    with _opened(path) as file:
        if file is None:  # which stores columns as rows
            return {name: np.ascontiguousarray(array.T) for name, array in read_hdf5(path, names).items()}
        listed = [entry for entry in scipy.io.whosmat(file) if entry[0] in names]
        for name, shape, kind in listed:
            if kind not in _NUMERIC or min(shape, default=0) < 0 or math.prod(shape) > _LIMIT:
                raise InputError(f"{path}: {name!r} is {kind} {list(shape)}, expected an array of numbers")
        file.seek(0)
        content = scipy.io.loadmat(file, variable_names=[name for name, _, _ in listed]) if listed else {}
    arrays = {name: content[name] for name, _, _ in listed if name in content}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            raise InputError(f"{path}: {name!r} is {type(array).__name__}, expected an array of numbers")
    return arrays


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader | None]:
    """The open file, or None for one in HDF5."""
    refuse_impostor(path)
    try:
        with warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("ignore")
            in_hdf5 = file.read(len(_IN_HDF5)) == _IN_HDF5
            file.seek(0)
            yield None if in_hdf5 else file
    except InputError:
        raise
    except Exception as error:  # SciPy's reader meets damaged files with errors of many kinds
        raise InputError(f"{path} is damaged or not a MATLAB file ({error}); copy it again") from error
