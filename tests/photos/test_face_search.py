"""The pieces of detection: what detectors say, windows, squares, batches, and when the mesh is believed."""

import itertools
import math

import numpy as np
import pytest
from PIL import Image

from jaxface.core.errors import InputError
from jaxface.photos import face_points, face_search
from jaxface.photos.detection import detect_faces, detect_faces_in
from jaxface.photos.face_boxes import FULL_RANGE, SHORT_RANGE, FaceBox, face_boxes, overlap
from jaxface.photos.network_batches import batch_sizes
from jaxface.photos.warping import Square, cut_square, shrink


def raw_output(detector, faces):
    """What a network says of faces {anchor: (score before the sigmoid, 16 numbers)}; the rest is none."""
    count = sum(cells**2 * anchors for cells, anchors in detector.grids)
    boxes, scores = np.zeros((count, 16), np.float32), np.full(count, -9, np.float32)
    for index, (score, numbers) in faces.items():
        scores[index], boxes[index] = score, numbers
    return boxes, scores


@pytest.mark.parametrize(
    ("detector", "index", "center"),
    [
        (FULL_RANGE, 48 * 5 + 7, (7.5 / 48, 5.5 / 48)),
        (SHORT_RANGE, 2 * (16 * 3 + 4) + 1, (4.5 / 16, 3.5 / 16)),
        (SHORT_RANGE, 512 + 6 * (8 * 2 + 1) + 5, (1.5 / 8, 2.5 / 8)),
    ],
)
def test_a_detection_is_relative_to_its_anchor(detector, index, center):
    numbers = np.array([1, 2, 30, 40, *np.arange(12)])
    (face,) = face_boxes(*raw_output(detector, {index: (1.0, numbers)}), detector)
    middle = np.array(center) + np.array([1, 2]) / detector.side
    half = np.array([15, 20]) / detector.side
    np.testing.assert_allclose(face.box, [*(middle - half), *(middle + half)])
    np.testing.assert_allclose(face.keypoints, center + np.arange(12).reshape(6, 2) / detector.side)
    assert face.score == pytest.approx(1 / (1 + math.exp(-1)))


def test_detections_of_one_face_are_averaged_by_their_scores():
    shape = [0, 0, 40, 40, *np.zeros(12)]
    near, far = [4, 0, 40, 40, *np.ones(12)], [90, 0, 40, 40, *np.zeros(12)]
    index = 48 * 20 + 10
    boxes, scores = raw_output(FULL_RANGE, {index: (1.0, shape), index + 1: (3.0, near), index + 2: (2.0, far)})
    first, second = face_boxes(boxes, scores, FULL_RANGE)
    weights = 1 / (1 + np.exp(-np.array([1.0, 3.0])))
    lefts = (np.array([10.5, 11.5]) * 4 + [0, 4] - np.array(20)) / 192
    assert first.box[0] == pytest.approx(lefts @ weights / weights.sum())
    assert first.keypoints[0, 1] == pytest.approx((20.5 * 4 + weights[1] / weights.sum()) / 192)
    assert first.score == pytest.approx(weights[1])  # of the surest
    assert second.box[0] == pytest.approx((12.5 * 4 + 90 - 20) / 192)
    assert face_boxes(*raw_output(FULL_RANGE, {}), FULL_RANGE) == []
    assert len(face_boxes(*raw_output(FULL_RANGE, {index: (5.0, np.zeros(16))}), FULL_RANGE)) == 1  # of no area


def test_overlap():
    assert overlap(np.array([0, 0, 2, 2]), np.array([1, 1, 3, 3])) == pytest.approx(1 / 7)
    assert overlap(np.array([0, 0, 1, 1]), np.array([2, 2, 3, 3])) == 0
    assert overlap(np.zeros(4), np.zeros(4)) == 0


def test_windows_cover_the_photo():
    for length, side in itertools.product((10, 192, 193, 300, 448, 1536), (192, 448)):
        starts = face_search.window_starts(length, side)
        assert starts[0] <= 0 and starts[-1] + side >= length
        assert (starts[0] == -24) == (length > side)
        assert all(b - a <= side - 48 for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize(("size", "side", "count"), [((192, 100), 192, 1), ((300, 190), 192, 3), ((384, 384), 448, 1)])
def test_windows_are_as_large_as_leaves_the_least_to_do(size, side, count):
    places, detector = face_search.window_places(*size)
    assert (detector.side, len(places)) == (side, count)


@pytest.mark.parametrize("quarter", range(4))
def test_boxes_found_in_a_turned_photo_come_back(quarter, monkeypatch):
    """A detector whose box is twice as high as wide, at the lower right of a white pixel of the turned picture."""
    pictures = []

    def find_boxes(given, detector):
        pictures.extend(given)
        boxes = []
        for picture in given:
            rows, columns = np.nonzero(picture[..., 0] > 128)
            x, y = (columns.mean() + 0.5) / 192, (rows.mean() + 0.5) / 192
            boxes.append([FaceBox(0.9, np.array([x, y, x + 0.1, y + 0.2]), np.tile([[x, y]], (6, 1)))])
        return boxes

    monkeypatch.setattr(face_search, "find_boxes", find_boxes)
    photo = Image.new("RGB", (110, 90))
    photo.paste((255, 255, 255), (20, 60, 24, 64))
    (found,) = face_search.search([photo], min_size=13, quarter=quarter)
    for box in found:
        np.testing.assert_allclose(box.keypoints[0], (22, 62), atol=0.7)
        across, down = {0: (1, 2), 1: (-2, 1), 2: (-1, -2), 3: (2, -1)}[quarter]
        corner = np.sign([across, down]).clip(-1, 0) != 0  # at which corner of the box the pixel lies
        np.testing.assert_allclose(np.where(corner, box.box[2:], box.box[:2]), (22, 62), atol=0.7)
        assert (box.box[3] - box.box[1]) / (box.box[2] - box.box[0]) == pytest.approx(abs(down / across))
    assert {picture.shape for picture in pictures} == {(192, 192, 3)}


def test_squares_are_cut_where_they_lie():
    """Of a picture that is linear in its coordinates: at i / size of the side, as long as that lies in the picture."""
    y, x = np.mgrid[:120, :160]
    picture = np.stack([x, y, x // 2 + y // 2], -1).astype(np.uint8)
    square = Square((70.0, 60.0), 40.0, 0.4)
    found = cut_square(picture, square, 32, repeat_border=False)
    for i, j in itertools.product(range(0, 32, 5), range(0, 32, 7)):
        place = square.to_picture(np.array([j / 32, i / 32]))
        np.testing.assert_allclose(found[i, j, :2], place, atol=0.6)
    corner, right, below = (square.to_picture(np.array(p)) for p in ((0, 0), (1, 0), (0, 1)))
    assert math.atan2(*(right - corner)[::-1]) == pytest.approx(0.4)
    assert math.atan2(*(below - corner)[::-1]) == pytest.approx(0.4 + math.pi / 2)


def test_what_lies_outside_is_black_or_the_border_again():
    picture = np.full((20, 30, 3), 200, np.uint8)
    square = Square((0.0, 10.0), 20.0)
    dark, repeated = (cut_square(picture, square, 10, repeat_border=flag) for flag in (False, True))
    assert not dark[:, :5].any() and (dark[:, 5:] == 200).all()
    assert (repeated == 200).all()


@pytest.mark.parametrize("repeat_border", [False, True])
def test_every_pixel_is_the_weighted_mean_of_its_four_neighbours(repeat_border):
    """By the definition, of squares that reach beyond pictures as small as one pixel."""
    random = np.random.default_rng(3)
    for height, width, size in [(1, 1, 5), (1, 7, 70), (6, 1, 9), (5, 4, 65), (40, 30, 66)]:
        picture = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        square = Square(tuple(random.uniform(0, 8, 2)), 20.0, random.uniform(-3, 3))
        padded = np.pad(picture, ((1, 2), (1, 2), (0, 0)), mode="edge" if repeat_border else "constant")
        found = cut_square(picture, square, size, repeat_border=repeat_border)
        for i, j in zip(*random.integers(0, size, (2, 40)), strict=True):
            x, y = np.clip(square.to_picture(np.array([j, i]) / size), -1, (width, height))
            (x, right), (y, lower) = (divmod(round(32 * place), 32) for place in (x, y))
            corners = padded[y + 1 : y + 3, x + 1 : x + 3].astype(int)
            weights = np.outer([32 - lower, lower], [32 - right, right])
            mean = (corners * weights[..., None]).sum((0, 1)) / 1024
            np.testing.assert_allclose(found[i, j], mean, atol=0.5)


def test_shrinking_averages():
    photo = np.zeros((100, 100, 3), np.uint8)
    photo[::2] = 200
    small = shrink(Image.fromarray(photo), (10, 10, 90, 90), 20)
    assert small.shape == (20, 20, 3) and (abs(small[2:-2].astype(int) - 100) < 12).all()
    assert shrink(Image.fromarray(photo), (-10, 0, 20, 30), 50).shape == (30, 30, 3)


@pytest.mark.parametrize("count", range(20))
def test_batches_hold_all(count):
    sizes = batch_sizes(count, (8, 1))
    assert 0 <= sum(sizes) - count <= 2 and len(sizes) <= count // 8 + 5
    assert batch_sizes(count, (1,)) == [1] * count


def test_the_mesh_is_believed_where_it_is_sure_and_says_the_same_again():
    turn = face_points.turn_of
    assert turn(26.0, [-7, 6, -6], same=True) == 0
    assert turn(17.0, [-7, 3, -6], same=True) == 0  # small or blurred, but nowhere better
    assert turn(17.0, [-7, 3, -6], same=False) is None
    assert turn(9.0, [-7, -3, -6], same=True) is None
    assert turn(17.0, [-7, 11, -6], same=True) is None
    assert turn(10.0, [-7, 29, -6], same=True) == math.pi
    assert turn(-4.0, [25, 3, -6], same=False) == math.pi / 2


def test_a_mesh_asks_for_a_square_like_its_detections():
    """Turned with the face, 1.5 times as large, its middle that of the points."""
    random = np.random.default_rng(0)
    level = random.uniform(-1, 1, (478, 2)) * [40, 50]
    level[[0, 1]] = [-40, -50], [40, 50]
    level[face_points.RIGHT_CORNER], level[face_points.LEFT_CORNER] = [-20, 3], [20, 3]
    axes = Square((0, 0), 1, 0.6).axes
    square = face_points.own_square(level @ axes + [200, 100])
    np.testing.assert_allclose([*square.center, square.side, square.angle], [200, 100, 150, 0.6])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((20, 20, 3)),
        np.zeros((20, 20), np.uint8),
        np.zeros((20, 20, 4), np.uint8),
        np.zeros((3, 20, 20), np.uint8),
        np.zeros((1, 20, 20, 3), np.uint8),
        np.zeros((0, 20, 3), np.uint8),
        "photo.jpg",
    ],
)
def test_what_is_no_photo_is_refused(image):
    with pytest.raises(InputError, match=r"photo 1 is .*, but should be uint8 \[H, W, 3\]"):
        detect_faces_in([np.zeros((20, 20, 3), np.uint8), image])


@pytest.mark.parametrize("size", [0, -1, math.nan, math.inf])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(InputError, match="min_size is a number of pixels above 0"):
        detect_faces(np.zeros((20, 20, 3), np.uint8), min_size=size)
