"""The surface of a drawn person at each pixel: skin with pores and beard, eyes, mouth, and what is worn."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, UInt8

from jaxface.core import cameras, parts
from jaxface.core.face_models import FaceModel
from jaxface.synthetic import lamps
from jaxface.synthetic.dice import Dice
from jaxface.synthetic.eyeballs import eyeball_surface
from jaxface.synthetic.looks import Looks
from jaxface.synthetic.people import SLOTS
from jaxface.synthetic.people_fragments import DECALS, Bodies, Pixels

NOISE_SIZE, NOISE_PER_UNIT = 256, 110.0
"""Texels of the tile of skin texture, and how many of them lie along 10 cm: pores are some millimetre apart."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Viewpoint:
    """The camera of each picture.

    Attributes:
        focal: in pixels.
        center: principal point in pixels.
        distance: to the origin, in units.
    """

    focal: Float[Array, "*B"]
    center: Float[Array, "*B 2"]
    distance: Float[Array, "*B"]


def paint_surface(
    dice: Dice,
    looks: Looks,
    pixels: Pixels,
    bodies: Bodies,
    angles: Float[Array, "3"],
    turns: Float[Array, "2 2"],
    camera: Viewpoint,
) -> tuple[lamps.Surface, Float[Array, "F F"], Float[Array, "F F"]]:
    """What is seen at each pixel of a picture, 1 inside the mouth, and the coverage of a beard.

    Args:
        dice: random numbers.
        looks: of the person.
        pixels: what lies where.
        bodies: the person.
        angles: of the head in radians.
        turns: (yaw, pitch) of the left and the right eye in the head, in radians.
        camera: of the picture.
    """
    size = pixels.labels.shape[0]
    albedo, normal, place = (pixels.attributes[..., low : low + 3] for low in (0, 3, 6))
    normal = lamps.unit(normal)
    is_face = pixels.uncut > 0
    inner = ((pixels.uncut == parts.FOREHEAD) & (pixels.attributes[..., 10] > 0.5)).astype(jnp.float32)
    lips = (pixels.uncut == parts.LABELS["upper_lip"]) | (pixels.uncut == parts.LABELS["lower_lip"])
    eyes = (pixels.uncut == parts.LABELS["left_eye"]) | (pixels.uncut == parts.LABELS["right_eye"])
    skin = (1 - inner) * (1 - eyes)

    hair = looks.hair[None, None]

    # Fine texture that sticks to the skin: uneven colour and pores.
    texture = _texture_at(place, shift=dice.uniform(2))
    grain, blotch, tilt = texture[..., 0:1], texture[..., 1:2], texture[..., 2:4]
    redness = jnp.array([[[0.02, -0.035, -0.03]]])
    uneven = 1 + looks.pores * skin[..., None] * (0.05 * grain + 0.04 * blotch + redness * blotch)
    albedo = albedo * uneven
    where = pixels.attributes[..., 9] * is_face * skin * ~lips
    # Hairs run down the cheeks: a texel is four times as high as wide.
    strands = _texture_at(place, shift=dice.uniform(2), stretch=(0.45, 1.7))[..., 0:1]
    dense = 2.4 * looks.beard - 0.2 + (0.08 * blotch + 0.22 * strands)[..., 0]
    bearded = jnp.where(looks.beard > 0, jnp.clip(where * dense, 0.0, 1.0), 0.0)
    albedo = albedo * (1 - looks.stubble * where * (0.8 + 0.15 * grain[..., 0]))[..., None]
    albedo = albedo + bearded[..., None] * (hair * (0.55 + 0.2 * strands) - albedo)
    normal = normal + (0.06 * looks.pores * skin)[..., None] * jnp.pad(tilt, ((0, 0), (0, 0), (0, 1)))

    rays, origin = _rays(size, camera)
    color, bulged = _eyeballs(looks, pixels, bodies, angles, turns, rays=rays, origin=origin)
    albedo, normal = jnp.where(eyes[..., None], color, albedo), jnp.where(eyes[..., None], bulged, normal)

    depth = front_depth(pixels)
    depth = jnp.where(jnp.isfinite(depth), depth, camera.distance)
    position = origin[None, None] + rays * depth[..., None]
    away = lamps.unit(position - bodies.skull[None, None])
    albedo, normal = _dressed(looks, pixels, albedo, normal, away)

    worn, hairy = (pixels.slot >= 0)[..., None], pixels.slot == SLOTS.index("hair")
    wet = jnp.maximum(inner, eyes.astype(jnp.float32))
    gloss = looks.oil * (0.55 + 0.35 * lips) * (1 + 0.2 * grain[..., 0])
    gloss = jnp.where(worn[..., 0], jnp.where(hairy, 0.3, 0.12), gloss * (1 - bearded)) + wet * (1 - worn[..., 0])
    sharpness = jnp.where(wet > 0, 180.0, jnp.where(hairy, 18.0, 16.0 + 20.0 * lips))
    through = skin * (1 - worn[..., 0]) * (1 - bearded)
    return lamps.Surface(albedo, normal, position, gloss, sharpness, through), inner * (1 - worn[..., 0]), bearded


def _rays(size: int, camera: Viewpoint) -> tuple[Float[Array, "F F 3"], Float[Array, "3"]]:
    """Where the pixels look, as vectors that go one unit along the camera's axis, and where the camera stands."""
    row, column = jnp.meshgrid(jnp.arange(size) + 0.5, jnp.arange(size) + 0.5, indexing="ij")
    rays = jnp.stack(
        [(column - camera.center[0]) / camera.focal, (camera.center[1] - row) / camera.focal, -jnp.ones_like(row)], -1
    )
    return rays, jnp.array([0.0, 0.0, 1.0]) * camera.distance


def _eyeballs(
    looks: Looks,
    pixels: Pixels,
    bodies: Bodies,
    angles: Float[Array, "3"],
    turns: Float[Array, "2 2"],
    *,
    rays: Float[Array, "F F 3"],
    origin: Float[Array, "3"],
) -> tuple[Float[Array, "F F 3"], Float[Array, "F F 3"]]:
    """Colours and normals of the eyeballs, as if all pixels showed them."""
    unit_rays = lamps.unit(rays)
    gaze = jnp.stack([turns[:, 1], turns[:, 0], jnp.zeros(2)], axis=-1)
    axes = cameras.rotation_matrix(angles)[None] @ cameras.rotation_matrix(gaze)
    left = pixels.uncut == parts.LABELS["left_eye"]
    return eyeball_surface(looks.eyes, unit_rays, origin, bodies.eyes, axes, left)


def _dressed(
    looks: Looks,
    pixels: Pixels,
    albedo: Float[Array, "F F 3"],
    normal: Float[Array, "F F 3"],
    away: Float[Array, "F F 3"],
) -> tuple[Float[Array, "F F 3"], Float[Array, "F F 3"]]:
    """Colours and unit normals with what is worn; `away` from the middle of the head is where its hair faces."""
    hair, frame, dye = (color[None, None] for color in (looks.hair, looks.frame, looks.dye))
    tone = pixels.texel[..., :3]
    gray = tone.mean(-1, keepdims=True)
    locks = hair * (0.25 + 1.5 * gray)
    painted = {
        "hair": locks,
        "brows": 0.55 * locks,
        "lashes": 0.02 + 0.0 * tone,
        "hat": lamps.to_linear(tone) * dye[..., ::-1],
        "clothes": lamps.to_linear(tone) * dye,
        "glasses": frame + 0.0 * tone,
    }
    for name, color in painted.items():
        here = (pixels.slot == SLOTS.index(name))[..., None]
        albedo = jnp.where(here, color, albedo)
        if name == "hair":
            normal = jnp.where(here, away + 0.35 * pixels.card_normal + 0.5 * (gray - 0.5), normal)
        elif name not in ("brows", "lashes"):
            normal = jnp.where(here, pixels.card_normal, normal)
    return albedo, lamps.unit(normal)


def front_depth(pixels: Pixels) -> Float[Array, "F F"]:
    """Depth of what is seen, decals included; infinite where nothing is."""
    solid = jnp.where(pixels.solid.triangle >= 0, pixels.solid.depth, jnp.inf)
    return jnp.where(pixels.slot >= 0, pixels.cards.depth, solid)


def hides_face(pixels: Pixels) -> Bool[Array, "*B F F"]:
    """Where something is worn that hides face and head."""
    return (pixels.slot >= 0) & ~is_worn(pixels.slot, DECALS)


def is_worn(slot: Integer[Array, "*B F F"], names: tuple[str, ...]) -> Bool[Array, "*B F F"]:
    """Where something of these slots is worn."""
    return functools.reduce(jnp.logical_or, [slot == SLOTS.index(name) for name in names])


def shows_face(classes: UInt8[Array, "F F"]) -> Bool[Array, "F F"]:
    """Where the face's own label holds: its parts, forehead, inner mouth, and the beard, which grows on it."""
    names = ("inner_mouth", "beard")
    return (classes < 10) | functools.reduce(jnp.logical_or, [classes == parts.CLASSES.index(n) for n in names])


def classify(pixels: Pixels, looks: Looks, inner: Array, bearded: Array, faces: int) -> UInt8[Array, "F F"]:
    """Per pixel an index into `parts.CLASSES`; of the mesh's triangles the first `faces` are the face's."""
    index = parts.CLASSES.index
    other_skin = jnp.where(pixels.solid.triangle >= faces, index("other_skin"), index("background"))
    classes = jnp.where(pixels.labels > 0, pixels.labels, other_skin)
    classes = jnp.where(bearded > 0.5, jnp.where(classes == parts.LABELS["skin"], index("beard"), classes), classes)
    classes = jnp.where(inner > 0, index("inner_mouth"), classes)
    for slot, name in (("hair", "hair"), ("hat", "other"), ("clothes", "other"), ("glasses", "glasses")):
        classes = jnp.where(pixels.slot == SLOTS.index(slot), index(name), classes)
    return jnp.where(dark_glass(pixels, looks), index("glasses"), classes).astype(jnp.uint8)


def dark_glass(pixels: Pixels, looks: Looks) -> Bool[Array, "*B F F"]:
    """Where glasses are too dark to see through."""
    tint = looks.tint[..., None, None] if looks.tint.ndim else looks.tint
    return (pixels.lens > 0) & (tint > 0.5)


@functools.cache
def _texture() -> np.ndarray:
    """A tile [N, N, 4] of noise with periodic edges, standard normal: fine, coarse, and two slopes."""
    rng = np.random.default_rng(0)
    row, column = np.meshgrid(np.fft.fftfreq(NOISE_SIZE), np.fft.fftfreq(NOISE_SIZE), indexing="ij")
    frequency = np.hypot(row, column)
    channels = []
    for low, high in ((0.08, 0.35), (0.005, 0.05), (0.06, 0.3), (0.06, 0.3)):
        band = np.exp(-((frequency / high) ** 2)) - np.exp(-((frequency / low) ** 2))
        noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=frequency.shape)) * band).real
        channels.append(np.clip(noise / noise.std(), -3, 3))
    return np.stack(channels, -1).astype(np.float32)


def _texture_at(
    place: Float[Array, "F F 3"], *, shift: Float[Array, "2"], stretch: tuple[float, float] = (1.0, 1.0)
) -> Float[Array, "F F 4"]:
    """The skin's texture at positions before the pose, nearest texel; it runs around the head."""
    around = jnp.arctan2(place[..., 0], place[..., 2] + 1.1) * 1.1
    texel = jnp.stack([stretch[0] * place[..., 1], stretch[1] * around], -1) * NOISE_PER_UNIT
    texel = jnp.floor(texel + (shift * NOISE_SIZE)[None, None]).astype(jnp.int32) % NOISE_SIZE
    return jnp.asarray(_texture())[texel[..., 0], texel[..., 1]]


def inside_of_mouth(model: FaceModel) -> Float[Array, "V"]:
    """1 for vertices of teeth, tongue and the mouth's cavity: those near the lips that belong to no part."""
    shape, corners = model.mean_shape, model.mean_shape[model.landmarks["68"][48:]]
    inner = jnp.ones(len(shape)).at[jnp.concatenate([model.parts[part] for part in parts.PARTS])].set(0.0)
    middle, wide = corners.mean(0), 0.62 * jnp.ptp(corners[:, 0])
    near = jnp.abs(shape[:, :2] - middle[None, :2]) < jnp.stack([wide, jnp.float32(0.3)])[None]
    return inner * near.all(-1)


def beard_growth(model: FaceModel) -> Float[Array, "V"]:
    """Where beards grow on the face: 1 below the nose and from the corners of the mouth up to the ears."""
    shape, landmarks = model.mean_shape, model.mean_shape[model.landmarks["68"]]
    x = (shape[:, 0] - landmarks[8, 0]) / jnp.max(jnp.abs(landmarks[:17, 0] - landmarks[8, 0]))
    cheek, ear = 0.25 * jnp.exp(-(((jnp.abs(x) - 0.5) / 0.15) ** 2)), 0.6 * jnp.maximum(jnp.abs(x) - 0.6, 0.0)
    line = landmarks[33, 1] + ear - cheek
    return jnp.clip((line - shape[:, 1]) / 0.12, 0.0, 1.0) * jnp.zeros_like(x).at[model.parts["skin"]].set(1.0)
