"""fit_faces: coefficients of aligned crops by optimisation, from the mean face or from an encoder's answer."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from jaxface import parts
from jaxface.camera import Camera
from jaxface.coefficients import Coefficients, vector_size, vector_sizes
from jaxface.face import Face, decode_face, landmark_points
from jaxface.face_model import FaceModel
from jaxface.fitting.appearance import fit_appearance
from jaxface.fitting.landmarks import fit_landmarks
from jaxface.fitting.priors import Prior
from jaxface.losses.landmark import landmark_loss
from jaxface.losses.perceptual import cosine_feature_loss
from jaxface.losses.photometric import photometric_loss
from jaxface.networks.face_recognition import FaceRecognizer, recognition_features
from jaxface.objective import PUBLISHED_SIZE, part_loss, part_targets
from jaxface.render import interpolate, rasterize
from jaxface.step import to_float

RATES = {"identity": 0.05, "expression": 0.03, "albedo": 0.05, "angles": 0.004, "light": 0.02, "translation": 0.006}
"""Adam's step for each kind of coefficient."""

PERCEPTUAL_EVERY = 4
"""The perceptual loss costs as much as all others: only every fourth step computes it, and weighs it fourfold."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FitWeights:
    """Weights of the loss terms. Only their ratios matter.

    Against training (3DDFA-V3: 0.8e-3, 1.6e-3, 1.9, 0.2), parts, landmarks and the person count more: the prior alone
    keeps the head human.

    Attributes:
        prdl: part re-projection distance, px^2 at 224 x 224.
        landmark: landmarks, px^2 at 224 x 224.
        photometric: colour difference.
        perceptual: 1 - cosine of recognition features; needs a recognizer.
        prior: squared coefficients, in standard deviations.
    """

    prdl: float = 8e-3
    landmark: float = 5e-2
    photometric: float = 1.9
    perceptual: float = 0.5
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
    recognizer: FaceRecognizer | None = None,
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
        recognizer: network of the perceptual loss; None leaves it out.

    Returns:
        [B, K] coefficient vectors.
    """
    start = jnp.zeros((len(batch["labels"]), vector_size(model))) if initial is None else jnp.asarray(initial)
    arrays = {name: jnp.asarray(batch[name]) for name in ("image", "labels", "landmarks", "landmark_weights")}
    vector = _place(model, start, arrays, camera, prior)
    vector = _paint(model, vector, arrays, camera)
    vector = _descend(
        model,
        vector,
        arrays,
        camera,
        prior,
        weights or FitWeights(),
        recognizer,
        steps=steps,
        anchor_stride=anchor_stride,
    )
    return _paint(model, vector, arrays, camera)  # the shape has moved under the colours


@jax.jit
def _place(model, vector, batch, camera, prior):
    return fit_landmarks(model, vector, batch["landmarks"], batch["landmark_weights"], camera, prior)


@jax.jit
def _paint(model, vector, batch, camera):
    return fit_appearance(model, vector, to_float(batch["image"]), parts.face_mask(batch["labels"]), camera)


@jax.jit(static_argnames=("steps", "anchor_stride"))
def _descend(model, vector, batch, camera, prior, weights, recognizer, *, steps, anchor_stride):
    targets = part_targets(batch["labels"], anchor_stride=anchor_stride)  # once, not in every step
    image, face_mask = to_float(batch["image"]), parts.face_mask(batch["labels"])
    rates = jnp.asarray(np.repeat(np.float32(list(RATES.values())), vector_sizes(model)))
    optimizer = optax.adam(optax.cosine_decay_schedule(1.0, steps))
    person = None if recognizer is None else _features(image, batch, recognizer)

    def loss_of(vector, index):
        coefficients = Coefficients.from_vector(vector, model)
        face = decode_face(model, coefficients, camera)
        loss = weights.prior * jnp.square(vector / prior.deviation[None]).sum(-1)
        loss += weights.prdl * part_loss(model, face, targets, camera, anchor_stride=anchor_stride)
        loss += weights.landmark * _landmark_loss(model, face, coefficients, batch, camera)
        rendered, covered = _draw(model, face, camera)
        loss += weights.photometric * photometric_loss(rendered, image, face_mask & covered)
        loss = loss.sum()  # samples share nothing: each gets the gradient of its own loss
        if recognizer is not None:
            drawn = jnp.where((face_mask & covered)[..., None], rendered, image)
            slope = jax.lax.cond(index % PERCEPTUAL_EVERY == 0, perceptual_slope, jnp.zeros_like, drawn)
            loss += PERCEPTUAL_EVERY * weights.perceptual * (jax.lax.stop_gradient(slope) * drawn).sum()
        return loss

    def perceptual_slope(drawn):
        # The gradient in the picture alone: what the network computes on the way need not outlive the step's branch.
        return jax.grad(lambda drawn: cosine_feature_loss(_features(drawn, batch, recognizer), person).sum())(drawn)

    def step(state, index):
        vector, optimizer_state = state
        updates, optimizer_state = optimizer.update(jax.grad(loss_of)(vector, index), optimizer_state)
        vector = jnp.clip(vector + rates[None] * updates, prior.lower[None], prior.upper[None])
        return (vector, optimizer_state), None

    return jax.lax.scan(step, (vector, optimizer.init(vector)), jnp.arange(steps))[0][0]


def _features(image: Float[Array, "B H W 3"], batch, recognizer: FaceRecognizer) -> Float[Array, "B F"]:
    return recognition_features(image, batch["landmarks"], recognizer, weights=batch["landmark_weights"])


def _landmark_loss(model: FaceModel, face: Face, coefficients: Coefficients, batch, camera) -> Float[Array, "B"]:
    points = landmark_points(model, face.points, coefficients.angles[:, 2])
    loss = landmark_loss(points, batch["landmarks"], weights=batch["landmark_weights"])
    return loss * (PUBLISHED_SIZE / camera.image_size[1]) ** 2


def _draw(model: FaceModel, face: Face, camera: Camera) -> tuple[Float[Array, "B H W 3"], Bool[Array, "B H W"]]:
    """The face's picture and which pixels it covers."""
    fragments = rasterize(face.points, face.depth, model.triangles, image_size=camera.image_size)
    return interpolate(fragments, model.triangles, face.colors), fragments.triangle >= 0
