"""The film of a clip: pictures with the time of each, as a video through PyAV or, without it, as an animated GIF."""

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image

LONGEST_GIF = 150
"""Frames of a GIF: a longer clip shows every second, third, ... frame."""

CODECS = ("libx264", "libvpx-vp9", "mpeg4")
"""The first that PyAV has: H.264 and VP9 play in browsers."""

TICK = Fraction(1, 60_000)
"""Seconds: what times in a video are whole numbers of. Common frame rates are; MPEG-4 takes none finer than 1/65535."""

Picture = tuple[float, UInt8[np.ndarray, "H W 3"]]
"""Seconds, and RGB."""


def write_film(path: Path, pictures: Iterator[Picture], *, frame_rate: float, count: int) -> str:
    """Writes pictures as PATH.mp4, or as PATH.gif without PyAV; a picture or two are in memory at a time.

    Args:
        path: without a suffix.
        pictures: with increasing times, of one size, with even sides.
        frame_rate: pictures per second on average, which the last one is shown by.
        count: how many there are, about.

    Returns:
        The file's name.
    """
    try:
        import av
    except ImportError:
        _write_gif(path.with_suffix(".gif"), pictures, frame_rate=frame_rate, step=-(-count // LONGEST_GIF))
        return path.with_suffix(".gif").name
    codec = next(codec for codec in CODECS if codec in av.codecs_available)
    with av.open(str(path.with_suffix(".mp4").resolve()), "w", options={"movflags": "faststart"}) as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=Fraction(frame_rate).limit_denominator(1000)))
        last = -1
        for time, pixels in pictures:
            if last < 0:
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt, stream.codec_context.time_base = "yuv420p", TICK
                stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1  # BT.709, 16 to 235
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
            )
            last = max(round(time / TICK), last + 1)
            frame.pts, frame.time_base = last, TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.with_suffix(".mp4").name


def _write_gif(path: Path, pictures: Iterator[Picture], *, frame_rate: float, step: int) -> None:
    """Every `step`-th picture, each shown until the next one. A GIF counts hundredths of a second."""

    def images() -> Iterator[Image.Image]:
        palette = shown = None
        begun = 0
        for time, pixels in itertools.islice(pictures, 0, None, step):
            image, end = Image.fromarray(pixels), round(100 * time)
            # All pictures share the first one's palette: a palette each would make colours flicker.
            palette = palette or image.quantize(256)
            if shown is not None:
                shown.info["duration"] = 10 * max(end - begun, 1)
                yield shown
            shown, begun = image.quantize(palette=palette), end
        if shown is not None:
            shown.info["duration"] = 10 * max(round(100 * step / frame_rate), 1)
            yield shown

    film = images()
    next(film).save(path, save_all=True, append_images=film, loop=0)
