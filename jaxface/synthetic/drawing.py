"""Soft shapes and noise on a grid of pixels: what the synthetic pictures' surroundings are painted with.

A shape is a coverage map [S, S] in [0, 1]. Everything is for one picture and made to be mapped over a batch.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxface.synthetic.dice import Dice


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HeadFrame:
    """Where the pixels of a picture lie as seen from the head: x along the eyes, y up, in model units (10 cm).

    Attributes:
        position: [S, S, 2] each pixel's centre; the origin is the middle of the head, behind the bridge of the nose.
        origin: [2] the middle of the head in pixels.
        roll: the head's roll in radians.
        yaw: the head's yaw in radians.
        pixels_per_unit: pixels that one unit covers at the head's distance.
    """

    position: Float[Array, "S S 2"]
    origin: Float[Array, "2"]
    roll: Float[Array, ""]
    yaw: Float[Array, ""]
    pixels_per_unit: Float[Array, ""]

    def locate(self, points: Float[Array, "*N 2"]) -> Float[Array, "*N 2"]:
        """Image points in pixels (y down) as head positions."""
        right, up = points[..., 0] - self.origin[0], self.origin[1] - points[..., 1]
        cos, sin = jnp.cos(self.roll), jnp.sin(self.roll)
        return jnp.stack([cos * right + sin * up, cos * up - sin * right], axis=-1) / self.pixels_per_unit


def head_frame(
    origin: Float[Array, "2"],
    angles: Float[Array, "3"],
    pixels_per_unit: Float[Array, ""],
    *,
    size: int,
) -> HeadFrame:
    """The head frame of a `size` x `size` picture."""
    row, column = jnp.meshgrid(jnp.arange(size) + 0.5, jnp.arange(size) + 0.5, indexing="ij")
    frame = HeadFrame(jnp.zeros((size, size, 2)), origin, angles[2], angles[1], pixels_per_unit)
    return dataclasses.replace(frame, position=frame.locate(jnp.stack([column, row], axis=-1)))


def cover(
    inside: Float[Array, "S S"], frame: HeadFrame, *, blur: Float[Array, ""] | float = 0.0
) -> Float[Array, "S S"]:
    """Coverage from a signed distance to a shape's edge, in units, positive inside; `blur` (units) softens the edge."""
    width = jnp.maximum(blur * frame.pixels_per_unit, 1.0)
    return jnp.clip(inside * frame.pixels_per_unit / width + 0.5, 0.0, 1.0)


def ellipse(
    position: Float[Array, "S S 2"],
    center: Float[Array, "2"],
    radii: Float[Array, "2"],
    *,
    squareness: Float[Array, ""] | float = 0.0,
) -> Float[Array, "S S"]:
    """About the signed distance to an ellipse, positive inside; at `squareness` 1 nearly a rectangle."""
    squared = ((position - center[None, None]) / radii[None, None]) ** 2
    radius = jnp.sqrt(squared[..., 0] + squared[..., 1])
    if not isinstance(squareness, float) or squareness:
        boxy = jnp.sqrt(jnp.sqrt(squared[..., 0] ** 2 + squared[..., 1] ** 2))
        radius = radius + squareness * (boxy - radius)
    return (1.0 - radius) * jnp.min(radii)


def segment(
    position: Float[Array, "S S 2"], start: Float[Array, "2"], end: Float[Array, "2"], radius: Float[Array, ""] | float
) -> Float[Array, "S S"]:
    """Signed distance to a line segment with round ends, positive inside."""
    along, offset = end - start, position - start[None, None]
    share = jnp.clip(offset @ along / jnp.maximum(along @ along, 1e-9), 0.0, 1.0)
    return radius - jnp.linalg.norm(offset - share[..., None] * along[None, None], axis=-1)


def polygon(position: Float[Array, "S S 2"], corners: Float[Array, "N 2"]) -> Float[Array, "S S"]:
    """1 inside a closed polygon (even-odd rule), 0 outside."""
    x, y = position[..., 0, None], position[..., 1, None]
    ax, ay = corners[None, None, :, 0], corners[None, None, :, 1]
    bx, by = (jnp.roll(a, -1, axis=-1) for a in (ax, ay))
    level = jnp.where(by == ay, 1.0, by - ay)
    crossing = ((ay > y) != (by > y)) & (x < ax + (y - ay) / level * (bx - ax))
    return (crossing.sum(-1) % 2).astype(jnp.float32)


def paint(
    image: Float[Array, "S S 3"], coverage: Float[Array, "S S"], color: Float[Array, "3"] | Float[Array, "S S 3"]
) -> Float[Array, "S S 3"]:
    """Lays a colour, or a picture, over the image where `coverage` is 1."""
    color = jnp.broadcast_to(color, image.shape) if color.ndim == 3 else color[None, None]
    return image + coverage[..., None] * (color - image)


def noise(dice: Dice, size: int, cells: tuple[int, int], channels: int) -> Float[Array, "S S C"]:
    """Smooth random values, about standard normal, with `cells` (rows, columns) bumps over the picture."""
    # Two small matrix products instead of a gather per pixel.
    rows, columns = (jnp.asarray(_resampling(count, size)) for count in cells)
    return jnp.einsum("hr,rcx,wc->hwx", rows, dice.normal(*cells, channels), columns)


def _resampling(count: int, size: int) -> np.ndarray:
    """Matrix [size, count] that blends `count` values into `size` pixels by overlapping bells, of unit variance."""
    position, middle = np.linspace(0, count - 1, size), np.arange(count)
    bells = np.exp(-0.5 * ((position[:, None] - middle[None]) / 0.6) ** 2)
    return (bells / np.linalg.norm(bells, axis=1, keepdims=True)).astype(np.float32)


def octaves(dice: Dice, size: int, channels: int) -> Float[Array, "S S C"]:
    """Smooth noise at four scales with random strengths, about standard normal."""
    strength = dice.uniform(4) ** 2 + 0.02
    layers = [noise(dice, size, (cells, cells), channels) for cells in (2, 4, 8, 16)]
    return 1.5 * sum(share * layer for share, layer in zip(strength / strength.sum(), layers, strict=True))
