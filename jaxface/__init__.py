"""jaxface: 3D face reconstruction in JAX, guided by the parts of a face.

    import jaxface
    jaxface.fit_photo("portrait.jpg").save("results")

    model = jaxface.load_face_model("anny")
    face = jaxface.decode_face(model, jaxface.Coefficients.zeros(model), jaxface.Camera())

`jaxface.losses` and `jaxface.render` can be imported alone: they need jax and numpy only.
"""

import importlib

from jaxface.core.version import __version__ as __version__

_HOME = {
    "Camera": "jaxface.core.cameras",
    "Coefficients": "jaxface.core.coefficients",
    "Face": "jaxface.core.faces",
    "FaceModel": "jaxface.core.face_models",
    "decode_face": "jaxface.core.faces",
    "fit_photo": "jaxface.results.reconstruction",
    "load_face_model": "jaxface.models",
}
_SUBPACKAGES = ("losses", "render")

__all__ = [*_HOME, *_SUBPACKAGES]


def __getattr__(name: str):
    # Lazy, so that `import jaxface.losses` does not drag Flax in (PEP 562).
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"jaxface.{name}")
    raise AttributeError(f"module 'jaxface' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
