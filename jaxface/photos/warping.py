"""Square pieces of pictures for networks, turned and scaled as MediaPipe does it: to the byte, on every machine.

MediaPipe cuts its networks' inputs with OpenCV's warp for bytes, which counts in whole numbers: places are rounded to
1/32 pixel and colours to bytes. The same is done here, and not a smoother warp, so that the networks see what they see
in MediaPipe, and the same on every machine: points that were measured for one (their errors on a face model, figures
of fits) hold for the other. It does not average when it shrinks; large pictures are shrunk before (`shrink`).
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

_BITS = 5
_STEPS = 1 << _BITS
"""Places within a pixel that the warp tells apart."""

_LANES = tuple(np.uint64(bit) for bit in (0, 21, 42))
"""Where the colours lie in a number of 64 bits: all three are then weighted at once."""

_HALF = np.uint64(sum(1 << (int(lane) + 2 * _BITS - 1) for lane in _LANES))
"""Of a unit of each colour, once weighted: added to round."""

_ROWS = 64
"""That are worked on at a time: the system hands out larger arrays page by page, which can take longer than the work.
A region of 192 pixels then takes 0.9 ms rather than 3, and 1.7 rather than 8 of a picture of 512."""

_ABOVE, _BELOW = 2, 3
"""Black rows around a packed picture: as many as may be asked for, with a weight or with none."""


@dataclasses.dataclass(frozen=True)
class Square:
    """A square region of a picture, turned about its centre; pixels, x right, y down, (0, 0) the picture's corner.

    Attributes:
        center: (x, y).
        side: its length.
        angle: in radians; positive turns the region's x axis towards the picture's y axis, which looks clockwise.
    """

    center: tuple[float, float]
    side: float
    angle: float = 0.0

    @property
    def axes(self) -> Float[np.ndarray, "2 2"]:
        """The region's x axis and y axis, as rows, each of length 1."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.array([[cos, sin], [-sin, cos]])

    def to_picture(self, points: Float[np.ndarray, "*B 2"]) -> Float[np.ndarray, "*B 2"]:
        """Points of the region, whose corners are (0, 0) and (1, 1), to points of the picture."""
        return (np.asarray(points) - 0.5) * self.side @ self.axes + np.array(self.center)


def cut_square(
    picture: UInt8[np.ndarray, "H W 3"], square: Square, size: int, *, repeat_border: bool
) -> UInt8[np.ndarray, "S S 3"]:
    """A region of a picture, resampled to `size` pixels a side.

    The result's pixel i shows what lies at i / size of the side, not at (i + 1/2) / size: the networks were trained so.

    Args:
        picture: RGB.
        square: the region.
        size: S.
        repeat_border: continues the picture's outermost pixels outside of it; black otherwise.
    """
    height, width = picture.shape[:2]
    steps = np.arange(size) * square.side / size
    (across_x, across_y), (down_x, down_y) = square.axes
    start_x, start_y = square.to_picture(np.zeros(2))
    # Beyond the outermost pixels nothing changes any more, or beyond the black ones around them.
    first, last = (0, -1) if repeat_border else (-1, 0)
    packed = _packed(picture)
    columns, pixels = packed.shape[1], packed.reshape(-1)
    result = np.empty((size, size, 3), np.uint8)
    for top in range(0, size, _ROWS):
        rows = steps[top : top + _ROWS, None]
        x, y = (
            np.rint(np.clip(places, first, count + last) * _STEPS).astype(np.int32)
            for places, count in (
                (start_x + across_x * steps + down_x * rows, width),
                (start_y + across_y * steps + down_y * rows, height),
            )
        )
        # Shifts and masks, which round down as well, take a fifth of the time of divisions.
        index = ((y >> _BITS) + _ABOVE) * columns + (x >> _BITS)
        right, lower = ((place & (_STEPS - 1)).astype(np.uint64) for place in (x, y))
        left, upper = _STEPS - right, _STEPS - lower
        above = pixels.take(index) * left + pixels.take(index + 1) * right
        below = pixels.take(index + columns) * left + pixels.take(index + columns + 1) * right
        total = above * upper + below * lower + _HALF
        for channel, lane in enumerate(_LANES):
            result[top : top + _ROWS, :, channel] = (total >> (lane + 2 * _BITS)) & 255
    return result


def _packed(picture: UInt8[np.ndarray, "H W 3"]) -> np.ndarray:
    """The three colours as one number each, far enough apart that weighted sums of them do not meet; black around them.

    The column on the right is, one row down, the one on the left.
    """
    height, width = picture.shape[:2]
    result = np.zeros((_ABOVE + height + _BELOW, width + 1), np.uint64)
    inside = result[_ABOVE : _ABOVE + height, :width]
    for top in range(0, height, _ROWS):
        rows = picture[top : top + _ROWS]
        packed = rows[..., 0].astype(np.uint64)
        for channel in (1, 2):
            one = rows[..., channel].astype(np.uint64)
            one <<= _LANES[channel]
            packed |= one
        inside[top : top + _ROWS] = packed
    return result


def shrink(photo: Image.Image, box: tuple[int, int, int, int], largest: int) -> UInt8[np.ndarray, "H W 3"]:
    """A box of a photo, black outside of it, averaged down to at most `largest` pixels a side where it is larger."""
    crop = photo.crop(box)
    scale = largest / max(crop.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in crop.size)
        crop = crop.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(crop)
