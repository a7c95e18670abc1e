"""Pictures as bytes: the colours that files hold, and PNG and JPEG that are quick to write."""

import io
import zlib

import numpy as np
from PIL import Image

PNG_OPTIONS = {"compress_level": 1, "compress_type": zlib.Z_RLE}
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
