"""Losses of dense answers: points with their uncertainty, what is seen of them, and classes of pixels."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

FAR = 3.0
"""Standard deviations beyond which an error counts linearly: one lost point is not to outweigh all others."""


def point_likelihood_loss(
    position: Float[Array, "B P 2"], whitening: Float[Array, "B P 3"], truth: Float[Array | np.ndarray, "B P 2"]
) -> Float[Array, "B"]:
    """Mean negative log-likelihood of points under Gaussians (Wood et al. 2022), less constants; Huber's beyond `FAR`.

    Args:
        position: means.
        whitening: numbers (a, b, c) of W = [[a, 0], [c, b]], a and b positive: W (x - position) is standard normal.
        truth: the points.
    """
    error = jnp.asarray(truth) - position
    a, b, c = (whitening[..., i] for i in range(3))
    squared = (a * error[..., 0]) ** 2 + (c * error[..., 0] + b * error[..., 1]) ** 2
    # The root of what is nearer would have no gradient at zero, and is not needed there.
    distance = jnp.sqrt(jnp.maximum(squared, FAR**2))
    energy = jnp.where(squared < FAR**2, 0.5 * squared, FAR * distance - 0.5 * FAR**2)
    return (energy - jnp.log(a) - jnp.log(b)).mean(-1)


def visibility_loss(logits: Float[Array, "B P"], seen: Float[Array | np.ndarray, "B P"]) -> Float[Array, "B"]:
    """Mean binary cross-entropy of log odds; `seen` is 1 or 0."""
    return (jax.nn.softplus(logits) - logits * jnp.asarray(seen)).mean(-1)


def class_loss(
    logits: Float[Array, "B h w L"],
    classes: Integer[Array | np.ndarray, "B H W"],
    weights: Float[np.ndarray, "L"],
) -> Float[Array, "B"]:
    """Mean cross-entropy of blocks of pixels against the shares that the classes have in them, by the pixels' weights.

    An edge through a block is told by its shares: interpolated, such logits place it more finely than the blocks.

    Args:
        logits: of the classes; H and W are multiples of h and w.
        classes: of the pixels.
        weights: of the classes.
    """
    batch, height, width, count = logits.shape
    down, across = classes.shape[1] // height, classes.shape[2] // width
    blocks = jnp.asarray(classes).reshape(batch, height, down, width, across)
    shares = jax.nn.one_hot(blocks, count, dtype=logits.dtype).mean((2, 4))
    weighted = shares * jnp.asarray(weights, logits.dtype)[None, None, None]
    weight = weighted.sum(-1)
    energy = weight * jax.nn.logsumexp(logits, axis=-1) - (weighted * logits).sum(-1)
    return energy.sum((-2, -1)) / weight.sum((-2, -1))


def spread_loss(
    error: Float[Array, "B K"], log_spread: Float[Array, "B K"], weights: Float[np.ndarray, "K"]
) -> Float[Array, "B"]:
    """Negative log-likelihood of errors under zero-mean Gaussians of given standard deviations, less constants.

    Args:
        error: predicted less true coefficients.
        log_spread: logarithm of the standard deviation of each.
        weights: of the coefficients.
    """
    likelihood = 0.5 * (error * jnp.exp(-log_spread)) ** 2 + log_spread
    return (likelihood * jnp.asarray(weights)[None]).sum(-1)
