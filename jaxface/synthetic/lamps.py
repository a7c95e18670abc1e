"""Light on drawn people, in linear colour: lamps, sky and ground, gloss, and shadows found in the picture itself.

Everything is for one picture, in posed model space (x right, y up, z towards the viewer; 10 cm), and made to be mapped
over a batch.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxface.synthetic.camera_effects import blur
from jaxface.synthetic.dice import Dice

GAMMA = 2.2
"""Between the linear colours in which light adds up and the colours of pictures."""

LAMPS = 3
"""A main lamp, which casts shadows, a weaker one, and one that stands behind the head at times."""

REFLECTANCE = 0.04
"""Of skin, eyes and wet teeth, seen straight on: that of water and fat (Schlick 1994)."""

BLEEDING = (0.35, 0.14, 0.08)
"""How far red, green and blue light wander under the skin, as a wrap of the lamp's cosine."""

SHADOW_STEPS = 12
"""Samples along the way from a surface to the lamp."""

SHADOW_REACH = 1.6
"""How far a shadow falls, in units: from a brow, nose or fringe, from the chin to the neck."""

THICKNESS = 0.7
"""Of what casts a shadow, in units: the picture does not tell it."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Lamps:
    """The light of one picture.

    Attributes:
        toward: [L, 3] unit vectors to the lamps, the main one first.
        color: [L, 3] their light on a surface that faces them.
        sky: [3] light from above.
        ground: [3] light from below.
        softness: [] blur of the main lamp's shadows, in units.
    """

    toward: Float[Array, "L 3"]
    color: Float[Array, "L 3"]
    sky: Float[Array, "3"]
    ground: Float[Array, "3"]
    softness: Float[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Surface:
    """What each pixel shows.

    Attributes:
        albedo: [S, S, 3] linear colour without light.
        normal: [S, S, 3] unit vectors.
        position: [S, S, 3] in space.
        gloss: [S, S] strength of the highlights, 1 for wet skin.
        sharpness: [S, S] exponent of the highlights: 10 dull, 200 wet.
        skin: [S, S] 1 where light wanders under the surface.
    """

    albedo: Float[Array, "S S 3"]
    normal: Float[Array, "S S 3"]
    position: Float[Array, "S S 3"]
    gloss: Float[Array, "S S"]
    sharpness: Float[Array, "S S"]
    skin: Float[Array, "S S"]


def random_lamps(dice: Dice) -> Lamps:
    """Light of everyday pictures: from an overcast day to a bare lamp at the side, from candle to blue sky."""
    normal = dice.normal(LAMPS, 3)
    front = normal[:2] + jnp.array([[0.0, 0.6, 0.9]])
    behind = normal[2:] * jnp.array([[1.0, 0.5, 0.3]]) + jnp.array([[0.0, 0.4, -0.8]])
    toward = unit(jnp.concatenate([front, behind]))
    ambient = jnp.exp(jnp.log(0.12) + dice.uniform() * jnp.log(0.9 / 0.12))
    strength = dice.uniform(LAMPS) * jnp.array([1.0, 0.45, 0.8]) * jnp.stack([1.0, 1.0, dice.chance(0.25)])
    # A row of tints from candle light to a blue sky, each lamp with its own.
    warmth = 0.10 * dice.normal(LAMPS + 2)
    tint = jnp.exp(warmth[:, None] * jnp.array([[1.0, 0.1, -1.0]]) + 0.02 * dice.normal(LAMPS + 2, 3))
    ground = dice.uniform(low=0.25, high=0.9)
    softness = 0.15 * dice.uniform() ** 2
    return Lamps(toward, strength[:, None] * tint[:LAMPS], ambient * tint[-2], ambient * ground * tint[-1], softness)


def light_surface(
    lamps: Lamps, surface: Surface, *, eye: Float[Array, "3"], lit: Float[Array, "S S"], openness: Float[Array, "S S"]
) -> tuple[Float[Array, "S S 3"], Float[Array, "S S"]]:
    """The light that each pixel sends to the camera, linear; and the light that falls on it, for the exposure.

    Lambert's law with light that wanders under skin, and Blinn and Phong's highlights with Schlick's reflectance.

    Args:
        lamps: the light.
        surface: what is lit.
        eye: where the camera stands.
        lit: the share of the main lamp that reaches a pixel.
        openness: the share of sky and ground that reaches a pixel.
    """
    normal, view = surface.normal, unit(eye[None, None] - surface.position)
    upward = 0.5 + 0.5 * normal[..., 1:2]
    sky, ground = lamps.sky[None, None], lamps.ground[None, None]
    ambient = openness[..., None] * (ground + upward * (sky - ground))
    facing = jnp.clip((normal * view).sum(-1), 0.0, 1.0)
    grazing = REFLECTANCE + (1 - REFLECTANCE) * (1 - facing) ** 5
    irradiance, shine = ambient, (0.5 * surface.gloss * grazing)[..., None] * ambient
    wrap = surface.skin[..., None] * jnp.array([[BLEEDING]])
    for lamp in range(LAMPS):
        reaching = lit if lamp == 0 else openness
        color = lamps.color[lamp][None, None]
        cosine = (normal @ lamps.toward[lamp])[..., None]
        # Light that comes out of the skin beside a shadow's edge has lost its green and blue.
        reaching = reaching[..., None]
        reaching = reaching * (1 + wrap * (1 - reaching))
        fallen = jnp.clip((cosine + wrap) / (1 + wrap), 0.0, 1.0) * reaching * color
        half = unit(lamps.toward[lamp][None, None] + view)
        mirrored = jnp.clip((normal * half).sum(-1), 1e-4, 1.0) ** surface.sharpness * (surface.sharpness + 8) / 8
        fresnel = REFLECTANCE + (1 - REFLECTANCE) * (1 - jnp.clip((view * half).sum(-1), 0.0, 1.0)) ** 5
        highlight = surface.gloss * mirrored * fresnel * jnp.clip(cosine[..., 0], 0.0, 1.0)
        irradiance = irradiance + fallen
        shine = shine + jnp.clip(highlight, 0.0, 4.0)[..., None] * reaching * color
    return surface.albedo * irradiance + shine, irradiance.mean(-1)


def cast_shadows(
    depth: Float[Array, "S S"],
    surface: Surface,
    toward: Float[Array, "3"],
    *,
    focal: Float[Array, ""],
    center: Float[Array, "2"],
    distance: Float[Array, ""],
    jitter: Float[Array, "S S"],
    softness: Float[Array, ""],
) -> Float[Array, "S S"]:
    """The share of a lamp that reaches each pixel: its way to the lamp is followed through the depths of the picture.

    Sees only what the picture shows, so that a shadow ends where its cause leaves the picture.

    Args:
        depth: distance along the camera's axis, infinite where there is nothing.
        surface: what is lit.
        toward: unit vector to the lamp.
        focal: of the camera, in pixels.
        center: its principal point in pixels.
        distance: from the camera to the origin, in units.
        jitter: random numbers in [0, 1), which break up the steps.
        softness: blur of the shadows' edges in units.
    """
    size = depth.shape[0]
    start = surface.position + 0.02 * surface.normal
    shadow = jnp.zeros_like(depth)
    for step in range(SHADOW_STEPS):
        way = 0.02 + SHADOW_REACH * ((step + jitter) / SHADOW_STEPS) ** 2
        x, y, z = (start[..., axis] + way * toward[axis] for axis in range(3))
        along = jnp.maximum(distance - z, 0.1)
        column = jnp.floor(center[0] + focal * x / along).astype(jnp.int32)
        row = jnp.floor(center[1] - focal * y / along).astype(jnp.int32)
        outside = (column < 0) | (column >= size) | (row < 0) | (row >= size)
        found = depth[jnp.clip(row, 0, size - 1), jnp.clip(column, 0, size - 1)]
        behind = along - found
        least = 0.015 + 0.04 * way
        hit = jnp.clip((behind - least) / least, 0.0, 1.0) * jnp.clip((THICKNESS - behind) / 0.2, 0.0, 1.0)
        fading = jnp.clip(2.5 * (1 - way / SHADOW_REACH), 0.0, 1.0)
        shadow = jnp.maximum(shadow, jnp.where(outside, 0.0, hit * fading))
    spread = jnp.clip(softness * focal / distance, 0.5, 2.5 + 0.0 * softness)
    return 1 - blur(shadow[..., None], spread)[..., 0]


def openness_to_sky(
    depth: Float[Array, "S S"], seen: Float[Array, "S S"], *, pixels_per_unit: Float[Array, ""]
) -> Float[Array, "S S"]:
    """The share of the surroundings' light that reaches each pixel: hollows, and what lies behind, get less.

    A pixel's depth is compared with the mean of its surroundings at two scales.

    Args:
        depth: distance along the camera's axis; anything where nothing is seen.
        seen: 1 where something is seen.
        pixels_per_unit: pixels that one unit covers.
    """
    level = jnp.where(seen > 0, depth, 0.0)
    level = level - level.sum() / jnp.maximum(seen.sum(), 1.0) * seen
    total = jnp.zeros_like(depth)
    for width, weight in ((0.07, 3.5), (0.28, 1.1)):
        around = blur(jnp.stack([level, seen], axis=-1), width * pixels_per_unit)
        mean = around[..., 0] / jnp.maximum(around[..., 1], 1e-3)
        total = total + weight * jnp.clip(level - mean, 0.0, 0.3)
    return seen * jnp.exp(-total) + (1 - seen)


def unit(vectors: Float[Array, "*N 3"]) -> Float[Array, "*N 3"]:
    """Vectors of length 1; zero stays zero."""
    return vectors * jax.lax.rsqrt(jnp.maximum((vectors**2).sum(-1, keepdims=True), 1e-12))


def best_harmonics(
    colors: Float[Array, "S S 3"],
    albedo: Float[Array, "S S 3"],
    basis: Float[Array, "S S 9"],
    weight: Float[Array, "S S"],
) -> Float[Array, "3 9"]:
    """The spherical harmonics that explain a lit face best: the light of the sample's coefficients.

    Lamps, gloss and shadows have no nine coefficients; the photometric loss is to see those that leave it the least.

    Args:
        colors: of the picture, not linear.
        albedo: the model's, likewise.
        basis: the nine functions at each pixel's normal, see `lighting.spherical_harmonics`.
        weight: of the pixels; 0 leaves one out.

    Returns:
        Coefficients per channel of the whole light, `lighting.AMBIENT` included.
    """
    rows = basis.reshape(-1, 9)
    light = []
    for channel in range(3):
        scaled = rows * (albedo[..., channel] * jnp.sqrt(weight)).reshape(-1, 1)
        target = (colors[..., channel] * jnp.sqrt(weight)).reshape(-1)
        square = jnp.matmul(scaled.T, scaled, precision=jax.lax.Precision.HIGHEST)
        damping = 1e-3 * jnp.trace(square) / 9 + 1e-6
        light.append(jnp.linalg.solve(square + damping * jnp.eye(9), scaled.T @ target))
    return jnp.stack(light)


def to_linear(colors: Float[Array, "*N 3"] | np.ndarray) -> Float[Array, "*N 3"]:
    """From a picture's colours to linear ones; clipped to what a surface can have."""
    return jnp.clip(jnp.asarray(colors), 0.004, 0.98) ** GAMMA
