"""Depth, normals and parts lie in the photo's own pixels, where the face model's mesh is."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from jaxface import Camera, Coefficients, decode_face
from jaxface.core.coefficients import vector_size
from jaxface.core.parts import LABELS, PARTS
from jaxface.files import visualize
from jaxface.photos.alignment import Alignment
from jaxface.photos.samples import empty_coefficients
from jaxface.render import interpolate, rasterize
from jaxface.results import drawing, photo_maps
from jaxface.results.drawing import DrawingOptions
from toys.models import toy_model

SIZE = 96
PHOTO = (180, 220)


@pytest.fixture(scope="module")
def drawn():
    """The toy face, drawn at 96 pixels for a photo that shows it a little larger."""
    model = toy_model()
    vector = 0.1 * np.random.default_rng(0).normal(size=vector_size(model)).astype(np.float32)
    alignment = Alignment(scale=1.6, offset_x=-40.0, offset_y=-64.0, size=224, photo_size=PHOTO)
    sample = {
        "image": np.full((224, 224, 3), 99, np.uint8),
        "labels": np.ones((224, 224), np.uint8),
        "landmarks": np.zeros((68, 2), np.float32),
        "landmark_weights": np.ones(68, np.float32),
        **empty_coefficients(len(vector)),
    }
    one = drawing.Reconstruction(vector, sample, alignment, "Face 1")
    face = drawing.draw_face(
        model, one, np.full((*PHOTO, 3), 99, np.uint8), options=DrawingOptions(picture_size=SIZE, largest_texture=64)
    )
    return model, face, alignment.photo_camera(Camera())


@pytest.fixture(scope="module")
def maps(drawn):
    return photo_maps.photo_maps(*drawn[:2])


@pytest.fixture(scope="module")
def truth(drawn):
    """Depth in millimetres and normals, rendered with the photo's camera at the photo's size."""
    model, face, camera = drawn
    decoded = decode_face(model, Coefficients(**vars(face.coefficients)), camera)
    fragments = rasterize(decoded.points, decoded.depth, model.triangles, image_size=PHOTO)
    normals = np.asarray(interpolate(fragments, model.triangles, decoded.normals))[0]
    return 100 * np.asarray(fragments.depth)[0], normals


@pytest.mark.slow
def test_depth_is_that_of_the_photos_camera(maps, truth):
    depth, _ = truth
    assert maps.depth.dtype == np.uint16 and maps.depth.shape == PHOTO
    both = (maps.depth > 0) & (depth > 0)
    assert both.sum() / ((maps.depth > 0) | (depth > 0)).sum() > 0.95
    assert 850 < maps.depth[both].min() < maps.depth[both].max() < 1050  # the camera stands a metre away
    error = np.abs(maps.depth[both] - depth[both])
    assert np.median(error) < 0.6 and np.quantile(error, 0.98) < 3


@pytest.mark.slow
def test_normals_are_those_of_the_mesh(maps, truth):
    depth, normals = truth
    both = maps.normals.any(-1) & (depth > 0)
    found = maps.normals[both] / 127.5 - 1
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=0.02)
    unit = normals[both] / np.linalg.norm(normals[both], axis=1, keepdims=True)
    cosines = (found * unit).sum(1)
    assert np.median(cosines) > 0.999 and np.quantile(cosines, 0.02) > 0.97
    columns = np.nonzero(both)[1]
    assert np.corrcoef(columns, found[:, 0])[0, 1] > 0.5  # a dome's right side looks to the right: red
    assert np.corrcoef(np.nonzero(both)[0], found[:, 1])[0, 1] < -0.5 and found[:, 2].mean() > 0.5
    np.testing.assert_array_equal(maps.normals.any(-1), maps.depth > 0)


def _resampled(alignment, picture):
    """Linear between the picture's pixel centres, at the photo's; by the definition, one pixel after the other."""
    height, width = alignment.photo_size
    result = np.zeros((height, width))
    padded = np.pad(picture, 1, mode="edge")
    for row in range(height):
        for column in range(width):
            x, y = alignment.to_crop(np.array([column + 0.5, row + 0.5]))
            if 0 <= x < picture.shape[1] and 0 <= y < picture.shape[0]:
                left, top = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
                a, b = x + 0.5 - left, y + 0.5 - top
                near = padded[top : top + 2, left : left + 2]
                result[row, column] = [1 - b, b] @ near @ [1 - a, a]
    return result


@pytest.mark.parametrize("offset", [0.3, -7.7, 6.2])
def test_labels_in_the_photo_are_the_strongest(offset):
    random = np.random.default_rng(0)
    blocks = random.choice([0, 1, 5, 8], (6, 6), p=[0.4, 0.2, 0.2, 0.2]).astype(np.uint8)
    labels = np.kron(blocks, np.ones((3, 3), np.uint8))
    alignment = Alignment(scale=0.6, offset_x=offset, offset_y=1.1, size=18, photo_size=(30, 34))
    found = photo_maps._labels_in_photo(alignment, labels)
    masks = np.stack([_resampled(alignment, (labels == label).astype(float)) for label in range(9)])
    strength = np.where(1 - masks[0] >= 0.5, masks[1:].max(0), 0) * (_resampled(alignment, np.ones((18, 18))) > 0)
    expected = np.where(strength > 0, masks[1:].argmax(0) + 1, 0)
    ranked = np.sort(masks[1:], axis=0)
    clear = (ranked[-1] - ranked[-2] > 0.02) & (np.abs(masks[0] - 0.5) > 0.02) | (ranked[-1] == 0)
    np.testing.assert_array_equal(found[clear], expected[clear])
    assert clear.mean() > 0.7 and set(np.unique(found)) <= {0, 1, 5, 8}


def test_depth_knows_no_surface_between_near_and_far():
    depth = np.full((20, 20), 9.0, np.float32)
    depth[:, 10:] = 9.5
    depth[:3] = 0
    alignment = Alignment(scale=0.3, offset_x=0.0, offset_y=0.0, size=20, photo_size=(66, 66))
    found = photo_maps._depth_in_photo(alignment, depth)
    assert set(np.unique(found)) == {0, 900, 950}
    assert (found[:9] == 0).all() and (found[11:, :32] == 900).all() and (found[11:, 35:] == 950).all()


def test_a_smooth_slope_stays_smooth():
    depth = np.broadcast_to(np.linspace(9, 9.3, 30, dtype=np.float32), (30, 30))
    alignment = Alignment(scale=0.25, offset_x=0.0, offset_y=0.0, size=30, photo_size=(120, 120))
    found = photo_maps._depth_in_photo(alignment, depth)[60].astype(int)
    assert found[0] == 900 and found[-1] == 930 and (np.diff(found) >= 0).all() and np.diff(found).max() == 1


@pytest.mark.slow
def test_a_face_outside_the_photo_leaves_empty_maps(drawn):
    model, face, _ = drawn
    away = dataclasses.replace(face, alignment=dataclasses.replace(face.alignment, offset_x=5000.0))
    maps = photo_maps.photo_maps(model, away)
    for array in (maps.depth, maps.normals, maps.visible_parts, *maps.whole_parts.values()):
        assert array.shape[:2] == PHOTO and not array.any()
    assert maps.whole_parts.keys() == set(PARTS)


@pytest.mark.slow
def test_whole_parts_cover_the_visible_ones(maps):
    for part, whole in maps.whole_parts.items():
        visible = maps.visible_parts == LABELS[part]
        assert visible.any() and (visible & ~whole).sum() <= 0.1 * visible.sum() + 2


def test_depth_picture_is_bright_where_near():
    depth = np.zeros((8, 8))
    depth[2:6] = np.linspace(9, 9.5, 8)
    picture = photo_maps.depth_picture(np.full((8, 8, 3), 7, np.uint8), depth)
    assert (picture[:2] == 7).all() and (np.diff(picture[3].astype(int).sum(-1)) < 0).all()
    nothing = np.zeros((8, 8))
    np.testing.assert_array_equal(photo_maps.depth_picture(picture, nothing), picture)


@pytest.mark.slow
def test_files_hold_the_maps(tmp_path, maps):
    photo_maps.write_photo_maps(tmp_path, maps)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "depth.png")), maps.depth)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "normals.png")), maps.normals)
    parts = Image.open(tmp_path / "visible_parts.png")
    np.testing.assert_array_equal(np.asarray(parts), maps.visible_parts)
    colors = visualize.PART_COLORS[maps.visible_parts]
    np.testing.assert_array_equal(np.asarray(parts.convert("RGB")), colors)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "whole_parts/skin.png")), maps.whole_parts["skin"])
