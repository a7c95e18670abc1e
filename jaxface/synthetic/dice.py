"""Random numbers for code that needs many small draws of many kinds under one jit."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Key

CHUNK = 4096
"""Numbers of a kind that are drawn at once, at least."""


class Dice:
    """A row of random numbers that all follow from one key, handed out piece by piece while a function is traced.

    A hundred calls of jax.random would each be compiled on their own, which takes a minute; a few large draws cut into
    pieces take a second.
    """

    def __init__(self, key: Key[Array, ""]):
        self._key = key
        self._draws = 0
        self._rest = {jax.random.uniform: jnp.zeros(0), jax.random.normal: jnp.zeros(0)}

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Float[Array, "..."]:
        """Uniform numbers in [low, high)."""
        return low + (high - low) * self._take(jax.random.uniform, shape)

    def normal(self, *shape: int, limit: float = 5.0) -> Float[Array, "..."]:
        """Standard normal numbers, clipped to +- `limit`."""
        return jnp.clip(self._take(jax.random.normal, shape), -limit, limit)

    def _take(self, draw: Callable, shape: tuple[int, ...]) -> Float[Array, "..."]:
        count = math.prod(shape)
        if count > self._rest[draw].size:
            self._draws += 1
            self._rest[draw] = draw(jax.random.fold_in(self._key, self._draws), (max(count, CHUNK),))
        taken, self._rest[draw] = self._rest[draw][:count], self._rest[draw][count:]
        return taken.reshape(shape)

    def chance(self, probability: float) -> Float[Array, ""]:
        """1 with this probability, else 0."""
        return (self.uniform() < probability).astype(jnp.float32)

    def pick(self, shares: Sequence[float]) -> Integer[Array, ""]:
        """An index, with probabilities in proportion to `shares`."""
        edges = np.cumsum(shares, dtype=np.float64)
        return jnp.sum(self.uniform() >= jnp.asarray(edges[:-1] / edges[-1], jnp.float32))


def split_keys(keys: Key[Array, "B"], count: int) -> Key[Array, "{count} B"]:
    """So many keys of each, one after the other along the first axis."""
    return jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, count))(keys), 1, 0)
