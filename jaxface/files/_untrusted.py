"""What readers of untrusted files share: one kind of error, and limits on what a file may make of itself."""

import io
import math
import os
import struct
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from jaxface.core.errors import InputError
from jaxface.files.impostors import refuse_impostor

# Bytes that reading may allocate, and that the result may take once every shared part is copied: per byte of the file,
# and for any file.
ALLOWANCE_PER_BYTE, ALLOWANCE = 8, 2**26

MAX_DEPTH = 100

_PLAIN = (str, bytes, bytearray, int, float, complex, type(None), np.generic, np.dtype)


# What malformed content makes of our checks, and of NumPy's, SciPy's and zipfile's.
_MALFORMED = (
    *(ArithmeticError, EOFError, LookupError, MemoryError, RuntimeError, TypeError, ValueError),
    *(struct.error, zipfile.BadZipFile),
)


class Refused(Exception):
    """The content is not data, or not any that jaxface reads; the message goes on from the file's name."""


@contextmanager
def opened(path: str | os.PathLike, kind: str) -> Iterator[io.BufferedReader]:
    """Opens a file, and turns whatever is wrong with its content into an InputError.

    Args:
        path: the file.
        kind: what it should be, as in "a pickle".

    Raises:
        InputError: when the file cannot be opened, or when the code inside the `with` meets bad content.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no file at {path}")
    refuse_impostor(path)
    try:
        with open(path, "rb") as file:
            yield file
    except InputError:
        raise
    except Refused as error:
        raise InputError(f"{path} {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error})") from error
    except _MALFORMED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is damaged or not {kind} ({reason}); copy or download it again") from error


def file_size(file: io.BufferedReader) -> int:
    """Bytes in an open file."""
    return os.fstat(file.fileno()).st_size


def expect_end(file: io.BufferedReader) -> None:
    """Refuses what comes after the last thing that should be in the file."""
    if file.read(1):
        raise Refused("goes on after its content ends: it is damaged, or several files in one")


def hashable(key: Any) -> Any:
    """Checks that a key is quick to hash, and that nobody can choose many keys of its type with the same hash."""
    if isinstance(key, (str, bytes, float, type(None), bool)):
        return key
    if isinstance(key, (int, np.integer)) and abs(int(key)) < sys.hash_info.modulus:
        return key
    if isinstance(key, tuple) and len(key) <= 16 and all(isinstance(part, (str, bytes)) for part in key):
        return key
    raise Refused(f"has a key of the type {type(key).__name__}, which jaxface does not read")


def check_content(value: Any, limit: int) -> None:
    """Checks that `value` is data through and through, and safe to walk through and to copy.

    Raises:
        Refused: when it holds itself, nests deeply, takes more than `limit` bytes once its shared parts are copied, or
            has a part that is not data.
    """
    if _measure(value, {})[0] > limit:
        raise Refused("repeats its content so often that it would fill the memory")


def _measure(value: Any, known: dict[int, tuple[int, int] | None], depth: int = 0) -> tuple[int, int]:
    """Bytes of `value` with its shared parts copied, about, and how deep it nests; `known` is keyed by identity."""
    if isinstance(value, _PLAIN):
        return 8 + (len(value) if isinstance(value, (str, bytes, bytearray)) else 0), 0
    if isinstance(value, np.ndarray) and value.dtype != object:
        return math.prod(max(length, 1) for length in value.shape) * value.itemsize, 0
    if sp.issparse(value):
        return value.data.nbytes, 0
    if id(value) in known:
        measured = known[id(value)]
        if measured is None:
            raise Refused("holds a container that contains itself")
        return measured
    if depth > MAX_DEPTH:
        raise Refused(f"nests containers more than {MAX_DEPTH} deep")
    known[id(value)] = None
    size, height = 56, 0
    for part in _parts(value):
        part_size, part_height = _measure(part, known, depth + 1)
        size, height = size + part_size, max(height, part_height)
    if height >= MAX_DEPTH:
        raise Refused(f"nests containers more than {MAX_DEPTH} deep")
    known[id(value)] = (size, height + 1)
    return size, height + 1


def _parts(value: Any) -> list:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, np.ndarray):
        return list(value.flat)
    if isinstance(value, slice):
        return [value.start, value.stop, value.step]
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    raise Refused(f"holds {getattr(value, 'name', type(value).__name__)}, which is not data")
