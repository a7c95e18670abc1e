"""What is written about a photo can be read back, fits together, and lies where the photo shows the face."""

import copy
import dataclasses
import json
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

import jaxface
from jaxface import Camera, Coefficients, decode_face
from jaxface.core.coefficients import vector_size
from jaxface.core.face_models import vertex_normals
from jaxface.core.faces import landmark_points
from jaxface.core.parts import LABELS, PARTS
from jaxface.files import meshes, visualize
from jaxface.models import load_face_model
from jaxface.photos.alignment import Alignment
from jaxface.photos.samples import empty_coefficients
from jaxface.render import label_triangles, render_labels
from jaxface.results import drawing, photo_files
from jaxface.results.blendshapes import expression_blendshapes
from toys.glb_reader import posed, read_face
from toys.json_schema import problems
from toys.models import toy_model

SMALL = drawing.DrawingOptions(picture_size=96, largest_texture=64)
DOCUMENT = Path(__file__).parents[2] / "docs" / "results.md"


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module", autouse=True)
def label_maps_alone():
    """A toy in flat colours is no face to the parser: label maps tell what is skin."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "class_shares", lambda *_: None)
        yield


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
    _, measures = photo_files.write_photo(
        folder, model, photo, [reconstruction] * 2, photo_name="x.png", subtitle="two", settings=settings, drawing=SMALL
    )
    return folder, measures


@pytest.mark.slow
def test_everything_is_there(written):
    folder, _ = written
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    per_face = ["coefficients.json", "crop.png", "mesh.glb", "mesh.mtl", "mesh.obj", "overlay.png", "parts.png"]
    per_face += [
        "shape.png",
        "texture.png",
        "landmarks.png",
        "mesh.ply",
        "visible_parts.png",
        "depth.png",
        "normals.png",
    ]
    per_face += [f"model_colors.{kind}" for kind in ("obj", "mtl", "png")]
    per_face += [f"whole_parts/{part}.png" for part in PARTS]
    expected = [f"face_{i}/{name}" for i in (0, 1) for name in per_face]
    assert files == sorted([*expected, "index.html", "photo_overlay.png"])


@pytest.mark.slow
def test_measures_of_the_truth_are_perfect(written):
    _, (measures, _) = written
    assert measures["part_iou"] > 0.85 and set(measures["part_iou_of"]) == set(PARTS)
    assert measures["landmark_error_interocular"] < 0.02


@pytest.mark.slow
def test_overlay_covers_the_face_in_the_original_photo(written, solved):
    folder, _ = written
    photo, _ = solved
    overlay = np.asarray(Image.open(folder / "photo_overlay.png")).astype(int)
    assert overlay.shape == photo.shape
    face, changed = photo[..., 0] == 200, np.abs(overlay - photo).sum(-1) > 0
    assert (face & changed).sum() / (face | changed).sum() > 0.93


@pytest.mark.slow
def test_matrices_project_the_written_meshes(written, solved, model):
    folder, _ = written
    record = json.loads((folder / "face_0" / "coefficients.json").read_text())
    assert (record["schema"], record["jaxface"]) == (photo_files.SCHEMA, jaxface.__version__)
    _, reconstruction = solved
    coefficients = Coefficients.from_vector(reconstruction.vector, model)
    np.testing.assert_allclose(record["coefficients"]["identity"], coefficients.identity[0], rtol=1e-6)
    crop = np.asarray(decode_face(model, coefficients, Camera()).points)[0]
    expected = {"crop": crop, "photo": reconstruction.alignment.to_photo(crop)}
    shown = {
        "obj": trimesh.load(folder / "face_0" / "mesh.obj", force="mesh", process=False).vertices / 100,
        "glb": posed(read_face(folder / "face_0" / "mesh.glb")) * 10,
    }
    for vertices in shown.values():
        homogeneous = np.column_stack([vertices, np.ones(len(vertices))])
        for name, points in expected.items():
            projected = homogeneous @ np.array(record["camera"][name]["matrix"]).T
            np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], points, atol=0.05)


@pytest.mark.slow
def test_blendshapes_are_the_models_expressions(written, solved, model):
    folder, _ = written
    face = read_face(folder / "face_0" / "mesh.glb")
    _, reconstruction = solved
    coefficients = Coefficients.from_vector(reconstruction.vector, model)
    np.testing.assert_allclose(face["weights"], coefficients.expression[0], rtol=1e-6)
    for expression in np.eye(2):
        other = coefficients.replace(expression=np.float32(expression)[None])
        shape = np.asarray(decode_face(model, other, Camera()).shape)[0]
        np.testing.assert_allclose(posed(face, expression), shape / 10, atol=1e-6)
    record = json.loads((folder / "face_0" / "coefficients.json").read_text())
    assert record["expression_names"] == face["names"] == ["expression_0", "expression_1"]


def test_names_and_bounds_of_expressions_are_the_models(model):
    named = dataclasses.replace(model, expression_names=("smile", "frown"), expression_bounds=(0.0, 1.0))
    shapes = expression_blendshapes(named)
    assert shapes.names == ("smile", "frown") and shapes.limits == (0, 1)
    assert expression_blendshapes(model).limits == (-3, 3)


@pytest.fixture(scope="module")
def face_schema():
    return json.loads(resources.files("jaxface.results").joinpath("assets/face.schema.json").read_text())


@pytest.mark.slow
def test_records_follow_the_schema(written, face_schema):
    folder, _ = written
    record = json.loads((folder / "face_0" / "coefficients.json").read_text())
    assert problems(record, face_schema) == []
    for path, value in {
        ("schema",): "jaxface face 9",
        ("photo", "height"): "180",
        ("coefficients", "angles"): [0, 0],
        ("camera", "photo", "matrix"): [[1, 2, 3, 4]] * 2,
        ("landmarks", "68"): [],
        ("measures", "part_iou"): 1.5,
        ("camera", "crop", "center"): None,
    }.items():
        wrong = copy.deepcopy(record)
        inner = wrong
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        assert problems(wrong, face_schema), path
        del inner[path[-1]]
        assert problems(wrong, face_schema) or path == ("landmarks", "68"), path


def test_every_field_of_the_schema_is_documented(face_schema):
    text = DOCUMENT.read_text()
    for name, field in face_schema["properties"].items():
        assert f"`{name}" in text
        for inner in field.get("properties", {}):
            assert re.search(rf"`{name}\.{inner}|`\.{inner}|, `\.{inner}", text), f"{name}.{inner}"


@pytest.mark.slow
def test_the_recipes_of_the_document_work(written, solved, model, monkeypatch):
    folder, _ = written
    monkeypatch.chdir(folder)
    for recipe in re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S):
        names: dict = {}
        exec(recipe, names)
    photo, reconstruction = solved
    camera = reconstruction.alignment.photo_camera(Camera())
    face = decode_face(model, Coefficients.from_vector(reconstruction.vector, model), camera)
    np.testing.assert_allclose(names["points"], face.points[0], atol=0.05)
    np.testing.assert_allclose(names["millimetres"], 100 * face.depth[0], atol=0.05)
    inner = model.parts["nose"]
    columns, rows = np.floor(names["points"][inner]).astype(int).T
    assert names["depth"].shape == photo.shape[:2]
    assert np.abs(names["depth"][rows, columns] - names["millimetres"][inner]).max() < 3


@pytest.fixture(scope="module")
def expressive_anny(tmp_path_factory):
    """The built-in model with an expression, as OBJ and GLB."""
    model, folder = load_face_model("anny"), tmp_path_factory.mktemp("anny")
    shapes = expression_blendshapes(model)
    weights = np.zeros(len(shapes.names), np.float32)
    weights[[shapes.names.index("jawOpen"), shapes.names.index("mouthSmileLeft")]] = 0.6, 0.8
    vertices, triangles = model.mean_shape + shapes.deltas @ weights, model.triangles
    texture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    meshes.write_obj(folder / "mesh.obj", vertices, triangles, uv=model.uv, texture=texture)
    normals = np.asarray(vertex_normals(vertices, triangles))
    options = {"targets": shapes.deltas, "target_names": shapes.names, "weights": weights}
    meshes.write_glb(folder / "mesh.glb", vertices, triangles, normals=normals, uv=model.uv, texture=texture, **options)
    return model, folder, vertices


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["obj", "glb"])
def test_trimesh_opens_the_meshes_upright(expressive_anny, kind):
    model, folder, _ = expressive_anny
    mesh = trimesh.load(folder / f"mesh.{kind}", force="mesh", process=False)
    assert len(mesh.vertices) == len(model.mean_shape) and np.isfinite(mesh.vertices).all()
    image = mesh.visual.material.image if kind == "obj" else mesh.visual.material.baseColorTexture
    assert image.size == (64, 64)
    np.testing.assert_allclose(mesh.visual.uv, model.uv, atol=1e-5)
    metre = 1000 if kind == "obj" else 1
    assert 0.1 < np.ptp(mesh.vertices[:, 0]) / metre < 0.2  # the width of a head
    chin, brow, nose, left, right = mesh.vertices[model.landmarks["68"][[8, 24, 30, 45, 36]]]
    assert brow[1] > nose[1] > chin[1]  # +y is up
    assert nose[2] > max(left[2], right[2]) and left[0] > right[0]  # faces +z, not mirrored
    assert mesh.face_normals[:, 2].mean() > 0.3
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_winding_consistent


@pytest.mark.slow
def test_annys_glb_is_small_and_neutral_at_zero(expressive_anny):
    model, folder, vertices = expressive_anny
    face = read_face(folder / "mesh.glb")
    assert (folder / "mesh.glb").stat().st_size < 4e6
    np.testing.assert_allclose(posed(face), vertices / 10, atol=1e-7)
    np.testing.assert_allclose(posed(face, np.zeros(len(face["names"]))), model.mean_shape / 10, atol=1e-7)
    assert {"jawOpen", "eyeBlinkLeft", "mouthPucker"} <= set(face["names"])


@pytest.mark.slow
def test_landmarks_are_in_photo_pixels(written, solved):
    folder, _ = written
    record = json.loads((folder / "face_1" / "coefficients.json").read_text())
    _, reconstruction = solved
    truth = reconstruction.alignment.to_photo(reconstruction.sample["landmarks"])
    np.testing.assert_allclose(record["landmarks68"]["photo"], truth, atol=0.01)


@pytest.mark.slow
def test_texture_is_the_photos_colour(written, model):
    folder, _ = written
    texture = np.asarray(Image.open(folder / "face_0" / "texture.png")).astype(int)
    size = len(texture)
    texel = np.clip(np.floor(model.uv[model.parts["nose"]] * [size, -size] + [0, size]).astype(int), 0, size - 1)
    assert np.abs(texture[texel[:, 1], texel[:, 0]] - (200, 120, 60)).max() < 12


@pytest.mark.slow
def test_eyes_in_one_place_leave_the_relative_error_unknown(model, solved):
    sample = solved[1].sample | {"landmarks": np.full((68, 2), 50, np.float32)}
    assert np.isnan(
        photo_files.measure(model, dataclasses.replace(solved[1], sample=sample))["landmark_error_interocular"]
    )


@pytest.mark.slow
def test_unknown_measures_become_null(model, solved):
    photo, reconstruction = solved
    sample = reconstruction.sample | {
        "landmark_weights": np.zeros(68, np.float32),
        "labels": np.where(reconstruction.sample["labels"] == LABELS["nose"], 0, reconstruction.sample["labels"]),
    }
    blind = dataclasses.replace(reconstruction, sample=sample)
    measures = photo_files.measure(model, blind)
    drawn = drawing.draw_face(model, blind, photo, options=SMALL)
    record = photo_files.face_record(model, blind, drawn, measures, photo_name="x", settings={})
    assert record["measures"]["part_iou_of"]["nose"] is None
    assert record["measures"]["landmark_error_interocular"] is None
    json.dumps(record, allow_nan=False)


@pytest.mark.slow
def test_turned_view_shows_the_texture(model, solved):
    photo, reconstruction = solved
    drawn = drawing.draw_face(model, reconstruction, photo, options=SMALL)
    textured, clay = drawing.turned_views(model, drawn, yaw=0.5, size=64)
    seen = (textured != 255).any(-1)
    assert 0.15 < seen.mean() < 0.9 and (clay != 255).any(-1).mean() == pytest.approx(seen.mean(), abs=0.02)
    assert np.abs(np.median(textured[seen], axis=0) - (200, 120, 60)).max() < 15


def test_part_colors_follow_the_parts(model):
    colors = photo_files.vertex_part_colors(model)
    for part in ("nose", "upper_lip"):
        own = colors[model.parts[part]]
        expected = visualize.PART_COLORS[LABELS[part]]
        assert (own == expected).all(-1).mean() > 0.5
