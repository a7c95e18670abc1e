"""Benchmarks on small folders in the layout of their makers, with predictions whose errors are known."""

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
from PIL import Image

from jaxface import evaluate
from jaxface.core import face_models
from jaxface.files.command_line import exit_code_of
from jaxface.models.native import write_face_model
from jaxface.training import benchmarks
from jaxface.training.region_errors import REGIONS
from jaxface.training.scan_errors import SEVEN_LANDMARKS, Surface, face_region, now_distances
from toys.heads import toy_head
from toys.models import toy_model

TURN = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
MATRIX = np.array([[100.0, 0, 0, 40], [0, -100, 0, 60], [0, 0, 0, 1]])
"""Of a camera far away: x = 100 X + 40, y = 60 - 100 Y in pixels of the photo."""


def write_obj(path: Path, vertices, triangles=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"v {x:.9f} {y:.9f} {z:.9f}" for x, y, z in vertices]
    path.write_text("\n".join(lines + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in triangles]) + "\n")


def write_face(folder: Path, *, landmarks=None, mesh=None, parts=None, identity=(), expression=(), number=0):
    """What `jaxface fit --out` leaves, as far as benchmarks look at it."""
    folder = folder / f"face_{number}"
    folder.mkdir(parents=True)
    record = {
        "face_model": "anny",
        "coefficients": {"identity": list(identity), "expression": list(expression)},
        "landmarks68": {"model": np.asarray(np.zeros((68, 3)) if landmarks is None else landmarks).tolist()},
        "camera": {"photo": {"matrix": MATRIX.tolist()}},
    }
    (folder / "coefficients.json").write_text(json.dumps(record))
    if mesh is not None:
        write_obj(folder / "mesh.obj", *mesh)
    if parts is not None:
        Image.fromarray(parts).save(folder / "visible_parts.png")


def photo(path: Path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20)).save(path)


def run(name, folder: Path, *more: str) -> int:
    arguments = ["--benchmark", name, str(folder), "--out", str(folder.parent / "out"), *more]
    return exit_code_of(lambda: evaluate.main(arguments))


def results(folder: Path) -> dict:
    return json.loads((folder.parent / "out" / "results.json").read_text())


# NoW


@pytest.fixture
def now(tmp_path):
    """Two subjects; the second's scan is another person than was predicted. All predictions have an expression."""
    model, folder = toy_model(), tmp_path / "now"
    write_face_model(model, tmp_path / "toy.npz")
    people = {"FaMoS_1_TA": [1.0, -1, 2], "FaMoS_2_TA": [-2.0, 1, 0]}
    lines = []
    for subject, identity in people.items():
        shape = 100 * np.asarray(face_models.shape(model, jnp.array(identity), jnp.zeros(2)), np.float64)
        scan = 0.9 * shape @ TURN.T + [3, 4, 5]
        write_obj(folder / "scans" / subject / "scan.obj", scan, np.asarray(model.triangles))
        seven = scan[np.asarray(model.landmarks["68"])[list(SEVEN_LANDMARKS)]]
        points = [f'<point x="{x}" y="{y}" active="1" z="{z}" name="{i}"/>' for i, (x, y, z) in enumerate(seven)]
        (folder / "scans_lmks_onlypp" / subject).mkdir(parents=True)
        text = "\n".join(["<!DOCTYPE PickedPoints>", "<PickedPoints>", *points, "</PickedPoints>"])
        (folder / "scans_lmks_onlypp" / subject / "scan_picked_points.pp").write_text(text)
        for challenge in ("multiview_neutral", "selfie"):
            lines.append(f"{subject}/{challenge}/IMG_1.jpg")
            predicted = people["FaMoS_1_TA"]
            write_face(tmp_path / "fits" / subject / challenge / "IMG_1", identity=predicted, expression=[0.9, 0.5])
    (folder / "imagepathsvalidation.txt").write_text("\n".join(lines) + "\n")
    return folder


def now_options(now):
    return ["--predictions", str(now.parent / "fits"), "--model", str(now.parent / "toy.npz")]


def test_now_measures_the_face_without_its_expression(now, capsys):
    assert run("now", now, *now_options(now)) == 0
    first, _, other, _ = results(now)["photos"]
    assert first["photo"] == "FaMoS_1_TA/multiview_neutral/IMG_1" and first["group"] == "multiview_neutral"
    assert first["mean"] == pytest.approx(0, abs=1e-4) and other["mean"] > 0.3
    model = toy_model()
    own, scan = (
        np.loadtxt(now / f"scans/FaMoS_{number}_TA/scan.obj", usecols=(1, 2, 3), max_rows=81) for number in (1, 2)
    )
    mesh = 100 * np.asarray(face_models.shape(model, jnp.array([1.0, -1, 2]), jnp.zeros(2)), np.float64)
    seven = np.asarray(model.landmarks["68"])[list(SEVEN_LANDMARKS)]
    expected = now_distances(scan, scan[seven], Surface(mesh, np.asarray(model.triangles)), mesh[seven])
    assert other["median"] == pytest.approx(np.median(expected), abs=1e-3)
    together = np.concatenate([np.zeros(face_region(own, own[seven]).sum()), expected])
    summary = results(now)["summary"]
    assert summary["mean"] == pytest.approx(together.mean(), abs=1e-3)
    assert summary["std"] == pytest.approx(together.std(), abs=1e-3)
    assert summary["median, selfie"] == summary["median, neutral"] == pytest.approx(np.median(together), abs=1e-3)
    printed = capsys.readouterr().out
    assert "| RingNet " in printed and "jaxface, 4 of 4 photos" in printed and "4 photos done" in printed


def test_now_says_what_is_missing_and_where_it_comes_from(now, capsys):
    shutil.rmtree(now / "scans_lmks_onlypp" / "FaMoS_2_TA")
    assert run("now", now, *now_options(now)) == 2
    told = capsys.readouterr().err
    assert "scans_lmks_onlypp/FaMoS_2_TA" in told and "now.is.tue.mpg.de" in told and told.count("\n") == 1
    (now / "imagepathsvalidation.txt").unlink()
    assert run("now", now, *now_options(now)) == 2
    assert "imagepathsvalidation.txt: not found" in capsys.readouterr().err


def test_a_photo_without_a_prediction_is_told_and_the_rest_is_measured(now, capsys):
    shutil.rmtree(now.parent / "fits/FaMoS_1_TA/selfie/IMG_1")
    (now.parent / "fits/FaMoS_2_TA/selfie/IMG_1/face_0/coefficients.json").write_text('{"face_model": 3}')
    assert run("now", now, *now_options(now)) == 1
    out, err = capsys.readouterr()
    assert "jaxface, 2 of 4 photos" in out and "2 photos have no figure" in out
    assert "FaMoS_1_TA/selfie/IMG_1: no prediction; python -m jaxface.fit" in err
    assert "FaMoS_2_TA/selfie/IMG_1: its coefficients.json is not as jaxface writes it" in err
    assert sorted(results(now)["not_measured"]) == ["FaMoS_1_TA/selfie/IMG_1", "FaMoS_2_TA/selfie/IMG_1"]


def test_another_face_model_than_that_of_the_prediction_is_told(now, capsys):
    write_face_model(toy_model(identity=5), now.parent / "toy.npz")
    assert run("now", now, *now_options(now)) == 2
    assert "has 3 identity coefficients" in capsys.readouterr().err


def test_photos_are_needed_without_predictions(now, capsys):
    assert run("now", now) == 2
    assert "iphone_pictures/FaMoS_1_TA/multiview_neutral/IMG_1.jpg: not found; without" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "maker"), [([], "fit_photos"), (["--checkpoint", "run"], "reconstruct_photos")])
def test_photos_of_one_folder_are_predicted_together(now, monkeypatch, options, maker):
    for line in (now / "imagepathsvalidation.txt").read_text().split():
        photo(now / "NoW_Dataset/final_release_version/iphone_pictures" / line)
    calls = []

    def predict(photos, out, **settings):
        calls.append((photos, out, settings))
        place = Path(out).relative_to(now.parent / "out" / "predictions")
        shutil.copytree(now.parent / "fits" / place, out)

    monkeypatch.setattr(f"jaxface.results.reconstruction.{maker}", predict)
    assert run("now", now, "--model", str(now.parent / "toy.npz"), *options) == 0
    assert len(calls) == 4 and all(len(photos) == 1 for photos, _, _ in calls)
    assert calls[0][2]["model"] == str(now.parent / "toy.npz") and ("checkpoint" in calls[0][2]) == bool(options)


def test_an_empty_list_of_photos_is_told(now, capsys):
    (now / "imagepathsvalidation.txt").write_bytes(b"\n \n")
    assert run("now", now, *now_options(now)) == 2
    assert "no photos found" in capsys.readouterr().err
    (now / "imagepathsvalidation.txt").write_bytes(b"\xff\xfe\x00")
    assert run("now", now, *now_options(now)) == 2
    assert "is not SUBJECT/CHALLENGE/PHOTO" in capsys.readouterr().err


# REALY


@pytest.fixture
def realy(tmp_path):
    """Subject 2 of 2: a frontal photo predicted exactly but for place and size, a side view with a longer nose."""
    folder = tmp_path / "realy"
    vertices, triangles, landmarks = toy_head(side=21)
    x, y, _ = vertices.T
    inside = {
        "nose": (np.abs(x) < 25) & (y < 35) & (y > -25),
        "mouth": (np.abs(x) < 40) & (y < -20) & (y > -65),
        "forehead": y > 15,
        "cheek": y < 40,
    }
    for name, keep in inside.items():
        index = np.cumsum(keep) - 1
        write_obj(
            folder / f"REALY_scan_region/2/{name}.obj", vertices[keep] / 9, index[triangles[keep[triangles].all(1)]]
        )
    keypoints = np.concatenate([vertices[landmarks], np.zeros((17, 3))])
    write_obj(folder / "REALY_HIFI3D_keypoints/2.obj", keypoints / 9)
    (folder / "metrical_scale.txt").write_text("8.5\n9.0\n")
    for name in ("crop_image_frontal_512x512/2.jpg", "crop_image_multiview_512x512/2_1.jpg"):
        photo(folder / "REALY_image" / name)
    photo(folder / "REALY_image/original_image_frontal/2.jpg")
    photo(folder / "REALY_image/crop_image_frontal_512x512/preview.jpg")
    longer = (
        vertices + np.array([0, 0, 8]) * np.exp(-((x / 12) ** 2) - ((y + 3) / 12) ** 2)[:, None] * (y > -14)[:, None]
    )
    for name, shape in (("2", 1.3 * vertices @ TURN.T + 7), ("2_1", longer)):
        write_face(tmp_path / "fits" / name, landmarks=shape[landmarks] / 100, mesh=(shape, triangles))
    return folder


def test_realy_by_region_and_view(realy, capsys):
    assert run("realy", realy, "--predictions", str(realy.parent / "fits")) == 0
    summary = results(realy)["summary"]
    for name in (*REGIONS, "all"):
        assert summary[f"frontal, {name}"] == pytest.approx(0, abs=1e-3)
    assert 0.5 < summary["side, nose"] < 3 and summary["side, mouth"] < 0.05
    assert [one["photo"] for one in results(realy)["photos"]] == ["2", "2_1"]
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| 3DDFA-V3  "))
    assert "1.586" in line and "1.436" in line and "1.442" in line


def test_realy_says_what_is_missing(realy, capsys):
    for path, told in (("REALY_scan_region/2/mouth.obj", "mouth.obj"), ("metrical_scale.txt", "czh-98/REALY")):
        (realy / path).rename(realy / "away")
        assert run("realy", realy, "--predictions", str(realy.parent / "fits")) == 2
        assert told in capsys.readouterr().err
        (realy / "away").rename(realy / path)
    shutil.rmtree(realy / "REALY_image")
    assert run("realy", realy, "--predictions", str(realy.parent / "fits")) == 2
    assert "no photos found" in capsys.readouterr().err


def test_realy_without_a_scale_for_the_subject(realy, capsys):
    for scales in (b"8.5\n", b"8.5\nnan\n", b"8.5\n0\n", b"8.5\n-9\n", b"8.5\ninf\n", b"\xff\xfe"):
        (realy / "metrical_scale.txt").write_bytes(scales)
        assert run("realy", realy, "--predictions", str(realy.parent / "fits")) == 2
        assert "has no positive number in line 2" in capsys.readouterr().err


# AFLW2000-3D


@pytest.fixture
def aflw(tmp_path):
    """Four photos by yaw; predictions off by 3-4-5 in a box of 40 x 10, so by 25 %; the first photo has two faces."""
    folder, random = tmp_path / "AFLW2000", np.random.default_rng(0)
    folder.mkdir()
    for name, yaw, off in (
        ("image00002", 30.0, 1.0),
        ("image00004", -31, 2),
        ("image00006", 89, 0),
        ("image00008", 5, 0),
    ):
        points = np.column_stack([random.uniform(0, 40, 68), random.uniform(0, 10, 68)]) + [20, 30]
        points[0], points[1] = [20, 30], [60, 40]
        stored = np.concatenate([points + 0.5, np.zeros((68, 1))], 1).T  # MATLAB: the first pixel's centre is 1
        pose = np.radians([[10, yaw, 3, 0, 0, 0, 0]])
        scipy.io.savemat(folder / f"{name}.mat", {"pt3d_68": stored, "Pose_Para": pose})
        photo(folder / f"{name}.jpg")
        found = points + off * np.array([3, -4])
        model = np.column_stack([(found[:, 0] - 40) / 100, (60 - found[:, 1]) / 100, np.zeros(68)])
        faces = [model + [5, 5, 0], model] if name == "image00002" else [model]
        for number, face in enumerate(faces):
            write_face(tmp_path / "fits" / name, landmarks=face, number=number)
    return folder


def test_aflw2000_by_yaw(aflw, capsys):
    assert run("aflw2000", aflw, "--predictions", str(aflw.parent / "fits")) == 0
    summary = results(aflw)["summary"]
    assert summary["0-30"] == pytest.approx(12.5, abs=1e-3)  # of 25 and 0: thirty degrees are in the first bin
    assert summary["30-60"] == pytest.approx(50, abs=1e-3) and summary["60-90"] == pytest.approx(0, abs=1e-3)
    assert summary["mean of the bins"] == pytest.approx(62.5 / 3, abs=1e-3)
    assert "3.51" in capsys.readouterr().out


def test_faces_turned_beyond_a_right_angle_are_in_the_last_bin(aflw):
    truth = scipy.io.loadmat(aflw / "image00004.mat")
    truth["Pose_Para"][0, 1] = np.radians(-97)
    scipy.io.savemat(aflw / "image00004.mat", {name: truth[name] for name in ("pt3d_68", "Pose_Para")})
    assert run("aflw2000", aflw, "--predictions", str(aflw.parent / "fits")) == 0
    summary = results(aflw)["summary"]
    assert summary["30-60"] is None and summary["60-90"] == pytest.approx(25, abs=1e-3)  # of 50 and 0


def test_numbers_that_are_none_are_told_and_left_out(aflw, capsys):
    truth = scipy.io.loadmat(aflw / "image00004.mat")
    truth["pt3d_68"][0, 3] = np.nan
    scipy.io.savemat(aflw / "image00004.mat", {name: truth[name] for name in ("pt3d_68", "Pose_Para")})
    fits = aflw.parent / "fits"
    record = fits / "image00006" / "face_0" / "coefficients.json"
    content = json.loads(record.read_text())
    content["landmarks68"]["model"][5][0] = float("nan")
    record.write_text(json.dumps(content))
    assert run("aflw2000", aflw, "--predictions", str(fits)) == 1
    told = capsys.readouterr().err
    assert "image00004.mat: its pt3d_68 or Pose_Para are not all finite" in told
    assert "image00006: its coefficients.json is not as jaxface writes it" in told
    assert results(aflw)["summary"]["0-30"] == pytest.approx(12.5, abs=1e-3)


def test_aflw2000_without_truth(aflw, capsys):
    scipy.io.savemat(aflw / "image00004.mat", {"other": np.zeros(3)})
    assert run("aflw2000", aflw, "--predictions", str(aflw.parent / "fits")) == 1
    assert "image00004.mat: has no pt3d_68" in capsys.readouterr().err
    (aflw / "image00004.mat").unlink()
    assert run("aflw2000", aflw, "--predictions", str(aflw.parent / "fits")) == 2
    assert "image00004.mat: not found" in capsys.readouterr().err


# Part IoU


@pytest.fixture
def parsed(tmp_path):
    """Two photos with a nose and a left eye; the second's nose is predicted with half of its pixels."""
    folder = tmp_path / "mine"
    for name, rows in (("a", 4), ("b", 2)):
        photo(folder / "images" / f"{name}.jpg")
        labels = np.zeros((20, 20), np.uint8)
        labels[5:9, 5:9], labels[2:4, 12:14] = 10, 4  # BiSeNet's nose and left eye
        (folder / "labels").mkdir(exist_ok=True)
        Image.fromarray(labels).save(folder / "labels" / f"{name}.png")
        predicted = np.zeros((20, 20), np.uint8)
        predicted[5 : 5 + rows, 5:9], predicted[2:4, 12:14] = 5, 1  # ours
        write_face(tmp_path / "fits" / name, parts=predicted)
    (folder / "dataset.json").write_text('{"labels": "bisenet"}')
    return folder


def test_part_iou_with_the_labels_of_a_parser(parsed, capsys):
    assert run("part_iou", parsed, "--predictions", str(parsed.parent / "fits")) == 0
    summary = results(parsed)["summary"]
    assert summary["nose"] == pytest.approx(75) and summary["left eye"] == pytest.approx(100)
    assert summary["mean of seven"] == pytest.approx(87.5) and summary["upper lip"] is None
    assert "73.82" in capsys.readouterr().out


def test_part_iou_says_what_is_wrong(parsed, capsys):
    Image.new("L", (10, 10)).save(parsed / "labels" / "a.png")
    assert run("part_iou", parsed, "--predictions", str(parsed.parent / "fits")) == 1
    assert "10 x 10 pixels, but the photo is 20 x 20" in capsys.readouterr().err
    (parsed / "labels" / "a.png").unlink()
    assert run("part_iou", parsed, "--predictions", str(parsed.parent / "fits")) == 2
    assert "a.png: not found" in capsys.readouterr().err


def test_an_unknown_order_of_labels_is_told_before_anything_is_fitted(parsed, capsys):
    (parsed / "dataset.json").write_text('{"labels": "mine"}')
    assert run("part_iou", parsed) == 2
    assert "dataset.json: labels 'mine' are not known" in capsys.readouterr().err


def test_photos_that_share_a_name_are_told(parsed, capsys):
    photo(parsed / "images" / "a.png")
    assert run("part_iou", parsed, "--predictions", str(parsed.parent / "fits")) == 2
    assert "a.png and" in capsys.readouterr().err


def test_photos_without_parts_have_no_part_iou(parsed):
    for name in ("a", "b"):
        Image.new("L", (20, 20)).save(parsed / "labels" / f"{name}.png")
    assert run("part_iou", parsed, "--predictions", str(parsed.parent / "fits")) == 0
    assert set(results(parsed)["summary"].values()) == {None}


# the command


def test_options_that_do_not_go_together(parsed, tmp_path, capsys):
    assert run("part_iou", tmp_path / "nowhere") == 2
    assert "nowhere: no such folder. Expected is" in capsys.readouterr().err
    (parsed.parent / "out").write_text("")
    assert run("part_iou", parsed) == 2
    assert "cannot make the folder" in capsys.readouterr().err
    (parsed.parent / "out").unlink()
    assert run("part_iou", parsed, "--predictions", str(tmp_path / "nothing")) == 2
    assert "nothing: no such folder; it should hold what python -m jaxface.fit" in capsys.readouterr().err
    assert run("part_iou", parsed, "--predictions", "a", "--checkpoint", "b") == 2
    assert "one of the two" in capsys.readouterr().err
    for arguments, told in (
        (["data"], "--checkpoint is required"),
        (["data", "--checkpoint", "a", "--predictions", "b"], "goes with"),
    ):
        with pytest.raises(SystemExit) as stop:
            evaluate.main(arguments)
        assert stop.value.code == 2 and told in capsys.readouterr().err


def test_the_help_tells_each_layout(capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["--help"])
    printed = capsys.readouterr().out
    assert all(benchmark.layout in printed for benchmark in benchmarks.BENCHMARKS.values())


def test_the_table_is_even_and_says_nothing_where_nothing_is_known():
    table = benchmarks.benchmark_table(benchmarks.BENCHMARKS["realy"], {"mine": {"frontal, all": 1.25}}).splitlines()
    assert len({len(line) for line in table}) == 1 and table[-1].startswith("| mine ")
    assert [cell.strip() for cell in table[-1].split("|")[2:4]] == ["1.250", "-"]
