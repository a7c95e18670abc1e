"""The annotation tool: voting with true labels recovers the parts, its steps against plain Python, the program."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from jaxface import annotate
from jaxface.annotation import annotator
from jaxface.annotation import views as views_module
from jaxface.annotation.files import read_edits, read_views
from jaxface.annotation.landmarks import LandmarkCosts, choose_landmarks, contour_lines
from jaxface.annotation.views import mesh_box
from jaxface.annotation.votes import (
    mirror_partners,
    part_overlap,
)
from jaxface.core.coefficients import Coefficients
from jaxface.core.errors import InputError
from jaxface.core.landmarks import MIRRORED_68
from jaxface.core.parts import PARTS
from jaxface.core.skinning import Skinning
from jaxface.models import load_face_model
from toys.models import toy_model
from toys.views import SIZE, VIEWS

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    monkeypatch.setattr(annotator, "SIZE", SIZE)


@pytest.fixture
def no_detector(monkeypatch):
    monkeypatch.setattr(annotator, "detect_faces", lambda image: [])


@pytest.mark.slow
def test_views_show_faces_and_the_first_is_the_mean_one(drawn):
    model, vectors, views, _ = drawn
    coefficients = Coefficients.from_vector(vectors, model)
    assert not np.asarray(coefficients.identity[0]).any() and not np.asarray(coefficients.angles[0]).any()
    assert np.abs(np.asarray(coefficients.identity[1:])).max(-1).min() > 0.5
    assert np.rad2deg(np.abs(np.asarray(coefficients.angles)[:, 1]).max()) > 25
    for view in views:
        shown = view.triangle >= 0
        assert 0.2 < shown.mean() < 0.8
        assert not shown[[0, -1]].any() and not shown[:, [0, -1]].any()
    assert view.image.dtype == np.uint8 and view.image.shape == (SIZE, SIZE, 3)


@pytest.mark.slow
def test_a_view_follows_from_its_number_and_the_seed(drawn):
    model, vectors, _, _ = drawn
    fewer = views_module.random_views(model, 2, seed=3)
    np.testing.assert_allclose(fewer, vectors[:2], atol=1e-6)
    other = views_module.random_views(model, 2, seed=4)
    assert np.abs(other - fewer).max(-1)[1] > 0.1


@pytest.mark.slow
def test_joints_get_small_angles_only_the_jaw(anny):
    toy = toy_model()
    joints = Skinning(
        joints=np.zeros((4, 3), np.float32),
        joint_identity_basis=np.zeros((4, 3, 3), np.float32),
        joint_expression_basis=np.zeros((4, 3, 2), np.float32),
        weights=np.full((81, 4), 0.25, np.float32),
        pose_basis=np.zeros((81, 3, 27), np.float32),
        parents=(-1, 0, 1, 1),
        posed=(1, 2, 3),
    )
    vectors = views_module.random_views(dataclasses.replace(toy, skinning=joints), 40, seed=0)
    assert vectors.shape == (40, 3 + 2 + 9 + 3 + 33)
    units, jaw, others = vectors[1:, 3:5], vectors[1:, 5], vectors[1:, 6:14]
    assert (units >= 0).all() and units.max() <= 1 and (units > 0).any()
    assert jaw.min() >= 0 and 0.2 < jaw.max() <= 0.3 and not others.any()


@pytest.mark.slow
def test_landmarks_are_found_from_noisy_pictures(drawn, anny):
    views = drawn[2]
    random = np.random.default_rng(0)
    costs = LandmarkCosts.empty(len(anny.mean_shape))
    for index, view in enumerate(views):
        places = view.points[anny.landmarks["68"]] + random.normal(size=(68, 2)) * 0.5
        if index % 6 == 5:
            places += 60  # the detector is wrong
        costs.add(view.points, view.visible, places)
    found = choose_landmarks(costs, anny, mirror_partners(anny), anny.parts)
    off = 100 * np.linalg.norm(anny.mean_shape[found] - anny.mean_shape[anny.landmarks["68"]], axis=-1)
    assert np.median(off) < 1 and np.median(off[:17]) < 6 and off[17:].max() < 6, np.round(off, 1)
    assert set(found[[61, 62, 63]]) <= set(anny.parts["upper_lip"].tolist())
    assert set(found[[65, 66, 67]]) <= set(anny.parts["lower_lip"].tolist())
    np.testing.assert_array_equal(anny.mirror[found], found[MIRRORED_68])


def test_landmark_costs_equal_a_plain_sum():
    random = np.random.default_rng(1)
    costs, expected = LandmarkCosts.empty(30), np.zeros((68, 30))
    for _ in range(3):
        points, marks, visible = random.uniform(0, 9, (30, 2)), random.uniform(0, 100, (68, 2)), random.random(30) < 0.7
        costs.add(points, visible, marks)
        radius = 0.05 * max(np.ptp(marks[:, 0]), np.ptp(marks[:, 1]))
        for landmark in range(68):
            for vertex in range(30):
                squared = ((points[vertex] - marks[landmark]) ** 2).sum() / radius**2
                expected[landmark, vertex] += min(squared, 1) if visible[vertex] else 1
    np.testing.assert_allclose(costs.total, expected, atol=1e-4)
    assert (expected < 3).any()


def test_contour_lines_run_over_the_cheeks(anny):
    lines = contour_lines(anny, anny.landmarks["68"], anny.parts["skin"])
    assert len(lines) == 17 and lines.dtype == np.int32
    np.testing.assert_array_equal(lines[:, 0], anny.landmarks["68"][:17])
    assert len(set(lines[8])) == 1
    x = anny.mean_shape[:, 0]
    assert (x[lines[:8]] < 0.05).all() and (x[lines[9:]] > -0.05).all()
    assert all(len(set(line)) > 5 for index, line in enumerate(lines) if index != 8)


def write_labels(folder, labels):
    folder.mkdir()
    for index, label in enumerate(labels):
        Image.fromarray(label).save(folder / annotator.picture_name(index))


@pytest.mark.slow
def test_the_program_with_label_maps_on_disk(drawn, no_detector, tmp_path, capsys):
    model, vectors, _, labels = drawn
    renders = tmp_path / "renders"
    command = ["anny", "--render-only", str(renders), "--views", str(VIEWS), "--seed", "3"]
    assert annotate.main(command) == 0
    assert len(list(renders.glob("view_*.png"))) == VIEWS
    stored, box = read_views(renders, model)
    np.testing.assert_allclose(stored, vectors, atol=1e-6)
    np.testing.assert_allclose(box, mesh_box(model))
    write_labels(tmp_path / "labels", labels[:-4])  # an outside parser failed four times
    edits = tmp_path / "edits.npz"
    np.savez(edits, **{"remove/nose": model.parts["nose"][:5], "add/skin": model.parts["nose"][:5]})
    out = tmp_path / "parts.npz"
    command = ["anny", "--out", str(out), "--renders", str(renders), "--label-folder", str(tmp_path / "labels")]
    command += ["--labels", "jaxface", "--edit", str(edits), "--save-model", str(tmp_path / "model.npz")]
    assert annotate.main(command) == 0
    assert "IoU" in capsys.readouterr().out
    with np.load(out, allow_pickle=False) as content:
        assert set(content.files) == set(PARTS)  # no detector, no landmarks
        parts = dict(content)
    assert all(vertices.dtype == np.int32 for vertices in parts.values())
    assert set(model.parts["nose"][:5]) <= set(parts["skin"]) and not set(model.parts["nose"][:5]) & set(parts["nose"])
    report = json.loads(out.with_suffix(".json").read_text())
    assert report["pictures_parsed"] == VIEWS - 4 and not report["missing_parts"]
    assert min(overlap["area"] for overlap in report["iou_with_the_models_own_parts"].values()) > 0.95
    picture = np.asarray(Image.open(out.with_suffix(".png")))
    assert picture.shape[1] > 3 * SIZE and picture.std() > 20
    saved = load_face_model(tmp_path / "model.npz")
    np.testing.assert_array_equal(saved.parts["nose"], parts["nose"])
    np.testing.assert_array_equal(saved.landmarks["68"], model.landmarks["68"])
    assert saved.expression_names == load_face_model("anny").expression_names


@pytest.mark.slow
def test_nothing_is_written_when_nothing_can_be_parsed(drawn, no_detector, tmp_path):
    renders, labels, out = tmp_path / "renders", tmp_path / "labels", tmp_path / "out" / "parts.npz"
    assert annotate.main(["anny", "--render-only", str(renders), "--views", "2"]) == 0
    labels.mkdir()
    command = ["anny", "--out", str(out), "--renders", str(renders), "--label-folder", str(labels)]
    command += ["--labels", "lapa"]
    with pytest.raises(InputError, match="none of the 2 pictures"):
        annotate.main(command)
    Image.new("L", (30, 30)).save(labels / "view_0001.png")
    with pytest.raises(InputError, match=r"view_0001.png: is 30 x 30 pixels"):
        annotate.main(command)
    Image.new("L", (SIZE, SIZE), 11).save(labels / "view_0001.png")
    with pytest.raises(InputError, match="holds the value 11"):
        annotate.main(command)
    assert not out.parent.exists()


@pytest.mark.slow
def test_pictures_of_another_model_are_refused(drawn, tmp_path, anny):
    vectors = drawn[1]
    shape = np.asarray(anny.mean_shape)
    good = {"vectors": vectors, "box": mesh_box(anny).astype(np.float32), "mean_shape": shape}
    bad = [{"mean_shape": shape[:-1]}, {"vectors": vectors[:, 1:]}, {"vectors": vectors[:0]}, {"box": np.zeros(3)}]
    for changed in [*bad, {"vectors": np.full_like(vectors, np.nan)}]:
        np.savez(tmp_path / "views.npz", **(good | changed))
        with pytest.raises(InputError, match="--render-only"):
            read_views(tmp_path, anny)
    np.savez(tmp_path / "views.npz", **good)
    np.testing.assert_array_equal(read_views(tmp_path, anny)[0], vectors)
    with pytest.raises(InputError, match="no such file"):
        read_views(tmp_path / "elsewhere", anny)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"chin": np.array([1])}, "'chin' is not a part"),
        ({"add/chin": np.array([1])}, "'add/chin' is not a part"),
        ({"nose": np.array([0.5])}, "integers"),
        ({"nose": np.array([[1]])}, "shape"),
        ({"nose": np.array([-1])}, "names vertex -1"),
        ({"add/nose": np.array([10**6])}, "names vertex 1000000"),
        ({"landmarks/68": np.arange(5)}, "68 vertex indices"),
    ],
)
def test_edits_that_cannot_be_used(arrays, message, tmp_path, anny):
    np.savez(tmp_path / "edits.npz", **arrays)
    with pytest.raises(InputError, match=message) as error:
        read_edits(tmp_path / "edits.npz", anny)
    assert "edits.npz" in str(error.value) and "\n" not in str(error.value)


def test_edit_files_that_are_none(tmp_path, anny):
    (tmp_path / "edits.npz").write_bytes(b"PK\x03\x04 and then nothing")
    for name in ("edits.npz", "missing.npz"):
        with pytest.raises(InputError, match=name):
            read_edits(tmp_path / name, anny)
    np.savez(tmp_path / "edits.npz", nose=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match=r"edits.npz"):
        read_edits(tmp_path / "edits.npz", anny)


@pytest.mark.parametrize(
    "arguments",
    [["anny"], ["anny", "--out", "a.npz", "--render-only", "b"], ["anny", "--out", "a.npz", "--renders", "b"],
     ["anny", "--out", "a.npz", "--views", "0"], ["anny", "--out", "a.npz", "--labels", "nonsense"]],
)  # fmt: skip
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        annotate.main(arguments)
    assert stopped.value.code == 2
    assert "usage: python -m jaxface.annotate" in capsys.readouterr().err


def test_results_are_npz_files(tmp_path):
    with pytest.raises(InputError, match=r"parts.json: the result is an .npz file"):
        annotate.main(["anny", "--out", str(tmp_path / "parts.json")])


@pytest.mark.slow
def test_mediapipe_finds_parts_and_landmarks_of_a_bare_mesh(monkeypatch, tmp_path, anny):
    """A model without parts, landmarks, contours, mirror table and albedo basis."""
    bare = dataclasses.replace(
        anny, parts={}, landmarks={}, contours={}, mirror=None, uv=None, name="bare",
        albedo_basis=anny.albedo_basis[..., :0],
    )  # fmt: skip
    monkeypatch.setattr(annotator, "load_face_model", lambda name: bare)
    out = tmp_path / "parts.npz"
    assert annotate.main(["bare", "--out", str(out), "--views", "24"]) == 0
    with np.load(out) as content:
        parts = {part: content[part] for part in PARTS}
        landmarks = content["landmarks/68"]
        assert content["contours/68"].shape[0] == 17
    overlaps = part_overlap(parts, anny.parts, anny)
    assert all(overlaps[part]["area"] > 0.6 for part in PARTS), overlaps
    assert min(len(parts[part]) for part in PARTS) > 30
    off = 100 * np.linalg.norm(anny.mean_shape[landmarks] - anny.mean_shape[anny.landmarks["68"]], axis=-1)
    assert np.median(off[27:]) < 3, np.round(off, 1)  # nose, eyes and lips
