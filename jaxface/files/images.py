"""Reading pictures of every common kind into one form: uint8 RGB, upright."""

import contextlib
import io
import math
import os
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from jaxface.core.errors import InputError

MIN_SIZE = 16
"""Pictures with a shorter side than this, in pixels, cannot show a face and are refused."""


PLENTY, PIXELS_PER_BYTE = 2**25, 256
"""Pixels that any picture may have, as many as 8K video; a larger one needs a byte of file for so many: photos do."""

# Pillow also opens formats that run other programs (EPS calls Ghostscript) or hold no photos; those stay closed.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")

_EXIF, _FOCAL_35MM, _WIDTH, _HEIGHT = 0x8769, 0xA405, 0xA002, 0xA003
"""Tags of EXIF 2.3."""

_BACKDROP = (255, 255, 255)

_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")


def read_image(path: str | os.PathLike) -> UInt8[np.ndarray, "H W 3"]:
    """Reads a picture as RGB bytes, turned upright by its EXIF orientation.

    Grayscale, palette and CMYK pictures become RGB; 16-bit and floating-point ones are scaled to 0..255; transparent
    ones are laid over white; of an animation the first frame is taken.

    Raises:
        InputError: names the file when it is missing, a folder, empty, truncated, not a picture of a known format,
            smaller than `MIN_SIZE`, or larger than Pillow's limit against decompression bombs.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; what matters is raised below
        return decode_image(path)


def decode_image(path: str | os.PathLike) -> UInt8[np.ndarray, "H W 3"]:
    """`read_image` for files known to be sound: lets Pillow's warnings through, hence is safe in threads."""
    with _opened(path) as image:
        if min(image.size) < MIN_SIZE:
            size, least = f"{image.width} x {image.height}", f"{MIN_SIZE} x {MIN_SIZE}"
            raise InputError(f"{path}: the picture is {size} pixels; at least {least} are needed")
        return _to_rgb(_upright(image))


def decode_mask(path: str | os.PathLike) -> UInt8[np.ndarray, "H W"]:
    """Reads a single-channel picture of labels or of a mask, its values unchanged.

    Raises:
        InputError: names the file when it cannot be read or holds colours.
    """
    with _opened(path) as image:
        if image.mode == "1":
            return np.array(image).astype(np.uint8)
        if image.mode not in ("L", "P"):
            raise InputError(
                f"{path}: labels and masks are 8-bit pictures of one channel, but this one is {image.mode}"
            )
        return np.array(image)


def photo_focal(path: str | os.PathLike) -> float | None:
    """The focal length in pixels of the picture that a photo's EXIF data tell (FocalLengthIn35mmFilm); None if unknown.

    A photo that was cut since it was taken, so that its sides are no longer in the proportion that EXIF tells, has lost
    its focal length.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                tags, (width, height) = image.getexif().get_ifd(_EXIF), image.size
        equivalent, *sides = (float(tags.get(tag, 0)) for tag in (_FOCAL_35MM, _WIDTH, _HEIGHT))
    except Exception:  # damaged tags raise exceptions of every kind, while the picture itself can be read
        return None
    if not 5 <= equivalent <= 2000:
        return None
    if min(sides) > 0 and abs(max(sides) / min(sides) * min(width, height) / max(width, height) - 1) > 0.01:
        return None
    return equivalent * math.hypot(width, height) / math.hypot(36, 24)


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    """The picture in a file, decoded; whatever is wrong with the file becomes an InputError."""
    path = check_file(path)
    try:
        Image.init()
        with Image.open(path, formats=[name for name in _FORMATS if name in Image.OPEN]) as image:
            refuse_bomb(path, image.width * image.height)
            image.load()
            yield image
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a picture in a format that can be read ({', '.join(_FORMATS)})") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise InputError(f"{path}: the picture has more than {limit} million pixels; make it smaller") from None
    except MemoryError:
        raise InputError(f"{path}: not enough memory to read the picture") from None
    except Exception as error:  # decoders meet damaged files with every kind of exception
        raise InputError(f"{path}: the picture is damaged or cut short ({error})") from error


def refuse_bomb(path: str | os.PathLike, pixels: int, *, most: int = PLENTY, per_byte: int = PIXELS_PER_BYTE) -> None:
    """Refuses a picture that is large in pixels and tiny as a file, before it fills the memory.

    Raises:
        InputError: when there are more than `most` pixels, and more than `per_byte` for each byte of the file.
    """
    size = os.stat(path).st_size
    if pixels > max(most, per_byte * size):
        raise InputError(
            f"{path}: {pixels / 1e6:.0f} million pixels in a file of {size:,} bytes are no photo; make it smaller"
        )


def check_file(path: str | os.PathLike) -> Path:
    """Returns `path` if it is a file with something in it.

    Raises:
        InputError: says what it is instead.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; no picture was found in it")
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if not path.is_file():
        raise InputError(f"{path}: is not a regular file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: no permission to read this file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes)")
    return path


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata is no reason to refuse a sound picture
        return image


def _to_rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    if image.mode in _SIXTEEN_BIT_MODES:
        image = Image.fromarray(_to_bytes(np.asarray(image, np.float32), (65535.0,)))
    elif image.mode == "I":
        image = Image.fromarray(_to_bytes(np.asarray(image, np.float32), (255.0, 65535.0, 2.0**32)))
    elif image.mode == "F":
        image = Image.fromarray(_to_bytes(np.asarray(image), (1.0, 255.0, 65535.0)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        backdrop = Image.new("RGBA", image.size, (*_BACKDROP, 255))
        image = Image.alpha_composite(backdrop, image)
    return np.array(image.convert("RGB"))


def _to_bytes(values: Float[np.ndarray, "H W"], ranges: tuple[float, ...]) -> UInt8[np.ndarray, "H W"]:
    """Scales to 0..255 by the smallest of `ranges` that holds all values: files do not say which they use."""
    values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    peak = values.max(initial=0.0)
    limit = next((limit for limit in ranges if peak <= limit), peak)
    return np.round(np.clip(values / limit, 0, 1) * 255).astype(np.uint8)


PNG_OPTIONS: dict[str, Any] = {"compress_level": 1, "compress_type": zlib.Z_RLE}
"""For photos and renders, whose PNG filters leave little for a search of longer matches: as small, a quarter of the
time."""


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Colours in [0, 1] as uint8, clipped and rounded; uint8 stays as it is."""
    image = np.asarray(image)
    return image if image.dtype == np.uint8 else np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def encode_image(image: np.ndarray, image_format: str, *, quality: int = 92) -> bytes:
    """An image [H, W, 3] (uint8, or float in [0, 1]) as the bytes of a "PNG" or "JPEG" file.

    Args:
        image: the picture; [H, W] for grey, uint16 with a PNG only.
        image_format: "PNG" or "JPEG".
        quality: of a JPEG; below 90, its colours have half the resolution of its brightness.
    """
    pixels = np.asarray(image)
    stream = io.BytesIO()
    options = {"quality": quality, "subsampling": 0 if quality >= 90 else 2} if image_format == "JPEG" else PNG_OPTIONS
    Image.fromarray(pixels if pixels.dtype == np.uint16 else to_bytes(pixels)).save(stream, image_format, **options)
    return stream.getvalue()
