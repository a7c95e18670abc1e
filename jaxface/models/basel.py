"""The Basel Face Model as its makers ship it: 2009 in a MATLAB file, 2017 and 2019 in HDF5.

    01_MorphableModel.mat       2009: 53,490 vertices, 199 identity and 199 albedo coefficients, no expressions
    model2017-*.h5, model2019-* 53,149, 28,588 ("face12") or more vertices, 199, 100 and 199

Both have x right in the picture, y up, z towards the viewer, here in model units (10 cm), with bases times their
standard deviations. They name no landmarks and no parts; `jaxface annotate` finds them.
"""

import numpy as np
from jaxtyping import Float, Int32

from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.files.hdf5 import MAGIC, read_hdf5
from jaxface.files.matlab import read_matlab
from jaxface.models.checks import Content, check_face_model
from jaxface.models.source import FaceModelFormat

KEYS_2009 = ("shapeMU", "shapePC", "shapeEV", "texMU", "texPC", "texEV", "tl")
"""What is read of `01_MorphableModel.mat`."""

_MODELS = ("shape", "expression", "color")

KEYS_2017 = (
    *(f"{model}/model/{name}" for model in _MODELS for name in ("mean", "pcaBasis", "pcaVariance")),
    "shape/representer/cells",
)
"""What is read of an HDF5 file."""

_MICROMETRES, _MILLIMETRES = 1e-5, 1e-2

_BYTES = 1 / 255


def read_basel_2009(content: Content) -> FaceModel:
    """Makes a face model of `01_MorphableModel.mat` (Paysan et al. 2009), whose indices count from 1.

    Shapes are in micrometres; `shapeEV` and `texEV` are standard deviations.

    Args:
        content: the arrays KEYS_2009 of the file.

    Raises:
        InputError: when a key is missing or does not fit.
    """
    mean_shape = content.vertices("shapeMU", scale=_MICROMETRES)
    count = len(mean_shape)
    identity, albedo = (_basis(content, f"{name}PC", f"{name}EV", count=count) for name in ("shape", "tex"))
    model = FaceModel(
        mean_shape=mean_shape,
        identity_basis=identity * np.float32(_MICROMETRES),
        expression_basis=np.zeros((count, 3, 0), np.float32),
        mean_albedo=content.vertices("texMU", count=count, scale=_BYTES),
        albedo_basis=albedo * np.float32(_BYTES),
        triangles=_outwards(content.triangles("tl", count=count, first=1), mean_shape),
        parts={},
        landmarks={},
        name="Basel 2009",
    )
    return check_face_model(model, content.path)


def read_basel_2017(content: Content) -> FaceModel:
    """Makes a face model of model2017-*.h5 (Gerig et al. 2018) or model2019-*.h5, whose indices count from 0.

    Shapes are in millimetres, colours 0 to 1; the mean expression is a part of the mean shape.

    Args:
        content: the arrays KEYS_2017 of the file.

    Raises:
        InputError: when a key is missing or does not fit.
    """
    count = len(content.vertices("shape/model/mean"))
    means = {name: content.vertices(f"{name}/model/mean", count=count) for name in _MODELS}
    bases = {
        name: _basis(content, f"{name}/model/pcaBasis", f"{name}/model/pcaVariance", count=count, variances=True)
        for name in _MODELS
    }
    unit = np.float32(_MILLIMETRES)
    mean_shape = (means["shape"] + means["expression"]) * unit
    cells = content.numbers("shape/representer/cells")
    turned = Content(content.path, {"shape/representer/cells": cells.T})
    model = FaceModel(
        mean_shape=mean_shape,
        identity_basis=bases["shape"] * unit,
        expression_basis=bases["expression"] * unit,
        mean_albedo=means["color"],
        albedo_basis=bases["color"],
        triangles=_outwards(turned.triangles("shape/representer/cells", count=count), mean_shape),
        parts={},
        landmarks={},
        name="Basel 2017",
    )
    return check_face_model(model, content.path)


def _basis(
    content: Content, key: str, deviations: str, *, count: int, variances: bool = False
) -> Float[np.ndarray, "V 3 K"]:
    """A basis times the standard deviations, or the roots of the variances, of its columns."""
    basis = content.basis(key, count=count)
    factors = content.numbers(deviations).astype(np.float32).ravel()
    if factors.size != basis.shape[-1] or not (factors >= 0).all():
        raise InputError(f"{content.path}: {deviations!r} should hold {basis.shape[-1]} numbers of 0 or more")
    scaled: np.ndarray = basis * (np.sqrt(factors) if variances else factors)
    return scaled


def _outwards(triangles: Int32[np.ndarray, "T 3"], vertices: Float[np.ndarray, "V 3"]) -> Int32[np.ndarray, "T 3"]:
    """Triangles whose corners run counterclockwise as seen from outside; editions differ in this."""
    first, second, third = (vertices[triangles[:, corner]] - vertices.mean(0)[None] for corner in range(3))
    volume = (first * np.cross(second, third)).sum(dtype=np.float64)
    return np.ascontiguousarray(triangles[:, ::-1]) if volume < 0 else triangles


PUBLISHED_2009 = FaceModelFormat(
    "Basel's 01_MorphableModel.mat",
    lambda source: "shapeMU" in source.variables,
    lambda source: read_basel_2009(Content(source.path, read_matlab(source.path, KEYS_2009))),
)
"""The edition of 2009, as the registry knows it."""

PUBLISHED_2017 = FaceModelFormat(
    "Basel's model2017-*.h5",
    lambda source: source.start.startswith(MAGIC),
    lambda source: read_basel_2017(Content(source.path, read_hdf5(source.path, KEYS_2017))),
)
"""The editions of 2017 and 2019, as the registry knows them."""
