"""Clips: folders, animations and videos give the same frames in order; bad ones say what is wrong."""

import numpy as np
import pytest
from PIL import Image

from jaxface.clips import frames
from jaxface.core.errors import InputError, MissingDependencyError


def pictures(count=12, size=(48, 64)):
    """Pictures of a grey that tells their number."""
    return [np.full((*size, 3), 20 * index, np.uint8) for index in range(count)]


def numbers(clip):
    return [None if frame is None else round(frame.mean() / 20) for frame in clip.frames()]


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "clip"
    path.mkdir()
    for index, picture in enumerate(pictures()):
        Image.fromarray(picture).save(path / f"frame{index}.png")
    (path / "notes.txt").write_text("not a frame")
    return path


def test_a_folder_is_sorted_naturally_and_read_twice(folder):
    clip = frames.open_clip(folder)
    assert (clip.count, clip.frame_rate) == (12, 25)
    assert numbers(clip) == list(range(12)) == numbers(clip)
    assert frames.open_clip(folder, frame_rate=12.5).frame_rate == 12.5


def test_a_broken_frame_is_none_and_another_size_is_an_error(folder):
    (folder / "frame3.png").write_bytes(b"no picture")
    assert numbers(frames.open_clip(folder))[2:5] == [2, None, 4]
    Image.new("RGB", (50, 50)).save(folder / "frame7.png")
    with pytest.raises(InputError, match="frame 7 measures 50 x 50 pixels, those before it 64 x 48"):
        numbers(frames.open_clip(folder))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations(tmp_path, suffix):
    path = tmp_path / f"clip.{suffix}"
    first, *rest = (Image.fromarray(picture) for picture in pictures())
    first.save(path, save_all=True, append_images=rest, duration=50, lossless=True)
    clip = frames.open_clip(path)
    assert (clip.count, clip.frame_rate) == (12, 20)
    assert numbers(clip) == list(range(12))


def test_videos(tmp_path):
    opencv = frames.load_opencv()
    if opencv is None:
        pytest.skip("needs OpenCV")
    path = tmp_path / "clip.avi"
    writer = opencv.VideoWriter(str(path), opencv.VideoWriter_fourcc(*"MJPG"), 30.0, (64, 48))
    for picture in pictures():
        picture = picture.copy()
        picture[:, :32, 0] = 255 - picture[:, :32, 0]  # RGB: the left half differs in red
        writer.write(picture[..., ::-1])
    writer.release()
    clip = frames.open_clip(path)
    assert (clip.count, clip.frame_rate) == (12, 30)
    read = list(clip.frames())
    assert len(read) == 12 and read[0].shape == (48, 64, 3)
    assert read[0][24, 8, 0] > 200 > 50 > read[0][24, 8, 2]
    assert all(abs(frame[24, 56].mean() - 20 * index) < 12 for index, frame in enumerate(read))


def test_what_is_no_clip(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="none"):
        frames.open_clip(tmp_path / "none.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no pictures"):
        frames.open_clip(tmp_path / "empty")
    Image.new("RGB", (50, 50)).save(tmp_path / "one.gif")
    with pytest.raises(InputError, match="a single picture"):
        frames.open_clip(tmp_path / "one.gif")
    for name in ("text.gif", "text.mp4"):
        (tmp_path / name).write_text("no film " * 200)
        if name.endswith("gif") or frames.load_opencv() is not None:
            with pytest.raises(InputError, match="is not a"):
                frames.open_clip(tmp_path / name)
    monkeypatch.setattr(frames, "load_opencv", lambda: None)
    with pytest.raises(MissingDependencyError, match="OpenCV"):
        frames.open_clip(tmp_path / "text.mp4")
    with pytest.raises(InputError, match="frame rate"):
        frames.open_clip(tmp_path / "empty", frame_rate=0)
