"""Pictures of more than 8 bits a channel: all of their numbers, which Pillow cuts down or does not open."""

import io
import os
import sys
from pathlib import Path

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image, ImageFile, ImageOps

from jaxface.core.errors import InputError, missing_extra

_RANGES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0, 2.0**32)
"""What whole numbers may reach: cameras and scanners store 10, 12 or 14 bits in 16."""

_OVERSHOOT = 1.1
"""What floating-point numbers may exceed their range by: resampling does, at edges."""

_DEFLATE = 1032
"""Times by which a compressed TIFF may be larger than its file: the most that its compression can do."""

_BACKDROP = 255.0

_BITS, _ORIENTATION, _PLANAR = 258, 274, 284
"""Tags of TIFF 6.0."""


def numbers_to_rgb(numbers: Num[np.ndarray, "H W ..."]) -> UInt8[np.ndarray, "H W 3"]:
    """Numbers of any type as RGB bytes, scaled by the smallest range that holds them: files do not say which they use.

    The ranges are 1 for floating-point numbers, and 255 and those of 10, 12, 14, 16 and 32 bits for all.

    Args:
        numbers: [H, W], or [H, W, C] of grey, grey and alpha, RGB, or RGB and alpha; what is transparent is laid over
            white. Not finite ones and those below 0 count as 0.

    Raises:
        InputError: for another shape or type.
    """
    channels = 1 if numbers.ndim == 2 else numbers.shape[-1]
    if numbers.dtype.kind not in "uif" or numbers.ndim not in (2, 3) or not 1 <= channels <= 4 or not numbers.size:
        raise InputError(
            f"the picture should be numbers [H, W], [H, W, 3] or [H, W, 4], but is {numbers.dtype} "
            f"{list(numbers.shape)}"
        )
    numbers = numbers.reshape(*numbers.shape[:2], channels)
    colors = channels - 1 + channels % 2
    rgb = np.broadcast_to(_to_bytes(numbers[..., :colors]), (*numbers.shape[:2], 3))
    if colors < channels:
        alpha = _to_bytes(numbers[..., colors:]) / np.float32(255)
        rgb = np.round(rgb * alpha + _BACKDROP * (1 - alpha)).astype(np.uint8)
    return np.array(rgb)


def _to_bytes(numbers: Num[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "H W C"]:
    if numbers.dtype == np.uint8:
        return numbers
    real = numbers.dtype.kind == "f"
    values = numbers.astype(np.result_type(numbers.dtype, np.float32) if real else np.float32)
    values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    peak = float(values.max(initial=0))
    ranges = (1.0, *_RANGES) if real else _RANGES
    limit = next((limit for limit in ranges if peak <= limit * (_OVERSHOOT if real else 1)), peak)
    return np.round(np.clip(values / limit, 0, 1) * 255).astype(np.uint8)


def has_deep_colors(image: ImageFile.ImageFile) -> bool:
    """Whether a PNG or TIFF, not loaded yet, has 16-bit colours, of which Pillow keeps the upper 8 bits."""
    return image.format in ("PNG", "TIFF") and _layout(image) in _OTHER_BYTE


def sixteen_bits(image: Image.Image, again: ImageFile.ImageFile) -> Num[np.ndarray, "H W C"] | None:
    """All 16 bits of a picture that `has_deep_colors`, if the upper 8 alone would leave it dark.

    Args:
        image: as Pillow reads it.
        again: the same, opened once more and not loaded.

    Returns:
        The numbers, turned upright; None when the upper bits are enough.
    """
    if np.asarray(image)[..., :3].max() > 63:
        return None
    arguments, raw = again.tile[0].args, _layout(again)
    other = _OTHER_BYTE[raw]
    again.tile = [again.tile[0]._replace(args=(other, *arguments[1:]) if isinstance(arguments, tuple) else other)]
    again.load()
    upper, lower = (np.asarray(upright(one)).astype(np.uint16) for one in (image, again))
    if raw == "LA;16B":  # read as four bytes: two of grey, two of alpha
        return lower[..., ::2] * np.uint16(256) + lower[..., 1::2]
    return upper * np.uint16(256) + lower


def _layout(image: ImageFile.ImageFile) -> str:
    """Pillow's name of the layout of a picture's numbers; "" where it is none, or there are several."""
    arguments = image.tile[0].args if len(image.tile) == 1 else None
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return raw if isinstance(raw, str) else ""


def upright(image: Image.Image) -> Image.Image:
    """A picture, which is loaded, turned upright by its EXIF orientation."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata is no reason to refuse a sound picture
        return image


# Pillow's names of the layout of 16-bit channels, and the name under which it gives their other byte.
_OTHER_BYTE = {
    f"{mode};16{order}": f"{mode};16{'B' if order == 'L' or (order == 'N' and sys.byteorder == 'little') else 'L'}"
    for mode in ("RGB", "RGBA")
    for order in "BLN"
}
_OTHER_BYTE["LA;16B"] = "RGBA"


def is_planar(image: Image.Image) -> bool:
    """Whether a picture is a TIFF that keeps its 16-bit channels apart, of which Pillow makes noise."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(_PLANAR) == 2 and int(np.max(tags.get(_BITS, 8))) > 8


def is_tiff(start: bytes) -> bool:
    """Whether a file that begins with `start` is a TIFF."""
    return start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_tiff(source: str | os.PathLike | io.BytesIO) -> Num[np.ndarray, "H W C"]:
    """The numbers of a TIFF's first picture, of any type that tifffile reads, turned upright.

    Raises:
        InputError: when tifffile is missing, or the picture is too large or not of colours.
        Exception: of many kinds, when the file is damaged.
    """
    try:
        import tifffile
    except ModuleNotFoundError:
        # No MissingDependencyError, which would stop a batch: photos of other kinds can be read.
        raise InputError(str(missing_extra("photo", "a TIFF of this kind", "tifffile"))) from None
    size = len(source.getvalue()) if isinstance(source, io.BytesIO) else Path(source).stat().st_size
    with tifffile.TiffFile(source) as file:
        page = file.pages.first
        if page.size > 4 * 2 * (Image.MAX_IMAGE_PIXELS or 0):
            raise Image.DecompressionBombError
        if page.nbytes > size * (1 if page.compression == tifffile.COMPRESSION.NONE else _DEFLATE):
            raise ValueError("it holds fewer numbers than it says")
        if page.photometric not in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.MINISBLACK):
            raise InputError(f"its colours are {tifffile.PHOTOMETRIC(page.photometric).name}; save it as RGB")
        try:
            numbers = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            raise InputError(
                f"its compression is {tifffile.COMPRESSION(page.compression).name}; save it without compression"
            ) from None
        if page.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            numbers = np.moveaxis(numbers, 0, -1)
        tag = page.tags.get(_ORIENTATION)
        return _turned(numbers, 1 if tag is None else int(tag.value))


def _turned(numbers: Num[np.ndarray, "H W ..."], orientation: int) -> Num[np.ndarray, "H W ..."]:
    """Turns upright what an EXIF orientation, 1 to 8, tells of."""
    if orientation in (5, 6, 7, 8):
        numbers = numbers.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        numbers = numbers[::-1]
    if orientation in (2, 3, 6, 7):
        numbers = numbers[:, ::-1]
    return numbers
