"""The expression basis of a face model as blendshapes, which viewers and editors can move."""

import dataclasses

import numpy as np
from jaxtyping import Array, Float

from jaxface.core.coefficients import joint_numbers
from jaxface.core.face_models import FaceModel


@dataclasses.dataclass(frozen=True)
class Blendshapes:
    """What the linear expression coefficients of a face model do.

    Attributes:
        names: of the targets, such as ARKit's "jawOpen"; "expression_0", ... for a model that names none.
        deltas: [V, 3, Ke] what each adds to the vertices at weight 1, in model units.
        limits: the weights between which faces look human, see `FaceModel.expression_bounds`.
    """

    names: tuple[str, ...]
    deltas: Float[np.ndarray, "V 3 E"]
    limits: tuple[float, float]


def expression_blendshapes(model: FaceModel) -> Blendshapes:
    """The blendshapes of a face model.

    The axis-angle numbers of a model with joints (FLAME's jaw and eyeballs) have no blendshape, since what they do is
    not linear; they stay as they are in the shape that the others are added to.
    """
    return Blendshapes(model.expression_labels, np.asarray(model.expression_basis), model.expression_bounds)


def blendshape_weights(model: FaceModel, expression: Float[Array | np.ndarray, "E"]) -> Float[np.ndarray, "Ke"]:
    """The expression coefficients of one face without the numbers of joints."""
    values = np.asarray(expression, np.float32)
    return values[: len(values) - joint_numbers(model)]
