"""Photos to fit: the two portraits, and renders of random people by another camera and light, things in the way."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

from jaxface.core.face_models import FaceModel
from jaxface.files.images import read_image
from jaxface.render import label_triangles
from jaxface.results.demo import portrait_paths
from jaxface.synthetic.people import find_people
from jaxface.synthetic.photographs import draw_photographs

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
    """Random people, photographed from 0.6 to 2 m under lamps, see `jaxface.synthetic.photographs`.

    Args:
        model: the built-in face model.
        count: how many.
        seed: other seeds give other photos.
    """
    labels_of_triangles = jnp.asarray(label_triangles(model.parts, model.triangles))
    model = jax.tree.map(jnp.asarray, model)
    heads = jax.tree.map(jnp.asarray, find_people(model))
    draw, photos = jax.jit(draw_photographs), []
    for start in range(0, count, BLOCK):
        keys = jax.vmap(jax.random.key)(1_000_003 * seed + start + jnp.arange(BLOCK))
        drawn = jax.tree.map(np.asarray, draw(keys, model, labels_of_triangles, heads))
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
