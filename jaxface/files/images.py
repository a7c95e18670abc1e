"""Reading pictures of every common kind into one form: uint8 RGB, upright."""

import contextlib
import io
import math
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile, UnidentifiedImageError

from jaxface.core.errors import InputError
from jaxface.files.deep_images import (
    has_deep_colors,
    is_planar,
    is_tiff,
    numbers_to_rgb,
    read_tiff,
    sixteen_bits,
    upright,
)
from jaxface.files.impostors import told_of_impostor

MIN_SIZE = 16
"""Pictures with a shorter side than this, in pixels, cannot show a face and are refused."""


PLENTY, PIXELS_PER_BYTE = 2**25, 256
"""Pixels that any picture may have, as many as 8K video; a larger one needs a byte of file for so many: photos do."""

# Pillow also opens formats that run other programs (EPS calls Ghostscript) or hold no photos; those stay closed.
_FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")

_HEIC_BRANDS = frozenset(b"heic heix heim heis hevc hevx hevm hevs mif1 msf1".split())
"""What files of HEIC, and of HEIF in general, say of themselves in their first 12 bytes."""

_EXIF, _FOCAL_35MM, _WIDTH, _HEIGHT = 0x8769, 0xA405, 0xA002, 0xA003
"""Tags of EXIF 2.3."""

_BACKDROP = (255, 255, 255)

_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
"""Pillow's modes of one channel of more than 8 bits."""

Photo = str | os.PathLike | bytes | Image.Image | np.ndarray
"""What a photo may be given as: a file, a file's bytes, Pillow's, or an array, see `read_image`."""


def read_image(photo: Photo) -> UInt8[np.ndarray, "H W 3"]:
    """Reads a picture as RGB bytes, turned upright by its EXIF orientation.

    Grayscale, palette and CMYK pictures become RGB; those of more than 8 bits are scaled to 0..255, see
    `deep_images.numbers_to_rgb`; transparent ones are laid over white; of an animation the first frame is taken. What a
    file is, its content tells, whatever its name ends in.

    Args:
        photo: a file; the bytes of one; a picture of Pillow; or an array [H, W], [H, W, 3] or [H, W, 4] with row 0 on
            top, RGB.

    Raises:
        InputError: names the file when it is missing, a folder, empty, truncated, not a picture of a known format,
            smaller than `MIN_SIZE`, or larger than Pillow's limit against decompression bombs.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; what matters is raised below
        return decode_image(photo)


def decode_image(photo: Photo) -> UInt8[np.ndarray, "H W 3"]:
    """`read_image` for files known to be sound: lets Pillow's warnings through, hence is safe in threads."""
    with _told_of(photo):
        if isinstance(photo, np.ndarray):
            _check_size(photo.shape[1::-1])
            return numbers_to_rgb(photo)
        if isinstance(photo, Image.Image):
            _check_size(photo.size)
            photo.load()
            return _to_rgb(upright(photo))
        try:
            with _open(photo) as image:
                _check_size(image.size)
                refuse_bomb(photo, image.width * image.height)
                if not is_planar(image):
                    deep, numbers = has_deep_colors(image), None  # once loaded, it does not tell any more
                    image.load()  # turning it upright would forgive what is damaged
                    if deep:
                        with _open(photo) as again:
                            numbers = sixteen_bits(image, again)
                    return _to_rgb(upright(image)) if numbers is None else numbers_to_rgb(numbers)
        except UnidentifiedImageError:
            if _is_heic(photo):
                raise InputError("the picture is damaged or cut short (HEIC)") from None
            if isinstance(photo, str | os.PathLike) and (told := told_of_impostor(photo)):
                raise InputError(told) from None
            if not is_tiff(_start(photo)):
                raise
        numbers = read_tiff(_source(photo))
        _check_size(numbers.shape[1::-1])
        return numbers_to_rgb(numbers)


def decode_mask(path: str | os.PathLike) -> UInt8[np.ndarray, "H W"]:
    """Reads a single-channel picture of labels or of a mask, its values unchanged.

    Raises:
        InputError: names the file when it cannot be read or holds colours.
    """
    with _told_of(path), _open(path) as image:
        refuse_bomb(path, image.width * image.height)
        image.load()
        if image.mode == "1":
            return np.array(image).astype(np.uint8)
        if image.mode not in ("L", "P"):
            raise InputError(
                f"{path}: labels and masks are 8-bit pictures of one channel, but this one is {image.mode}"
            )
        return np.array(image)


def photo_focal(photo: Photo) -> float | None:
    """The focal length in pixels of the picture that a photo's EXIF data tell (FocalLengthIn35mmFilm); None if unknown.

    Arrays have no EXIF data. A photo that was cut since it was taken, so that its sides are no longer in the proportion
    that EXIF tells, has lost its focal length.
    """
    if isinstance(photo, np.ndarray):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.nullcontext(photo) if isinstance(photo, Image.Image) else _open(photo) as image:
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
def _told_of(photo: Photo) -> Iterator[None]:
    """Whatever is wrong with a picture becomes an InputError that names it."""
    name = photo_name(photo)
    try:
        yield
    except InputError as error:
        if name in str(error):
            raise
        raise InputError(f"{name}: {error}") from error
    except UnidentifiedImageError:
        raise InputError(f"{name}: not a picture in a format that can be read ({', '.join(_FORMATS)})") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise InputError(f"{name}: the picture has more than {limit} million pixels; make it smaller") from None
    except MemoryError:
        raise InputError(f"{name}: not enough memory to read the picture") from None
    except Exception as error:  # decoders meet damaged files with every kind of exception
        raise InputError(f"{name}: the picture is damaged or cut short ({error})") from error


def photo_name(photo: Photo) -> str:
    """What to call a photo in messages: its path, or "the photo"."""
    return str(photo) if isinstance(photo, str | os.PathLike) else getattr(photo, "filename", "") or "the photo"


def _open(photo: str | os.PathLike | bytes) -> ImageFile.ImageFile:
    """The picture in a file or in the bytes of one, not decoded yet."""
    Image.init()
    if _is_heic(photo):
        try:
            import pillow_heif
        except ModuleNotFoundError:
            # No MissingDependencyError, which would stop a batch: its other photos can be read.
            raise InputError(
                "HEIC pictures need pillow-heif; run: pip install 'jaxface[photo]', or save it as JPEG"
            ) from None
        pillow_heif.register_heif_opener()
    return Image.open(_source(photo), formats=[name for name in _FORMATS if name in Image.OPEN])


def _source(photo: str | os.PathLike | bytes) -> Path | io.BytesIO:
    if isinstance(photo, bytes | bytearray | memoryview):
        if not photo:
            raise InputError("the file is empty (0 bytes)")
        return io.BytesIO(photo)
    if not isinstance(photo, str | os.PathLike):
        raise InputError(f"a photo is a path, bytes, a picture of Pillow or an array, not {type(photo).__name__}")
    return check_file(photo)


def _start(photo: str | os.PathLike | bytes) -> bytes:
    source = _source(photo)
    with source if isinstance(source, io.BytesIO) else open(source, "rb") as file:
        return file.read(12)


def _is_heic(photo: str | os.PathLike | bytes) -> bool:
    start = _start(photo)
    return start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS


def _check_size(size: Sequence[int]) -> None:
    if len(size) == 2 and min(size) < MIN_SIZE:
        least = f"{MIN_SIZE} x {MIN_SIZE}"
        raise InputError(f"the picture is {size[0]} x {size[1]} pixels; at least {least} are needed")


def refuse_bomb(
    photo: str | os.PathLike | bytes, pixels: int, *, most: int = PLENTY, per_byte: int = PIXELS_PER_BYTE
) -> None:
    """Refuses a picture that is large in pixels and tiny as a file, before it fills the memory.

    Raises:
        InputError: when there are more than `most` pixels, and more than `per_byte` for each byte of the file.
    """
    size = os.stat(photo).st_size if isinstance(photo, str | os.PathLike) else len(photo)
    if pixels > max(most, per_byte * size):
        raise InputError(
            f"{photo_name(photo)}: {pixels / 1e6:.0f} million pixels in a file of {size:,} bytes are no photo; "
            "make it smaller"
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


def _to_rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    if image.mode in _DEEP_MODES:
        return numbers_to_rgb(np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        backdrop = Image.new("RGBA", image.size, (*_BACKDROP, 255))
        image = Image.alpha_composite(backdrop, image)
    return np.array(image.convert("RGB"))


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
