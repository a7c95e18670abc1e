"""jaxface's own face-model file: named arrays in one .npz or .safetensors, read without pickle.

Arrays (leading V, or C where a control mesh is used; K per basis):

    format              "jaxface face model 1"
    name                for messages
    mean_shape          [C, 3]     identity_basis [C, 3, Ki]     expression_basis [C, 3, Ke]
    mean_albedo         [V, 3]     albedo_basis   [V, 3, Ka]
    triangles [T, 3]    uv [V, 2] (optional)    mirror [V] (optional)
    part/<name> [N]     landmarks/<scheme> [L]      contours/<scheme> [L, N]    (any number of each, or none)
    skinning/<field>    (optional) the arrays of jaxface.core.skinning.Skinning
    expression_names    [Ke] (optional)
    expression_bounds   [2] (optional) by default (0, 1) where expressions have names, else (-3, 3)
    subdivision/{data, indices, indptr}   (optional) CSR matrix [V, C]: shape arrays are given on a coarse control mesh
                        and expanded by it. Subdivision surfaces are linear in their control points, so this stores
                        a smooth dense face in a quarter of the numbers.
    step/<array>        (optional) the array holds integers that count steps of this size
    bits/<array>        (optional) "bfloat16": the array holds the bits of such numbers

Geometry is in model units (10 cm), colours in [0, 1]. In a .safetensors file the strings are metadata, lists of them
with a line each.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Integer

from jaxface.core.errors import InputError
from jaxface.core.face_models import ARTIST_UNITS, STANDARD_NORMAL, FaceModel
from jaxface.core.skinning import Skinning
from jaxface.files import containers
from jaxface.files.containers import read_arrays, write_arrays
from jaxface.models.checks import ARRAYS, all_finite, check_face_model
from jaxface.models.source import FaceModelFormat, Source

FORMAT = "jaxface face model 1"
"""What a file says of itself in its entry `format`."""

BASIS_TYPES = ("float32", "float16", "bfloat16", "int16")
"""Number types that bases can be stored in; int16 counts steps of a 32,767th of the largest number in the basis."""

_SHAPE_ARRAYS = ARRAYS[:3]

_BASES = tuple(name for name in ARRAYS if name.endswith("basis"))

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def read_face_model(path: str | os.PathLike[str]) -> FaceModel:
    """Reads a native face-model file into NumPy arrays (float32, int32).

    Raises:
        InputError: when the file is missing, damaged, of another format, or inconsistent.
    """
    path = Path(path)
    arrays = _read_native(path)
    values: dict[str, Any] = {name: _values(arrays, name, path) for name in ARRAYS}
    if "subdivision/data" in arrays:
        matrix = _subdivision(arrays, values, path)
        for name in _SHAPE_ARRAYS:
            array = values[name]
            expanded = matrix @ array.reshape(len(array), -1)
            values[name] = expanded.reshape(matrix.shape[0], *array.shape[1:])
    values |= {
        "triangles": _indices(arrays, "triangles", path),
        "parts": _group(arrays, "part/", path),
        "landmarks": _group(arrays, "landmarks/", path),
        "contours": _group(arrays, "contours/", path),
        "uv": _floats(arrays, "uv", path) if "uv" in arrays else None,
        "mirror": _indices(arrays, "mirror", path) if "mirror" in arrays else None,
        "skinning": _skinning(arrays, path),
    }
    names = tuple(str(name) for name in np.ravel(arrays.get("expression_names", ())))
    model = FaceModel(
        **values,
        name=str(_get(arrays, "name", path)),
        expression_names=names,
        expression_bounds=_bounds(arrays, path) or (ARTIST_UNITS if names else STANDARD_NORMAL),
    )
    check_face_model(model, path)
    _check_skinning(model, path)
    return model


def write_face_model(
    model: FaceModel,
    path: str | os.PathLike[str],
    *,
    subdivision: sp.csr_matrix | None = None,
    steps: dict[str, float] | None = None,
    basis_type: str = "float32",
) -> None:
    """Writes `model` as a native file, whole or not at all.

    Args:
        model: the face model; with `subdivision`, its shape arrays are those of the control mesh.
        path: file to write, ".npz" or ".safetensors".
        subdivision: matrix [V, C] that expands the control mesh.
        steps: array name -> step to which it is rounded; smaller files for a known loss.
        basis_type: what the bases are rounded to, one of BASIS_TYPES; they are read back as float32.

    Raises:
        InputError: when the file cannot be written.
    """
    compress = bool(steps)  # counts of coarse steps become much smaller
    steps = dict(steps or {})
    if basis_type == "int16":
        steps |= {name: _finest_step(getattr(model, name)) for name in _BASES if name not in steps}
    arrays = {"format": np.array(FORMAT), "name": np.array(model.name)}
    for name in ARRAYS:
        value = np.asarray(getattr(model, name), np.float32)
        if name in steps:
            counts = np.round(value / steps[name])
            value = counts.astype(np.int8 if np.abs(counts).max(initial=0) < 128 else np.int16)
            if not np.array_equal(value, counts):
                raise ValueError(f"step {steps[name]} is too small for {name}: it does not fit 16 bits")
            arrays[f"step/{name}"] = np.array(steps[name], np.float32)
        elif name in _BASES:
            value = value.astype(basis_type)
        if value.dtype == _BFLOAT16:  # neither container reads it back everywhere
            arrays[f"bits/{name}"], value = np.array(value.dtype.name), value.view(np.uint16)
        arrays[name] = value
    arrays["triangles"] = _smallest(model.triangles)
    for prefix, group in (("part", model.parts), ("landmarks", model.landmarks), ("contours", model.contours)):
        arrays |= {f"{prefix}/{key}": _smallest(value) for key, value in group.items()}
    if model.uv is not None:
        arrays["uv"] = np.asarray(model.uv, np.float32)
    if model.mirror is not None:
        arrays["mirror"] = _smallest(model.mirror)
    if model.skinning is not None:
        for field in dataclasses.fields(Skinning):
            number = np.int32 if field.metadata.get("static") else np.float32
            arrays[f"skinning/{field.name}"] = np.asarray(getattr(model.skinning, field.name), number)
    if model.expression_names:
        arrays["expression_names"] = np.array(model.expression_names)
    arrays["expression_bounds"] = np.array(model.expression_bounds, np.float32)
    if subdivision is not None:
        matrix = sp.csr_matrix(subdivision)
        arrays["subdivision/data"] = matrix.data.astype(np.float32)
        arrays["subdivision/indices"] = _smallest(matrix.indices)
        arrays["subdivision/indptr"] = _smallest(matrix.indptr)
    write_arrays(path, arrays, compress=compress)


def is_native(arrays: Mapping[str, object]) -> bool:
    """Whether named arrays, or the metadata of a safetensors file, are those of a face model of jaxface."""
    return str(arrays.get("format", "")) == FORMAT


def _finest_step(basis: Float[Array | np.ndarray, "V 3 K"]) -> float:
    largest = float(np.abs(np.asarray(basis)).max(initial=0))
    # A hair more, so that rounding in float32 cannot lead beyond 16 bits.
    return float(np.float32(largest * (1 + 1e-6) / 32767)) or 1.0


def _smallest(indices: Integer[Array | np.ndarray, "..."]) -> Integer[np.ndarray, "..."]:
    indices = np.asarray(indices)
    return indices.astype(np.uint16 if indices.max(initial=0) < 2**16 else np.int32)


def _read_native(path: Path) -> dict[str, np.ndarray]:
    arrays = read_arrays(path)
    if not is_native(arrays):
        raise InputError(f"{path} is not a jaxface face model: it has no entry 'format' that says {FORMAT!r}")
    return arrays


def _bounds(arrays: dict[str, np.ndarray], path: Path) -> tuple[float, float] | None:
    if "expression_bounds" not in arrays:
        return None
    bounds = _floats(arrays, "expression_bounds", path)
    if bounds.shape != (2,) or not all_finite(bounds) or bounds[0] >= bounds[1]:
        raise InputError(f"{path}: expression_bounds {bounds.tolist()}: expected the lowest value and the highest")
    return float(bounds[0]), float(bounds[1])


def _get(arrays: dict[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    if name not in arrays:
        raise InputError(f"{path} lacks the array {name!r}; make or copy it again")
    return arrays[name]


def _floats(arrays: dict[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    array = _get(arrays, name, path)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path}: {name} is {array.dtype} {array.shape}, expected numbers")
    with np.errstate(over="ignore"):  # what becomes infinite is reported as such
        return array.astype(np.float32, copy=False)


def _indices(arrays: dict[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    array = _get(arrays, name, path)
    if array.dtype.kind not in "iu":
        raise InputError(f"{path}: {name} is {array.dtype} {array.shape}, expected vertex indices")
    return array.astype(np.int32)


def _values(arrays: dict[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    array = _get(arrays, name, path)
    if f"bits/{name}" in arrays and array.dtype == np.uint16:
        array = array.view(_BFLOAT16).astype(np.float32)
    if array.dtype.kind not in "fiu" or array.ndim != (3 if name.endswith("basis") else 2) or array.shape[1] != 3:
        raise InputError(f"{path}: {name} is {array.dtype} {array.shape}, expected numbers [V, 3] or [V, 3, K]")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    if f"step/{name}" not in arrays:
        return array
    step = _floats(arrays, f"step/{name}", path)
    if step.size != 1:
        raise InputError(f"{path}: step/{name} has shape {step.shape}, expected one number")
    scaled: np.ndarray = array * step.reshape(())
    return scaled


def _subdivision(arrays: dict[str, np.ndarray], values: dict[str, np.ndarray], path: Path) -> sp.csr_matrix:
    data, indices, indptr = (_get(arrays, f"subdivision/{key}", path) for key in ("data", "indices", "indptr"))
    shape = (len(np.ravel(indptr)) - 1, len(values["mean_shape"]))
    try:
        matrix = sp.csr_matrix((data.astype(np.float32), indices.astype(np.int32), indptr.astype(np.int32)), shape)
        matrix.check_format()
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: the subdivision matrix is not valid ({error})") from error
    if any(len(values[name]) != shape[1] for name in _SHAPE_ARRAYS):
        raise InputError(f"{path}: the shape arrays do not have the same number of control vertices")
    return matrix


def _group(arrays: dict[str, np.ndarray], prefix: str, path: Path) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): _indices(arrays, key, path) for key in arrays if key.startswith(prefix)}


def _skinning(arrays: dict[str, np.ndarray], path: Path) -> Skinning | None:
    if not any(key.startswith("skinning/") for key in arrays):
        return None
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Skinning):
        name = f"skinning/{field.name}"
        if field.metadata.get("static"):
            values[field.name] = tuple(_indices(arrays, name, path).ravel().tolist())
        else:
            values[field.name] = _floats(arrays, name, path)
    return Skinning(**values)


def _check_skinning(model: FaceModel, path: Path) -> None:
    if model.skinning is None:
        return
    skinning, count = model.skinning, len(model.mean_shape)
    joints = len(skinning.parents)
    shapes = {
        "joints": (joints, 3),
        "joint_identity_basis": (joints, 3, model.identity_basis.shape[-1]),
        "joint_expression_basis": (joints, 3, model.expression_basis.shape[-1]),
        "weights": (count, joints),
        "pose_basis": (count, 3, 9 * (joints - 1)),
    }
    for name, shape in shapes.items():
        array = getattr(skinning, name)
        if array.shape != shape or not all_finite(array):
            raise InputError(f"{path}: skinning/{name} is {array.shape}, expected {shape} finite numbers")
    if not all(-1 <= parent < joint for joint, parent in enumerate(skinning.parents)):
        raise InputError(f"{path}: skinning/parents {skinning.parents}: a parent comes before its children")
    if not all(0 <= joint < joints for joint in skinning.posed):
        raise InputError(f"{path}: skinning/posed {skinning.posed} names joints beyond the {joints} that there are")


def _recognizes(source: Source) -> bool:
    return containers.is_zip(source.start) or containers.is_safetensors(source.start)


FILE = FaceModelFormat("jaxface's own .npz or .safetensors", _recognizes, lambda source: read_face_model(source.path))
"""As the registry knows it."""
