"""What a coefficient may be before a photo was seen: where it lies, how far it strays, where it must stop."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxface.core.coefficients import joint_numbers, vector_columns, vector_sizes
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


def coefficient_prior(model: FaceModel) -> Prior:
    """The prior of `model`'s coefficient vectors.

    An expression coefficient that is the share of an artist's unit such as "jawOpen" is mostly small, and may go a
    tenth beyond its bounds.
    """
    low, high = model.expression_bounds
    ranges = {
        "identity": (1.0, -3.0, 3.0),
        "expression": (0.35 * high, low - 0.1, high + 0.1) if model.has_expression_units else (1.0, low, high),
        "albedo": (1.0, -3.0, 3.0),
        "angles": (np.inf, -np.pi, np.pi),
        "light": (np.inf, -np.inf, np.inf),
        "translation": (np.inf, -np.inf, np.inf),
    }
    sizes = vector_sizes(model)
    columns = [np.repeat(np.array(column, np.float32), sizes) for column in zip(*ranges.values(), strict=True)]
    end = vector_columns(model)["expression"].stop
    joints = slice(end - joint_numbers(model), end)
    for column, value in zip(columns, (ANGLE_DEVIATION, -ANGLE_LIMIT, ANGLE_LIMIT), strict=True):
        column[joints] = value
    return Prior(*columns)
