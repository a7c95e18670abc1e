"""What is written about a photo can be read back, fits together, and lies where the photo shows the face."""

import dataclasses
import json

import numpy as np
import pytest
import trimesh
from PIL import Image

import jaxface
from jaxface import Camera, Coefficients, decode_face, drawing, outputs, visualize
from jaxface.coefficients import vector_size
from jaxface.data.alignment import Alignment
from jaxface.data.sample import empty_coefficients
from jaxface.face import landmark_points
from jaxface.parts import LABELS, PARTS
from jaxface.render import label_triangles, render_labels
from toy import toy_model


@pytest.fixture(scope="module", autouse=True)
def small_pictures():
    """Tests need no large pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "PICTURE_SIZE", 96)
        patch.setattr(drawing, "TEXTURE_SIZE", 64)
        yield


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def solved(model):
    """A photo that shows the toy face in flat colours, and the coefficients that drew it."""
    vector = 0.1 * np.random.default_rng(0).normal(size=vector_size(model)).astype(np.float32)
    alignment = Alignment(scale=1.6, offset_x=-40.0, offset_y=-64.0, size=224, photo_size=(180, 220))
    coefficients = Coefficients.from_vector(vector, model)
    camera = alignment.photo_camera(Camera())
    face = decode_face(model, coefficients, camera)
    triangle_labels = label_triangles(model.parts, model.triangles)
    labels = np.asarray(
        render_labels(face.points, face.depth, model.triangles, triangle_labels, image_size=camera.image_size)
    )[0]
    photo = np.full((180, 220, 3), 30, np.uint8)
    photo[labels > 0] = (200, 120, 60)
    crop_face = decode_face(model, coefficients, Camera())
    points = np.asarray(landmark_points(model, crop_face.points, coefficients.angles[:, 2]))[0]
    sample = {
        "image": alignment.crop_image(photo),
        "labels": alignment.crop_labels(labels),
        "landmarks": points,
        "landmark_weights": np.ones(68, np.float32),
        **empty_coefficients(len(vector)),
    }
    return photo, drawing.Reconstruction(vector, sample, alignment, "Face 1")


@pytest.fixture(scope="module")
def written(model, solved, tmp_path_factory):
    photo, reconstruction = solved
    folder = tmp_path_factory.mktemp("photo")
    settings = {"method": "test"}
    _, measures = outputs.write_photo(
        folder, model, photo, [reconstruction] * 2, photo_name="x.png", subtitle="two", settings=settings
    )
    return folder, measures


def test_everything_is_there(written):
    folder, _ = written
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    per_face = ["coefficients.json", "crop.png", "mesh.glb", "mesh.mtl", "mesh.obj", "overlay.png", "parts.png"]
    per_face += ["shape.png", "texture.png", "landmarks.png", "mesh.ply", "visible_parts.png"]
    per_face += [f"model_colors.{kind}" for kind in ("obj", "mtl", "png")]
    per_face += [f"whole_parts/{part}.png" for part in PARTS]
    expected = [f"face_{i}/{name}" for i in (0, 1) for name in per_face]
    assert files == sorted([*expected, "index.html", "photo_overlay.png"])


def test_measures_of_the_truth_are_perfect(written):
    _, (measures, _) = written
    assert measures["part_iou"] > 0.85 and set(measures["part_iou_of"]) == set(PARTS)
    assert measures["landmark_error_interocular"] < 0.02


def test_overlay_covers_the_face_in_the_original_photo(written, solved):
    folder, _ = written
    photo, _ = solved
    overlay = np.asarray(Image.open(folder / "photo_overlay.png")).astype(int)
    assert overlay.shape == photo.shape
    face, changed = photo[..., 0] == 200, np.abs(overlay - photo).sum(-1) > 0
    assert (face & changed).sum() / (face | changed).sum() > 0.93


def test_matrices_project_the_written_meshes(written, solved, model):
    folder, _ = written
    record = json.loads((folder / "face_0" / "coefficients.json").read_text())
    assert (record["schema"], record["jaxface"]) == (outputs.SCHEMA, jaxface.__version__)
    _, reconstruction = solved
    coefficients = Coefficients.from_vector(reconstruction.vector, model)
    np.testing.assert_allclose(record["coefficients"]["identity"], coefficients.identity[0], rtol=1e-6)
    crop = np.asarray(decode_face(model, coefficients, Camera()).points)[0]
    expected = {"crop": crop, "photo": reconstruction.alignment.to_photo(crop)}
    for kind, to_units in (("obj", 1 / 100), ("glb", 10.0)):
        mesh = trimesh.load(folder / "face_0" / f"mesh.{kind}", force="mesh", process=False)
        assert mesh.visual.uv is not None and np.isfinite(mesh.vertices).all()
        assert mesh.face_normals[:, 2].mean() > 0.5  # +z is where the face looks
        homogeneous = np.column_stack([mesh.vertices * to_units, np.ones(len(mesh.vertices))])
        for name, points in expected.items():
            projected = homogeneous @ np.array(record["camera"][name]["matrix"]).T
            np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], points, atol=0.05)


def test_landmarks_are_in_photo_pixels(written, solved):
    folder, _ = written
    record = json.loads((folder / "face_1" / "coefficients.json").read_text())
    _, reconstruction = solved
    truth = reconstruction.alignment.to_photo(reconstruction.sample["landmarks"])
    np.testing.assert_allclose(record["landmarks68"]["photo"], truth, atol=0.01)


def test_texture_is_the_photos_colour(written, model):
    folder, _ = written
    texture = np.asarray(Image.open(folder / "face_0" / "texture.png")).astype(int)
    texel = np.clip(np.floor(model.uv[model.parts["nose"]] * [64, -64] + [0, 64]).astype(int), 0, 63)
    assert np.abs(texture[texel[:, 1], texel[:, 0]] - (200, 120, 60)).max() < 12


def test_unknown_measures_become_null(model, solved):
    photo, reconstruction = solved
    sample = reconstruction.sample | {
        "landmark_weights": np.zeros(68, np.float32),
        "labels": np.where(reconstruction.sample["labels"] == LABELS["nose"], 0, reconstruction.sample["labels"]),
    }
    blind = dataclasses.replace(reconstruction, sample=sample)
    measures = outputs.measure(model, blind)
    drawn = drawing.draw_face(model, blind, photo)
    record = outputs.face_record(model, blind, drawn, measures, photo_name="x", settings={})
    assert record["measures"]["part_iou_of"]["nose"] is None
    assert record["measures"]["landmark_error_interocular"] is None
    json.dumps(record, allow_nan=False)


def test_turned_view_shows_the_texture(model, solved):
    photo, reconstruction = solved
    drawn = drawing.draw_face(model, reconstruction, photo)
    textured, clay = drawing.turned_views(model, drawn, yaw=0.5, size=64)
    seen = (textured != 255).any(-1)
    assert 0.15 < seen.mean() < 0.9 and (clay != 255).any(-1).mean() == pytest.approx(seen.mean(), abs=0.02)
    assert np.abs(np.median(textured[seen], axis=0) - (200, 120, 60)).max() < 15


def test_part_colors_follow_the_parts(model):
    colors = outputs.vertex_part_colors(model)
    for part in ("nose", "upper_lip"):
        own = colors[model.parts[part]]
        expected = visualize.PART_COLORS[LABELS[part]]
        assert (own == expected).all(-1).mean() > 0.5
