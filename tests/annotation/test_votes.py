"""Votes for the parts: the count and each cleaning step against plain Python; true labels recover the parts."""

import collections
import dataclasses

import numpy as np
import pytest

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
from jaxface.core.parts import LABELS, MIRRORED_PARTS, PARTS
from jaxface.render import label_triangles
from toys.models import toy_model


@pytest.fixture(scope="module")
def ballot(drawn):
    model, _, views, labels = drawn
    result = Ballot.empty(model)
    for view, label in zip(views, labels, strict=True):
        result.add(view.triangle, view.barycentric, label)
    return result


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
