"""The mesh laid out flat in a texture: which point of the surface each texel is, and what lies between texels."""

import jax
import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from PIL import Image

from jaxface.render.rasterizer import rasterize

_rasterize = jax.jit(rasterize, static_argnames="image_size")


Layout = tuple[Integer[np.ndarray, "N 3"], Float[np.ndarray, "N 3"], Bool[np.ndarray, "S S"]]
"""What `lay_out` gives."""


def lay_out(uv: np.ndarray, triangles: np.ndarray, texture_size: int) -> Layout:
    """The mesh laid out flat: corner vertices and barycentrics of the covered texels, and which texels those are."""
    flat = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=-1).astype(np.float32) * texture_size
    fragments = _rasterize(flat, np.ones(len(flat), np.float32), triangles, image_size=texture_size)
    triangle, barycentric = np.asarray(fragments.triangle), np.asarray(fragments.barycentric)
    covered = triangle >= 0
    return np.asarray(triangles)[triangle[covered]], barycentric[covered], covered


def to_atlas(attributes: np.ndarray, layout: Layout) -> Float[np.ndarray, "S S C"]:
    """Attributes of vertices at the texels; outside the mesh they go on.

    Args:
        attributes: [V, C].
        layout: from `lay_out`.
    """
    corners, barycentric, covered = layout
    image = np.zeros((*covered.shape, attributes.shape[-1]), np.float32)
    image[covered] = np.einsum("nk,nkc->nc", barycentric, attributes[corners])
    return spread(image, covered.astype(np.float32))


def spread(image: Float[np.ndarray, "H W C"], weights: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W C"]:
    """Keeps an image where its weight is 1 and fills the rest smoothly from there (pull-push, Gortler et al. 1996)."""
    if max(weights.shape) == 1:
        return image * (weights > 0)[..., None]
    padded = [(0, size % 2) for size in weights.shape]
    values, known = np.pad(image, [*padded, (0, 0)]), np.pad(weights, padded)
    blocks = (values.shape[0] // 2, 2, values.shape[1] // 2, 2)
    total = known.reshape(blocks).sum((1, 3))
    mean = (values * known[..., None]).reshape(*blocks, -1).sum((1, 3)) / np.maximum(total, 1e-12)[..., None]
    coarse = spread(mean, np.minimum(total, 1))
    fine = _doubled(coarse)[: weights.shape[0], : weights.shape[1]]
    return fine + weights[..., None] * (image - fine)


def _doubled(image: np.ndarray) -> np.ndarray:
    """Twice the size, linearly between pixel centres."""
    for axis in (0, 1):
        edge = [(1, 1) if side == axis else (0, 0) for side in range(3)]
        padded = np.moveaxis(np.pad(image, edge, mode="edge"), axis, 0)
        middle = 0.75 * padded[1:-1]
        pairs = np.stack([middle + 0.25 * padded[:-2], middle + 0.25 * padded[2:]], axis=1)
        image = np.moveaxis(pairs.reshape(-1, *pairs.shape[2:]), 0, axis)
    return image


def bilinear(
    photo: Float[np.ndarray, "H W C"] | UInt8[np.ndarray, "H W C"], position: Float[np.ndarray, "*S 2"]
) -> Float[np.ndarray, "*S C"]:
    """Colours at image points; beyond the border, those of the border."""
    height, width = photo.shape[:2]
    x = np.clip(position[..., 0] - 0.5, 0, width - 1)
    y = np.clip(position[..., 1] - 0.5, 0, height - 1)
    left, top = x.astype(np.int32), y.astype(np.int32)
    along, down = (x - left)[..., None].astype(np.float32), (y - top)[..., None].astype(np.float32)
    corner = top * width + left
    right, below = np.minimum(left + 1, width - 1) - left, (np.minimum(top + 1, height - 1) - top) * width
    pixels = photo.reshape(height * width, photo.shape[2])
    upper_left, upper_right, lower_left, lower_right = (
        pixels.take(index, axis=0).astype(np.float32)
        for index in (corner, corner + right, corner + below, corner + below + right)
    )
    upper = upper_left + along * (upper_right - upper_left)
    lower = lower_left + along * (lower_right - lower_left)
    return upper + down * (lower - upper)


def sample_texture(texture: Float[np.ndarray, "H W 3"], uv: Float[np.ndarray, "*S 2"]) -> Float[np.ndarray, "*S 3"]:
    """Colours of a texture (row 0 at v = 1) at texture coordinates, bilinear."""
    height, width = texture.shape[:2]
    return bilinear(texture, np.stack([uv[..., 0] * width, (1 - uv[..., 1]) * height], axis=-1))


def enlarged(
    image: Float[np.ndarray, "s s"], size: int, *, rows: tuple[int, int] | None = None
) -> Float[np.ndarray, "R S"]:
    """The image with `size` pixels a side, linear between pixel centres, or some rows of that.

    Args:
        image: to be drawn out.
        size: S, at least the image's own.
        rows: first row and the one after the last; all by default.
    """
    first, last = rows or (0, size)
    if size == len(image):
        return image[first:last]
    factor = len(image) / size
    box = (0, first * factor, len(image), last * factor)
    picture = Image.fromarray(np.ascontiguousarray(image, np.float32))
    return np.asarray(picture.resize((size, last - first), Image.Resampling.BILINEAR, box=box))


def block_means(image: Float[np.ndarray, "H W C"], side: int) -> Float[np.ndarray, "h w C"]:
    """Means of blocks of `side` x `side` pixels."""
    height, width, channels = image.shape
    return image.reshape(height // side, side, width // side, side, channels).mean((1, 3))
