"""fit_faces: coefficients of aligned crops, first as the points of a detector say, then as parts and colours add."""

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
from jaxface.core.faces import decode_face
from jaxface.core.typed_jit import typed_jit
from jaxface.core.units import to_float
from jaxface.fitting.appearance import fit_appearance
from jaxface.fitting.estimate import (
    DISTANCE_DEVIATION,
    KNOWN_DEVIATION,
    Estimate,
    distance_prior,
    estimate_faces,
    estimate_person,
)
from jaxface.fitting.evidence import Evidence, evidence_for
from jaxface.fitting.first_look import FirstLook
from jaxface.fitting.occlusion import hidden_pixels
from jaxface.fitting.posterior import posterior_of, shape_covariance, spread_of
from jaxface.fitting.priors import Prior
from jaxface.losses.faces import part_loss, part_targets
from jaxface.losses.perceptual import cosine_feature_loss
from jaxface.losses.photometric import photometric_loss
from jaxface.losses.pixel_prdl import ANCHOR_STRIDE
from jaxface.networks.face_recognition import FaceRecognizer, recognition_features
from jaxface.render import render_face

Batch = Mapping[str, Shaped[Array, "B ..."]]
State = tuple[Float[Array, "B C"], Float[Array, "B A"]]
"""Directions of the posterior, in its standard deviations; albedo and light."""

WEIGHTS_OF = {"points": "point_weights", "landmarks": "landmark_weights"}
"""The entries of a sample that are evidence, and what they weigh."""

RATES = {"identity": 0.05, "expression": 0.03, "albedo": 0.05, "angles": 0.004, "light": 0.02, "translation": 0.006}
"""Adam's step for each kind of coefficient; for those of the shape, where nothing is known of a posterior."""

POSTERIOR_RATE = 0.05
"""Adam's step along each direction of the posterior, in its standard deviations."""

PERCEPTUAL_EVERY = 4
"""The perceptual loss costs as much as all others: only every fourth step computes it, and weighs it fourfold."""

DETECTORS_OUTLINE = {"skin": 0.0}
"""The outer border of the skin is where a detector draws its oval, not where the face ends: it weighs nothing."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FitWeights:
    """Weights of the loss terms of the descent. Only their ratios matter.

    Attributes:
        posterior: squared standard deviations from the most probable face given the detector's points.
        prdl: part re-projection distance on pixels, px at 224 x 224.
        photometric: colour difference.
        perceptual: 1 - cosine of recognition features; needs a recognizer.
        prior: squared coefficients of the albedo, in standard deviations.
    """

    posterior: float = 2e-3
    prdl: float = 2e-3
    photometric: float = 1.9
    perceptual: float = 0.5
    prior: float = 1e-3


@dataclasses.dataclass(frozen=True)
class SolvedFace:
    """One fitted face.

    Attributes:
        vector: [K] coefficients.
        stretch: focal length and distance of its camera, in those of the usual one.
        covariance: [S, S] of identity and expression; None where nobody says how sure they are.
    """

    vector: Float[np.ndarray, "K"]
    stretch: float = 1.0
    covariance: Float[np.ndarray, "S S"] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Fit:
    """Fitted faces.

    Attributes:
        vectors: [B, K] coefficients.
        stretch: [B] focal length and distance of each face's camera, in those of the camera that was given.
        covariance: [B, S, S] of the S numbers of identity and expression: how sure they are.
    """

    vectors: Float[Array, "B K"]
    stretch: Float[Array, "B"]
    covariance: Float[Array, "B S S"]

    def faces(self, count: int) -> list[SolvedFace]:
        """The first `count` of them, one by one; what comes after was padding."""
        vectors, stretch, covariance = (np.asarray(x)[:count] for x in (self.vectors, self.stretch, self.covariance))
        return [SolvedFace(*one) for one in zip(vectors, stretch.tolist(), covariance, strict=True)]


def fit_faces(
    model: FaceModel,
    batch: Mapping[str, np.ndarray],
    camera: Camera,
    prior: Prior,
    *,
    evidence: Evidence | None = None,
    initial: Float[Array | np.ndarray, "B K"] | None = None,
    weights: FitWeights | None = None,
    steps: int = 80,
    anchor_stride: int = ANCHOR_STRIDE,
    recognizer: FaceRecognizer | None = None,
    same_person: Float[Array | np.ndarray, "B"] | None = None,
    held: Bool[Array | np.ndarray, "K"] | None = None,
    part_weights: Mapping[str, float] | None = None,
    usual_distance: bool = False,
    look: FirstLook | None = None,
) -> Fit:
    """Fits the face model to aligned crops.

    The most probable shape and pose given the detector's points (`estimate`), light and colours by least squares, then
    gradient descent on PRDL, colours and recognition, held by the posterior of the first stage: along a direction that
    the points determine it goes little, along one that they leave open it goes far. Compiled once per size of batch
    and picture.

    Args:
        model: the face model.
        batch: samples stacked as in photos/samples.py: image, labels, landmarks, landmark_weights; and "points" and
            "point_weights" where the evidence is a detector's dense points.
        camera: of the S x S crops.
        prior: of the model's coefficients, see `coefficient_prior`.
        evidence: what the points are worth; by default what the calibration that comes with jaxface says, see
            `evidence_for`.
        initial: vectors to start from, such as an encoder's; by default those of `look`, or else the mean face.
        weights: of the loss terms.
        steps: of Adam; its rate falls to zero along a cosine.
        anchor_stride: PRDL's anchors lie on every n-th pixel in x and y.
        recognizer: network of the perceptual loss; None leaves it out.
        same_person: for crops that all show one person, what each counts (1, or 0 for padding): they share identity and
            albedo; the identity comes from the points of all and then stays. None takes every crop for a person of its
            own.
        held: coefficients that stay as in `initial`, such as the identity of a person who is tracked; none by default.
            If it holds the albedo, it has to hold all of it.
        part_weights: of parts in PRDL, 1 where not listed. By default the skin weighs nothing, for its outer border is
            a detector's oval.
        usual_distance: takes the distance of `camera` for granted instead of estimating it, whatever "focal" says.
        look: what a network says of the crops, which is evidence as the points are; to be had of an `Onlooker`.
    """
    if initial is not None:
        start = jnp.asarray(initial)
    else:
        start = jnp.zeros((len(batch["labels"]), vector_size(model))) if look is None else look.vectors
    evidence = evidence or evidence_for(model, dense="points" in batch)
    names = ["image", "labels", "landmarks", "landmark_weights", "points", "point_weights"]
    names += [] if usual_distance else ["focal"]
    arrays = {name: jnp.asarray(batch[name]) for name in names if name in batch}
    given = jnp.zeros(start.shape[-1], bool) if held is None else jnp.asarray(held)
    counts = None if same_person is None else jnp.asarray(same_person)
    deviation = KNOWN_DEVIATION if usual_distance else DISTANCE_DEVIATION
    estimate = _estimate(model, start, arrays, camera, prior, evidence, given, counts, deviation, look)
    cameras = camera.stretched(estimate.stretch[:, None])
    vector = _paint_all(model, estimate.vectors, arrays, cameras, counts, given)
    held = given
    if counts is not None:
        held = held | jnp.asarray(column_mask(model, "identity"))
    vector = _descend(
        model,
        vector,
        estimate,
        arrays,
        cameras,
        prior,
        weights or FitWeights(),
        recognizer,
        counts,
        held,
        steps=steps,
        anchor_stride=anchor_stride,
        part_weights=tuple((DETECTORS_OUTLINE if part_weights is None else part_weights).items()),
    )
    vector = _paint_all(model, vector, arrays, cameras, counts, held)  # the shape has moved under the colours
    factor = spread_of(estimate, evidence.spread)[:, None, None] ** 2
    return Fit(vector, estimate.stretch, factor * shape_covariance(model, estimate, given))


@typed_jit
def _estimate(
    model: FaceModel,
    vector: Float[Array, "B K"],
    batch: Batch,
    camera: Camera,
    prior: Prior,
    evidence: Evidence,
    held: Bool[Array, "K"],
    same_person: Float[Array, "B"] | None,
    deviation: float,
    look: FirstLook | None,
) -> Estimate:
    points = batch[evidence.entry][:, evidence.rows]
    known = batch[WEIGHTS_OF[evidence.entry]][:, evidence.rows]
    focal = batch.get("focal", jnp.full(len(vector), jnp.nan))
    log_stretch = distance_prior(focal, camera, deviation=deviation)
    solve = functools.partial(estimate_faces if same_person is None else estimate_person, evidence, vector, points)
    if same_person is not None:
        known = known * same_person[:, None]
        look = None if look is None else dataclasses.replace(look, weight=look.weight * same_person[:, None])
    return solve(known, camera, prior, held=held, log_stretch=log_stretch, look=look)


def _shared(
    vector: Float[Array, "B K"], same_person: Float[Array | np.ndarray, "B"], columns: Bool[Array, "K"]
) -> Float[Array, "B K"]:
    """Gives all rows the mean of the rows that count, in some columns."""
    mean = jnp.einsum("b,bk->k", same_person / same_person.sum(), vector, precision=jax.lax.Precision.HIGHEST)
    return jnp.where(columns[None], mean[None], vector)


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


@typed_jit(static_argnames=("steps", "anchor_stride", "part_weights"))
def _descend(
    model: FaceModel,
    vector: Float[Array, "B K"],
    estimate: Estimate,
    batch: Batch,
    camera: Camera,
    prior: Prior,
    weights: FitWeights,
    recognizer: FaceRecognizer | None,
    same_person: Float[Array, "B"] | None,
    held: Bool[Array, "K"],
    *,
    steps: int,
    anchor_stride: int,
    part_weights: tuple[tuple[str, float], ...],
) -> Float[Array, "B K"]:
    targets = part_targets(batch["labels"], anchor_stride=anchor_stride)  # once, not in every step
    image, face_mask = to_float(batch["image"]), parts.face_mask(batch["labels"])
    hidden = hidden_pixels(batch["labels"], batch["landmarks"], batch["landmark_weights"])
    posterior = posterior_of(model, estimate, held)
    appearance = np.flatnonzero(column_mask(model, "albedo", "light"))
    rates = np.repeat(np.array(list(RATES.values()), np.float32), vector_sizes(model))[appearance]
    optimizer = optax.adam(optax.cosine_decay_schedule(1.0, steps))
    person = None if recognizer is None else _features(image, batch, recognizer)
    # The prior of what all share counts once: in the mean of the gradients below, each row's share of it.
    albedo = jnp.asarray(column_mask(model, "albedo"))[appearance]
    repeats = 1.0 if same_person is None else jnp.where(albedo, 1 / same_person.sum(), 1.0)[None]
    deviation = jnp.asarray(prior.deviation)[appearance]

    def coefficients_of(state: State) -> Float[Array, "B K"]:
        z, colors = state
        moved = jnp.clip(posterior.at(z), prior.lower[None], prior.upper[None])
        return moved.at[:, appearance].set(colors)

    def loss_of(state: State, index: Int[Array, ""]) -> Float[Array, ""]:
        face = decode_face(model, Coefficients.from_vector(coefficients_of(state), model), camera)
        loss = weights.posterior * jnp.square(state[0]).sum(-1)
        loss += weights.prior * (repeats * jnp.square(state[1] / deviation[None])).sum(-1)
        view = render_face(face, model.triangles, image_size=camera.image_size)
        rendered, covered = view.draw(face.colors), view.seen
        loss += weights.prdl * part_loss(
            model, face, targets, hidden=hidden, fragments=view.fragments, weights=dict(part_weights)
        )
        loss += weights.photometric * photometric_loss(rendered, image, face_mask & covered)
        loss = loss.sum()  # samples share nothing: each gets the gradient of its own loss
        if recognizer is not None and person is not None:
            perceptual_slope = functools.partial(_perceptual_slope, recognizer, batch, person)
            drawn = jnp.where((face_mask & covered)[..., None], rendered, image)
            slope = jax.lax.cond(index % PERCEPTUAL_EVERY == 0, perceptual_slope, jnp.zeros_like, drawn)
            loss += PERCEPTUAL_EVERY * weights.perceptual * (jax.lax.stop_gradient(slope) * drawn).sum()
        return loss

    def step(carry: tuple[State, optax.OptState], index: Int[Array, ""]) -> tuple[tuple[State, optax.OptState], None]:
        state, optimizer_state = carry
        toward_z, toward_colors = jax.grad(loss_of)(state, index)
        toward_colors = jnp.where(held[appearance][None], 0.0, toward_colors)
        if same_person is not None:
            toward_colors = _shared(toward_colors, same_person, albedo)
        (by_z, by_colors), optimizer_state = optimizer.update((toward_z, toward_colors), optimizer_state)
        z, colors = state[0] + POSTERIOR_RATE * by_z, state[1] + rates[None] * by_colors
        colors = jnp.clip(colors, prior.lower[appearance][None], prior.upper[appearance][None])
        return ((z, colors), optimizer_state), None

    start = (jnp.zeros((len(vector), posterior.root.shape[-1])), vector[:, appearance])
    state = jax.lax.scan(step, (start, optimizer.init(start)), jnp.arange(steps))[0][0]
    return coefficients_of(state)


def _perceptual_slope(
    recognizer: FaceRecognizer, batch: Batch, person: Float[Array, "B F"], drawn: Float[Array, "B H W 3"]
) -> Float[Array, "B H W 3"]:
    # The gradient in the picture alone: what the network computes on the way need not outlive the step's branch.
    return jax.grad(lambda drawn: cosine_feature_loss(_features(drawn, batch, recognizer), person).sum())(drawn)


def _features(image: Float[Array, "B H W 3"], batch: Batch, recognizer: FaceRecognizer) -> Float[Array, "B F"]:
    return recognition_features(image, batch["landmarks"], recognizer, weights=batch["landmark_weights"])
