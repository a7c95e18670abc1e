"""What a coefficient may be before a photo was seen: where it lies, how far it strays, where it must stop."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxface.core.coefficients import joint_numbers, vector_columns, vector_sizes
from jaxface.core.face_models import FaceModel
from jaxface.core.skinning import ANGLE_DEVIATION, ANGLE_LIMIT

DEPTH_DEVIATION = 1.5
"""Of a translation's depth, in model units at the usual camera's distance of 10: alignment is off by as much."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prior:
    """A normal distribution with hard bounds for each number of a coefficient vector.

    Attributes:
        mean: [K] zero, but for the identity of people whose mean is not the face model's.
        deviation: [K] standard deviation. Infinite for pose and light, which are free, but for the depth: photos were
            aligned.
        lower: [K] smallest value.
        upper: [K] largest value.
    """

    mean: Float[Array | np.ndarray, "K"]
    deviation: Float[Array | np.ndarray, "K"]
    lower: Float[Array | np.ndarray, "K"]
    upper: Float[Array | np.ndarray, "K"]


def coefficient_prior(model: FaceModel, *, identity_mean: Float[np.ndarray, "Ki"] | None = None) -> Prior:
    """The prior of `model`'s coefficient vectors.

    An expression coefficient that is the share of an artist's unit such as "jawOpen" is mostly small, and may go a
    tenth beyond its bounds.

    Args:
        model: the face model.
        identity_mean: of people, in the model's identity coefficients; zero by default.
    """
    low, high = model.expression_bounds
    ranges = {
        "identity": (1.0, -3.0, 3.0),
        "expression": (0.35 * high, low - 0.1, high + 0.1) if model.has_expression_units else (1.0, low, high),
        "albedo": (1.0, -3.0, 3.0),
        "angles": (np.inf, -np.pi, np.pi),
        "light": (np.inf, -np.inf, np.inf),
        "translation": (np.array([np.inf, np.inf, DEPTH_DEVIATION]), -np.inf, np.inf),
    }
    sizes = vector_sizes(model)
    columns = [
        np.concatenate([np.broadcast_to(np.float32(value), size) for value, size in zip(column, sizes, strict=True)])
        for column in zip(*ranges.values(), strict=True)
    ]
    mean = np.zeros(sum(sizes), np.float32)
    if identity_mean is not None:
        mean[vector_columns(model)["identity"]] = identity_mean
    end = vector_columns(model)["expression"].stop
    joints = slice(end - joint_numbers(model), end)
    for column, value in zip(columns, (ANGLE_DEVIATION, -ANGLE_LIMIT, ANGLE_LIMIT), strict=True):
        column[joints] = value
    return Prior(mean, *columns)
