"""The texture of a fitted face from its photo: how large, which of its pixels to trust, what the mouth shows."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
import scipy.sparse.linalg
from jaxtyping import Bool, Float, Integer, UInt8

from jaxface.core import cameras
from jaxface.core.cameras import Camera
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import Face
from jaxface.core.lighting import shade
from jaxface.files import meshes
from jaxface.photos.alignment import Alignment, scaled_alignment
from jaxface.render import Fragments
from jaxface.texture.baking import cylinder_uv, texture_side, uv_texture, view_weights

INSIDE_STIFFNESS = 0.5
"""How strongly the hidden inside of a mouth keeps its own colour, against the ties of a mesh edge (1)."""

SMALLEST_SIZE = 512
"""Of a texture's side in pixels: what the model's own colours need."""


def photo_texture(
    model: FaceModel,
    face: Face,
    light: Float[np.ndarray, "1 3 9"],
    fragments: Fragments,
    photo: UInt8[np.ndarray, "H W 3"],
    trusted: tuple[Float[np.ndarray, "P P"], Float[np.ndarray, "P P"]],
    alignment: Alignment,
    *,
    delight: bool = False,
    largest_size: int = 2048,
) -> UInt8[np.ndarray, "T T 3"]:
    """The texture of a fitted face, for the coordinates of `texture_layout`.

    Args:
        model: the face model.
        face: decoded with the camera of a P x P picture, a batch of one, as NumPy arrays.
        light: the fitted light.
        fragments: of the picture, [1, P, P].
        photo: the original photo.
        trusted: from `trusted_pixels`, how far the picture's pixels show the bare face, and the inside of its mouth.
        alignment: where the picture lies in the photo.
        delight: takes the fitted light off.
        largest_size: bound on T, a power of two; within it a texel is about as large as the photo's pixels.
    """
    layout, picture_size = texture_layout(model), alignment.size
    picture, camera = alignment.crop_image(photo), Camera().resized(picture_size)
    points, depth, normals, posed = (
        np.asarray(array)[0]
        for array in (face.points, face.depth, face.normals, cameras.to_camera_space(face.vertices, camera))
    )
    weights = view_weights(normals, np.array([0, 0, camera.distance]) - posed)
    side = texture_side(points / alignment.scale, weights, *layout)
    size = _power_of_two(side, smallest=min(SMALLEST_SIZE, largest_size), largest=largest_size)
    # The crop again, as fine as the texture: averaged where the photo is finer, smoothly drawn out where it is coarser.
    wanted = picture_size / alignment.scale * size / max(side, 1.0)
    crop_size = math.ceil(np.clip(wanted, picture_size / 4, 2 * size))
    crop = scaled_alignment(alignment, crop_size).crop_image(photo)
    shading = np.array(_light_alone(face, light)[0])
    mask, mouth = trusted
    # The mouth's inside is lit by no sky: evenly, and where it shows, as the photo has it.
    inner, albedo = _inner_mouth(model), np.clip(np.asarray(face.albedo)[0], 0, 1)
    if inner.any():
        shading[inner] = np.median(shading[~inner], axis=0)
        evenly_lit = picture / np.float32(255) / np.maximum(np.median(shading[~inner], axis=0), 0.2)[None, None]
        albedo = np.clip(_mouth_colors(model, inner, albedo, fragments, evenly_lit, mouth), 0, 1)
    texture = uv_texture(
        crop,
        points * (crop_size / picture_size),
        depth,
        weights,
        albedo,
        layout[0],
        _shown_first(layout[1], inner, np.asarray(fragments.triangle)[0], np.asarray(model.triangles)),
        surface_depth=np.asarray(fragments.depth)[0],
        mask=mask,
        interior_mask=mouth,
        mirror=None if model.mirror is None else np.asarray(model.mirror),
        interior=inner,
        shading=shading,
        delight=delight,
        texture_size=size,
    )
    return meshes.to_bytes(texture)


@jax.jit
def _light_alone(face: Face, light):
    """The light at the vertices."""
    return shade(jnp.ones_like(face.albedo), face.normals, light)


def texture_layout(model: FaceModel) -> tuple[Float[np.ndarray, "V 2"], Integer[np.ndarray, "T 3"]]:
    """The model's texture coordinates, or those of `cylinder_uv` for a model without; and its triangles.

    Where a cylinder's surface folds back, two triangles share texels, which go to the first: here, to the outer one.
    """
    triangles = np.asarray(model.triangles)
    if model.uv is not None:
        return np.asarray(model.uv), triangles
    vertices = np.asarray(model.mean_shape)
    radius = np.hypot(vertices[:, 0], vertices[:, 2] - vertices[:, 2].min())
    return cylinder_uv(vertices), triangles[np.argsort(-radius[triangles].mean(1), kind="stable")]


def _shown_first(
    triangles: Integer[np.ndarray, "T 3"],
    inner: Bool[np.ndarray, "V"],
    drawn: Integer[np.ndarray, "P P"],
    own: Integer[np.ndarray, "T 3"],
) -> Integer[np.ndarray, "T 3"]:
    """The triangles of a layout, those of the mouth's inside that the picture shows first: folds share texels there."""
    shown = np.zeros(len(own), bool)
    shown[drawn[drawn >= 0]] = True
    seen = np.zeros(len(inner), bool)
    seen[own[shown]] = True
    first = (inner & seen)[triangles].all(1)
    return np.concatenate([triangles[first], triangles[~first]])


def _power_of_two(side: float, *, smallest: int, largest: int) -> int:
    """The power of two that keeps what a texture of this side would show, but for a quarter in the finest detail."""
    return int(np.clip(2 ** math.ceil(math.log2(max(side, 1.0) / 1.25)), smallest, largest))


def _inner_mouth(model: FaceModel) -> Bool[np.ndarray, "V"]:
    """Cavity and teeth: pieces of surface in no part that touch the lips, or nothing (the neck touches the skin)."""
    triangles, count = np.asarray(model.triangles), len(model.mean_shape)
    if not {"upper_lip", "lower_lip"} <= model.parts.keys():
        return np.zeros(count, bool)
    lips, outside = np.zeros(count, bool), np.zeros(count, bool)
    for part, vertices in model.parts.items():
        outside[np.asarray(vertices)] = True
        lips[np.asarray(vertices)] |= part in ("upper_lip", "lower_lip")
    edges = triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    inner_edges = edges[~outside[edges].any(1)]
    graph = scipy.sparse.coo_array((np.ones(len(inner_edges)), tuple(inner_edges.T)), shape=(count, count))
    _, piece = scipy.sparse.csgraph.connected_components(graph, directed=False)
    beside_parts, beside_lips = (piece[triangles[of_part[triangles].any(1)]] for of_part in (outside, lips))
    return ~outside & (np.isin(piece, beside_lips) | ~np.isin(piece, beside_parts))


def _mouth_colors(
    model: FaceModel,
    inner: Bool[np.ndarray, "V"],
    colors: Float[np.ndarray, "V 3"],
    fragments: Fragments,
    picture: Float[np.ndarray, "P P 3"],
    mask: Float[np.ndarray, "P P"],
) -> Float[np.ndarray, "V 3"]:
    """The picture's colours at the vertices of the mouth's inside, or `colors` if the mouth is shut or elsewhere.

    A texture has little room for this deep and folded surface: its texels show hidden places beside seen ones. So each
    pixel that shows the inside is shared among the corners of its triangle; from there the colours fade, over a few
    edges of the mesh, into the model's own.
    """
    triangles = np.asarray(model.triangles)
    triangle, barycentric = np.asarray(fragments.triangle)[0], np.asarray(fragments.barycentric)[0]
    pixels = (triangle >= 0) & inner[triangles].all(1)[triangle] & (mask > 0.9)
    corners, shares = triangles[triangle[pixels]].ravel(), barycentric[pixels].ravel()
    total = np.bincount(corners, shares, minlength=len(colors))
    known = total > 0.05
    if not known.any():
        return colors
    result = colors.copy()
    for channel in range(3):
        color = np.repeat(picture[pixels][:, channel], 3)
        result[known, channel] = np.bincount(corners, shares * color, minlength=len(colors))[known] / total[known]
    edges = triangles[inner[triangles].all(1)][:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    ties = scipy.sparse.coo_array((np.ones(len(edges)), tuple(edges.T)), shape=(len(colors),) * 2).tocsr()
    ties = ties + ties.T
    _, piece = scipy.sparse.csgraph.connected_components(ties, directed=False)
    free = inner & ~known & np.isin(piece, piece[known])
    if free.any():
        pull = scipy.sparse.diags_array(np.full(len(colors), INSIDE_STIFFNESS))
        laplacian = (scipy.sparse.diags_array(ties.sum(1)) - ties + pull).tocsr()[free]
        right = INSIDE_STIFFNESS * colors[free] - laplacian[:, known] @ result[known]
        result[free] = scipy.sparse.linalg.spsolve(laplacian[:, free].tocsc(), right).reshape(right.shape)
    return result
