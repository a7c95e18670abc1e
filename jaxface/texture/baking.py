"""A texture in UV space from one photo: sampled where the photo shows the surface, completed where it does not."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float, Integer, UInt8
from PIL import Image

from jaxface.texture.atlases import bilinear, block_means, enlarged, lay_out, sample_texture, spread, to_atlas
from jaxface.texture.lighting import (
    UNLIKE,
    evened_out,
    shoulder,
    steady_shading,
    uneven_light,
    weighted_medians,
)
from jaxface.texture.membranes import membrane

GRAZING, FACING = 0.3, 0.7
"""Cosines between the normal and the line of sight at which the photo begins to count, and at which it counts fully."""

TOLERANCE = 0.02
"""How far behind the z-buffer surface still counts as seen, in the unit of the depths (model units: 2 mm)."""

LAYOUT_SIZE, MEMBRANE_SIZE = 512, 256
"""Largest side at which the surface is laid out, and at which layers are compared: both are smooth."""

DARK = 0.02
"""Added to colours in [0, 1] before the logarithm: ratios of what is darker say little."""

EDGE, EDGE_DEPTH = 5, 0.08
"""Pixels of the z-buffer within which an edge casts doubt, and how far behind it (model units: 8 mm)."""

FADE = 1e-3
"""Pull of the model's own colours back to their usual difference from the photo's: a shadow at the edge of what is
seen ends after 1 / sqrt(FADE) of MEMBRANE_SIZE texels, and is not drawn over all that is not."""

_BAND = 512  # rows of a large texture that are made at a time


@dataclasses.dataclass(frozen=True)
class _View:
    """What the photo shows of the surface at each texel, or of its mirror image.

    position [s, s, 2] in photo pixels; level [s, s, 1] of the photo's pyramid for a texture of s x s; trust [s, s, 1];
    log_light [s, s, 3] of the side that is seen.
    """

    position: np.ndarray
    level: np.ndarray
    trust: np.ndarray
    log_light: np.ndarray


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
    photo: Float[np.ndarray, "H W 3"] | UInt8[np.ndarray, "H W 3"],
    points: Float[np.ndarray, "V 2"],
    depth: Float[np.ndarray, "V"],
    weights: Float[np.ndarray, "V"],
    colors: Float[np.ndarray, "V 3"],
    uv: Float[np.ndarray, "V 2"],
    triangles: Integer[np.ndarray, "T 3"],
    *,
    surface_depth: Float[np.ndarray, "h w"],
    mask: Float[np.ndarray, "m n"] | None = None,
    mirror: Integer[np.ndarray, "V"] | None = None,
    interior: Bool[np.ndarray, "V"] | None = None,
    interior_mask: Float[np.ndarray, "m n"] | None = None,
    shading: Float[np.ndarray, "V 3"] | None = None,
    delight: bool = False,
    texture_size: int = 1024,
) -> Float[np.ndarray, "S S 3"]:
    """Samples the photo into the mesh's texture.

    Where the photo shows the surface (weight 1) a texel is the photo's colour at its perspective projection. Elsewhere
    it is the colour of its mirror image on the other half of the face, if that is seen, else the model's own colour.
    What is mirrored is the skin, not the light on it: layers are joined without their light and then lit again, each
    place as the shading says. A layer is multiplied by the smooth factor that makes it meet those above it (Poisson
    image editing of logarithms, see `membrane`), so that no seam shows.

    Args:
        photo: in [0, 1], or bytes. Where it is finer than the texture it is averaged.
        points: image points of the vertices in this photo, in pixels.
        depth: distance along the camera's axis, in any unit.
        weights: trust in the photo at each vertex, 0..1, from `view_weights`; what is hidden is found here.
        colors: the model's colours at the vertices, in [0, 1]: the fallback. With `shading`, those without light.
        uv: texture coordinates, u right, v up.
        triangles: vertex indices.
        surface_depth: z-buffer of the mesh in the photo, at any resolution, in the unit of `depth`; 0 where there is
            none.
        mask: where the photo shows the face and not hair or background, 0..1, at any resolution; everywhere by default.
        mirror: index of each vertex's mirror image.
        interior: vertices of the mouth's inside: too rugged for weights, so the photo counts wherever it shows them;
            elsewhere their `colors` stand as they are.
        interior_mask: where the photo shows that; `mask` by default.
        shading: light at the vertices, per channel; taken as even if None.
        delight: gives colours without the light.
        texture_size: S, in pixels; above LAYOUT_SIZE, a multiple of it.

    Returns:
        The texture, row 0 at v = 1; texels outside the mesh continue its colours, so that filtering finds no edge.
    """
    size = min(texture_size, LAYOUT_SIZE)
    layout = lay_out(uv, triangles, size)
    covered = layout[-1]
    light = np.ones_like(colors) if shading is None else steady_shading(shading, weights)
    stages = _pyramid(photo)

    # Deep inside, the edges of the lips cast no doubt on what is seen between them.
    inner = np.zeros(len(points), bool) if interior is None else interior
    weights = np.where(inner, 1.0, weights)

    masks = None
    if mask is not None:
        masks = np.stack([mask, mask if interior_mask is None else interior_mask], axis=-1)

    def view(order) -> _View:
        attributes = np.column_stack([points[order], depth[order], weights[order], inner[order], np.log(light[order])])
        return _seen_from(attributes.astype(np.float32), layout, stages[0].shape[:2], surface_depth, masks)

    views = [view(order) for order in ([slice(None)] if mirror is None else [slice(None), np.asarray(mirror)])]
    own = np.column_stack([_log(colors), np.log(light), inner]).astype(np.float32)
    own_log, own_light, own_inner = np.split(to_atlas(own, layout), [3, 6], axis=-1)
    layers = [_log(_sampled(stages, one, texture_size)) - one.log_light for one in views] + [own_log]
    trusts = [one.trust for one in views] + [np.ones_like(views[0].trust)]
    shifts = _joining_shifts(layers, trusts, own_inner, covered, _seam_links(points, depth, uv))
    whole = expected = own_log + shifts[-1]
    for one, layer, shift in list(zip(views, layers, shifts, strict=False))[::-1]:
        # What is doubtful and unlike what is around is the edge of something else.
        odd = np.square((layer + shift - expected) / (UNLIKE / 2)).max(-1, keepdims=True)
        one.trust[:] *= np.exp(-(1 - one.trust) * odd)
        whole = whole + one.trust * (layer + shift - whole)
    relight = own_light
    if delight:
        at_vertices = sample_texture(uneven_light(whole - own_log, covered * (1 - own_inner[..., 0])), uv)
        relight = -to_atlas(evened_out(at_vertices, mirror), layout)
    fields = [own_log + shifts[-1] + relight]
    for one, shift in zip(views, shifts, strict=False):
        fields += [one.trust, one.position, one.level, shift - one.log_light + relight]
    smooth = np.moveaxis(np.concatenate(fields, axis=-1), -1, 0)
    result = np.empty((texture_size, texture_size, 3), np.float32)
    for first in range(0, texture_size, _BAND):
        rows = (first, min(first + _BAND, texture_size))
        band = [enlarged(field, texture_size, rows=rows) for field in smooth]
        result[slice(*rows)] = _joined(stages, band, np.log2(texture_size / size))
    return np.clip(shoulder(result) if delight else result, 0, 1)


def texture_side(
    points: Float[np.ndarray, "V 2"],
    weights: Float[np.ndarray, "V"],
    uv: Float[np.ndarray, "V 2"],
    triangles: Integer[np.ndarray, "T 3"],
) -> float:
    """The side in pixels at which a texel is as large as a photo's pixel, over what the photo shows well; 0 if nothing.

    Args:
        points: image points in pixels of the photo.
        weights: trust in the photo at each vertex; triangles count from 0.5 upwards.
        uv: texture coordinates.
        triangles: vertex indices.
    """
    well_seen = np.asarray(triangles)[weights[triangles].min(-1) >= 0.5]
    in_photo, in_texture = (_areas(place, well_seen).sum() for place in (points, uv))
    return float(np.sqrt(in_photo / in_texture)) if in_texture > 0 else 0.0


def _areas(places: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    a, b, c = (places[triangles[:, corner]].astype(np.float64) for corner in range(3))
    (ux, uy), (vx, vy) = (b - a).T, (c - a).T
    return np.abs(ux * vy - uy * vx) / 2


def _log(colors: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(colors, 0) + np.float32(DARK))


def _seen_from(attributes, layout, photo_size, surface_depth, masks) -> _View:
    """The view of a surface; attributes of its vertices: point (2), depth, weight, interior, logarithm of light (3)."""
    corners, barycentric, covered = layout
    # Barycentrics run along the surface, projection does not: x z, y z and z are what is linear on a triangle.
    attributes = attributes.copy()
    attributes[:, :2] *= attributes[:, 2:3]
    values = np.einsum("nk,nkc->nc", barycentric, attributes[corners])
    values[:, :2] /= values[:, 2:3]
    position, depth = values[:, :2], values[:, 2]
    at_surface = _rescaled(position, photo_size, surface_depth.shape)
    seen = _seen(surface_depth, at_surface, depth) * np.maximum(_clear(surface_depth, at_surface, depth), values[:, 4])
    trust = values[:, 3] * seen
    if masks is not None:
        outside, inside = bilinear(masks, _rescaled(position, photo_size, masks.shape[:2])).T
        trust = trust * (outside + values[:, 4] * (inside - outside))
    image = np.zeros((*covered.shape, 6), np.float32)
    image[covered] = np.column_stack([position, trust, values[:, 5:]])
    image = spread(image, covered.astype(np.float32))
    (down_x, along_x), (down_y, along_y) = (np.gradient(image[..., axis]) for axis in (0, 1))
    pixels = np.sqrt(np.abs(along_x * down_y - along_y * down_x))  # of the photo in a texel, along a side
    level = np.log2(np.maximum(pixels, 1e-3))[..., None].astype(np.float32)
    return _View(image[..., :2], level, image[..., 2:3], image[..., 3:])


def _rescaled(position: np.ndarray, size: Sequence[int], new_size: Sequence[int]) -> np.ndarray:
    return position * np.array([new_size[1] / size[1], new_size[0] / size[0]], np.float32)


def _pyramid(photo: np.ndarray) -> list[UInt8[np.ndarray, "H W 3"]]:
    """The photo as bytes, and again and again at half the size."""
    if photo.dtype != np.uint8:
        photo = np.round(255 * np.clip(np.nan_to_num(photo), 0, 1)).astype(np.uint8)
    stages = [photo]
    while len(stages) < 6 and min(stages[-1].shape[:2]) > 8:
        stages.append(np.asarray(Image.fromarray(stages[-1]).reduce(2)))
    return stages


def _sampled(stages: Sequence[np.ndarray], view: _View, texture_size: int) -> Float[np.ndarray, "s s 3"]:
    """The photo's colours at the layout's own size, where they are trusted; black elsewhere."""
    image, chosen = np.zeros((*view.trust.shape[:2], 3), np.float32), view.trust[..., 0] > 0
    image[chosen] = _colors_at(stages, view.position[chosen], view.level[chosen])
    return image


def _colors_at(stages, position: Float[np.ndarray, "N 2"], level: Float[np.ndarray, "N 1"]) -> Float[np.ndarray, "N 3"]:
    """Colours in [0, 1] at points of the photo, from the stage of the pyramid as fine as the texels there."""
    stage_of = np.clip(np.round(level[:, 0]), 0, len(stages) - 1).astype(int)
    colors = np.empty((len(position), 3), np.float32)
    for number in np.unique(stage_of):
        of_stage = stage_of == number
        # Halved with an odd side left over, a stage is a little larger than the photo: its pixels keep their size.
        colors[of_stage] = bilinear(stages[number], position[of_stage] / 2**number) / 255
    return colors


def _joining_shifts(layers, trusts, held, covered, links) -> list[Float[np.ndarray, "S S 3"]]:
    """What to add to each layer (the first lies on top) so that it meets those above it; nothing where it is `held`."""
    size = len(covered)
    side = max(1, size // MEMBRANE_SIZE)
    coarse = block_means(covered[..., None].astype(np.float32), side)[..., 0] > 0
    row, column = np.moveaxis(np.clip(np.floor(links * size).astype(int), 0, size - 1) // side, -1, 0)
    shifts, top, top_trust = [np.zeros_like(layers[0])], layers[0], trusts[0]
    for layer, trust in zip(layers[1:], trusts[1:], strict=True):
        known = np.square(np.minimum(top_trust, trust)) * (1 - held) * covered[..., None]  # doubtful texels fix little
        # The layers' usual difference; what differs much more is a beard, a crooked smile, or hair that was not seen.
        usual = weighted_medians(top - layer, known[..., 0])
        rest = top - layer - usual
        known *= np.exp(-np.square(rest / UNLIKE).max(-1, keepdims=True))
        weight = block_means(known + held * covered[..., None], side)
        difference = block_means(known * rest - held * covered[..., None] * usual, side) / np.maximum(weight, 1e-6)
        pull = FADE if layer is layers[-1] else 1e-6
        coarse_shift = usual + membrane(
            difference, weight[..., 0], coarse, links=row * coarse.shape[1] + column, screening=pull
        )
        coarse_shift = np.moveaxis(spread(coarse_shift, coarse.astype(np.float32)), -1, 0)
        shift = np.stack([enlarged(channel, size) for channel in coarse_shift], axis=-1)
        shifts.append(shift)
        below = (1 - top_trust) * trust
        total = top_trust + below
        top = (top_trust * top + below * (layer + shift)) / np.maximum(total, 1e-6)
        top_trust = total
    return shifts


def _seam_links(points, depth, uv) -> Float[np.ndarray, "N 2 2"]:
    """Pairs of places (down, along; 0..1) that are one point of the surface: vertices doubled at the atlas's cuts."""
    places = np.column_stack([points, depth]).astype(np.float32)
    order = np.lexsort(places.T)
    same = (places[order[1:]] == places[order[:-1]]).all(-1)
    pairs = np.stack([order[:-1][same], order[1:][same]], axis=-1)
    return np.stack([1 - uv[pairs][..., 1], uv[pairs][..., 0]], axis=-1)


def _joined(stages, fields: Sequence[Float[np.ndarray, "R S"]], finer: float) -> Float[np.ndarray, "R S 3"]:
    """The layers over one another, for some rows of the texture; `finer`: how often it doubles the layout's size."""
    result = np.exp(np.stack(fields[:3], axis=-1)) - np.float32(DARK)
    views = [fields[start : start + 7] for start in range(3, len(fields), 7)]
    for number in reversed(range(len(views))):  # from below
        trust, *others = views[number]
        chosen = trust > 0
        for above in views[:number]:
            chosen &= above[0] < 1
        x, y, level, *offset = (field[chosen] for field in others)
        colors = _colors_at(stages, np.stack([x, y], axis=-1), level[:, None] - np.float32(finer))
        colors = (colors + np.float32(DARK)) * np.exp(np.stack(offset, axis=-1)) - np.float32(DARK)
        below = result[chosen]
        result[chosen] = below + trust[chosen][:, None] * (colors - below)
    return result


def vertex_texture(
    colors: Float[np.ndarray, "V 3"],
    uv: Float[np.ndarray, "V 2"],
    triangles: Integer[np.ndarray, "T 3"],
    *,
    texture_size: int = 1024,
) -> Float[np.ndarray, "S S 3"]:
    """Colours of vertices as a texture of the mesh; arguments and result as in `uv_texture`."""
    image = to_atlas(np.asarray(colors, np.float32), lay_out(uv, triangles, texture_size))
    return np.clip(image, 0, 1)


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


def _seen(
    surface_depth: Float[np.ndarray, "H W"], position: Float[np.ndarray, "*S 2"], depth: Float[np.ndarray, "*S"]
) -> Bool[np.ndarray, "*S"]:
    """Whether surface at an image point and depth is inside the picture and not behind the z-buffer.

    It is compared with the farthest of the four pixels around: between their centres a steep surface covers much depth.
    """
    height, width = surface_depth.shape
    inside = ((position >= 0) & (position <= [width, height])).all(-1)
    farthest = np.max([surface_depth[pixel] for pixel in _four_pixels(position, height, width)], axis=0)
    return inside & ((depth <= farthest + TOLERANCE) | (farthest == 0))


def _clear(
    surface_depth: Float[np.ndarray, "H W"], position: Float[np.ndarray, "*S 2"], depth: Float[np.ndarray, "*S"]
) -> Float[np.ndarray, "*S"]:
    """How clear of edges that hide what lies well behind them, 0..1: a misfit shows there first, as nose on a cheek."""
    height, width = surface_depth.shape
    nearest = scipy.ndimage.minimum_filter(np.where(surface_depth > 0, surface_depth, np.inf), EDGE)
    behind = [
        np.clip((depth - nearest[pixel]) / EDGE_DEPTH - 1, 0, 1) for pixel in _four_pixels(position, height, width)
    ]
    return 1 - np.mean(behind, axis=0)


def _four_pixels(position: np.ndarray, height: int, width: int) -> list[tuple[np.ndarray, np.ndarray]]:
    column, row = np.moveaxis(np.floor(position - 0.5).astype(int), -1, 0)
    steps = ((0, 0), (0, 1), (1, 0), (1, 1))
    return [(np.clip(row + down, 0, height - 1), np.clip(column + right, 0, width - 1)) for down, right in steps]
