"""Maps of a face in the original photo's own pixels: depth, normals, visible parts, whole parts.

They are drawn at the picture's size (see `drawing.PICTURE_SIZE`) and resampled into the photo, each within its own box:
a mesh is smooth, and a photo of any size costs no compilation and little more time than its face covers pixels.
"""

import dataclasses
import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from jaxtyping import Array, Bool, Float, UInt8, UInt16
from PIL import Image

from jaxface.core.face_models import FaceModel
from jaxface.core.parts import BACKGROUND, LABELS
from jaxface.core.units import MM_PER_UNIT
from jaxface.files import visualize
from jaxface.files.atomic import atomic_write
from jaxface.files.images import PNG_OPTIONS
from jaxface.photos.alignment import Alignment
from jaxface.render import label_triangles, rasterize
from jaxface.results.drawing import DrawnFace

STEP = 0.05
"""A jump in depth, in model units (5 mm) from a pixel to the next: there, one surface hides another."""

_BILINEAR, _NEAREST = Image.Resampling.BILINEAR, Image.Resampling.NEAREST


@dataclasses.dataclass(frozen=True)
class PhotoMaps:
    """One face in the photo's pixels.

    Attributes:
        depth: [H, W] millimetres from the camera along its axis, rounded; 0 where there is no face.
        normals: [H, W, 3] in posed model space (x right, y up, z towards the viewer): 255 (n + 1) / 2, rounded; 0 where
            there is no face.
        visible_parts: [H, W] labels of `jaxface.core.parts` where the mesh is seen.
        whole_parts: part -> [H, W], each as if nothing hid it; the skin with the forehead.
        depth_picture: [S, S] in model units, as drawn over the picture; 0 where there is no face.
    """

    depth: UInt16[np.ndarray, "H W"]
    normals: UInt8[np.ndarray, "H W 3"]
    visible_parts: UInt8[np.ndarray, "H W"]
    whole_parts: dict[str, Bool[np.ndarray, "H W"]]
    depth_picture: Float[np.ndarray, "S S"]


def photo_maps(model: FaceModel, drawn: DrawnFace) -> PhotoMaps:
    """Draws the maps of a face that is drawn already.

    The camera of the depth is that of the photo in coefficients.json. Its distance is an estimate: one photo hardly
    tells how far a face is away; differences of depth are those of the face.
    """
    alignment, size = drawn.alignment, drawn.labels.shape[0]
    names = [part for part in LABELS if part in model.parts]
    labels = np.array([LABELS[part] for part in names], np.int32)
    triangle_labels = label_triangles(model.parts, model.triangles)
    points, vertex_depth = drawn.face.points[0], drawn.face.depth[0]
    depth, whole = _draw_maps(points, vertex_depth, model.triangles, triangle_labels, labels, size=size)
    depth = np.asarray(depth)
    return PhotoMaps(
        depth=_depth_in_photo(alignment, depth),
        normals=_normals_in_photo(alignment, drawn.normals, depth > 0),
        visible_parts=_labels_in_photo(alignment, drawn.labels),
        whole_parts={
            part: _mask_in_photo(alignment, mask) for part, mask in zip(names, np.asarray(whole), strict=True)
        },
        depth_picture=depth,
    )


@functools.partial(jax.jit, static_argnames="size")
def _draw_maps(
    points: Float[Array, "V 2"], depth: Float[Array, "V"], triangles, triangle_labels, labels, *, size: int
) -> tuple[Float[Array, "S S"], Bool[Array, "P S S"]]:
    """The depth of what is seen, and each part by itself."""
    triangles = jnp.asarray(triangles)

    def one_part(label: Array) -> Bool[Array, "S S"]:
        own = jnp.where((triangle_labels == label)[:, None], triangles, 0)  # the others lose their area
        return rasterize(points, depth, own, image_size=size).triangle >= 0

    return rasterize(points, depth, triangles, image_size=size).depth, jax.lax.map(one_part, labels)


def _depth_in_photo(alignment: Alignment, depth: Float[np.ndarray, "S S"]) -> UInt16[np.ndarray, "H W"]:
    seen = depth > 0
    box = _box_in_photo(alignment, seen)
    covered = _resampled(alignment, seen.astype(np.float32), box)
    smooth = _resampled(alignment, depth, box) / np.maximum(covered, 1e-6)
    # Between a near and a far surface there is nothing: no depth from between the two.
    farthest = scipy.ndimage.maximum_filter(depth, 3)
    nearest = scipy.ndimage.minimum_filter(np.where(seen, depth, np.inf), 3)
    at_jump = seen & (farthest - nearest > STEP)
    sharp = _resampled(alignment, np.where(at_jump, depth, 0), box, _NEAREST)
    millimetres = MM_PER_UNIT * np.where(sharp > 0, sharp, smooth)
    values = np.where(covered >= 0.5, np.clip(np.round(millimetres), 1, 65535), 0).astype(np.uint16)
    return _placed(alignment, values, box)


def _normals_in_photo(
    alignment: Alignment, normals: Float[np.ndarray, "S S 3"], seen: Bool[np.ndarray, "S S"]
) -> UInt8[np.ndarray, "H W 3"]:
    box = _box_in_photo(alignment, seen)
    covered = _resampled(alignment, seen.astype(np.float32), box)
    axes = np.stack([_resampled(alignment, normals[..., axis] * seen, box) for axis in range(3)], axis=-1)
    return _placed(alignment, normal_colors(axes) * (covered >= 0.5)[..., None], box)


def normal_colors(normals: Float[np.ndarray, "*S 3"]) -> UInt8[np.ndarray, "*S 3"]:
    """Vectors of any length as colours: 255 (n + 1) / 2 of the unit vector, rounded."""
    length = np.sqrt(np.einsum("...c,...c->...", normals, normals))[..., None]
    return np.round(127.5 * (normals / np.maximum(length, 1e-8) + 1)).astype(np.uint8)


def _labels_in_photo(alignment: Alignment, labels: UInt8[np.ndarray, "S S"]) -> UInt8[np.ndarray, "H W"]:
    """Per pixel the label whose mask, linear between the picture's pixels, is the strongest."""
    result = np.zeros(alignment.photo_size, np.uint8)
    strongest = np.full(alignment.photo_size, 255, np.uint8)  # outside the face no label is stronger
    box = _box_in_photo(alignment, labels != BACKGROUND)
    strongest[_slices(box)][_resampled(alignment, 255 * (labels != BACKGROUND).astype(np.uint8), box) >= 128] = 0
    for label in np.unique(labels[labels != BACKGROUND]):
        box = _box_in_photo(alignment, labels == label)
        mask = _resampled(alignment, 255 * (labels == label).astype(np.uint8), box)
        stronger = mask > strongest[_slices(box)]
        result[_slices(box)][stronger], strongest[_slices(box)][stronger] = label, mask[stronger]
    return result


def _mask_in_photo(alignment: Alignment, mask: Bool[np.ndarray, "S S"]) -> Bool[np.ndarray, "H W"]:
    box = _box_in_photo(alignment, mask)
    return _placed(alignment, _resampled(alignment, 255 * mask.astype(np.uint8), box) >= 128, box)


def _box_in_photo(alignment: Alignment, mask: Bool[np.ndarray, "S S"]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what a mask of the picture covers in the photo, a little too large; may be empty."""
    height, width = alignment.photo_size
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    corners = np.array([[columns[0] - 1, rows[0] - 1], [columns[-1] + 2, rows[-1] + 2]], float)
    (left, top), (right, bottom) = alignment.to_photo(corners)
    x0, y0 = min(max(math.floor(left), 0), width), min(max(math.floor(top), 0), height)
    return x0, y0, max(min(math.ceil(right), width), x0), max(min(math.ceil(bottom), height), y0)


def _slices(box: tuple[int, int, int, int]) -> tuple[slice, slice]:
    return slice(box[1], box[3]), slice(box[0], box[2])


def _resampled(
    alignment: Alignment,
    picture: np.ndarray,
    box: tuple[int, int, int, int],
    method: Image.Resampling = _BILINEAR,
) -> np.ndarray:
    """A picture [S, S], float32 or uint8, at the photo's pixels in a box; 0 outside the picture."""
    left, top, right, bottom = box
    if right == left or bottom == top:
        return np.zeros((bottom - top, right - left), picture.dtype)
    offset = alignment.to_crop(np.array([left, top], float))
    matrix = (alignment.scale, 0, offset[0], 0, alignment.scale, offset[1])
    size = (right - left, bottom - top)
    return np.asarray(Image.fromarray(picture).transform(size, Image.Transform.AFFINE, matrix, method))


def _placed(alignment: Alignment, values: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    result = np.zeros((*alignment.photo_size, *values.shape[2:]), values.dtype)
    result[_slices(box)] = values
    return result


def depth_picture(picture: UInt8[np.ndarray, "S S 3"], depth: Float[np.ndarray, "S S"]) -> UInt8[np.ndarray, "S S 3"]:
    """Depth over a picture for people: bright is near, dark is far.

    Args:
        picture: the photo's crop.
        depth: in any unit; 0 where there is nothing.
    """
    seen = depth > 0
    if not seen.any():
        return picture
    near, far = np.percentile(depth[seen], [0.5, 99.5])
    share = np.clip(255 * (far - depth) / max(far - near, 1e-6), 0, 255).astype(np.uint8)
    return np.where(seen[..., None], _DEPTH_COLORS[share], picture)


_STOPS = [[24, 16, 60], [66, 30, 112], [128, 44, 122], [196, 62, 98], [240, 110, 80], [252, 178, 110], [254, 244, 206]]

_PLACES = np.linspace(0, len(_STOPS) - 1, 256)

_DEPTH_COLORS = np.stack(
    [np.interp(_PLACES, np.arange(len(_STOPS)), channel) for channel in np.transpose(_STOPS)], axis=-1
).astype(np.uint8)
"""From far to near: brightness grows evenly."""


def write_photo_maps(folder: Path, maps: PhotoMaps) -> None:
    """Writes depth.png (16 bits), normals.png, visible_parts.png (labels, coloured) and whole_parts/PART.png (1 bit).

    Raises:
        InputError: when they cannot be written.
    """
    labels = Image.fromarray(maps.visible_parts)
    labels.putpalette(visualize.PART_COLORS.tobytes())
    pictures = {
        "depth": Image.fromarray(maps.depth),
        "normals": Image.fromarray(maps.normals),
        "visible_parts": labels,
        **{f"whole_parts/{part}": Image.fromarray(mask) for part, mask in maps.whole_parts.items()},
    }
    (folder / "whole_parts").mkdir(exist_ok=True)
    for name, picture in pictures.items():
        with atomic_write(folder / f"{name}.png") as partial:
            picture.save(partial, "PNG", **PNG_OPTIONS)
