"""Faces found in real photographs: where they are, at any turn and size, one or many; and where there are none."""

import math
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from jaxface.core import landmarks as landmarks_module
from jaxface.core import parts
from jaxface.photos import detection

pytestmark = pytest.mark.slow

RIGHT_CORNER, LEFT_CORNER = 33, 263
"""Mesh points: the outer corners of the eyes."""


@pytest.fixture(scope="module")
def astronaut():
    return pytest.importorskip("skimage.data", reason="scikit-image (extra 'photo') is not installed").astronaut()


@pytest.fixture(scope="module")
def hopper():
    cbook = pytest.importorskip("matplotlib.cbook", reason="matplotlib (extra 'photo') is not installed")
    return np.array(Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))


def the_face(image):
    (face,) = detection.detect_faces(image)
    return face


def test_both_portraits(astronaut, hopper):
    np.testing.assert_allclose(the_face(astronaut).box, [179, 70, 271, 177], atol=5)
    np.testing.assert_allclose(the_face(hopper).box, [165, 132, 356, 335], atol=8)


def test_landmarks_lie_where_the_features_are(astronaut):
    """Corners read off the picture by eye, to a tenth of the distance between the eyes."""
    landmarks = the_face(astronaut).landmarks68
    by_eye = {36: (196, 104), 45: (253, 108), 30: (222, 128), 48: (201, 141), 54: (244, 142), 8: (223, 177)}
    for index, point in by_eye.items():
        np.testing.assert_allclose(landmarks[index], point, atol=5)


def test_labels_know_the_subjects_left(hopper):
    labels = the_face(hopper).labels(*hopper.shape[:2])
    middle = {part: parts.mask_points(labels == label).mean(0) for part, label in parts.LABELS.items()}
    for part in ("eye", "brow"):
        assert middle[f"left_{part}"][0] > middle["nose"][0] > middle[f"right_{part}"][0]
    heights = [middle[part][1] for part in ("left_brow", "left_eye", "nose", "upper_lip", "lower_lip")]
    assert heights == sorted(heights)
    assert labels.shape == hopper.shape[:2]
    assert (labels == parts.FOREHEAD).any()


def test_the_mirrored_photo_gives_the_mirrored_face(hopper):
    mirrored = the_face(np.ascontiguousarray(hopper[:, ::-1])).landmarks68[landmarks_module.MIRRORED_68]
    mirrored[:, 0] = hopper.shape[1] - mirrored[:, 0]
    error = np.linalg.norm(mirrored - the_face(hopper).landmarks68, axis=-1)
    assert error.mean() < 0.05 * 85  # of the distance between the eyes


def test_scale_does_not_matter(hopper):
    """A tiny copy, a large one, and one that is nothing but the face."""
    face = the_face(hopper)
    for size in ((154, 180), (1536, 1800)):
        scale = size[0] / hopper.shape[1]
        resized = np.array(Image.fromarray(hopper).resize(size, Image.Resampling.LANCZOS))
        error = np.linalg.norm(the_face(resized).landmarks68 / scale - face.landmarks68, axis=-1)
        assert error.mean() < 0.05 * 85
    close = the_face(np.ascontiguousarray(hopper[131:335, 165:357]))
    np.testing.assert_allclose(close.box + [165, 131, 165, 131], face.box, atol=12)


def test_several_faces_largest_first(astronaut, hopper):
    photo = np.full((900, 1200, 3), 120, np.uint8)
    photo[100:700, 50:562] = hopper
    photo[200:410, 700:910] = astronaut[20:230, 110:320]
    small = np.array(Image.fromarray(hopper).resize((200, 234)))
    photo[600:834, 900:1100] = small
    faces = detection.detect_faces(photo)
    assert len(faces) == 3
    assert [face.size for face in faces] == sorted((face.size for face in faces), reverse=True)
    centers = np.array([(face.box[:2] + face.box[2:]) / 2 for face in faces])
    np.testing.assert_allclose(centers, [[311, 333], [815, 304], [1002, 691]], atol=10)
    assert len(detection.detect_faces(photo, min_size=90)) == 2


def test_no_face(astronaut):
    skimage = pytest.importorskip("skimage.data")
    assert detection.detect_faces(skimage.coffee()) == []
    assert detection.detect_faces(np.zeros((16, 16, 3), np.uint8)) == []
    assert detection.detect_faces(np.zeros((20, 3000, 3), np.uint8)) == []


def turned(photo, degrees):
    """The photo turned clockwise about its centre, all of it, and the map of its points."""
    result = photo.rotate(-degrees, Image.Resampling.BICUBIC, expand=True)
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return np.asarray(result), lambda points: (points - np.array(photo.size) / 2) @ turn + np.array(result.size) / 2


@pytest.mark.parametrize("name", ["astronaut", "hopper"])
def test_every_turn(name, request):
    """48 turns of the photo: the face, its points in the mean within 3 % of the distance of the eyes' outer corners."""
    photo = Image.fromarray(request.getfixturevalue(name)).reduce(2)
    points = the_face(np.asarray(photo)).landmarks478
    eyes = math.dist(points[RIGHT_CORNER], points[LEFT_CORNER])
    photos, maps = zip(*(turned(photo, 7.5 * k) for k in range(48)), strict=True)
    found = detection.detect_faces_in(photos)
    assert [len(faces) for faces in found] == [1] * 48
    errors = [
        np.linalg.norm(faces[0].landmarks478 - to_turned(points), axis=-1).mean()
        for faces, to_turned in zip(found, maps, strict=True)
    ]
    assert max(errors) < 0.03 * eyes


@pytest.mark.parametrize("degrees", [165, 232.5])
def test_cloth_is_no_face(astronaut, degrees):
    """Upside down, folds of her suit were taken for a face, and she was not looked for any more."""
    photo, to_turned = turned(Image.fromarray(astronaut), degrees)
    nose = to_turned(the_face(astronaut).landmarks68[30])
    assert math.dist(the_face(photo).landmarks68[30], nose) < 3


@pytest.mark.parametrize("size", [24, 40])
def test_small_faces_of_large_photos(astronaut, size):
    """As many pixels from the outline's top to its bottom as `size`."""
    face = the_face(astronaut)
    scale = size / face.size
    small = Image.fromarray(astronaut).resize((round(512 * scale),) * 2, Image.Resampling.LANCZOS)
    photo = Image.new("RGB", (1000, 700), (90, 110, 100))
    photo.paste(small, (640, 333))
    (found,) = detection.detect_faces(np.asarray(photo), min_size=20)
    eyes = math.dist(*found.landmarks478[[RIGHT_CORNER, LEFT_CORNER]])
    assert np.linalg.norm(found.landmarks478 - (640, 333) - face.landmarks478 * scale, axis=-1).mean() < 0.1 * eyes
    assert detection.detect_faces(np.asarray(photo), min_size=60) == []


def test_a_hundred_faces(astronaut, hopper):
    """In ten rows of different sizes, of which each is found, at its place, once."""
    faces = [Image.fromarray(astronaut[30:210, 140:320]), Image.fromarray(hopper[80:380, 110:410])]
    photo = Image.new("RGB", (1300, 1300), (70, 90, 110))
    places = [(130 * (k % 10), 130 * (k // 10)) for k in range(100)]
    sides = [70 + 6 * (k // 10) for k in range(100)]
    for k, (place, side) in enumerate(zip(places, sides, strict=True)):
        photo.paste(faces[k % 2].resize((side, side)), place)
    found = detection.detect_faces(np.asarray(photo))
    centers = {tuple(((face.box[:2] + face.box[2:]) / 2 // 130).astype(int)) for face in found}
    assert len(found) == len(centers) == 100


def test_many_photos_at_once_give_what_each_gives(astronaut, hopper):
    photos = [astronaut[:260, 60:400], np.zeros((50, 40, 3), np.uint8), hopper[::2, ::2], astronaut[::-1][250:]]
    found = detection.detect_faces_in(photos)
    assert [len(faces) for faces in found] == [1, 0, 1, 1]
    for faces, photo in zip(found, photos, strict=True):
        for face, alone in zip(faces, detection.detect_faces(photo), strict=True):
            np.testing.assert_allclose(face.landmarks478, alone.landmarks478, atol=0.05)
    assert detection.detect_faces_in([]) == []


def test_nothing_is_compiled_for_another_size_or_number_of_photos(astronaut, hopper):
    detection.detect_faces(astronaut)
    compiled = []

    def listen(event, seconds, **details):
        compiled.extend([details] if event == "/jax/core/compile/backend_compile_duration" else [])

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        found = detection.detect_faces_in([astronaut[:301, :303], hopper[50:, 7:], astronaut[::-1][:444]])
        assert [len(faces) for faces in found] == [1, 1, 1]
        assert compiled == []
        jax.jit(lambda x: x + len(found))(1)
        assert len(compiled) == 1  # the event has this name still
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_nothing_is_printed(astronaut, tmp_path):
    Image.fromarray(astronaut).save(tmp_path / "a.png")
    code = (
        "import sys; from jaxface.photos.detection import detect_faces; from jaxface.files.images import read_image\n"
        "print(len(detect_faces(read_image(sys.argv[1]))))"
    )
    command = [sys.executable, "-W", "always", "-c", code, str(tmp_path / "a.png")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (0, "1\n", "")
