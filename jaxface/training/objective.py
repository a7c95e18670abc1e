"""The training objective: the weighted sum of loss terms on one batch of predicted coefficient vectors."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients
from jaxface.core.face_models import FaceModel
from jaxface.losses import DLIB_CHIP, ChipTemplate
from jaxface.losses.pixel_prdl import ANCHOR_STRIDE
from jaxface.networks.people_answer import PeopleAnswer, vector_of
from jaxface.training.terms import TERMS, Prediction

Batch = Mapping[str, Array | np.ndarray]


def total_loss(
    model: FaceModel,
    answer: Float[Array, "B K"] | PeopleAnswer,
    batch: Batch,
    camera: Camera,
    *,
    anchor_stride: int = ANCHOR_STRIDE,
    prdl_every: int = 1,
    features: Callable[[Float[Array, "B C C 3"]], Float[Array, "B F"]] | None = None,
    chip: ChipTemplate = DLIB_CHIP,
    **weights: float,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Weighted sum of the losses (3DDFA-V3, section 3.3), and each of them before weighting; means over the batch.

    A term of weight 0 is not computed, and the faces are only drawn for the terms that compare pictures.

    Args:
        model: the face model.
        answer: of the encoder: [B, K] predicted coefficients, or more.
        batch: samples stacked as in photos/samples.py; the side S of the crops is that of `camera`.
        camera: the camera of the S x S crops, `Camera().resized(S)`.
        anchor_stride: PRDL's anchors lie on every n-th pixel in x and y.
        prdl_every: PRDL on pixels looks at every n-th sample of the batch alone, which costs an n-th. Each of several
            devices looks at every n-th of its own, and at one at least.
        features: face-recognition network from chips in [0, 1] to feature vectors, such as a
            `networks.face_recognition.FaceRecognizer`; needed for `perceptual`.
        chip: how the network's input is cut out.
        weights: of the terms in `terms.TERMS`, by their names there; by default the paper's.

    Returns:
        The loss, and a dict of the unweighted terms under their names.

    Raises:
        ValueError: for a weight of an unknown term, or when `perceptual` is positive and `features` is not given.
    """
    if unknown := sorted(weights.keys() - TERMS.keys()):
        raise ValueError(f"unknown loss terms {unknown}: there are {', '.join(TERMS)}")
    coefficients = Coefficients.from_vector(vector_of(answer), model)
    more = answer if isinstance(answer, PeopleAnswer) else None
    prediction = Prediction(model, coefficients, batch, camera, anchor_stride, prdl_every, features, chip, more)
    loss, means = jnp.zeros(()), {}
    for name, term in TERMS.items():
        weight = weights.get(name, term.weight)
        if weight != 0:
            means[name] = term.function(prediction).mean()
            loss = loss + weight * means[name]
    return loss, means
