"""Faces found in real photographs, the pieces around the detector, and what is said when something is not installed."""

import itertools
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from jaxface.core import landmarks as landmarks_module
from jaxface.core import parts
from jaxface.core.errors import MissingDependencyError
from jaxface.photos import detection


@pytest.fixture(scope="module")
def astronaut():
    pytest.importorskip("mediapipe", reason="MediaPipe (extra 'photo') is not installed")
    return pytest.importorskip("skimage.data", reason="scikit-image (extra 'photo') is not installed").astronaut()


@pytest.fixture(scope="module")
def hopper():
    pytest.importorskip("mediapipe", reason="MediaPipe (extra 'photo') is not installed")
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


@pytest.mark.slow
def test_nothing_is_printed(astronaut, tmp_path):
    """MediaPipe writes to stderr from threads of its own; a fresh process must stay silent, to its very end."""
    Image.fromarray(astronaut).save(tmp_path / "a.png")
    code = (
        "import sys; from jaxface.photos.detection import detect_faces; from jaxface.files.images import read_image\n"
        "print(len(detect_faces(read_image(sys.argv[1]))))"
    )
    command = [sys.executable, "-W", "always", "-c", code, str(tmp_path / "a.png")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (0, "1\n", "")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("libGL.so.1: cannot open shared object file: No such file or directory", "apt-get install libgl1"),
        ("libgthread-2.0.so.0: cannot open shared object file: No such file", "apt-get install libglib2.0-0"),
        ("libxcb.so.1: cannot open shared object file: No such file", "apt-get install libxcb1"),
        ("libodd.so.7: cannot open shared object file: No such file", "libodd.so.7"),
        ("No module named 'mediapipe'", "pip install 'jaxface[photo]'"),
        ("No module named 'cv2'", "No module named 'cv2'"),
    ],
)
def test_what_to_install(message, expected, monkeypatch):
    name = message.split("'")[1] if "'" in message else None

    class Failing:
        def find_spec(self, module, path=None, target=None):
            if module == "mediapipe":
                raise ImportError(message, name=name)

    monkeypatch.delitem(sys.modules, "mediapipe", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Failing(), *sys.meta_path])
    with pytest.raises(MissingDependencyError) as raised:
        detection._load_mediapipe()
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_mediapipe_without_models(monkeypatch):
    fake = types.ModuleType("mediapipe")
    fake.__version__ = "9.9"
    monkeypatch.setitem(sys.modules, "mediapipe", fake)
    with pytest.raises(MissingDependencyError, match=r"mediapipe 9\.9 carries no face models"):
        detection._load_mediapipe()


def test_windows_cover_the_photo():
    for length in (10, 384, 385, 600, 768, 3072):
        starts = detection._window_starts(length)
        assert starts[0] <= 0 and starts[-1] + 384 >= length
        assert all(b - a <= 256 for a, b in itertools.pairwise(starts))
