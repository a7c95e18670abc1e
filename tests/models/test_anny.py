"""The built-in face model: is it a face of real size, symmetric, well annotated, that moves as it should?"""

import time

import numpy as np
import pytest
import trimesh

import jaxface
from jaxface.core import face_models
from jaxface.core.landmarks import MIRRORED_68
from jaxface.core.parts import MIRRORED_PARTS, PARTS
from jaxface.models.registry import BUILT_IN
from jaxface.render import label_triangles, rasterize

FLIP = np.array([-1, 1, 1], np.float32)
UPPER_LIDS, LOWER_LIDS = [37, 38, 43, 44], [41, 40, 47, 46]


PIECES = 34
"""Connected ones: the face, 28 teeth and a loose facet of two, upper and lower gums, the tongue."""


@pytest.fixture(scope="module")
def names(anny):
    return anny.expression_names


def expressed(anny, names, **units):
    offset = sum(value * anny.expression_basis[:, :, names.index(name)] for name, value in units.items())
    return anny.mean_shape + offset


def test_file_is_small_and_loads_quickly(anny):
    assert BUILT_IN[anny.name].stat().st_size < 2.5e6
    start = time.perf_counter()
    jaxface.load_face_model(anny.name)
    assert time.perf_counter() - start < 1


def test_shapes(anny, names):
    count = len(anny.mean_shape)
    assert 8_000 <= count <= 16_000
    assert anny.identity_basis.shape == (count, 3, 80)
    assert anny.expression_basis.shape == (count, 3, len(names))
    assert anny.albedo_basis.shape == (count, 3, 46)
    assert anny.mean_shape.dtype == anny.identity_basis.dtype == anny.albedo_basis.dtype == np.float32
    assert anny.triangles.dtype == anny.mirror.dtype == np.int32
    assert len(set(names)) == len(names) == 52 and "jawOpen" in names


@pytest.mark.slow
def test_size_and_place(anny):
    marks = anny.mean_shape[anny.landmarks["68"]]
    assert 0.80 < marks[45, 0] - marks[36, 0] < 1.0  # outer corners of the eyes, in units of 10 cm
    assert 1.3 < np.ptp(anny.mean_shape[anny.parts["skin"], 0]) < 1.55
    points = np.asarray(jaxface.decode_face(anny, jaxface.Coefficients.zeros(anny), jaxface.Camera()).points[0])
    assert (points > 0).all() and (points < 224).all()
    assert 130 < np.ptp(points[:, 0]) < 155
    assert abs(points[anny.parts["nose"], 0].mean() - 112) < 0.5
    assert 75 < points[anny.parts["left_eye"], 1].mean() < 95


def test_normals_point_outward(anny):
    normals = np.asarray(face_models.vertex_normals(anny.mean_shape, anny.triangles))
    for part in PARTS:
        assert (normals[anny.parts[part], 2] > 0).mean() > 0.8, part
    cheeks = anny.mean_shape[anny.parts["skin"]]
    left = cheeks[:, 0] > 0.5
    assert (normals[anny.parts["skin"]][left, 0] > 0).all()


def test_mesh_is_a_manifold(anny):
    mesh = trimesh.Trimesh(anny.mean_shape, anny.triangles, process=False)
    assert mesh.is_winding_consistent
    edges = np.sort(anny.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    counts = np.unique(edges, axis=0, return_counts=True)[1]
    assert counts.max() == 2
    assert np.unique(anny.triangles).size == len(anny.mean_shape)
    assert mesh.body_count == PIECES
    assert mesh.area_faces.min() > 0


def test_texture_coordinates(anny):
    assert anny.uv.min() >= 0 and anny.uv.max() <= 1
    corners = anny.uv[anny.triangles]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    outside = np.isin(anny.triangles, np.concatenate(list(anny.parts.values()))).all(1)
    upright = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] > 0
    assert upright[outside].mean() > 0.995
    eyes = [anny.uv[anny.parts[part]].mean(0) for part in ("left_eye", "right_eye")]
    assert eyes[0][0] > 0.5 > eyes[1][0] and eyes[0][1] > anny.uv[anny.parts["lower_lip"], 1].max()


def test_symmetry(anny, names):
    mirror = anny.mirror
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(mirror)))
    np.testing.assert_allclose(anny.mean_shape[mirror] * FLIP, anny.mean_shape, atol=2e-5)
    np.testing.assert_allclose(anny.mean_albedo[mirror], anny.mean_albedo, atol=0.011)
    for part in PARTS:
        np.testing.assert_array_equal(np.sort(mirror[anny.parts[part]]), np.sort(anny.parts[MIRRORED_PARTS[part]]))
    np.testing.assert_array_equal(mirror[anny.landmarks["68"]], anny.landmarks["68"][MIRRORED_68])
    np.testing.assert_array_equal(mirror[anny.contours["68"]], anny.contours["68"][::-1])
    swapped = [n.replace("Left", "#").replace("Right", "Left").replace("#", "Right") for n in names]
    order = [names.index(n) for n in swapped]
    flipped = anny.expression_basis[mirror] * FLIP[None, :, None]
    np.testing.assert_allclose(flipped, anny.expression_basis[:, :, order], atol=5e-5)
    flipped = anny.identity_basis[mirror] * FLIP[None, :, None]
    even = np.abs(flipped - anny.identity_basis).max((0, 1)) < 1e-4
    odd = np.abs(flipped + anny.identity_basis).max((0, 1)) < 1e-4
    assert (even ^ odd).all() and even.sum() > odd.sum() > 0
    triangles = {tuple(sorted(t)) for t in anny.triangles.tolist()}
    assert {tuple(sorted(t)) for t in mirror[anny.triangles].tolist()} == triangles


def test_parts(anny):
    assert set(anny.parts) == set(PARTS)
    members = np.concatenate([anny.parts[part] for part in PARTS])
    shared, times = np.unique(members, return_counts=True)
    eyes = np.concatenate([anny.parts["left_eye"], anny.parts["right_eye"]])
    assert times.max() <= 2 and np.isin(shared[times == 2], eyes).all()  # the margins of the lids may be skin as well
    assert all(len(anny.parts[part]) > 80 for part in PARTS)
    centers = {part: anny.mean_shape[anny.parts[part]].mean(0) for part in PARTS}
    assert centers["left_eye"][0] > 0 > centers["right_eye"][0]
    order = ["left_brow", "left_eye", "nose", "upper_lip", "lower_lip"]
    assert (np.diff([centers[part][1] for part in order]) < 0).all()


def test_landmarks(anny):
    marks = anny.mean_shape[anny.landmarks["68"]]
    assert (np.diff(marks[2:15, 0]) > 0).all() and (
        marks[:3, 0] < -0.5
    ).all()  # from the subject's right, the left of the picture, to the left
    assert np.argmin(marks[:17, 1]) == 8
    for row in (range(17, 27), (36, 37, 38, 39, 42, 43, 44, 45), range(48, 55), range(31, 36)):
        assert (np.diff(marks[list(row), 0]) > 0).all()
    assert (np.diff(marks[27:31, 1]) < 0).all()
    assert (marks[UPPER_LIDS, 1] > marks[LOWER_LIDS, 1]).all()
    assert marks[51, 1] > marks[62, 1] > marks[57, 1]
    lips = np.union1d(anny.parts["upper_lip"], anny.parts["lower_lip"])
    assert np.isin(anny.landmarks["68"][48:], lips).all()
    assert np.unique(anny.landmarks["68"]).size >= 66


def test_contour_lines(anny):
    lines = anny.contours["68"]
    assert lines.shape[0] == 17
    for i, line in enumerate(lines):
        assert anny.landmarks["68"][i] in line
    assert (lines[8] == anny.landmarks["68"][8]).all()
    x = anny.mean_shape[lines, 0]
    assert (x[:8] < 0).all() and (x[9:] > 0).all()


def test_blink_leaves_the_other_eye_open(anny, names):
    shape = expressed(anny, names, eyeBlinkLeft=1)
    moved = np.linalg.norm(shape - anny.mean_shape, axis=-1)
    assert moved[anny.parts["left_eye"]].max() > 0.05 and moved[anny.parts["right_eye"]].max() < 1e-3


@pytest.mark.slow
def test_a_closed_eye_is_not_seen(anny, names):
    units = np.zeros((2, len(names)), np.float32)
    units[1, [names.index("eyeBlinkLeft"), names.index("eyeBlinkRight")]] = 1
    face = jaxface.decode_face(anny, jaxface.Coefficients.zeros(anny, 2).replace(expression=units), jaxface.Camera())
    seen = np.asarray(rasterize(face.points, face.depth, anny.triangles, image_size=224).triangle)
    labels = np.where(seen >= 0, label_triangles(anny.parts, anny.triangles)[seen], 0)
    eyes = ((labels == 1) | (labels == 2)).sum((1, 2))
    assert eyes[0] > 200 and eyes[1] < 0.2 * eyes[0]


def test_jaw_opens_the_mouth(anny, names):
    shape = expressed(anny, names, jawOpen=1)
    marks = anny.landmarks["68"]
    gap = shape[marks[62], 1] - shape[marks[66], 1]
    closed = anny.mean_shape[marks[62], 1] - anny.mean_shape[marks[66], 1]
    assert abs(closed) < 0.02 and gap > 0.2
    assert np.linalg.norm(shape[marks[27]] - anny.mean_shape[marks[27]]) < 0.01


def test_every_expression_unit_moves_something(anny):
    assert (np.abs(anny.expression_basis).max((0, 1)) > 0.005).all()


def test_random_people_are_believable_in_size(anny):
    rng = np.random.default_rng(0)
    people = (
        np.einsum("vck,bk->bvc", anny.identity_basis, rng.normal(size=(50, 80)).astype(np.float32)) + anny.mean_shape
    )
    marks = people[:, anny.landmarks["68"]]
    eyes = np.linalg.norm(marks[:, 45] - marks[:, 36], axis=-1)
    assert eyes.min() > 0.8 and eyes.max() < 1.0 and eyes.std() > 0.01
    spread = np.sqrt(np.mean((people - anny.mean_shape) ** 2, axis=(1, 2)) * 3)
    assert spread.min() > 0.015 and spread.max() < 0.08  # 1.5 mm to 8 mm


def test_colours(anny):
    assert anny.mean_albedo.min() >= 0 and anny.mean_albedo.max() <= 1
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(50, anny.albedo_basis.shape[-1])).astype(np.float32)
    people = np.asarray(face_models.albedo(anny, drawn))
    assert np.mean((people < 0) | (people > 1)) < 0.06  # the world's tones lie near both ends
    skin = people[:, anny.parts["skin"]].mean((1, 2))
    assert skin.min() < 0.42 and skin.max() > 0.70  # dark and light people
    mean = {part: anny.mean_albedo[anny.parts[part]].mean(0) for part in PARTS}
    assert mean["left_brow"].mean() < mean["skin"].mean() - 0.1
    assert mean["upper_lip"][0] - mean["upper_lip"][1] > mean["skin"][0] - mean["skin"][1]
