"""How sure an estimate is: the spread of the faces that explain the points about as well, and what it means in mm."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxface.core import face_models
from jaxface.core.coefficients import column_mask, vector_columns
from jaxface.core.face_models import FaceModel
from jaxface.core.units import MM_PER_UNIT
from jaxface.fitting.estimate import Estimate

DRAWS = 64
"""Faces drawn from the posterior for the expected error."""

LEAST_MISFIT = 0.02
"""One in a hundred drawn faces has a smaller misfit. Nobody knows the spread there, so what is less counts as this."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Posterior:
    """The normal distribution of shape and pose around an estimate: most probable + root z, with z standard normal.

    Attributes:
        vectors: [B, K] the most probable coefficients.
        root: [B, K, C] for the C numbers of identity, expression, angles and translation; no row but theirs is filled,
            nor those of what is held.
    """

    vectors: Float[Array, "B K"]
    root: Float[Array, "B K C"]

    def at(self, z: Float[Array, "B C"]) -> Float[Array, "B K"]:
        """The coefficients at z standard deviations along each direction."""
        return self.vectors + jnp.einsum("bkc,bc->bk", self.root, z, precision=jax.lax.Precision.HIGHEST)


def posterior_of(model: FaceModel, estimate: Estimate, held: Bool[Array, "K"]) -> Posterior:
    """The posterior given the distance of the camera, which later stages leave as it was estimated."""
    geometry = np.flatnonzero(column_mask(model, "identity", "expression", "angles", "translation"))
    free = ~held[geometry]
    precision = estimate.precision[:, :-1, :-1]
    precision = jnp.where(free[None, :, None] & free[None, None], precision, 0.0) + jnp.diag(~free)[None]
    identity = jnp.broadcast_to(jnp.eye(len(geometry)), precision.shape)
    upper = jnp.swapaxes(jnp.linalg.cholesky(precision), 1, 2)
    root = jax.scipy.linalg.solve_triangular(upper, identity) * free[None, :, None]
    root = root.at[:, -1].multiply(estimate.stretch[:, None])  # depth was counted in distances of the usual camera
    filled = jnp.zeros((len(root), held.shape[0], len(geometry))).at[:, geometry].set(root)
    return Posterior(estimate.vectors, filled)


def shape_covariance(model: FaceModel, estimate: Estimate, held: Bool[Array, "K"]) -> Float[Array, "B S S"]:
    """Covariance of the S numbers of identity and expression, whatever pose and distance are; 0 for what is held."""
    columns = vector_columns(model)
    count, size = model.identity_basis.shape[-1], columns["expression"].stop
    block, arm = estimate.precision[:, count:, count:], estimate.precision[:, :count, count:]
    own = jnp.linalg.inv(block)
    free = ~held[:size]
    shared = jnp.linalg.inv(estimate.shared) * free[None, :count, None]
    gain = -jnp.einsum("bde,bke->bdk", own, arm, precision=jax.lax.Precision.HIGHEST)
    cross = jnp.einsum("bkl,bdl->bkd", shared, gain, precision=jax.lax.Precision.HIGHEST)
    own += jnp.einsum("bdk,bke->bde", gain, cross, precision=jax.lax.Precision.HIGHEST)
    upper = jnp.concatenate([shared, cross], axis=-1)
    lower = jnp.concatenate([jnp.swapaxes(cross, 1, 2), own], axis=-1)
    return jnp.concatenate([upper, lower], axis=1)[:, :size, :size] * (free[:, None] & free[None])[None]


def spread_of(estimate: Estimate, spread: Float[Array | np.ndarray, "2"]) -> Float[Array, "B"]:
    """How many times larger the errors of fits are than their posterior says, by the misfit; see `Calibration.spread`.

    A posterior trusts that faces and errors are normal. Where nothing is known of the misfit, it is trusted.
    """
    log_misfit = jnp.log(jnp.maximum(estimate.misfit, LEAST_MISFIT))
    return jnp.where(estimate.misfit > 0, jnp.exp(jnp.asarray(spread)[0] + jnp.asarray(spread)[1] * log_misfit), 1.0)


def expected_error_mm(
    model: FaceModel,
    vector: Float[Array | np.ndarray, "K"],
    covariance: Float[Array | np.ndarray, "S S"],
    vertices: np.ndarray | None = None,
) -> Float[np.ndarray, "V"]:
    """How far each vertex is expected to lie from the truth, in mm, once both shapes are aligned by a similarity.

    The mean over faces drawn from the posterior, their shape taken as linear around the estimate.

    Args:
        model: the face model.
        vector: the estimate.
        covariance: of its identity and expression, see `shape_covariance`.
        vertices: those that the alignment counts; all by default.
    """
    columns = vector_columns(model)
    split = columns["identity"].stop
    values, directions = np.linalg.eigh(np.asarray(covariance, np.float64))
    normal = np.random.default_rng(0).standard_normal((len(values), DRAWS))
    draws = ((directions * np.sqrt(np.maximum(values, 0))) @ normal).T.astype(np.float32)
    found = _shapes(model, jnp.asarray(vector)[: columns["expression"].stop], draws, split=split)
    shape, changes = (np.asarray(array, np.float64) for array in found)
    used = np.arange(len(shape)) if vertices is None else np.asarray(vertices)
    # Moves by a similarity: three translations, a scaling, three turns.
    centred = shape - shape[used].mean(0)
    moves = np.zeros((7, *shape.shape))
    moves[0, :, 0] = moves[1, :, 1] = moves[2, :, 2] = 1
    moves[3] = centred
    moves[4:] = np.cross(np.eye(3)[:, None], centred[None])
    flat = moves[:, used].reshape(7, -1).T
    fitted = np.linalg.lstsq(flat, changes[:, used].reshape(len(draws), -1).T, rcond=None)[0]
    left = changes - np.einsum("md,mvc->dvc", fitted, moves)
    return MM_PER_UNIT * np.linalg.norm(left, axis=-1).mean(0)


def _shapes(
    model: FaceModel, vector: Float[Array, "S"], draws: Float[np.ndarray, "D S"], *, split: int
) -> tuple[Float[Array, "V 3"], Float[Array, "D V 3"]]:
    def shape_at(vector):
        return face_models.shape(model, vector[None, :split], vector[None, split:])[0]

    return shape_at(vector), jax.vmap(lambda draw: jax.jvp(shape_at, (vector,), (draw,))[1])(jnp.asarray(draws))
