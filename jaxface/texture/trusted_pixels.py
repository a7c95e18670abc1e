"""Which pixels of a crop lend the face its colours: by the parser that comes with jaxface, or by a label map alone."""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageFilter

from jaxface.core.parts import BACKGROUND
from jaxface.photos.alignment import Alignment
from jaxface.texture.atlases import enlarged
from jaxface.texture.skin import bare_skin, open_mouth


def trusted_pixels(
    picture: UInt8[np.ndarray, "P P 3"],
    labels: UInt8[np.ndarray, "N N"],
    colors: Float[np.ndarray, "P P 3"],
    alignment: Alignment,
    *,
    shares: Float[np.ndarray, "s s C"] | None = None,
    drawn: UInt8[np.ndarray, "P P"] | None = None,
    keep_glasses: bool = False,
) -> tuple[Float[np.ndarray, "P P"], Float[np.ndarray, "P P"]]:
    """How far each pixel shows the bare face, and how far the inside of its mouth, 0..1.

    Args:
        picture: the crop.
        labels: its label map, which counts where there are no `shares`, or where the parser sees no face in them.
        colors: the picture as the fit explains it, in [0, 1].
        alignment: where the picture lies in the photo: beyond the photo's border there is nothing.
        shares: from `skin.class_shares`.
        drawn: parts of the fitted face in the picture; needed with `shares`.
        keep_glasses: calls glasses part of the face, if there are `shares`.
    """
    inside, size = _in_photo(alignment), len(picture)
    bare = None
    if shares is not None and drawn is not None:
        bare = bare_skin(picture, shares, drawn, keep_glasses=keep_glasses)
    if bare is None or shares is None:
        mask = _soft_mask(labels != BACKGROUND, size) * (1 - _occluded(labels, picture, colors)) * inside
        return mask, mask
    bare, mouth = (enlarged(field, size) * inside for field in (bare, open_mouth(picture, shares)))
    # Lips are no teeth, though the fit may have them there, nor are teeth lips.
    return bare * (1 - mouth), np.minimum(bare, mouth)


def _soft_mask(mask: Bool[np.ndarray, "S S"], size: int) -> Float[np.ndarray, "P P"]:
    """The face's mask with `size` pixels a side, a little smaller and softer: hair and background show at the outline.

    What lies above the face counts as well: a fringe or a hat looks better whole than cut at the detector's outline.
    """
    above = np.maximum.accumulate(mask[::-1], axis=0)[::-1]
    picture = Image.fromarray(255 * above.astype(np.uint8)).resize((size, size))
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(size / 24)), np.float32) / 255
    return np.clip(2.5 * blurred - 1.5, 0, 1)


def _occluded(
    labels: UInt8[np.ndarray, "S S"], picture: UInt8[np.ndarray, "P P 3"], colors: Float[np.ndarray, "P P 3"]
) -> Float[np.ndarray, "P P"]:
    """Where something lies before the face: a hole or a bay in the label map whose colours the fit does not explain.

    The rim of the face's sides is suspected too, of hair, but only of what is far darker or lighter than the fit. What
    lies above the face is the business of `_soft_mask`.
    """
    size, scale = picture.shape[1::-1], len(picture) / 512
    mask = labels != BACKGROUND
    below_top, above_bottom = np.maximum.accumulate(mask, axis=0), np.maximum.accumulate(mask[::-1], axis=0)[::-1]
    hole, filled = (
        Image.fromarray(255 * array.astype(np.uint8)).resize(size)
        for array in (below_top & above_bottom & ~mask, above_bottom)
    )
    rim = 1 - _ramp(_blurred(filled, 30 * scale), 0.75, 0.95)
    difference = np.abs(picture.astype(np.float32) - 255 * np.clip(colors, 0, 1)).mean(-1).clip(0, 255)
    difference = 255 * _blurred(Image.fromarray(difference.astype(np.uint8)), 4 * scale)
    in_hole = _blurred(hole, 0) * _ramp(difference, 20, 40)
    hidden = np.maximum(in_hole, rim * _ramp(difference, 45, 75))
    # A little wider, with a soft edge, as the outline of the mask is.
    wider = Image.fromarray((255 * hidden).astype(np.uint8)).filter(ImageFilter.MaxFilter(9))
    return np.clip(1.5 * _blurred(wider, 5 * scale), 0, 1)


def _blurred(image: Image.Image, radius: float) -> Float[np.ndarray, "P P"]:
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


def _ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((values - low) / (high - low), 0, 1)


def _in_photo(alignment: Alignment) -> Float[np.ndarray, "P P"]:
    """Which pixels of the picture the photo reaches, without those that its border's black touches."""
    x, y = alignment.to_photo(np.arange(alignment.size)[:, None] + 0.5).T  # the crop is square and upright
    margin = 1 + 1 / alignment.scale
    height, width = alignment.photo_size
    columns, rows = ((place > margin) & (place < end - margin) for place, end in ((x, width), (y, height)))
    return (rows[:, None] & columns[None]).astype(np.float32)
