"""The face model as a Flax module, with bases that are frozen or learned."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jaxface.core.coefficients import Coefficients
from jaxface.core.face_models import FaceModel, albedo, shape


class MorphableModel(nn.Module):
    """The face model as a Flax module: its bases are variables, frozen or learned.

    Frozen (the default), they live in the collection "face_model"; with `trainable=True` in "params", so that any Optax
    optimizer refines them together with the encoder that feeds it.

    Attributes:
        initial: the face model that the variables start from.
        trainable: whether its bases are learned.
    """

    initial: FaceModel
    trainable: bool = False

    @nn.compact
    def __call__(self, coefficients: Coefficients) -> tuple[Float[Array, "B V 3"], Float[Array, "B V 3"]]:
        """Returns shape [B, V, 3] in model units and albedo [B, V, 3] of `coefficients`."""
        names = ("mean_shape", "identity_basis", "expression_basis", "mean_albedo", "albedo_basis")
        arrays = {name: self._array(name, getattr(self.initial, name)) for name in names}
        model = dataclasses.replace(self.initial, **arrays)  # type: ignore[arg-type]
        return shape(model, coefficients.identity, coefficients.expression), albedo(model, coefficients.albedo)

    def _array(self, name: str, value: Array | np.ndarray) -> Array:
        if self.trainable:
            return self.param(name, lambda _: jnp.asarray(value))
        return self.variable("face_model", name, lambda: jnp.asarray(value)).value
