"""What a network of drawn people says: a plain structure of arrays, which needs no Flax to be read."""

from typing import NamedTuple

from jaxtyping import Array, Float


class PointsFound(NamedTuple):
    """What a network says of P points.

    Attributes:
        position: [B, P, 2] (x, y) as shares of the picture's sides: 0 is the left or upper edge, 1 the other.
        whitening: [B, P, 3] numbers (a, b, c) of the triangular matrix W = [[a, 0], [c, b]] in 1 / share:
            W (x - position) is standard normal, and the covariance (W^T W)^-1.
        visibility: [B, P] log odds of being seen.
    """

    position: Float[Array, "B P 2"]
    whitening: Float[Array, "B P 3"]
    visibility: Float[Array, "B P"]


class PeopleAnswer(NamedTuple):
    """What the network says of a batch of pictures.

    Attributes:
        vector: [B, K] coefficients, as `Coefficients.from_vector` takes them.
        log_spread: [B, K] logarithm of the standard deviation of each coefficient's error.
        logits: [B, H/2, W/2, L] of `parts.CLASSES`, each for 2 x 2 pixels; `pixel_classes` makes labels of them.
        points: ibug's 68 landmarks, then the points of `core.surface_points`.
    """

    vector: Float[Array, "B K"]
    log_spread: Float[Array, "B K"]
    logits: Float[Array, "B h w L"]
    points: PointsFound


def vector_of(answer: PeopleAnswer | Float[Array, "B K"]) -> Float[Array, "B K"]:
    """The coefficients of any encoder's answer."""
    return answer.vector if isinstance(answer, PeopleAnswer) else answer
