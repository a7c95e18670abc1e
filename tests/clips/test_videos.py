"""Videos: upright frames at their own times in true colours; what is missing or damaged is told."""

import gc
import itertools
import sys
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest

from jaxface.clips import frames, videos
from jaxface.clips.file_lengths import declared_length
from jaxface.core.errors import InputError, MissingDependencyError
from toys.videos import cut, numbered, silence, write_video

ONE = 1 << 16
TURNS = {  # display matrices of (x, y) -> (a x + c y, b x + d y), and the same of an array
    "upright": ((1, 0, 0, 1), lambda array: array),
    "told by nonsense": ((0, 0, 0, 0), lambda array: array),
    "a quarter clockwise": ((0, 1, -1, 0), lambda array: np.rot90(array, -1)),
    "half": ((-1, 0, 0, -1), lambda array: np.rot90(array, 2)),
    "a quarter counterclockwise": ((0, -1, 1, 0), lambda array: np.rot90(array)),
    "mirrored": ((-1, 0, 0, 1), np.fliplr),
    "mirrored up and down": ((1, 0, 0, -1), np.flipud),
    "transposed": ((0, 1, 1, 0), lambda array: array.transpose(1, 0, 2)),
    "transposed the other way": ((0, -1, -1, 0), lambda array: np.rot90(array, 2).transpose(1, 0, 2)),
}


def read(path, **options):
    clip = frames.open_clip(path, **options)
    times, pictures = zip(*clip.frames(), strict=True)
    return clip, np.array(times), list(pictures)


def numbers(pictures):
    """Which of `numbered` they are, by their lower half."""
    return [round(float(picture[picture.shape[0] // 2 + 4 :].mean()) / 20) for picture in pictures]


@pytest.mark.parametrize(
    ("suffix", "codec", "pixels"),
    [
        ("mp4", "libx264", "yuv420p"),
        ("m4v", "libx264", "yuv420p10le"),
        ("mov", "prores_ks", "yuv422p10le"),
        ("3gp", "mpeg4", "yuv420p"),
        ("mkv", "libx264", "yuv444p"),
        ("webm", "libvpx-vp9", "yuv420p"),
        ("avi", "mjpeg", "yuvj420p"),
        ("ts", "libx264", "yuv420p"),
        ("m2ts", "libx264", "yuv420p"),
        ("mts", "libx264", "yuv420p"),
        ("wmv", "wmv2", "yuv420p"),
        ("ogv", "libvpx", "yuv420p"),
        ("mpg", "mpeg1video", "yuv420p"),
    ],
)
def test_every_container_gives_frames_and_times(tmp_path, suffix, codec, pixels):
    assert f".{suffix}" in frames.VIDEO_SUFFIXES
    clock = Fraction(1, 25 if suffix in ("ogv", "mpg") else 1000)
    path = write_video(tmp_path / f"clip.{suffix.upper()}", numbered(), codec=codec, pixels=pixels, clock=clock)
    clip, times, pictures = read(path)
    assert numbers(pictures) == list(range(12))
    np.testing.assert_allclose(times, np.arange(12) / 25, atol=1e-3)
    assert pictures[5].shape == (48, 64, 3) and pictures[5].dtype == np.uint8
    np.testing.assert_allclose(pictures[5][6:18, 8:24].mean((0, 1)), (230, 20, 20), atol=12)
    np.testing.assert_allclose(pictures[5][6:18, 40:56].mean((0, 1)), (20, 180, 20), atol=12)
    assert clip.problems == [] and numbers(picture for _, picture in clip.frames()) == list(range(12))


@pytest.mark.parametrize("name", TURNS)
def test_turns_and_mirrors(tmp_path, name):
    (a, b, c, d), turned = TURNS[name]
    matrix = (a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30)
    path = write_video(tmp_path / "clip.mp4", numbered(), turn=matrix)
    _, _, pictures = read(path)
    plain = np.array(numbered()[5], float)
    wanted = turned(plain)
    assert pictures[5].shape == wanted.shape
    assert np.abs(pictures[5] - wanted).mean() < 6 < np.abs(plain - np.rot90(plain, 2)).mean()


def test_pauses_and_uneven_steps_keep_their_times(tmp_path):
    true = np.array([0, 0.033, 0.081, 0.1, 2.1, 2.14, 2.15, 2.5, 2.54, 2.58, 2.62, 2.66])
    for suffix in ("mp4", "mkv"):
        path = write_video(tmp_path / f"clip.{suffix}", numbered(), times=true)
        _, times, pictures = read(path)
        np.testing.assert_allclose(times, true, atol=1e-3)
        assert numbers(pictures) == list(range(12))
    _, times, _ = read(path, frame_rate=50)
    np.testing.assert_allclose(times, np.arange(12) / 50)


def test_times_begin_at_nought_whatever_the_nominal_rate(tmp_path):
    """An AVI with a clock of a millisecond says that it has 1000 frames per second; TS files begin anywhere."""
    for suffix, codec, begin in (("avi", "mpeg4", 0), ("ts", "libx264", 3)):
        path = write_video(tmp_path / f"clip.{suffix}", numbered(), times=begin + np.arange(12) / 25, codec=codec)
        clip, times, _ = read(path)
        np.testing.assert_allclose(times, np.arange(12) / 25, atol=1e-3)
        assert suffix != "avi" or clip.frame_rate == 1000


def test_avi_with_frames_that_are_stored_out_of_order(tmp_path):
    """It tells no times of presentation, and what FFmpeg guesses from the order of decoding goes back and forth."""
    path = write_video(tmp_path / "clip.avi", numbered(), clock=Fraction(1, 25))
    _, times, pictures = read(path)
    np.testing.assert_allclose(times, np.arange(12) / 25, atol=1e-3)
    assert numbers(pictures) == list(range(12))


@pytest.mark.parametrize(
    ("stamps", "times"),
    [
        ([5, 5.04, None, 5.12], [0, 0.04, 0.08, 0.12]),
        ([0, 0.04, 0.04, 0.08], [0, 0.04, 0.06, 0.08]),  # told twice
        ([7, 7.04, 7.5, 1, 1.04], [0, 0.04, 0.5, 0.54, 0.58]),  # joined recordings
        ([None, None, None], [0, 0.04, 0.08]),
    ],
)
def test_times_always_increase(tmp_path, monkeypatch, stamps, times):
    path = write_video(tmp_path / "clip.mp4", numbered())
    monkeypatch.setattr(videos, "_decoded", lambda container, stream: ((stamp, "picture") for stamp in stamps))
    np.testing.assert_allclose([time for time, _ in videos.read_video(path, [])], times)


@pytest.mark.parametrize("matrix", [(1, 1), (1, 2), (5, 1), (5, 2)])
def test_colours_by_the_matrix_and_range_that_the_file_tells(tmp_path, matrix):
    path = write_video(tmp_path / "clip.mp4", numbered(), matrix=matrix)
    _, _, pictures = read(path)
    np.testing.assert_allclose(pictures[11][6:18, 8:24].mean((0, 1)), (230, 20, 20), atol=4)
    np.testing.assert_allclose(pictures[11][6:18, 40:56].mean((0, 1)), (20, 180, 20), atol=4)
    np.testing.assert_allclose(pictures[11][30:].mean((0, 1)), 220, atol=4)


def test_large_video_that_tells_no_matrix_is_of_high_definition(tmp_path):
    picture = np.full((720, 1280, 3), (200, 40, 40), np.uint8)
    frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv444p", dst_colorspace="ITU709")
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 720, 1280, "yuv444p"
        bare = av.VideoFrame.from_ndarray(frame.to_ndarray(), "yuv444p")
        container.mux(stream.encode(bare))
        container.mux(stream.encode(None))
    np.testing.assert_allclose(read(path)[2][0].mean((0, 1)), (200, 40, 40), atol=3)


def test_grey_and_transparent_video(tmp_path):
    _, _, (*_, grey) = read(write_video(tmp_path / "grey.mkv", numbered(), codec="ffv1", pixels="gray"))
    np.testing.assert_allclose(grey[30:], 220, atol=2)
    assert np.ptp(grey.astype(int), axis=-1).max() == 0
    glass = [np.dstack([picture, np.full((48, 64), 0, np.uint8)]) for picture in numbered()]
    for picture in glass:
        picture[:, :32, 3] = 255
    _, _, pictures = read(write_video(tmp_path / "glass.mov", glass, codec="png", pixels="rgba"))
    np.testing.assert_array_equal(pictures[3][:, 32:], 255)
    np.testing.assert_array_equal(pictures[3][:, :32], glass[3][:, :32, :3])


@pytest.mark.parametrize(("shape", "size"), [((4, 3), (48, 85)), ((8, 9), (54, 64))])
def test_pixels_become_square(tmp_path, shape, size):
    path = write_video(tmp_path / "clip.mp4", numbered(), shape=Fraction(*shape))
    _, _, pictures = read(path)
    assert pictures[4].shape == (*size, 3) and numbers(pictures) == list(range(12))


def noise(count=24):
    """Pictures that no codec makes small: files grow evenly."""
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(count)]


@pytest.mark.parametrize(
    ("suffix", "codec", "pixels"),
    [
        ("mp4", "libx264", "yuv420p"),
        ("mkv", "libx264", "yuv420p"),
        ("webm", "libvpx", "yuv420p"),
        ("avi", "mjpeg", "yuvj420p"),
        ("wmv", "wmv2", "yuv420p"),
        ("ts", "mpeg4", "yuv420p"),
        ("m2ts", "mpeg4", "yuv420p"),
        ("ogv", "libvpx", "yuv420p"),
    ],
)
def test_a_file_that_is_cut_off_gives_what_is_there_and_says_so(tmp_path, suffix, codec, pixels):
    path = write_video(
        tmp_path / f"clip.{suffix}",
        noise(),
        codec=codec,
        pixels=pixels,
        file_options={"movflags": "faststart"} if suffix == "mp4" else None,
    )
    whole, _, pictures = read(path)
    assert whole.problems == [] and len(pictures) == 24
    clip, times, pictures = read(cut(path, 0.501))
    assert 6 <= len(pictures) <= 16 and len(times) == len(pictures)
    assert f"the file is cut off ({path.stat().st_size:,} of" in clip.problems[0]
    list(clip.frames())
    assert len(clip.problems) == len(set(clip.problems))


@pytest.mark.parametrize("suffix", ["mkv", "ts", "avi"])
def test_a_download_that_did_not_finish(tmp_path, suffix):
    path = cut(write_video(tmp_path / f"clip.{suffix}", noise(), codec="mpeg4"), 0.5)
    path.write_bytes(path.read_bytes() + bytes(200_032))
    clip, _, pictures = read(path)
    assert 4 <= len(pictures) <= 16 and clip.problems[0].startswith("the file is cut off (")


def test_lengths_of_odd_files(tmp_path):
    """A file to its end, a phone's trailer after the film, a stream of unknown length, and no video at all."""

    def told(content):
        (tmp_path / "file").write_bytes(content)
        return declared_length(tmp_path / "file")

    box = (16).to_bytes(4, "big") + b"ftyp" + bytes(8)
    large = (1).to_bytes(4, "big") + b"mdat" + (40).to_bytes(8, "big")
    assert told(box + large + bytes(24)) == 56 and told(box + large) == 56
    assert told(box + (0).to_bytes(4, "big") + b"mdat" + bytes(50)) == 74
    assert told(box + b"\xff\xff\xff\xffSEFT" + bytes(50)) == 16
    assert told(box + b"\0\0") == 24
    assert told(box + (3).to_bytes(4, "big") + b"free") == 24
    ebml = b"\x1a\x45\xdf\xa3\x81\0" + b"\x18\x53\x80\x67"
    assert told(ebml + b"\x01" + b"\xff" * 7 + bytes(20)) is None
    assert told(ebml + b"\x40\x64" + bytes(20)) == 12 + 100
    assert told(ebml) is None
    assert told(b"no film at all") is None


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_damaged_frames_are_left_out_and_counted(tmp_path, suffix):
    """Data that is no picture in the middle of the film; times of the others stay."""
    path = write_video(tmp_path / f"clip.{suffix}", noise(), codec="png", pixels="rgb24")
    content = bytearray(path.read_bytes())
    for _ in range(2):
        place = content.index(b"\x89PNG", len(content) // 2)
        content[place : place + 400] = bytes(400)
    path.write_bytes(content)
    clip, times, pictures = read(path)
    assert len(pictures) == 22 and clip.problems == ["2 of its frames cannot be decoded and are left out"]
    steps = np.diff(times)
    np.testing.assert_allclose(np.sort(steps)[:-2], 0.04, atol=1e-3)
    assert steps.sum() == pytest.approx(23 / 25)


def test_first_frames_that_cannot_be_decoded(tmp_path):
    path = write_video(tmp_path / "clip.mp4", noise(), codec="png", pixels="rgb24")
    content = path.read_bytes()
    first = content.index(b"\x89PNG")
    path.write_bytes(content[:first] + bytes(400) + content[first + 400 :])
    clip, times, pictures = read(path)
    assert (len(pictures), times[0]) == (23, 0) and "1 of its frames" in clip.problems[0]
    path.write_bytes(content.replace(b"\x89PNG", b"JUNK"))
    with pytest.raises(InputError, match=r"no frame of this video can be decoded \(png, 24 of its.*ffmpeg -i clip.mp4"):
        frames.open_clip(path)


def test_what_is_no_video_says_why_and_what_to_do(tmp_path):
    (tmp_path / "text.mp4").write_text("no film " * 200)
    with pytest.raises(InputError, match=r"text.mp4: is not a video .*Invalid data.*; convert it.*ffmpeg"):
        frames.open_clip(tmp_path / "text.mp4")
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        track = container.add_stream("aac", rate=8000)
        container.mux(silence(track))
    with pytest.raises(InputError, match=r"sound.mp4: holds sound but no pictures; a clip is"):
        frames.open_clip(sound)
    cover = tmp_path / "cover.mp4"
    with av.open(str(cover), "w") as container:
        track, picture = container.add_stream("aac", rate=8000), container.add_stream("mjpeg", rate=25)
        picture.height, picture.width, picture.pix_fmt = 48, 64, "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(numbered()[3], "rgb24").reformat(format="yuvj420p")
        frame.pts = 0
        container.mux([*picture.encode(frame), *picture.encode(None), *silence(track)])
    with pytest.raises(InputError, match=r"cover.mp4: holds sound but no pictures"):
        frames.open_clip(cover)
    index_last = cut(write_video(tmp_path / "cut.mp4", noise()), 0.5)
    with pytest.raises(InputError, match=r"cut off \(.* of .* bytes are there; copy .*\), and without its end"):
        frames.open_clip(index_last)
    unknown = write_video(tmp_path / "unknown.mp4", noise())
    unknown.write_bytes(unknown.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(InputError, match=r"unknown.mp4: is a video in a format that cannot be decoded; convert"):
        frames.open_clip(unknown)
    unknown.write_bytes(unknown.read_bytes() + b"\x00\x00\x10\x00mdat")
    with pytest.raises(InputError, match=r"unknown.mp4: the file is cut off .* copy .*, and without its end nothing"):
        frames.open_clip(unknown)
    empty = write_video(tmp_path / "empty.mp4", noise())
    empty.write_bytes(empty.read_bytes().replace(b"stsz", b"free").replace(b"stts", b"free"))
    with pytest.raises(InputError, match=r"empty.mp4: "):
        frames.open_clip(empty)


def test_a_sound_track_does_no_harm(tmp_path):
    _, times, pictures = read(write_video(tmp_path / "clip.mp4", numbered(), sound=True))
    assert numbers(pictures) == list(range(12)) and times[-1] == pytest.approx(11 / 25)


def test_names_that_look_like_addresses_and_playlists(tmp_path, monkeypatch):
    write_video(tmp_path / "12:30.mp4", numbered())
    monkeypatch.chdir(tmp_path)
    assert len(read("12:30.mp4")[2]) == 12
    write_video(tmp_path / "secret.ts", numbered())
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsecret.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(InputError, match="is not a video"):
        frames.open_clip("list.mp4")


def test_too_large_frames(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", numbered())
    monkeypatch.setattr(videos, "_MOST_PIXELS", 1000)
    with pytest.raises(InputError, match="has frames of 64 x 48 pixels"):
        frames.open_clip(path)


def test_memory_does_not_grow_with_the_film(tmp_path):
    """Of 300 frames no more are held at once than of 30."""
    peaks = []
    for count in (30, 300):
        picture = np.zeros((144, 192, 3), np.uint8)
        path = write_video(tmp_path / f"{count}.mp4", [picture] * count, options={"preset": "ultrafast"})
        clip = frames.open_clip(path)
        tracemalloc.start()
        assert sum(frame is not None for _, frame in clip.frames()) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + picture.nbytes and peaks[1] < 8 * picture.nbytes


def test_frames_are_let_go_at_once(tmp_path):
    """Python's own count of references frees them: its search for knots would come too late for what FFmpeg holds."""
    turn = (0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30)
    clip = frames.open_clip(write_video(tmp_path / "clip.mp4", numbered(), turn=turn))
    gc.collect()
    gc.disable()
    try:
        reader = clip.frames()
        assert len(list(itertools.islice(reader, 10))) == 10
        assert sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects()) <= 4
    finally:
        gc.enable()
    reader.close()


def test_reading_can_stop_early(tmp_path):
    clip = frames.open_clip(write_video(tmp_path / "clip.mp4", numbered()))
    assert len(list(itertools.islice(clip.frames(), 3))) == 3


def test_without_pyav(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", numbered())
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"clip.mp4: reading a video needs av; run: pip install 'jaxface"):
        frames.open_clip(path)
