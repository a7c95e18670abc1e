import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface import Camera, Coefficients, decode_face
from jaxface.losses import prdl
from jaxface.render import coarse_visibility, projected_areas, rasterize, visible_areas

SIZE = 48

pytestmark = pytest.mark.usefixtures("quick_compilation")


def sphere(radius=20.0, center=(24.0, 24.0), distance=10.0, rings=40):
    """A globe that looks at the camera with its equator: vertices crowd at the poles, above and below."""
    angle, turn = np.meshgrid(np.linspace(0, np.pi, rings + 1), np.linspace(0, 2 * np.pi, 2 * rings + 1), indexing="ij")
    v = np.stack([np.sin(angle) * np.cos(turn), np.cos(angle), np.sin(angle) * np.sin(turn)], -1).reshape(-1, 3)
    first = (np.arange(rings)[:, None] * (2 * rings + 1) + np.arange(2 * rings)).ravel()
    below = first + 2 * rings + 1
    triangles = np.concatenate([np.stack([first, first + 1, below + 1], -1), np.stack([first, below + 1, below], -1)])
    points = v[:, :2] * (radius, -radius) + center
    return points[None].astype(np.float32), (distance - v[None, :, 2]).astype(np.float32), triangles.astype(np.int32)


def sheet(z, low, high, columns=24):
    """A flat square of even cells that faces the camera."""
    y, x = (axis.ravel() for axis in np.meshgrid(*[np.linspace(low, high, columns + 1)] * 2, indexing="ij"))
    first = (np.arange(columns)[:, None] * (columns + 1) + np.arange(columns)).ravel()
    below = first + columns + 1
    triangles = np.concatenate([np.stack([first, below, below + 1], -1), np.stack([first, below + 1, first + 1], -1)])
    return np.stack([x, y], -1)[None].astype(np.float32), np.full((1, x.size), z, np.float32), triangles


def areas_slowly(points, triangles):
    total = np.zeros(points.shape[:2])
    for sample, positions in enumerate(np.asarray(points, np.float64)):
        for corners in triangles:
            a, b, c = positions[corners] * (1, -1)  # y up, where facing the camera is counter-clockwise
            doubled = (b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0]
            np.add.at(total[sample], corners, max(doubled, 0.0) / 6)
    return total


def coarsely_seen_slowly(points, depth, cells):
    seen = np.ones(depth.shape, bool)
    for sample, positions in enumerate(np.asarray(points, np.float64)):
        low, side = positions.min(0), np.ptp(positions, axis=0).max() / cells
        position = (positions - low) / side
        nearest = {}
        for cell, z in zip(np.minimum(position.astype(int), cells - 1), depth[sample], strict=True):
            nearest[tuple(cell)] = min(z, nearest.get(tuple(cell), np.inf))
        for vertex, (x, y) in enumerate(position):
            columns, rows = ([np.clip(np.floor(v + step), 0, cells - 1) for step in (-0.5, 0.5)] for v in (x, y))
            around = [nearest.get(cell, np.inf) for cell in itertools.product(columns, rows)]
            seen[sample, vertex] = depth[sample, vertex] <= max(around) + 0.1
    return seen


def random_mesh(batch=3, vertices=60, triangles=150):
    random = np.random.default_rng(0)
    points = random.uniform(-5, SIZE + 5, (batch, vertices, 2)).astype(np.float32)
    corners = random.integers(0, vertices, (triangles, 3))  # some with a corner twice
    return points, random.uniform(9.5, 10.5, (batch, vertices)).astype(np.float32), corners


def test_areas_against_the_definition():
    points, _, triangles = random_mesh()
    expected = areas_slowly(points, triangles)
    assert (expected > 0).any() and (expected == 0).any()
    np.testing.assert_allclose(projected_areas(points, triangles), expected, rtol=1e-4, atol=1e-2)


def test_coarse_visibility_against_the_definition():
    random = np.random.default_rng(1)
    points = random.uniform(0, SIZE, (3, 150, 2)).astype(np.float32)  # 6 x 6 cells
    depth = random.uniform(9.8, 10.2, (3, 150)).astype(np.float32)
    expected = coarsely_seen_slowly(points, depth, cells=6)
    assert 0.1 < expected.mean() < 0.9
    np.testing.assert_array_equal(coarse_visibility(points, depth), expected)


# On a ball the outline is as steep as can be: within one cell, or one pixel, the depth changes by more than 1 cm.
@pytest.mark.slow
@pytest.mark.parametrize(("occlusion", "lost"), [("coarse", 0.03), ("exact", 0.01), ("none", 0.002)])
def test_the_near_half_of_a_sphere_adds_up_to_its_disc(occlusion, lost):
    points, depth, triangles = sphere()
    areas = np.asarray(visible_areas(points, depth, triangles, image_size=SIZE, occlusion=occlusion))[0]
    pixels = np.asarray(rasterize(points, depth, triangles, image_size=SIZE).triangle >= 0).sum()
    assert 1 - lost < areas.sum() / (np.pi * 20**2) < 1.001
    np.testing.assert_allclose(areas.sum(), pixels, rtol=lost + 0.01)
    assert not areas[depth[0] > 10.1].any()


@pytest.mark.slow
def test_means_over_vertices_become_means_over_pixels():
    points, depth, triangles = sphere()
    mask = np.asarray(rasterize(points, depth, triangles, image_size=SIZE).triangle[0]) >= 0
    anchors = prdl.grid_anchors(SIZE, SIZE, 8)
    target = np.asarray(prdl.mask_descriptor(mask, anchors))[:, 2]
    areas = visible_areas(points, depth, triangles, image_size=SIZE)[0]
    weighted = prdl.point_descriptor(points[0], anchors, areas)[:, 2]
    unweighted = prdl.point_descriptor(points[0], anchors)[:, 2]
    np.testing.assert_allclose(weighted, target, atol=0.1)
    assert np.abs(unweighted - target).max() > 1


@pytest.mark.slow
@pytest.mark.parametrize("occlusion", ["coarse", "exact"])
def test_what_is_behind_something_else_weighs_nothing(occlusion):
    (front, front_depth, one), (back, back_depth, two) = sheet(10.0, 4, 30), sheet(10.5, 12, 44)
    points, depth = np.concatenate([front, back], 1), np.concatenate([front_depth, back_depth], 1)
    triangles = np.concatenate([one, two + front.shape[1]])
    areas = np.asarray(visible_areas(points, depth, triangles, image_size=SIZE, occlusion=occlusion))[0]
    alone = np.asarray(visible_areas(points, depth, triangles, image_size=SIZE, occlusion="none"))[0]
    count = front.shape[1]
    np.testing.assert_array_equal(areas[:count], alone[:count])
    covered, clear = (back[0] < 28).all(-1), (back[0] > 33).any(-1)
    assert not areas[count:][covered].any() and alone[count:][covered].all()
    np.testing.assert_array_equal(areas[count:][clear], alone[count:][clear])


@pytest.mark.slow
@pytest.mark.parametrize("occlusion", ["coarse", "exact", "none"])
def test_outside_of_the_picture_and_behind_the_camera(occlusion):
    points, depth, triangles = sheet(10.0, -20, 100)
    areas = np.asarray(visible_areas(points, depth, triangles, image_size=(40, 60), occlusion=occlusion))[0]
    inside = ((points[0] >= 0) & (points[0] <= (60, 40))).all(-1)
    assert (areas[inside] > 0).all() and not areas[~inside].any() and inside.any()
    assert not np.any(visible_areas(points, -depth, triangles, image_size=(40, 60), occlusion=occlusion))


@pytest.mark.slow
def test_faces_of_a_batch_do_not_touch_each_other():
    points, depth, triangles = random_mesh()
    depth[1, 0] = 1.0  # in front of all others
    for occlusion in ("coarse", "exact"):
        together = visible_areas(points, depth, triangles, image_size=SIZE, occlusion=occlusion)
        one_by_one = [
            visible_areas(points[i : i + 1], depth[i : i + 1], triangles, image_size=SIZE, occlusion=occlusion)[0]
            for i in range(len(points))
        ]
        np.testing.assert_array_equal(together, one_by_one)


@pytest.mark.slow
def test_meshes_with_nothing_to_weigh():
    points, depth, _ = random_mesh(vertices=3)
    line = np.stack([points[:, 0], points[:, 0], points[:, 0]], 1)
    for occlusion in ("coarse", "exact"):
        flat = visible_areas(line, depth, np.array([[0, 1, 2], [2, 2, 2]]), image_size=SIZE, occlusion=occlusion)
        bare = visible_areas(points, depth, np.zeros((0, 3), np.int32), image_size=SIZE, occlusion=occlusion)
        assert not np.any(flat) and not np.any(bare)
    assert projected_areas(np.zeros((2, 0, 2)), np.zeros((0, 3), np.int32)).shape == (2, 0)
    assert coarse_visibility(np.zeros((2, 0, 2)), np.zeros((2, 0))).shape == (2, 0)


@pytest.mark.slow
@pytest.mark.parametrize("occlusion", ["coarse", "exact", "none"])
def test_not_a_number_stays_so_and_spoils_nothing_else(occlusion):
    points, depth, triangles = (np.array(array) for array in sheet(10.0, 4, 44))
    points, depth = np.repeat(points, 3, 0), np.repeat(depth, 3, 0)
    expected = np.asarray(visible_areas(points, depth, triangles, image_size=SIZE, occlusion=occlusion))
    points[1, 7], points[2, 30, 0] = np.nan, np.inf
    areas = np.asarray(visible_areas(points, depth, triangles, image_size=SIZE, occlusion=occlusion))
    spoilt = np.zeros(areas.shape, bool)
    for sample, vertex in ((1, 7), (2, 30)):
        spoilt[sample, np.unique(triangles[(triangles == vertex).any(1)])] = True
    finite = np.isfinite(areas)
    assert not finite[1][spoilt[1]].any() and finite[~spoilt].all()
    np.testing.assert_allclose(areas[~spoilt], expected[~spoilt], rtol=1e-5)


def test_no_gradient_and_float32_from_half_precision():
    points, depth, triangles = sphere(rings=8)

    def total(points, depth):
        areas = visible_areas(points, depth, triangles, image_size=SIZE)
        return jnp.sum(areas * points[..., 0]), areas

    (_, areas), gradient = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(points, depth)
    np.testing.assert_array_equal(gradient[0][..., 0], areas)
    assert not np.any(gradient[0][..., 1]) and not np.any(gradient[1])
    half = projected_areas(jnp.asarray(points, jnp.bfloat16), triangles)
    assert half.dtype == jnp.float32 and half.sum() > 1000


def test_unknown_occlusion_is_named():
    with pytest.raises(ValueError, match="'some'"):
        visible_areas(*sphere(rings=4), image_size=SIZE, occlusion="some")


@pytest.mark.slow
def test_coarse_and_exact_agree_on_a_turned_face(anny):
    camera = Camera().resized(96)
    angles = jnp.deg2rad(jnp.array([[0.0, 0.0, 0.0], [0.0, 60.0, 0.0]]))
    face = jax.jit(decode_face)(anny, Coefficients.zeros(anny, 2).replace(angles=angles), camera)
    coarse, exact, none = (
        np.asarray(visible_areas(face.points, face.depth, anny.triangles, image_size=96, occlusion=occlusion))
        for occlusion in ("coarse", "exact", "none")
    )
    differ = (((coarse > 0) != (exact > 0)) * none).sum(-1) / exact.sum(-1)
    assert differ[0] < 0.03 and differ[1] < 0.15  # turned, some of the mouth's inside shows through the cheek
    in_parts = np.unique(np.concatenate(list(anny.parts.values())))
    coarse, exact, none = (areas[:, in_parts] for areas in (coarse, exact, none))
    differ = (((coarse > 0) != (exact > 0)) * none).sum(-1) / exact.sum(-1)
    assert (differ < 0.01).all()
    hidden = exact[1] == 0
    assert none[1][hidden].sum() > 0.005 * none[1].sum() > 0  # the nose hides some of the far eye and cheek
    assert coarse[1][hidden].sum() < 0.4 * none[1][hidden].sum()
