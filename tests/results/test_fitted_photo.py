"""What `fit_photo` returns: arrays in the frames that are promised, meshes with texture, and files."""

import numpy as np
import pytest

from jaxface import Camera, Coefficients, decode_face
from jaxface.core.coefficients import vector_size
from jaxface.core.errors import InputError
from jaxface.photos.alignment import Alignment
from jaxface.results.drawing import DrawingOptions, Reconstruction
from jaxface.results.fitted_photo import FittedPhoto
from toys.models import toy_model
from toys.training import toy_batch


@pytest.fixture(scope="module")
def fitted():
    model = toy_model()
    batch = toy_batch(model, 2, 224)
    photo = np.random.default_rng(0).integers(0, 255, (150, 140, 3), np.uint8)
    alignment = Alignment(scale=2.0, offset_x=-20.0, offset_y=10.0, size=224, photo_size=(150, 140))
    faces = [
        Reconstruction(batch["coefficients"][0], {k: v[i] for k, v in batch.items()}, alignment, f"Face {i}")
        for i in range(2)
    ]
    return FittedPhoto(
        model,
        photo,
        faces,
        name="toy.png",
        settings={"method": "fit"},
        drawing=DrawingOptions(picture_size=64, largest_texture=32),
    )


@pytest.mark.slow
def test_vertices_project_to_where_the_face_is_in_the_photo(fitted):
    face = fitted.faces[0]
    model, alignment = face.model, face.reconstruction.alignment
    camera = Camera().resized(224)
    decoded = decode_face(model, Coefficients.from_vector(face.reconstruction.vector[None], model), camera)
    expected = alignment.to_photo(np.asarray(decoded.points[0]))
    x, y, w = face.camera_matrix @ np.column_stack([face.vertices, np.ones(len(face.vertices))]).T
    np.testing.assert_allclose(np.stack([x / w, y / w], -1), expected, atol=0.01)
    assert 100 < np.ptp(face.vertices[:, 0]) < 250  # a toy as wide as 16 cm
    inner = np.asarray(model.landmarks["68"])[17:]
    np.testing.assert_allclose(face.landmarks[17:], expected[inner], atol=0.05)


@pytest.mark.slow
def test_the_mesh_has_the_texture(fitted, tmp_path):
    face = fitted.faces[0]
    mesh = face.mesh()
    assert mesh.visual.uv.shape == (81, 2) and np.isfinite(mesh.vertices).all()
    np.testing.assert_array_equal(np.asarray(mesh.visual.material.baseColorTexture), face.texture)
    np.testing.assert_array_equal(mesh.faces, face.triangles)
    mesh.export(tmp_path / "face.glb")
    assert (tmp_path / "face.glb").read_bytes()[:4] == b"glTF"


@pytest.mark.slow
def test_another_expression_moves_the_mesh_and_nothing_else(fitted):
    face = fitted.faces[0]
    expression = np.array([2.0, -1.0])
    moved = 100 * (face.model.expression_basis @ (expression - np.asarray(face.coefficients.expression[0])))
    np.testing.assert_allclose(face.mesh(expression=expression).vertices, face.vertices + moved, atol=1e-3)
    np.testing.assert_array_equal(face.mesh().vertices, face.vertices)
    front, same = face.turned(), face.turned(expression=face.coefficients.expression[0])
    # The fit's program and this one may round the last bit of a vertex differently: a grey level somewhere.
    np.testing.assert_allclose(front.astype(int), same, atol=2)
    assert front.shape == face.turned(yaw=0.5).shape and (front != face.turned(yaw=0.5)).any()
    with pytest.raises(InputError, match="2 expression coefficients"):
        face.mesh(expression=np.zeros(3))


@pytest.mark.slow
def test_measures_and_pictures(fitted):
    face = fitted.faces[0]
    assert 0 <= face.measures["part_iou"] <= 1 and face.measures is face.measures
    assert face.pictures["Overlay"].shape == face.pictures["Photo"].shape == (64, 64, 3)
    assert face.coefficients.to_vector().shape == (1, vector_size(face.model))


@pytest.mark.slow
def test_save_writes_what_the_command_writes_and_harms_no_other_files(fitted, tmp_path):
    page = fitted.save(tmp_path / "out")
    assert page == tmp_path / "out" / "index.html" and page.is_file()
    assert (tmp_path / "out" / "face_1" / "mesh.glb").is_file() and (tmp_path / "out" / "done.json").is_file()
    assert fitted.save(tmp_path / "out") == page  # replaced
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").touch()
    with pytest.raises(InputError, match="holds other files"):
        fitted.save(tmp_path / "thesis")
    with pytest.raises(InputError, match="is a file"):
        fitted.save(tmp_path / "thesis" / "chapter.txt")
    assert (tmp_path / "thesis" / "chapter.txt").is_file()
