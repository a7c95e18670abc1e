"""What drawn people look like besides their face: hair, beard, eyes, clothes, glasses, hats, and how they stand."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from jaxface.synthetic.dice import Dice
from jaxface.synthetic.eyeballs import Eyes, random_eyes
from jaxface.synthetic.lamps import to_linear
from jaxface.synthetic.people import People
from jaxface.synthetic.surroundings import HAIR_COLORS, random_color

HAIR_SHARES = (0.34, 0.24, 0.16, 0.08, 0.06, 0.09, 0.03)
"""How many people have each of `surroundings.HAIR_COLORS`: three of four of mankind have black or dark brown hair."""

DARK_SKIN_HAIR_SHARES = (0.66, 0.22, 0.03, 0.0, 0.01, 0.08, 0.0)
"""The same for people of dark skin."""

WORN = {"hat": 0.06, "glasses": 0.2}
"""How many people have each; the other slots but hair all have."""

BALD_MEN, BALD_WOMEN = 0.16, 0.02
"""How many of them show no hair on their heads."""

GRAY = 0.7
"""How many of the oldest are grey, beside those who are anyway; of the young nobody, between a share by age."""

HAIR_OVER_EYES = 0.04
"""How many people's hair may hang over their eyes; the others' ends above: real people want to see."""

SUNGLASSES, BEARD = 0.15, 0.35
"""How many of the glasses are dark, and how many men have a beard."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Looks:
    """The looks of one person.

    Attributes:
        styles: per slot of `people.SLOTS`, the index of what is worn; 0 for nothing.
        hair: [3] linear colour of the hair; brows are a little darker.
        dye: [3] factor on the colours of the clothes.
        fringe: [2] height and slope of the line that hair in the face ends at, see `people.wear`.
        beard: [] density, 0 for none to 1 for a full one.
        stubble: [] of its shadow on shaven skin.
        oil: [] how much the skin shines.
        pores: [] strength of the skin's fine texture.
        frame: [3] linear colour of the glasses' frame.
        tint: [] how much light their lenses take.
        body: [2] the part of the head's pitch and yaw that the body follows.
        eyes: what the eyes look like.
    """

    styles: dict[str, Integer[Array, ""]]
    hair: Float[Array, "3"]
    dye: Float[Array, "3"]
    fringe: Float[Array, "2"]
    beard: Float[Array, ""]
    stubble: Float[Array, ""]
    oil: Float[Array, ""]
    pores: Float[Array, ""]
    frame: Float[Array, "3"]
    tint: Float[Array, ""]
    body: Float[Array, "2"]
    eyes: Eyes


def random_looks(dice: Dice, people: People, skin: Float[Array, "3"], traits: Float[Array, "5"]) -> Looks:
    """Looks of a random person.

    Args:
        dice: random numbers.
        people: what there is to wear.
        skin: the mean colour of the person's skin, not linear.
        traits: of the person, see `traits.TRAITS`.
    """
    man, old = traits[3] > 0.5, jnp.clip(traits[4], 0.0, 1.0)
    dark = skin.mean() < 0.42
    colors = jnp.asarray(HAIR_COLORS)
    picks = jnp.where(dark, dice.pick(DARK_SKIN_HAIR_SHARES), dice.pick(HAIR_SHARES))
    other = jnp.where(dark, dice.pick(DARK_SKIN_HAIR_SHARES), dice.pick(HAIR_SHARES))
    hair = colors[picks] + 0.3 * dice.uniform() * (colors[other] - colors[picks])
    gray = (dice.uniform() < GRAY * old**1.5) * dice.uniform(low=0.3, high=1.0)
    hair = hair + gray * (dice.uniform(low=0.45, high=0.85) - hair)
    styles = {name: 1 + dice.pick([1.0] * (len(slot.names) - 1)) for name, slot in people.slots.items()}
    worn = {name: dice.chance(share).astype(jnp.int32) for name, share in WORN.items()}
    worn["hair"] = (dice.uniform() > jnp.where(man, BALD_MEN, BALD_WOMEN)).astype(jnp.int32)
    styles = {name: style * worn.get(name, 1) for name, style in styles.items()}
    bearded = man * dice.chance(BEARD)
    height = jnp.where(dice.chance(HAIR_OVER_EYES) > 0, -2.0, dice.uniform(low=0.4, high=0.85))
    dyed = jnp.exp(0.25 * dice.normal()) * jnp.exp(0.12 * dice.normal(3))
    return Looks(
        styles=styles | {"lenses": styles["glasses"]},
        hair=to_linear(hair),
        dye=dyed,
        fringe=jnp.stack([height, 0.15 * dice.normal()]),
        beard=bearded * dice.uniform(low=0.2, high=1.0),
        stubble=man * 0.35 * dice.uniform() * dice.chance(0.5),
        oil=dice.uniform(low=0.15, high=1.0),
        pores=dice.uniform(low=0.3, high=1.3),
        frame=to_linear(0.7 * random_color(dice) ** 2),
        tint=jnp.where(dice.chance(SUNGLASSES) > 0, dice.uniform(low=0.75, high=0.97), dice.uniform(high=0.1)),
        body=dice.uniform(2, low=0.1, high=1.0),
        eyes=random_eyes(dice),
    )
