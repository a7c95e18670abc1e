"""Reads the pickles of the field as data: dictionaries of NumPy arrays, SciPy matrices and chumpy's arrays.

Nothing in a file is run: see `_pickle_machine`. The tables below are all that a file can refer to.
"""

import io
import math
import os
import re
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp

from jaxface.files._pickle_machine import Global, Unbuilt, create, read_object
from jaxface.files._untrusted import Refused, expect_end, file_size, hashable, opened

_DTYPE = re.compile("[<>|=]?(b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32)|[SU][1-9][0-9]{0,5}|O[48]?)")

_NPY_HEADER = re.compile(
    r"""\{'descr': '([<>|=]?)(\w+)', 'fortran_order': (True|False), 'shape': \(([\dL, ]*)\),? *\}\s*"""
)


def read_pickle(path: str | os.PathLike) -> Any:
    """Reads a pickle of any protocol, Python 2's as well, without running anything in it.

    Args:
        path: the file, ".pkl" or ".pickle".

    Returns:
        The object: nested lists, tuples, dictionaries and sets of numbers, text, bytes, NumPy arrays and SciPy's sparse
        matrices. chumpy's arrays come as NumPy's, an `argparse.Namespace` as a dictionary. Arrays may be read-only.
        Python 2's byte strings are decoded as latin1.

    Raises:
        InputError: when the file is missing or damaged, or refers to anything that is not data.
    """
    with opened(path, "a pickle") as file:
        value = read_object(file, find_global, size=file_size(file))
        expect_end(file)
    return value


def read_pickled_npy(path: str | os.PathLike) -> Any:
    """Reads an .npy file that holds a pickled object, as `np.save` writes of a dictionary, or a plain array.

    Args:
        path: the file, ".npy".

    Returns:
        The object, as of `read_pickle`; a plain array as it is, in this machine's byte order.

    Raises:
        InputError: when the file is missing or damaged, or refers to anything that is not data.
    """
    with opened(path, "an .npy file") as file:
        size = file_size(file)
        dtype, shape, order = _npy_header(file)
        if dtype.kind != "O":
            if math.prod(shape) * dtype.itemsize != size - file.tell():
                raise ValueError(f"its content does not have the length that {dtype} {shape} has")
            return make_array(file.read(), dtype, shape, order)
        value = read_object(file, find_global, size=size)
        expect_end(file)
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _npy_header(file: io.BufferedReader) -> tuple[np.dtype, tuple[int, ...], str]:
    version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
    length = int.from_bytes(file.read(2 if version[0] == 1 else 4), "little")
    if length > 10_000:
        raise ValueError("its header is too long")
    header = _NPY_HEADER.fullmatch(file.read(length).decode("utf-8"))
    if header is None:
        raise Refused("has a header of NumPy that does not describe a plain array or an object")
    order, code, fortran, shape = header.groups()
    lengths = tuple(int(part.strip().removesuffix("L")) for part in shape.split(",") if part.strip())
    return _numpy_type(order + code), lengths, "F" if fortran == "True" else "C"


def make_array(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """An array of content from a file, after checking that it has the right length; a view of it where that can be.

    Raises:
        ValueError: when the arguments do not fit each other.
        Refused: when the array holds Python objects that may not be in it.
    """
    if not isinstance(dtype, np.dtype) or not isinstance(shape, tuple) or len(shape) > 32:
        raise ValueError("an array lacks its type or its shape")
    if not all(isinstance(length, int) and length >= 0 for length in shape):
        raise ValueError("an array's shape is not of whole numbers")
    if dtype.kind == "O":
        return _object_array(data, math.prod(shape)).reshape(shape)  # listed row by row, whatever the order
    if isinstance(data, str):
        data = data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)) or len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array's content does not have the length that {dtype} {shape} has")
    array = np.frombuffer(data, dtype)
    if dtype.kind == "U" and array.size and array.view(dtype.str[0] + "u4").max() > 0x10FFFF:
        raise ValueError("an array of text holds what is not a character")
    if not dtype.isnative:
        array = array.astype(dtype.newbyteorder("="))
    return array.reshape(shape, order=order)  # type: ignore[call-overload]


def _object_array(items: Any, count: int) -> np.ndarray:
    if not isinstance(items, list) or len(items) != count:
        raise ValueError("an array of objects does not have as many as its shape says")
    array = np.empty(count, object)
    for index, item in enumerate(items):
        # Python would free a long chain of these by recursion, and crash.
        if isinstance(item, np.ndarray) and item.dtype == object:
            raise Refused("holds an array of objects directly in another")
        array[index] = item
    return array


def _numpy_type(code: Any) -> np.dtype:
    if not isinstance(code, str) or not _DTYPE.fullmatch(code):
        raise Refused(f"holds an array of the type {ascii(code)[:40]}, which jaxface does not read")
    return np.dtype("O" if "O" in code else code)


def _new_dtype(code: Any, *_flags: Any) -> Unbuilt:
    return Unbuilt("an unfinished numpy.dtype", partial(_dtype, _numpy_type(code)))


def _dtype(dtype: np.dtype, state: Any) -> np.dtype:
    if not isinstance(state, tuple) or not 8 <= len(state) <= 9:
        raise ValueError("a numpy.dtype has another state than it should")
    _version, order, *parts, itemsize, _alignment, _flags = state[:8]
    if any(part is not None for part in parts) or any(state[8:]):
        raise Refused("holds a numpy.dtype with fields or metadata, which jaxface does not read")
    known_order = isinstance(order, str) and order in ("<", ">", "|", "=")
    if not known_order or not isinstance(itemsize, int) or itemsize not in (-1, dtype.itemsize):
        raise ValueError("a numpy.dtype has another state than it should")
    return dtype if order == "|" else dtype.newbyteorder(order)


def _new_array(kind: Any, _shape: Any = None, _code: Any = None) -> Unbuilt:
    if not isinstance(kind, Global) or kind not in _ARRAYS.values():
        raise Refused("makes an array of a class that is not an array's")
    return Unbuilt("an unfinished array", _array)


def _array(state: Any) -> np.ndarray:
    if not isinstance(state, tuple) or not 4 <= len(state) <= 5:
        raise ValueError("an array has another state than it should")
    shape, dtype, fortran, data = state[-4:]
    return make_array(data, dtype, shape, "F" if fortran else "C")


def _array_from_buffer(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
    if order == "K" and isinstance(axes, tuple):
        return make_array(data, dtype, shape, "C").transpose(axes)
    return make_array(data, dtype, shape, "F" if order == "F" else "C")


def _scalar(dtype: Any, data: Any) -> Any:
    if isinstance(dtype, np.dtype) and dtype.kind == "O":
        raise Refused("holds a numpy.object_, which jaxface does not read")
    return make_array(data, dtype, (), "C")[()]


def _sparse(kind: str, name: str, state: Any) -> Any:
    if not isinstance(state, dict):
        raise ValueError(f"a {name} has no state")
    shape = state.get("_shape")
    if not isinstance(shape, tuple) or len(shape) != 2 or not all(isinstance(n, int) and 0 <= n < 2**31 for n in shape):
        raise ValueError(f"a {name} lacks its shape")
    data = _vector(state.get("data"), "biufc", name)
    if kind == "coo":
        coordinates = state.get("coords", (state.get("row"), state.get("col")))
        if not isinstance(coordinates, tuple):
            raise ValueError(f"a {name} lacks its rows and columns")
        rows, columns = (_vector(indices, "i", name) for indices in coordinates)
        return getattr(sp, name)((data, (rows, columns)), shape=shape, copy=True)
    indices, starts = (_vector(state.get(key), "i", name) for key in ("indices", "indptr"))
    matrix = getattr(sp, name)((data, indices, starts), shape=shape, copy=True)
    matrix.check_format(full_check=True)
    return matrix


def _vector(value: Any, kinds: str, name: str) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind not in kinds:
        raise ValueError(f"a {name} lacks its numbers")
    return value


def _numbers(state: Any, key: str) -> np.ndarray:
    value = state.get(key) if isinstance(state, dict) else None
    if not isinstance(value, (np.ndarray, np.generic, int, float)) or np.asarray(value).dtype.kind not in "biufc":
        raise Refused("holds an expression of chumpy, not its value: save it as an array, with .r")
    return np.asarray(value)


def _chumpy_selection(state: Any) -> np.ndarray:
    # By `flat`: `ravel` would copy a whole array for each of many small selections.
    selected = _numbers(state, "a").flat[_numbers(state, "idxs").ravel()]
    return selected.reshape(state["preferred_shape"]) if "preferred_shape" in state else selected


def _chumpy_reshaped(state: Any) -> np.ndarray:
    return _numbers(state, "a").reshape(state["newshape"])


def _ordered(items: Any = ()) -> OrderedDict:
    pairs = items.items() if isinstance(items, dict) else [_pair(item) for item in _sequence(items)]
    return OrderedDict((hashable(key), value) for key, value in pairs)


def _counts(items: Any = None) -> dict:
    return dict(_ordered(items or ()))


def _with_default(_factory: Any = None, items: Any = None) -> dict:
    return dict(_ordered(items or ()))


def _pair(item: Any) -> list | tuple:
    if len(_sequence(item)) != 2:
        raise ValueError("a dictionary has a key without a value")
    return item


def _sequence(items: Any) -> Any:
    if not isinstance(items, (list, tuple, set, frozenset)):
        raise ValueError("a container is made of something that is not a sequence")
    return items


def _set(items: Any = ()) -> set:
    return {hashable(item) for item in _sequence(items)}


def _frozenset(items: Any = ()) -> frozenset:
    return frozenset(_set(items))


def _slice(*bounds: Any) -> slice:
    if not all(bound is None or isinstance(bound, (int, np.integer)) for bound in bounds):
        raise Refused("holds a slice of something other than numbers")
    return slice(*bounds)


def _complex(real: Any, imaginary: Any) -> complex:
    if not isinstance(real, (int, float)) or not isinstance(imaginary, (int, float)):
        raise Refused("holds a complex number of something other than numbers")
    return complex(real, imaginary)


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or not isinstance(encoding, str) or encoding not in ("latin1", "latin-1"):
        raise Refused("encodes bytes in another way than pickles do")
    return text.encode("latin1")


def _bytearray(content: Any = b"", encoding: Any = "latin-1") -> bytearray:
    return bytearray(content if isinstance(content, bytes) else _encode(content, encoding))


def _no_bytes() -> bytes:
    return b""


def _reconstruct(cls: Any, base: Any, state: Any) -> Unbuilt:
    if base is not _OBJECT:
        raise Refused(f"makes an object out of {getattr(base, 'name', 'something')}, which is not data")
    return create(cls, state)


def _new_object(cls: Any, *arguments: Any) -> Unbuilt:
    return create(cls, arguments)


def _fields(state: Any) -> dict:
    if not isinstance(state, dict):
        raise ValueError("a namespace has no state")
    return state


_OBJECT = Global("builtins.object")

_ARRAYS = {
    (module, name): Global(f"{module}.{name}")
    for module, name in (
        ("numpy", "ndarray"),
        ("numpy", "matrix"),
        ("numpy.matrixlib.defmatrix", "matrix"),
        ("numpy", "memmap"),
        ("numpy.core.memmap", "memmap"),
    )
}

_CALLS: dict[tuple[str, str], Callable] = {
    ("numpy", "dtype"): _new_dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _ordered,
    ("collections", "Counter"): _counts,
    ("collections", "defaultdict"): _with_default,
}

for _module in ("numpy.core", "numpy._core"):
    _CALLS[_module + ".multiarray", "_reconstruct"] = _new_array
    _CALLS[_module + ".multiarray", "scalar"] = _scalar
    _CALLS[_module + ".numeric", "_frombuffer"] = _array_from_buffer

for _module in ("builtins", "__builtin__"):
    _CALLS |= {
        (_module, "set"): _set,
        (_module, "frozenset"): _frozenset,
        (_module, "slice"): _slice,
        (_module, "complex"): _complex,
        (_module, "bytearray"): _bytearray,
        (_module, "bytes"): _no_bytes,
    }

for _module in ("copyreg", "copy_reg"):
    _CALLS[_module, "_reconstructor"] = _reconstruct
    _CALLS[_module, "__newobj__"] = _new_object

_BUILDS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("argparse", "Namespace"): _fields,
    ("chumpy.ch", "Ch"): partial(_numbers, key="x"),
    ("chumpy.reordering", "Select"): _chumpy_selection,
    ("chumpy.reordering", "Reshape"): _chumpy_reshaped,
}

for _kind in ("csc", "csr", "coo"):
    for _module in (_kind, "_" + _kind):
        for _name in (f"{_kind}_matrix", f"{_kind}_array"):
            _BUILDS["scipy.sparse." + _module, _name] = partial(_sparse, _kind, _name)

_GLOBALS = _ARRAYS | {key: Global(".".join(key), call=function) for key, function in _CALLS.items()}

_GLOBALS |= {key: Global(".".join(key), build=function) for key, function in _BUILDS.items()}

for _module in ("builtins", "__builtin__"):
    _GLOBALS[_module, "object"] = _OBJECT
    # What a defaultdict makes of missing keys.
    _GLOBALS |= {
        (_module, name): Global(f"builtins.{name}") for name in ("dict", "list", "int", "float", "tuple", "str")
    }


def find_global(module: str, name: str) -> Global:
    """Looks up what a pickle refers to.

    Raises:
        Refused: when it is not in the tables of data.
    """
    if (module, name) not in _GLOBALS:
        full_name = ascii(f"{module}.{name}")[1:-1]
        raise Refused(
            f"refers to {full_name[:100]}, which is not data; unpickled, such a file could run a program, so jaxface "
            "does not read it: get the arrays alone from whoever made it"
        )
    return _GLOBALS[module, name]
