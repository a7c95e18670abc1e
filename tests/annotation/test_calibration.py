"""A detector whose errors are known: its table tells where its points lie and how far they err."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxface import Camera, Coefficients, calibrate, decode_face
from jaxface.annotation import calibrator
from jaxface.annotation.calibration import (
    FLOOR,
    SHRINKAGE,
    YAWS,
    Detections,
    covariance_table,
    detection_errors,
    mirror_points,
    vote_places,
)
from jaxface.core.coefficients import vector_size
from jaxface.core.errors import InputError
from jaxface.files.command_line import exit_code_of
from jaxface.fitting.evidence import Calibration, dense_evidence, evidence_points
from jaxface.photos.detection import DetectedFace
from jaxface.photos.face_crops import FaceCrop
from toys.evidence import toy_calibration
from toys.models import toy_model

POINTS = 478


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def table(model):
    """Where the points of the toy detector lie."""
    return toy_calibration(model, points=POINTS)


@pytest.fixture(scope="module")
def found(model, table):
    """Twelve faces, two of them turned, and points that are seen exactly."""
    random, count = np.random.default_rng(0), 12
    vectors = np.zeros((count, vector_size(model)), np.float32)
    vectors[:, :5] = 0.5 * random.normal(size=(count, 5))
    vectors[:10, 9] = random.uniform(-0.3, 0.3, 10)
    vectors[10:, 9] = 0.8
    focal, center, distance = np.full(count, 1500.0), random.uniform(250, 262, (count, 2)), np.full(count, 8.0)
    faces = Detections(np.zeros((count, POINTS, 2)), vectors, focal, center, distance)
    points = [project(model, table, faces, index) for index in range(count)]
    return dataclasses.replace(faces, points=np.stack(points))


def project(model, table, faces, index):
    camera = faces.camera(index)
    coefficients = Coefficients.from_vector(jnp.asarray(faces.coefficients[index]), model)
    corners = np.asarray(decode_face(model, coefficients, camera).vertices, np.float64)[0][table.triangles]
    spots = (table.barycentric[..., None] * corners).sum(1)
    return np.stack([spots[:, 0], -spots[:, 1]], -1) * camera.focal / spots[:, 2:] + np.array(camera.center)


@pytest.mark.slow
def test_votes_find_the_places(model, table, found):
    noisy = dataclasses.replace(found, points=found.points + np.random.default_rng(1).normal(size=found.points.shape))
    triangles, barycentric, stray = vote_places(model, noisy)
    wanted, places = (
        (weights[..., None] * np.asarray(model.mean_shape)[corners]).sum(1)
        for corners, weights in ((table.triangles, table.barycentric), (triangles, barycentric))
    )
    off = 100 * np.linalg.norm(places - wanted, axis=-1)
    assert np.median(off) < 1 and np.percentile(off, 90) < 4 and np.median(stray) < 2
    np.testing.assert_allclose(barycentric.sum(-1), 1, atol=1e-6)


@pytest.mark.slow
def test_errors_are_what_the_detector_is_off_by_in_the_crop(model, table, found):
    exact = detection_errors(model, found, table.triangles, table.barycentric)
    assert np.abs(exact).max() < 1e-2
    moved = dataclasses.replace(found, points=found.points + np.array([3.0, -1.0]))
    errors = detection_errors(model, moved, table.triangles, table.barycentric)
    scale = errors[..., 0] / 3  # of the crop, another one for each face
    np.testing.assert_allclose(errors[..., 1], -scale, atol=1e-2)
    assert np.ptp(scale, axis=1).max() < 1e-2 and (scale > 0).all()


def test_the_covariance_is_the_second_moment_around_a_yaw():
    random = np.random.default_rng(0)
    errors, yaws = random.normal(size=(300, 4, 2)) * np.array([1, 2, 3, 4])[:, None], random.uniform(-60, 60, 300)
    mirror = np.array([1, 0, 3, 2])
    variances, factors = covariance_table(errors, yaws, mirror)
    flipped = errors[:, mirror] * np.array([-1, 1])
    rows = np.concatenate([errors, flipped]).reshape(600, 8)
    for index, yaw in enumerate(YAWS):
        weights = np.exp(-(((np.concatenate([yaws, -yaws]) - yaw) / 10) ** 2) / 2)
        moment = sum(w * np.outer(row, row) for w, row in zip(weights, rows, strict=True)) / weights.sum()
        expected = SHRINKAGE * moment + (1 - SHRINKAGE) * np.diag(np.diag(moment)) + FLOOR * np.eye(8)
        np.testing.assert_allclose(np.diag(variances[index]) + factors[index] @ factors[index].T, expected, atol=1e-9)
    front = int(np.flatnonzero(YAWS == 0)[0])
    np.testing.assert_allclose(variances[front].reshape(4, 2), variances[front].reshape(4, 2)[mirror], rtol=1e-6)


def test_mirror_images_are_found_and_faces_made_symmetric(model):
    places = np.array([[-0.3, 0.1, 0.5], [0.0, 0.2, 0.6], [0.31, 0.1, 0.5], [0.4, -0.2, 0.1], [-0.41, -0.2, 0.1]])
    assert mirror_points(places).tolist() == [2, 1, 0, 4, 3]
    basis = np.asarray(model.identity_basis)
    even = basis + basis[model.mirror] * np.array([-1, 1, 1])[:, None]
    odd = basis - basis[model.mirror] * np.array([-1, 1, 1])[:, None]
    halves = dataclasses.replace(model, identity_basis=np.concatenate([even, odd], axis=-1))
    one = np.float32([0.5, -1, 2, 1, 1, 1])
    np.testing.assert_allclose(calibrator.symmetric_identity(halves, one), [0.5, -1, 2, 0, 0, 0], atol=1e-5)
    np.testing.assert_array_equal(calibrator.symmetric_identity(dataclasses.replace(model, mirror=None), one), one)


@pytest.mark.slow
def test_the_mean_of_people_is_found_without_3d(model, quick_compilation):
    """People around a mean that is not the face model's, seen with noise."""
    random = np.random.default_rng(0)
    plain = dataclasses.replace(model, mirror=None)
    evidence = dense_evidence(plain, toy_calibration(plain, points=60, noise=0.5))
    wanted, samples = np.float32([1.5, -1.0, 0.8]), []
    project_one = jax.jit(lambda vector: evidence_points(evidence, vector, Camera()))
    for _ in range(24):
        vector = np.zeros(41, np.float32)
        vector[:3], vector[8:11] = wanted + 0.5 * random.normal(size=3), 0.2 * random.normal(size=3)
        points = np.asarray(project_one(vector)) + 0.5 * random.normal(size=(60, 2))
        samples.append({"points": points.astype(np.float32), "point_weights": np.ones(60, np.float32)})
        samples[-1]["focal"] = np.float32(np.nan if len(samples) % 2 else Camera().focal)
    mean = calibrator.people_mean(plain, evidence, samples)
    assert np.linalg.norm(mean - wanted) < 0.35 * np.linalg.norm(wanted)


@pytest.fixture
def detector(model, found, monkeypatch):
    """In place of photographs and MediaPipe: what the toy detector found."""
    monkeypatch.setattr(calibrator, "load_face_model", lambda name: model)
    monkeypatch.setattr(calibrator, "draw_and_detect", lambda *_, **__: (found, 3))


@pytest.mark.slow
def test_the_command_writes_a_table_and_a_picture(tmp_path, capsys, detector, model):
    path = tmp_path / "table.npz"
    assert calibrate.main(["--out", str(path), "--faces", "200"]) == 0
    told = capsys.readouterr().out
    assert "table.png" in told and "200 drawn faces, seed 101; the detector saw no face in 3" in told
    written = Calibration.load(path)
    dense_evidence(model, written)
    assert len(written.points) == 468 - 36 - 17 and not written.identity_mean.any()
    assert path.with_suffix(".png").stat().st_size > 1000


def test_bad_use_is_told_in_a_line(tmp_path, capsys, detector):
    def code(*arguments):
        return exit_code_of(lambda: calibrate.main(arguments))

    assert code("--out", str(tmp_path / "table.txt")) == 2
    assert "let its name end so" in capsys.readouterr().err
    for arguments in (
        ("--faces", "0"),
        ("--faces", "199"),
        ("--seed", "-1"),
        ("--seed", "2001"),
        ("--table", "x.npz"),
        ("--table", "x.npz", "--photos", "x.jpg", "--seed", "7"),
    ):
        with pytest.raises(SystemExit) as stopped:
            calibrate.main(["--out", str(tmp_path / "t.npz"), *arguments])
        assert stopped.value.code == 2
    assert code("--out", str(tmp_path / "t.npz"), "--table", str(tmp_path / "none.npz"), "--photos", "x.jpg") == 2
    assert "not a calibration" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "file").write_text("")
    for out, told in (("folder.npz", "is a folder"), ("file/t.npz", "cannot make the folder")):
        assert code("--out", str(tmp_path / out)) == 2
        assert told in capsys.readouterr().err


def test_photos_are_looked_at_before_anything_is_drawn(tmp_path, capsys, detector, monkeypatch):
    monkeypatch.setattr(calibrator, "draw_and_detect", lambda *_, **__: pytest.fail("drawn"))
    arguments = ["--out", str(tmp_path / "t.npz"), "--photos", str(tmp_path / "none.jpg")]
    assert exit_code_of(lambda: calibrate.main(arguments)) == 2
    assert "none of the photos shows a face" in capsys.readouterr().err


def test_faces_without_points_teach_no_mean_of_people(tmp_path, model, monkeypatch):
    photos = [tmp_path / name for name in ("profile.png", "both.png")]
    for photo in photos:
        Image.new("RGB", (32, 32)).save(photo)
    profile, frontal = (FaceCrop({"point_weights": np.full(478, float(x))}, None) for x in (0, 1))
    crops = iter([[profile], [profile, frontal]])
    monkeypatch.setattr(calibrator, "preprocess_photo", lambda *_, **__: next(crops))
    samples, report = calibrator.samples_of(model, photos)
    found = [sample["point_weights"].all() for sample in samples]
    assert found == [True] and len(report.failures) == 1


def test_a_face_that_the_mesh_does_not_see_is_not_the_detectors(monkeypatch):
    mesh = np.ones((478, 2))
    faces = [DetectedFace(None, 0.9, np.zeros((68, 2))), DetectedFace(mesh, 0.8)]
    monkeypatch.setattr(calibrator, "detect_faces", lambda _: faces)
    picture, find = np.zeros((16, 16, 3), np.uint8), calibrator.DETECTORS["mediapipe"].find
    assert find(picture) is mesh
    faces.pop()
    assert find(picture) is None


def test_a_face_model_without_landmarks_is_refused(tmp_path, capsys, model, monkeypatch):
    monkeypatch.setattr(calibrator, "load_face_model", lambda name: dataclasses.replace(model, landmarks={}))
    assert exit_code_of(lambda: calibrate.main(["--out", str(tmp_path / "t.npz")])) == 2
    assert "no 68 landmarks" in capsys.readouterr().err


@pytest.mark.slow
def test_a_point_that_never_lies_on_the_face_is_told(model, found):
    beside = found.points.copy()
    beside[:, 3] = [1.0, 1.0]
    with pytest.raises(InputError, match="1 of the detector's points lie beside"):
        calibrator.calibration_of(
            model, dataclasses.replace(found, points=beside), np.arange(10), detector="toy", made=""
        )


def test_a_detector_that_sees_nothing_is_refused(model, monkeypatch):
    drawn = {"image": np.zeros((8, 8, 8, 3), np.uint8)}
    drawn |= {name: np.zeros(8) for name in ("coefficients", "focal", "center", "distance")}
    monkeypatch.setattr(calibrator, "draw_photographs", lambda *_, **__: jax.tree.map(jnp.asarray, drawn))
    with pytest.raises(InputError, match="found 0 of 200 drawn faces"):
        calibrator.draw_and_detect(model, lambda picture: None, count=200, seed=0)
    with pytest.raises(InputError, match="8 faces would make the covariance a guess"):
        calibrator.draw_and_detect(model, lambda picture: None, count=8, seed=0)
