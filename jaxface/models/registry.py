"""Loading a face model of any kind: the registry of formats, and of the models that come with the package."""

import os
from pathlib import Path

from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.files.impostors import refuse_impostor
from jaxface.models import basel, bfm, faceverse, flame, ict, native
from jaxface.models.source import FaceModelFormat, Source

_ASSETS = Path(__file__).parent / "assets"

BUILT_IN = {"anny": _ASSETS / "anny.npz"}
"""Face models that come with the package."""

FORMATS: dict[str, FaceModelFormat] = {
    "jaxface": native.FILE,
    "3ddfa_v3": bfm.PUBLISHED_3DDFA_V3,
    "basel_2009": basel.PUBLISHED_2009,
    "basel_2017": basel.PUBLISHED_2017,
    "deep3d": bfm.PUBLISHED_DEEP3D,
    "faceverse": faceverse.PUBLISHED,
    "flame": flame.PUBLISHED,
    "ict": ict.PUBLISHED,
}
"""The formats that `load_face_model` reads. A new one is a module like theirs and a line here (docs/extending.md)."""

_WHERE_FROM = {
    "face_model.npy": "3DDFA-V3's BFM; github.com/wang-zidu/3DDFA-V3 says where to download it (assets/README.md)",
    "bfm_model_front.mat": "Deep3DFaceRecon's BFM; github.com/sicxu/Deep3DFaceRecon_pytorch makes it from the Basel "
    "Face Model 2009 (faces.dmi.unibas.ch)",
    "01_morphablemodel.mat": "the Basel Face Model 2009; register at faces.dmi.unibas.ch to download it",
    "model2017": "the Basel Face Model 2017; register at faces.dmi.unibas.ch to download it",
    "faceverse": "a FaceVerse model; github.com/LizhenWangT/FaceVerse says where to download it",
    "generic_model.pkl": "FLAME; register at flame.is.tue.mpg.de to download it",
    "flame": "FLAME; register at flame.is.tue.mpg.de to download it",
    "facexmodel": "ICT-FaceKit's light face model; it is a folder of github.com/ICT-VGL/ICT-FaceKit",
}
"""How well-known files begin (in lower case), and where they come from: licences forbid to ship them."""


def load_face_model(name_or_path: str | os.PathLike[str]) -> FaceModel:
    """Loads a face model: a built-in one ("anny"), or a file or folder, recognised by its content.

    Read are the formats of `FORMATS`: jaxface's own .npz and .safetensors, 3DDFA-V3's face_model.npy,
    Deep3DFaceRecon's BFM_model_front.mat, Basel's 01_MorphableModel.mat and model2017-*.h5, FaceVerse's .npy (v0 to
    v4), FLAME's .pkl and ICT-FaceKit's folder FaceXModel; see the modules of `jaxface.models` for what they make of a
    file. Nothing in a file can run.

    Arrays are NumPy's, float32 and int32, some of them read-only; shapes in model units (10 cm). See FaceModel for
    their layout. Not every file has all parts, landmarks or colours.

    Raises:
        InputError: when the name is unknown or the file cannot be used; the message names file and key.
    """
    name = str(name_or_path)
    path = BUILT_IN.get(name, Path(name_or_path))
    if not path.is_file() and not (path.is_dir() and name):
        raise InputError(_missing(path, name))
    refuse_impostor(path)
    source = Source(path)
    for file_format in FORMATS.values():
        if file_format.recognizes(source):
            return file_format.read(source)
    if path.is_dir():
        raise InputError(f"unknown face model {name!r}: the folder holds none; {_known()}")
    raise InputError(
        f"{path} is not a jaxface face model, nor another that is known{_holds(source.content)}: {_known()}"
    )


def _holds(content: object) -> str:
    if content is None:
        return ""
    return f" (it holds {sorted(map(str, content))[:12] if isinstance(content, dict) else 'something else'})"


def _missing(path: Path, name: str) -> str:
    source = next((text for start, text in _WHERE_FROM.items() if path.name.lower().startswith(start)), "")
    if source and (path.suffix or "/" in name):
        return f"no face-model file at {path}: this is the name of {source}; put it there, or give the path of yours"
    if path.suffix or "/" in name:
        return f"no face-model file at {path}"
    return f"unknown face model {name!r}: {_known()}"


def _known() -> str:
    told = ", ".join(one.told for one in FORMATS.values())
    return f"give the name of a built-in one ({', '.join(BUILT_IN)}) or the path of {told}"
