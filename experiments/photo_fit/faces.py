"""Photos to fit: the two portraits, and renders of random people by another camera and light, things in the way."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from jaxface.core import cameras
from jaxface.core.cameras import Camera
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import Face, decode_face
from jaxface.core.parts import BACKGROUND
from jaxface.files.images import read_image
from jaxface.render import label_map, label_triangles, rasterize, vertex_visibility
from jaxface.results.demo import portrait_paths
from jaxface.synthetic.portraits import draw_scenes
from jaxface.synthetic.random_faces import random_coefficients

PHOTO_SIZE = 512
DISTANCES = 6.0, 20.0
"""From the camera to the head, in model units: 60 cm to 2 m. The fit always takes 1 m for granted."""
FACE_SIZES = 0.7, 1.6
"""Size of the face against that of the 224 crop: from ear to ear 100 to 240 pixels of the photo's 512."""
GAMMA = 2.2
BLOCK = 6


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photo, and what is known of it.

    Attributes:
        name: for tables and captions.
        pixels: [H, W, 3] uint8.
        shape: [V, 3] the true face before the pose, in model units; None for a real photo.
        landmarks: [68, 2] true landmarks in photo pixels; None likewise.
        landmark_weights: [68] 1 where a landmark lies in the photo.
        labels: [H, W] true label map of what is seen; None likewise.
        hidden: [H, W] where something lies over the face; None likewise.
        vector: [K] true coefficients but for light, under a camera that is not the fit's; None likewise.
    """

    name: str
    pixels: UInt8[np.ndarray, "H W 3"]
    shape: Float[np.ndarray, "V 3"] | None = None
    landmarks: Float[np.ndarray, "68 2"] | None = None
    landmark_weights: Float[np.ndarray, "68"] | None = None
    labels: UInt8[np.ndarray, "H W"] | None = None
    hidden: Bool[np.ndarray, "H W"] | None = None
    vector: Float[np.ndarray, "K"] | None = None


def portraits() -> list[Photo]:
    """The two real photos that installed packages carry."""
    return [Photo(name, read_image(path)) for name, path in portrait_paths().items()]


def renders(model: FaceModel, *, count: int, seed: int) -> list[Photo]:
    """Random people, each in a scene of its own, photographed from 0.6 to 2 m under lamps with shadows and highlights.

    People, expressions, poses, hair, beards, glasses, hands and what a camera does to a picture are those of the
    training data. Camera and light are not: distance and size vary, and two lamps shine in linear colour, cast
    shadows, and make the skin glisten, none of which the fit's spherical harmonics can explain.

    Args:
        model: the built-in face model.
        count: how many.
        seed: other seeds give other photos.
    """
    labels_of_triangles = jnp.asarray(label_triangles(model.parts, model.triangles))
    model = jax.tree.map(jnp.asarray, model)
    photos = []
    for start in range(0, count, BLOCK):
        keys = jax.vmap(jax.random.key)(1_000_003 * seed + start + jnp.arange(BLOCK))
        drawn = jax.tree.map(np.asarray, _draw(keys, model, labels_of_triangles))
        for i in range(min(BLOCK, count - start)):
            photos.append(
                Photo(
                    name=f"render {start + i}",
                    pixels=drawn["image"][i],
                    shape=drawn["shape"][i],
                    landmarks=drawn["landmarks"][i],
                    landmark_weights=drawn["landmark_weights"][i],
                    labels=drawn["labels"][i],
                    hidden=drawn["hidden"][i],
                    vector=drawn["coefficients"][i],
                )
            )
    return photos


@jax.jit
def _draw(keys, model, labels_of_triangles) -> dict[str, Array]:
    keys = jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 3))(keys), 1, 0)
    coefficients = random_coefficients(keys[0], model)

    def draw_one(key, scene_key, coefficients):
        numbers = jax.random.uniform(key, (5,))
        distance = DISTANCES[0] * (DISTANCES[1] / DISTANCES[0]) ** numbers[0]
        size = FACE_SIZES[0] * (FACE_SIZES[1] / FACE_SIZES[0]) ** numbers[1]
        usual = Camera()
        focal = usual.focal * size * distance / usual.distance
        center = PHOTO_SIZE * (0.5 + 0.1 * (numbers[2:4] - 0.5))
        camera = Camera(focal, (center[0], center[1]), distance, (PHOTO_SIZE, PHOTO_SIZE))
        batch = jax.tree.map(lambda values: values[None], coefficients)
        batch = batch.replace(translation=jnp.zeros((1, 3)))
        face = decode_face(model, batch, camera)
        colors = _lamplight(jax.random.fold_in(key, 1), model, face)
        face = dataclasses.replace(face, colors=colors)
        sample = draw_scenes(scene_key[None], model, labels_of_triangles, batch, face, camera)
        fragments = rasterize(face.points, face.depth, model.triangles, image_size=PHOTO_SIZE)
        hidden = (label_map(fragments, labels_of_triangles) != BACKGROUND) & (sample["labels"] == BACKGROUND)
        return {name: values[0] for name, values in (sample | {"shape": face.shape, "hidden": hidden}).items()}

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
    position = face.vertices[0] * jnp.array([1.0, 1.0, -1.0])  # camera at the origin, looking along -z
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
    points = (turned[:, :2] * jnp.array([70.0, -70.0])[None] + 100.0)[None]
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
