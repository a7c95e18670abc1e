"""The annotation tool: voting with true labels recovers the parts, its steps against plain Python, the program."""

import collections
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
from jaxface.annotation.views import draw_all_views, mesh_box, view_camera
from jaxface.annotation.votes import (
    Ballot,
    clean_islands,
    count_votes,
    elect,
    fill_holes,
    merge_edits,
    mesh_graph,
    mesh_rim,
    mirror_partners,
    part_overlap,
    parts_of_labels,
    whole_skin,
)
from jaxface.core.coefficients import Coefficients
from jaxface.core.errors import InputError, MissingDependencyError
from jaxface.core.landmarks import MIRRORED_68
from jaxface.core.parts import LABELS, MIRRORED_PARTS, PARTS, cut_forehead
from jaxface.core.skinning import Skinning
from jaxface.models import load_face_model
from jaxface.render import label_triangles
from toys.models import toy_model

SIZE, VIEWS = 256, 24


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    monkeypatch.setattr(annotator, "SIZE", SIZE)


@pytest.fixture
def no_detector(monkeypatch):
    def missing(image):
        raise MissingDependencyError("face detection needs MediaPipe")

    monkeypatch.setattr(annotator, "detect_faces", missing)


@pytest.fixture(scope="module")
def drawn(quick_compilation):
    """Model, coefficients, views and true label maps of anny."""
    model = load_face_model("anny")
    box = mesh_box(model)
    vectors = views_module.random_views(model, VIEWS, seed=3, box=box)
    views = list(draw_all_views(model, vectors, view_camera(box, size=SIZE)))
    table = label_triangles(model.parts, model.triangles)
    labels = [cut_forehead(np.where(view.triangle >= 0, table[view.triangle], 0).astype(np.uint8)) for view in views]
    return model, vectors, views, labels


@pytest.fixture(scope="module")
def ballot(drawn):
    model, _, views, labels = drawn
    result = Ballot.empty(model)
    for view, label in zip(views, labels, strict=True):
        result.add(view.triangle, view.barycentric, label)
    return result


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


def test_a_view_follows_from_its_number_and_the_seed(drawn):
    model, vectors, _, _ = drawn
    fewer = views_module.random_views(model, 2, seed=3)
    np.testing.assert_allclose(fewer, vectors[:2], atol=1e-6)
    other = views_module.random_views(model, 2, seed=4)
    assert np.abs(other - fewer).max(-1)[1] > 0.1


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


def test_votes_equal_a_plain_count():
    random = np.random.default_rng(0)
    triangles = random.integers(0, 12, (9, 3))
    triangle = random.integers(-1, 9, (7, 6))
    barycentric = random.dirichlet([1, 1, 1], (7, 6))
    labels = random.integers(0, 10, (7, 6)).astype(np.uint8)
    expected = np.zeros((12, 10))
    for row, column in np.ndindex(7, 6):
        if triangle[row, column] >= 0:
            for corner in range(3):
                vertex = triangles[triangle[row, column], corner]
                expected[vertex, labels[row, column]] += barycentric[row, column, corner]
    votes = count_votes(triangle, barycentric, labels, triangles, vertex_count=12)
    np.testing.assert_allclose(votes, expected, atol=1e-12)


def test_true_labels_recover_the_parts(drawn, ballot):
    model = drawn[0]
    elected, share = elect(ballot, mirror_partners(model))
    raw = part_overlap(parts_of_labels(elected), model.parts, model)
    assert min(overlap["area"] for overlap in raw.values()) > 0.95, raw
    graph = mesh_graph(model)
    labels = fill_holes(clean_islands(elected, graph), graph, mesh_rim(model))
    overlaps = part_overlap(parts_of_labels(labels), model.parts, model)
    assert set(overlaps) == set(PARTS)
    assert min(overlap["area"] for overlap in overlaps.values()) > 0.95, overlaps
    assert min(overlap["vertices"] for overlap in overlaps.values()) > 0.9, overlaps
    assert share[model.parts["nose"]].mean() > 0.9
    parts = parts_of_labels(labels)
    for part in PARTS:  # symmetric to the vertex
        mirrored = np.sort(np.asarray(model.mirror)[parts[part]])
        np.testing.assert_array_equal(mirrored, parts[MIRRORED_PARTS[part]])


def test_wrong_pictures_are_outvoted(drawn):
    model, _, views, labels = drawn
    spoiled = Ballot.empty(model)
    for index, (view, label) in enumerate(zip(views, labels, strict=True)):
        wrong = np.where(label > 0, LABELS["nose"], 0).astype(np.uint8)
        spoiled.add(view.triangle, view.barycentric, wrong if index % 4 == 3 else label)
    elected, _ = elect(spoiled, mirror_partners(model))
    overlaps = part_overlap(parts_of_labels(elected), model.parts, model)
    assert all(overlaps[part]["area"] > 0.85 for part in PARTS if part not in ("nose", "upper_lip", "lower_lip"))


def test_election_by_hand():
    votes = np.zeros((4, 10))
    votes[0, LABELS["left_eye"]] = 5
    votes[1, [LABELS["right_eye"], LABELS["nose"]]] = 1, 4  # its partner outvotes it
    votes[2, LABELS["skin"]] = 3
    ballot = Ballot(np.zeros((0, 3), int), votes, np.array([3, 3, 3, 0]), 3)
    labels, share = elect(ballot, np.array([1, 0, -1, -1]))
    assert labels.tolist() == [LABELS["left_eye"], LABELS["right_eye"], LABELS["skin"], 0]
    np.testing.assert_allclose(share, [0.6, 0.6, 1, 0])


def test_the_whole_skin_is_what_the_forehead_was_cut_from(drawn):
    model, _, views, labels = drawn
    table = label_triangles(model.parts, model.triangles)
    for view, cut in list(zip(views, labels, strict=True))[:6]:
        uncut = np.where(view.triangle >= 0, table[view.triangle], 0).astype(np.uint8)
        assert (cut != uncut).any()
        restored = whole_skin(cut)
        np.testing.assert_array_equal(restored[uncut == LABELS["skin"]], LABELS["skin"])
        np.testing.assert_array_equal(restored[uncut < LABELS["skin"]], uncut[uncut < LABELS["skin"]])
    no_brows = np.full((4, 4), 9, np.uint8)
    np.testing.assert_array_equal(whole_skin(no_brows), no_brows)


def grid_mesh(side):
    """A flat square mesh as a face model, and its neighbours as plain sets."""
    index = np.arange(side * side).reshape(side, side)
    a, b, c, d = (corner.ravel() for corner in (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]))
    triangles = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    x, y = np.meshgrid(np.arange(side), -np.arange(side))
    points = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], -1).astype(np.float32)
    neighbors = collections.defaultdict(set)
    for triangle in triangles.tolist():
        for vertex in triangle:
            neighbors[vertex] |= set(triangle) - {vertex}
    model = dataclasses.replace(toy_model(), mean_shape=points, triangles=triangles.astype(np.int32), mirror=None)
    return model, neighbors


def plain_pieces(members, neighbors):
    pieces, left = [], set(members)
    while left:
        piece, todo = set(), [min(left)]
        while todo:
            vertex = todo.pop()
            if vertex in left:
                left.remove(vertex)
                piece.add(vertex)
                todo += neighbors[vertex] & left
        pieces.append(piece)
    return pieces


def test_graph_and_rim_equal_plain_ones():
    model, neighbors = grid_mesh(5)
    graph = mesh_graph(model).toarray()
    assert {v: set(np.flatnonzero(graph[v])) for v in range(25)} == dict(neighbors)
    inner = {6, 7, 8, 11, 12, 13, 16, 17, 18}
    assert set(np.flatnonzero(mesh_rim(model))) == set(range(25)) - inner


def test_a_seam_of_the_texture_parts_nothing():
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]], np.float32)
    triangles = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    model = dataclasses.replace(toy_model(), mean_shape=points, triangles=triangles, mirror=None)
    labels = np.full(6, LABELS["skin"], np.uint8)
    np.testing.assert_array_equal(clean_islands(labels, mesh_graph(model)), labels)
    apart = dataclasses.replace(model, mean_shape=points + np.float32([[0, 0, 0]] * 3 + [[0, 0, 1]] * 3))
    assert (clean_islands(labels, mesh_graph(apart)) == 0).sum() == 3


@pytest.mark.parametrize("seed", range(5))
def test_islands_go_and_the_largest_pieces_stay(seed):
    model, neighbors = grid_mesh(12)
    random = np.random.default_rng(seed)
    labels = np.kron(random.integers(1, 5, (4, 4)), np.ones((3, 3), int)).ravel()
    noise = random.random(144) < 0.08
    labels = np.where(noise, random.integers(1, 9, 144), labels).astype(np.uint8)
    cleaned = clean_islands(labels, mesh_graph(model))
    for label in LABELS.values():
        pieces = plain_pieces(np.flatnonzero(labels == label).tolist(), neighbors)
        assert len(plain_pieces(np.flatnonzero(cleaned == label).tolist(), neighbors)) <= 1
        sizes = sorted(map(len, pieces), reverse=True)
        if len(sizes) > 1 and sizes[0] > sizes[1] + 40:  # clear, so no order of removal changes it
            assert all(cleaned[vertex] == label for vertex in max(pieces, key=len))


def test_one_island_becomes_what_is_around_it():
    model, _ = grid_mesh(7)
    labels = np.full((7, 7), LABELS["skin"], np.uint8)
    labels[:, 4:] = LABELS["nose"]
    labels[2, 1], labels[3, 5] = LABELS["nose"], LABELS["skin"]
    cleaned = clean_islands(labels.ravel(), mesh_graph(model)).reshape(7, 7)
    assert cleaned[2, 1] == LABELS["skin"] and cleaned[3, 5] == LABELS["nose"]
    assert (cleaned != labels).sum() == 2


def test_holes_are_filled_but_not_mouths_rims_and_large_ones():
    model, _ = grid_mesh(16)
    skin, upper, lower = LABELS["skin"], LABELS["upper_lip"], LABELS["lower_lip"]
    labels = np.full((16, 16), skin, np.uint8)
    labels[3, 3:5] = 0  # a hole
    labels[9, 4:10], labels[10, 5:9], labels[11, 4:10], labels[10, 4], labels[10, 9] = upper, 9, lower, upper, lower
    labels[0, 8:11] = 0  # at the rim
    filled = fill_holes(labels.ravel(), mesh_graph(model), mesh_rim(model)).reshape(16, 16)
    expected = labels.copy()
    expected[3, 3:5] = skin
    np.testing.assert_array_equal(filled, expected)
    large = np.full((16, 16), skin, np.uint8)
    large[3:12, 3:12] = 0
    np.testing.assert_array_equal(fill_holes(large.ravel(), mesh_graph(model), mesh_rim(model)), large.ravel())


def test_mirror_partners_of_a_mesh_without_a_table(anny):
    found = mirror_partners(dataclasses.replace(anny, mirror=None))
    assert (found == anny.mirror).mean() > 0.99
    lopsided = anny.mean_shape.copy()
    left = anny.mean_shape[:, 0] > 0.3
    lopsided[left, 2] += 0.3
    found = mirror_partners(dataclasses.replace(anny, mirror=None, mean_shape=lopsided))
    assert (found[left] == -1).mean() > 0.5


def test_edits_by_hand():
    parts = {"nose": np.array([1, 2, 3]), "skin": np.array([4, 5, 6, 7])}
    edits = {
        "part/left_eye": np.array([4, 10]), "add/nose": np.array([5, 6]), "remove/nose": np.array([1]),
        "remove/skin": np.array([99]), "right_eye": np.array([11]),
    }  # fmt: skip
    merged = {part: vertices.tolist() for part, vertices in merge_edits(parts, edits).items()}
    assert merged == {"left_eye": [4, 10], "right_eye": [11], "nose": [2, 3, 5, 6], "skin": [7]}
    assert list(merged) == [part for part in PARTS if part in merged]
    assert "nose" not in merge_edits(parts, {"nose": np.zeros(0, int)})
    assert parts["nose"].tolist() == [1, 2, 3]


def test_overlap_equals_plain_sets():
    model, _ = grid_mesh(4)  # inner vertices stand for six triangles of area 1/2, a third each: 1
    known = {"nose": np.array([5, 6, 9]), "skin": np.array([0])}
    overlaps = part_overlap({"nose": np.array([6, 9, 10])}, known, model)
    assert overlaps["nose"] == pytest.approx({"vertices": 0.5, "area": 0.5})
    assert overlaps["skin"] == {"vertices": 0.0, "area": 0.0}


def test_landmarks_are_found_from_noisy_pictures(drawn, anny):
    views = drawn[2]
    random = np.random.default_rng(0)
    costs = LandmarkCosts.empty(len(anny.mean_shape))
    for index, view in enumerate(views):
        places = view.points[anny.landmarks["68"]] + random.normal(size=(68, 2)) * 0.5
        if index % 6 == 5:
            places += 60  # the detector went astray
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


def test_without_the_detector_the_default_parser_says_so(no_detector, tmp_path):
    with pytest.raises(MissingDependencyError):
        annotate.main(["anny", "--out", str(tmp_path / "parts.npz")])
    assert not list(tmp_path.iterdir())


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
def test_mediapipe_finds_parts_and_landmarks_of_a_bare_mesh(quick_compilation, monkeypatch, tmp_path, anny):
    """A model without parts, landmarks, contours, mirror table and albedo basis."""
    pytest.importorskip("mediapipe", reason="MediaPipe (extra 'photo') is not installed")
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
