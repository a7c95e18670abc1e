"""MATLAB files (level 5, which versions 5 to 7.2 write), as far as face models need them: named arrays of numbers.

Read here rather than by SciPy, whose reader reaches beyond its memory in some damaged files: the process then dies. A
file is 128 bytes of header, then elements: a type, a size, and so many bytes. An element of a variable holds others:
flags, dimensions, name, numbers.
"""

import math
import os
import struct
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from jaxface.core.errors import InputError

_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}

_MATRIX, _COMPRESSED = 14, 15

_KINDS = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function", 17: "opaque"}
"""Classes of variables that are no numbers; those from 6 to 15 are."""

_COMPLEX = 0x800

_HEAD = 4096
"""Bytes of a variable that hold its flags, dimensions and name."""

_LIMIT = 2**33
"""Bytes of a variable; what declares more is damaged or hostile."""


def read_matlab(path: str | os.PathLike, names: Collection[str]) -> dict[str, np.ndarray]:
    """Reads those of the named arrays of numbers that a .mat file (up to version 7.2) holds; no code can run.

    Other variables, such as cells, structs and objects, are passed over unread. Arrays have the type that their numbers
    are stored in, which may be a smaller one than the variable's.

    Raises:
        InputError: when the file is damaged, or a named variable holds something else than numbers.
    """
    path = Path(path)
    arrays: dict[str, np.ndarray] = {}
    try:
        left = path.stat().st_size - 128
        with open(path, "rb") as file:
            order = _byte_order(file.read(128), path)
            while head := file.read(8):
                kind, size = struct.unpack(order + "II", head)
                left -= 8 + size
                if left < 0:
                    raise ValueError("it is cut off")
                found = _variable(kind, file.read(size), order, names, path)
                arrays |= found or {}
    except InputError:
        raise
    except (OSError, ValueError, OverflowError, struct.error, zlib.error) as error:
        raise InputError(f"{path} is damaged or not a MATLAB file ({error}); copy it again") from error
    return arrays


def _byte_order(header: bytes, path: Path) -> str:
    orders = {b"IM": "<", b"MI": ">"}
    if len(header) < 128 or header[126:] not in orders:
        raise ValueError("its header is not that of MATLAB 5 to 7.2; save it again in MATLAB with save(..., '-v7')")
    order = orders[header[126:]]
    if struct.unpack(order + "H", header[124:126])[0] == 0x200:
        raise InputError(f"{path} is a MATLAB 7.3 file; save it again in MATLAB with save(..., '-v7')")
    return order


def _variable(kind: int, body: bytes, order: str, names: Collection[str], path: Path) -> dict[str, np.ndarray] | None:
    """The array of a variable by its name; None for one that was not asked for."""
    if kind == _COMPRESSED:
        stream = zlib.decompressobj()
        start = stream.decompress(body, _HEAD)
        kind, size = struct.unpack_from(order + "II", start)
        if not _is_wanted(start[8:], order, names):
            return None
        if size > _LIMIT:
            raise ValueError(f"a variable says that it has {size:,} bytes")
        body = start[8:] + stream.decompress(stream.unconsumed_tail, max(size + 8 - len(start), 1))
    if kind != _MATRIX or not body or not _is_wanted(body, order, names):
        return None
    flags, shape, name, place = _description(body, order)
    if not 6 <= flags & 0xFF <= 15 or flags & _COMPLEX:
        what = "complex numbers" if flags & _COMPLEX else _KINDS.get(flags & 0xFF, "of an unknown kind")
        raise InputError(f"{path}: {name!r} is {what} {list(shape)}, expected an array of numbers")
    kind, content, _ = _element(body, place, order)
    if kind not in _TYPES:
        raise ValueError(f"the numbers of {name!r} are of an unknown type")
    values = np.frombuffer(content, order + _TYPES[kind])
    if min(shape) < 0 or values.size != math.prod(shape):
        raise ValueError(f"{name!r} says that it is {list(shape)}, and has {values.size} numbers")
    return {name: values.astype(values.dtype.newbyteorder("=")).reshape(shape, order="F")}


def _is_wanted(body: bytes, order: str, names: Collection[str]) -> bool:
    return _description(body, order)[2] in names


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
