"""One texture of a person from several photos: each place from the photos that see it squarely, finely and unhidden.

The light of each photo is divided out by the fitted shading, exposures are made equal, and two bands are merged
(Burt and Adelson 1983): colours as a robust mean of all photos, details from the best of them, so that what does not
quite coincide is not blurred.
"""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from jaxface.core import cameras
from jaxface.core.cameras import Camera
from jaxface.core.face_models import FaceModel
from jaxface.files.images import to_bytes
from jaxface.render import rasterize, vertex_visibility
from jaxface.results.drawing import USUAL_DRAWING, DrawingOptions, DrawnFace, Reconstruction, draw_face
from jaxface.texture.baking import vertex_texture, view_weights
from jaxface.texture.from_photo import texture_layout
from jaxface.texture.merging import merge_textures

LARGEST = 1024
"""Side in pixels of the merged texture, at most."""


def delighted_face(
    model: FaceModel,
    reconstruction: Reconstruction,
    photo: UInt8[np.ndarray, "H W 3"],
    *,
    options: DrawingOptions = USUAL_DRAWING,
) -> DrawnFace:
    """`draw_face` with a texture without the photo's light, of a size for `merge_aligned`."""
    largest = min(options.largest_texture, LARGEST)
    options = dataclasses.replace(options, delight=True, largest_texture=largest)
    return draw_face(model, reconstruction, photo, options=options)


def texture_and_trust(
    model: FaceModel, drawn: DrawnFace
) -> tuple[Float[np.ndarray, "T T 3"], Float[np.ndarray, "T T"]]:
    """A photo's texture, and how well the photo shows each texel, for `merge_aligned`.

    Args:
        model: the face model.
        drawn: from `delighted_face`.
    """
    trust = np.repeat(_vertex_trust(model, drawn)[:, None], 3, axis=1)  # in place of colours
    trust_texture = vertex_texture(trust, *texture_layout(model), texture_size=len(drawn.texture))[..., 0]
    return drawn.texture.astype(np.float32) / 255, trust_texture


def _vertex_trust(model: FaceModel, drawn: DrawnFace) -> Float[np.ndarray, "V"]:
    """How squarely (angle), how finely (photo pixels per model unit) and whether at all the photo sees each vertex."""
    face, size = drawn.face, drawn.picture.shape[0]
    camera = Camera().resized(size)
    posed = np.asarray(cameras.to_camera_space(jnp.asarray(face.vertices), camera))[0]
    squarely = view_weights(np.asarray(face.normals[0]), np.array([0, 0, camera.distance]) - posed)
    fragments = rasterize(face.points, face.depth, model.triangles, image_size=size)
    seen = np.asarray(vertex_visibility(fragments, face.points, face.depth))[0]
    column, row = np.asarray(face.points[0]).astype(int).clip(0, size - 1).T
    finely = min(1.0, drawn.alignment.size / drawn.alignment.scale / 400) ** 2  # a crop of 400 photo pixels is enough
    return (squarely * seen * drawn.trusted[row, column] * finely).astype(np.float32)


def merge_aligned(
    pairs: Sequence[tuple[Float[np.ndarray, "T T 3"], Float[np.ndarray, "T T"]]],
) -> UInt8[np.ndarray, "T T 3"]:
    """The texture of one person from what `texture_and_trust` gives of each photo; as large as the largest of them."""
    size = max(len(texture) for texture, _ in pairs)
    textures, weights = zip(*(_resized(*pair, size) for pair in pairs), strict=True)
    return to_bytes(merge_textures(textures, weights))


def _resized(texture: np.ndarray, trust: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    factor = size // len(texture)
    return texture.repeat(factor, 0).repeat(factor, 1), trust.repeat(factor, 0).repeat(factor, 1)
