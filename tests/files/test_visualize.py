import numpy as np
import pytest
from PIL import Image

from jaxface.core.errors import InputError
from jaxface.core.parts import FOREHEAD, LABELS
from jaxface.files import visualize


def photo(size=24):
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)


def test_to_picture_clips_and_rounds():
    np.testing.assert_array_equal(visualize.to_picture(np.array([[[-1.0, 0.5, 2.0]]])), [[[0, 128, 255]]])
    picture = photo()
    assert visualize.to_picture(picture) is picture


def test_overlay_blends_inside_the_mask_only():
    image, mask = photo(), np.zeros((24, 24), bool)
    mask[5:9, 3:7] = True
    result = visualize.overlay(image, np.ones((24, 24, 3), np.float32), mask, opacity=0.5)
    np.testing.assert_array_equal(result[~mask], image[~mask])
    np.testing.assert_allclose(result[mask], image[mask] / 2 + 127.5, atol=0.51)
    np.testing.assert_array_equal(visualize.overlay(image, image[::-1], ~mask)[~mask], image[::-1][~mask])


def test_labels_are_tinted_with_a_contour_one_pixel_thin():
    image, labels = np.zeros((24, 24, 3), np.uint8), np.zeros((24, 24), np.uint8)
    labels[2:22, 2:22] = LABELS["skin"]
    labels[8:16, 8:16] = LABELS["nose"]
    result = visualize.draw_labels(image, labels, opacity=0.5)
    nose, skin = (visualize.PART_COLORS[LABELS[part]] for part in ("nose", "skin"))
    for at, color in (((8, 10), nose), ((2, 10), skin), ((21, 21), skin)):
        np.testing.assert_array_equal(result[at], color)
    for at, color in (((9, 10), nose), ((7, 10), skin), ((3, 10), skin)):
        np.testing.assert_allclose(result[at], color / 2, atol=0.51)
    assert not result[labels == 0].any()


def test_every_label_has_its_own_color():
    assert len(np.unique(visualize.PART_COLORS, axis=0)) == FOREHEAD + 1


def test_landmarks_lie_where_they_should():
    image = np.zeros((40, 60, 3), np.uint8)
    points = np.array([[20.0, 10.0], [59.9, 39.9], [np.nan, 5.0], [500.0, 5.0], [-0.5, 30.0]], np.float32)
    result = visualize.draw_landmarks(image, points, color=(255, 0, 0)).astype(float)
    weight = result[:25, :40, 0]
    rows, columns = np.mgrid[:25, :40] + 0.5
    center = [(weight * axis).sum() / weight.sum() for axis in (columns, rows)]
    np.testing.assert_allclose(center, [20.0, 10.0], atol=0.05)
    assert weight.sum() / 255 == pytest.approx(np.pi * 1.5**2, rel=0.2)  # and a little of the rim
    assert result[39, 59].any() and result[30, 0].any()
    assert not result[:5, :].any()


def test_landmarks_are_smooth_at_any_place():
    image = np.zeros((16, 16, 3), np.uint8)
    sums = [visualize.draw_landmarks(image, [[8 + shift, 8]])[..., 0].sum() for shift in np.linspace(0, 1, 7)]
    assert max(sums) < 1.06 * min(sums)


def test_clay_is_brighter_where_the_lamp_is():
    normals = np.zeros((1, 3, 3), np.float32)
    normals[0] = [[-0.4, 0.5, 0.7], [0.4, -0.6, 0.7], [0, 0, 5]]
    lit, dark, front = visualize.clay(normals, np.ones((1, 3), bool))[0].astype(int).sum(-1)
    assert lit > front > dark > 0
    empty = visualize.clay(np.zeros((1, 3, 3), np.float32), np.zeros((1, 3), bool))
    np.testing.assert_array_equal(empty, np.full((1, 3, 3), 255))
    on_photo = visualize.clay(normals, np.zeros((1, 3), bool), background=photo(3)[:1])
    np.testing.assert_array_equal(on_photo, photo(3)[:1])


def test_grid_places_pictures_and_texts():
    image = photo()
    plain = visualize.grid([[image, None], [image[:12], image]])
    gap = 6
    assert plain.shape == (2 * 24 + 3 * gap, 2 * 24 + 3 * gap, 3)
    np.testing.assert_array_equal(plain[gap : gap + 24, gap : gap + 24], image)
    assert (plain[gap : gap + 24, 2 * gap + 24 :] == 255).all()
    half = plain[2 * gap + 24 + 6 : 2 * gap + 24 + 18, gap : gap + 24]
    np.testing.assert_array_equal(half, image[:12])
    told = visualize.grid(
        [[image, image]], titles=("one", "two"), captions=("a caption that is far too long",), cell=60
    )
    assert told.shape[1] == plain.shape[1] + 2 * 36 and told.shape[0] > 60 + 2 * gap
    assert (told[: 2 * gap] < 128).any() and (told[-2 * gap :] < 128).any()
    with pytest.raises(ValueError, match="at least one"):
        visualize.grid([[None]])


def test_preview_sheet_has_five_pictures_a_row():
    n, size = 2, 20
    drawn = {
        "colors": np.zeros((n, size, size, 3)),
        "normals": np.ones((n, size, size, 3)),
        "labels": np.full((n, size, size), LABELS["skin"], np.uint8),
        "landmarks": np.full((n, 68, 2), 10.0),
    }
    images = np.zeros((n, size, size, 3), np.uint8)
    sheet = visualize.preview_sheet(images, drawn, drawn["labels"], captions=("one", "two"), cell=40)
    assert sheet.shape[1] == 5 * 46 + 6 and sheet.dtype == np.uint8


def test_save_png_is_exact_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    path = tmp_path / "new" / "picture.png"
    visualize.save_png(path, photo())
    np.testing.assert_array_equal(np.asarray(Image.open(path)), photo())
    monkeypatch.setattr(Image.Image, "save", lambda self, file, format: file.write_bytes(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        visualize.save_png(path, np.zeros((4, 4, 3), np.uint8))
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(path)), photo())


def test_save_png_tells_what_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        visualize.save_png(tmp_path / "file" / "picture.png", photo())
