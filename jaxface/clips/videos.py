"""The frames of a video file, one after another, upright, with the time of each: PyAV, which brings FFmpeg along."""

import collections
import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Float, UInt8

from jaxface.clips.file_lengths import declared_length, ends_in_zeros
from jaxface.core.errors import InputError, needs_extra

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer
    from av.sidedata.sidedata import SideDataContainer

# FFmpeg reads playlists too, which name other files and addresses; those stay closed.
_OPTIONS = {"format_whitelist": "mov,matroska,avi,mpeg,mpegvideo,mpegts,asf,ogg,m4v", "protocol_whitelist": "file"}

FRAME_RATE = 25.0
"""Frames per second of folders, and of files that do not tell."""

_RESTART = 1.0
"""Seconds that times may step back; beyond, the clock began anew, as where recordings were joined."""

_MOST_PIXELS = 40_000_000
"""Of a frame; 8K has 33 million."""

_CONVERT = "convert it, such as by: ffmpeg -i {} -c:v libx264 -pix_fmt yuv420p converted.mp4"

_AGAIN = "copy or download it again"


def video_rate_and_count(path: Path) -> tuple[float | None, int]:
    """What a video tells of its frames per second, None if nothing usable, and of their number; both may be wrong.

    Raises:
        InputError: when not one frame can be had from the file; says why.
        MissingDependencyError: without PyAV.
    """
    with _opened(path) as (container, stream):
        rate = _usable_rate(stream)
        count = stream.frames or round((container.duration or 0) / 1e6 * (rate or 0))
    lost: list[str] = []
    if next(read_video(path, lost), None) is None:
        what = f"{stream.codec_context.name}, {lost[0]}" if lost else "it holds none"
        hint = f"{_AGAIN}, or {_CONVERT.format(path.name)}"
        raise InputError(f"{path}: no frame of this video can be decoded ({what}{_cut(path)}); {hint}")
    return rate, max(count, 1)


def read_video(path: Path, problems: list[str]) -> Iterator[tuple[float, UInt8[np.ndarray, "H W 3"]]]:
    """Decodes a video, one frame in memory at a time.

    Frames are turned and mirrored as the file says, get square pixels, and RGB by the file's own colour matrix and
    range; transparent ones are laid over white.

    Args:
        path: the file.
        problems: what could not be read is told here, at the end.

    Yields:
        Seconds since the first frame, always increasing, and the frame.

    Raises:
        InputError: when the file is not a video, or holds no pictures.
        MissingDependencyError: without PyAV.
    """
    lost, last, origin = 0, None, 0.0
    with _opened(path) as (container, stream):
        rate = _usable_rate(stream)
        step = 1 / (rate or FRAME_RATE)
        for stamp, picture in _decoded(container, stream):
            if picture is None:
                lost += 1
                continue
            if last is None:
                origin, time = stamp or 0.0, 0.0
            elif stamp is None:
                time = last + step
            elif stamp - origin < last - _RESTART:
                time = last + step
                origin = stamp - time
            else:
                time = stamp - origin if stamp - origin > last else last + step / 2
            last = time
            yield time, picture
    if lost:
        problems.append(f"{lost} of its frames cannot be decoded and are left out")


def cut_off(path: Path) -> str | None:
    """What to say of a file whose end is missing; None for one that is whole, or does not tell."""
    told, there = declared_length(path), path.stat().st_size
    if told is not None and told > there:
        return f"the file is cut off ({there:,} of {told:,} bytes are there; {_AGAIN})"
    return f"the file is cut off (there are but zeros at its end; {_AGAIN})" if ends_in_zeros(path) else None


def _cut(path: Path) -> str:
    return ", the file is cut off" if cut_off(path) else ""


def _refuse_cut(path: Path) -> None:
    if reason := cut_off(path):
        raise InputError(f"{path}: {reason}, and without its end nothing of it can be read")


@contextlib.contextmanager
def _opened(path: Path) -> "Iterator[tuple[InputContainer, VideoStream]]":
    """The file and its picture stream."""
    with needs_extra("photo", f"{path}: reading a video"):
        import av
    # Titles that are not UTF-8: from version 19 on they do no harm, and there is no such option.
    titles: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    try:
        # The full path: FFmpeg takes "a:b.mp4" for an address.
        container = av.open(str(path.resolve()), container_options=_OPTIONS, **titles)
    except (av.FFmpegError, OSError) as error:
        _refuse_cut(path)
        raise InputError(
            f"{path}: is not a video that can be read, or is damaged ({error.strerror}); {_CONVERT.format(path.name)}"
        ) from error
    with container:
        stream = container.streams.best("video")
        if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
            holds = "sound but no pictures" if container.streams.audio else "no pictures"
            raise InputError(f"{path}: holds {holds}; a clip is a video, or a folder with one picture per frame")
        if not isinstance(stream, av.VideoStream) or stream.codec_context is None:
            _refuse_cut(path)
            raise InputError(f"{path}: is a video in a format that cannot be decoded; {_CONVERT.format(path.name)}")
        ratio = _ratio(stream)
        if stream.width * stream.height * max(ratio, 1 / ratio) > _MOST_PIXELS:
            raise InputError(
                f"{path}: has frames of {stream.width} x {stream.height} pixels; at most {_MOST_PIXELS // 10**6} "
                "million can be read, make them smaller"
            )
        yield container, stream


def _usable_rate(stream: "VideoStream") -> float | None:
    rate = float(stream.average_rate or 0)
    return rate if 1 <= rate <= 1000 else None


def _decoded(
    container: "InputContainer", stream: "VideoStream"
) -> Iterator[tuple[float | None, UInt8[np.ndarray, "H W 3"] | None]]:
    """Time by the file's clock, None if it tells none, and frame; None for data that gave no sound frame."""
    import av

    packets, unit = container.demux(stream), float(stream.time_base or 1)
    # AVI tells when a frame is decoded, not when it is shown: the first one shown has the first one's time, and so on.
    told: collections.deque[int] | None = collections.deque() if container.format.name == "avi" else None
    matrix, rotation = None, None
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError:  # nothing can be read from here on
            yield None, None
            return
        if packet.is_corrupt:  # the file ends in its midst
            yield None, None
            continue
        if told is not None and packet.dts is not None:
            told.append(packet.dts)
        try:
            for frame in packet.decode():
                stamp = told.popleft() if told else frame.dts if frame.pts is None else frame.pts
                time = None if stamp is None else stamp * unit
                if frame.rotation != rotation:
                    matrix, rotation = _display_matrix(frame), frame.rotation
                yield (None, None) if frame.is_corrupt else (time, _upright_rgb(frame, _ratio(stream), matrix))
        except (av.FFmpegError, ValueError):  # ValueError: a pixel format that cannot be converted
            if told:
                told.pop()
            yield None, None


def _ratio(stream: "VideoStream") -> float:
    """Width by height of a pixel; nonsense is passed over."""
    ratio = float(stream.sample_aspect_ratio or 1)
    return ratio if 1 / 8 <= ratio <= 8 else 1.0


def _upright_rgb(
    frame: "VideoFrame", ratio: float, matrix: Float[np.ndarray, "3 3"] | None
) -> UInt8[np.ndarray, "H W 3"]:
    # Where pixels are not square, the shorter side is stretched.
    width, height = round(frame.width * max(ratio, 1)), round(frame.height / min(ratio, 1))
    # Video that does not tell its colour matrix (2: unspecified) is BT.601 if small and BT.709 if large, as players do.
    colors = "ITU709" if frame.colorspace == 2 and (frame.width >= 1280 or frame.height > 576) else None
    transparent = any(component.is_alpha for component in frame.format.components)
    converted = frame.reformat(width, height, format="rgba" if transparent else "rgb24", src_colorspace=colors)
    pixels = converted.to_ndarray()
    if transparent:
        alpha = pixels[..., 3:] / 255.0
        pixels = np.round(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return pixels if matrix is None else _turned(pixels, matrix)


def _display_matrix(frame: "VideoFrame") -> Float[np.ndarray, "3 3"] | None:
    """(x, y, 1) of the frame, times this matrix, is where it belongs on the screen.

    Not to be asked of every frame: to look at what comes along with a frame ties a knot of references around it, and it
    stays in memory until Python looks for such knots, which frames outrun.
    """
    matrix = cast("SideDataContainer", frame.side_data).get("DISPLAYMATRIX")
    return None if matrix is None else np.frombuffer(bytes(matrix), np.int32).astype(float).reshape(3, 3)


def _turned(pixels: UInt8[np.ndarray, "H W 3"], matrix: Float[np.ndarray, "3 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """By quarters, and mirrored."""
    (a, b), (c, d) = matrix[:2, :2]
    if math.hypot(b, c) > math.hypot(a, d):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    pixels = pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    # Channel by channel takes a third of the time that a copy of the whole turned view does.
    return np.stack([np.ascontiguousarray(pixels[..., channel]) for channel in range(3)], axis=-1)
