"""The fit: Adam on one loss and the prior, the same for every loss."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from faces import Faces
from jaxtyping import Array, Float
from methods import Loss, Method, make_targets, part_vertices, point_masks
from settings import Settings

from jaxface.core import parts
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients, vector_sizes
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import decode_face
from jaxface.fitting.descent import RATES
from jaxface.fitting.priors import Prior
from jaxface.losses import grid_anchors

PRIOR_PULL = 0.03
"""The prior: a coefficient one standard deviation from the mean is pulled back by so much of a full step of Adam."""

SECOND_MOMENT = 0.9
"""Adam's second decay. Gradients of squared distances shrink a hundredfold on the way; a long memory of them (0.999)
would make the last steps too small."""


class Fitter:
    """Fits batches of one size with one loss; compiled once.

    Each step moves a coefficient by rate * factor * (Adam's direction + PRIOR_PULL * coefficient / deviation). Adam's
    direction does not depend on the scale of the loss, so with the prior beside the loss, not inside it, its weight is
    the same for all losses (Loshchilov and Hutter 2019, "Decoupled weight decay regularization").

    Attributes:
        seconds: spent on steps so far, compilation left out.
        face_steps: steps so far, times the faces that they moved.
    """

    def __init__(self, method: Method, loss: Loss, model: FaceModel, prior: Prior, settings: Settings):
        """Prepares a fit.

        Args:
            method: what the loss is given.
            loss: one of the method's variants.
            model: the face model.
            prior: of its coefficients.
            settings: size of the label maps, anchors, steps and size of a batch.
        """
        self.method, self.loss, self.model, self.prior = method, loss, model, prior
        self.settings, self.camera = settings, Camera().resized(settings.size)
        self.vertices, self.triangles = part_vertices(model, method)
        self.anchors = grid_anchors(settings.size, settings.size, settings.anchor_stride)
        self.optimizer = optax.scale_by_adam(b2=SECOND_MOMENT)
        self.seconds, self.face_steps = 0.0, 0
        self._targets = jax.jit(lambda labels: make_targets(method, labels, self.anchors))
        self._compiled: Callable | None = None

    def run(
        self,
        start: Float[np.ndarray, "N K"],
        faces: Faces,
        factor: float,
        steps: int,
        watch: Callable[[int, Float[np.ndarray, "B K"], slice], None],
    ) -> Float[np.ndarray, "N K"]:
        """Fits any number of faces, batch after batch.

        Args:
            start: coefficients to start from.
            faces: whose label maps to fit.
            factor: of all rates.
            steps: of Adam; its rate falls to zero along a cosine.
            watch: called before the first step and after every chunk with the steps done, the coefficients of a batch,
                and which of the faces these are.
        """
        result, batch, chunk = [], self.settings.batch, self.settings.chunk
        for begin in range(0, len(start), batch):
            index = np.minimum(np.arange(begin, begin + batch), len(start) - 1)  # the last one fills the batch up
            these = slice(begin, min(begin + batch, len(start)))
            count = these.stop - begin
            state, arguments = self._begin(start[index], faces.labels[index], factor, steps)
            watch(0, np.asarray(state[0])[:count], these)
            for done in range(chunk, steps + 1, chunk):
                before = time.perf_counter()
                state = jax.block_until_ready(self._compiled(state, *arguments))
                self.seconds += time.perf_counter() - before
                self.face_steps += chunk * batch
                watch(done, np.asarray(state[0])[:count], these)
            result.append(np.asarray(state[0])[:count])
        return np.concatenate(result)

    def losses_of(self, vectors: Float[np.ndarray, "N K"], faces: Faces) -> Float[np.ndarray, "N"]:
        """The loss of each face at given coefficients."""
        result, batch = [], self.settings.batch
        evaluate = jax.jit(self._losses)
        for begin in range(0, len(vectors), batch):
            index = np.minimum(np.arange(begin, begin + batch), len(vectors) - 1)
            (vector, *_), (model, _, targets, cut, _) = self._begin(vectors[index], faces.labels[index], 1.0, 1)
            result.append(np.asarray(evaluate(vector, model, targets, cut)))
        return np.concatenate(result)[: len(vectors)]

    def _begin(self, start, labels, factor, steps):
        labels, vector = jnp.asarray(labels), jnp.asarray(start)
        left, right = ((labels == parts.LABELS[part]).any((1, 2)) for part in ("left_brow", "right_brow"))
        state = (vector, self.optimizer.init(vector), jnp.zeros((), jnp.int32))
        rate = jnp.float32([factor, steps])
        arguments = (self.model, self.prior, self._targets(labels), left & right, rate)
        if self._compiled is None:
            self._compiled = jax.jit(self._advance).lower(state, *arguments).compile()
        return state, arguments

    def _advance(self, state, model, prior, targets, cut, rate):
        rates = np.repeat(np.float32(list(RATES.values())), vector_sizes(model))

        def step(state, _):
            vector, optimizer_state, count = state
            gradient = jax.grad(lambda v: self._losses(v, model, targets, cut).sum())(vector)
            direction, optimizer_state = self.optimizer.update(gradient, optimizer_state)
            factor, steps = rate
            fall = 0.5 * factor * (1 + jnp.cos(jnp.pi * count / steps))
            move = direction + PRIOR_PULL * vector / prior.deviation[None]
            vector = vector - fall * rates[None] * move
            return (jnp.clip(vector, prior.lower[None], prior.upper[None]), optimizer_state, count + 1), None

        return jax.lax.scan(step, state, length=self.settings.chunk)[0]

    def _losses(self, vector, model, targets, cut) -> Float[Array, "B"]:
        face = decode_face(model, Coefficients.from_vector(vector, model), self.camera)
        if self.method.sees:
            return self.loss(model, face, targets)
        points = {part: face.points[:, vertices] for part, vertices in self.vertices.items()}
        masks = point_masks(self.method, model, face, self.vertices, cut, self.camera.image_size[0])
        return self.loss(points, targets, self.triangles, self.anchors, masks)
