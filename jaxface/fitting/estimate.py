"""The most probable shape and pose given a detector's points, of one picture or of several of one person.

Every point weighs what it is worth: errors have the covariance that was measured for the pose (`evidence`), people have
the mean of real people and the face model's spread (`priors`). What is minimised over identity a, expression b, pose
and focal length is, for each picture with points y at h(x),

    (y - h(x))' Sigma(yaw)^-1 (y - h(x)) + |b / deviation|^2 + ...,    and once |a - mean|^2

by Gauss and Newton's steps, damped as Levenberg and Marquardt do, within bounds. Pictures share the identity alone, so
their normal equations have the form of an arrow, which is solved through the Schur complement of the pictures' blocks,
as in bundle adjustment (Triggs et al. 2000, section 6.1).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxface.core.cameras import Camera
from jaxface.core.coefficients import column_mask, vector_columns
from jaxface.core.units import CROP_SIZE
from jaxface.fitting.evidence import Evidence, Precision, errors_at, evidence_points, inverse_covariance
from jaxface.fitting.first_look import FirstLook
from jaxface.fitting.priors import Prior

POSE_STEPS, SHAPE_STEPS, ROUNDS = 12, 8, 2
"""Damped steps on the pose alone; then on all, in rounds that each take the errors at the yaw of the round before."""

POSE_NOISE = 4.0
"""Standard deviation of a point in the first steps, in pixels of the 224 picture: the mean face is nobody's."""

DISTANCE_DEVIATION = 0.5
"""Of the logarithm of the distance from camera to face where nobody knows it: two in three photos are taken from 0.6 to
1.6 m."""

KNOWN_DEVIATION = 0.05
"""Of the logarithm of a distance that follows from a focal length which the photo's file tells."""

NEAREST = 0.2
"""Distances of less than so many usual ones (20 cm) are not believed: the photo's file tells a wrong focal length."""

ALIGNED = 1.0
"""Standard deviation of angles (radians) and shifts (model units) that points leave open: their face was aligned."""

SAME_MISTAKES = 0.2
"""Share of a detector's errors that is the same in all pictures of a person: n pictures count as n / (1 + 0.2 (n - 1)).

Measured for MediaPipe on 527 drawn people (experiments/fit_accuracy/same_mistakes.py): 0.22 of the squared errors; of
pictures less than 20 degrees of yaw apart 0.31, more than 50 degrees apart 0.14; of different people 0.02.
"""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Estimate:
    """The most probable faces, and how sure they are.

    The unknowns of a picture are identity | expression | angles | translation | the logarithm of the distance; C of
    them. The depth of the translation is counted in distances of the usual camera.

    Attributes:
        vectors: [N, K] coefficients; albedo and light as they were.
        stretch: [N] focal length and distance of the camera, in those of the usual one.
        precision: [N, C, C] inverse covariance of a picture's unknowns, as that picture and the prior know them; what
            is held has nothing to do with the others, and a 1 on the diagonal.
        shared: [N, Ki, Ki] inverse covariance of the identity, as all pictures of the person know it; likewise.
        misfit: [N] mean square of what the points are still off by, in units of their covariance: large where a
            detector is worse than usual.
    """

    vectors: Float[Array, "N K"]
    stretch: Float[Array, "N"]
    precision: Float[Array, "N C C"]
    shared: Float[Array, "N Ki Ki"]
    misfit: Float[Array, "N"]


def estimate_faces(
    evidence: Evidence,
    vectors: Float[Array, "B K"],
    points: Float[Array, "B P 2"],
    known: Float[Array, "B P"],
    camera: Camera,
    prior: Prior,
    *,
    held: Bool[Array | np.ndarray, "K"],
    log_stretch: Float[Array, "B 2"],
    look: FirstLook | None = None,
) -> Estimate:
    """The most probable faces of pictures of as many people; arguments as for `estimate_person`."""

    def alone(vector, points, known, log_stretch, seen):
        one = (x[None] for x in (vector, points, known))
        own = None if look is None else dataclasses.replace(look, **{name: x[None] for name, x in seen.items()})
        return estimate_person(evidence, *one, camera, prior, held=held, log_stretch=log_stretch[None], look=own)

    found = jax.vmap(alone)(vectors, points, known, log_stretch, {} if look is None else look.of_crops())
    return jax.tree.map(lambda array: array[:, 0], found)


def estimate_person(
    evidence: Evidence,
    vectors: Float[Array, "N K"],
    points: Float[Array, "N P 2"],
    known: Float[Array, "N P"],
    camera: Camera,
    prior: Prior,
    *,
    held: Bool[Array | np.ndarray, "K"],
    log_stretch: Float[Array, "N 2"],
    look: FirstLook | None = None,
) -> Estimate:
    """The most probable identity, shared by all pictures, and expression, pose and distance of each.

    Args:
        evidence: where the points lie on the face, and how they err.
        vectors: where to start, such as zeros; of the identities the mean.
        points: of the detector, in pixels of the camera's pictures; anything where unknown.
        known: 1, or 0 for points that count nothing, as those do that are not finite; a picture without points, here or
            in `look`, counts nothing.
        camera: the usual one of the crops.
        prior: of the coefficients.
        held: coefficients that stay as they are.
        log_stretch: mean and standard deviation of the logarithm of the distance in the camera's own.
        look: what a network says of the same pictures: more points, and a prior of each one's shape.
    """
    problem = _Problem(evidence, vectors, points, known, camera, prior, held, log_stretch, look)
    identity, own = problem.start()
    own = problem.place(identity, own)
    for _ in range(ROUNDS):
        identity, own = problem.solve(identity, own)
    return problem.estimate(identity, own)


def distance_prior(
    focal: Float[Array | np.ndarray, "N"], camera: Camera, *, deviation: float | Array = DISTANCE_DEVIATION
) -> Float[Array, "N 2"]:
    """Mean and standard deviation of the logarithm of the distance, in the camera's own: `log_stretch` of an estimate.

    Args:
        focal: focal lengths in pixels of the camera's pictures; NaN where nobody knows. Those that would put the camera
            nearer than `NEAREST` count as unknown.
        camera: the usual one of the crops.
        deviation: where nobody knows.
    """
    focal = jnp.asarray(focal)
    told = jnp.isfinite(focal) & (focal >= NEAREST * camera.focal)
    logarithm = jnp.log(jnp.where(told, focal, camera.focal) / camera.focal)
    return jnp.stack([logarithm, jnp.where(told, KNOWN_DEVIATION, deviation)], axis=-1)


class _Problem:
    """The cost, its slopes and its steps; the state is the identity [Ki] and what a picture has of its own [N, D]."""

    def __init__(self, evidence, vectors, points, known, camera, prior, held, log_stretch, look=None):
        surface = evidence.surface
        self.evidence, self.vectors, self.camera = evidence, vectors, camera
        self.shared = np.flatnonzero(column_mask(surface, "identity"))
        self.own = np.flatnonzero(column_mask(surface, "expression", "angles", "translation"))
        columns = vector_columns(surface)
        expression = columns["expression"].stop - columns["expression"].start
        self.yaw, self.depth = expression + 1, expression + 5
        self.pose = np.arange(expression, expression + 6)
        known = jnp.where(jnp.isfinite(points).all(-1), known, 0.0)
        self.known = jnp.repeat(known, 2, axis=-1)
        self.points = jnp.where(self.known > 0, points.reshape(len(points), -1), 0.0)
        self.pixel = camera.image_size[0] / CROP_SIZE
        held = jnp.asarray(held)
        self.free_shared = ~held[self.shared]
        self.free_own = jnp.concatenate([~held[self.own], jnp.ones(1, bool)])
        bounds = [jnp.asarray(x) for x in (prior.mean, prior.deviation, prior.lower, prior.upper)]
        self.mean, self.deviation, self.lower, self.upper = (x[self.shared] for x in bounds)
        count = len(vectors)
        one = [jnp.broadcast_to(x[self.own][None], (count, len(self.own))) for x in bounds]
        extra = [log_stretch[:, :1], log_stretch[:, 1:], jnp.full((count, 1), -jnp.inf), jnp.full((count, 1), jnp.inf)]
        own = [jnp.concatenate(pair, axis=-1) for pair in zip(one, extra, strict=True)]
        self.own_mean, self.own_deviation, self.own_lower, self.own_upper = own
        counted = (self.known > 0).any(-1)
        if look is not None:
            counted |= (look.weight > 0).any(-1)
        self.counted, self.tempering = counted, 1 / (1 + SAME_MISTAKES * (jnp.maximum(counted.sum(), 1) - 1))
        self.look, self.seen = look, {}
        if look is not None:
            self.seen = look.of_crops()
            counts = self.tempering * counted
            self.seen["weight"] = counts[:, None] * self.seen["weight"]
            self.mean, self.deviation = look.identity(self.shared, counts, self.deviation)
            told = look.expression(self.own[:expression])
            for name, value in zip(("own_mean", "own_deviation"), told, strict=True):
                setattr(self, name, getattr(self, name).at[:, :expression].set(value))

    def start(self):
        counted = self.counted
        identity = (self.vectors[:, self.shared] * counted[:, None]).sum(0) / jnp.maximum(counted.sum(), 1)
        own = jnp.concatenate([self.vectors[:, self.own], self.own_mean[:, -1:]], axis=-1)
        own = own.at[:, self.depth].multiply(jnp.exp(-own[:, -1]))
        return jnp.clip(identity, self.lower, self.upper), jnp.clip(own, self.own_lower, self.own_upper)

    def vector(self, identity, own, vector):
        values = own[:-1].at[self.depth].multiply(jnp.exp(own[-1]))
        return vector.at[self.shared].set(identity).at[self.own].set(values)

    def residuals(self, identity, own, vector, points):
        camera = self.camera.stretched(jnp.exp(own[-1]))
        found = evidence_points(self.evidence, self.vector(identity, own, vector), camera)
        return (found.reshape(-1) - points) / self.pixel

    def all_residuals(self, identity, own):
        return jax.vmap(self.residuals, (None, 0, 0, 0))(identity, own, self.vectors, self.points)

    def inverses(self, own) -> Precision:
        """Of the covariance of each picture's errors at its present yaw."""
        variance, factor = jax.vmap(functools.partial(errors_at, self.evidence))(own[:, self.yaw])
        inverse = jax.vmap(inverse_covariance)(variance, factor, self.known)
        return Precision(self.tempering * inverse.weights, jnp.sqrt(self.tempering) * inverse.weighted, inverse.root)

    def place(self, identity, own):
        """The poses alone."""
        weights = self.known / POSE_NOISE**2
        nothing = jnp.zeros((*weights.shape, 1))
        plain = Precision(weights, nothing, jnp.ones((len(weights), 1, 1)))
        movable = jnp.zeros(own.shape[1], bool).at[self.pose].set(True)
        return self.solve(identity, own, inverses=plain, movable=(False, movable), steps=POSE_STEPS)[1]

    def solve(self, identity, own, *, inverses=None, movable=(True, True), steps=SHAPE_STEPS):
        """Damped steps; what is not movable stays."""
        inverses = self.inverses(own) if inverses is None else inverses
        free = self.free_shared & movable[0], self.free_own & movable[1]

        def step(state, _):
            identity, own, damping = state
            system = self.normal_equations(identity, own, inverses)
            change = self.change(system, identity, own, damping, free)
            moved = jnp.clip(identity - change[0], self.lower, self.upper)
            moved_own = jnp.clip(own - change[1], self.own_lower, self.own_upper)
            better = self.cost(moved, moved_own, inverses) < self.cost(identity, own, inverses)
            identity, own = jnp.where(better, moved, identity), jnp.where(better, moved_own, own)
            return (identity, own, jnp.where(better, damping / 4, damping * 4)), None

        start = (identity, own, jnp.asarray(1e-2, identity.dtype))
        (identity, own, _), _ = jax.lax.scan(step, start, length=steps)
        return identity, own

    def looked(self, identity, own, vector, seen):
        """Residuals of the points of a first look, none without one."""
        if self.look is None:
            return jnp.zeros(0, own.dtype)
        camera = self.camera.stretched(jnp.exp(own[-1]))
        return self.look.residuals(self.vector(identity, own, vector), camera, seen)

    def cost(self, identity, own, inverses):
        residual = self.all_residuals(identity, own)
        data = (residual * jax.vmap(Precision.times)(inverses, residual[..., None])[..., 0]).sum()
        data += jnp.square(jax.vmap(self.looked, (None, 0, 0, 0))(identity, own, self.vectors, self.seen)).sum()
        one = jnp.square((identity - self.mean) / self.deviation).sum()
        return data + one + jnp.square((own - self.own_mean) / self.own_deviation).sum()

    def normal_equations(self, identity, own, inverses):
        """Half the cost's slope and curvature: [Ki], [N, D]; corners [N, Ki, Ki], arms and blocks [N, ..., D]."""
        residual = self.all_residuals(identity, own)
        jacobians = jax.vmap(jax.jacfwd(self.residuals, (0, 1)), (None, 0, 0, 0))
        to_shared, to_own = jacobians(identity, own, self.vectors, self.points)
        weighted = jax.vmap(Precision.times)(inverses, jnp.concatenate([to_shared, to_own], axis=-1))
        for_shared, for_own = jnp.split(weighted, [len(self.shared)], axis=-1)
        slope = _product("nrk,nr->k", for_shared, residual) + (identity - self.mean) / self.deviation**2
        slopes = _product("nrd,nr->nd", for_own, residual) + (own - self.own_mean) / self.own_deviation**2
        corners = _product("nrk,nrl->nkl", for_shared, to_shared)
        arms = _product("nrk,nrd->nkd", for_shared, to_own)
        blocks = _product("nrd,nre->nde", for_own, to_own) + jax.vmap(jnp.diag)(1 / self.own_deviation**2)
        if self.look is None:
            return slope, slopes, corners, arms, blocks
        arguments = identity, own, self.vectors, self.seen
        residual = jax.vmap(self.looked, (None, 0, 0, 0))(*arguments)
        to_shared, to_own = jax.vmap(jax.jacfwd(self.looked, (0, 1)), (None, 0, 0, 0))(*arguments)
        return (
            slope + _product("nrk,nr->k", to_shared, residual),
            slopes + _product("nrd,nr->nd", to_own, residual),
            corners + _product("nrk,nrl->nkl", to_shared, to_shared),
            arms + _product("nrk,nrd->nkd", to_shared, to_own),
            blocks + _product("nrd,nre->nde", to_own, to_own),
        )

    def change(self, system, identity, own, damping, free):
        """The step; what is held, or pushed against a bound, keeps out of it, else clipping spoils the others' part."""
        slope, slopes, corners, arms, blocks = system
        free_shared = free[0] & ~_pushed_on_bound(identity, slope, self.lower, self.upper)
        free_own = free[1][None] & ~_pushed_on_bound(own, slopes, self.own_lower, self.own_upper)
        corner = corners.sum(0) + jnp.diag(1 / self.deviation**2)
        return _solve_arrow(
            _damped(_only(corner, free_shared), damping),
            arms * free_shared[None, :, None] * free_own[:, None],
            jax.vmap(_damped, (0, None))(jax.vmap(_only)(blocks, free_own), damping),
            slope * free_shared,
            slopes * free_own,
        )

    def estimate(self, identity, own) -> Estimate:
        vectors = jax.vmap(self.vector, (None, 0, 0))(identity, own, self.vectors)
        _, _, corners, arms, blocks = self.normal_equations(identity, own, self.inverses(own))
        # Of a picture with few points, or none, the pose is not determined: without this it could not be inverted.
        blocks += jax.vmap(jnp.diag)(jnp.where(jnp.isinf(self.own_deviation), 1 / ALIGNED**2, 0.0))
        blocks = jax.vmap(_only, (0, None))(blocks, self.free_own)
        arms *= self.free_shared[None, :, None] * self.free_own[None, None]
        inner = jnp.diag(1 / self.deviation**2)
        alone = jax.vmap(lambda corner: _only(corner + inner, self.free_shared))(corners)
        upper = jnp.concatenate([alone, arms], axis=-1)
        lower = jnp.concatenate([jnp.swapaxes(arms, 1, 2), blocks], axis=-1)
        eliminated = jnp.linalg.solve(blocks, jnp.swapaxes(arms, 1, 2))
        together = _only(corners.sum(0) + inner, self.free_shared) - _product("nkd,ndl->kl", arms, eliminated)
        precision = jnp.concatenate([upper, lower], axis=1)
        together = jnp.broadcast_to(together, (len(own), *together.shape))
        return Estimate(vectors, jnp.exp(own[:, -1]), precision, together, self.misfit(identity, own))

    def misfit(self, identity, own):
        residual, inverses = self.all_residuals(identity, own), self.inverses(own)
        weighed = jax.vmap(Precision.times)(inverses, residual[..., None])[..., 0] / self.tempering
        return (residual * weighed).sum(-1) / jnp.maximum(self.known.sum(-1), 1.0)


def _pushed_on_bound(
    values: Float[Array, "*B C"],
    slope: Float[Array, "*B C"],
    lower: Float[Array, "*B C"],
    upper: Float[Array, "*B C"],
) -> Bool[Array, "*B C"]:
    return ((values <= lower) & (slope > 0)) | ((values >= upper) & (slope < 0))


def _solve_arrow(
    corner: Float[Array, "Ki Ki"],
    arms: Float[Array, "N Ki D"],
    blocks: Float[Array, "N D D"],
    right: Float[Array, "Ki"],
    rights: Float[Array, "N D"],
) -> tuple[Float[Array, "Ki"], Float[Array, "N D"]]:
    """Solves [[corner, arm_1, arm_2, ...], [arm_1', block_1, 0, ...], ...] x = right for the shared and the own x."""
    eliminated = jnp.linalg.solve(blocks, jnp.concatenate([jnp.swapaxes(arms, 1, 2), rights[..., None]], axis=-1))
    complement = corner - _product("nkd,ndl->kl", arms, eliminated[..., :-1])
    shared = jnp.linalg.solve(complement, right - _product("nkd,nd->k", arms, eliminated[..., -1]))
    return shared, eliminated[..., -1] - _product("ndk,k->nd", eliminated[..., :-1], shared)


def _only(normal: Float[Array, "C C"], free: Bool[Array, "C"]) -> Float[Array, "C C"]:
    """The equations of what is free; a 1 on the diagonal for all else."""
    return jnp.where(free[:, None] & free[None], normal, 0.0) + jnp.diag((~free).astype(normal.dtype))


def _damped(normal: Float[Array, "C C"], damping: Float[Array, ""]) -> Float[Array, "C C"]:
    return normal + damping * jnp.diag(jnp.diag(normal) + 1e-6)


def _product(equation: str, *arrays: Array) -> Array:
    return jnp.einsum(equation, *arrays, precision=jax.lax.Precision.HIGHEST)
