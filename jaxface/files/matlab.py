"""MATLAB files, as far as face models need them: named arrays of numbers."""

import math
import os
import warnings
from collections.abc import Collection
from pathlib import Path

import numpy as np
import scipy.io

from jaxface.core.errors import InputError

_NUMERIC = frozenset("double single int8 uint8 int16 uint16 int32 uint32 int64 uint64 logical".split())

_LIMIT = 2**30
"""Elements of one array; what declares more is damaged or hostile."""


def read_matlab(path: str | os.PathLike, names: Collection[str]) -> dict[str, np.ndarray]:
    """Reads those of the named arrays of numbers that a .mat file (up to version 7.2) holds; no code can run.

    Other variables, such as cells, structs and objects, are passed over unread.

    Raises:
        InputError: when the file is damaged, or a named variable holds something else than numbers.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("ignore")
            listed = [entry for entry in scipy.io.whosmat(file) if entry[0] in names]
            for name, shape, kind in listed:
                if kind not in _NUMERIC or min(shape, default=0) < 0 or math.prod(shape) > _LIMIT:
                    raise InputError(f"{path}: {name!r} is {kind} {list(shape)}, expected an array of numbers")
            file.seek(0)
            content = scipy.io.loadmat(file, variable_names=[name for name, _, _ in listed]) if listed else {}
    except InputError:
        raise
    except NotImplementedError as error:
        raise InputError(f"{path} is a MATLAB 7.3 file; save it again in MATLAB with save(..., '-v7')") from error
    except Exception as error:  # SciPy's reader meets damaged files with errors of many kinds
        raise InputError(f"{path} is damaged or not a MATLAB file ({error}); copy it again") from error
    arrays = {name: content[name] for name, _, _ in listed if name in content}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            raise InputError(f"{path}: {name!r} is {type(array).__name__}, expected an array of numbers")
    return arrays
