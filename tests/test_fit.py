"""python -m jaxface.fit and jaxface.reconstruct: what they write, what they say, how they end."""

import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import trimesh
from PIL import Image

import jaxface
from jaxface import demo, drawing, fit, photos, reconstruct
from jaxface.coefficients import vector_size
from jaxface.command_line import _exit_code
from jaxface.data.alignment import Alignment
from jaxface.errors import InputError
from toy import toy_model
from toy_training import toy_batch


@pytest.fixture
def model():
    return toy_model()


@pytest.fixture
def toy_photos(tmp_path, monkeypatch, model):
    """Photos in which every bright pixel row is a face, found without MediaPipe; pictures are small."""
    monkeypatch.setattr(drawing, "PICTURE_SIZE", 64)
    monkeypatch.setattr(drawing, "TEXTURE_SIZE", 32)
    batch = toy_batch(model, 2, 224)

    def find(image, model):
        if image.max() == 0:
            raise InputError("no face found")
        sample = {name: values[0] for name, values in batch.items()}
        alignment = Alignment(scale=2.0, offset_x=0.0, offset_y=0.0, size=224, photo_size=image.shape[:2])
        return [(sample, alignment, None)] * 2

    monkeypatch.setattr(photos, "preprocess_photo", find)
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (120, 112), (90, 80, 70)).save(folder / "a.png")
    Image.new("RGB", (120, 112), (90, 80, 70)).save(folder / "a.jpg")
    Image.new("RGB", (120, 112)).save(folder / "dark.png")
    (folder / "empty.png").touch()
    return folder


def mean_faces(model):
    return lambda photo, found: np.zeros((len(found), vector_size(model)), np.float32)


def process(toy_photos, out, model, **options):
    return photos.process_photos(
        [toy_photos], out, model, mean_faces(model), description="test", settings={"method": "none"}, **options
    )


def test_bad_photos_are_reported_and_the_rest_goes_on(toy_photos, tmp_path, model, capsys):
    report, pages = process(toy_photos, tmp_path / "out", model)
    assert (report.done, len(report.failures), report.exit_code) == (2, 2, 1)
    assert all(name in " ".join(report.failures) for name in ("dark.png", "empty.png"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "a_2"]
    assert [page.is_file() for page in pages] == [True, True]
    assert {path.name for path in pages[0].parent.iterdir()} == {"face_0", "face_1", "index.html", "photo_overlay.png"}
    capsys.readouterr()
    assert photos.close(report, pages) == 1
    assert capsys.readouterr().out.splitlines()[-1] == str(pages[-1])


def test_largest_face_alone(toy_photos, tmp_path, model):
    process(toy_photos, tmp_path / "out", model, faces="largest")
    assert not (tmp_path / "out" / "a" / "face_1").exists()


def test_nothing_half_written_stays(toy_photos, tmp_path, model, monkeypatch):
    monkeypatch.setattr(photos, "write_photo", lambda folder, *_, **__: (folder / "x").touch() or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        process(toy_photos, tmp_path / "out", model)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        (fit.main, ["x.png", "--model", "nobody"], "nobody"),
        (fit.main, ["x.png", "--checkpoint", "/nowhere"], "/nowhere"),
        (reconstruct.main, ["x.png", "--checkpoint", "/nowhere"], "/nowhere"),
        (demo.main, ["--checkpoint", "/nowhere"], "/nowhere"),
    ],
)
def test_mistakes_end_with_one_line(program, arguments, message, tmp_path, capsys):
    assert _exit_code(lambda: program([*arguments, "--out", str(tmp_path / "out")])) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_out_may_not_be_a_file(toy_photos, tmp_path, model):
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="is a file"):
        process(toy_photos, tmp_path / "out", model)


def test_only_missing_photos_is_a_failure(tmp_path, model):
    report, pages = photos.process_photos(
        [tmp_path / "none.jpg"], tmp_path / "out", model, mean_faces(model), description="test", settings={}
    )
    assert (report.exit_code, pages) == (2, [])
    assert not (tmp_path / "out").exists()


def test_encoder_crops_the_photo_at_its_own_size(monkeypatch, model):
    sizes = []

    def predict(images):
        sizes.append(images.shape)
        return np.zeros((len(images), 41), np.float32)

    config = type("Config", (), {"image_size": 48})
    monkeypatch.setattr(reconstruct, "load_encoder", lambda path: (predict, model, config))
    solve, loaded = reconstruct.predict_faces("checkpoint")
    photo = np.zeros((112, 112, 3), np.uint8)
    alignment = Alignment(scale=2.0, offset_x=0.0, offset_y=0.0, size=224, photo_size=(112, 112))
    assert solve(photo, [({}, alignment, None)] * 3).shape == (3, 41)
    assert set(sizes) == {(1, 48, 48, 3)} and loaded is model


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mediapipe") is None, reason="needs jaxface[photo]: mediapipe")
def test_real_portraits_fit_closely(tmp_path):
    """Both portraits, from the files: Part IoU of 0.70 and landmarks within 2.5 % of the eye distance are demanded."""
    paths = demo.portrait_paths()
    report, pages = fit.fit_photos(list(paths.values()), tmp_path)
    assert report.exit_code == 0 and len(pages) == 2
    for name in paths:
        face = tmp_path / name / "face_0"
        record = json.loads((face / "coefficients.json").read_text())
        assert record["measures"]["part_iou"] > 0.78
        assert record["measures"]["landmark_error_interocular"] < 0.018
        coefficients = {key: np.array(value) for key, value in record["coefficients"].items()}
        assert np.abs(coefficients["identity"]).mean() < 1.0  # a usual head
        assert coefficients["expression"].min() > -0.11 and coefficients["expression"].max() < 1.11
        check_mesh(face / "mesh.glb", record, units=10.0)
        check_mesh(face / "mesh.obj", record, units=0.01)


def check_mesh(path: Path, record: dict, units: float):
    """Reopened, the mesh has a texture, no NaN, faces that look out, and eyes above a mouth that faces +z."""
    mesh = trimesh.load(path, force="mesh", process=False)
    material = mesh.visual.material
    assert (getattr(material, "baseColorTexture", None) or material.image).size == (1024, 1024)
    assert np.isfinite(mesh.vertices).all()
    landmarks = np.array(record["landmarks68"]["model"]) / units
    nearest = np.linalg.norm(mesh.vertices[:, None] - landmarks[None, [30, 36, 45, 57]], axis=-1).min(0)
    assert nearest.max() * units < 0.01
    nose, right_eye, left_eye, lip = landmarks[[30, 36, 45, 57]]
    assert right_eye[0] < left_eye[0] and lip[1] < right_eye[1] and nose[2] > right_eye[2]
    front = np.einsum("ij,ij->i", mesh.face_normals, mesh.triangles_center - mesh.vertices.mean(0))
    assert (front > 0).mean() > 0.6
    assert jaxface.load_face_model("anny").triangles.shape == mesh.faces.shape


def test_compiled_code_is_kept_where_the_user_wants_it(tmp_path, monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    try:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
        photos.keep_compiled()
        assert jax.config.jax_compilation_cache_dir == before
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
        photos.keep_compiled()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "jaxface")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
