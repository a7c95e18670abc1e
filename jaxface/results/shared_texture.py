"""One texture of a person from several photos: each place from the photos that see it squarely, finely and unhidden.

The light of each photo is divided out by the fitted shading, exposures are made equal, and two bands are merged
(Burt and Adelson 1983): colours as a robust mean of all photos, details from the best of them, so that what does not
quite coincide is not blurred.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

from jaxface import camera as cameras
from jaxface.camera import Camera
from jaxface.data.sample import Sample
from jaxface.face_model import FaceModel
from jaxface.formats.pictures import to_bytes
from jaxface.parts import BACKGROUND
from jaxface.render import rasterize, vertex_visibility
from jaxface.results.drawing import DrawnFace, Reconstruction, draw_face, texture_layout
from jaxface.results.textures import vertex_texture, view_weights

LARGEST = 1024
"""Side in pixels of the merged texture, at most."""
FLOOR = 1e-4
"""What a texel counts where its photo does not show it: the completion then decides, if no photo does better."""
DETAIL_POWER = 6
"""Details come from the best photo: their weights are taken to this power."""
TYPICAL_DIFFERENCE = 0.06
"""By how much the colour of a place differs between photos that agree about it."""
REDUCTION = 8
"""What changes slowly is merged at so much smaller a size."""


def merge_textures(
    textures: Sequence[Float[np.ndarray, "T T 3"]], weights: Sequence[Float[np.ndarray, "T T"]]
) -> Float[np.ndarray, "T T 3"]:
    """Joins textures of one surface.

    Args:
        textures: colours in [0, 1], complete, of a side that can be divided by 8; one is returned as it is.
        weights: how well each shows each texel, 0..1.
    """
    if len(textures) == 1:
        return textures[0]
    # What changes slowly is handled at an eighth of the size.
    small = np.stack([_reduced(np.asarray(texture, np.float32)) for texture in textures])
    trust = np.stack([_reduced(np.asarray(weight, np.float32)) for weight in weights]) + FLOOR
    gains = _equalizing_gains(small, trust)
    sigma = max(small.shape[1] / 64, 0.5)
    low = ndimage.gaussian_filter(small * gains[:, None, None], (0, sigma, sigma, 0), mode="nearest")
    distance = np.linalg.norm(low - _weighted_median(low, trust)[None], axis=-1)
    trust = trust / (1 + (distance / TYPICAL_DIFFERENCE) ** 2)
    best = (trust / trust.max(0)) ** DETAIL_POWER
    # Weights that change about as slowly as the bands that they mix leave no seams.
    trust, best = (ndimage.gaussian_filter(field, (0, width, width)) for field, width in ((trust, sigma), (best, 0.5)))
    colors = _enlarged((trust[..., None] * low).sum(0) / trust.sum(0)[..., None])
    for texture, gain, smooth, share in zip(textures, gains, low, best / best.sum(0), strict=True):
        colors += _enlarged(share)[..., None] * (gain * texture - _enlarged(smooth))
    return np.clip(colors, 0, 1)


def _reduced(image: np.ndarray) -> np.ndarray:
    """Means of blocks of REDUCTION x REDUCTION pixels."""
    side = len(image) // REDUCTION
    return image.reshape(side, REDUCTION, side, REDUCTION, *image.shape[2:]).mean((1, 3))


def _enlarged(image: np.ndarray) -> np.ndarray:
    """The inverse, linear between the centres of the blocks."""
    factors = (REDUCTION, REDUCTION) + (1,) * (image.ndim - 2)
    return ndimage.zoom(image, factors, order=1, mode="nearest", grid_mode=True).astype(np.float32)


def _equalizing_gains(colors: Float[np.ndarray, "N S S 3"], trust: Float[np.ndarray, "N S S"]):
    """A factor per texture and channel that takes away differences of exposure and white balance; on average 1."""
    logarithms = np.log(np.maximum(colors, 0.02)).reshape(len(colors), -1, 3)
    trust = trust.reshape(len(colors), -1)
    gains = np.zeros((len(colors), 3))
    for _ in range(5):
        shifted = logarithms + gains[:, None]
        mean = (trust[..., None] * shifted).sum(0) / trust.sum(0)[:, None]
        for index, weight in enumerate(trust):
            others = trust.sum(0) - weight
            shared = (weight > 0.2 * weight.max()) & (others > 0.2 * others.max())
            if shared.sum() >= 20:
                gains[index] += np.median((mean - shifted[index])[shared], axis=0)
        gains -= gains.mean(0)
    return np.exp(np.clip(gains, -1, 1)).astype(np.float32)


def _weighted_median(values: Float[np.ndarray, "N S S 3"], trust: Float[np.ndarray, "N S S"]):
    order = np.argsort(values, axis=0)
    ranked = np.take_along_axis(np.broadcast_to(trust[..., None], values.shape), order, axis=0)
    total = np.cumsum(ranked, axis=0)
    middle = (total >= total[-1:] / 2).argmax(0)
    return np.take_along_axis(np.take_along_axis(values, order, axis=0), middle[None], axis=0)[0]


def delighted_face(model: FaceModel, reconstruction: Reconstruction, photo: UInt8[np.ndarray, "H W 3"]) -> DrawnFace:
    """`draw_face` with a texture without the photo's light, of a size for `merge_aligned`."""
    return draw_face(model, reconstruction, photo, delight=True, largest_texture=LARGEST)


def texture_and_trust(
    model: FaceModel, drawn: DrawnFace, sample: Sample
) -> tuple[Float[np.ndarray, "T T 3"], Float[np.ndarray, "T T"]]:
    """A photo's texture, and how well the photo shows each texel, for `merge_aligned`.

    Args:
        model: the face model.
        drawn: from `delighted_face`.
        sample: the crop that the face was fitted to; what its label map calls background is hidden.
    """
    trust = np.repeat(_vertex_trust(model, drawn, sample)[:, None], 3, axis=1)  # in place of colours
    trust_texture = vertex_texture(trust, *texture_layout(model), texture_size=len(drawn.texture))[..., 0]
    return drawn.texture.astype(np.float32) / 255, trust_texture


def _vertex_trust(model: FaceModel, drawn: DrawnFace, sample: Sample) -> Float[np.ndarray, "V"]:
    """How squarely (angle), how finely (photo pixels per model unit) and whether at all the photo sees each vertex."""
    face, size = drawn.face, drawn.picture.shape[0]
    camera = Camera().resized(size)
    posed = np.asarray(cameras.to_camera_space(jnp.asarray(face.vertices), camera))[0]
    squarely = view_weights(np.asarray(face.normals[0]), np.array([0, 0, camera.distance]) - posed)
    fragments = rasterize(face.points, face.depth, model.triangles, image_size=size)
    seen = np.asarray(vertex_visibility(fragments, face.points, face.depth))[0]
    mask = ndimage.gaussian_filter((np.asarray(sample["labels"]) != BACKGROUND).astype(np.float32), 2)
    unhidden = np.clip(2 * mask - 1, 0, 1)  # a little inside the outline
    column, row = (np.asarray(face.points[0]) * len(mask) / size).astype(int).clip(0, len(mask) - 1).T
    finely = min(1.0, drawn.alignment.size / drawn.alignment.scale / 400) ** 2  # a crop of 400 photo pixels is enough
    return (squarely * seen * unhidden[row, column] * finely).astype(np.float32)


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
