"""What lies behind a synthetic face: a scene, shoulders, neck, ears, the head and its hair."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxface.synthetic.dice import Dice
from jaxface.synthetic.drawing import HeadFrame, cover, ellipse, noise, octaves, paint

HAIR_COLORS = np.array(
    [
        [0.05, 0.04, 0.04],  # black
        [0.11, 0.08, 0.06],
        [0.24, 0.15, 0.09],  # brown
        [0.38, 0.25, 0.13],
        [0.62, 0.47, 0.27],  # blond
        [0.55, 0.54, 0.53],  # grey
        [0.42, 0.19, 0.09],  # red
    ],
    np.float32,
)
"""From black to blond, grey and red."""

HAIR_SHARES = (0.25, 0.25, 0.2, 0.1, 0.1, 0.06, 0.04)
"""How many people have each of HAIR_COLORS."""


def random_color(dice: Dice) -> Float[Array, "3"]:
    """A colour of everyday things: any brightness, seldom vivid."""
    color = dice.uniform(3)
    gray = color.mean()
    return gray + dice.uniform() ** 1.5 * (color - gray)


def random_scene(dice: Dice, size: int) -> Float[Array, "S S 3"]:
    """A background: a gradient, blurred shapes and structure at several scales, from plain to busy."""
    row, column = jnp.meshgrid(jnp.linspace(-1, 1, size), jnp.linspace(-1, 1, size), indexing="ij")
    position = jnp.stack([column, row], axis=-1)
    first, second = random_color(dice), random_color(dice)
    angle = 2 * np.pi * dice.uniform()
    ramp = jnp.clip(0.5 + 0.5 * (position @ jnp.stack([jnp.cos(angle), jnp.sin(angle)])), 0.0, 1.0)
    image = first[None, None] + (dice.uniform() * ramp)[..., None] * (second - first)[None, None]
    for _ in range(4):
        center, radii = dice.uniform(2, low=-1.1, high=1.1), dice.uniform(2, low=0.1, high=0.9)
        edge = ellipse(position, center, radii, squareness=0.6) / dice.uniform(low=0.03, high=0.5)
        image = paint(image, jnp.clip(edge + 0.5, 0.0, 1.0) * dice.chance(0.6), random_color(dice))
    busy = dice.uniform(high=0.2) * dice.chance(0.6)
    return jnp.clip(image + busy * (octaves(dice, size, 1) + 0.3 * octaves(dice, size, 3)), 0.0, 1.0)


def random_hair(dice: Dice, size: int, brightness: Float[Array, ""]) -> Float[Array, "S S 3"]:
    """A picture full of hair: strands from top to bottom in one colour.

    Args:
        dice: random numbers.
        size: side in pixels.
        brightness: of the light, 1 for a usual one.
    """
    colors = jnp.asarray(HAIR_COLORS)
    color = colors[dice.pick(HAIR_SHARES)]
    color = color + 0.3 * dice.uniform() * (colors[dice.pick(HAIR_SHARES)] - color)
    strands = 0.25 * noise(dice, size, (5, 48), 1) + 0.3 * noise(dice, size, (4, 6), 1)
    return jnp.clip(color[None, None] * brightness * (1.1 + strands), 0.0, 1.0)


def paint_head(
    dice: Dice,
    image: Float[Array, "S S 3"],
    frame: HeadFrame,
    *,
    chin: Float[Array, "2"],
    ears: Float[Array, "2 2"],
    skin: Float[Array, "3"],
    hair: Float[Array, "S S 3"],
) -> Float[Array, "S S 3"]:
    """Paints shoulders, neck, the back of the head with its hair, and ears; the face goes on top.

    Args:
        dice: random numbers.
        image: the scene.
        frame: head frame.
        chin: head position of the chin.
        ears: head positions where the face meets the ears.
        skin: the skin's colour under the picture's light.
        hair: picture of hair.
    """
    position = frame.position
    waves = 0.06 * noise(dice, image.shape[0], (9, 9), 1)[..., 0]
    # The skull is narrower than deep (about 15 by 19 cm), so that a turned head looks wider.
    across = jnp.hypot(0.79 * jnp.cos(frame.yaw), 0.96 * jnp.sin(frame.yaw))
    volume, long_hair = dice.uniform(high=0.18), dice.chance(0.35)
    fall = jnp.stack([across + 0.1 + volume, dice.uniform(low=1.0, high=1.7)])
    fallen = ellipse(position, jnp.array([0.0, -0.55]), fall, squareness=0.4)
    image = paint(image, long_hair * cover(fallen + waves, frame), 0.8 * hair)

    # The jaw shades the neck.
    shade = dice.uniform(low=0.5, high=0.9) + 0.35 * jnp.clip((chin[1] - position[..., 1]) / 0.6, 0.0, 1.0)
    neck_radii = jnp.stack([dice.uniform(low=0.45, high=0.75), jnp.float32(1.3)])
    neck = ellipse(position, jnp.stack([chin[0] * 0.4, chin[1] - 0.3]), neck_radii, squareness=1.0)
    image = paint(image, cover(neck, frame), skin[None, None] * shade[..., None])
    cloth = random_color(dice)[None, None] * (1 + 0.12 * octaves(dice, image.shape[0], 1))
    middle = jnp.stack([chin[0] * 0.5, chin[1] - dice.uniform(low=1.5, high=2.0)])
    shoulders = ellipse(position, middle, jnp.array([2.1, 1.05]), squareness=0.3)
    image = paint(image, cover(shoulders, frame), jnp.clip(cloth, 0.0, 1.0))

    head = ellipse(position, jnp.array([0.0, 0.12]), jnp.stack([across, jnp.float32(1.03)]))
    image = paint(image, cover(head, frame), 0.75 * skin)
    crown = ellipse(position, jnp.array([0.0, 0.1]), jnp.stack([across + volume, 1.08 + 1.2 * volume]))
    cap = jnp.minimum(crown, position[..., 1] + dice.uniform(low=-0.05, high=0.55))
    image = paint(image, (1 - dice.chance(0.1)) * cover(cap + waves, frame), hair)
    shown = 1 - long_hair * dice.chance(0.6)
    for ear in ears:
        image = paint(image, shown * cover(ellipse(position, ear, jnp.array([0.13, 0.3])), frame), 0.85 * skin)
    return image
