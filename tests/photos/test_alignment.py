"""Deep3D's alignment against its definition, and the maps between crop and photo."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxface.core.cameras import Camera, project
from jaxface.core.errors import InputError
from jaxface.photos.alignment import Alignment, align_face, fit_alignment, five_points, scaled_alignment
from toys.face_points import TEMPLATE, toy_face_model


def landmarks_of(points, seed=0):
    """68 landmarks whose five points are `points`."""
    landmarks = np.random.default_rng(seed).uniform(0, 100, (68, 2))
    for point, indices in zip(points, ([36, 39], [42, 45], [30], [48], [54]), strict=True):
        landmarks[indices] = point + (np.array([[-3, 1], [3, -1]]) if len(indices) == 2 else 0)
    return landmarks


def deep3d(points, template, height):
    """Scale and centre as published: an affine camera by the normal equations; y up."""
    image_points = np.stack([points[:, 0], height - points[:, 1]], -1)
    system = np.zeros((10, 8))
    system[0::2, 0:3], system[0::2, 3] = template, 1
    system[1::2, 4:7], system[1::2, 7] = template, 1
    solution = np.linalg.solve(system.T @ system, system.T @ image_points.reshape(-1))
    scale = (np.linalg.norm(solution[0:3]) + np.linalg.norm(solution[4:7])) / 2
    return scale, np.array([solution[3], height - solution[7]])


def test_five_points():
    np.testing.assert_allclose(five_points(landmarks_of(TEMPLATE[:, :2] * 50)), TEMPLATE[:, :2] * 50, atol=1e-12)


@pytest.mark.parametrize("size", [224, 448, 100])
def test_fit_agrees_with_the_published_recipe(size):
    points = TEMPLATE[:, :2] * [70, -70] + [300, 200] + np.random.default_rng(1).normal(0, 3, (5, 2))
    alignment = fit_alignment(landmarks_of(points), TEMPLATE, photo_size=(480, 640), size=size)
    scale, center = deep3d(points, TEMPLATE, 480)
    assert alignment.scale == pytest.approx(102 * size / 224 / scale, rel=1e-9)
    np.testing.assert_allclose(alignment.to_crop(center), [size / 2, size / 2], atol=1e-6)


def test_a_scaled_template_lands_where_the_camera_sees_it():
    """A face seen orthographically takes 102 pixels per unit around the crop's centre, y up in the model."""
    points = TEMPLATE[:, :2] * [70, -70] + [300, 200]
    alignment = fit_alignment(landmarks_of(points), TEMPLATE, photo_size=(480, 640))
    np.testing.assert_allclose(alignment.to_crop(points), TEMPLATE[:, :2] * [102, -102] + 112, atol=1e-6)


OFFSETS = st.floats(-3000, 3000)
ALIGNMENTS = st.builds(
    Alignment, st.floats(0.02, 50), OFFSETS, OFFSETS, st.integers(8, 600), st.tuples(*[st.integers(1, 9000)] * 2)
)


@settings(deadline=None)
@given(ALIGNMENTS, st.integers(0, 9))
def test_points_there_and_back(alignment, seed):
    points = np.random.default_rng(seed).uniform(-50, 700, (4, 6, 2))
    np.testing.assert_allclose(alignment.to_photo(alignment.to_crop(points)), points, atol=1e-6)
    np.testing.assert_allclose(alignment.to_crop(alignment.to_photo(points)), points, atol=1e-6)
    assert Alignment.from_dict(json.loads(json.dumps(alignment.to_dict()))) == alignment


@settings(deadline=None)
@given(ALIGNMENTS, st.integers(8, 600), st.integers(8, 600))
def test_sizes_of_a_crop_follow_one_another(alignment, first, second):
    """A crop of another size shows the same square of the photo, whatever size was in between."""
    direct = scaled_alignment(alignment, second)
    for one in (direct, scaled_alignment(scaled_alignment(alignment, first), second)):
        assert (one.size, one.photo_size) == (second, alignment.photo_size)
        np.testing.assert_allclose([one.scale, one.offset_x], [direct.scale, direct.offset_x], rtol=1e-9, atol=1e-9)
        for corner in ([0, 0], [0, 1], [1, 1]):
            place, expected = (map_.to_photo(np.array(corner) * map_.size) for map_ in (one, alignment))
            np.testing.assert_allclose(place, expected, rtol=1e-9, atol=1e-6)


def test_the_photo_camera_draws_what_the_crop_camera_draws():
    alignment = Alignment(0.6, -40.0, 12.5, 100, (480, 640))
    points = np.random.default_rng(0).uniform(-1, 1, (10, 3)).astype(np.float32) + np.array([0, 0, 10], np.float32)
    camera = alignment.photo_camera(Camera())
    assert camera.image_size == (480, 640)
    in_crop = np.asarray(project(points, Camera().resized(100)))
    np.testing.assert_allclose(alignment.to_crop(np.asarray(project(points, camera))), in_crop, atol=1e-3)


def test_an_exact_crop_is_cut_without_change():
    photo = np.random.default_rng(0).integers(0, 255, (80, 90, 3), np.uint8)
    labels = photo[..., 0] % 10
    inside = Alignment(1.0, -10.0, -20.0, 40, (80, 90))
    np.testing.assert_array_equal(inside.crop_image(photo), photo[20:60, 10:50])
    np.testing.assert_array_equal(inside.crop_labels(labels), labels[20:60, 10:50])
    beyond = Alignment(1.0, 15.0, -60.0, 40, (80, 90))
    expected = np.zeros((40, 40, 3), np.uint8)
    expected[:20, 15:] = photo[60:, :25]
    np.testing.assert_array_equal(beyond.crop_image(photo), expected)
    np.testing.assert_array_equal(beyond.crop_labels(labels), np.where(expected[..., 0] > 0, expected[..., 0] % 10, 0))


@pytest.mark.parametrize("scale", [0.21, 0.5, 1.37, 3.0])
def test_what_is_at_a_photo_point_is_at_its_crop_point(scale):
    """A smooth blob stays where the point map says, at fractional scales and offsets."""
    center, width = np.array([141.3, 97.8]), 12 / scale
    x, y = np.meshgrid(np.arange(300) + 0.5, np.arange(260) + 0.5)
    blob = 255 * np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * width**2))
    photo = np.repeat(blob[..., None], 3, -1).round().astype(np.uint8)
    alignment = Alignment(scale, 50.7 - scale * center[0], 60.2 - scale * center[1], 112, (260, 300))
    crop = alignment.crop_image(photo)[..., 0].astype(float)
    x, y = np.meshgrid(np.arange(112) + 0.5, np.arange(112) + 0.5)
    found = np.array([(crop * x).sum(), (crop * y).sum()]) / crop.sum()
    if scale > 0.3:  # else the blob reaches beyond the photo
        np.testing.assert_allclose(found, [50.7, 60.2], atol=0.05)
    assert np.abs(np.unravel_index(crop.argmax(), crop.shape) - np.array([59.7, 50.2])).max() < 1.6


def test_shrinking_is_antialiased():
    checkers = np.indices((400, 400)).sum(0)[..., None].repeat(3, -1) % 2 * np.uint8(255)
    crop = Alignment(0.1, 0.0, 0.0, 40, (400, 400)).crop_image(checkers.astype(np.uint8))
    assert np.abs(crop[2:-2, 2:-2].astype(int) - 127).max() < 10


def test_align_face():
    photo = np.random.default_rng(0).integers(0, 255, (200, 260, 3), np.uint8)
    landmarks = landmarks_of(TEMPLATE[:, :2] * [51, -51] + [130, 100])
    crop, alignment = align_face(photo, landmarks, toy_face_model(), size=112)
    assert crop.shape == (112, 112, 3) and crop.dtype == np.uint8
    np.testing.assert_array_equal(crop, photo[44:156, 74:186])
    assert alignment.photo_size == (200, 260)
    Image.fromarray(crop)


@pytest.mark.parametrize(("landmarks", "message"), [(np.full((68, 2), 5.0), "one point"), (np.nan, "not finite")])
def test_degenerate_landmarks(landmarks, message):
    with pytest.raises(InputError, match=message):
        fit_alignment(np.broadcast_to(landmarks, (68, 2)), TEMPLATE, photo_size=(10, 10))


def test_not_an_alignment():
    with pytest.raises(InputError, match="not an alignment"):
        Alignment.from_dict({"scale": 1})


@pytest.mark.parametrize("offset", [(-20.0, -30.0), (5.0, 70.0), (-300.0, 10.0), (400.0, 400.0)])
def test_a_crop_copies_its_surroundings_alone_and_is_that_of_the_whole_photo(offset, monkeypatch):
    photo = np.random.default_rng(0).integers(0, 255, (90, 130, 3)).astype(np.uint8)
    alignment = Alignment(1.7, *offset, 32, (90, 130))
    framed = np.zeros((90 + 1000, 130 + 1000, 3), np.uint8)  # the same place where no crop reaches the border
    framed[500:590, 500:630] = photo
    whole = Alignment(1.7, *(x - 1.7 * 500 for x in offset), 32, framed.shape[:2]).crop_image(framed)
    copied, fromarray = [], Image.fromarray
    monkeypatch.setattr(Image, "fromarray", lambda pixels: copied.append(pixels.shape[:2]) or fromarray(pixels))
    np.testing.assert_array_equal(alignment.crop_image(photo), whole)
    assert max(copied[0]) < 40  # 32 / 1.7 pixels, and what the filter reaches
