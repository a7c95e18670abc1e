"""Warnings where a face is doubtful: what is said of which numbers, and the second look at a crop."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxface.core.coefficients import LAST_COLUMNS
from jaxface.photos.alignment import Alignment
from jaxface.photos.face_crops import FaceCrop
from jaxface.results import doubts, gallery
from jaxface.results.doubts import Signs, contradiction, doubts_of, hidden_share, rivals_of_first, second_look, signs_of
from jaxface.results.drawing import Reconstruction
from jaxface.results.photos import tell_doubts

GOOD = Signs(roll=-40.0, yaw=50.0, size=60.0, hidden=0.1, contradiction=0.05, expected_error_mm=2.5)


def test_good_faces_and_unknown_numbers_give_no_warning():
    assert doubts_of(GOOD) == []
    assert doubts_of(Signs(roll=0.0, yaw=0.0, size=100.0)) == []


@pytest.mark.parametrize(
    "change, begins",
    [
        ({"roll": -170.0}, "upside down: the head is turned by 170 degrees"),
        ({"yaw": -75.0}, "extreme profile: turned by 75 degrees"),
        ({"hidden": 0.3}, "hidden: something seems to lie over 30 %"),
        ({"size": 30.0}, "too small: 30 pixels"),
        ({"rivals": 1}, "several candidates: 1 other face is about as large"),
        ({"rivals": 2}, "several candidates: 2 other faces are about as large"),
        ({"contradiction": 0.2}, "detectors disagree: their points are 20 %"),
        ({"expected_error_mm": 4.0}, "unsure: the shape is expected to be off by 4.0 mm"),
    ],
)
def test_each_doubt_is_told_by_itself(change, begins):
    (told,) = doubts_of(dataclasses.replace(GOOD, **change))
    assert told.startswith(begins)


def test_contradiction_is_the_median_distance_of_inner_landmarks_that_count():
    random = np.random.default_rng(0)
    first, second = random.uniform(0, 224, (2, 68, 2))
    weights = (random.uniform(size=68) < 0.7).astype(np.float32)
    apart = sorted(
        np.hypot(*(first[i] - second[i])) / (0.4 * 224) for i in range(17, 68) if weights[i] > 0
    )  # the definition, plainly
    middle = len(apart) // 2
    wanted = apart[middle] if len(apart) % 2 else (apart[middle - 1] + apart[middle]) / 2
    assert contradiction(first, second, weights, size=224) == pytest.approx(wanted)
    assert contradiction(2 * first, 2 * second, weights, size=448) == pytest.approx(wanted)
    assert np.isnan(contradiction(first, second, np.zeros(68), size=224))
    outline = np.zeros(68)
    outline[:17] = 1
    assert np.isnan(contradiction(first, second, outline, size=224))


def test_the_far_side_of_a_profile_is_not_hidden():
    """A head that looks to the image's right shows its own right side, which is left in the image."""
    visible = np.ones(68)
    visible[list(doubts.LEFT_SIDE)] = 0
    assert hidden_share(visible, 70.0) == 0
    assert hidden_share(visible, 0.0) == pytest.approx(len(doubts.LEFT_SIDE) / 51)
    assert hidden_share(visible, -70.0) > 0.3
    outline_hidden = np.ones(68)
    outline_hidden[:17] = 0
    assert hidden_share(outline_hidden, 0.0) == 0


def crop_of_size(pixels: float) -> FaceCrop:
    return FaceCrop({}, Alignment(100 / pixels, 0.0, 0.0, 224, (500, 500)))


def test_rivals_are_about_as_large_as_the_largest():
    assert rivals_of_first([crop_of_size(100)]) == 0
    assert rivals_of_first([crop_of_size(size) for size in (100, 80, 76, 70, 20)]) == 2


def reconstruction(*, roll: float = 0.0, points: np.ndarray | None, weights: float = 1.0) -> Reconstruction:
    vector = np.zeros(50, np.float32)
    vector[LAST_COLUMNS["angles"]] = 0, 0.1, np.radians(roll)
    landmarks = np.random.default_rng(0).uniform(40, 180, (68, 2)).astype(np.float32)
    sample = {"image": np.zeros((224, 224, 3), np.uint8), "landmarks": landmarks, "landmark_weights": np.ones(68)}
    if points is not None:
        sample |= {"points": points, "point_weights": np.full(len(points), weights, np.float32)}
    return Reconstruction(vector, sample, Alignment(2.0, 0.0, 0.0, 224, (300, 300)), "Face 1", rivals=2)


def test_signs_come_from_fit_detector_and_network(monkeypatch):
    points = np.random.default_rng(1).uniform(50, 170, (478, 2)).astype(np.float32)
    one = reconstruction(roll=175.0, points=points)
    looked = doubts.SecondLook(-50.0, one.sample["landmarks"] + [0.0, 8.96], np.full(68, 0.9))
    monkeypatch.setattr(doubts, "second_look", lambda image, landmarks: looked)
    signs = signs_of(one, expected_error_mm=2.0)
    assert (signs.roll, signs.yaw, signs.rivals) == (pytest.approx(175.0), -50.0, 2)
    assert signs.size == pytest.approx(doubts.FACE * 112)  # the crop shows the photo twice as large
    assert signs.contradiction == pytest.approx(0.1) and signs.hidden == pytest.approx(0.1)
    # Where the detector found nothing, there is nobody to contradict.
    alone = signs_of(reconstruction(points=points, weights=0.0))
    assert np.isnan(alone.contradiction) and (alone.yaw, alone.hidden) == (-50.0, pytest.approx(0.1))


def test_a_face_that_no_detector_found_is_judged_by_pose_and_size_alone(monkeypatch):
    monkeypatch.setattr(doubts, "second_look", lambda *_: pytest.fail("there is no photo to look at"))
    assert doubts_of(signs_of(reconstruction(roll=180.0, points=None)))[0].startswith("upside down")


def test_without_flax_pose_and_size_alone_are_judged(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    monkeypatch.setattr(doubts, "second_look", lambda *_: pytest.fail("this loads Flax"))
    signs = signs_of(reconstruction(roll=180.0, points=np.zeros((478, 2), np.float32)), expected_error_mm=2.0)
    assert abs(signs.roll) == pytest.approx(180.0) and signs.expected_error_mm == 2.0 and np.isnan(signs.hidden)


@pytest.mark.slow
def test_a_crop_that_is_turned_is_seen_like_the_upright_one():
    """Quarters of a turn are undone exactly, so all that is said of a picture turns with it."""
    random = np.random.default_rng(2)
    image = np.kron(random.integers(0, 255, (8, 8, 3)), np.ones((24, 24, 1))).astype(np.uint8)
    landmarks = np.tile([[96.0, 96.0]], (68, 1))
    landmarks[36:48, 1], landmarks[[48, 54], 1] = 70, 130  # eyes above the mouth
    upright = second_look(image, landmarks)
    upside_down = second_look(np.ascontiguousarray(image[::-1, ::-1]), 192 - landmarks)
    sideways = second_look(
        np.ascontiguousarray(np.rot90(image)), np.stack([landmarks[:, 1], 192 - landmarks[:, 0]], -1)
    )
    np.testing.assert_allclose(upside_down.landmarks, 192 - upright.landmarks, atol=1e-3)
    turned = np.stack([upright.landmarks[:, 1], 192 - upright.landmarks[:, 0]], -1)
    np.testing.assert_allclose(sideways.landmarks, turned, atol=1e-3)
    np.testing.assert_allclose(upside_down.visible, upright.visible, atol=1e-4)


def test_doubts_of_a_photo_are_one_line(capsys):
    tell_doubts(Path("a.jpg"), [["too small: 30 pixels"]])
    tell_doubts(Path("b.jpg"), [[], ["upside down: x", "unsure: y"]])
    tell_doubts(Path("c.jpg"), [[], []])
    told = capsys.readouterr().err.splitlines()
    assert told == ["doubtful: a.jpg: too small: 30 pixels", "doubtful: b.jpg: face 2: upside down: x; unsure: y"]


def test_the_overview_shows_doubts_and_takes_records_without(tmp_path):
    for name, doubts_told in (("one", {"doubts": ["too small: <30> pixels"]}), ("two", {})):
        face = tmp_path / name / "face_0"
        face.mkdir(parents=True)
        for picture in ("crop", "overlay", "shape"):
            Image.new("RGB", (8, 8)).save(face / f"{picture}.png")
        gallery.write_card(face)
        record = {"photo": f"{name}.jpg", "faces": [{"folder": "face_0", "part_iou": 0.5, **doubts_told}]}
        (tmp_path / name / gallery.DONE_FILE).write_text(json.dumps(record))
    page = gallery.write_overview(tmp_path, {}).read_text()
    assert page.count("<em>") == 1 and "<em>too small: &lt;30&gt; pixels</em>" in page and "two.jpg" in page
