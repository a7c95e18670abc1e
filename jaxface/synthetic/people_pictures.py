"""Pictures of drawn people: whole heads with skin, eyes, teeth, hair and clothes, under lamps that cast shadows.

Geometry is drawn first (people_fragments); colour then is a matter of pixels. What is known of a pixel comes from the
same fragments, so that it is exact.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, Key, UInt8

from jaxface.core import lighting, parts
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients
from jaxface.core.face_models import FaceModel, albedo
from jaxface.synthetic import lamps
from jaxface.synthetic.camera_effects import photograph
from jaxface.synthetic.dice import Dice, split_keys
from jaxface.synthetic.drawing import head_frame
from jaxface.synthetic.eyeballs import gaze_tables
from jaxface.synthetic.looks import Looks, random_looks
from jaxface.synthetic.occluders import add_object
from jaxface.synthetic.people import People
from jaxface.synthetic.people_fragments import Bodies, Pixels, draw_fragments, visible_landmarks, visible_points
from jaxface.synthetic.people_surfaces import (
    Viewpoint,
    beard_growth,
    classify,
    dark_glass,
    front_depth,
    hides_face,
    inside_of_mouth,
    paint_surface,
    shows_face,
)
from jaxface.synthetic.random_faces import random_coefficients
from jaxface.synthetic.surroundings import random_scene
from jaxface.synthetic.traits import read_traits

SHARPEST = 0.5
"""Blur of the sharpest lens in pixels: a pixel is drawn from one sample, and edges would be stairs without it."""

SHAKEN = 0.08
"""Share of pictures that a moving hand took."""

NO_POINTS = np.zeros(0, np.int32)
"""No vertices: nobody asks where they are."""

DISTANCES = 3.5, 25.0
"""Of the cameras in units: a phone in the hand to a lens of 135 mm."""


def draw_crops(
    keys: Key[Array, "B"],
    model: FaceModel,
    people: People,
    triangle_labels: UInt8[Array | np.ndarray, "T"],
    *,
    size: int,
    surface: Integer[Array | np.ndarray, "P"] = NO_POINTS,
    details: bool = False,
) -> dict[str, Array]:
    """Random people, cut out as photos are: the training data. Made to be jitted.

    They were photographed from 35 cm to 2.5 m away; `translation` among their coefficients is that of a face which the
    usual camera, 1 m away, sees at the same place and size.

    Args:
        keys: one random key per picture; it depends on its own key alone.
        model: the face model.
        people: heads and what they wear, of that face model.
        triangle_labels: from `render.label_triangles`.
        size: side S of the crops in pixels.
        surface: as for `draw_people`.
        details: likewise.

    Returns:
        As `draw_people`, and focal [B], the focal length in pixels.
    """
    keys = split_keys(keys, 3)
    coefficients = random_coefficients(keys[0], model, people)
    nearness = jax.vmap(lambda key: jax.random.uniform(key, (1,)))(keys[1])
    usual = Camera().resized(size)
    farther = DISTANCES[0] * (DISTANCES[1] / DISTANCES[0]) ** nearness / usual.distance  # times as far away as usual
    stretched = coefficients.translation.at[:, 2].multiply(farther[:, 0])
    placed, camera = coefficients.replace(translation=stretched), usual.stretched(farther)
    sample = draw_people(keys[2], model, people, triangle_labels, placed, camera, surface=surface, details=details)
    told = Coefficients.from_vector(sample["coefficients"], model).replace(translation=coefficients.translation)
    return sample | {"coefficients": told.to_vector(), "focal": usual.focal * farther[:, 0]}


def random_people(keys: Key[Array, "B"], model: FaceModel, people: People) -> tuple[Coefficients, Looks]:
    """The coefficients and the looks of the people whom `draw_crops` draws by these keys."""
    first, _, last = split_keys(keys, 3)
    coefficients = random_coefficients(first, model, people)
    return coefficients, _looks_of(split_keys(last, 3)[0], model, people, coefficients)


def _looks_of(keys: Key[Array, "B"], model: FaceModel, people: People, coefficients: Coefficients) -> Looks:
    skin, traits = skin_color(model, coefficients.albedo), read_traits(people, coefficients.identity)
    return jax.vmap(lambda key, *known: random_looks(Dice(key), people, *known))(keys, skin, traits)


def skin_color(model: FaceModel, coefficients: Float[Array, "B Ka"]) -> Float[Array, "B 3"]:
    """The mean colour of faces' skin, not linear."""
    return albedo(model, coefficients)[:, model.parts["skin"]].mean(1)


def draw_people(
    keys: Key[Array, "B"],
    model: FaceModel,
    people: People,
    triangle_labels: UInt8[Array | np.ndarray, "T"],
    coefficients: Coefficients,
    camera: Camera,
    *,
    surface: Integer[Array | np.ndarray, "P"] = NO_POINTS,
    details: bool = False,
) -> dict[str, Array]:
    """Draws one picture per key of people with given faces. Made to be jitted.

    Args:
        keys: one random key per picture; it depends on its own key and coefficients alone.
        model: the face model.
        people: heads and what they wear, of that face model.
        triangle_labels: from `render.label_triangles`.
        coefficients: the faces; their light is not looked at.
        camera: of the square pictures; numbers [B, 1] give each its own.
        surface: vertices of the face whose image points are wanted.
        details: tells all that is known of each pixel.

    Returns:
        A batch in the layout of photos/samples.py, whose coefficients hold the light that explains a picture best, and
        classes [B, S, S], per pixel an index into `parts.CLASSES`,
        landmark_visible [B, 68], 1 for what nothing hides,
        surface_points [B, P, 2] of the vertices `surface` in pixels, and surface_visible [B, P].
        With `details` also triangle [B, S, S] of the face model (-1: something else is seen), barycentric [B, S, S, 3],
        depth [B, S, S] in model units (0: background), normal [B, S, S, 3]. Dark glass, and what was painted over the
        picture in the end, such as a hand, have triangle -1 and the depth of what they hide.
    """
    model, people, triangle_labels, surface = jax.tree.map(jnp.asarray, (model, people, triangle_labels, surface))
    keys = split_keys(keys, 3)
    looks = _looks_of(keys[0], model, people, coefficients)
    rough = jax.vmap(lambda key: jax.random.uniform(key, camera.image_size, minval=0.15, maxval=0.85))(keys[2])
    pixels, bodies = draw_fragments(
        model,
        people,
        triangle_labels,
        coefficients,
        camera,
        styles=looks.styles,
        body=looks.body,
        fringe=looks.fringe,
        carried=jnp.stack([beard_growth(model), inside_of_mouth(model)], -1),
        thresholds=rough,
    )
    hides = hides_face(pixels)
    nearest = jnp.where(pixels.solid.triangle >= 0, pixels.solid.depth, jnp.inf)
    nearest = jnp.where(hides, pixels.cards.depth, nearest)
    open_to = jnp.where(dark_glass(pixels, looks), 0.0, nearest)
    landmarks, visible = visible_landmarks(model, bodies, open_to, coefficients.angles[:, 2])
    spread = jnp.broadcast_to(surface[None], (len(keys[0]), surface.size))
    surface_points, surface_visible = visible_points(bodies, spread, open_to)
    turns = jnp.deg2rad(jnp.einsum("bk,ekc->bec", coefficients.expression, gaze_tables(model.expression_labels)))
    batch = len(coefficients.identity)
    focal, distance, across, down = (
        jnp.broadcast_to(value, (batch, 1))[:, 0] for value in (camera.focal, camera.distance, *camera.center)
    )
    viewpoints = Viewpoint(focal, jnp.stack([across, down], -1), distance)
    paint = functools.partial(_paint, faces=len(model.triangles))
    drawn = jax.vmap(paint)(keys[1], looks, pixels, bodies, coefficients.angles, turns, nearest, viewpoints)
    light = drawn.pop("light").at[:, :, 0].add(-lighting.AMBIENT)
    painted_over = drawn.pop("painted_over")
    inside, open_there = _inside_and_open(landmarks, painted_over)
    surface_inside, surface_open = _inside_and_open(surface_points, painted_over)
    sample = {
        "image": jnp.round(255 * drawn["image"]).astype(jnp.uint8),
        "labels": drawn["labels"],
        "landmarks": landmarks,
        "landmark_weights": inside.astype(jnp.float32),
        "coefficients": coefficients.replace(light=light).to_vector(),
        "has_coefficients": jnp.ones(batch),
        "classes": drawn["classes"],
        "landmark_visible": visible * inside * open_there,
        "surface_points": surface_points,
        "surface_visible": surface_visible * surface_inside * surface_open,
    }
    known = ("triangle", "barycentric", "depth", "normal") if details else ()
    return sample | {name: drawn[name] for name in known}


def _inside_and_open(
    points: Float[Array, "B P 2"], painted_over: Bool[Array, "B S S"]
) -> tuple[Bool[Array, "B P"], Bool[Array, "B P"]]:
    """Which image points lie in the picture, and which where nothing was painted over it in the end."""
    size = painted_over.shape[-1]
    inside = ((points >= 0) & (points <= size)).all(-1)
    column, row = (jnp.clip(jnp.floor(points[..., axis]).astype(jnp.int32), 0, size - 1) for axis in (0, 1))
    return inside, ~painted_over[jnp.arange(len(points))[:, None], row, column]


def _paint(
    key: Key[Array, ""],
    looks: Looks,
    pixels: Pixels,
    bodies: Bodies,
    angles: Float[Array, "3"],
    turns: Float[Array, "2 2"],
    nearest: Float[Array, "F F"],
    camera: Viewpoint,
    *,
    faces: int,
) -> dict[str, Array]:
    """Colours one picture; see `draw_people` for what comes back."""
    dice, size = Dice(key), len(nearest)
    light = lamps.random_lamps(dice)
    surface, inner, bearded = paint_surface(dice, looks, pixels, bodies, angles, turns, camera)
    depth = front_depth(pixels)
    seen = jnp.isfinite(depth).astype(jnp.float32)
    lit = lamps.cast_shadows(
        depth,
        surface,
        light.toward[0],
        focal=camera.focal,
        center=camera.center,
        distance=camera.distance,
        jitter=dice.uniform(*depth.shape),
        softness=light.softness,
    )
    scale = camera.focal / camera.distance
    openness = lamps.openness_to_sky(jnp.where(seen > 0, depth, camera.distance), seen, pixels_per_unit=scale)
    openness = openness * (1 - 0.45 * inner)
    eye = jnp.array([0.0, 0.0, 1.0]) * camera.distance
    linear, fallen = lamps.light_surface(light, surface, eye=eye, lit=lit, openness=openness)
    linear = _through_glasses(dice, linear, pixels.lens, looks.tint)

    # Cameras expose for the face: for the light, and in part for how much of it the skin sends back.
    of_face = ((pixels.labels > 0) & (pixels.slot < 0)).astype(jnp.float32)
    seen_face = jnp.maximum(of_face.sum(), 1.0)
    light_there, skin_there = ((v * of_face).sum() / seen_face for v in (fallen, surface.albedo.mean(-1)))
    exposure = 0.72 * jnp.exp(0.22 * dice.normal()) / (light_there + 0.02) * (0.3 / (skin_there + 0.03)) ** 0.4
    colors = _film(exposure * linear)
    skin = of_face * (1 - jnp.clip(pixels.lens + bearded, 0.0, 1.0)) * surface.skin

    scene = random_scene(dice, size)
    gray = scene.mean(-1, keepdims=True)
    scene = gray + dice.uniform() * (scene - gray)  # what stands behind people is seldom vivid
    image = jnp.where(seen[..., None] > 0, colors, scene)
    classes = classify(pixels, looks, inner, bearded, faces)
    labels = jnp.where(shows_face(classes), pixels.labels, parts.BACKGROUND)
    mean_skin = jnp.einsum("hw,hwc->c", skin, colors) / jnp.maximum(skin.sum(), 1.0)
    frame = head_frame(_project(bodies.skull, camera), angles, scale, size=size)
    image, hidden = add_object(dice, (image, jnp.zeros((size, size))), frame, mean_skin)
    image = photograph(dice, image, sharpest=SHARPEST, shaken=SHAKEN)
    hidden = hidden > 0.5
    labels = jnp.where(hidden, parts.BACKGROUND, labels)
    labels = parts.uncut_without_brows(labels, pixels.uncut)
    some = slice(None, None, 2)  # every other row and column tells the light as well
    plain, normal, weight = (values[some, some] for values in (surface.albedo, surface.normal, skin))
    plain, basis = jnp.clip(plain, 0.0, 1.0) ** (1 / lamps.GAMMA), lighting.spherical_harmonics(normal)
    harmonics = lamps.best_harmonics(image[some, some], plain, basis, weight * ~hidden[some, some])
    front = (pixels.solid.triangle >= 0) & (pixels.solid.triangle < faces)
    front = front & ~(hides_face(pixels) | dark_glass(pixels, looks) | hidden)
    return {
        "image": image,
        "labels": labels,
        "classes": jnp.where(hidden, parts.CLASSES.index("other"), classes).astype(jnp.uint8),
        "light": harmonics,
        "triangle": jnp.where(front, pixels.solid.triangle, -1),
        "barycentric": pixels.solid.barycentric,
        "depth": jnp.where(jnp.isfinite(nearest), nearest, 0.0),
        "normal": surface.normal,
        "painted_over": hidden,
    }


def _through_glasses(
    dice: Dice, linear: Float[Array, "F F 3"], lens: Float[Array, "F F"], tint: Float[Array, ""]
) -> Float[Array, "F F 3"]:
    """Light through the lenses of glasses, and what they mirror."""
    mirrored = 0.06 * dice.uniform()
    return linear + lens[..., None] * (linear * (1 - tint) + mirrored - linear)


def _film(linear: Float[Array, "F F 3"]) -> Float[Array, "F F 3"]:
    """Linear light as a picture's colours; highlights are rolled off rather than cut."""
    bright = jnp.maximum(linear, 0.0)
    return jnp.clip(bright * (1 + 0.15 * bright) / (1 + 0.35 * bright**2), 1e-4, 1.0) ** (1 / lamps.GAMMA)


def _project(point: Float[Array, "3"], camera: Viewpoint) -> Float[Array, "2"]:
    along = camera.distance - point[2]
    return camera.center + camera.focal * jnp.stack([point[0], -point[1]]) / along
