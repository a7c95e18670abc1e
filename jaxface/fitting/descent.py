"""fit_faces: coefficients of aligned crops by optimisation, from the mean face or from an encoder's answer."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Shaped

from jaxface.core import parts
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients, column_mask, vector_size, vector_sizes
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import Face, decode_face, landmark_points
from jaxface.core.typed_jit import typed_jit
from jaxface.core.units import CROP_SIZE, to_float
from jaxface.fitting.appearance import fit_appearance
from jaxface.fitting.landmarks import fit_landmarks, landmark_residuals
from jaxface.fitting.occlusion import hidden_pixels
from jaxface.fitting.priors import Prior
from jaxface.losses.faces import part_loss, part_targets
from jaxface.losses.perceptual import cosine_feature_loss
from jaxface.losses.photometric import photometric_loss
from jaxface.losses.pixel_prdl import ANCHOR_STRIDE
from jaxface.networks.face_recognition import FaceRecognizer, recognition_features
from jaxface.render import render_face

Batch = Mapping[str, Shaped[Array, "B ..."]]

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
        prdl: part re-projection distance on pixels, px at 224 x 224.
        landmark: landmarks, squared standard deviations of a detector; 1 px at 224 x 224 inside the face.
        photometric: colour difference.
        perceptual: 1 - cosine of recognition features; needs a recognizer.
        prior: squared coefficients, in standard deviations.
    """

    prdl: float = 2e-2
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
    anchor_stride: int = ANCHOR_STRIDE,
    recognizer: FaceRecognizer | None = None,
    same_person: Float[Array | np.ndarray, "B"] | None = None,
    held: Bool[Array | np.ndarray, "K"] | None = None,
) -> Float[Array, "B K"]:
    """Fits the face model to aligned crops (analysis by synthesis with the losses of 3DDFA-V3).

    Landmarks place and shape the face (Levenberg-Marquardt), least squares light and colour it, then gradient descent
    on PRDL, landmarks, colours and the prior moves all coefficients together. Compiled once per size of batch and
    picture.

    Args:
        model: the face model; needs the landmarks "68".
        batch: samples stacked as in photos/samples.py: image, labels, landmarks, landmark_weights.
        camera: of the S x S crops.
        prior: of the model's coefficients, see `coefficient_prior`.
        initial: vectors to start from, such as an encoder's; the mean face by default.
        weights: of the loss terms.
        steps: of Adam; its rate falls to zero along a cosine.
        anchor_stride: PRDL's anchors lie on every n-th pixel in x and y.
        recognizer: network of the perceptual loss; None leaves it out.
        same_person: for crops that all show one person, what each counts (1, or 0 for padding): they share identity and
            albedo. None takes every crop for a person of its own.
        held: coefficients that stay as in `initial`, such as the identity of a person who is tracked; none by default.
            If it holds the albedo, it has to hold all of it.

    Returns:
        [B, K] coefficient vectors.
    """
    start = jnp.zeros((len(batch["labels"]), vector_size(model))) if initial is None else jnp.asarray(initial)
    arrays = {name: jnp.asarray(batch[name]) for name in ("image", "labels", "landmarks", "landmark_weights")}
    held = jnp.zeros(start.shape[-1], bool) if held is None else jnp.asarray(held)
    identity = jnp.asarray(column_mask(model, "identity"))
    vector = _place(model, start, arrays, camera, prior, held)
    if same_person is not None and not held[identity].all():  # what is held was placed above
        vector = _shared(vector, jnp.asarray(same_person), identity & ~held)
        vector = _place(model, vector, arrays, camera, prior, held | identity)
    vector = _paint_all(model, vector, arrays, camera, same_person, held)
    vector = _descend(
        model,
        vector,
        arrays,
        camera,
        prior,
        weights or FitWeights(),
        recognizer,
        same_person,
        held,
        steps=steps,
        anchor_stride=anchor_stride,
    )
    return _paint_all(model, vector, arrays, camera, same_person, held)  # the shape has moved under the colours


def _shared(
    vector: Float[Array, "B K"], same_person: Float[Array | np.ndarray, "B"], columns: Bool[Array, "K"]
) -> Float[Array, "B K"]:
    """Gives all rows the mean of the rows that count, in some columns."""
    mean = jnp.einsum("b,bk->k", same_person / same_person.sum(), vector, precision=jax.lax.Precision.HIGHEST)
    return jnp.where(columns[None], mean[None], vector)


@typed_jit
def _place(
    model: FaceModel, vector: Float[Array, "B K"], batch: Batch, camera: Camera, prior: Prior, held: Bool[Array, "K"]
) -> Float[Array, "B K"]:
    return fit_landmarks(model, vector, batch["landmarks"], batch["landmark_weights"], camera, prior, held=held)


def _paint_all(
    model: FaceModel,
    vector: Float[Array, "B K"],
    batch: Batch,
    camera: Camera,
    same_person: Float[Array | np.ndarray, "B"] | None,
    held: Bool[Array, "K"],
) -> Float[Array, "B K"]:
    albedo = jnp.asarray(column_mask(model, "albedo"))
    vector = _paint(model, vector, batch, camera, (held & albedo).any())
    if same_person is None:
        return vector
    return _paint(model, _shared(vector, jnp.asarray(same_person), albedo & ~held), batch, camera, True)


@typed_jit
def _paint(
    model: FaceModel, vector: Float[Array, "B K"], batch: Batch, camera: Camera, albedo_held: bool | Bool[Array, ""]
) -> Float[Array, "B K"]:
    image, face_mask = to_float(batch["image"]), parts.face_mask(batch["labels"])
    return fit_appearance(model, vector, image, face_mask, camera, albedo_held=albedo_held)


@typed_jit(static_argnames=("steps", "anchor_stride"))
def _descend(
    model: FaceModel,
    vector: Float[Array, "B K"],
    batch: Batch,
    camera: Camera,
    prior: Prior,
    weights: FitWeights,
    recognizer: FaceRecognizer | None,
    same_person: Float[Array | np.ndarray, "B"] | None,
    held: Bool[Array, "K"],
    *,
    steps: int,
    anchor_stride: int,
) -> Float[Array, "B K"]:
    targets = part_targets(batch["labels"], anchor_stride=anchor_stride)  # once, not in every step
    image, face_mask = to_float(batch["image"]), parts.face_mask(batch["labels"])
    hidden = hidden_pixels(batch["labels"], batch["landmarks"], batch["landmark_weights"])
    rates = jnp.asarray(np.repeat(np.array(list(RATES.values()), np.float32), vector_sizes(model)))
    optimizer = optax.adam(optax.cosine_decay_schedule(1.0, steps))
    person = None if recognizer is None else _features(image, batch, recognizer)
    # The prior of what all share counts once: in the mean of the gradients below, each row's share of it.
    shared = jnp.asarray(column_mask(model, "identity", "albedo"))
    repeats = 1.0 if same_person is None else jnp.where(shared, 1 / same_person.sum(), 1.0)[None]

    def loss_of(vector: Float[Array, "B K"], index: Int[Array, ""]) -> Float[Array, ""]:
        coefficients = Coefficients.from_vector(vector, model)
        face = decode_face(model, coefficients, camera)
        loss = weights.prior * (repeats * jnp.square(vector / prior.deviation[None])).sum(-1)
        loss += weights.landmark * _landmark_loss(model, face, coefficients, batch, camera)
        view = render_face(face, model.triangles, image_size=camera.image_size)
        rendered, covered = view.draw(face.colors), view.seen
        loss += weights.prdl * part_loss(model, face, targets, hidden=hidden, fragments=view.fragments)
        loss += weights.photometric * photometric_loss(rendered, image, face_mask & covered)
        loss = loss.sum()  # samples share nothing: each gets the gradient of its own loss
        if recognizer is not None and person is not None:
            perceptual_slope = functools.partial(_perceptual_slope, recognizer, batch, person)
            drawn = jnp.where((face_mask & covered)[..., None], rendered, image)
            slope = jax.lax.cond(index % PERCEPTUAL_EVERY == 0, perceptual_slope, jnp.zeros_like, drawn)
            loss += PERCEPTUAL_EVERY * weights.perceptual * (jax.lax.stop_gradient(slope) * drawn).sum()
        return loss

    def step(
        state: tuple[Float[Array, "B K"], optax.OptState], index: Int[Array, ""]
    ) -> tuple[tuple[Float[Array, "B K"], optax.OptState], None]:
        vector, optimizer_state = state
        gradient = jnp.where(held[None], 0.0, jax.grad(loss_of)(vector, index))
        if same_person is not None:
            gradient = _shared(gradient, same_person, shared)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state)
        vector = jnp.clip(vector + rates[None] * updates, prior.lower[None], prior.upper[None])
        return (vector, optimizer_state), None

    return jax.lax.scan(step, (vector, optimizer.init(vector)), jnp.arange(steps))[0][0]


def _perceptual_slope(
    recognizer: FaceRecognizer, batch: Batch, person: Float[Array, "B F"], drawn: Float[Array, "B H W 3"]
) -> Float[Array, "B H W 3"]:
    # The gradient in the picture alone: what the network computes on the way need not outlive the step's branch.
    return jax.grad(lambda drawn: cosine_feature_loss(_features(drawn, batch, recognizer), person).sum())(drawn)


def _features(image: Float[Array, "B H W 3"], batch: Batch, recognizer: FaceRecognizer) -> Float[Array, "B F"]:
    return recognition_features(image, batch["landmarks"], recognizer, weights=batch["landmark_weights"])


def _landmark_loss(
    model: FaceModel, face: Face, coefficients: Coefficients, batch: Batch, camera: Camera
) -> Float[Array, "B"]:
    points = landmark_points(model, face.points, coefficients.angles[:, 2])
    pixel = camera.image_size[1] / CROP_SIZE
    residuals = jax.vmap(functools.partial(landmark_residuals, pixel=pixel))
    return jnp.square(residuals(points, batch["landmarks"], batch["landmark_weights"])).sum((1, 2)) / points.shape[1]
