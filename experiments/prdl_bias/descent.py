"""Adam from the true coefficients on, and how the faces' results are summed up."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from faces import Faces, decode
from jaxtyping import Array, Float
from tqdm import tqdm

import jaxface
from jaxface.core.coefficients import vector_sizes
from jaxface.core.units import MM_PER_UNIT
from jaxface.fitting.descent import RATES

LossAndGradient = Callable[[Float[Array, "B K"]], tuple[Float[Array, "B"], Float[Array, "B K"]]]
"""PRDL alone, and the gradient of all that is minimised."""


def adam(start, loss_and_gradient: LossAndGradient, rates, steps: int, progress: tqdm):
    """Adam, its rate falling to zero along a cosine.

    Args:
        start: [B, K].
        loss_and_gradient: of what is minimised.
        rates: [K] first steps.
        steps: how many.
        progress: told of each.

    Returns:
        [B, K] the end; [B] the loss at the start and at the end.
    """
    vector, state = start, _optimizer(steps).init(start)
    first, gradient = loss_and_gradient(vector)
    for _ in range(steps):
        change, state = _update(gradient, state, steps=steps)
        vector = vector + rates[None] * change
        last, gradient = loss_and_gradient(vector)
        progress.update()
    return vector, first, last


def descend(faces: Faces, loss_and_gradient: LossAndGradient, steps: int, progress: tqdm):
    """Adam over all coefficients with the fit's rates, from the truth on.

    Returns:
        [B] PRDL at the truth and in the end; [B] errors of the vertices in mm and of the image points in px.
    """
    model, truth = faces.model, faces.coefficients.to_vector()
    rates = jnp.asarray(np.repeat(np.float32(list(RATES.values())), vector_sizes(model)))
    vector, before, after = adam(truth, loss_and_gradient, rates, steps, progress)
    points, _, shape = decode(model, jaxface.Coefficients.from_vector(vector, model))
    mm = MM_PER_UNIT * jnp.linalg.norm(shape - faces.shape, axis=-1).mean(-1)
    px = jnp.linalg.norm(points - faces.points, axis=-1).mean(-1)
    return before, after, mm, px


def _optimizer(steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(1.0, steps))


@functools.partial(jax.jit, static_argnames="steps")
def _update(gradient, state, *, steps: int):
    return _optimizer(steps).update(gradient, state)


def summary(values) -> dict[str, float]:
    """Median and mean over the faces."""
    return dict(zip(("median", "mean"), rounded([np.median(values), np.mean(values)]), strict=True))


def rounded(values) -> list[float]:
    """Four digits are more than the faces' spread supports."""
    return [float(f"{value:.4g}") for value in np.asarray(values, np.float64).ravel()]
