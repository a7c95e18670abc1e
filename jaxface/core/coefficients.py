"""Coefficients: everything that one face is made of, as named arrays or as one vector."""

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxface.core.skinning import ANGLE_DEVIATION

if TYPE_CHECKING:
    from jaxface.core.face_models import FaceModel

LIGHT_BANDS = 9
"""Spherical-harmonics coefficients per colour channel: bands 0 to 2."""
LAST_COLUMNS = {
    "angles": slice(-6 - 3 * LIGHT_BANDS, -3 - 3 * LIGHT_BANDS),
    "light": slice(-3 - 3 * LIGHT_BANDS, -3),
    "translation": slice(-3, None),
}
"""Where a vector holds what every face model has in the same place, counted from its end; see `vector_columns`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Coefficients:
    """Identity, expression, albedo, pose and light of a batch of faces.

    The vector form is identity | expression | albedo | angles 3 | light 27 | translation 3, the order of Deep3D and
    3DDFA-V3, whose BFM has 80 | 64 | 80 | 3 | 27 | 3 = 257 numbers.

    Attributes:
        identity: [B, Ki], in standard deviations of the basis.
        expression: [B, Ke], likewise; for a model with joints (FLAME), 3 axis-angle numbers in radians follow for each
            joint that has coefficients.
        albedo: [B, Ka], in standard deviations.
        angles: [B, 3] pitch, yaw, roll in radians (see cameras.py for signs).
        light: [B, 3, 9] spherical-harmonics coefficients per colour channel, on top of `lighting.AMBIENT`.
        translation: [B, 3] in model units (10 cm).
    """

    identity: Float[Array, "B Ki"]
    expression: Float[Array, "B Ke"]
    albedo: Float[Array, "B Ka"]
    angles: Float[Array, "B 3"]
    light: Float[Array, "B 3 9"]
    translation: Float[Array, "B 3"]

    @classmethod
    def zeros(cls, model: "FaceModel", batch: int = 1) -> "Coefficients":
        """The mean face of `model`, frontal, under the ambient light."""
        return cls.from_vector(jnp.zeros((batch, vector_size(model))), model)

    @classmethod
    def from_vector(cls, vector: Float[Array | np.ndarray, "B K"], model: "FaceModel") -> "Coefficients":
        """Names the pieces of a vector [B, K] (or [K]: a batch of one).

        Raises:
            ValueError: when K is not what `model` needs.
        """
        if vector.ndim == 1:
            vector = vector[None]
        expected = vector_size(model)
        if vector.shape[-1] != expected:
            raise ValueError(f"the face model {model.name!r} takes vectors of {expected} numbers, got {vector.shape}")
        splits = np.cumsum(vector_sizes(model))[:-1]
        identity, expression, albedo, angles, light, translation = jnp.split(vector, splits, axis=-1)
        return cls(identity, expression, albedo, angles, light.reshape(*light.shape[:-1], 3, LIGHT_BANDS), translation)

    def to_vector(self) -> Float[Array, "B K"]:
        """The inverse of `from_vector`."""
        light = self.light.reshape(*self.light.shape[:-2], -1)
        return jnp.concatenate(
            [self.identity, self.expression, self.albedo, self.angles, light, self.translation], axis=-1
        )

    def replace(self, **changes: Float[Array, "B ..."]) -> "Coefficients":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def vector_sizes(model: "FaceModel") -> tuple[int, ...]:
    """Lengths of identity, expression, albedo, angles, light and translation for `model`."""
    return (
        model.identity_basis.shape[-1],
        model.expression_basis.shape[-1] + joint_numbers(model),
        model.albedo_basis.shape[-1],
        3,
        3 * LIGHT_BANDS,
        3,
    )


def joint_numbers(model: "FaceModel") -> int:
    """How many of the expression coefficients, the last ones, are axis-angle numbers of joints, in radians."""
    return 0 if model.skinning is None else 3 * len(model.skinning.posed)


def vector_size(model: "FaceModel") -> int:
    """Length K of the coefficient vector for `model`."""
    return sum(vector_sizes(model))


def vector_columns(model: "FaceModel") -> dict[str, slice]:
    """Where each kind of coefficient lies in a vector, by the names of the fields of `Coefficients`."""
    edges = np.cumsum([0, *vector_sizes(model)]).tolist()
    names = [field.name for field in dataclasses.fields(Coefficients)]
    return {name: slice(*edges[index : index + 2]) for index, name in enumerate(names)}


def column_mask(model: "FaceModel", *kinds: str) -> Bool[np.ndarray, "K"]:
    """Which numbers of a vector are of some kinds of coefficients, such as "identity" and "albedo"."""
    columns, mask = vector_columns(model), np.zeros(vector_size(model), bool)
    for kind in kinds:
        mask[columns[kind]] = True
    return mask


def standard_expression(model: "FaceModel", expression: Float[Array, "*B Ke"]) -> Float[Array, "*B Ke"]:
    """Expression coefficients in standard deviations: the angles of joints divided by their own."""
    joints = joint_numbers(model)
    if not joints:
        return expression
    deviations = np.ones(expression.shape[-1], np.float32)
    deviations[-joints:] = ANGLE_DEVIATION
    return expression / np.broadcast_to(deviations, expression.shape)
