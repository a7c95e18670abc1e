"""python -m jaxface.fit: both real portraits fit closely, and mistakes end with one line."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import trimesh

import jaxface
from jaxface import demo, fit, reconstruct
from jaxface.command_line import _exit_code


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
