"""The frames of a clip: a folder of pictures, an animated picture (GIF, WebP, PNG), or a video file through OpenCV."""

import dataclasses
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageSequence

from jaxface.core.errors import InputError, MissingDependencyError
from jaxface.files.images import check_file, read_image
from jaxface.files.inputs import IMAGE_SUFFIXES

FRAME_RATE = 25.0
"""Of a folder, and of files that do not tell."""

ANIMATED_SUFFIXES = frozenset((".gif", ".webp", ".png", ".apng"))
"""Names of animated pictures end so; a PNG may be one too."""

VIDEO_SUFFIXES = frozenset(".avi .m4v .mkv .mov .mp4 .mpeg .mpg .webm".split())
"""Names of video files end so; OpenCV reads them."""

Frame = UInt8[np.ndarray, "H W 3"]


@dataclasses.dataclass(frozen=True)
class Clip:
    """Pictures in time, all of one size. They are read anew at every pass: none is kept in memory.

    Attributes:
        path: the file or folder.
        frame_rate: frames per second.
        count: number of frames; for a video, what its header says, which may be wrong. For progress bars.
        read: gives all frames in order, RGB; None for one that cannot be read.
    """

    path: Path
    frame_rate: float
    count: int
    read: Callable[[], Iterator[Frame | None]]

    def frames(self) -> Iterator[Frame | None]:
        """The frames in order; None for one that cannot be read.

        Raises:
            InputError: when frames differ in size.
        """
        size = None
        for index, frame in enumerate(self.read()):
            if frame is not None:
                size = size or frame.shape
                if frame.shape != size:
                    found, wanted = (f"{width} x {height}" for height, width, _ in (frame.shape, size))
                    raise InputError(
                        f"{self.path}: frame {index} measures {found} pixels, those before it {wanted}; the frames of "
                        "a clip have one size. Photos of several sizes are for --same-person"
                    )
            yield frame


def open_clip(path: str | os.PathLike, *, frame_rate: float | None = None) -> Clip:
    """Opens a clip.

    Args:
        path: a folder of pictures, in natural order (frame2 before frame10); an animated GIF, WebP or PNG; or a video.
        frame_rate: frames per second; None takes what the file tells, and `FRAME_RATE` where it does not.

    Raises:
        InputError: when there is no such clip, or it holds no frame.
        MissingDependencyError: for a video without OpenCV (which MediaPipe brings along).
    """
    path = Path(path)
    if frame_rate is not None and not 0 < frame_rate <= 1000:
        raise InputError(f"the frame rate has to be above 0 and at most 1000 frames per second, not {frame_rate}")
    if path.is_dir():
        return _folder(path, frame_rate)
    check_file(path)
    return (_animation if path.suffix.lower() in ANIMATED_SUFFIXES else _video)(path, frame_rate)


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """A key to sort names by that puts frame2 before frame10."""
    pieces = re.findall(r"\d+|\D+", name.lower())
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces]


def _folder(path: Path, frame_rate: float | None) -> Clip:
    files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")]
    if not files:
        raise InputError(f"{path}: holds no pictures; a clip is a video file, or a folder with one picture per frame")
    files.sort(key=lambda file: natural_order(file.name))

    def read() -> Iterator[Frame | None]:
        for file in files:
            try:
                yield read_image(file)
            except InputError:
                yield None

    return Clip(path, frame_rate or FRAME_RATE, len(files), read)


def _animation(path: Path, frame_rate: float | None) -> Clip:
    try:
        with Image.open(path) as image:
            count = getattr(image, "n_frames", 1)
            lengths = []
            for frame in ImageSequence.Iterator(image):
                frame.load()  # WebP tells the duration only then
                lengths.append(frame.info.get("duration", 0) or 100)  # missing: a tenth of a second, as in browsers
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path}: is not an animated picture ({error})") from error
    if count < 2:
        raise InputError(f"{path}: is a single picture, not a clip; fit it as a photo")

    def read() -> Iterator[Frame | None]:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")
            for index in range(count):
                try:
                    image.seek(index)
                    frame: Frame | None = np.array(image.convert("RGB"))
                except (OSError, ValueError, SyntaxError, EOFError):
                    frame = None
                yield frame

    return Clip(path, frame_rate or 1000 / float(np.mean(lengths)), count, read)


def _video(path: Path, frame_rate: float | None) -> Clip:
    opencv = load_opencv()
    if opencv is None:
        raise MissingDependencyError(
            f"{path}: reading a video needs OpenCV; run: pip install 'jaxface[photo]', or turn the video into a folder "
            "of pictures (ffmpeg -i clip.mp4 frames/%05d.png)"
        )

    def opened() -> Any:
        capture = opencv.VideoCapture(str(path))
        if not capture.isOpened():
            raise InputError(f"{path}: is not a video that OpenCV can read")
        return capture

    capture = opened()
    told, count = capture.get(opencv.CAP_PROP_FPS), int(capture.get(opencv.CAP_PROP_FRAME_COUNT))
    readable, _ = capture.read()
    capture.release()
    if not readable:
        raise InputError(f"{path}: is a video without a frame that OpenCV can read")

    def read() -> Iterator[Frame | None]:
        capture = opened()
        try:
            while True:
                more, frame = capture.read()
                if not more:
                    return
                yield np.ascontiguousarray(frame[..., ::-1])  # OpenCV keeps blue first
        finally:
            capture.release()

    usable = np.isfinite(told) and 1 <= told <= 1000
    return Clip(path, frame_rate or (float(told) if usable else FRAME_RATE), max(count, 1), read)


def load_opencv() -> Any:
    """The module cv2, asked to keep quiet; None where it is not installed."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        import cv2
    except ImportError:
        return None
    return cv2
