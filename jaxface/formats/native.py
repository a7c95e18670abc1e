"""jaxface's own face-model file: one .npz, read without pickle.

Arrays (leading V, or C where a control mesh is used; K per basis):

    format              "jaxface face model 1"
    name                for messages
    mean_shape          [C, 3]     identity_basis [C, 3, Ki]     expression_basis [C, 3, Ke]
    mean_albedo         [V, 3]     albedo_basis   [V, 3, Ka]
    triangles [T, 3]    uv [V, 2] (optional)    mirror [V] (optional)
    part/<name> [N]     landmarks/<scheme> [L]      contours/<scheme> [L, N]
    expression_names    [Ke] (optional)
    subdivision/{data, indices, indptr}   (optional) CSR matrix [V, C]: shape arrays are given on a coarse control mesh
                        and expanded by it. Subdivision surfaces are linear in their control points, so this stores
                        a smooth dense face in a quarter of the numbers.
    step/<array>        (optional) the array holds integers that count steps of this size

Geometry is in model units (10 cm), colours in [0, 1].
"""

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from jaxface.command_line import atomic_write
from jaxface.errors import InputError
from jaxface.face_model import FaceModel
from jaxface.parts import PARTS

FORMAT = "jaxface face model 1"
_ARRAYS = ("mean_shape", "identity_basis", "expression_basis", "mean_albedo", "albedo_basis")
_SHAPE_ARRAYS = _ARRAYS[:3]


def read_face_model(path: str | os.PathLike) -> FaceModel:
    """Reads a native face-model file into NumPy arrays (float32, int32).

    Raises:
        InputError: when the file is missing, damaged, of another format, or inconsistent.
    """
    path = Path(path)
    arrays = _read_arrays(path)
    values: dict[str, Any] = {name: _values(arrays, name, path) for name in _ARRAYS}
    if "subdivision/data" in arrays:
        matrix = _subdivision(arrays, values, path)
        for name in _SHAPE_ARRAYS:
            array = values[name]
            expanded = matrix @ array.reshape(len(array), -1)
            values[name] = expanded.reshape(matrix.shape[0], *array.shape[1:])
    values |= {
        "triangles": _get(arrays, "triangles", path).astype(np.int32),
        "parts": {part: _get(arrays, f"part/{part}", path).astype(np.int32) for part in PARTS},
        "landmarks": _group(arrays, "landmarks/"),
        "contours": _group(arrays, "contours/"),
        "uv": arrays["uv"].astype(np.float32) if "uv" in arrays else None,
        "mirror": arrays["mirror"].astype(np.int32) if "mirror" in arrays else None,
    }
    model = FaceModel(**values, name=str(_get(arrays, "name", path)))
    _validate(model, path)
    return model


def expression_names(path: str | os.PathLike) -> tuple[str, ...]:
    """Names of the expression coefficients of a native file, in order; empty if it holds none."""
    arrays = _read_arrays(Path(path))
    return tuple(str(name) for name in arrays.get("expression_names", ()))


def write_face_model(
    model: FaceModel,
    path: str | os.PathLike,
    *,
    subdivision: sp.csr_matrix | None = None,
    expression_names: tuple[str, ...] = (),
    steps: dict[str, float] | None = None,
) -> None:
    """Writes `model` as a native file, whole or not at all.

    Args:
        model: the face model; with `subdivision`, its shape arrays are those of the control mesh.
        path: file to write, ".npz".
        subdivision: matrix [V, C] that expands the control mesh.
        expression_names: one name per expression coefficient.
        steps: array name -> step to which it is rounded; smaller files for a known loss.
    """
    steps = steps or {}
    arrays = {"format": np.array(FORMAT), "name": np.array(model.name)}
    for name in _ARRAYS:
        value = np.asarray(getattr(model, name), np.float32)
        if name in steps:
            counts = np.round(value / steps[name])
            value = counts.astype(np.int8 if np.abs(counts).max(initial=0) < 128 else np.int16)
            if not np.array_equal(value, counts):
                raise ValueError(f"step {steps[name]} is too small for {name}: it does not fit 16 bits")
            arrays[f"step/{name}"] = np.array(steps[name], np.float32)
        arrays[name] = value
    arrays["triangles"] = _smallest(model.triangles)
    for prefix, group in (("part", model.parts), ("landmarks", model.landmarks), ("contours", model.contours)):
        arrays |= {f"{prefix}/{key}": _smallest(value) for key, value in group.items()}
    if model.uv is not None:
        arrays["uv"] = np.asarray(model.uv, np.float32)
    if model.mirror is not None:
        arrays["mirror"] = _smallest(model.mirror)
    if expression_names:
        arrays["expression_names"] = np.array(expression_names)
    if subdivision is not None:
        matrix = sp.csr_matrix(subdivision)
        arrays["subdivision/data"] = matrix.data.astype(np.float32)
        arrays["subdivision/indices"] = _smallest(matrix.indices)
        arrays["subdivision/indptr"] = _smallest(matrix.indptr)
    with atomic_write(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _smallest(indices) -> np.ndarray:
    indices = np.asarray(indices)
    return indices.astype(np.uint16 if indices.max(initial=0) < 2**16 else np.int32)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(f"no face-model file at {path}")
    try:
        with open(path, "rb") as file:
            content = np.load(file, allow_pickle=False)
            arrays = dict(content) if isinstance(content, np.lib.npyio.NpzFile) else {}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged or not an .npz file ({error}); make or copy it again") from error
    if str(arrays.get("format", "")) != FORMAT:
        raise InputError(f"{path} is not a jaxface face model: it has no entry 'format' that says {FORMAT!r}")
    return arrays


def _get(arrays: dict[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    if name not in arrays:
        raise InputError(f"{path} lacks the array {name!r}; make or copy it again")
    return arrays[name]


def _values(arrays: dict[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    array = _get(arrays, name, path)
    if array.dtype.kind not in "fiu" or array.ndim != (3 if name.endswith("basis") else 2) or array.shape[1] != 3:
        raise InputError(f"{path}: {name} is {array.dtype} {array.shape}, expected numbers [V, 3] or [V, 3, K]")
    return array.astype(np.float32) * arrays.get(f"step/{name}", np.float32(1.0))


def _subdivision(arrays: dict[str, np.ndarray], values: dict[str, np.ndarray], path: Path) -> sp.csr_matrix:
    data, indices, indptr = (_get(arrays, f"subdivision/{key}", path) for key in ("data", "indices", "indptr"))
    shape = (len(indptr) - 1, len(values["mean_shape"]))
    try:
        matrix = sp.csr_matrix((data.astype(np.float32), indices.astype(np.int32), indptr.astype(np.int32)), shape)
        matrix.check_format()
    except ValueError as error:
        raise InputError(f"{path}: the subdivision matrix is not valid ({error})") from error
    if any(len(values[name]) != shape[1] for name in _SHAPE_ARRAYS):
        raise InputError(f"{path}: the shape arrays do not have the same number of control vertices")
    return matrix


def _group(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): arrays[key].astype(np.int32) for key in arrays if key.startswith(prefix)}


def _validate(model: FaceModel, path: Path) -> None:
    count = len(model.mean_shape)
    for name in _ARRAYS:
        array = getattr(model, name)
        if len(array) != count:
            raise InputError(f"{path}: {name} has {len(array)} vertices, mean_shape {count}")
        if not np.isfinite(array).all():
            raise InputError(f"{path}: {name} holds values that are not finite")
    if model.triangles.ndim != 2 or model.triangles.shape[1] != 3:
        raise InputError(f"{path}: triangles has shape {model.triangles.shape}, expected [T, 3]")
    indices = {"triangles": model.triangles, "mirror": model.mirror}
    indices |= {f"part {key}": value for key, value in model.parts.items()}
    indices |= {f"landmarks {key}": value for key, value in model.landmarks.items()}
    indices |= {f"contours {key}": value for key, value in model.contours.items()}
    for name, array in indices.items():
        if array is not None and array.size and (array.min() < 0 or array.max() >= count):
            raise InputError(f"{path}: {name} refers to vertices beyond the {count} that there are")
    if model.uv is not None and model.uv.shape != (count, 2):
        raise InputError(f"{path}: uv has shape {model.uv.shape}, expected [{count}, 2]")
    if model.mirror is not None and model.mirror.shape != (count,):
        raise InputError(f"{path}: mirror has shape {model.mirror.shape}, expected [{count}]")
