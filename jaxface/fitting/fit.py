"""fit_faces: coefficients of aligned crops by optimisation, from the mean face or from an encoder's answer."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxface import parts
from jaxface.camera import Camera
from jaxface.coefficients import Coefficients, vector_size, vector_sizes
from jaxface.face import Face, decode_face, landmark_points
from jaxface.face_model import FaceModel
from jaxface.fitting.appearance import fit_appearance
from jaxface.fitting.landmarks import fit_landmarks
from jaxface.fitting.priors import Prior
from jaxface.losses.landmark import landmark_loss
from jaxface.losses.photometric import photometric_loss
from jaxface.objective import PUBLISHED_SIZE, part_loss, part_targets
from jaxface.render import interpolate, rasterize
from jaxface.step import to_float

RATES = {"identity": 0.05, "expression": 0.03, "albedo": 0.05, "angles": 0.004, "light": 0.02, "translation": 0.006}
"""Adam's step for each kind of coefficient."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FitWeights:
    """Weights of the loss terms. Only their ratios matter.

    Against training (3DDFA-V3: 0.8e-3, 1.6e-3, 1.9), parts and landmarks count more: the prior alone keeps the head
    human.

    Attributes:
        prdl: part re-projection distance, px^2 at 224 x 224.
        landmark: landmarks, px^2 at 224 x 224.
        photometric: colour difference.
        prior: squared coefficients, in standard deviations.
    """

    prdl: float = 8e-3
    landmark: float = 5e-2
    photometric: float = 1.9
    prior: float = 1e-3


def fit_faces(
    model: FaceModel,
    batch: Mapping[str, np.ndarray],
    camera: Camera,
    prior: Prior,
    *,
    initial: Float[Array | np.ndarray, "B K"] | None = None,
    weights: FitWeights | None = None,
    steps: int = 80,
    anchor_stride: int = 8,
) -> Float[Array, "B K"]:
    """Fits the face model to aligned crops (analysis by synthesis with the losses of 3DDFA-V3).

    Landmarks place and shape the face (Levenberg-Marquardt), least squares light and colour it, then gradient descent
    on PRDL, landmarks, colours and the prior moves all coefficients together. Compiled once per size of batch and
    picture.

    Args:
        model: the face model; needs the landmarks "68".
        batch: samples stacked as in data/sample.py: image, labels, landmarks, landmark_weights.
        camera: of the S x S crops.
        prior: of the model's coefficients, see `coefficient_prior`.
        initial: vectors to start from, such as an encoder's; the mean face by default.
        weights: of the loss terms.
        steps: of Adam; its rate falls to zero along a cosine.
        anchor_stride: PRDL's anchors lie on every n-th pixel in x and y.

    Returns:
        [B, K] coefficient vectors.
    """
    start = jnp.zeros((len(batch["labels"]), vector_size(model))) if initial is None else jnp.asarray(initial)
    arrays = {name: jnp.asarray(batch[name]) for name in ("image", "labels", "landmarks", "landmark_weights")}
    vector = _place(model, start, arrays, camera, prior)
    vector = _paint(model, vector, arrays, camera)
    vector = _descend(
        model, vector, arrays, camera, prior, weights or FitWeights(), steps=steps, anchor_stride=anchor_stride
    )
    return _paint(model, vector, arrays, camera)  # the shape has moved under the colours


@jax.jit
def _place(model, vector, batch, camera, prior):
    return fit_landmarks(model, vector, batch["landmarks"], batch["landmark_weights"], camera, prior)


@jax.jit
def _paint(model, vector, batch, camera):
    return fit_appearance(model, vector, to_float(batch["image"]), parts.face_mask(batch["labels"]), camera)


@jax.jit(static_argnames=("steps", "anchor_stride"))
def _descend(model, vector, batch, camera, prior, weights, *, steps, anchor_stride):
    targets = part_targets(batch["labels"], anchor_stride=anchor_stride)  # once, not in every step
    rates = jnp.asarray(np.repeat(np.float32(list(RATES.values())), vector_sizes(model)))
    optimizer = optax.adam(optax.cosine_decay_schedule(1.0, steps))

    def loss_of(vector):
        coefficients = Coefficients.from_vector(vector, model)
        face = decode_face(model, coefficients, camera)
        loss = weights.prior * jnp.square(vector / prior.deviation[None]).sum(-1)
        loss += weights.prdl * part_loss(model, face, targets, camera, anchor_stride=anchor_stride)
        loss += weights.landmark * _landmark_loss(model, face, coefficients, batch, camera)
        loss += weights.photometric * _color_loss(model, face, batch, camera)
        return loss.sum()  # samples share nothing: each gets the gradient of its own loss

    def step(state, _):
        vector, optimizer_state = state
        updates, optimizer_state = optimizer.update(jax.grad(loss_of)(vector), optimizer_state)
        vector = jnp.clip(vector + rates[None] * updates, prior.lower[None], prior.upper[None])
        return (vector, optimizer_state), None

    return jax.lax.scan(step, (vector, optimizer.init(vector)), length=steps)[0][0]


def _landmark_loss(model: FaceModel, face: Face, coefficients: Coefficients, batch, camera) -> Float[Array, "B"]:
    points = landmark_points(model, face.points, coefficients.angles[:, 2])
    loss = landmark_loss(points, batch["landmarks"], weights=batch["landmark_weights"])
    return loss * (PUBLISHED_SIZE / camera.image_size[1]) ** 2


def _color_loss(model: FaceModel, face: Face, batch, camera: Camera) -> Float[Array, "B"]:
    fragments = rasterize(face.points, face.depth, model.triangles, image_size=camera.image_size)
    rendered = interpolate(fragments, model.triangles, face.colors)
    drawn_face = parts.face_mask(batch["labels"]) & (fragments.triangle >= 0)
    return photometric_loss(rendered, to_float(batch["image"]), drawn_face)
