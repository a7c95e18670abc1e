"""The files of the annotation tool: annotations and edits by hand, and pictures for parsers outside jaxface."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from jaxface.annotation.views import draw_all_views, view_camera
from jaxface.annotation.votes import edit_kind
from jaxface.core.coefficients import vector_size
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.parts import PARTS
from jaxface.files import visualize
from jaxface.files.containers import read_arrays, write_arrays
from jaxface.files.progress import progress

_VIEWS_FILE = "views.npz"


def picture_name(index: int) -> str:
    """File name of a picture and of its label map."""
    return f"view_{index:04d}.png"


def read_edits(path: str | os.PathLike, model: FaceModel) -> dict[str, Integer[np.ndarray, "..."]]:
    """Reads edits made by hand, or another annotation: an .npz file of vertex indices.

    Its arrays are called like a part or "part/NAME" (replaces it), "add/NAME", "remove/NAME", "landmarks/SCHEME" or
    "contours/SCHEME".

    Raises:
        InputError: names the file and the array that cannot be used.
    """
    arrays = read_arrays(path)
    for name, array in arrays.items():
        other = name.startswith(("landmarks/", "contours/"))
        if edit_kind(name) is None and not other:
            raise InputError(
                f"{path}: {name!r} is not a part to edit; arrays are called NAME, part/NAME, add/NAME or remove/NAME "
                f"with NAME one of {', '.join(PARTS)}, or landmarks/68"
            )
        if array.size and array.dtype.kind not in "iu":
            raise InputError(f"{path}: {name} should hold vertex indices (integers), but holds {array.dtype}")
        if array.ndim != (2 if name.startswith("contours/") else 1):
            raise InputError(f"{path}: {name} should be a list of vertex indices, but has the shape {array.shape}")
        if name == "landmarks/68" and len(array) != 68:
            raise InputError(f"{path}: {name} should hold 68 vertex indices, but holds {len(array)}")
        count = len(model.mean_shape)
        if array.size and (array.min() < 0 or array.max() >= count):
            wrong = int(array.min() if array.min() < 0 else array.max())
            raise InputError(f"{path}: {name} names vertex {wrong}, but the model has the vertices 0 to {count - 1}")
    return {name: array.astype(np.int32) for name, array in arrays.items()}


def write_annotation(
    path: str | os.PathLike,
    parts: Mapping[str, Integer[np.ndarray, "N"]],
    landmarks: Mapping[str, Integer[np.ndarray, "L"]],
    contours: Mapping[str, Integer[np.ndarray, "C N"]],
) -> None:
    """Writes vertex indices (int32) under the names of the parts, "landmarks/SCHEME" and "contours/SCHEME"."""
    arrays = dict(parts)
    arrays |= {f"landmarks/{scheme}": value for scheme, value in landmarks.items()}
    arrays |= {f"contours/{scheme}": value for scheme, value in contours.items()}
    write_arrays(path, {name: np.asarray(value, np.int32) for name, value in arrays.items()}, compress=True)


def write_pictures(
    folder: str | os.PathLike,
    model: FaceModel,
    vectors: Float[np.ndarray, "N K"],
    box: Float[np.ndarray, "2 3"],
    *,
    size: int,
) -> None:
    """Writes the pictures for a parser outside jaxface, and what they show in views.npz.

    Args:
        folder: made if need be.
        model: the face model.
        vectors: coefficients, from `annotation.views.random_views`.
        box: what the pictures show, in model units.
        size: side of the pictures in pixels.
    """
    folder = Path(folder)
    pictures = draw_all_views(model, vectors, view_camera(box, size=size))
    for index in progress(range(len(vectors)), description="draw", unit="picture"):
        visualize.save_png(folder / picture_name(index), np.asarray(next(pictures).image))
    shape = np.asarray(model.mean_shape, np.float32)
    write_arrays(folder / _VIEWS_FILE, {"vectors": vectors, "box": box.astype(np.float32), "mean_shape": shape})


def read_views(
    folder: str | os.PathLike, model: FaceModel
) -> tuple[Float[np.ndarray, "N K"], Float[np.ndarray, "2 3"]]:
    """The coefficients and the box that `write_pictures` wrote.

    Raises:
        InputError: when the folder holds none, or those of another model.
    """
    path = Path(folder) / _VIEWS_FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; --renders names the folder that --render-only wrote")
    arrays = read_arrays(path)
    vectors, box, shape = (arrays.get(name, np.zeros(0)) for name in ("vectors", "box", "mean_shape"))
    same = np.array_equal(shape, np.asarray(model.mean_shape, np.float32)) and box.shape == (2, 3)
    if not same or vectors.ndim != 2 or vectors.shape[1] != vector_size(model) or not len(vectors):
        raise InputError(f"{path}: was drawn of another face model; write it anew with --render-only")
    if any(array.dtype != np.float32 or not np.isfinite(array).all() for array in (vectors, box)):
        raise InputError(f"{path}: holds values that are no finite numbers; write it anew with --render-only")
    return vectors, box
