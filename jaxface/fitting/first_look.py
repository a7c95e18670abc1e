"""What the network that comes with jaxface says of crops, as evidence of a fit: where points lie, and who it may be.

The network (`networks.people_network`) learned from drawn people, whose true shapes are known; a detector learned from
people's hand-set points. Each errs in ways of its own, and a fit that hears both comes nearer to the person than either
(experiments/fit_accuracy).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, UInt8

from jaxface.core import face_models
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import vector_columns, vector_sizes
from jaxface.core.errors import needs_extra
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import vertex_points
from jaxface.core.units import to_float
from jaxface.fitting.evidence import INNER, shipped_calibration
from jaxface.photos.alignment import alignment_template
from jaxface.photos.turning import turned, turned_picture, turned_points, turned_whitening, upright_turn

if TYPE_CHECKING:  # loads Flax, which fits of other face models can do without
    from jaxface.networks.parser import TrainedParser

POINT_WEIGHT = 0.1
"""What one of the network's points counts in full profile: 371 of them err together, not each by itself. From the front
the detector, which learned from photos, knows better: points count by the square of the sine of the angle by which the
face is turned away, to a side, up or down."""

EXPRESSION_DOUBT = 2.0
"""Standard deviations of the network's expression are taken as so many times larger: it saw no photo's expression."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FirstLook:
    """What the network says of a batch of crops. Its arrays form a JAX tree.

    Attributes:
        surface: the face model cut down to the P points.
        vectors: [B, K] coefficients.
        deviations: [B, K] their standard deviations.
        position: [B, P, 2] of the points, in pixels of the crops.
        whitening: [B, P, 3] a, b and c in 1 / pixel of W = [[a, 0], [c, b]]: W (x - position) is standard normal.
        weight: [B, P] what each point counts.
    """

    surface: FaceModel
    vectors: Float[Array, "B K"]
    deviations: Float[Array, "B K"]
    position: Float[Array, "B P 2"]
    whitening: Float[Array, "B P 3"]
    weight: Float[Array, "B P"]

    def of_crops(self) -> dict[str, Array]:
        """The fields that have a row for each crop."""
        fields = [field.name for field in dataclasses.fields(self) if field.name != "surface"]
        return {name: getattr(self, name) for name in fields}

    def identity(
        self, columns: Integer[np.ndarray, "Ki"], counts: Float[Array, "B"], deviation: Float[Array, "Ki"]
    ) -> tuple[Float[Array, "Ki"], Float[Array, "Ki"]]:
        """Mean and deviation of the identity that all crops show.

        The network has the face model's prior in every answer; of several it counts once. Less that, each answer is
        worth 1 / deviation^2 - 1 / prior deviation^2.

        Args:
            columns: of the identity in a vector.
            counts: what each crop counts.
            deviation: of the face model's prior, whose mean is zero.
        """
        own = 1 / jnp.square(self.deviations[:, columns])
        first = 1 / jnp.square(deviation)
        told = counts[:, None] * jnp.maximum(own - first[None], 0.0)
        total = first + told.sum(0)
        # An answer is the mean of what it is worth, drawn to zero by the prior.
        pulled = counts[:, None] * jnp.where(own > first[None], own, 0.0) * self.vectors[:, columns]
        return pulled.sum(0) / total, 1 / jnp.sqrt(total)

    def expression(self, columns: Integer[np.ndarray, "Ke"]) -> tuple[Float[Array, "B Ke"], Float[Array, "B Ke"]]:
        """Mean and deviation of each crop's expression."""
        return self.vectors[:, columns], EXPRESSION_DOUBT * self.deviations[:, columns]

    def residuals(self, vector: Float[Array, "K"], camera: Camera, seen: dict[str, Array]) -> Float[Array, "P2"]:
        """Whitened errors of the points of one face, each times the root of its weight.

        Args:
            vector: of the face.
            camera: of its crop.
            seen: the fields of `of_crops`, of this crop.
        """
        error = vertex_points(self.surface, vector[None], camera)[0] - seen["position"]
        a, b, c = (seen["whitening"][:, i] for i in range(3))
        white = jnp.stack([a * error[:, 0], c * error[:, 0] + b * error[:, 1]], axis=-1)
        return (jnp.sqrt(seen["weight"])[:, None] * white).reshape(-1)


@dataclasses.dataclass(frozen=True)
class Onlooker:
    """Looks at crops for a fit; call it with crops.

    Attributes:
        parser: the network.
        surface: the face model cut down to its points.
        template: the face model's, see `photos.alignment.alignment_template`.
    """

    parser: "TrainedParser"
    surface: FaceModel
    template: Float[np.ndarray, "5 3"]

    def __call__(
        self, images: UInt8[np.ndarray, "B S S 3"], landmarks: Float[np.ndarray, "B 68 2"] | None = None
    ) -> FirstLook:
        """What the network says of aligned crops of any size.

        Args:
            images: the crops.
            landmarks: of the faces, in pixels of the crops: heads that lean or lie are turned upright before they are
                looked at.
        """
        from jaxface.networks.people_network import look

        size, side = images.shape[1], self.parser.image_size
        turns = [0] * len(images) if landmarks is None else [upright_turn(x, self.template) for x in landmarks]
        upright = np.stack([turned_picture(image, turn) for image, turn in zip(images, turns, strict=True)])
        answer = look(self.parser.network, self.parser.variables, _resized(upright, side=side))
        points = jax.tree.map(lambda array: array[:, INNER:], answer.points)
        seen = jax.nn.sigmoid(points.visibility)
        angles = answer.vector[:, vector_columns(self.surface)["angles"]]
        away = 1 - jnp.square(jnp.cos(angles[:, :1]) * jnp.cos(angles[:, 1:2]))  # squared sine of the turn
        vectors, position, whitening = answer.vector, points.position, points.whitening
        if any(turns):
            vectors = _row_by_row(turned, vectors, turns)
            position = _row_by_row(turned_points, position, turns)
            whitening = _row_by_row(turned_whitening, whitening, turns)
        return FirstLook(
            self.surface,
            vectors,
            jnp.exp(answer.log_spread),
            size * position,
            whitening / size,
            POINT_WEIGHT * away * seen**2,
        )


def onlooker_for(model: FaceModel) -> Onlooker | None:
    """The network that comes with jaxface, if it is this face model's; None for another's.

    Raises:
        MissingDependencyError: when Flax is not installed.
    """
    if not shipped_calibration().is_of(model):
        return None
    with needs_extra("photo", "the network that a fit starts from"):
        from jaxface.networks.parser import load_parser
    parser = load_parser()
    if (model.name, vector_sizes(model)[:3]) != (parser.face_model, parser.network.head_sizes):
        return None
    vertices = np.concatenate([np.asarray(model.landmarks["68"])[INNER:], parser.surface])
    return Onlooker(parser, face_models.shape_of_vertices(model, vertices), alignment_template(model))


@functools.partial(jax.jit, static_argnames="side")
def _resized(images: UInt8[Array, "B S S 3"], *, side: int) -> UInt8[Array, "B s s 3"]:
    shape = (images.shape[0], side, side, images.shape[-1])
    return jnp.round(255 * jax.image.resize(to_float(images), shape, "linear")).astype(jnp.uint8)


def _row_by_row(turn: Callable[[np.ndarray, float], np.ndarray], rows: Array, turns: list[int]) -> Array:
    """What was seen in turned pictures, as it is in those before."""
    return jnp.concatenate([turn(np.asarray(row)[None], -degrees) for row, degrees in zip(rows, turns, strict=True)])
