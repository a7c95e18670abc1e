"""What the readers of face models share: arrays taken out of a file's content, and one check of the result."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int32

from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.parts import PARTS

ARRAYS = ("mean_shape", "identity_basis", "expression_basis", "mean_albedo", "albedo_basis")
"""The floating-point arrays that every face model has."""


@dataclasses.dataclass(frozen=True)
class Content:
    """What an outside file holds, with its path for messages. Every method raises InputError, naming file and key.

    Attributes:
        path: of the file.
        values: key -> value, as they were read.
    """

    path: Path
    values: Mapping[str, Any]

    def get(self, key: str) -> Any:
        """The value of `key`."""
        if key not in self.values:
            raise InputError(f"{self.path} lacks the key {key!r}; get the file again, or check what it is")
        return self.values[key]

    def numbers(self, key: str) -> np.ndarray:
        """The value of `key`, as an array of numbers."""
        value = self.get(key)
        try:
            array = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise self._unfit(key, "a ragged list", "an array of numbers") from error
        if array.dtype.kind not in "fiub" or isinstance(value, str | bytes | Mapping):
            raise self._unfit(key, _described(value), "an array of numbers")
        return array

    def vertices(self, key: str, *, count: int | None = None, scale: float = 1.0) -> Float[np.ndarray, "V 3"]:
        """A position or colour per vertex times `scale`: [V, 3], or x, y, z in turn: [3 V, 1], [1, 3 V] or [3 V]."""
        array = self.numbers(key)
        in_a_row = array.ndim == 1 or max(array.shape, default=0) == array.size
        if not array.size or array.size % 3 or not (in_a_row or array.shape[-1] == 3):
            raise self._unfit(key, _described(array), "three numbers per vertex")
        if count is not None and array.size != 3 * count:
            raise self._unfit(key, _described(array), f"3 x {count} numbers")
        return self._floats(key, array.reshape(-1, 3), scale)

    def basis(
        self, key: str, *, count: int, limit: int | None = None, scale: float = 1.0
    ) -> Float[np.ndarray, "V 3 K"]:
        """A basis, stored as [3 V, K] (x, y, z in turn) or [V, 3, K]; its first `limit` columns, times `scale`."""
        array = self.numbers(key)
        if array.ndim not in (2, 3) or array.shape[:-1] not in ((3 * count,), (count, 3)) or not array.shape[-1]:
            raise self._unfit(key, _described(array), f"[{3 * count}, K] or [{count}, 3, K]")
        return self._floats(key, array[..., :limit], scale).reshape(count, 3, -1)

    def texture_coordinates(self, key: str, *, count: int) -> Float[np.ndarray, "V 2"]:
        """The first two numbers of each row of [V, 2] or [V, 3]."""
        array = self.numbers(key)
        if array.ndim != 2 or len(array) != count or array.shape[1] not in (2, 3):
            raise self._unfit(key, _described(array), f"[{count}, 2] or [{count}, 3]")
        return self._floats(key, array[:, :2], 1.0)

    def indices(self, key: str, *, count: int, first: int = 0) -> Int32[np.ndarray, "N"]:
        """Vertex indices, counted from `first` in the file and from 0 in the result."""
        return self._checked_indices(key, self.numbers(key).ravel(), count, first)

    def index_lists(self, key: str, *, count: int, length: int) -> list[Int32[np.ndarray, "N"]]:
        """A list of `length` lists of vertex indices, counted from 0."""
        value = self.get(key)
        listed = value.ndim > 0 if isinstance(value, np.ndarray) else isinstance(value, list | tuple)
        if not listed or len(value) != length:
            found = f"a list of {len(value)}" if listed else _described(value)
            raise self._unfit(key, found, f"a list of {length} lists of vertex indices")
        lists = Content(self.path, {f"{key}[{index}]": part for index, part in enumerate(value)})
        return [lists.indices(name, count=count) for name in lists.values]

    def triangles(self, key: str, *, count: int, first: int = 0) -> Int32[np.ndarray, "T 3"]:
        """Triangles as rows of three vertex indices, counted from `first` in the file and from 0 in the result."""
        array = self.numbers(key)
        if array.ndim != 2 or array.shape[1] != 3 or not len(array):
            raise self._unfit(key, _described(array), "[T, 3]")
        return self._checked_indices(key, array, count, first)

    def mask(self, key: str, *, count: int) -> Int32[np.ndarray, "N"]:
        """Indices of the vertices where a mask with one number per vertex is positive."""
        array = self.numbers(key)
        if array.size != count:
            raise self._unfit(key, _described(array), f"a number for each of the {count} vertices")
        return np.flatnonzero(self._floats(key, array.ravel(), 1.0) > 0).astype(np.int32)

    def _floats(self, key: str, array: np.ndarray, scale: float) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes infinite and is reported below
            if scale == 1:
                array = np.ascontiguousarray(array, np.float32)
            else:
                array = np.multiply(array, np.float32(scale), dtype=np.float32, order="C", casting="unsafe")
        if not all_finite(array):
            raise InputError(f"{self.path}: {key!r} holds values that are not finite; get the file again")
        return array

    def _checked_indices(self, key: str, array: np.ndarray, count: int, first: int) -> np.ndarray:
        if array.size:
            lowest, highest = array.min(), array.max()
            if not (lowest >= first and highest < first + count):  # so that NaN fails as well
                raise InputError(
                    f"{self.path}: {key!r} refers to vertices {lowest} to {highest}, but there are {count}, counted "
                    f"from {first}"
                )
        whole = array.astype(np.int32)
        if array.dtype.kind == "f" and not np.array_equal(whole, array):
            raise self._unfit(key, "fractions", "vertex indices")
        return whole - np.int32(first)

    def _unfit(self, key: str, found: str, expected: str) -> InputError:
        return InputError(f"{self.path}: {key!r} is {found}, expected {expected}")


def _described(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__


def all_finite(array: np.ndarray) -> bool:
    """Whether no value is infinite or NaN, without the memory for a mask."""
    return not array.size or bool(np.isfinite(array.min()) and np.isfinite(array.max()))


def check_face_model(model: FaceModel, path: Path) -> FaceModel:
    """Returns `model` if its arrays fit together.

    Raises:
        InputError: when they do not; the message names file and array.
    """
    count = len(model.mean_shape)
    for name in ARRAYS:
        array = getattr(model, name)
        if array.ndim != (3 if name.endswith("basis") else 2) or array.shape[1] != 3:
            raise InputError(f"{path}: {name} has shape {list(array.shape)}, expected [V, 3] or [V, 3, K]")
        if len(array) != count:
            raise InputError(f"{path}: {name} has {len(array)} vertices, mean_shape {count}")
        if not all_finite(array):
            raise InputError(f"{path}: {name} holds values that are not finite")
    if model.triangles.ndim != 2 or model.triangles.shape[1] != 3:
        raise InputError(f"{path}: triangles has shape {list(model.triangles.shape)}, expected [T, 3]")
    indices = {"triangles": model.triangles, "mirror": model.mirror}
    for group, axes in (("part", 1), ("landmarks", 1), ("contours", 2)):
        for key, value in getattr(model, "parts" if group == "part" else group).items():
            if value.ndim != axes:
                raise InputError(f"{path}: {group} {key} has shape {list(value.shape)}, expected {axes} axes")
            indices[f"{group} {key}"] = value
    for name, array in indices.items():
        if array is not None and array.size and (array.min() < 0 or array.max() >= count):
            raise InputError(f"{path}: {name} refers to vertices beyond the {count} that there are")
    if model.uv is not None and (model.uv.shape != (count, 2) or not all_finite(np.asarray(model.uv))):
        raise InputError(f"{path}: uv is not an array [{count}, 2] of finite numbers")
    if model.mirror is not None and model.mirror.shape != (count,):
        raise InputError(f"{path}: mirror has shape {list(model.mirror.shape)}, expected [{count}]")
    expressions = model.expression_basis.shape[-1]
    if model.expression_names and len(model.expression_names) != expressions:
        raise InputError(f"{path}: {len(model.expression_names)} names for {expressions} expression coefficients")
    return model


def require_parts(model: FaceModel, purpose: str) -> None:
    """Says what to do about a face model that lacks some of the eight parts.

    Args:
        model: the face model.
        purpose: what needs them, such as "the part loss".

    Raises:
        InputError: when a part is missing or empty.
    """
    missing = [part for part in PARTS if not len(model.parts.get(part, ()))]
    if missing:
        raise InputError(
            f"{purpose} needs the eight parts, and the face model {model.name!r} lacks {', '.join(missing)}: make them "
            "with python -m jaxface.annotate MODEL --out parts.npz, then python -m jaxface.convert MODEL OUT.npz "
            "--parts parts.npz"
        )
