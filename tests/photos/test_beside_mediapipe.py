"""The rebuilt networks beside MediaPipe 0.10.14, whose answers lie in golden/detections.npz."""

import math

import numpy as np
import pytest

from golden import make_detections as golden
from jaxface.core.errors import MissingDependencyError
from jaxface.photos import detection, face_points
from jaxface.photos.face_boxes import FULL_RANGE, SHORT_RANGE
from jaxface.photos.network_batches import find_boxes, find_mesh
from jaxface.photos.warping import Square, cut_square
from oracles.opencv_warp import opencv_square

KINDS = ("full", "short", "region", "points")

pytestmark = pytest.mark.slow

WHOLE = Square((golden.MESH / 2, golden.MESH / 2), golden.MESH)


@pytest.fixture(scope="module")
def stored():
    """What MediaPipe said, of the pictures that are the same here."""
    try:
        digests = golden.digests()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    with np.load(golden.PATH) as content:
        same = content["digests"] == digests
        return {name: content[name][same] for name in KINDS} | {"same": same}


@pytest.fixture(scope="module")
def pictures(stored):
    return [picture for picture, same in zip(golden.pictures(golden.MESH), stored["same"], strict=True) if same]


def mesh_squares(stored):
    return [Square(tuple(x[:2]), x[2], float(x[3])) for x in stored["region"]]


def test_there_are_enough_pictures(stored):
    assert stored["same"].sum() >= 20 and len(stored["same"]) >= 30
    assert not np.isnan(stored["points"]).any()


@pytest.mark.parametrize(("name", "detector", "told"), [("full", FULL_RANGE, golden.FACES), ("short", SHORT_RANGE, 1)])
def test_detections_of_the_same_bytes(stored, name, detector, told):
    """All are found, and no others, but where a score lies near the threshold. FaceMesh tells of one alone."""
    pictures = [picture for picture, same in zip(golden.pictures(detector.side), stored["same"], strict=True) if same]
    for found, expected in zip(find_boxes(pictures, detector), stored[name], strict=True):
        expected = expected[~np.isnan(expected[:, 0])]
        rows = np.array([[*face.box, *face.keypoints.ravel(), face.score] for face in found[:told]])
        clear = [x[x[:, -1] > detector.threshold + 0.01] for x in (rows, expected)]
        np.testing.assert_allclose(clear[0], clear[1], atol=1e-5)


def test_mesh_of_the_same_bytes(stored, pictures):
    """To 3e-4 pixels of the network's input, but for one picture in which a byte lies on the edge."""
    squares = mesh_squares(stored)
    cut = [opencv_square(p, s, 192, repeat_border=True) for p, s in zip(pictures, squares, strict=True)]
    errors = []
    for (points, presence), square, expected in zip(find_mesh(cut), squares, stored["points"], strict=True):
        placed = np.concatenate([square.to_picture(points[:, :2] / 192), points[:, 2:] / 192 * square.side], -1)
        errors.append(np.abs(placed - expected).max() / square.side * 192)
        assert presence > 0
    errors.sort()
    assert errors[-2] < 3e-4 and errors[-1] < 5e-3


def test_the_warp_is_opencvs_but_for_ties(stored, pictures):
    """One byte in a thousand differs, by what 1/32 of a pixel makes."""
    for picture, square in zip(pictures, mesh_squares(stored), strict=True):
        ours, theirs = (f(picture, square, 192, repeat_border=True) for f in (cut_square, opencv_square))
        assert (ours != theirs).mean() < 1e-3
        assert np.abs(ours.astype(int) - theirs).max() < 16


def test_end_to_end(stored, pictures):
    """FaceMesh's own road, from the picture to the points, by our parts: within half a pixel of the picture.

    Measured: 0.02 px.
    """
    small = [cut_square(picture, WHOLE, SHORT_RANGE.side, repeat_border=False) for picture in pictures]
    squares = [
        face_points.face_square(boxes[0].mapped(golden.MESH, np.zeros(2))) for boxes in find_boxes(small, SHORT_RANGE)
    ]
    crops = [
        cut_square(picture, square, 192, repeat_border=True) for picture, square in zip(pictures, squares, strict=True)
    ]
    for (points, _), square, expected in zip(find_mesh(crops), squares, stored["points"], strict=True):
        np.testing.assert_allclose(square.to_picture(points[:, :2] / 192), expected[:, :2], atol=0.5)


def test_detect_faces_finds_these_faces(stored, pictures):
    """Its crops are others than FaceMesh's, and turned for turned faces: a few per cent of the distance of the eyes."""
    for faces, expected in zip(detection.detect_faces_in(pictures), stored["points"], strict=True):
        eyes = math.dist(expected[33, :2], expected[263, :2])
        errors = [np.linalg.norm(face.landmarks478 - 0.5 - expected[:, :2], axis=-1).mean() / eyes for face in faces]
        assert min(errors) < 0.06


def test_mediapipe_says_so_still(stored):
    pytest.importorskip("mediapipe", reason="MediaPipe is not installed; its stored answers were compared with")
    for name, values in golden.ask_mediapipe().items():
        np.testing.assert_allclose(values[stored["same"]], stored[name], atol=1e-3, err_msg=name)
