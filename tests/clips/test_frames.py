"""Clips: folders and animations give their frames in order, each with its time; bad ones say what is wrong."""

import numpy as np
import pytest
from PIL import Image

from jaxface.clips import frames
from jaxface.core.errors import InputError
from toys.videos import cut


def pictures(count=12, size=(48, 64)):
    """Pictures of a grey that tells their number."""
    return [np.full((*size, 3), 20 * index, np.uint8) for index in range(count)]


def numbers(clip):
    return [None if frame is None else round(frame.mean() / 20) for _, frame in clip.frames()]


def times(clip):
    return [time for time, _ in clip.frames()]


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
    np.testing.assert_allclose(times(clip), np.arange(12) / 25)
    slower = frames.open_clip(folder, frame_rate=12.5)
    assert slower.frame_rate == 12.5 and numbers(slower) == list(range(12))
    np.testing.assert_allclose(times(slower), np.arange(12) / 12.5)


def test_a_broken_frame_is_none_and_another_size_is_an_error(folder):
    (folder / "frame3.png").write_bytes(b"no picture")
    clip = frames.open_clip(folder)
    assert clip.problems == []
    assert numbers(clip)[2:5] == numbers(clip)[2:5] == [2, None, 4]
    assert clip.problems == ["1 of its frames cannot be read and are bridged"]
    Image.new("RGB", (50, 50)).save(folder / "frame7.png")
    with pytest.raises(InputError, match="frame 7 measures 50 x 50 pixels, those before it 64 x 48"):
        numbers(frames.open_clip(folder))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations(tmp_path, suffix):
    path = tmp_path / f"clip.{suffix}"
    first, *rest = (Image.fromarray(picture) for picture in pictures())
    lengths = [50, 50, 2000, *[50] * 8, 80]
    first.save(path, save_all=True, append_images=rest, duration=lengths, lossless=True)
    clip = frames.open_clip(path)
    assert (clip.count, clip.frame_rate) == (12, pytest.approx(12 / 2.58))
    assert numbers(clip) == list(range(12)) and clip.problems == []
    np.testing.assert_allclose(times(clip), np.cumsum([0, *lengths])[:-1] / 1000)
    np.testing.assert_allclose(times(frames.open_clip(path, frame_rate=20)), np.arange(12) / 20)


@pytest.mark.parametrize("suffix", ["gif", "png"])
def test_an_animation_that_is_cut_off(tmp_path, suffix):
    random = np.random.default_rng(0)
    first, *rest = (Image.fromarray(random.integers(0, 255, (48, 64, 3), np.uint8)) for _ in range(12))
    first.save(tmp_path / f"clip.{suffix}", save_all=True, append_images=rest, duration=50)
    clip = frames.open_clip(cut(tmp_path / f"clip.{suffix}", 0.5))
    assert 4 <= len(list(clip.frames())) == clip.count <= 7
    assert clip.problems[0].startswith(f"only the first {clip.count} of its ")
    with pytest.raises(InputError, match="is not an animated picture, or is damaged"):
        frames.open_clip(cut(tmp_path / f"clip.{suffix}", 0.1))


def test_what_is_no_clip(tmp_path):
    with pytest.raises(InputError, match="none"):
        frames.open_clip(tmp_path / "none.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no pictures"):
        frames.open_clip(tmp_path / "empty")
    Image.new("RGB", (50, 50)).save(tmp_path / "one.gif")
    with pytest.raises(InputError, match="a single picture"):
        frames.open_clip(tmp_path / "one.gif")
    (tmp_path / "text.gif").write_text("no film " * 200)
    with pytest.raises(InputError, match="is not an animated picture"):
        frames.open_clip(tmp_path / "text.gif")
    with pytest.raises(InputError, match="frame rate"):
        frames.open_clip(tmp_path / "empty", frame_rate=0)
