"""Profiles that MediaPipe's mesh refuses are found by the network, at any quarter of a turn; what is no face is not."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from jaxface.core import parts
from jaxface.core.errors import InputError
from jaxface.photos import profiles
from jaxface.photos.detection import DetectedFace, detect_faces
from jaxface.photos.face_boxes import FaceBox
from jaxface.photos.face_crops import preprocess_photo
from jaxface.photos.parsing import jaxface_labels, mediapipe_labels

pytestmark = pytest.mark.slow

BY_EYE = {30: (254, 168), 8: (224, 199), 36: (230, 147), 48: (230, 183)}
"""The cameraman's nose tip, chin, corner of the right eye and of the mouth, in pixels of the picture."""


@pytest.fixture(scope="module")
def data():
    return pytest.importorskip("skimage.data", reason="scikit-image (extra 'photo') is not installed")


@pytest.fixture(scope="module")
def cameraman(data):
    """A man in profile behind a camera."""
    return np.repeat(data.camera()[..., None], 3, axis=-1)


@pytest.fixture(scope="module")
def face(cameraman):
    (face,) = detect_faces(cameraman)
    return face


def test_the_cameramans_landmarks_lie_where_his_features_are(face):
    assert face.landmarks478 is None
    for index, point in BY_EYE.items():
        np.testing.assert_allclose(face.landmarks68[index], point, atol=9)  # his face is 65 pixels wide
    left, top, right, bottom = face.box
    assert left < 210 and 125 < top < 150 and 250 < right < 275 and 190 < bottom < 210


def test_a_mirrored_profile_is_found_as_well(cameraman, face):
    (other,) = detect_faces(np.ascontiguousarray(cameraman[:, ::-1]))
    width = cameraman.shape[1]
    for index in (30, 8, 27):  # on the mirror's plane
        np.testing.assert_allclose(width - other.landmarks68[index, 0], face.landmarks68[index, 0], atol=12)


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_profiles_that_lie_are_turned(cameraman, face, quarter):
    (other,) = detect_faces(np.ascontiguousarray(np.rot90(cameraman, quarter)))
    (x, y), size = face.landmarks68[30], len(cameraman)
    turned = {1: (y, size - x), 2: (size - x, size - y), 3: (size - y, x)}[quarter]
    np.testing.assert_allclose(other.landmarks68[30], turned, atol=5)


@pytest.mark.parametrize("name", ["chelsea", "coffee", "coins"])
def test_where_there_is_no_face_none_is_found(data, name):
    picture = getattr(data, name)()
    assert detect_faces(picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=-1)) == []


def test_the_mesh_keeps_its_faces(data):
    (face,) = detect_faces(data.astronaut())
    assert face.landmarks478 is not None and face.profile68 is None


def test_without_flax_only_the_mesh_finds_faces(cameraman, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert detect_faces(cameraman) == []


def test_a_box_beside_the_face_leads_to_it_and_an_empty_one_to_nothing(cameraman, face):
    photo = Image.fromarray(cameraman)
    beside = FaceBox(0.9, face.box + np.tile([6.0, -5.0], 2), np.zeros((6, 2)))
    found = profiles.find_profile(photo, beside)
    np.testing.assert_allclose(found.landmarks[30], face.landmarks68[30], atol=5)
    sky = FaceBox(0.9, np.array([380.0, 20.0, 440.0, 80.0]), np.zeros((6, 2)))
    outside = FaceBox(0.9, np.array([600.0, 600.0, 640.0, 640.0]), np.zeros((6, 2)))
    assert profiles.find_profile(photo, sky) is None and profiles.find_profile(photo, outside) is None


def test_a_sample_of_a_profile_knows_no_mesh_points(cameraman, anny):
    (crop,) = preprocess_photo(cameraman, anny)
    assert not crop.sample["point_weights"].any() and crop.sample["landmark_weights"].any()
    assert crop.found()["score"] > 0.4
    labels = crop.sample["labels"]
    assert (labels == parts.LABELS["nose"]).sum() > 200  # parsed, though the parser "mediapipe" was asked
    middle = parts.mask_points(labels == parts.LABELS["nose"]).mean(0)
    np.testing.assert_allclose(crop.alignment.to_photo(middle), BY_EYE[30], atol=12)
    own = jaxface_labels(cameraman, crop.face, crop.alignment)
    np.testing.assert_array_equal(mediapipe_labels(cameraman, crop.face, crop.alignment), own)


def test_what_only_mediapipes_points_can_tell_is_refused():
    face = DetectedFace(None, 0.5, np.random.default_rng(0).uniform(0, 30, (68, 2)))
    with pytest.raises(InputError, match="parser jaxface"):
        face.labels(32, 32)
    moved = face.moved(np.array([3.0, -2.0]))
    np.testing.assert_allclose(moved.box, face.box + [3, -2, 3, -2])
    assert moved.landmarks478 is None and moved.score == face.score
