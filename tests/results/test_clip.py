"""A face followed through a clip: found, windowed, fitted, smoothed, written."""

import dataclasses
import json
import sys
import types

import numpy as np
import pytest
import trimesh
from PIL import Image

from jaxface.clips import frames, smoothing, track, tracking
from jaxface.core.coefficients import vector_columns
from jaxface.core.errors import InputError
from jaxface.core.version import __version__
from jaxface.fitting import coefficient_prior, descent
from jaxface.results import clip as clip_module
from jaxface.results import clip_files
from jaxface.results.clip_film import write_film
from jaxface.results.drawing import DrawingOptions
from toys.clips import detected, toy_clip
from toys.models import toy_model
from toys.videos import cut, write_video

SIZE = 64
pytestmark = pytest.mark.usefixtures("quick_compilation")
MISSING = (4, 5)


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def clip(model):
    return toy_clip(model)


@pytest.fixture(scope="module")
def windows(model, clip):
    return tracking.smooth_windows(clip.followed(MISSING), model, size=SIZE)


@pytest.fixture(scope="module")
def samples(model, clip, windows):
    labels = {clip.frames[index].tobytes(): clip.labels[index] for index in range(len(clip.frames))}
    source = types.SimpleNamespace(frames=lambda: zip(clip.times, clip.frames, strict=True))
    parser = lambda frame, face, window: window.crop_labels(labels[frame.tobytes()])  # noqa: E731
    return tracking.cut_samples(source, clip.followed(MISSING), windows, model, parser=parser)


@pytest.fixture(scope="module", autouse=True)
def landmarks_alone():
    """Fits by landmarks alone: the descent takes half a minute to compile, and has tests of its own."""
    patch = pytest.MonkeyPatch()
    patch.setattr(descent, "_descend", lambda model, vector, *_, **__: vector)
    patch.setattr(descent, "_paint", lambda model, vector, *_, **__: vector)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def tracked(model, clip, samples, windows):
    prior = coefficient_prior(model)
    return track.track_face(model, samples, windows, prior, times=clip.times)


@pytest.mark.slow
def test_windows_are_smooth_and_hold_the_face(clip, windows):
    centers = np.array([window.to_photo(np.full(2, SIZE / 2)) for window in windows])
    assert smoothing.jitter(centers) < 0.5 * smoothing.jitter(clip.landmarks.mean(1))
    inside = np.array([window.to_crop(points) for window, points in zip(windows, clip.landmarks, strict=True)])
    assert ((inside > 0) & (inside < SIZE)).all(-1).mean() > 0.95
    assert len(windows) == len(clip.frames) and windows[0].photo_size == clip.frames.shape[1:3]


@pytest.mark.slow
def test_frames_without_a_face_have_no_sample(samples, windows, clip):
    assert [index for index, sample in enumerate(samples) if sample is None] == list(MISSING)
    crop = windows[0].crop_image(clip.frames[0])
    np.testing.assert_array_equal(samples[0]["image"], crop)
    assert samples[0]["labels"].any() and samples[0]["landmark_weights"].mean() > 0.9


@pytest.mark.slow
def test_track_has_one_person_and_follows_the_head(model, clip, tracked):
    columns = vector_columns(model)
    for kind in ("identity", "albedo"):
        assert np.ptp(tracked.vectors[:, columns[kind]], axis=0).max() < 1e-5
    assert np.isfinite(tracked.vectors).all() and (~tracked.found).nonzero()[0].tolist() == list(MISSING)
    truth = np.degrees(clip.vectors[:, columns["angles"]])
    angles = np.degrees(tracked.vectors[:, columns["angles"]])
    assert np.abs(angles - truth)[tracked.found].mean() < 3
    assert np.corrcoef(angles[:, 1], truth[:, 1])[0, 1] > 0.97
    landmarks = track.frame_landmarks(model, tracked.vectors, tracked.windows)
    distance = np.linalg.norm(landmarks - clip.landmarks, axis=-1)[tracked.found, 17:]  # those that do not march
    assert distance.mean() < 1.5


@pytest.mark.slow
def test_smoothing_lowers_jitter_and_zero_leaves_all(model, tracked):
    jitter = track.jitter_of(model, tracked)
    for measure in ("landmarks_px", "angles_degrees"):
        assert jitter["after"][measure] < 0.8 * jitter["before"][measure]
    prior = coefficient_prior(model)
    same, weights = track.smooth_vectors(tracked.raw, tracked.found, model, prior, times=tracked.times, cutoff=0)
    np.testing.assert_array_equal(same, tracked.raw)
    assert weights[0] == 1 > weights[MISSING[0]] > 0


def test_smoothing_does_not_lag_and_comes_nearer(model):
    """A head that turns as a sine, with noise: the smooth angle is in step with the truth, and nearer to it."""
    prior, random = coefficient_prior(model), np.random.default_rng(0)
    columns, times = vector_columns(model), np.arange(100) / 25
    truth = np.zeros((100, 41))
    truth[:, columns["angles"]] = 0.4 * np.sin(2 * np.pi * 0.7 * times)[:, None]
    truth[:, columns["expression"]] = 0.5 * np.sin(2 * np.pi * 1.5 * times)[:, None]
    noisy = truth + 0.03 * random.normal(size=truth.shape)
    noisy[40, columns["angles"]] += 0.8  # one frame went wrong
    smooth, weights = track.smooth_vectors(noisy, np.ones(100, bool), model, prior, times=times)
    assert weights[40] < 0.05
    for kind in ("angles", "expression"):
        ours, theirs, noise = (array[:, columns[kind]] for array in (smooth, truth, noisy))
        agreement = [(np.roll(ours, -shift, 0) * theirs)[8:-8].sum() for shift in range(-4, 5)]
        assert np.argmax(agreement) == 4
        assert np.square(ours - theirs).mean() < 0.7 * np.square(noise - theirs)[np.arange(100) != 40].mean()
    np.testing.assert_allclose(smooth[:, columns["identity"]], noisy[:, columns["identity"]], atol=1e-6)


def test_key_frames_are_sharp_and_frontal(samples):
    sharp = samples[0]
    blurred = dict(sharp, image=np.asarray(Image.fromarray(sharp["image"]).reduce(4).resize((SIZE, SIZE))))
    turned = dict(sharp, landmarks=sharp["landmarks"].copy())
    turned["landmarks"][30] = 0.9 * sharp["landmarks"][45] + 0.1 * sharp["landmarks"][36]
    assert track.key_frame_score(sharp) > max(track.key_frame_score(blurred), track.key_frame_score(turned))


def test_the_same_face_is_followed(monkeypatch):
    """Of two faces the larger one at the start is kept, also over a frame that shows the other alone."""
    shape = 20 * np.random.default_rng(0).uniform(size=(68, 2))
    paths = {"large": [(20 + 4 * t, 20) for t in range(8)], "small": [(150, 90 - 3 * t) for t in range(8)]}
    current = {}

    def detect(image):
        low, time = current["low"](image), current["time"]
        found = []
        for name, scale in (("large", 1.5), ("small", 1.2)):
            points = scale * shape + paths[name][time] - low
            hidden = name == "large" and time == 5
            if not hidden and (points > 0).all() and (points < image.shape[1::-1]).all():
                found.append(detected(points))
        return found

    pictures = [np.zeros((120, 200, 3), np.uint8) for _ in range(8)]
    marks = np.indices((120, 200)).transpose(1, 2, 0)  # every pixel tells where it lies

    def play():
        for time, picture in enumerate(pictures):
            current["time"] = time
            picture[..., :2] = marks
            yield time / 25, picture

    current["low"] = lambda image: image[0, 0, 1::-1].astype(int)
    monkeypatch.setattr(tracking, "detect_faces", detect)
    source = types.SimpleNamespace(frames=play, count=8, path="clip")
    followed = tracking.follow_face(source)
    np.testing.assert_allclose(followed.times, np.arange(8) / 25)
    assert followed.frame_size == (120, 200)
    assert [face is None for face in followed.faces] == [False] * 5 + [True] + [False] * 2
    for time, face in enumerate(followed.faces):
        if face is not None:
            np.testing.assert_allclose(face.landmarks68, 1.5 * shape + paths["large"][time])
    monkeypatch.setattr(tracking, "detect_faces", lambda image: [])
    with pytest.raises(InputError, match="no face"):
        tracking.follow_face(source)


@pytest.fixture
def toy_video(tmp_path, monkeypatch, model, clip, samples):
    """fit_video without MediaPipe, and with small pictures."""
    prior = coefficient_prior(model)
    monkeypatch.setattr(clip_module, "load_for_person", lambda *_: (model, prior, None, None))

    def follow(source):
        times = np.array([time for time, _ in source.frames()])
        return dataclasses.replace(clip.followed(MISSING, count=len(times)), times=times)

    monkeypatch.setattr(clip_module, "follow_face", follow)
    monkeypatch.setattr(clip_module, "smooth_windows", lambda *_: tracking.smooth_windows(*_, size=SIZE))
    return clip.write(tmp_path / "clip")


@pytest.mark.slow
@pytest.mark.parametrize("pyav", [True, False])
def test_results_of_a_clip(toy_video, tmp_path, model, monkeypatch, pyav):
    if not pyav:
        monkeypatch.setitem(sys.modules, "av", None)
    report, (page,) = clip_module.fit_video(
        toy_video, tmp_path / "out", drawing=DrawingOptions(picture_size=SIZE, largest_texture=32)
    )
    folder = tmp_path / "out" / "clip"
    assert (report.done, report.exit_code, page) == (1, 0, folder / "index.html")
    film = "overlay.mp4" if pyav else "overlay.gif"
    assert {path.name for path in folder.iterdir()} - {"angles.png"} == {
        "index.html", "track.json", "animation.glb", film
    }  # fmt: skip
    record = json.loads((folder / "track.json").read_text())
    assert record["schema"] == clip_files.SCHEMA and record["missing"] == list(MISSING)
    assert len(record["frames"]) == 12 and record["frames"][4]["found"] is False
    assert record["jitter"]["after"]["landmarks_px"] < record["jitter"]["before"]["landmarks_px"]
    assert film in page.read_text() and "4, 5" in page.read_text()
    times, played = zip(*frames.open_clip(folder / film).frames(), strict=True)
    assert len(played) == 12 and played[0].shape == (140, 3 * 180, 3)
    np.testing.assert_allclose(times, np.arange(12) / 25, atol=1e-3)
    # The panel in the middle shows the frame with the face drawn over it: nearly the frame.
    original = frames.read_image(toy_video / "frame0.png").astype(float)
    assert np.abs(played[0][:, 180:360] - original).mean() < 12
    check_animation(folder / "animation.glb", record)


@pytest.mark.slow
def test_a_pause_in_a_video_is_one_in_every_result(toy_video, tmp_path, clip):
    times = clip.times + 2.0 * (np.arange(12) >= 6)
    # Lossless: the labels of a frame are found by its bytes.
    video = write_video(tmp_path / "film.mov", clip.frames, times=times, codec="png", pixels="rgb24")
    drawing = DrawingOptions(picture_size=SIZE, largest_texture=32)
    report, (page,) = clip_module.fit_video(video, tmp_path / "out", drawing=drawing)
    assert report.exit_code == 0 and report.summary() == "1 clip done"
    record = json.loads((page.parent / "track.json").read_text())
    np.testing.assert_allclose([frame["time"] for frame in record["frames"]], times, atol=1e-3)
    assert record["clip"]["frame_rate"] == pytest.approx(11 / times[-1], rel=1e-3) and not record["clip"]["problems"]
    check_animation(page.parent / "animation.glb", record)
    played = [time for time, _ in frames.open_clip(page.parent / "overlay.mp4").frames()]
    np.testing.assert_allclose(played, times, atol=1e-3)


@pytest.mark.slow
def test_a_video_that_is_cut_off_is_half_done(toy_video, tmp_path, clip, capsys):
    options = {"movflags": "faststart"}
    video = write_video(tmp_path / "film.mov", clip.frames, codec="png", pixels="rgb24", file_options=options)
    drawing = DrawingOptions(picture_size=SIZE, largest_texture=32)
    report, (page,) = clip_module.fit_video(cut(video, 0.7), tmp_path / "out", frame_rate=50, drawing=drawing)
    assert report.exit_code == 1 and report.summary() == "1 clip done, 1 of them incomplete"
    record = json.loads((page.parent / "track.json").read_text())
    count = len(record["frames"])
    assert 6 <= count <= 9 and record["frames"][2]["time"] == 2 / 50
    error = capsys.readouterr().err
    assert f"incomplete: {video}: the file is cut off ({video.stat().st_size:,} of " in error
    assert f"; {count} frames, {(count - 1) / 50:.2f} s, could be fitted" in error
    assert "the file is cut off" in record["clip"]["problems"][0] and "the file is cut off" in page.read_text()


def test_a_film_without_pyav_keeps_its_times(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    times = [0, 1 / 30, 2 / 30, 2.1, 2.2]
    ramp = np.broadcast_to(np.linspace(0, 255, 30, dtype=np.uint8)[:, None], (20, 30, 3))
    pictures = ((time, np.roll(ramp, index, axis=1)) for index, time in enumerate(times))
    assert write_film(tmp_path / "film", pictures, frame_rate=20, count=5) == "film.gif"
    played = [time for time, _ in frames.open_clip(tmp_path / "film.gif").frames()]
    np.testing.assert_allclose(played, times, atol=0.0051)


@pytest.mark.parametrize(("pause", "same"), [(1 / 25, False), (2.0, True)])
def test_the_search_reaches_farther_after_a_pause(monkeypatch, pause, same):
    """A face that is far away a frame later is another one, and the same two seconds later."""
    shape = 20 * np.random.default_rng(0).uniform(size=(68, 2))
    pictures = [np.full((40, 90, 3), place, np.uint8) for place in (5, 65)]

    def detect(image):
        return [detected(shape + [int(image[0, 0, 0]), 5])] if image.shape == pictures[0].shape else []

    monkeypatch.setattr(tracking, "detect_faces", detect)
    source = types.SimpleNamespace(frames=lambda: zip((0, pause), pictures, strict=True), count=2, path="clip")
    assert (tracking.follow_face(source).faces[1] is not None) == same


def check_animation(path, record):
    """The GLB opens, and holds the expressions of the track, played at the clip's times."""
    content = path.read_bytes()
    length = int.from_bytes(content[12:16], "little")
    document, binary = json.loads(content[20 : 20 + length]), content[28 + length :]
    (animation,) = document["animations"]
    assert {channel["target"]["path"] for channel in animation["channels"]} == {"weights", "rotation", "translation"}

    def read(accessor, width):
        accessor = document["accessors"][accessor]
        start = document["bufferViews"][accessor["bufferView"]].get("byteOffset", 0)
        return np.frombuffer(binary, np.float32, accessor["count"] * width, start).reshape(accessor["count"], width)

    for channel in animation["channels"]:
        sampler = animation["samplers"][channel["sampler"]]
        np.testing.assert_allclose(
            read(sampler["input"], 1)[:, 0], [frame["time"] for frame in record["frames"]], atol=1e-6
        )
        if channel["target"]["path"] == "weights":
            weights = read(sampler["output"], 1).reshape(12, -1)
            np.testing.assert_allclose(weights, [frame["expression"] for frame in record["frames"]], atol=1e-5)
    mesh = trimesh.load(path, force="mesh", process=False)
    assert mesh.vertices.shape == (81, 3)


@pytest.mark.slow
def test_the_matrix_projects_into_the_frame(model, tracked, samples):
    source = types.SimpleNamespace(path=types.SimpleNamespace(name="clip"), problems=[])
    record = clip_files.track_record(model, source, tracked, samples, settings={})
    for frame in (0, 7):
        entry = record["frames"][frame]
        expression = np.array(entry["expression"])
        shape = model.mean_shape + model.identity_basis @ record["identity"] + model.expression_basis @ expression
        points = np.concatenate([shape, np.ones((81, 1))], axis=1) @ np.array(entry["matrix"]).T
        points = (points[:, :2] / points[:, 2:])[model.landmarks["68"]]
        np.testing.assert_allclose(points, entry["landmarks68"], atol=2e-2)


@pytest.mark.slow
def test_head_motion_is_that_of_the_clip(model, clip, tracked):
    """Put back into one camera for all frames, the head's path is the one that the clip was drawn with."""
    quaternions, translation = clip_files.head_motion(tracked)
    np.testing.assert_allclose(np.linalg.norm(quaternions, axis=1), 1)
    truth = clip.vectors[:, -3:]
    for axis in range(2):
        assert np.corrcoef(translation[:, axis], truth[:, axis])[0, 1] > 0.95
    assert np.ptp(translation[:, 0]) == pytest.approx(np.ptp(truth[:, 0]), rel=0.25)
    still = track.Track(
        **{**vars(tracked), "vectors": np.repeat(tracked.vectors[:1], 12, 0), "windows": [tracked.windows[0]] * 12}
    )
    assert np.ptp(clip_files.head_motion(still)[1], axis=0).max() < 1e-6


@pytest.fixture
def no_fits(monkeypatch, model):
    """Clips that are fitted in no time: the list of them, and a record of each."""
    fitted = []
    monkeypatch.setattr(clip_module, "load_for_person", lambda *_: (model, None, None, None))
    monkeypatch.setattr(clip_module, "follow_face", lambda clip: types.SimpleNamespace(times=[0.0, 0.04]))
    monkeypatch.setattr(clip_module, "smooth_windows", lambda *_: None)
    monkeypatch.setattr(clip_module, "cut_samples", lambda *_, **__: [1])
    monkeypatch.setattr(clip_module, "track_face", lambda *_, **__: None)

    def write(folder, model, clip, track, samples, *, settings, digest, drawing):
        fitted.append(folder.name)
        folder.mkdir(exist_ok=True)
        told = {"file": clip.path.name, "sha256": digest, "problems": clip.problems}
        record = {"schema": clip_files.SCHEMA, "jaxface": __version__, "clip": told, "settings": settings}
        (folder / "track.json").write_text(json.dumps(record))
        return folder / "index.html"

    monkeypatch.setattr(clip_module, "write_clip", write)
    return fitted


def frames_in(folder, color=0):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(2):
        Image.new("RGB", (20, 10), (color, 90, 80)).save(folder / f"{index}.png")
    return folder


def test_a_clip_that_is_done_is_skipped(no_fits, tmp_path):
    one, two, out = frames_in(tmp_path / "a" / "take.01"), frames_in(tmp_path / "b" / "take.01", 9), tmp_path / "out"
    assert clip_module.fit_video(one, out)[0].done == 1
    report, pages = clip_module.fit_video(one, out)
    assert (report.done, report.skipped, report.exit_code, pages) == (0, 1, 0, [out / "take.01" / "index.html"])
    clip_module.fit_video(two, out)  # another of that name
    assert no_fits == ["take.01", "take.01_2"]
    for options in ({"overwrite": True}, {"frame_rate": 50}, {"parser": "jaxface"}):
        assert clip_module.fit_video(one, out, **options)[0].done == 1
    frames_in(one, color=200)
    assert clip_module.fit_video(one, out, parser="jaxface")[0].done == 1  # it was edited
    assert no_fits[2:] == ["take.01"] * 4


def test_a_clip_that_is_cut_off_says_so_again(no_fits, tmp_path):
    folder, out = frames_in(tmp_path / "take"), tmp_path / "out"
    clip_module.fit_video(folder, out)
    record = json.loads((out / "take" / "track.json").read_text())
    record["clip"]["problems"] = ["the file is cut off"]
    (out / "take" / "track.json").write_text(json.dumps(record))
    report, _ = clip_module.fit_video(folder, out)
    assert (report.skipped, report.exit_code) == (1, 1) and report.incomplete == [f"{folder}: the file is cut off"]


def test_an_occupied_folder_is_left_alone(no_fits, tmp_path):
    (tmp_path / "out" / "clip").mkdir(parents=True)
    clip = frames_in(tmp_path / "clip")
    clip_module.fit_video(clip, tmp_path / "out")
    assert no_fits == ["clip_2"] and not list((tmp_path / "out" / "clip").iterdir())
    with pytest.raises(InputError, match="is a file"):
        clip_module.fit_video(clip, tmp_path / "out" / "clip_2" / "track.json")
