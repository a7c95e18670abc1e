"""Scans are read, drawn from where they are said to be, and measured; the whole runs with a made scan."""

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh
from PIL import Image

import jaxface
from jaxface.core.errors import InputError
from jaxface.files.meshes import write_obj
from jaxface.training.scan_errors import SEVEN_LANDMARKS
from toys.heads import sphere, toy_head

FOLDER = Path(__file__).parents[2] / "experiments" / "scan_accuracy"
MODULES = ("scans", "drawing", "scan_measures", "picture", "stages", "run")


@pytest.fixture(scope="module")
def experiment():
    """The experiment's modules, which import each other by their short names."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    finally:
        sys.path.remove(str(FOLDER))
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def model():
    return jaxface.load_face_model("anny")


TURN = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])


def test_a_folder_of_scans(tmp_path, experiment):
    """OBJ with a texture and landmarks as text; PLY with colours, landmarks as JSON, and a unit."""
    vertices, triangles, landmarks = toy_head(side=9)
    marks = vertices[landmarks[list(SEVEN_LANDMARKS)]]
    uv = (vertices[:, :2] - vertices[:, :2].min(0)) / np.ptp(vertices[:, :2], axis=0)
    texture = np.zeros((16, 16, 3), np.uint8)
    texture[:8] = 255  # the upper half, of v > 0.5
    write_obj(tmp_path / "anna.obj", vertices / 100, triangles, uv=uv, texture=texture)
    np.savetxt(tmp_path / "anna.txt", marks)
    colors = np.tile(np.uint8([10, 20, 30]), (len(vertices), 1))
    trimesh.Trimesh(vertices / 1000, triangles, vertex_colors=colors, process=False).export(tmp_path / "bert.ply")
    (tmp_path / "bert.json").write_text(json.dumps({"landmarks": (marks / 1000).tolist(), "mm_per_unit": 1000}))
    anna, bert = experiment.scans.read_folder(tmp_path)
    assert (anna.name, bert.name) == ("anna", "bert")
    for scan in (anna, bert):
        np.testing.assert_allclose(scan.vertices, vertices, atol=1e-3)
        np.testing.assert_allclose(scan.landmarks, marks, atol=1e-3)
    np.testing.assert_allclose(bert.colors, colors / 255)
    np.testing.assert_allclose(anna.uv, uv[triangles], atol=1e-5)
    assert anna.texture[0].mean() == 1 and anna.texture[-1].mean() == 0


@pytest.mark.parametrize("text", [None, "1 2 3\n", "a b c\n", "nan 0 0\n" * 7])
def test_landmarks_that_are_missing_or_wrong(tmp_path, experiment, text):
    vertices, triangles = sphere(1)
    trimesh.Trimesh(vertices, triangles, process=False).export(tmp_path / "anna.ply")
    if text:
        (tmp_path / "anna.txt").write_text(text)
    with pytest.raises(InputError, match=r"anna\.json: seven landmarks"):
        experiment.scans.read_folder(tmp_path)
    with pytest.raises(InputError, match="no scans"):
        experiment.scans.read_folder(tmp_path.parent / "nothing")


def test_scans_that_are_damaged_or_share_a_name(tmp_path, experiment):
    np.savetxt(tmp_path / "anna.txt", np.random.default_rng(0).normal(size=(7, 3)))
    for name, content in (("anna.glb", b"\xff\x00junk"), ("anna.ply", b"ply\nformat ascii 1.0\nelement vertex 5\n")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            experiment.scans.read_folder(tmp_path)
        (tmp_path / name).unlink()
    for name in ("anna.obj", "anna.ply"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="two scans share a name"):
        experiment.scans.read_folder(tmp_path)


def test_strips_and_polygons_of_vtk(tmp_path, experiment):
    head = "POINTS 4 float\n0 0 0 1 0 0 0 1 0 1 1 0\n{}\nPOINT_DATA 4\nTEXTURE_COORDINATES t 2 float\n0 0 1 0 0 1 1 1\n"
    for text, expected in (
        ("TRIANGLE_STRIPS 1 5\n4 0 1 2 3", [[0, 1, 2], [2, 1, 3]]),
        ("POLYGONS 1 5\n4 0 1 3 2", [[0, 1, 3], [0, 3, 2]]),
    ):
        (tmp_path / "a.vtk").write_text(head.format(text))
        points, triangles, uv = experiment.scans._read_vtk(tmp_path / "a.vtk")
        np.testing.assert_array_equal(points, [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
        np.testing.assert_array_equal(uv, points[:, :2])
        corners = points[triangles]
        assert (np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2] > 0).all()
        np.testing.assert_array_equal(np.sort(triangles), np.sort(expected))


@pytest.fixture(scope="module")
def made(experiment, model):
    """A made person, upright, and the same lying on the side before it was turned."""
    scan = experiment.scans.made_scans(model, count=1, seed=0)[0]
    lying = dataclasses.replace(scan, vertices=scan.vertices @ TURN.T + 50, landmarks=scan.landmarks @ TURN.T + 50)
    return experiment.scans.upright(scan, model), experiment.scans.upright(lying, model)


def test_a_scan_stands_upright_however_it_lay(made):
    scan, other = made
    np.testing.assert_allclose(scan.vertices, other.vertices, atol=1e-6)
    assert scan.landmarks[3, 0] - scan.landmarks[0, 0] > 60 and scan.landmarks[4, 2] > scan.landmarks[0, 2] + 10


@pytest.mark.slow
def test_views_turn_and_near_ones_are_no_smaller(made, experiment, model):
    """A red tip of the nose goes where the view says; from near, a face has its size but its ears fall back."""
    scan, View = made[0], experiment.drawing.View
    tip = scan.vertices[:, 2].argmax()
    red = np.where(np.linalg.norm(scan.vertices - scan.vertices[tip], axis=1)[:, None] < 4, [1.0, 0, 0], [0, 0.5, 0.5])
    scan = dataclasses.replace(scan, colors=red)

    def nose(view):
        picture = experiment.drawing.draw(scan, view, size=80).astype(int)
        return np.argwhere(picture[..., 0] > 2 * picture[..., 1] + 20).mean(0)

    row, column = nose(View())
    assert abs(column - 39.5) < 2
    assert nose(View(20))[1] > column + 3 and nose(View(-20))[1] < column - 3
    assert nose(View(pitch=15))[0] > row + 2 and nose(View(pitch=-15))[0] < row - 2
    background = experiment.drawing.draw(scan, View(), size=80)[0, 0]
    widths = []
    for distance in (300, 2000):
        covered = (experiment.drawing.draw(scan, View(distance=distance), size=80) != background).any(-1)
        widths.append(covered.any(0).sum())
    assert 0.7 * widths[1] < widths[0] < widths[1]


@pytest.mark.slow
def test_drawings_tell_their_focal_length_if_asked(tmp_path, made, experiment):
    views = [experiment.drawing.View(distance=600)]
    path = experiment.drawing.write_views(tmp_path, [made[0]], views, exif=True, size=32)[0]
    assert path.name == "made0_0.6m.png"
    with Image.open(path) as picture:
        assert picture.getexif().get_ifd(0x8769)[0xA405] == 77  # 36 mm * 600 / 280


@pytest.mark.slow
def test_a_scan_is_no_distance_from_its_own_mesh(made, experiment, model):
    scan = made[0]
    measure = experiment.scan_measures.Measure(scan, model)
    own = measure(0.5 * scan.vertices @ TURN.T + 7)
    assert own["mean"] == 0 and own["median"] == 0
    assert 0.3 < measure(experiment.scan_measures.mean_face(model))["mean"] < 3
    inside = scan.vertices - [0, 0, 15]  # a second shell behind the first, which nobody sees
    count = len(scan.vertices)
    both = dataclasses.replace(
        scan,
        vertices=np.concatenate([scan.vertices, inside]),
        triangles=np.concatenate([scan.triangles, scan.triangles + count]),
    )
    seen = experiment.drawing.outside(both)
    assert seen[:count].mean() > 0.65 and seen[count:].mean() < 0.1


def test_sums_are_over_scans_alike(experiment):
    drawing, scan_measures = experiment.drawing, experiment.scan_measures
    views = (*drawing.VIEWS, drawing.View(distance=300))
    rows = [("a", "yaw0", 1.0), ("a", "yaw40", 3.0), ("b", "yaw0", 4.0), ("a", "0.3m", 9.0)]
    faces = [{"scan": s, "view": v, "method": "fit", "mean": m, "mean_face": 2.0} for s, v, m in rows]
    line = scan_measures.summary(faces, views, ["fit"])["fit"]
    assert line == {
        "all": 3.0, "to 20 degrees": 2.5, "40 degrees": 3.0, "better than the mean face": 1, "views": 3
    }  # fmt: skip
    lines = {"mean face": scan_measures.mean_face_line({"a": {"mean": 2.0}, "b": {"mean": 3.0}}, views), "fit": line}
    printed = scan_measures.table(lines).splitlines()
    assert printed[0] == "| | all | to 20 degrees | 40 degrees | better than the mean face |"
    assert printed[2:] == ["| mean face | 2.50 | 2.50 | 2.50 |  |", "| fit | 3.00 | 2.50 | 3.00 | 1 of 3 |"]


@pytest.mark.slow
def test_a_run_whose_fits_are_known(tmp_path, experiment, model, monkeypatch, capsys):
    """The fit knows the truth but for one view, which it misses, and for distances, where it says "mean face"."""
    scan = experiment.scans.made_scans(model, count=1, seed=1)[0]
    truth, vertices = scan.vertices, experiment.scan_measures.mean_face(model)
    uv = np.asarray(model.uv)

    def fit(photos, out, options):
        assert options[:2] == ["--model", "anny"]
        folders = [out / photo.stem / "face_0" for photo in photos if photo.stem != "made0_yaw20"]
        if "--same-person" in options:
            assert len(photos) == 7
            folders.append(out / "person")
        for folder in folders:
            folder.mkdir(parents=True)
            mesh = vertices if folder.parts[-2].endswith("m") else truth
            picture = np.zeros((8, 8, 3), np.uint8)
            write_obj(folder / "mesh.obj", mesh / 100, np.asarray(model.triangles), uv=uv, texture=picture)

    monkeypatch.setattr(experiment.run, "fit", fit)
    monkeypatch.setattr(experiment.run, "made_scans", lambda *_, **__: [scan])
    experiment.run.main(
        ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--distances", "--size", "64"]
    )
    results = json.loads((tmp_path / "out" / "made.json").read_text())
    assert results["scans"] == "made" and results["not_found"] == ["made0_yaw20"]
    fitted, person = results["summary"]["fit"], results["summary"][experiment.run.PERSON]
    assert fitted["all"] == pytest.approx(0, abs=1e-3) and fitted["better than the mean face"] == fitted["views"] == 6
    assert person["views"] == 6 and results["persons"][0]["mean"] == pytest.approx(0, abs=1e-3)
    near, _, usual, far = results["distances"]
    assert [row["metres"] for row in results["distances"]] == [0.3, 0.6, 1.0, 2.0]
    assert usual["change_of_shape"] == 0 and near["change_of_shape"] == far["change_of_shape"] > 0.3
    assert near["mean"] == pytest.approx(results["mean_face"]["made0"]["mean"], abs=1e-3)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["made.json", "made.png"]
    assert "| fit | 0.00 |" in capsys.readouterr().out


@pytest.mark.slow
def test_quick_run(tmp_path):
    command = [sys.executable, str(FOLDER / "run.py"), "--quick", "--stages", "--work", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "made.json").read_text())
    assert results["summary"]["fit"]["views"] == 2 and results["not_found"] == []
    errors = {title: line["all"] for title, line in results["summary"].items()}
    stages = {title: error for title, error in errors.items() if title not in ("mean face", "fit")}
    assert len(stages) == 4 and all(errors["fit"] < 1.05 * error for error in stages.values()), errors
    assert 0.1 < results["summary"]["fit"]["all"] < 1.5 * results["summary"]["mean face"]["all"]
    assert (tmp_path / "made.png").read_bytes()[:4] == b"\x89PNG"
