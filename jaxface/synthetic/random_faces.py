"""Random coefficients of plausible people: who they are, what face they pull, how they are lit and how they stand.

Positions follow the alignment of photos, so that a synthetic crop shows a face where a detector would have put it.
"""

import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxface.core import cameras, face_models
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients, joint_numbers
from jaxface.core.face_models import FaceModel
from jaxface.core.lighting import AMBIENT, spherical_harmonics
from jaxface.core.skinning import ANGLE_DEVIATION
from jaxface.photos.alignment import PIXELS_PER_UNIT
from jaxface.synthetic.dice import Dice
from jaxface.synthetic.people import People
from jaxface.synthetic.traits import random_traits, with_traits

# Share of each kind of expression, and the range of the units that make it (ARKit names without the side; a name with a
# side moves that side alone). The paper adds closed eyes, open mouths and frowns to its training data (section 3.4).
EXPRESSIONS: dict[str, tuple[float, dict[str, tuple[float, float]]]] = {
    "neutral": (0.12, {}),
    "mixed": (0.20, {}),
    "closed_eyes": (0.10, {"eyeBlink": (0.85, 1.0)}),
    "left_wink": (0.03, {"eyeBlinkLeft": (0.8, 1.0), "cheekSquintLeft": (0.0, 1.0), "mouthSmileLeft": (0.0, 0.6)}),
    "right_wink": (0.03, {"eyeBlinkRight": (0.8, 1.0), "cheekSquintRight": (0.0, 1.0), "mouthSmileRight": (0.0, 0.6)}),
    "open_mouth": (0.12, {"jawOpen": (0.45, 1.0), "mouthFunnel": (0.0, 0.4), "mouthStretch": (0.0, 0.4)}),
    "frown": (
        0.12,
        {"browDown": (0.5, 1.0), "mouthFrown": (0.2, 1.0), "noseSneer": (0.0, 0.6), "eyeSquint": (0.0, 0.6)},
    ),
    "smile": (
        0.16,
        {
            "mouthSmile": (0.5, 1.0),
            "cheekSquint": (0.0, 0.8),
            "mouthStretch": (0.0, 0.5),
            "mouthUpperUp": (0.0, 0.7),
            "mouthLowerDown": (0.0, 0.6),
            "jawOpen": (0.0, 0.3),
        },
    ),
    "surprise": (
        0.07,
        {"browInnerUp": (0.5, 1.0), "browOuterUp": (0.4, 1.0), "eyeWide": (0.4, 1.0), "jawOpen": (0.1, 0.6)},
    ),
    "pucker": (0.05, {"mouthPucker": (0.4, 1.0), "mouthFunnel": (0.0, 0.4)}),
}


# Units that alone would make a face nobody pulls (mouthClose undoes jawOpen), or that closed-over eyes cannot show.
NEVER_ALONE = ("mouthClose", "tongueOut", "eyeLook")


SKIN_OF_TRAITS = 1.2
"""The next two albedo coefficients, age and sex, of the oldest and of the most male; of the opposite with a minus."""


def random_coefficients(keys: Key[Array, "B"], model: FaceModel, people: People | None = None) -> Coefficients:
    """Draws one face per key, aligned as photos are.

    Args:
        keys: one random key per face; a face depends on its own key alone.
        model: the face model. Its expression coefficients are made by their names where it has artist's units, see
            `random_expression`, else standard normal.
        people: heads of the face model, which have skin tones. Then origins, sex, age and skin tones are drawn evenly
            (`traits`), there is a gaze, and heads are at times in profile, from above or below, or lying.
    """
    draw = jax.vmap(lambda key: _unaligned(Dice(key), model, people))
    coefficients, scale, shift = draw(keys)
    return coefficients.replace(translation=aligned_translation(model, coefficients, scale=scale, shift=shift))


def _unaligned(
    dice: Dice, model: FaceModel, people: People | None
) -> tuple[Coefficients, Float[Array, ""], Float[Array, "2"]]:
    if model.has_expression_units:
        expression = random_expression(dice, model.expression_labels)
        if people is not None:
            expression = jnp.maximum(expression, random_gaze(dice, model.expression_labels))
        expression = model.expression_bounds[1] * expression
    else:
        expression = dice.normal(model.expression_basis.shape[-1], limit=2.5)
    if joint_numbers(model):
        angles = ANGLE_DEVIATION * dice.normal(joint_numbers(model), limit=2.5)
        expression = jnp.concatenate([expression, angles])
    identity = dice.normal(model.identity_basis.shape[-1], limit=2.5)
    albedo = dice.normal(model.albedo_basis.shape[-1], limit=2.5)
    if people is not None:
        traits = random_traits(dice)
        identity = with_traits(people, identity, traits)
        # Each tone as often as the others: of normal numbers nine in ten would lie in the middle of the scale. It is
        # drawn apart from the origins, so that nobody's shape is learned from a colour; but skin has the head's age.
        tone = jnp.asarray(people.skin_tones)[dice.pick([1.0] * len(people.skin_tones))]
        mean = jnp.concatenate([tone, SKIN_OF_TRAITS * (2 * traits[np.array([4, 3])] - 1)])
        spread = np.array([0.25] * tone.shape[-1] + [0.5] * 2, np.float32)
        albedo = albedo.at[: mean.size].set(mean + spread * albedo[: mean.size])
    coefficients = Coefficients(
        identity=identity,
        expression=expression,
        albedo=albedo,
        angles=random_angles(dice, any_side=people is not None),
        light=random_light(dice),
        translation=jnp.zeros(3),
    )
    # What detectors get wrong, and what their habits differ in: a few per cent of scale, a few pixels of 224.
    return coefficients, jnp.exp(0.05 * dice.normal()), 4.0 * dice.normal(2)


def random_expression(dice: Dice, names: Sequence[str]) -> Float[Array, "Ke"]:
    """Expression coefficients in [0, 1]: one of EXPRESSIONS, plus a few units at random.

    Args:
        dice: random numbers.
        names: ARKit names such as "jawOpen" and "eyeBlinkLeft" (or "eyeBlink_L").
    """
    stems, low, high = _expression_tables(names)
    kind = dice.pick([share for share, _ in EXPRESSIONS.values()])
    # Both sides of a face mostly do the same.
    amount = 0.8 * dice.uniform(stems.max() + 1)[stems] + 0.2 * dice.uniform(stems.size)
    posed = low[kind] + (high - low)[kind] * amount
    alone = np.array([not name.startswith(NEVER_ALONE) for name in names])
    neutral = kind == list(EXPRESSIONS).index("neutral")
    active = (dice.uniform(stems.max() + 1) < jnp.where(neutral, 0.0, 0.1))[stems]
    stray = 0.7 * dice.uniform(stems.max() + 1)[stems] * jnp.sqrt(amount)
    return jnp.maximum(posed, jnp.where(active & alone, stray, 0.0))


def _expression_tables(
    names: Sequence[str],
) -> tuple[Int[np.ndarray, "Ke"], Float[Array, "M Ke"], Float[Array, "M Ke"]]:
    """Index of each unit's name without its side [Ke]; lowest and highest value per kind [M, Ke]."""
    sides = [re.sub(r"_?(L|R|Left|Right)$", r" \1", name).partition(" ")[::2] for name in names]
    # jawLeft and mouthLeft move the middle of the face to the left: no twins of jawRight and mouthRight.
    shared = [name if stem in ("jaw", "mouth") else stem for name, (stem, _) in zip(names, sides, strict=True)]
    stems = np.unique(shared, return_inverse=True)[1]
    full = [stem + {"L": "Left", "R": "Right"}.get(side, side) for stem, side in sides]
    ranges = np.array(
        [
            [units.get(name, units.get(stem, (0.0, 0.0))) for name, (stem, _) in zip(full, sides, strict=True)]
            for _, units in EXPRESSIONS.values()
        ],
        np.float32,
    )
    return stems, jnp.asarray(ranges[..., 0]), jnp.asarray(ranges[..., 1])


def random_gaze(dice: Dice, names: Sequence[str]) -> Float[Array, "Ke"]:
    """The eyeLook units of eyes that look one way, in [0, 1]; the other units are zero."""
    outward, down = jnp.array([0.3, 0.22]) * dice.normal(2, limit=3.0)
    # What each unit takes of the gaze to the image's right, and of the gaze down.
    table = np.zeros((len(names), 2), np.float32)
    for index, name in enumerate(names):
        match = re.fullmatch(r"eyeLook(In|Out|Up|Down)(Left|Right|_L|_R)", name)
        if match and match[1] in ("Up", "Down"):
            table[index, 1] = 1 if match[1] == "Down" else -1
        elif match:
            table[index, 0] = 1 if (match[1] == "Out") == (match[2] in ("Left", "_L")) else -1
    return jnp.clip(table @ jnp.stack([outward, down]), 0.0, 1.0)


def random_angles(dice: Dice, *, any_side: bool = False) -> Float[Array, "3"]:
    """Pitch, yaw and roll in radians: mostly near frontal, up to 65 degrees of yaw.

    Args:
        dice: random numbers.
        any_side: up to 90 degrees of yaw and 50 of pitch instead, and at times any roll.
    """
    turned, widest = (0.2, 90.0) if any_side else (0.15, 65.0)
    yaw = jnp.where(dice.chance(turned) > 0, dice.uniform(low=-widest, high=widest), 16.0 * dice.normal(limit=3.0))
    pitch, roll = jnp.array([9.0, 7.0]) * dice.normal(2, limit=3.0)
    if any_side:
        pitch = jnp.where(dice.chance(0.06) > 0, dice.uniform(low=-50.0, high=50.0), pitch)
        roll = jnp.where(dice.chance(0.04) > 0, dice.uniform(low=-180.0, high=180.0), roll)
    return jnp.deg2rad(jnp.stack([pitch, yaw, roll]))


def random_light(dice: Dice) -> Float[Array, "3 9"]:
    """Spherical-harmonics light: an even part and two lamps of random direction, strength and tint.

    A lamp shines as max(0, n . w), whose first three bands are 1/4, 1/2 and 5/16 of the Legendre polynomials of n . w
    (Ramamoorthi and Hanrahan 2001).
    """
    lamps = 2
    direction = dice.normal(lamps, 3) + jnp.array([[0.0, 0.5, 0.8]])
    direction = direction / jnp.linalg.norm(direction, axis=-1, keepdims=True)
    basis = spherical_harmonics(direction)
    band = np.array([0] + [1] * 3 + [2] * 5)
    norms = jnp.stack([jnp.sum(jnp.where((band == b)[None], basis**2, 0.0), axis=-1) for b in range(3)], axis=-1)
    lamp = basis * np.array([1 / 4, 1 / 2, 5 / 16], np.float32)[None, band] / norms[:, band]
    even = jnp.zeros(9).at[0].set(1.0 / spherical_harmonics(jnp.array([0.0, 0.0, 1.0]))[0])
    strength = dice.uniform(lamps) * jnp.array([1.0, 0.5])
    ambient = dice.uniform(low=0.35, high=1.0)
    tint = jnp.exp(0.06 * dice.normal(lamps + 1, 3))
    light = (ambient * tint[0])[:, None] * even[None] + jnp.einsum("l,lc,lk->ck", strength, tint[1:], lamp)
    # Cameras expose for the picture: the whole is scaled to a usual brightness.
    brightness = jnp.mean(light @ spherical_harmonics(jnp.array([0.0, 0.0, 1.0])))
    exposure = 0.95 * jnp.exp(0.22 * dice.normal())
    return light * exposure / brightness - AMBIENT * (jnp.arange(9) == 0)[None]


def aligned_translation(
    model: FaceModel, coefficients: Coefficients, *, scale: Float[Array, "B"], shift: Float[Array, "B 2"]
) -> Float[Array, "B 3"]:
    """The translation that puts each face where aligning its photo would have put it (see photos/alignment.py).

    The crop's scale becomes the face's distance and its offset the sideways shift; since perspective changes with the
    distance, a few rounds are needed.

    Args:
        model: the face model; its mean face is the template.
        coefficients: the faces; their translation is not used.
        scale: further enlargement of the picture, 1 for none.
        shift: further shift (x, y) in pixels of 224, y down.
    """
    camera = Camera()
    vertices = model.landmarks["68"][np.array([36, 39, 42, 45, 30, 48, 54])]
    small = face_models.shape_of_vertices(model, vertices)
    shape = face_models.shape(small, coefficients.identity, coefficients.expression)
    fit = jnp.linalg.pinv(jnp.concatenate([_five_points(small.mean_shape), jnp.ones((5, 1))], axis=-1))
    translation = jnp.zeros_like(coefficients.translation)
    for _ in range(4):
        posed = cameras.pose(shape, coefficients.angles, translation)
        points = cameras.project(cameras.to_camera_space(posed, camera), camera) - jnp.array(camera.center)[None, None]
        # Scaled-orthographic fit of the template: rows 0 to 2 hold scale x rotation, row 3 where its origin comes to.
        rows = jnp.einsum("ij,bjk->bik", fit, _five_points(points), precision=jax.lax.Precision.HIGHEST)
        pixels_per_unit = jnp.linalg.norm(rows[:, :3], axis=1).mean(-1)
        factor = PIXELS_PER_UNIT / pixels_per_unit * scale
        depth = camera.distance - translation[:, 2]
        origin = camera.focal * translation[:, :2] * jnp.array([[1.0, -1.0]]) / depth[:, None]
        moved = factor[:, None] * (origin - rows[:, 3]) + shift
        new_depth = depth / factor
        sideways = moved * jnp.array([[1.0, -1.0]]) * new_depth[:, None] / camera.focal
        translation = jnp.concatenate([sideways, camera.distance - new_depth[:, None]], axis=-1)
    return translation


def _five_points(points: Float[Array | np.ndarray, "*B 7 C"]) -> Float[Array, "*B 5 C"]:
    """Eyes (means of their corners), tip of the nose, corners of the mouth."""
    eyes = points[..., 0:4:2, :] / 2 + points[..., 1:4:2, :] / 2
    return jnp.concatenate([eyes, points[..., 4:, :]], axis=-2)
