"""The expression basis of a face model as blendshapes, which viewers and editors can move."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float

from jaxface.core.coefficients import joint_numbers
from jaxface.core.face_models import FaceModel
from jaxface.models.native import expression_names
from jaxface.models.registry import BUILT_IN


@dataclasses.dataclass(frozen=True)
class Blendshapes:
    """What the linear expression coefficients of a face model do.

    Attributes:
        names: of the targets, such as ARKit's "jawOpen"; "expression_0", ... for a model that names none.
        deltas: [V, 3, Ke] what each adds to the vertices at weight 1, in model units.
        limits: the weights between which faces look human: 0 and 1 for an artist's named units, -3 and 3 standard
            deviations for components without names.
    """

    names: tuple[str, ...]
    deltas: Float[np.ndarray, "V 3 E"]
    limits: tuple[float, float]


def expression_blendshapes(model: FaceModel, *, names: Sequence[str] = ()) -> Blendshapes:
    """The blendshapes of a face model.

    The axis-angle numbers of a model with joints (FLAME's jaw and eyeballs) have no blendshape, since what they do is
    not linear; they stay as they are in the shape that the others are added to.

    Args:
        model: the face model.
        names: of its expression coefficients; those of a built-in model are known.

    Raises:
        ValueError: when there are names, but not one for each coefficient.
    """
    deltas = np.asarray(model.expression_basis)
    count = deltas.shape[-1]
    known = _built_in_names(model.name)
    names = tuple(names) or (known if len(known) == count else ())
    if not names:
        return Blendshapes(tuple(f"expression_{index}" for index in range(count)), deltas, (-3.0, 3.0))
    if len(names) != count:
        raise ValueError(f"{len(names)} names for the {count} expression coefficients of {model.name!r}")
    return Blendshapes(names, deltas, (0.0, 1.0))


def blendshape_weights(model: FaceModel, expression: Float[Array | np.ndarray, "E"]) -> Float[np.ndarray, "Ke"]:
    """The expression coefficients of one face without the numbers of joints."""
    values = np.asarray(expression, np.float32)
    return values[: len(values) - joint_numbers(model)]


@functools.cache
def _built_in_names(name: str) -> tuple[str, ...]:
    return expression_names(BUILT_IN[name]) if name in BUILT_IN else ()
