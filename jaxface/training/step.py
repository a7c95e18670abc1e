"""The train step: image -> encoder -> coefficients -> loss -> gradient -> update, as one pure function."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Integer

from jaxface.core.face_models import FaceModel
from jaxface.core.units import to_float

Batch = Mapping[str, Array | np.ndarray]

Objective = Callable[[FaceModel, Array, Batch], tuple[Float[Array, ""], dict[str, Float[Array, ""]]]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that training changes.

    Attributes:
        step: [] number of updates made.
        params: the encoder's parameters.
        batch_stats: its running batch statistics.
        opt_state: Optax's state.
    """

    step: Integer[Array | np.ndarray, ""]
    params: Any
    batch_stats: Any
    opt_state: Any


def create_state(
    encoder: nn.Module, optimizer: optax.GradientTransformation, *, image_size: int, seed: int
) -> TrainState:
    """Fresh parameters for square images of `image_size` pixels; the same for the same seed."""
    # Batch statistics need no mapped axis here: with train=False none are computed.
    initialize = jax.jit(lambda key: encoder.init(key, jnp.zeros((1, image_size, image_size, 3)), train=False))
    variables = initialize(jax.random.key(seed))
    params = variables["params"]
    return TrainState(jnp.zeros((), jnp.int32), params, variables.get("batch_stats", {}), optimizer.init(params))


def make_train_step(
    encoder: nn.Module,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    *,
    axis_name: str | None = None,
) -> Callable[[TrainState, Batch, FaceModel], tuple[TrainState, dict[str, Float[Array, ""]]]]:
    """Builds train_step(state, batch, model) -> (state, metrics).

    A step whose loss or gradient is not finite leaves the state as it was and says so in metrics["skipped"]; every
    other number in the metrics is the mean over the global batch, before the update.

    Args:
        encoder: built with the same `axis_name`, so that batch statistics are those of the global batch.
        optimizer: any Optax gradient transformation.
        objective: objective(model, vector [B, K], batch) -> (mean loss, dict of mean terms).
        axis_name: mapped axis to average over (see parallel.py); None on one device.
    """

    def mean_over_devices(tree: Any) -> Any:
        return tree if axis_name is None else jax.lax.pmean(tree, axis_name)

    def train_step(state: TrainState, batch: Batch, model: FaceModel) -> tuple[TrainState, dict]:
        images = to_float(batch["image"])

        def loss_of(params: Any) -> tuple[Float[Array, ""], tuple[dict, Any]]:
            variables = {"params": params, "batch_stats": state.batch_stats}
            vector, updated = encoder.apply(variables, images, train=True, mutable=["batch_stats"])
            loss, terms = objective(model, vector, batch)
            return loss, (terms, updated.get("batch_stats", {}))

        (loss, (terms, batch_stats)), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        loss, terms, gradient = mean_over_devices((loss, terms, gradient))
        gradient_norm = optax.tree.norm(gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)

        finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
        updated = TrainState(state.step + 1, params, batch_stats, opt_state)
        kept = dataclasses.replace(state, step=state.step + 1)
        state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, kept)
        return state, {"loss": loss, **terms, "gradient_norm": gradient_norm, "skipped": 1.0 - finite}

    return train_step
