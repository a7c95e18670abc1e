"""The face parser that comes with jaxface: what each pixel of a crop shows, landmarks and points of the surface.

    parser = load_parser()
    parsed = parser(images, size=224)  # uint8 [N, 96, 96, 3], aligned as photos are
    parsed.classes  # [N, 224, 224], indices into parts.CLASSES
    parsed.landmarks, parsed.covariance  # in pixels of the 224 x 224 picture

It is one network with the encoder of `checkpoints.load_encoder`, see `people_network`.
"""

import dataclasses
import functools
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, UInt8

from jaxface.core.errors import InputError
from jaxface.core.landmarks import LANDMARKS
from jaxface.networks.encoder import PEOPLE_NETWORKS, create_encoder
from jaxface.networks.people_answer import PeopleAnswer
from jaxface.networks.people_network import PeopleNetwork, look
from jaxface.networks.people_weights import SHIPPED, read_people_file


class ParsedFaces(NamedTuple):
    """What the parser says of N crops. Points are in pixels of S x S pictures, x right, y down.

    Attributes:
        classes: [N, S, S] indices into `parts.CLASSES`.
        points: [N, P, 2] ibug's 68 landmarks, then points of the surface.
        covariance: [N, P, 2, 2] of the points' errors.
        visible: [N, P] probability that a point is seen.
    """

    classes: UInt8[np.ndarray, "N S S"]
    points: Float[np.ndarray, "N P 2"]
    covariance: Float[np.ndarray, "N P 2 2"]
    visible: Float[np.ndarray, "N P"]

    @property
    def landmarks(self) -> Float[np.ndarray, "N 68 2"]:
        """Ibug's 68 of the points."""
        return self.points[:, :LANDMARKS]


@dataclasses.dataclass(frozen=True)
class TrainedParser:
    """A network with its weights; call it with crops.

    Attributes:
        network: the Flax module.
        variables: its weights.
        image_size: side of the crops that it takes, in pixels.
        surface: [P - 68] vertices of the face model that the points beyond the landmarks lie at.
        face_model: name of that face model.
    """

    network: PeopleNetwork
    variables: Any
    image_size: int
    surface: Integer[np.ndarray, "P"]
    face_model: str

    def __call__(self, images: UInt8[np.ndarray, "N S S 3"], *, size: int | None = None) -> ParsedFaces:
        """Parses aligned crops of faces.

        Args:
            images: RGB bytes, of `image_size` pixels.
            size: side in pixels of the pictures to tell of; the crops' own by default.

        Raises:
            ValueError: for crops of another size or type, or pictures without pixels.
        """
        side = self.image_size
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (side, side, 3):
            raise ValueError(f"the parser takes uint8 crops [N, {side}, {side}, 3], got {images.dtype} {images.shape}")
        size = side if size is None else size
        if size < 1:
            raise ValueError(f"size is the side of the pictures to tell of, in pixels, not {size}")
        # Convolutions of no picture at all cannot be compiled: of one, none is kept.
        some = images if len(images) else np.zeros((1, *images.shape[1:]), np.uint8)
        told = _in_pixels(look(self.network, self.variables, some), size=size)
        return ParsedFaces(*(np.asarray(array)[: len(images)] for array in told))


@functools.cache
def load_parser(path: str | os.PathLike = SHIPPED) -> TrainedParser:
    """Loads a face parser, by default the one that comes with jaxface.

    Raises:
        InputError: when the file cannot be used.
    """
    weights, surface = read_people_file(path)
    settings = {name: value for name, value in weights.config["encoder"].items() if name != "initial"}
    if settings.get("name") not in PEOPLE_NETWORKS:
        raise InputError(
            f"{path}: the network {settings.get('name')!r} tells no parts, but {', '.join(PEOPLE_NETWORKS)}"
        )
    network = create_encoder(settings.pop("name"), weights.head_sizes, **settings)
    assert isinstance(network, PeopleNetwork)
    variables = jax.device_put(weights.variables)
    return TrainedParser(network, variables, int(weights.config["image_size"]), surface, weights.config["face_model"])


@functools.partial(jax.jit, static_argnames="size")
def _in_pixels(answer: PeopleAnswer, *, size: int) -> tuple[Array, Array, Array, Array]:
    batch, _, _, count = answer.logits.shape
    logits, points = jax.image.resize(answer.logits, (batch, size, size, count), "linear"), answer.points
    return (
        logits.argmax(-1).astype(jnp.uint8),
        points.position * size,
        size**2 * covariance(points.whitening),
        jax.nn.sigmoid(points.visibility),
    )


def covariance(whitening: Float[Array, "*B 3"]) -> Float[Array, "*B 2 2"]:
    """(W^T W)^-1 of W = [[a, 0], [c, b]]."""
    a, b, c = (whitening[..., i] for i in range(3))
    across, skew = 1 / a, -c / (a * b)
    xy = across * skew
    rows = [jnp.stack([across**2, xy], -1), jnp.stack([xy, skew**2 + 1 / b**2], -1)]
    return jnp.stack(rows, -2)
