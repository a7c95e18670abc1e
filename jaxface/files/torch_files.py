"""Reads PyTorch's .pth files without PyTorch, and without running anything in them.

The pickle inside tells names, shapes and strides; the numbers ("storages") lie beside it. Since version 1.6 of PyTorch
both are entries of a zip archive; before, they followed each other in one file. Both are read as `pickles` reads, with
a few names of PyTorch added to the tables.
"""

import io
import math
import os
import re
import zipfile
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from jaxface.files._pickle_machine import Global, read_object
from jaxface.files._untrusted import Refused, expect_end, file_size, opened
from jaxface.files.pickles import find_global

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_LEGACY_PROTOCOL = 1001


def read_torch(path: str | os.PathLike) -> Any:
    """Reads what `torch.save` wrote: a checkpoint, a state dict, a tensor.

    Args:
        path: the file, ".pth", ".pt" or ".tar".

    Returns:
        The object, as of `pickles.read_pickle`, with tensors and Parameters as NumPy arrays, which may be read-only.
        Types that NumPy lacks, such as bfloat16, are those of `ml_dtypes`. Tensors that share numbers share them here.

    Raises:
        InputError: when the file is missing or damaged, or refers to anything that is not data.
    """
    with opened(path, "a file of torch.save") as file:
        start = file.read(4)
        file.seek(0)
        return _read_zip(file) if start == b"PK\x03\x04" else _read_legacy(file)


def _read_zip(file: io.BufferedReader) -> Any:
    size = file_size(file)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
            raise Refused("is a compressed or encrypted zip archive, which torch.save does not write")
        if sum(entry.file_size for entry in entries) > size:
            raise Refused("is a zip archive whose entries are larger than the file")
        names = {entry.filename for entry in entries}
        pickles = [name for name in names if re.fullmatch("([^/]*/)?data.pkl", name)]
        if len(pickles) != 1:
            raise Refused("is a zip archive without the data.pkl that torch.save writes")
        folder = pickles[0].removesuffix("data.pkl")
        if folder + "byteorder" in names and archive.read(folder + "byteorder").strip() != b"little":
            raise Refused("was written on a machine of another byte order, which jaxface does not read")
        storages: dict[str, np.ndarray] = {}

        def load_storage(identifier: Any) -> np.ndarray:
            dtype, key, count, _view = _storage_identifier(identifier)
            if key not in storages:
                if f"{folder}data/{key}" not in names:
                    raise ValueError("it lacks the numbers of a tensor")
                storages[key] = np.frombuffer(archive.read(f"{folder}data/{key}"), np.uint8)
            return _typed(storages[key], dtype, count)

        content = io.BytesIO(archive.read(pickles[0]))
        return read_object(content, find_torch_global, size=size, load_persistent=load_storage)


def _read_legacy(file: io.BufferedReader) -> Any:
    size = file_size(file)

    def read(load_persistent: Callable[[Any], Any] | None = None) -> Any:
        return read_object(file, find_torch_global, size=size, load_persistent=load_persistent)

    if read() != _LEGACY_MAGIC or read() != _LEGACY_PROTOCOL:
        raise Refused("is not a file of torch.save: it lacks the magic number that starts one")
    system = read()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Refused("was written on a machine of another byte order, which jaxface does not read")
    storages: dict[str, np.ndarray] = {}
    itemsizes: dict[str, int] = {}
    promised = 0

    def promise_storage(identifier: Any) -> np.ndarray:
        nonlocal promised
        dtype, key, count, view = _storage_identifier(identifier)
        if key not in storages:
            # The numbers come after the pickle: tensors look at memory that is filled later.
            promised += count * dtype.itemsize
            if promised > size:
                raise ValueError("it lacks the numbers of a tensor")
            storages[key] = np.zeros(count * dtype.itemsize, np.uint8)
            itemsizes[key] = dtype.itemsize
        storage = _typed(storages[key], dtype, count)
        return storage if view is None else storage[view]

    value = read(promise_storage)
    keys = read()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise ValueError("it lacks the numbers of a tensor")
    for key in keys:
        count = int.from_bytes(file.read(8), "little")
        if count * itemsizes[key] != storages[key].nbytes or file.readinto(storages[key].data) != storages[key].nbytes:
            raise ValueError("it is cut off")
    expect_end(file)
    return value


def _storage_identifier(identifier: Any) -> tuple[np.dtype, str, int, slice | None]:
    """Type, key, number of elements, and a part of it (in early files) of what a file calls a storage."""
    if not isinstance(identifier, tuple) or not 5 <= len(identifier) <= 6 or identifier[0] != "storage":
        raise Refused("refers to something that is neither data nor a tensor: save the network's state_dict()")
    _, kind, key, _location, count, *views = identifier
    if not isinstance(kind, Global) or kind.name not in _STORAGES:
        raise Refused("names a storage whose type is not one of PyTorch's")
    if not isinstance(key, str) or not isinstance(count, int) or count < 0:
        raise ValueError("it names a storage without key or length")
    if not views or views[0] is None:
        return _STORAGES[kind.name], key, count, None
    if not isinstance(views[0], tuple) or len(views[0]) != 3:
        raise ValueError("it names a part of a storage that is not one")
    offset, length = _whole_numbers(views[0][1:])
    return _STORAGES[kind.name], key, count, slice(offset, offset + length)


def _typed(storage: np.ndarray, dtype: np.dtype, count: int) -> np.ndarray:
    if storage.nbytes != count * dtype.itemsize:
        raise ValueError("the numbers of a tensor are more or fewer than it says")
    return storage.view(dtype)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_options: Any) -> np.ndarray:
    """The view of a storage that a tensor is, strides counted in elements; its gradient and hooks are left out."""
    if not isinstance(storage, np.ndarray) or storage.ndim != 1 or not storage.flags.c_contiguous:
        raise ValueError("it has a tensor without numbers")
    (offset,), shape, strides = _whole_numbers((offset,)), _whole_numbers(shape), _whole_numbers(strides)
    if len(shape) != len(strides) or len(shape) > 32:
        raise ValueError("a tensor has more strides than dimensions, or fewer")
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if last >= len(storage):
        raise ValueError("a tensor reaches beyond its numbers")
    if strides == tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape))):
        return storage[offset : last + 1].reshape(shape)
    steps = tuple(stride * storage.itemsize for stride in strides)
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)


def _plain_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *options: Any) -> np.ndarray:
    if len(options) > 2 and options[2]:
        raise Refused("holds a tensor that is stored negated or conjugated, which jaxface does not read")
    return _tensor(storage, offset, shape, strides)


def _typed_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, dtype: Any, *options: Any
):
    if not isinstance(storage, np.ndarray) or not isinstance(dtype, np.dtype):
        raise ValueError("it has a tensor without numbers or type")
    return _plain_tensor(storage.view(dtype), offset, shape, strides, None, None, *options)


def _whole_numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or not all(isinstance(value, int) and value >= 0 for value in values):
        raise ValueError("a tensor's shape is not of whole numbers")
    return values


def _parameter(tensor: Any, *_options: Any) -> np.ndarray:
    if not isinstance(tensor, np.ndarray):
        raise ValueError("it has a parameter that is not a tensor")
    return tensor


def _with_attributes(function: Any, _kind: Any, arguments: Any, _state: Any) -> np.ndarray:
    known = isinstance(function, Global) and function.call in _TENSORS.values()
    if not known or not isinstance(arguments, tuple):
        raise Refused("makes a tensor in a way that jaxface does not know")
    return function.call(*arguments)


def _size(lengths: Any = ()) -> tuple[int, ...]:
    return _whole_numbers(lengths)


def _device(kind: Any, index: Any = None) -> str:
    if not isinstance(kind, str) or not isinstance(index, (int, type(None))):
        raise ValueError("it names a device that is not one")
    return kind if index is None else f"{kind}:{index}"


# PyTorch's name of a type, NumPy's, and the storage's where there is one.
_TYPES = {
    "float64": (np.float64, "Double"),
    "float32": (np.float32, "Float"),
    "float16": (np.float16, "Half"),
    "bfloat16": (ml_dtypes.bfloat16, "BFloat16"),
    "float8_e4m3fn": (ml_dtypes.float8_e4m3fn, None),
    "float8_e5m2": (ml_dtypes.float8_e5m2, None),
    "int64": (np.int64, "Long"),
    "int32": (np.int32, "Int"),
    "int16": (np.int16, "Short"),
    "int8": (np.int8, "Char"),
    "uint64": (np.uint64, None),
    "uint32": (np.uint32, None),
    "uint16": (np.uint16, None),
    "uint8": (np.uint8, "Byte"),
    "bool": (np.bool_, "Bool"),
    "complex128": (np.complex128, "ComplexDouble"),
    "complex64": (np.complex64, "ComplexFloat"),
}

_STORAGES = {f"torch.{storage}Storage": np.dtype(kind) for kind, storage in _TYPES.values() if storage}

_STORAGES |= {name.replace("torch.", "torch.cuda."): kind for name, kind in _STORAGES.items()}

_STORAGES["torch.storage.UntypedStorage"] = np.dtype(np.uint8)

_TENSORS: dict[tuple[str, str], Callable] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _plain_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
}

_CALLS: dict[tuple[str, str], Callable] = {
    ("torch._tensor", "_rebuild_from_type_v2"): _with_attributes,
    ("torch", "Size"): _size,
    ("torch", "device"): _device,
}

_CLASSES = [tuple(name.rsplit(".", 1)) for name in (*_STORAGES, "torch.Tensor", "torch.nn.parameter.Parameter")]

_TORCH: dict[tuple[str, str], Any] = {("torch", name): np.dtype(kind) for name, (kind, _) in _TYPES.items()}

_TORCH |= {(module, name): Global(f"{module}.{name}") for module, name in _CLASSES}

_TORCH |= {key: Global(".".join(key), call=function) for key, function in (_TENSORS | _CALLS).items()}


def find_torch_global(module: str, name: str) -> Any:
    """Looks up what the pickle of a PyTorch file refers to, as `pickles.find_global` does.

    Raises:
        Refused: when it is not in the tables of data.
    """
    found = _TORCH.get((module, name))
    return find_global(module, name) if found is None else found
