"""draw_face's texture: as large as the photo deserves, without what lies before the face, and without light."""

import dataclasses

import numpy as np
import pytest

from jaxface import Camera, Coefficients, decode_face
from jaxface.core.coefficients import vector_size
from jaxface.core.face_models import FaceModel
from jaxface.photos.alignment import Alignment
from jaxface.render import Fragments, label_triangles, render_labels
from jaxface.results import drawing
from jaxface.results.drawing import Reconstruction
from jaxface.texture import from_photo
from toys.models import toy_model

SKIN = (200, 120, 60)

SMALL = drawing.DrawingOptions(picture_size=96, largest_texture=64)


def solved(model: FaceModel, *, photo_size: int = 224) -> tuple[np.ndarray, Reconstruction]:
    """A photo of the toy face in one colour, solved."""
    vector = np.zeros(vector_size(model), np.float32)
    alignment = Alignment(224 / photo_size, 0.0, 0.0, size=224, photo_size=(photo_size, photo_size))
    camera = Camera()
    face = decode_face(model, Coefficients.from_vector(vector[None], model), camera)
    triangle_labels = label_triangles(model.parts, model.triangles)
    labels = render_labels(face.points, face.depth, model.triangles, triangle_labels, image_size=224)
    sample = {"labels": np.array(labels)[0]}
    photo = np.full((photo_size, photo_size, 3), SKIN, np.uint8)
    return photo, Reconstruction(vector, sample, alignment, "Face 1")


@pytest.mark.slow
def test_hand_before_the_face_is_not_skin():
    model = toy_model()
    photo, reconstruction = solved(model)
    labels = reconstruction.sample["labels"]
    hand = (slice(100, 130), slice(125, 160))
    photo[hand] = (20, 60, 240)
    kept = drawing.draw_face(model, reconstruction, photo, options=SMALL).texture.astype(int)
    assert (kept[..., 2] > 180).any()  # the label map calls it face: so it is
    labels[hand] = 0
    texture = drawing.draw_face(model, reconstruction, photo, options=SMALL).texture.astype(int)
    assert texture[..., 2].max() < 110 and texture[..., 0].min() > 130
    # What the label map leaves out though it looks like the fit stays: here, all of it.
    photo[hand] = SKIN
    same = drawing.draw_face(model, reconstruction, photo, options=SMALL).texture.astype(int)
    assert np.abs(same[20:44, 20:44] - SKIN).max() < 12


@pytest.mark.slow
def test_hat_stays():
    model = toy_model()
    photo, reconstruction = solved(model)
    top = np.nonzero(reconstruction.sample["labels"].any(1))[0][0]
    reconstruction.sample["labels"][: top + 40] = 0
    photo[: top + 30] = (10, 10, 10)
    texture = drawing.draw_face(model, reconstruction, photo, options=SMALL).texture.astype(int)
    assert texture[2:8, 28:36].max() < 60 and np.abs(texture[32, 32] - SKIN).max() < 12


def test_beyond_the_photos_border_there_is_no_black():
    model = toy_model()
    photo, reconstruction = solved(model)
    cut = 80
    photo = photo[cut:]
    alignment = dataclasses.replace(reconstruction.alignment, offset_y=float(cut), photo_size=photo.shape[:2])
    reconstruction.sample["labels"][:cut] = 0
    cut_off = dataclasses.replace(reconstruction, alignment=alignment)
    texture = drawing.draw_face(model, cut_off, photo, options=SMALL).texture
    assert texture[..., 0].min() > 110


@pytest.mark.slow
@pytest.mark.parametrize(("photo_size", "expected"), [(30, 64), (150, 128), (600, 512)])
def test_texture_grows_with_the_face(photo_size, expected, monkeypatch):
    monkeypatch.setattr(from_photo, "SMALLEST_SIZE", 64)
    model = toy_model()
    photo, reconstruction = solved(model, photo_size=photo_size)
    drawn = drawing.draw_face(model, reconstruction, photo, options=dataclasses.replace(SMALL, largest_texture=512))
    assert drawn.texture.shape == (expected, expected, 3)
    assert np.abs(drawn.texture[expected // 2, expected // 2].astype(int) - SKIN).max() < 3


def test_texture_of_a_bright_photo_can_be_delighted():
    model = toy_model()
    photo, reconstruction = solved(model)
    light = np.zeros((3, 9), np.float32)
    light[:, 3] = 0.3
    coefficients = Coefficients.from_vector(reconstruction.vector[None], model).replace(light=light[None])
    vector = np.asarray(coefficients.to_vector())[0]
    reconstruction = Reconstruction(vector, reconstruction.sample, reconstruction.alignment, "Face 1")
    lit = drawing.draw_face(model, reconstruction, photo, options=SMALL).texture.astype(float)
    albedo = drawing.draw_face(
        model, reconstruction, photo, options=dataclasses.replace(SMALL, delight=True)
    ).texture.astype(float)
    assert np.abs(lit[20:44, 20:44] - SKIN).max() < 4
    row = albedo[32, 16:48, 0]
    # The light comes from the left, the photo shows none: a half that is darker than the other is no skin all the same.
    assert abs(row[-1] - row[0]) < 16
    lit_by = np.median(lit[20:44, 20:44], axis=(0, 1)) / np.median(albedo[20:44, 20:44], axis=(0, 1))
    assert np.ptp(lit_by) < 0.2  # white light


def test_powers_of_two():
    sides = {0.0: 512, 100.0: 512, 639.0: 512, 641.0: 1024, 2000.0: 2048, 9000.0: 2048}
    assert {side: from_photo._power_of_two(side, smallest=512, largest=2048) for side in sides} == sides


def test_mouth_takes_the_pictures_colours():
    """A square of two triangles inside the mouth, one of them seen: its colour fades into the other's own, black."""
    model = toy_model()
    inner = np.zeros(81, bool)
    corners = np.unique(np.asarray(model.triangles)[[0, 64]])
    inner[corners] = True
    triangle = np.full((1, 8, 8), -1)
    triangle[0, 2:5, 2:5] = 0
    fragments = Fragments(triangle, np.full((1, 8, 8, 3), 1 / 3, np.float32), np.zeros((1, 8, 8), np.float32))
    colors, picture, seen = np.zeros((81, 3)), np.full((8, 8, 3), 0.6), np.ones((8, 8), np.float32)
    filled = from_photo._mouth_colors(model, inner, colors, fragments, picture, seen)
    first, second = np.asarray(model.triangles)[[0, 64]]
    np.testing.assert_allclose(filled[first], 0.6, atol=1e-6)
    # The one hidden corner is tied to two seen ones by an edge each, and to its own colour.
    (hidden,) = set(second.tolist()) - set(first.tolist())
    np.testing.assert_allclose(filled[hidden], 0.6 * 2 / (2 + from_photo.INSIDE_STIFFNESS), atol=1e-6)
    assert (filled[~inner] == 0).all()
    unseen = from_photo._mouth_colors(model, inner, colors, fragments, picture, 0 * seen)
    assert (unseen == 0).all()
