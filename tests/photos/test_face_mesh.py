"""The mesh's index tables against MediaPipe's own, polygon filling against its definition, and the label map."""

import numpy as np
import pytest

from jaxface.core import landmarks, parts
from jaxface.photos import face_mesh
from jaxface.photos.face_mesh import fill_polygon, ibug_landmarks, label_map, part_loops


def edges(loop, *, closed=True):
    pairs = zip(loop, loop[1:] + loop[:1] if closed else loop[1:], strict=False)
    return {frozenset(pair) for pair in pairs}


def test_loops_are_mediapipes():
    pytest.importorskip("mediapipe", reason="MediaPipe is not installed")
    from mediapipe.python.solutions import face_mesh_connections as mediapipe

    def same(loop_edges, theirs):
        assert loop_edges == {frozenset(edge) for edge in theirs}

    same(edges(face_mesh.FACE_OVAL), mediapipe.FACEMESH_FACE_OVAL)
    same(edges(face_mesh.LEFT_EYE), mediapipe.FACEMESH_LEFT_EYE)
    same(edges(face_mesh.RIGHT_EYE), mediapipe.FACEMESH_RIGHT_EYE)
    for side in ("LEFT", "RIGHT"):
        top, bottom = (getattr(face_mesh, f"{side}_BROW_{edge}") for edge in ("TOP", "BOTTOM"))
        same(edges(top, closed=False) | edges(bottom, closed=False), getattr(mediapipe, f"FACEMESH_{side}_EYEBROW"))
    lips = ("UPPER_LIP_TOP", "UPPER_LIP_BOTTOM", "LOWER_LIP_TOP", "LOWER_LIP_BOTTOM")
    same(set().union(*(edges(getattr(face_mesh, lip), closed=False) for lip in lips)), mediapipe.FACEMESH_LIPS)


def test_68_distinct_places():
    assert landmarks.IBUG_68.shape == (68,)
    assert len(set(landmarks.IBUG_68.tolist())) == 68
    assert landmarks.IBUG_68.max() < 468  # no irises


def inside_by_winding(polygon, x, y):
    """Whether a point lies inside: the angles to the corners add up to a full turn (for simple polygons)."""
    to_corner = polygon - [x, y]
    angles = np.arctan2(to_corner[:, 1], to_corner[:, 0])
    turns = (np.diff(angles, append=angles[:1]) + np.pi) % (2 * np.pi) - np.pi
    return abs(turns.sum()) > np.pi


@pytest.mark.parametrize("seed", range(4))
def test_polygon_holds_the_pixels_whose_centre_is_inside(seed):
    random = np.random.default_rng(seed)
    angles = np.sort(random.uniform(0, 2 * np.pi, 9))
    radii = random.uniform(4, 22, 9)
    polygon = np.stack([17 + radii * np.cos(angles), 12 + radii * np.sin(angles)], -1)  # reaches beyond the picture
    mask = fill_polygon(polygon, 24, 30)
    expected = [[inside_by_winding(polygon, j + 0.5, i + 0.5) for j in range(30)] for i in range(24)]
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(fill_polygon(polygon[::-1], 24, 30), mask)


def test_polygon_edge_cases():
    square = np.array([[2.0, 1.0], [5.0, 1.0], [5.0, 4.0], [2.0, 4.0]])
    expected = np.zeros((6, 8), bool)
    expected[1:4, 2:5] = True
    np.testing.assert_array_equal(fill_polygon(square, 6, 8), expected)
    assert fill_polygon(square * 0 + 3.3, 6, 8).sum() == 0  # no area
    assert fill_polygon(square + 100, 6, 8).sum() == 0
    assert fill_polygon(square - 100, 6, 8).sum() == 0
    assert fill_polygon(np.array([[-9.0, -9], [99, -9], [99, 99], [-9, 99]]), 6, 8).all()


def mean_face():
    """A rough frontal face in 200 x 200 pixels: only the points of the loops are placed."""
    points = np.full((478, 2), 100.0)

    def ellipse(loop, x, y, width, height, start):
        angles = start + np.arange(len(loop)) / len(loop) * 2 * np.pi
        points[loop] = np.stack([x + width * np.cos(angles), y + height * np.sin(angles)], -1)

    def band(top, bottom, x0, x1, y0, y1):
        points[top] = np.stack([np.linspace(x0, x1, len(top)), np.full(len(top), y0)], -1)
        points[bottom] = np.stack([np.linspace(x0, x1, len(bottom)), np.full(len(bottom), y1)], -1)

    ellipse(face_mesh.FACE_OVAL, 100, 100, 70, 90, -np.pi / 2)
    ellipse(face_mesh.RIGHT_EYE, 70, 80, 14, 6, np.pi)
    ellipse(face_mesh.LEFT_EYE, 130, 80, 14, 6, np.pi)
    ellipse(face_mesh.NOSE, 100, 105, 12, 22, -np.pi / 2)
    band(face_mesh.RIGHT_BROW_TOP, face_mesh.RIGHT_BROW_BOTTOM, 50, 90, 55, 63)
    band(face_mesh.LEFT_BROW_TOP, face_mesh.LEFT_BROW_BOTTOM, 110, 150, 55, 63)
    band(face_mesh.UPPER_LIP_TOP, face_mesh.UPPER_LIP_BOTTOM, 75, 125, 140, 147)
    band(face_mesh.LOWER_LIP_TOP, face_mesh.LOWER_LIP_BOTTOM, 75, 125, 153, 162)
    return points


def test_label_map_of_a_drawn_face():
    labels = label_map(mean_face(), 200, 200)
    at = {
        (80, 130): "left_eye", (80, 70): "right_eye", (59, 130): "left_brow", (59, 70): "right_brow",
        (105, 100): "nose",
        (143, 100): "upper_lip", (157, 100): "lower_lip", (130, 60): "skin", (180, 100): "skin",
    }  # fmt: skip
    for (row, column), part in at.items():
        assert labels[row, column] == parts.LABELS[part], part
    assert labels[150, 100] == parts.FOREHEAD  # the open mouth
    assert labels[30, 100] == parts.FOREHEAD
    assert labels[5, 5] == parts.BACKGROUND
    assert labels.dtype == np.uint8


def test_label_map_at_twice_the_size_and_out_of_the_picture():
    labels = label_map(mean_face(), 200, 200)
    doubled = label_map(mean_face() * 2, 400, 400)
    assert (doubled[::2, ::2] == labels).mean() > 0.98
    assert not label_map(mean_face() + 1000, 200, 200).any()
    np.testing.assert_array_equal(label_map(mean_face() - [50, 20], 100, 90), labels[20:120, 50:140])


def test_part_loops_have_all_parts():
    assert set(part_loops(mean_face())) == {*parts.PARTS, "mouth"}
    assert ibug_landmarks(mean_face()).shape == (68, 2)
