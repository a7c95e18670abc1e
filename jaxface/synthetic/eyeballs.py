"""Eyes of drawn people: what is seen between the lids is a sphere with an iris, which looks where the expression says.

The face model closes the opening with a surface that follows the lids. Of that the drawing takes only where it is; the
colours come from the eyeball behind, where the pixel's ray meets it. For one picture, made to be mapped over a batch.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxface.core import face_models
from jaxface.core.face_models import FaceModel
from jaxface.synthetic.dice import Dice
from jaxface.synthetic.lamps import to_linear, unit

RADIUS = 0.121
"""Of an eyeball in units: 24.2 mm across (Bekerman, Gottlieb and Vaiman 2014)."""

IRIS_RADIUS = 0.49
"""Of the iris, as a part of the eyeball's: 11.8 of 24.2 mm (Rufer, Schroder and Erb 2005)."""

TURNS = (30.0, 26.0)
"""Degrees sideways and up or down to which the eyeLook units at 1 turn an eye."""

IRISES = np.array(
    [
        [0.16, 0.09, 0.05],  # dark brown
        [0.27, 0.16, 0.08],  # brown
        [0.40, 0.27, 0.13],  # light brown
        [0.36, 0.33, 0.18],  # hazel, green
        [0.33, 0.41, 0.45],  # grey
        [0.28, 0.40, 0.55],  # blue
    ],
    np.float32,
)
"""Colours of irises, in pictures' own colour space."""

IRIS_SHARES = (0.42, 0.28, 0.1, 0.06, 0.05, 0.09)
"""How many people have each: most of mankind has brown eyes (about 79 %; Katsara and Nothnagel 2019)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Eyes:
    """What the two eyes of a person look like; both alike.

    Attributes:
        iris: [3] linear colour of the iris.
        pupil: [] radius of the pupil, as a part of the iris.
        white: [3] linear colour of the white.
        fibres: [16] brightness of the iris around its middle, about standard normal.
    """

    iris: Float[Array, "3"]
    pupil: Float[Array, ""]
    white: Float[Array, "3"]
    fibres: Float[Array, "16"]


def random_eyes(dice: Dice) -> Eyes:
    """Eyes of a random person."""
    colors = jnp.asarray(IRISES)
    color = colors[dice.pick(IRIS_SHARES)]
    color = color + 0.35 * dice.uniform() * (colors[dice.pick(IRIS_SHARES)] - color)
    white = jnp.array([0.72, 0.67, 0.64]) * (1 + 0.04 * dice.normal()) + 0.02 * dice.normal(3)
    return Eyes(to_linear(color), dice.uniform(low=0.28, high=0.6), to_linear(white), dice.normal(16))


def place_eyes(model: FaceModel, identity: Float[Array, "B Ki"]) -> Float[Array, "B 2 3"]:
    """Middles of the left and the right eyeball in model space: they lie behind the openings between the lids.

    How far is that of the ball that fits the mean face's opening; it goes along with each identity's.
    """
    centers = []
    for part in ("left_eye", "right_eye"):
        opening = face_models.shape_of_vertices(model, model.parts[part])
        mean = jnp.asarray(opening.mean_shape)
        front = mean[:, 2].max()
        # In the middle of the opening, a radius behind its foremost point and a trace more, so that no lid is touched.
        middle = (mean.min(0) + mean.max(0)) / 2
        behind = jnp.stack([middle[0], middle[1], front - RADIUS - 0.002])
        still = jnp.zeros((len(identity), model.expression_basis.shape[-1]))
        moved = face_models.shape(opening, identity, still).mean(1) - mean.mean(0)[None]
        centers.append(behind[None] + moved)
    return jnp.stack(centers, axis=1)


def gaze_tables(names: Sequence[str]) -> Float[np.ndarray, "2 Ke 2"]:
    """Degrees (yaw, pitch) by which each expression unit turns the left and the right eye, at 1."""
    table = np.zeros((2, len(names), 2), np.float32)
    directions = {"Up": (0, -1), "Down": (0, 1), "In": (-1, 0), "Out": (1, 0)}
    for eye, (side, outward) in enumerate((("Left", 1), ("Right", -1))):
        for direction, (across, down) in directions.items():
            name = f"eyeLook{direction}{side}"
            if name in names:
                table[eye, list(names).index(name)] = outward * across * TURNS[0], down * TURNS[1]
    return table


def eyeball_surface(
    eyes: Eyes,
    rays: Float[Array, "S S 3"],
    origin: Float[Array, "3"],
    centers: Float[Array, "2 3"],
    axes: Float[Array, "2 3 3"],
    left: Bool[Array, "S S"],
) -> tuple[Float[Array, "S S 3"], Float[Array, "S S 3"]]:
    """Linear colour and normal of the left or the right eyeball at every pixel, as if nothing hid it.

    Args:
        eyes: what both look like.
        rays: unit vectors from the camera through the pixels.
        origin: where the camera stands.
        centers: of the left and the right eyeball.
        axes: their rotations: column 2 is where an eye looks.
        left: which of the two a pixel is to show.
    """

    def own(values: Float[Array, "2 3"]) -> Float[Array, "S S 3"]:
        return jnp.where(left[..., None], values[0][None, None], values[1][None, None])

    toward = own(centers - origin[None])
    along = (rays * toward).sum(-1)
    # Where a ray misses the ball, the point that comes nearest to it.
    inside = jnp.maximum(RADIUS**2 - ((toward**2).sum(-1) - along**2), 0.0)
    normal = (along - jnp.sqrt(inside))[..., None] * rays - toward
    normal = unit(normal)
    gaze = own(axes[:, :, 2])
    x, y, front = ((normal * axis).sum(-1) for axis in (own(axes[:, :, 0]), own(axes[:, :, 1]), gaze))
    radius = jnp.where(front > 0, jnp.sqrt(x**2 + y**2 + 1e-12), 1.0) / IRIS_RADIUS
    position = 16 * (jnp.arctan2(y, x + 1e-9) / (2 * np.pi) + 0.5)
    cell = jnp.floor(position)
    low, high = (eyes.fibres[(cell.astype(jnp.int32) + step) % 16] for step in (0, 1))
    fibre = 1 + 0.14 * (low + (position - cell) * (high - low))
    ring = jnp.clip((1.0 - radius) / 0.16, 0.25, 1.0)  # the dark rim of the iris
    glow = 1 + 0.35 * jnp.clip((eyes.pupil + 0.3 - radius) / 0.3, 0.0, 1.0)  # lighter around the pupil
    dark = jnp.clip((eyes.pupil - radius) / 0.06 + 0.5, 0.0, 1.0)[..., None]
    iris = eyes.iris[None, None] * (fibre * ring * glow)[..., None] * (1 - dark) + 0.004 * dark
    edge = jnp.clip((1.0 - radius) / 0.1 + 0.5, 0.0, 1.0)[..., None]
    # Redder towards the corners, where the vessels are.
    red = jnp.clip((radius - 1.2) / 1.0, 0.0, 1.0)[..., None] * jnp.array([[[0.0, 0.22, 0.2]]])
    color = eyes.white[None, None] * (1 - red)
    color = color + edge * (iris - color)
    # The cornea stands out of the ball.
    lifted = normal + 0.55 * jnp.clip(1 - radius**2, 0.0, 1.0)[..., None] * (normal - gaze)
    return color, unit(lifted)
