"""A texture in UV space from one photo: sampled where the photo shows the surface, completed where it does not."""

import jax
import numpy as np
from jaxtyping import Bool, Float, Integer

from jaxface.render.rasterizer import rasterize

_rasterize = jax.jit(rasterize, static_argnames="image_size")

GRAZING, FACING = 0.3, 0.7
"""Cosines between the normal and the line of sight at which the photo begins to count, and at which it counts fully."""

TOLERANCE = 0.02
"""How far behind the z-buffer surface still counts as seen, in the unit of the depths (model units: 2 mm)."""


def view_weights(normals: Float[np.ndarray, "V 3"], to_camera: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, "V"]:
    """What the photo is worth at each vertex, 0..1: nothing at a grazing angle, all where the vertex faces the camera.

    Args:
        normals: unit vectors in posed model space.
        to_camera: vectors from the vertices to the camera in posed model space, of any length.
    """
    cosine = (normals * to_camera).sum(-1) / np.linalg.norm(to_camera, axis=-1)
    ramp = np.clip((cosine - GRAZING) / (FACING - GRAZING), 0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


def uv_texture(
    photo: Float[np.ndarray, "H W 3"],
    points: Float[np.ndarray, "V 2"],
    depth: Float[np.ndarray, "V"],
    weights: Float[np.ndarray, "V"],
    colors: Float[np.ndarray, "V 3"],
    uv: Float[np.ndarray, "V 2"],
    triangles: Integer[np.ndarray, "T 3"],
    *,
    surface_depth: Float[np.ndarray, "H W"],
    mask: Float[np.ndarray, "H W"] | None = None,
    mirror: Integer[np.ndarray, "V"] | None = None,
    texture_size: int = 1024,
) -> Float[np.ndarray, "S S 3"]:
    """Samples the photo into the mesh's texture.

    Where the photo shows the surface (weight 1) a texel is the photo's colour at its perspective projection. Elsewhere
    it is the colour of its mirror image on the other half of the face, if that is seen, else the model's own colour;
    both are first shifted by the difference to the photo, spread smoothly from where it is known, so that no seam
    shows.

    Args:
        photo: in [0, 1]. Make it about as fine as the texture beforehand: sampling is bilinear.
        points: image points of the vertices in this photo, in pixels.
        depth: distance along the camera's axis, in any unit.
        weights: trust in the photo at each vertex, 0..1, from `view_weights`; what is hidden is found here.
        colors: the model's colours at the vertices, in [0, 1]: the fallback.
        uv: texture coordinates, u right, v up.
        triangles: vertex indices.
        surface_depth: z-buffer of the mesh in the photo, in the unit of `depth`; 0 where there is none.
        mask: where the photo shows the face and not hair or background, 0..1; everywhere by default.
        mirror: index of each vertex's mirror image.
        texture_size: S, in pixels.

    Returns:
        The texture, row 0 at v = 1; texels outside the mesh continue its colours, so that filtering finds no edge.
    """
    corners, barycentric, covered = _texels(uv, triangles, texture_size)

    def to_texture(attribute):
        image = np.zeros((texture_size, texture_size, *attribute.shape[1:]), np.float32)
        image[covered] = np.einsum("nk,nk...->n...", barycentric, attribute[corners])
        return image

    def seen_from(points, depth, weights):
        # Barycentrics run along the surface, projection does not: x z and y z are what is linear on a triangle.
        lifted = to_texture(np.concatenate([points * depth[:, None], depth[:, None]], axis=-1).astype(np.float32))
        position = lifted[..., :2] / np.where(covered, lifted[..., 2], 1)[..., None]
        sampled = _bilinear(trusted_photo, position)
        trust = to_texture(weights) * sampled[..., 3] * _seen(surface_depth, position, lifted[..., 2])
        return sampled[..., :3], trust

    trusted_photo = np.dstack([photo, np.ones(photo.shape[:2], np.float32) if mask is None else mask])

    photo_colors, trust = seen_from(points, depth, weights)
    result = to_texture(np.asarray(colors, np.float32))
    result = result + spread(photo_colors - result, trust)
    if mirror is not None:
        mirrored, mirror_trust = seen_from(points[mirror], depth[mirror], weights[mirror])
        mirrored = mirrored + spread(photo_colors - mirrored, np.minimum(trust, mirror_trust))
        result = result + mirror_trust[..., None] * (mirrored - result)
    result = result + trust[..., None] * (photo_colors - result)
    return np.clip(spread(result, covered.astype(np.float32)), 0, 1)


def vertex_texture(
    colors: Float[np.ndarray, "V 3"],
    uv: Float[np.ndarray, "V 2"],
    triangles: Integer[np.ndarray, "T 3"],
    *,
    texture_size: int = 1024,
) -> Float[np.ndarray, "S S 3"]:
    """Colours of vertices as a texture of the mesh; arguments and result as in `uv_texture`."""
    corners, barycentric, covered = _texels(uv, triangles, texture_size)
    image = np.zeros((texture_size, texture_size, 3), np.float32)
    image[covered] = np.einsum("nk,nkc->nc", barycentric, np.asarray(colors, np.float32)[corners])
    return np.clip(spread(image, covered.astype(np.float32)), 0, 1)


def cylinder_uv(vertices: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, "V 2"]:
    """Texture coordinates for a face without any: its angle about an upright axis behind it, and its height.

    Where the surface folds back, in the nostrils and between the lips, places share a texel: that of the triangle that
    comes first.

    Args:
        vertices: of the mean shape, y up, z towards the viewer.
    """
    vertices = np.asarray(vertices, np.float32)
    low, high = vertices.min(0), vertices.max(0)
    angle = np.arctan2(vertices[:, 0] - (low[0] + high[0]) / 2, vertices[:, 2] - low[2] + 1e-3)
    unrolled = np.stack([angle, vertices[:, 1]], axis=-1)
    low, high = unrolled.min(0), unrolled.max(0)
    return (0.01 + 0.98 * (unrolled - low) / np.maximum(high - low, 1e-6)).astype(np.float32)


def sample_texture(texture: Float[np.ndarray, "H W 3"], uv: Float[np.ndarray, "*S 2"]) -> Float[np.ndarray, "*S 3"]:
    """Colours of a texture (row 0 at v = 1) at texture coordinates, bilinear."""
    height, width = texture.shape[:2]
    return _bilinear(texture, np.stack([uv[..., 0] * width, (1 - uv[..., 1]) * height], axis=-1))


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


def _texels(
    uv: np.ndarray, triangles: np.ndarray, texture_size: int
) -> tuple[Integer[np.ndarray, "N 3"], Float[np.ndarray, "N 3"], Bool[np.ndarray, "S S"]]:
    """The mesh laid out flat: corner vertices and barycentrics of the covered texels, and which texels those are."""
    flat = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=-1).astype(np.float32) * texture_size
    fragments = _rasterize(flat, np.ones(len(flat), np.float32), triangles, image_size=texture_size)
    triangle, barycentric = np.asarray(fragments.triangle), np.asarray(fragments.barycentric)
    covered = triangle >= 0
    return np.asarray(triangles)[triangle[covered]], barycentric[covered], covered


def _seen(
    surface_depth: Float[np.ndarray, "H W"], position: Float[np.ndarray, "*S 2"], depth: Float[np.ndarray, "*S"]
) -> Bool[np.ndarray, "*S"]:
    """Whether surface at an image point and depth is inside the picture and not behind the z-buffer.

    It is compared with the farthest of the four pixels around: between their centres a steep surface covers much depth.
    """
    height, width = surface_depth.shape
    inside = ((position >= 0) & (position <= [width, height])).all(-1)
    column, row = np.moveaxis(np.floor(position - 0.5).astype(int), -1, 0)
    farthest = np.zeros(depth.shape, np.float32)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        pixel = np.clip(row + down, 0, height - 1), np.clip(column + right, 0, width - 1)
        farthest = np.maximum(farthest, surface_depth[pixel])
    return inside & ((depth <= farthest + TOLERANCE) | (farthest == 0))


def _bilinear(photo: Float[np.ndarray, "H W C"], position: Float[np.ndarray, "*S 2"]) -> Float[np.ndarray, "*S C"]:
    """Colours at image points; beyond the border, those of the border."""
    height, width = photo.shape[:2]
    x = np.clip(position[..., 0] - 0.5, 0, width - 1)
    y = np.clip(position[..., 1] - 0.5, 0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    along, down = (x - left)[..., None].astype(np.float32), (y - top)[..., None].astype(np.float32)
    upper = photo[top, left] * (1 - along) + photo[top, right] * along
    lower = photo[bottom, left] * (1 - along) + photo[bottom, right] * along
    return upper * (1 - down) + lower * down
