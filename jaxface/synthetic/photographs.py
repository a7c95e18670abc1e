"""Photographs of random people, from near and far, by lamps that cast shadows: what a detector or a fit is tried on.

People, expressions, hair, beards, glasses, hands and what a camera does to a picture are those of the training data, as
is the light on whole heads (`people_pictures`). Distance and size vary more. Faces before painted heads (`portraits`)
have two lamps in linear colour that cast shadows and make the skin glisten, which no spherical harmonics can explain.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt8

from jaxface.core import cameras
from jaxface.core.cameras import Camera
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import Face, decode_face
from jaxface.core.parts import BACKGROUND
from jaxface.render import label_map, rasterize, vertex_visibility
from jaxface.synthetic.dice import split_keys
from jaxface.synthetic.lamps import GAMMA
from jaxface.synthetic.people import People
from jaxface.synthetic.people_pictures import draw_people
from jaxface.synthetic.portraits import draw_scenes
from jaxface.synthetic.random_faces import random_coefficients

PHOTO_SIZE = 512
"""Side of the photographs in pixels."""

DISTANCES = 6.0, 20.0
"""From the camera to the head, in model units: 60 cm to 2 m."""

FACE_SIZES = 0.7, 1.6
"""Size of the face against that of the 224 crop: from ear to ear 100 to 240 pixels of the photograph's 512."""


def draw_photographs(
    keys: Key[Array, "B"],
    model: FaceModel,
    triangle_labels: UInt8[Array | np.ndarray, "T"],
    people: People | None = None,
    *,
    yaws: Float[Array, "B"] | None = None,
    distances: tuple[float, float] = DISTANCES,
    identity_mean: Float[Array | np.ndarray, "Ki"] | None = None,
    person_keys: Key[Array, "B"] | None = None,
) -> dict[str, Array]:
    """One photograph per key, and all that is known of it. Made to be jitted; photographs are drawn one by one.

    Args:
        keys: one random key per photograph; a photograph depends on its own key alone.
        model: the face model.
        triangle_labels: from `render.label_triangles`.
        people: heads and what they wear, of that face model; None paints a head behind the face.
        yaws: of the heads in radians; by default those of the training data.
        distances: least and largest distance of the camera, in model units.
        identity_mean: around which people's identities are drawn; zero by default.
        person_keys: photographs with equal ones show one person; by default another in each.

    Returns:
        A batch in the layout of photos/samples.py, in pixels of the photographs, the translation zero, and
        shape [B, V, 3] before the pose, hidden [B, S, S]: where something lies over the face,
        focal [B], center [B, 2], distance [B] of the cameras.
    """
    keys = split_keys(keys, 3)
    coefficients = random_coefficients(keys[0], model, people)
    if person_keys is not None:
        person = random_coefficients(person_keys, model, people)
        coefficients = coefficients.replace(identity=person.identity, albedo=person.albedo)
    if yaws is not None:
        coefficients = coefficients.replace(angles=coefficients.angles.at[:, 1].set(yaws))
    if identity_mean is not None:
        coefficients = coefficients.replace(identity=coefficients.identity + jnp.asarray(identity_mean)[None])
    near, far = distances

    def draw_one(key, scene_key, coefficients):
        numbers = jax.random.uniform(key, (5,))
        distance = near * (far / near) ** numbers[0]
        size = FACE_SIZES[0] * (FACE_SIZES[1] / FACE_SIZES[0]) ** numbers[1]
        usual = Camera()
        focal = usual.focal * size * distance / usual.distance
        center = PHOTO_SIZE * (0.5 + 0.1 * (numbers[2:4] - 0.5))
        camera = Camera(focal, (center[0], center[1]), distance, (PHOTO_SIZE, PHOTO_SIZE))
        batch = jax.tree.map(lambda values: values[None], coefficients)
        batch = batch.replace(translation=jnp.zeros((1, 3)))
        told = {"focal": focal, "center": center, "distance": distance}
        face = decode_face(model, batch, camera)
        if people is not None:
            sample = draw_people(scene_key[None], model, people, triangle_labels, batch, camera)
        else:
            face = dataclasses.replace(face, colors=_lamplight(jax.random.fold_in(key, 1), model, face))
            sample = draw_scenes(scene_key[None], model, triangle_labels, batch, face, camera)
        fragments = rasterize(face.points, face.depth, model.triangles, image_size=PHOTO_SIZE)
        hidden = (label_map(fragments, triangle_labels) != BACKGROUND) & (sample["labels"] == BACKGROUND)
        return {name: values[0] for name, values in (sample | {"shape": face.shape, "hidden": hidden}).items()} | told

    return jax.lax.map(lambda one: draw_one(*one), (keys[1], keys[2], coefficients))


def _lamplight(key, model: FaceModel, face: Face) -> Float[Array, "1 V 3"]:
    """Colours under a lamp, a weaker one and the sky, with cast shadows and highlights; in linear light, then gamma."""
    numbers = jax.random.uniform(key, (8,))
    yaw = jnp.deg2rad(jnp.stack([-75 + 150 * numbers[0], -90 + 180 * numbers[1]]))
    pitch = jnp.deg2rad(jnp.stack([-10 + 60 * numbers[2], -20 + 60 * numbers[3]]))
    strength = jnp.stack([0.5 + 0.7 * numbers[4], 0.4 * numbers[5]])
    sky, gloss = 0.25 + 0.35 * numbers[6], 0.3 * numbers[7]
    warmth = 0.12 * jax.random.normal(jax.random.fold_in(key, 2), (2,))
    normals = face.normals[0]
    position = face.vertices[0] * jnp.array([[1.0, 1.0, -1.0]])  # camera at the origin, looking along -z
    view = -position / jnp.linalg.norm(position, axis=-1, keepdims=True)
    total = sky * (0.75 + 0.25 * normals[:, 1:2]) * jnp.ones((1, 3))
    shine = jnp.zeros((len(normals), 1))
    for lamp in range(2):
        toward = jnp.stack(
            [jnp.sin(yaw[lamp]) * jnp.cos(pitch[lamp]), jnp.sin(pitch[lamp]), jnp.cos(yaw[lamp]) * jnp.cos(pitch[lamp])]
        )
        lit = strength[lamp] * jnp.clip(normals @ toward, 0.0, 1.0) * _lit(model, position, yaw[lamp], pitch[lamp])
        tint = jnp.exp(warmth[lamp] * jnp.array([1.0, 0.0, -1.0]))
        total = total + lit[:, None] * tint[None]
        half = toward[None] + view
        half = half / jnp.linalg.norm(half, axis=-1, keepdims=True)
        shine = shine + (lit * jnp.clip((normals * half).sum(-1), 0.0, 1.0) ** 24)[:, None]
    linear = jnp.clip(face.albedo[0], 0.0, 1.0) ** GAMMA * total + gloss * shine
    exposure = 0.9 / jnp.percentile(total.mean(-1), 80)
    return (jnp.clip(exposure * linear, 0.0, 1.0) ** (1 / GAMMA))[None]


def _lit(model: FaceModel, position: Float[Array, "V 3"], yaw, pitch) -> Float[Array, "V"]:
    """1 where the lamp reaches a vertex, from a z-buffer as the lamp sees it; softened over the triangles around."""
    turn = cameras.rotation_matrix(jnp.stack([pitch, jnp.zeros(()), jnp.zeros(())])) @ cameras.rotation_matrix(
        jnp.stack([jnp.zeros(()), -yaw, jnp.zeros(())])
    )
    turned = position @ turn.T
    turned = turned - turned.mean(0)[None]
    points = (turned[:, :2] * jnp.array([[70.0, -70.0]]) + 100.0)[None]
    depth = (10.0 - turned[:, 2])[None]
    fragments = rasterize(points, depth, model.triangles, image_size=200)
    seen = vertex_visibility(fragments, points, depth, tolerance=0.05)[0].astype(jnp.float32)
    for _ in range(2):
        mean = seen[model.triangles].mean(1)
        total, count = jnp.zeros_like(seen), jnp.zeros_like(seen)
        for corner in range(3):
            total = total.at[model.triangles[:, corner]].add(mean)
            count = count.at[model.triangles[:, corner]].add(1.0)
        seen = total / jnp.maximum(count, 1.0)
    return seen
