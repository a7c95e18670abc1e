"""How much of the picture each vertex stands for: weights that turn a mesh's vertices into even, visible samples.

The vertices of a mesh lie close together here and far apart there, and half of them face away; a mask's pixels are
spread evenly and are all seen. A mean over vertices is therefore not the mean over the pixels that they cover, unless
each vertex weighs as much as the area around it that is seen.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from jaxface.core.typed_jit import typed_jit
from jaxface.render.labels import vertex_visibility
from jaxface.render.rasterizer import rasterize
from jaxface.render.tiles import height_and_width

Occlusion = Literal["coarse", "exact", "none"]

# How far behind another surface a vertex is hidden, in model units: 1 cm. On steep skin the depth changes by several mm
# from one pixel or cell to the next; a nose stands out by more.
TOLERANCE = 0.1
VERTICES_PER_CELL = 4
"""How many visible vertices a cell of the coarse test holds, about."""


@typed_jit(static_argnames=("image_size", "occlusion"))
def visible_areas(
    points: Float[Array | np.ndarray, "B V 2"],
    depth: Float[Array | np.ndarray, "B V"],
    triangles: Integer[Array | np.ndarray, "T 3"],
    *,
    image_size: int | tuple[int, int],
    occlusion: Occlusion = "coarse",
) -> Float[Array, "B V"]:
    """The area of the picture, in square pixels, that each vertex of a mesh stands for; zero where it is not seen.

    Weights for means over vertices that are to agree with means over pixels, as in PRDL's f_ave:
    `prdl_loss(..., point_masks={part: areas[:, vertices]})`; vertices of weight zero count for f_min and f_max neither.
    Held fixed for gradients.

    Args:
        points: image points in pixels, y down.
        depth: of the vertices, positive in front of the camera, in model units.
        triangles: vertex indices, counter-clockwise seen from outside.
        image_size: (height, width) in pixels, or one number for a square: a mask has no pixels outside of it.
        occlusion: how to find vertices behind other parts of the face: "coarse" (`coarse_visibility`), "exact" (through
            the rasterizer, some ten times slower), or "none".

    Returns:
        [B, V]; the sum is about the mesh's area in the picture. NaN for the corners of a triangle that has a coordinate
        which is NaN or infinite.

    Raises:
        ValueError: when `occlusion` is none of the three.
    """
    points, depth = jax.lax.stop_gradient((jnp.asarray(points), jnp.asarray(depth)))
    height, width = height_and_width(image_size)
    x, y = points[..., 0], points[..., 1]
    unseen = (x < 0) | (x > width) | (y < 0) | (y > height) | (depth <= 0)  # not so for NaN, which is to stay NaN
    if occlusion == "coarse":
        unseen |= ~coarse_visibility(points, depth)
    elif occlusion == "exact":
        fragments = rasterize(points, depth, triangles, image_size=(height, width))
        seen = vertex_visibility(fragments, points, depth, tolerance=TOLERANCE)
        unseen |= ~seen & jnp.isfinite(points).all(-1)
    elif occlusion != "none":
        raise ValueError(f'occlusion must be "coarse", "exact" or "none", got {occlusion!r}')
    return jnp.where(unseen, 0.0, projected_areas(points, triangles))


@typed_jit
def projected_areas(
    points: Float[Array | np.ndarray, "B V 2"], triangles: Integer[Array | np.ndarray, "T 3"]
) -> Float[Array, "B V"]:
    """A third of the area, in square pixels, of the triangles around each vertex, as far as they face the camera.

    Held fixed for gradients.

    Args:
        points: image points in pixels, y down.
        triangles: vertex indices, counter-clockwise seen from outside.

    Returns:
        [B, V]; NaN for the corners of a triangle that has a coordinate which is NaN or infinite.
    """
    points = jax.lax.stop_gradient(jnp.asarray(points))
    points = points.astype(jnp.promote_types(points.dtype, jnp.float32))
    triangles = jnp.asarray(triangles)
    x, y = points.transpose(2, 1, 0)  # the batch last: every gather and scatter moves whole rows
    (ax, bx, cx), (ay, by, cy) = ([v[triangles[:, corner]] for corner in range(3)] for v in (x, y))
    # With y down, a triangle seen from outside runs clockwise and has a negative cross product.
    third = jnp.maximum((by - ay) * (cx - ax) - (bx - ax) * (cy - ay), 0.0) / 6
    total = jnp.zeros_like(x)
    for corner in range(3):
        total = total.at[triangles[:, corner]].add(third)
    return total.T


@typed_jit
def coarse_visibility(
    points: Float[Array | np.ndarray, "B V 2"], depth: Float[Array | np.ndarray, "B V"]
) -> Bool[Array, "B V"]:
    """Which vertices are not far behind others: self-occlusion without drawing a triangle.

    A square grid is laid over each face's points, fine enough for some four vertices per cell. A vertex is hidden if it
    lies more than 1 cm behind the nearest vertex of each of the four cells around it; beside an empty cell, as on the
    outline, it counts as seen. So do vertices that face away; `projected_areas` knows them. A surface inside, as the
    mouth's, shows through skin whose vertices are further apart than a cell: 10 % of the built-in face's area at a yaw
    of 60 degrees, 0.3 % of its parts' area.

    Args:
        points: image points in any unit; those that are not finite take no part and count as seen.
        depth: distance from the camera along its axis, in model units.
    """
    points, depth = jnp.asarray(points), jnp.asarray(depth)
    batch, count = depth.shape
    if points.size == 0:
        return jnp.ones(depth.shape, bool)
    cells = max(1, math.isqrt(count // VERTICES_PER_CELL))
    # Axis by axis: the short last axis would make all of this slow on CPU.
    x, y = points[..., 0], points[..., 1]
    known = jnp.isfinite(x) & jnp.isfinite(y) & jnp.isfinite(depth)
    low = [jnp.where(known, axis, jnp.inf).min(1, keepdims=True) for axis in (x, y)]
    high = [jnp.where(known, axis, -jnp.inf).max(1, keepdims=True) for axis in (x, y)]
    side = jnp.maximum(high[0] - low[0], high[1] - low[1]) / cells
    side = jnp.where(side > 0, side, 1.0)
    across, down = (jnp.where(known, (axis - least) / side, 0.0) for axis, least in zip((x, y), low, strict=True))

    sample = jnp.arange(batch)[:, None]
    column, row = (jnp.minimum(position.astype(jnp.int32), cells - 1) for position in (across, down))
    nearest = jnp.full((batch, cells, cells), jnp.inf, depth.dtype)
    nearest = nearest.at[sample, row, column].min(jnp.where(known, depth, jnp.inf))
    # The greatest of the four cells around each crossing of the grid's lines; those outside repeat their neighbours.
    padded = jnp.pad(nearest, ((0, 0), (1, 1), (1, 1)), mode="edge")
    padded = jnp.maximum(padded[:, 1:], padded[:, :-1])
    around = jnp.maximum(padded[:, :, 1:], padded[:, :, :-1])
    column, row = (jnp.minimum((position + 0.5).astype(jnp.int32), cells) for position in (across, down))
    return ~((depth > around[sample, row, column] + TOLERANCE) & known)
