"""What part of the face each pixel shows, and which vertices the camera sees."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, UInt8

from jaxface.core.parts import BACKGROUND, FOREHEAD, LABELS, PARTS, below_brows
from jaxface.core.typed_jit import typed_jit
from jaxface.render.rasterizer import Fragments, rasterize


def label_triangles(
    parts: Mapping[str, Integer[Array | np.ndarray, "N"]],
    triangles: Integer[Array | np.ndarray, "T 3"],
    vertex_count: int | None = None,
) -> UInt8[Array | np.ndarray, "T"]:
    """The part that each triangle of a mesh belongs to, as labels of `jaxface.core.parts`.

    A triangle belongs to the part that holds most of its corners; if parts are even, the first in the order of PARTS
    wins, so that a small part wins over the skin. With two or three corners in no part it is FOREHEAD: face surface
    such as the inside of the mouth.

    Args:
        parts: vertex indices per part, as `FaceModel.parts`; a vertex may be in several.
        triangles: vertex indices.
        vertex_count: of the mesh; inside jit it must be told.

    Returns:
        [T] a numpy array; inside jit, where the indices are not known, a traced one.
    """
    names = [part for part in PARTS if part in parts]
    traced = any(isinstance(array, jax.core.Tracer) for array in (triangles, *parts.values()))
    xp: Any = jnp if traced else np  # the same functions of either
    if not names or not len(triangles):
        return np.full(len(triangles), FOREHEAD, np.uint8)
    if vertex_count is None:
        vertex_count = 1 + int(max([np.max(triangles), *(np.max(parts[part], initial=0) for part in names)]))
    corners = xp.asarray(triangles).T
    # Two bits count a part's corners, so that one look-up per corner counts all parts; the last two count those in any.
    members = [_members(xp, parts[part], vertex_count) for part in names]
    members.append(xp.stack(members).any(0))
    codes = xp.stack([member.astype(np.int32) << 2 * place for place, member in enumerate(members)]).sum(0)
    counts = codes[corners[0]] + codes[corners[1]] + codes[corners[2]]
    votes = xp.stack([counts >> 2 * place & 3 for place in range(len(members))])
    labels = xp.asarray(np.array([LABELS[part] for part in names], np.uint8))[votes[:-1].argmax(0)]
    result: np.ndarray = xp.where(votes[-1] >= 2, labels, FOREHEAD).astype(np.uint8)
    return result


def _members(xp: Any, vertices: Integer[Array | np.ndarray, "N"], vertex_count: int) -> Any:
    """Which of the vertices are among some, as an array of `xp`."""
    if xp is jnp:
        return jnp.zeros(vertex_count, bool).at[vertices].set(True)
    member = np.zeros(vertex_count, bool)
    member[np.asarray(vertices)] = True
    return member


@typed_jit
def label_map(fragments: Fragments, triangle_labels: Integer[Array | np.ndarray, "T"]) -> UInt8[Array, "*B H W"]:
    """The label map of a drawn face: the labels of the triangles seen, with the forehead cut off the skin.

    Skin above the line through the centroids of the two brows, as far as they are seen, becomes FOREHEAD: the rule of
    `parts.cut_forehead`. If a brow is not to be seen, nothing is cut.

    Args:
        fragments: from `rasterize`.
        triangle_labels: from `label_triangles`.
    """
    labels = surface_labels(fragments, triangle_labels)
    return jnp.where(above_brows(labels), FOREHEAD, labels).astype(jnp.uint8)


def surface_labels(fragments: Fragments, triangle_labels: Integer[Array | np.ndarray, "T"]) -> UInt8[Array, "*B H W"]:
    """The labels of the triangles seen, the forehead's skin among the skin; see `label_map`."""
    triangle_labels = jnp.asarray(triangle_labels, jnp.uint8)
    if triangle_labels.shape[0] == 0:
        return jnp.zeros(fragments.triangle.shape, jnp.uint8)
    return jnp.where(fragments.triangle >= 0, triangle_labels[fragments.triangle], BACKGROUND)


def above_brows(labels: UInt8[Array, "*B H W"]) -> Bool[Array, "*B H W"]:
    """The skin of uncut label maps above the line through the centroids of the two brows; none if one is not there."""
    height, width = labels.shape[-2:]
    x, y = jnp.meshgrid(jnp.arange(width) + 0.5, jnp.arange(height) + 0.5)
    centers = jnp.stack([x, y], axis=-1).reshape(height * width, 2)
    (left, left_area), (right, right_area) = (
        _centroid(labels == LABELS[part], centers) for part in ("left_brow", "right_brow")
    )
    everywhere = jnp.broadcast_to(centers, (*labels.shape[:-2], *centers.shape))
    above = ~below_brows(everywhere, left, right).reshape(labels.shape)
    both_seen = ((left_area > 0) & (right_area > 0))[..., None, None]
    return above & both_seen & (labels == LABELS["skin"])


def _centroid(
    mask: Bool[Array, "*B H W"], centers: Float[Array, "M 2"]
) -> tuple[Float[Array, "*B 2"], Float[Array, "*B"]]:
    weights = mask.reshape(*mask.shape[:-2], centers.shape[0]).astype(centers.dtype)
    area = weights.sum(-1)
    total = jnp.einsum("...m,mc->...c", weights, centers, precision=jax.lax.Precision.HIGHEST)
    return total / jnp.maximum(area, 1.0)[..., None], area


@typed_jit(static_argnames="image_size")
def render_labels(
    points: Float[Array | np.ndarray, "*B V 2"],
    depth: Float[Array | np.ndarray, "*B V"],
    triangles: Integer[Array | np.ndarray, "T 3"],
    triangle_labels: Integer[Array | np.ndarray, "T"],
    *,
    image_size: int | tuple[int, int],
) -> UInt8[Array, "*B H W"]:
    """The label map of a face: 0 background, 1 to 8 the parts in the order of `parts.PARTS`, 9 FOREHEAD.

    Args:
        points: image points in pixels, y down (see `rasterize`).
        depth: of the vertices, positive in front of the camera.
        triangles: vertex indices.
        triangle_labels: from `label_triangles`.
        image_size: (height, width) in pixels, or one number for a square.
    """
    return label_map(rasterize(points, depth, triangles, image_size=image_size), triangle_labels)


@typed_jit
def vertex_visibility(
    fragments: Fragments,
    points: Float[Array | np.ndarray, "*B V 2"],
    depth: Float[Array | np.ndarray, "*B V"],
    *,
    tolerance: float = 0.02,
) -> Bool[Array, "*B V"]:
    """Which vertices the camera sees: inside the picture, in front of it, and not behind what is drawn there.

    A vertex is compared with the farthest of the four pixels around it, since the surface between their centres may be
    steep; pixels that show nothing do not count. Where all four show nothing, nothing hides it.

    Args:
        fragments: from `rasterize`, of the mesh itself or of whatever may hide it.
        points: image points in pixels, y down.
        depth: of the vertices, in the unit of `fragments.depth`.
        tolerance: how far behind the drawn surface a vertex still counts as seen, in the same unit (model units: 2 mm).
    """
    points, depth = jnp.asarray(points), jnp.asarray(depth)
    height, width = fragments.triangle.shape[-2:]
    drawn = jnp.where(fragments.triangle >= 0, fragments.depth, -jnp.inf).reshape(*depth.shape[:-1], height * width)
    x, y = points[..., 0], points[..., 1]
    inside = (x >= 0) & (x <= width) & (y >= 0) & (y <= height) & (depth > 0)
    # NaN survives clip and has no integer; such a vertex is not inside.
    column, row = (jnp.floor(jnp.where(inside, v, 0.0) - 0.5).astype(jnp.int32) for v in (x, y))
    farthest = jnp.full_like(depth, -jnp.inf)
    for right, below in ((0, 0), (1, 0), (0, 1), (1, 1)):
        index = jnp.clip(row + below, 0, height - 1) * width + jnp.clip(column + right, 0, width - 1)
        farthest = jnp.maximum(farthest, jnp.take_along_axis(drawn, index, axis=-1))
    return inside & ((depth <= farthest + tolerance) | (farthest == -jnp.inf))
