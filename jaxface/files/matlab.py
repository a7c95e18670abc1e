"""MATLAB files, as far as face models need them: named arrays of numbers.

Those of version 7.3 are HDF5. Those of level 5, which versions 5 to 7.2 write, are read here rather than by SciPy,
whose reader reaches beyond its memory in some damaged files: the process then dies. Such a file is 128 bytes of header,
then elements: a type, a size, and so many bytes. An element of a variable holds others: flags, dimensions, name,
numbers.
"""

import math
import os
import struct
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np

from jaxface.core.errors import InputError
from jaxface.files.hdf5 import list_hdf5, read_hdf5
from jaxface.files.impostors import refuse_impostor

_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}

_MATRIX, _COMPRESSED = 14, 15

_KINDS = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function", 17: "opaque"}
"""Classes of variables that are no numbers; those from 6 to 15 are."""

_COMPLEX = 0x800

_HEAD = 4096
"""Bytes of a variable that hold its flags, dimensions and name."""

_LIMIT = 2**33
"""Bytes of a variable; what declares more is damaged or hostile."""


_IN_HDF5 = b"MATLAB 7.3 MAT-file"


def is_matlab(start: bytes) -> bool:
    """Whether a file that begins with `start` (at least 19 bytes) is a MATLAB file that this module reads."""
    return start.startswith((b"MATLAB 5.0 MAT-file", _IN_HDF5))


def list_matlab(path: str | os.PathLike) -> list[str]:
    """Names of the variables of a .mat file.

    Raises:
        InputError: when the file is damaged.
        MissingDependencyError: for one of version 7.3, without the extra `hdf5`.
    """
    path = Path(path)
    if _is_in_hdf5(path):
        return list_hdf5(path)
    return [name for name, _ in _variables(path, lambda name: False) if name]


def read_matlab(path: str | os.PathLike, names: Collection[str]) -> dict[str, np.ndarray]:
    """Reads those of the named arrays of numbers that a .mat file holds; no code can run.

    Other variables, such as cells, structs and objects, are passed over unread. Arrays have the type that their numbers
    are stored in, which may be a smaller one than the variable's.

    Raises:
        InputError: when the file is damaged, or a named variable holds something else than numbers.
        MissingDependencyError: for a file of version 7.3, which is HDF5, without the extra `hdf5`.
    """
    path = Path(path)
    if _is_in_hdf5(path):  # which stores columns as rows
        return {name: np.ascontiguousarray(array.T) for name, array in read_hdf5(path, names).items()}
    found = _variables(path, lambda name: name in names)
    return {name: array for name, array in found if array is not None}


def _is_in_hdf5(path: Path) -> bool:
    refuse_impostor(path)
    with open(path, "rb") as file:
        return file.read(len(_IN_HDF5)) == _IN_HDF5


def _variables(path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, np.ndarray | None]]:
    """Names of all variables, and the arrays of those that are wanted."""
    try:
        left = path.stat().st_size - 128
        with open(path, "rb") as file:
            order = _byte_order(file.read(128))
            while head := file.read(8):
                kind, size = struct.unpack(order + "II", head)
                left -= 8 + size
                if left < 0:
                    raise ValueError("it is cut off")
                yield _variable(kind, file.read(size), order, is_wanted, path)
    except InputError:
        raise
    except (OSError, ValueError, OverflowError, struct.error, zlib.error) as error:
        raise InputError(f"{path} is damaged or not a MATLAB file ({error}); copy it again") from error


def _byte_order(header: bytes) -> str:
    orders = {b"IM": "<", b"MI": ">"}
    if len(header) < 128 or header[126:] not in orders:
        raise ValueError("its header is not that of MATLAB 5 to 7.2; save it again in MATLAB with save(..., '-v7')")
    return orders[header[126:]]


def _variable(
    kind: int, body: bytes, order: str, is_wanted: Callable[[str], bool], path: Path
) -> tuple[str, np.ndarray | None]:
    """Name of a variable, "" for one of MATLAB's own, and its array if that is wanted."""
    if kind == _COMPRESSED:
        stream = zlib.decompressobj()
        start = stream.decompress(body, _HEAD)
        kind, size = struct.unpack_from(order + "II", start)
        if not is_wanted(name := _description(start[8:], order)[2]):
            return name, None
        if size > _LIMIT:
            raise ValueError(f"a variable says that it has {size:,} bytes")
        body = start[8:] + stream.decompress(stream.unconsumed_tail, max(size + 8 - len(start), 1))
    if kind != _MATRIX or not body:
        return "", None
    flags, shape, name, place = _description(body, order)
    if not is_wanted(name):
        return name, None
    if not 6 <= flags & 0xFF <= 15 or flags & _COMPLEX:
        what = "complex numbers" if flags & _COMPLEX else _KINDS.get(flags & 0xFF, "of an unknown kind")
        raise InputError(f"{path}: {name!r} is {what} {list(shape)}, expected an array of numbers")
    kind, content, _ = _element(body, place, order)
    if kind not in _TYPES:
        raise ValueError(f"the numbers of {name!r} are of an unknown type")
    values = np.frombuffer(content, order + _TYPES[kind])
    if min(shape) < 0 or values.size != math.prod(shape):
        raise ValueError(f"{name!r} says that it is {list(shape)}, and has {values.size} numbers")
    return name, values.astype(values.dtype.newbyteorder("=")).reshape(shape, order="F")


def _description(body: bytes, order: str) -> tuple[int, tuple[int, ...], str, int]:
    """Flags, shape and name of a variable, and where its numbers begin."""
    _, flags, place = _element(body, 0, order)
    if len(flags) == 8 and struct.unpack(order + "I", flags[:4])[0] & 0xFF > 16:
        return 0, (), "", place  # of MATLAB's own making, such as text and tables: described in another way
    _, lengths, place = _element(body, place, order)
    _, name, place = _element(body, place, order)
    if len(flags) != 8 or len(lengths) % 4 or not 8 <= len(lengths) <= 128:
        raise ValueError("a variable does not tell its shape")
    shape = tuple(np.frombuffer(lengths, order + "i4").tolist())
    return struct.unpack(order + "I", flags[:4])[0], shape, bytes(name).decode("latin-1"), place


def _element(data: bytes, place: int, order: str) -> tuple[int, memoryview, int]:
    """Type and content of the element at a place, and the place of the next."""
    (word,) = struct.unpack_from(order + "I", data, place)
    if word >> 16:  # up to four bytes lie in the place of the size
        kind, size, start, end = word & 0xFFFF, word >> 16, place + 4, place + 8
    else:
        (size,) = struct.unpack_from(order + "I", data, place + 4)
        kind, start = word, place + 8
        end = start + size + -size % 8
    content = memoryview(data)[start : start + size]
    if len(content) < size or (word >> 16 and size > 4):
        raise ValueError("it is cut off")
    return kind, content, end
