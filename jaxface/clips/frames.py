"""The frames of a clip and the time of each: a folder of pictures, an animated picture (GIF, WebP, PNG), or a video."""

import dataclasses
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageSequence

from jaxface.clips.videos import FRAME_RATE, cut_off, read_video, video_rate_and_count
from jaxface.core.errors import InputError
from jaxface.files.images import check_file, read_image, refuse_bomb
from jaxface.files.inputs import IMAGE_SUFFIXES

ANIMATED_SUFFIXES = frozenset((".gif", ".webp", ".png", ".apng"))
"""Names of animated pictures end so; a PNG may be one too."""

VIDEO_SUFFIXES = frozenset(".3gp .avi .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split())
"""Names of video files end so; PyAV reads them."""

_LARGE = 2**23
"""Pixels that a frame of an animation may have, as many as 4K; a larger one needs a longer file, as for pictures."""

_PLENTY, _PIXELS_PER_BYTE = 2**28, 2**13
"""Pixels of all frames of an animation, as for pictures; more to the byte, for frames may be nearly alike."""

Frame = UInt8[np.ndarray, "H W 3"]


@dataclasses.dataclass(frozen=True)
class Clip:
    """Pictures in time, all of one size. They are read anew at every pass: none is kept in memory.

    Attributes:
        path: the file or folder.
        frame_rate: frames per second on average, as the file tells, which may be wrong; true is each frame's own time.
        count: number of frames; for a video, what its header says, which may be wrong. For progress bars.
        read: gives all frames in order, each with its time in seconds, later than the one before, 0 for the first; RGB,
            None for one that cannot be read.
        problems: what of the clip is missing, one message each; complete once all frames were read.
    """

    path: Path
    frame_rate: float
    count: int
    read: Callable[[], Iterator[tuple[float, Frame | None]]]
    problems: list[str] = dataclasses.field(default_factory=list)

    def frames(self) -> Iterator[tuple[float, Frame | None]]:
        """Time in seconds and frame, in order; None for a frame that cannot be read.

        Raises:
            InputError: when frames differ in size.
        """
        size, unreadable = None, 0
        for index, (time, frame) in enumerate(self.read()):
            if frame is None:
                unreadable += 1
            else:
                size = size or frame.shape
                if frame.shape != size:
                    found, wanted = (f"{width} x {height}" for height, width, _ in (frame.shape, size))
                    raise InputError(
                        f"{self.path}: frame {index} measures {found} pixels, those before it {wanted}; the frames of "
                        "a clip have one size. Photos of several sizes are for --same-person"
                    )
            yield time, frame
        if unreadable:
            _tell(self.problems, f"{unreadable} of its frames cannot be read and are bridged")


def _tell(problems: list[str], problem: str) -> None:
    """Once, however often the clip is read."""
    if problem not in problems:
        problems.append(problem)


def open_clip(path: str | os.PathLike, *, frame_rate: float | None = None) -> Clip:
    """Opens a clip.

    Args:
        path: a folder of pictures, in natural order (frame2 before frame10); an animated GIF, WebP or PNG; or a video.
        frame_rate: frames per second, at equal steps; None takes each frame's own time, and `FRAME_RATE` for a folder.

    Raises:
        InputError: when there is no such clip, or it holds no frame.
        MissingDependencyError: for a video without PyAV.
    """
    path = Path(path)
    if frame_rate is not None and not 0 < frame_rate <= 1000:
        raise InputError(f"the frame rate has to be above 0 and at most 1000 frames per second, not {frame_rate}")
    if path.is_dir():
        clip = _folder(path)
    else:
        check_file(path)
        clip = (_animation if path.suffix.lower() in ANIMATED_SUFFIXES else _video)(path)
    if frame_rate is None:
        return clip

    def read() -> Iterator[tuple[float, Frame | None]]:
        for index, (_, frame) in enumerate(clip.read()):
            yield index / frame_rate, frame

    return dataclasses.replace(clip, frame_rate=frame_rate, read=read)


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """A key to sort names by that puts frame2 before frame10."""
    pieces = re.findall(r"\d+|\D+", name.lower())
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces]


def _folder(path: Path) -> Clip:
    files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")]
    if not files:
        raise InputError(f"{path}: holds no pictures; a clip is a video file, or a folder with one picture per frame")
    files.sort(key=lambda file: natural_order(file.name))

    def read() -> Iterator[tuple[float, Frame | None]]:
        for index, file in enumerate(files):
            try:
                frame: Frame | None = read_image(file)
            except InputError:
                frame = None
            yield index / FRAME_RATE, frame

    return Clip(path, FRAME_RATE, len(files), read)


def _animation(path: Path) -> Clip:
    lengths: list[float] = []
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")
            told = getattr(image, "n_frames", 1)
            refuse_bomb(path, told * image.width * image.height, most=_PLENTY, per_byte=_PIXELS_PER_BYTE)
            for frame in ImageSequence.Iterator(image):
                refuse_bomb(path, frame.width * frame.height, most=_LARGE)  # a frame may be larger than the first
                frame.load()  # WebP tells the duration only then
                lengths.append(frame.info.get("duration", 0) or 100)  # missing: a tenth of a second, as in browsers
    except InputError:
        raise
    except Exception as error:  # decoders meet damaged files with every kind of exception
        if len(lengths) < 2:
            raise InputError(f"{path}: is not an animated picture, or is damaged ({error})") from error
    count, problems = len(lengths), []
    if count < told:  # each builds on the one before
        problems.append(f"only the first {count} of its {told} frames can be read, the file is damaged or cut off")
    if count < 2:
        raise InputError(f"{path}: is a single picture, not a clip; fit it as a photo")
    times = np.cumsum([0.0, *lengths]) / 1000

    def read() -> Iterator[tuple[float, Frame | None]]:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")
            for index in range(count):
                image.seek(index)
                yield float(times[index]), np.array(image.convert("RGB"))

    return Clip(path, count / float(times[-1]), count, read, problems)


def _video(path: Path) -> Clip:
    frame_rate, count = video_rate_and_count(path)
    short = cut_off(path)
    problems = [] if short is None else [short]

    def read() -> Iterator[tuple[float, Frame | None]]:
        lost: list[str] = []
        yield from read_video(path, lost)
        for problem in lost:
            _tell(problems, problem)

    return Clip(path, frame_rate or FRAME_RATE, count, read, problems)
