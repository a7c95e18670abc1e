"""Scan-to-mesh errors against slow plain definitions, and on pairs whose answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxface.core.errors import InputError
from jaxface.training.scan_errors import (
    SEVEN_LANDMARKS,
    Anchors,
    Similarity,
    Surface,
    face_region,
    fit_similarity,
    now_distances,
    refine,
)
from oracles.scan_errors import best_similarity, closest_distances
from toys.heads import sphere, toy_head


def motion(seed: int, *, scale: float = 1.0, size: float = 20.0, angle: float = 2.0) -> Similarity:
    random = np.random.default_rng(seed)
    axis = random.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return Similarity(scale, rotation, size * random.normal(size=3))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_closest_points_are_those_of_the_definition(seed, count):
    """Triangles of all sizes, some of them without area, some that repeat."""
    random = np.random.default_rng(seed)
    vertices = random.normal(size=(12, 3)) * np.array([1, 1, random.choice([0.0, 1.0])])
    vertices[:2] *= 30
    triangles = random.integers(0, 12, (count, 3))
    points = random.normal(size=(5, 3)) * random.choice([0.5, 5.0])
    found = Surface(vertices, triangles).closest(points)
    np.testing.assert_allclose(found.distances, closest_distances(points, vertices, triangles), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(points - found.points, axis=1), found.distances, atol=1e-12)
    for point, triangle in zip(found.points, found.triangles, strict=True):
        assert closest_distances([point], vertices, triangles[triangle][None])[0] < 1e-5


def test_a_large_triangle_is_found_though_its_centre_is_far():
    small, triangles = sphere(2)
    far = np.array([[-500.0, -500, 12], [500, -500, 12], [0, 900, 12]])
    surface = Surface(np.concatenate([small, far]), np.concatenate([triangles, len(small) + np.array([[0, 1, 2]])]))
    found = surface.closest(np.array([[0, 0, 11.5], [300.0, -400, 11.9]]))
    np.testing.assert_allclose(found.distances, [0.5, 0.1], atol=1e-12)
    assert (found.triangles == len(triangles)).all()


def test_many_points_go_in_pieces():
    vertices, triangles = sphere(2)
    points = np.random.default_rng(0).normal(size=(9000, 3))
    found = Surface(vertices, triangles).closest(points)
    few = Surface(vertices, triangles).closest(points[4090:4100])
    np.testing.assert_array_equal(found.distances[4090:4100], few.distances)


def test_a_surface_offset_along_its_normals_by_a_millimetre_is_a_millimetre_off():
    vertices, triangles = sphere(3, radius=50.0)
    surface, scan = Surface(vertices, triangles), vertices * 51 / 50
    np.testing.assert_allclose(surface.closest(scan).distances, 1, atol=1e-9)
    still = Similarity(1.0, np.eye(3), np.zeros(3))
    aligned = refine(surface, scan, Similarity(1.0, np.eye(3), np.array([2.0, -1, 1])), scale=False)
    np.testing.assert_allclose(aligned.translation, 0, atol=0.01)
    np.testing.assert_allclose(surface.closest(aligned.undo(scan)).distances.mean(), 1, atol=1e-3)
    assert refine(surface, scan, still).scale == pytest.approx(1.02, abs=1e-4)  # with scale nothing is left of it


@pytest.mark.parametrize("scale", [0.1, 1.0, 7.0])
def test_a_similarity_is_recovered_and_is_the_best(scale):
    random = np.random.default_rng(3)
    source, moved = random.normal(size=(7, 3)), motion(4, scale=scale)
    found = fit_similarity(source, moved.apply(source))
    np.testing.assert_allclose(found.apply(source), moved.apply(source), atol=1e-10)
    np.testing.assert_allclose(found.undo(moved.apply(source)), source, atol=1e-10)
    target = moved.apply(source) + random.normal(size=(7, 3))
    found = fit_similarity(source, target)
    for mine, slow in zip(
        (found.scale, found.rotation, found.translation), best_similarity(source, target), strict=True
    ):
        np.testing.assert_allclose(mine, slow, atol=1e-8)
    assert fit_similarity(source, target, scale=False).scale == 1.0


def test_a_mirror_image_is_not_reached_by_a_reflection():
    source = np.random.default_rng(5).normal(size=(7, 3))
    found = fit_similarity(source, source * [-1, 1, 1])
    assert np.linalg.det(found.rotation) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
def test_a_mesh_against_itself_moved_is_no_error(seed):
    """Landmarks that are off by millimetres do not matter: what is refined is the surface."""
    vertices, triangles, landmarks = toy_head()
    moved = motion(seed, scale=[1.0, 0.01, 3.0][seed])
    seven = vertices[landmarks[list(SEVEN_LANDMARKS)]]
    noise = np.random.default_rng(seed).normal(size=(7, 3))
    distances = now_distances(vertices, seven, Surface(moved.apply(vertices), triangles), moved.apply(seven + noise))
    assert len(distances) == face_region(vertices, seven).sum() > 100
    assert distances.max() < 1e-8


def test_the_refined_alignment_is_a_minimum():
    """No small further motion brings the scan nearer, by distances of the slow definition."""
    vertices, triangles, _ = toy_head(side=9)
    random = np.random.default_rng(7)
    scan = vertices[::2] + random.normal(size=(len(vertices[::2]), 3))
    surface = Surface(vertices, triangles)
    start = Similarity(1.05, np.eye(3), np.array([1.0, 2, 0]))
    aligned = refine(surface, scan, start, tolerance=1e-12)

    def cost(one: Similarity) -> float:
        return float((one.scale * closest_distances(one.undo(scan), vertices, triangles)) ** 2 @ np.ones(len(scan)))

    least = cost(aligned)
    assert least < 0.8 * cost(start)
    for seed in range(8):
        nudge = motion(seed, scale=[1.003, 0.997][seed % 2], size=0.02, angle=0.002)
        turned = nudge.rotation @ aligned.rotation
        further = Similarity(
            nudge.scale * aligned.scale, turned, nudge.scale * nudge.rotation @ aligned.translation + nudge.translation
        )
        assert cost(further) > least - 1e-6


def test_anchors_pull():
    """On a plane, which every sideways motion leaves on itself, the anchors alone decide."""
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(-50, 50, 11), np.linspace(-50, 50, 11)))
    corner = (np.arange(10)[:, None] * 11 + np.arange(10)).ravel()
    halves = [np.stack([corner, corner + one, corner + other], 1) for one, other in ((1, 12), (12, 11))]
    triangles = np.concatenate(halves)
    plane = Surface(np.stack([x, y, 0 * x], 1), triangles)
    scan = np.random.default_rng(0).uniform(-20, 20, (40, 3)) * [1, 1, 0]
    mesh = np.array([[0.0, 0, 0], [10, 0, 0], [0, 10, 0]])
    anchors = Anchors(mesh, mesh + [3, -2, 0], 5.0)
    found = refine(plane, scan, Similarity(1.0, np.eye(3), np.zeros(3)), scale=False, anchors=anchors)
    np.testing.assert_allclose(found.apply(mesh), anchors.scan, atol=1e-6)


def test_only_the_face_is_measured():
    vertices, triangles, landmarks = toy_head()
    seven = vertices[landmarks[list(SEVEN_LANDMARKS)]]
    outer, inner, other_inner, other_outer, nose = seven[:5]
    bridge = (inner + other_inner) / 2
    radius = 0.7 * (np.linalg.norm(outer - other_outer) + np.linalg.norm(bridge - nose))
    center = 0.7 * nose + 0.3 * bridge
    ring = center + radius * np.array([[0.999, 0, 0], [0, 1.001, 0], [0, 0, -0.999], [5, 0, 0]])
    np.testing.assert_array_equal(face_region(ring, seven), [True, False, True, False])
    surface, far = Surface(vertices, triangles), np.concatenate([vertices, [[1000.0, 0, 0]]])
    assert now_distances(far, seven, surface, seven).max() < 1e-8
    chosen = np.zeros(len(vertices), bool)
    chosen[:50] = True
    assert len(now_distances(vertices, seven, surface, seven, region=chosen)) == 50


def broken(array, value=np.nan):
    array = array.copy()
    array[0, 0] = value
    return array


def test_empty_and_broken_inputs_are_refused():
    vertices, triangles, landmarks = toy_head(side=9)
    surface, seven = Surface(vertices, triangles), vertices[landmarks[list(SEVEN_LANDMARKS)]]
    empty = np.zeros((0, 3))
    refused = {
        "with N >= 1": [lambda: Surface(empty, triangles), lambda: surface.closest(empty)],
        "not finite": [
            lambda: Surface(broken(vertices), triangles),
            lambda: surface.closest(broken(vertices, np.inf)),
            lambda: now_distances(broken(vertices), seven, surface, seven),
            lambda: now_distances(vertices, broken(seven), surface, seven),
            lambda: fit_similarity(seven, broken(seven)),
        ],
        "with T > 0": [lambda: Surface(vertices, triangles[:0])],
        "names another": [lambda: Surface(vertices, triangles + 1000)],
        "one for each": [lambda: fit_similarity(seven, seven[:4])],
        "one line": [lambda: fit_similarity(np.outer(np.arange(7), [1, 2, 3]), seven)],
        "takes seven": [lambda: now_distances(vertices, np.tile(seven, (2, 1)), surface, seven)],
        "same unit": [lambda: now_distances(vertices + 1e6, seven, surface, seven)],
    }
    for told, calls in refused.items():
        for call in calls:
            with pytest.raises(InputError, match=told):
                call()
