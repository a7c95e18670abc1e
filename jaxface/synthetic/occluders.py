"""What lies over a synthetic face: hair on the forehead, glasses, hands and other things.

Each function takes the picture and the coverage of what hides the face so far, and returns both with its own added.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxface.synthetic.dice import Dice
from jaxface.synthetic.drawing import HeadFrame, cover, ellipse, noise, octaves, paint, segment
from jaxface.synthetic.surroundings import random_color

Layer = tuple[Float[Array, "S S 3"], Float[Array, "S S"]]


def _put(layer: Layer, coverage: Float[Array, "S S"], color: Float[Array, "..."]) -> Layer:
    image, hidden = layer
    return paint(image, coverage, color), jnp.maximum(hidden, coverage)


def add_fringe(
    dice: Dice,
    layer: Layer,
    canonical: Float[Array, "S S 2"],
    face: Float[Array, "S S"],
    hair: Float[Array, "S S 3"],
) -> Layer:
    """Hair over the upper edge of the face, down to the brows at times, and along the cheeks at times.

    Args:
        dice: random numbers.
        layer: picture and what is hidden.
        canonical: where each pixel lies on the mean face: x from -1 to 1 between the ears, y 0 at the brows and 1 at
            the upper edge.
        face: 1 where the face is.
        hair: picture of hair.
    """
    x, y = canonical[..., 0], canonical[..., 1]
    middle = dice.uniform(low=0.55, high=1.5) - 0.5 * dice.chance(0.12)
    arch, parting = dice.uniform(high=0.8), dice.uniform(low=-0.5, high=0.5)
    ragged = 0.1 * noise(dice, face.shape[0], (10, 20), 1)[..., 0]
    over = y + ragged - middle + arch * jnp.minimum((x - parting) ** 2, 1.0)
    side = dice.uniform(2, low=0.7, high=0.98)
    edge = jnp.where(x > 0, side[0], side[1]) + 0.5 * ragged
    sides = jnp.where(dice.chance(0.3) > 0, jnp.abs(x) - edge, -1.0)
    coverage = jnp.clip(jnp.maximum(over, sides) / 0.06 + 0.5, 0.0, 1.0) * face
    return _put(layer, coverage * dice.chance(0.85), hair)


def add_glasses(
    dice: Dice, layer: Layer, frame: HeadFrame, eyes: Float[Array, "2 2"], ears: Float[Array, "2 2"]
) -> Layer:
    """Glasses on some faces: two rims, a bridge and arms, with clear or dark lenses.

    Args:
        dice: random numbers.
        layer: picture and what is hidden.
        frame: head frame.
        eyes: head positions of the eyes, the one of smaller x first.
        ears: head positions where the face meets the ears, likewise.
    """
    worn, dark = dice.chance(0.15), dice.chance(0.2)
    radii = dice.uniform(2) * jnp.array([0.07, 0.09]) + jnp.array([0.25, 0.17])
    radii = radii * jnp.stack([jnp.maximum(jnp.cos(frame.yaw), 0.3), jnp.float32(1.0)])
    squareness = dice.uniform()
    thickness = jnp.maximum(dice.uniform(low=0.01, high=0.04), 0.5 / frame.pixels_per_unit)
    color = 0.6 * random_color(dice) ** 2
    tint = jnp.where(dark > 0, dice.uniform(low=0.8, high=1.0), dice.uniform(high=0.12))
    # Lenses stand about 12 mm in front of the eyes.
    centers = eyes + jnp.stack([0.12 * jnp.sin(frame.yaw), jnp.float32(-0.02)])[None]
    rims, lenses = jnp.zeros_like(layer[1]), jnp.zeros_like(layer[1])
    for center in centers:
        inside = ellipse(frame.position, center, radii, squareness=squareness)
        rims = jnp.maximum(rims, cover(thickness - jnp.abs(inside), frame))
        lenses = jnp.maximum(lenses, cover(inside, frame))
    reach, lift = jnp.stack([radii[0], jnp.float32(0.0)]), jnp.array([0.0, 0.05])
    bars = [
        (centers[0] + reach + lift, centers[1] - reach + lift),
        (centers[0] - reach + lift, ears[0] + 2 * lift),
        (centers[1] + reach + lift, ears[1] + 2 * lift),
    ]
    # The arm on the far side of a turned head is behind it.
    seen = jnp.stack([jnp.float32(1.0), (frame.yaw > -0.15) * 1.0, (frame.yaw < 0.15) * 1.0])
    for (start, end), visible in zip(bars, seen, strict=True):
        rims = jnp.maximum(rims, visible * cover(segment(frame.position, start, end, thickness), frame))
    image, hidden = layer
    image = paint(image, worn * tint * lenses, jnp.where(dark > 0, 0.08, 0.6) * jnp.ones(3))
    return _put((image, jnp.maximum(hidden, worn * dark * lenses)), worn * rims, color)


def add_object(dice: Dice, layer: Layer, frame: HeadFrame, skin: Float[Array, "3"]) -> Layer:
    """Something in front of some faces: a blob, a bar or a hand.

    Args:
        dice: random numbers.
        layer: picture and what is hidden.
        frame: head frame.
        skin: the skin's colour under the picture's light.
    """
    # On a ring around the middle of the face, so that it mostly hides a border and rarely the whole.
    angle, away = 2 * np.pi * dice.uniform(), dice.uniform(low=0.65, high=1.2)
    center = jnp.array([0.0, -0.35]) + away * jnp.stack([0.8 * jnp.cos(angle), 1.1 * jnp.sin(angle)])
    turn = 2 * np.pi * dice.uniform()
    cos, sin = jnp.cos(turn), jnp.sin(turn)
    offset = frame.position - center[None, None]
    local = jnp.stack([cos * offset[..., 0] + sin * offset[..., 1], cos * offset[..., 1] - sin * offset[..., 0]], -1)
    radii = dice.uniform(2, low=0.15, high=0.5)
    blob = ellipse(local, jnp.zeros(2), radii, squareness=0.3)
    bar = 0.25 * radii[0] - jnp.abs(local[..., 1])
    hand = ellipse(local, jnp.array([0.0, -0.45]), jnp.array([0.42, 0.45]), squareness=0.6)
    for finger in range(4):
        x = -0.31 + 0.205 * finger
        tip = jnp.array([1.15 * x, 0.75 - 0.12 * abs(finger - 1.4)])
        hand = jnp.maximum(hand, segment(local, jnp.array([x, -0.3]), tip, 0.095))
    kind = dice.pick((0.4, 0.2, 0.4))
    shape = jnp.stack([blob, bar, hand])[kind]
    # Fingers are rounded: darker towards their edges.
    rounded = 0.7 + 0.35 * jnp.clip(shape / 0.09, 0.0, 1.0)
    plain = random_color(dice)[None, None] * (1 + 0.15 * octaves(dice, local.shape[0], 1))
    color = jnp.where(kind == 2, skin[None, None] * rounded[..., None], plain)
    return _put(layer, dice.chance(0.22) * cover(shape, frame), jnp.clip(color, 0.0, 1.0))
