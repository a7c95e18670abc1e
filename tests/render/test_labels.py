import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.core import parts
from jaxface.render import label_map, label_triangles, rasterize, render_labels, vertex_visibility

SIZE = (48, 40)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def toy_face(turn=0.0):
    """A flat grid of 10 x 10 cells with brows, a nose and a mouth that belongs to no part; z-depth 10."""
    y, x = np.meshgrid(np.linspace(4, 44, 11), np.linspace(4, 36, 11), indexing="ij")
    points = np.stack([x, y], -1).reshape(-1, 2) - (20, 24)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (points @ rotation.T + (20, 24)).astype(np.float32)
    first = (np.arange(10)[:, None] * 11 + np.arange(10)).ravel()
    triangles = np.concatenate(
        [np.stack([first, first + 1, first + 12], -1), np.stack([first, first + 12, first + 11], -1)]
    )
    index = np.arange(121).reshape(11, 11)
    members = {
        "right_brow": index[2:4, 1:5].ravel(),
        "left_brow": index[2:4, 6:10].ravel(),
        "nose": index[5:7, 4:7].ravel(),
    }
    mouth = index[8:10, 3:8].ravel()
    used = np.concatenate([*members.values(), mouth])
    members["skin"] = np.setdiff1d(np.arange(121), used)
    return points, np.full(121, 10.0, np.float32), triangles, members


def test_triangles_vote_by_their_corners():
    members = {"upper_lip": np.array([0, 1]), "skin": np.array([2, 3, 4]), "nose": np.array([7])}
    triangles = np.array([[0, 1, 2], [0, 2, 3], [0, 2, 7], [5, 6, 0], [2, 3, 5], [5, 6, 8], [0, 2, 5]])
    names = ["upper_lip", "skin", "nose", None, "skin", None, "upper_lip"]
    expected = [parts.LABELS.get(name, parts.FOREHEAD) for name in names]
    labels = label_triangles(members, triangles)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.slow
def test_label_map_has_the_parts_where_they_are_and_the_forehead_cut():
    points, depth, triangles, members = toy_face()
    labels = render_labels(points, depth, triangles, label_triangles(members, triangles), image_size=SIZE)
    assert labels.shape == SIZE and labels.dtype == jnp.uint8
    labels = np.asarray(labels)
    assert labels[0, 0] == parts.BACKGROUND
    assert labels[26, 20] == parts.LABELS["nose"]
    assert labels[13, 30] == parts.LABELS["left_brow"]  # the subject's left is on the picture's right
    assert labels[13, 10] == parts.LABELS["right_brow"]
    assert labels[37, 20] == parts.FOREHEAD  # the mouth, in no part
    assert labels[6, 20] == parts.FOREHEAD  # skin above the brows
    assert labels[42, 20] == parts.LABELS["skin"]


@pytest.mark.slow
def test_forehead_cut_is_that_of_the_target_also_in_batches():
    meshes = [toy_face(turn) for turn in (0.0, 0.4, -0.7)]
    triangles, labels = meshes[0][2], label_triangles(meshes[0][3], meshes[0][2])
    points, depth = (np.stack([mesh[i] for mesh in meshes]) for i in (0, 1))
    uncut = np.array([0, *range(1, 8), 8, parts.FOREHEAD], np.uint8)
    fragments = jax.jit(rasterize, static_argnames="image_size")(points, depth, triangles, image_size=SIZE)
    result = label_map(fragments, labels)
    for triangle, one in zip(np.asarray(fragments.triangle), np.asarray(result), strict=True):
        plain = np.where(triangle >= 0, uncut[labels][triangle], 0).astype(np.uint8)
        np.testing.assert_array_equal(one, parts.cut_forehead(plain))


@pytest.mark.slow
def test_no_cut_without_both_brows():
    points, depth, triangles, members = toy_face()
    members = {part: vertices for part, vertices in members.items() if part != "left_brow"}
    labels = render_labels(points, depth, triangles, label_triangles(members, triangles), image_size=SIZE)
    assert labels[6, 20] == parts.LABELS["skin"]


def test_mesh_without_triangles_is_all_background():
    none = np.zeros((0, 3), np.int32)
    assert label_triangles({}, none).shape == (0,)
    labels = render_labels(np.zeros((2, 4, 2)), np.ones((2, 4)), none, np.zeros(0, np.uint8), image_size=8)
    np.testing.assert_array_equal(labels, np.zeros((2, 8, 8)))


@pytest.mark.slow
def test_visibility_of_two_layers():
    points, depth, triangles, _ = toy_face()
    both_points = np.concatenate([points, points + np.float32(1.5)])
    both = np.concatenate([triangles, triangles + 121])
    both_depth = np.concatenate([depth, depth + 1])
    fragments = rasterize(both_points, both_depth, both, image_size=SIZE)
    seen = np.asarray(vertex_visibility(fragments, both_points, both_depth))
    assert seen[:121].all()
    covered = (both_points[121:] < points.max(0) - 1).all(-1)
    assert not seen[121:][covered].any()


@pytest.mark.slow
def test_visibility_outside_behind_and_not_a_number():
    points, depth, triangles, _ = toy_face()
    fragments = rasterize(points, depth, triangles, image_size=SIZE)
    probes = np.array([[-3, 20], [20, 60], [20, 20], [np.nan, 20], [1, 1], [20, 20]], np.float32)
    probe_depth = np.array([10, 10, -1, 10, 10, 10], np.float32)
    seen = vertex_visibility(fragments, probes, probe_depth)
    np.testing.assert_array_equal(seen, [False, False, False, False, True, True])


@pytest.mark.slow
def test_visibility_of_a_sphere_is_its_near_side():
    angle, turn = np.meshgrid(np.linspace(0.05, np.pi - 0.05, 40), np.linspace(0, 2 * np.pi, 80), indexing="ij")
    v = np.stack([np.sin(angle) * np.cos(turn), np.cos(angle), np.sin(angle) * np.sin(turn)], -1).reshape(-1, 3)
    first = (np.arange(39)[:, None] * 80 + np.arange(79)).ravel()
    triangles = np.concatenate(
        [np.stack([first, first + 1, first + 81], -1), np.stack([first, first + 81, first + 80], -1)]
    )
    points, depth = (v[:, :2] * 20 + 24).astype(np.float32), (10 - v[:, 2]).astype(np.float32)
    fragments = rasterize(points, depth, triangles, image_size=48)
    seen = np.asarray(vertex_visibility(fragments, points, depth, tolerance=0.1))  # a pixel is 0.05 wide
    assert seen[v[:, 2] > 0.2].all()
    assert not seen[v[:, 2] < -0.3].any()
