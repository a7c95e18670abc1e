"""Random numbers for code that needs many small draws of many kinds under one jit."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Key

CHUNK = 4096


class Dice:
    """A row of random numbers that all follow from one key, handed out piece by piece while a function is traced.

    A hundred calls of jax.random would each be compiled on their own, which takes a minute; a few large draws cut into
    pieces take a second.
    """

    def __init__(self, key: Key[Array, ""]):
        self._key = key
        self._draws = 0
        self._rest: Float[Array, N] = jnp.zeros(0)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Float[Array, "..."]:
        """Uniform numbers in [low, high)."""
        count = math.prod(shape)
        if count > self._rest.size:
            self._draws += 1
            self._rest = jax.random.uniform(jax.random.fold_in(self._key, self._draws), (max(count, CHUNK),))
        taken, self._rest = self._rest[:count], self._rest[count:]
        return low + (high - low) * taken.reshape(shape)

    def normal(self, *shape: int, limit: float = 5.0) -> Float[Array, "..."]:
        """Standard normal numbers, cut at +- `limit`."""
        reach = math.erf(limit / math.sqrt(2))
        return math.sqrt(2) * jax.lax.erf_inv(self.uniform(*shape, low=-reach, high=reach))

    def chance(self, probability: float) -> Float[Array, ""]:
        """1 with this probability, else 0."""
        return (self.uniform() < probability).astype(jnp.float32)

    def pick(self, shares: Sequence[float]) -> Integer[Array, ""]:
        """An index, with probabilities in proportion to `shares`."""
        edges = np.cumsum(shares, dtype=np.float64)
        return jnp.sum(self.uniform() >= jnp.asarray(edges[:-1] / edges[-1], jnp.float32))
