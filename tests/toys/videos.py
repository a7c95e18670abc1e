"""Small video files, written with PyAV."""

from fractions import Fraction

import av
import numpy as np


def numbered(count=12, size=(48, 64)):
    """Pictures of a grey that tells their number, red in the left upper quarter, green in the right upper one."""
    pictures = [np.full((*size, 3), 20 * index, np.uint8) for index in range(count)]
    for picture in pictures:
        picture[: size[0] // 2, : size[1] // 2] = 230, 20, 20
        picture[: size[0] // 2, size[1] // 2 :] = 20, 180, 20
    return pictures


def write_video(
    path,
    pictures,
    *,
    times=None,
    clock=Fraction(1, 1000),
    codec="libx264",
    pixels="yuv420p",
    matrix=None,
    turn=None,
    shape=None,
    sound=False,
    options=None,
    file_options=None,
):
    """Writes RGB (or RGBA) pictures as a video.

    Args:
        path: the suffix decides the container.
        pictures: what is stored, before turning.
        times: in seconds, 25 frames per second by default.
        clock: seconds that times are whole numbers of.
        codec: of the pictures.
        pixels: format that the codec stores.
        matrix: (AVColorSpace, AVColorRange) to tell and to use: 1 BT.709, 5 BT.601; 1 narrow, 2 full.
        turn: 9 numbers of the display matrix.
        shape: of pixels, width / height.
        sound: a silent sound track comes along.
        options: of the codec.
        file_options: of the container.
    """
    with av.open(str(path), "w", options=file_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = pixels, clock
        if shape:
            stream.codec_context.sample_aspect_ratio = shape
        if turn:
            stream.set_display_matrix(turn)
        convert = {}
        if matrix:
            stream.codec_context.colorspace, stream.codec_context.color_range = matrix
            convert = {"dst_colorspace": {1: "ITU709", 5: "ITU601"}[matrix[0]], "dst_color_range": matrix[1]}
        if sound:
            track = container.add_stream("aac", rate=8000)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24" if picture.shape[2] == 3 else "rgba")
            frame = frame.reformat(format=pixels, **convert)
            frame.pts = round((1 / clock) * (index / 25 if times is None else times[index]))
            frame.time_base = clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound:
            container.mux(silence(track))
    return path


def silence(track):
    """Half a second of it, encoded."""
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts = 8000, 0
    return [*track.encode(frame), *track.encode(None)]


def cut(path, share):
    """The first part of a file, in its place."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path
