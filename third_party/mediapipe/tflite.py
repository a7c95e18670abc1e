"""Reads .tflite files: what `build.py` needs of the flatbuffer format and of TensorFlow Lite's schema, and no more.

A flatbuffer is a tree of tables. A table begins with the distance back to its list of fields, which holds, per field
number, the distance from the table to the field, 0 where the field is missing. Field numbers below are those of
TensorFlow's schema.fbs (Apache-2.0).
"""

import dataclasses
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from flatbuffers import flexbuffers

KINDS = {3: "convolution", 4: "depthwise", 32: "custom", 54: "slope"}
"""Operators with weights, or with options of their own, by their number in the schema."""

DEQUANTIZE, DENSIFY = 6, 124

NUMBERS = {0: "<f4", 1: "<f2", 2: "<i4"}
"""Tensor types."""


@dataclasses.dataclass(frozen=True)
class Operator:
    """One operator of a network, in the order in which the file runs them.

    Attributes:
        kind: a value of KINDS.
        weights: its constant inputs, dense, in the file's own order of axes.
        options: of a custom operator; "name" is its own.
    """

    kind: str
    weights: tuple[np.ndarray, ...]
    options: dict[str, Any]


class Table:
    """A table of a flatbuffer."""

    def __init__(self, data: bytes, start: int):
        self.data, self.start = data, start
        self.fields = start - struct.unpack_from("<i", data, start)[0]
        self.length = struct.unpack_from("<H", data, self.fields)[0]

    def _place(self, field: int) -> int | None:
        entry = 4 + 2 * field
        distance = struct.unpack_from("<H", self.data, self.fields + entry)[0] if entry < self.length else 0
        return self.start + distance if distance else None

    def _target(self, field: int) -> int | None:
        place = self._place(field)
        return None if place is None else place + struct.unpack_from("<I", self.data, place)[0]

    def number(self, field: int, form: str = "i") -> int:
        """A number; 0 where it is missing."""
        place = self._place(field)
        return 0 if place is None else struct.unpack_from("<" + form, self.data, place)[0]

    def table(self, field: int) -> "Table | None":
        """A table, or None."""
        target = self._target(field)
        return None if target is None else Table(self.data, target)

    def vector(self, field: int, dtype: str = "<i4") -> np.ndarray:
        """Numbers; none where the field is missing."""
        target = self._target(field)
        if target is None:
            return np.zeros(0, dtype)
        return np.frombuffer(self.data, dtype, struct.unpack_from("<I", self.data, target)[0], target + 4)

    def tables(self, field: int) -> list["Table"]:
        """The tables of a vector."""
        target = self._target(field)
        if target is None:
            return []
        places = range(target + 4, target + 4 + 4 * struct.unpack_from("<I", self.data, target)[0], 4)
        return [Table(self.data, place + struct.unpack_from("<I", self.data, place)[0]) for place in places]


def read_tflite(content: bytes) -> list[Operator]:
    """The operators of a network that have weights or options of their own."""
    model = Table(content, struct.unpack_from("<I", content)[0])
    codes, graph, buffers = model.tables(1), model.tables(2)[0], model.tables(4)
    tensors, operators = graph.tables(0), graph.tables(3)
    constants = {}
    for index, tensor in enumerate(tensors):
        data = buffers[tensor.number(2, "I")].vector(0, "u1")
        if data.size:
            constants[index] = _constant(tensor, data)
    found = []
    for operator in operators:
        code = codes[operator.number(0, "I")]
        number = max(code.number(0, "b"), code.number(3))
        inputs, outputs = operator.vector(1).tolist(), operator.vector(2).tolist()
        if number in (DEQUANTIZE, DENSIFY) and inputs[0] in constants:
            constants[outputs[0]] = constants[inputs[0]]  # a cast, and what `_constant` did
        elif number in KINDS:
            weights = tuple(constants[index] for index in inputs if index in constants)
            options = {}
            if KINDS[number] == "custom":
                options = flexbuffers.Loads(operator.vector(5, "u1").tobytes()) if operator.vector(5, "u1").size else {}
                options["name"] = code.vector(1, "u1").tobytes().decode()
            found.append(Operator(KINDS[number], weights, options))
    return found


def _constant(tensor: Table, data: np.ndarray) -> np.ndarray:
    shape = tensor.vector(0)
    values = np.frombuffer(data.tobytes(), NUMBERS[tensor.number(1, "b")])
    sparsity = tensor.table(6)
    return values.reshape(shape) if sparsity is None else _dense(values, shape, sparsity)


def _dense(values: np.ndarray, shape: np.ndarray, sparsity: Table) -> np.ndarray:
    """A kernel [O, 1, 1, I] of which the entries other than 0 are stored, row by row."""
    assert sparsity.vector(0).tolist() == [0, 1, 2, 3] and not sparsity.vector(1).size
    *dense, last = sparsity.tables(2)
    assert all(axis.number(0, "b") == 0 for axis in dense) and last.number(0, "b") == 1
    starts, columns = (_indices(last, field) for field in (2, 4))
    result = np.zeros((shape[0], shape[3]), values.dtype)
    result[np.repeat(np.arange(shape[0]), np.diff(starts)), columns] = values
    return result.reshape(shape)


def _indices(axis: Table, field: int) -> np.ndarray:
    """Whole numbers, whose type stands in `field` and whose table in the field after it."""
    table = axis.table(field + 1)
    assert table is not None
    return table.vector(0, {1: "<i4", 2: "<u2", 3: "u1"}[axis.number(field, "B")]).astype(int)


def read_from(source: Path, name: str) -> bytes:
    """A file of the package, whose folder or wheel `source` is."""
    if source.is_dir():
        return (source / name).read_bytes()
    with zipfile.ZipFile(source) as wheel:
        return wheel.read(f"mediapipe/{name}")
