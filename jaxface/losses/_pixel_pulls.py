"""PRDL's gradient on pixels: which pixel of a drawn face each difference pulls at, and which vertices carry that.

A label map does not change while a mesh moves by less than a pixel, so its loss has no gradient of its own. Here is one
for it: each pixel is a point of the surface that moves with its triangle, and each outline moves with the nearer of the
surfaces that meet there.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxface.core.parts import LABELS, PARTS
from jaxface.losses._nearest_pixels import AnchorGrid, lead, masks_of
from jaxface.losses._pixel_sets import (
    PixelSets,
    cell_distances,
    cell_side,
    furthest_pixels,
    mean_anchors,
)
from jaxface.render.areas import TOLERANCE

Place = tuple[Array, Array]
"""Down and across: rows and columns of pixels, or offsets."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Drawn:
    """Drawn faces, as PRDL compares them.

    Attributes:
        labels: [B, H, W] parts, as the target treats them.
        triangle: [B, H, W] seen at each pixel; -1 for none.
        depth: [B, H, W] of what is seen, in model units; infinite where that is no face or hidden.
        cut: [B, H, W] where skin was cut away above the brows.
        hidden: [B, H, W] where something lies over the face.
    """

    labels: UInt8[Array, "B H W"]
    triangle: Int[Array, "B H W"]
    depth: Float[Array, "B H W"]
    cut: Bool[Array, "B H W"]
    hidden: Bool[Array, "B H W"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slopes:
    """Derivatives of the loss in what describes the drawn parts; zero for those that do not count.

    Attributes:
        signed: [B, P, R, C].
        greatest: [B, P, A]; None if it is not compared.
        mean: [B, P, A]; likewise.
    """

    signed: Float[Array, "B P R C"]
    greatest: Float[Array, "B P A"] | None
    mean: Float[Array, "B P A"] | None


def pulls(drawn: Drawn, sets: PixelSets, slopes: Slopes, grid: AnchorGrid) -> Float[Array, "B H W 2"]:
    """The derivative of the loss in the place of each pixel of the surface."""
    place = lead(grid.rows[:, None], 4), lead(grid.columns, 4)
    inside = masks_of(drawn.labels[:, grid.rows][:, :, grid.columns])
    is_skin = lead(jnp.arange(1, 1 + len(PARTS))[:, None, None] == LABELS["skin"], 4)
    total = jnp.zeros((*drawn.labels.shape, 2), jnp.float32)

    # Outside a part: the nearest pixel is the part's own, and the one before it is beyond the outline.
    nearest = sets.nearest.row, sets.nearest.column
    along = _along(nearest, place)
    slope = jnp.where(inside, 0.0, slopes.signed)
    total = _pull(total, drawn, nearest, _step(nearest, along, -1), slope, along, is_skin)

    # Inside: the nearest other pixel is beyond the outline, and the one before it is the part's own.
    other = sets.other.row, sets.other.column
    along = _along(other, place)
    slope = jnp.where(inside, slopes.signed, 0.0).sum(1, keepdims=True)
    skin_here = (inside & is_skin).any(1, keepdims=True)
    total = _pull(total, drawn, _step(other, along, -1), other, -slope, along, skin_here)

    # The furthest pixel is the part's own, and the one behind it is beyond the outline.
    if slopes.greatest is not None:
        anchors = mean_anchors(grid)
        furthest = furthest_pixels(masks_of(drawn.labels), grid)
        along = _along(furthest, (lead(anchors[:, 1] - 0.5, 3), lead(anchors[:, 0] - 0.5, 3)))
        total = _pull(total, drawn, furthest, _step(furthest, along, 1), slopes.greatest, along, is_skin[..., 0])
    return total if slopes.mean is None else total + _area_pulls(drawn, sets, slopes.mean, grid)


def _along(pixel: Place, anchor: Place) -> Place:
    """Down and across from anchors to pixels, in pixels."""
    return jnp.asarray(pixel[0] - anchor[0], jnp.float32), jnp.asarray(pixel[1] - anchor[1], jnp.float32)


def _step(pixel: Place, along: Place, direction: int) -> Place:
    """The next pixel on the axis along which the anchor is further off; `direction` 1 leads away from it."""
    row, column = pixel
    down, across = along
    level = jnp.abs(across) >= jnp.abs(down)
    row = row + direction * jnp.where(level, 0, jnp.sign(down)).astype(jnp.int32)
    return row, column + direction * jnp.where(level, jnp.sign(across), 0).astype(jnp.int32)


def _pull(
    total: Float[Array, "B H W 2"],
    drawn: Drawn,
    member: Place,
    beyond: Place,
    slope: Float[Array, "B P *A"],
    along: Place,
    is_skin: Bool[Array, "..."],
) -> Float[Array, "B H W 2"]:
    """Adds slope times the direction from the anchor, at the surface that the outline between two pixels moves with.

    Args:
        total: to add to.
        drawn: the faces.
        member: a pixel of the part.
        beyond: its neighbour beyond the outline; may be out of the picture.
        slope: of the loss in the distance from the anchor to the outline.
        along: down and across from the anchor to the matched pixel.
        is_skin: where the part is the skin, whose cut above the brows stays where it is.
    """
    batch, height, width = drawn.labels.shape
    first = (height * width * jnp.arange(batch, dtype=jnp.int32)).reshape(batch, *[1] * (slope.ndim - 1))
    in_picture = (beyond[0] >= 0) & (beyond[0] < height) & (beyond[1] >= 0) & (beyond[1] < width)
    own, across = (
        first + jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
        for row, column in (member, beyond)
    )
    depth = drawn.depth.reshape(-1)
    still = drawn.hidden.reshape(-1)[across] | (drawn.cut.reshape(-1)[across] & is_skin)
    moves = in_picture & ~still & (slope != 0)
    carrier = jnp.where(depth[across] < depth[own] - TOLERANCE, across, own)
    length = jnp.sqrt(sum(jnp.square(offset) for offset in along))
    force = slope / jnp.where(length > 0, length, 1.0)
    force = jnp.stack([force * along[1], force * along[0]], axis=-1)
    carrier = jnp.where(moves, carrier, batch * height * width)
    flat = total.reshape(batch * height * width, 2).at[carrier.reshape(-1)].add(force.reshape(-1, 2), mode="drop")
    return flat.reshape(total.shape)


def _area_pulls(
    drawn: Drawn, sets: PixelSets, slope: Float[Array, "B P A"], grid: AnchorGrid
) -> Float[Array, "B H W 2"]:
    """The gradient of the mean distance, whose points come and go at the outlines (a shape derivative).

    Where an outline moves by a pixel, its part gains a pixel there and its neighbour loses it: that changes the loss by
    the difference of their potentials, h(x) = sum_a slope_a (|x - a| - mean_a) / area.
    """
    potential = jnp.einsum("bpa,ca->bpc", slope, cell_distances(grid), precision="highest")
    potential -= jnp.einsum("bpa,bpa->bp", slope, sets.mean, precision="highest")[..., None]
    potential /= jnp.maximum(sets.area, 1.0)[..., None]
    side, (height, width) = cell_side(grid), drawn.labels.shape[1:]
    cells = potential.reshape(*potential.shape[:2], -(-height // side), -(-width // side))
    # The barrier keeps XLA from repeating the repetition for each of its many readers.
    everywhere = jax.lax.optimization_barrier(_repeated(_repeated(cells, side, 3)[..., :width], side, 2)[:, :, :height])
    masks = masks_of(drawn.labels)

    def between(axis: int) -> Float[Array, "B H W"]:
        """The pull along an axis: at each outline between neighbours, on the nearer surface."""

        def ends(array: Array, axis: int) -> tuple[Array, Array]:
            count = array.shape[axis]
            return (
                jax.lax.slice_in_dim(array, 0, count - 1, axis=axis),
                jax.lax.slice_in_dim(array, 1, count, axis=axis),
            )

        force = jnp.zeros((), jnp.float32)
        for part in range(len(PARTS)):  # one after the other: a sum over an axis in between is slow on CPU
            (one, two), (here, there) = (ends(array[:, part], axis) for array in (masks, everywhere))
            # Half-way between the two pixels, where the outline is: a part may be as narrow as two of them.
            force += (one.astype(here.dtype) - two) * (here + there) / 2
        # The cut above the brows moves with the face; without it, what pulls at the rest would not balance.
        moves = ~functools.reduce(jnp.logical_or, ends(drawn.hidden, axis))
        force = jnp.where(moves, force, 0.0)
        first_nearer = jnp.less_equal(*ends(drawn.depth, axis))

        def placed(array: Float[Array, "..."], low: int) -> Float[Array, "B H W"]:
            room = [(0, 0)] * 3
            room[axis] = (low, 1 - low)
            return jnp.pad(array, room)

        return placed(jnp.where(first_nearer, force, 0.0), 0) + placed(jnp.where(first_nearer, 0.0, force), 1)

    return jnp.stack([between(2), between(1)], axis=-1)


def _repeated(array: Float[Array, "..."], times: int, axis: int) -> Float[Array, "..."]:
    """jnp.repeat without its look-ups."""
    shape = list(array.shape)
    wider = jnp.broadcast_to(jnp.expand_dims(array, axis + 1), (*shape[: axis + 1], times, *shape[axis + 1 :]))
    shape[axis] *= times
    return wider.reshape(shape)


def carry(
    pulls: Float[Array, "B H W 2"],
    triangle: Int[Array, "B H W"],
    points: Float[Array, "B V 2"],
    triangles: Int[Array, "T 3"],
) -> Float[Array, "B V 2"]:
    """Hands the pulls at pixels on to the corners of their triangles, by the weights of the pixels in the picture."""
    batch, height, width = triangle.shape
    if len(triangles) == 0:
        return jnp.zeros_like(points)
    seen = (triangle >= 0) & (pulls != 0).any(-1)
    corner = jnp.where(seen[..., None], triangles[triangle], points.shape[1])
    index = jnp.where(
        seen[..., None], corner + points.shape[1] * jnp.arange(batch, dtype=corner.dtype)[:, None, None, None], -1
    )
    place = points.reshape(-1, 2)[index]
    column, row = (jnp.arange(size, dtype=points.dtype) + 0.5 for size in (width, height))
    x, y = place[..., 0] - lead(column[:, None], 4), place[..., 1] - lead(row[:, None, None], 4)
    areas = [x[..., i] * y[..., j] - y[..., i] * x[..., j] for i, j in ((1, 2), (2, 0), (0, 1))]
    whole = areas[0] + areas[1] + areas[2]
    weights = jnp.stack(areas, axis=-1) / jnp.where(whole == 0, 1.0, whole)[..., None]
    moved = (weights[..., None] * pulls[..., None, :]).reshape(-1, 2)
    out = jnp.where(index < 0, batch * points.shape[1], index).reshape(-1)
    return jnp.zeros((batch * points.shape[1], 2), points.dtype).at[out].add(moved, mode="drop").reshape(points.shape)
