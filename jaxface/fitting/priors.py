"""What a coefficient may be before a photo was seen: where it lies, how far it strays, where it must stop."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxface.core.coefficients import joint_numbers, vector_sizes
from jaxface.core.face_models import FaceModel
from jaxface.core.skinning import ANGLE_DEVIATION, ANGLE_LIMIT


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prior:
    """A normal distribution with hard bounds for each number of a coefficient vector.

    Attributes:
        deviation: [K] standard deviation; the mean is zero. Infinite for pose and light, which are free.
        lower: [K] smallest value.
        upper: [K] largest value.
    """

    deviation: Float[Array | np.ndarray, "K"]
    lower: Float[Array | np.ndarray, "K"]
    upper: Float[Array | np.ndarray, "K"]


def coefficient_prior(model: FaceModel, *, expression_units: bool) -> Prior:
    """The prior of `model`'s coefficient vectors.

    Args:
        model: the face model.
        expression_units: True where an expression coefficient is the share of an artist's unit such as "jawOpen", 0 for
            none and 1 for all of it; False where it is a standard normal number like the others.
    """
    ranges = {
        "identity": (1.0, -3.0, 3.0),
        "expression": (0.35, -0.1, 1.1) if expression_units else (1.0, -3.0, 3.0),
        "albedo": (1.0, -3.0, 3.0),
        "angles": (np.inf, -np.pi, np.pi),
        "light": (np.inf, -np.inf, np.inf),
        "translation": (np.inf, -np.inf, np.inf),
    }
    sizes = vector_sizes(model)
    columns = [np.repeat(np.array(column, np.float32), sizes) for column in zip(*ranges.values(), strict=True)]
    joints = slice(sum(sizes[:2]) - joint_numbers(model), sum(sizes[:2]))
    for column, value in zip(columns, (ANGLE_DEVIATION, -ANGLE_LIMIT, ANGLE_LIMIT), strict=True):
        column[joints] = value
    return Prior(*columns)
