import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxface.render import Fragments, interpolate, rasterize
from oracles import render as oracle

SIZE = (32, 40)


def random_mesh(seed, count, sizes=(0.5, 60.0)):
    """Separate triangles, from smaller than a pixel to larger than the image, some of them partly outside."""
    rng = np.random.default_rng(seed)
    centers = rng.uniform((-5, -5), (SIZE[1] + 5, SIZE[0] + 5), (count, 1, 2))
    extent = np.exp(rng.uniform(*np.log(sizes), (count, 1, 1)))
    points = (centers + extent * rng.uniform(-1, 1, (count, 3, 2))).reshape(-1, 2).astype(np.float32)
    depth = rng.uniform(2, 20, 3 * count).astype(np.float32)
    return points, depth, np.arange(3 * count, dtype=np.int32).reshape(count, 3)


def assert_matches_oracle(fragments, points, depth, triangles, image_size=SIZE, rare=0.02):
    triangle, barycentric, z, tie = oracle.rasterize_slowly(points, depth, triangles, image_size)
    assert tie.mean() <= rare
    np.testing.assert_array_equal(np.asarray(fragments.triangle)[~tie], triangle[~tie])
    np.testing.assert_allclose(np.asarray(fragments.barycentric)[~tie], barycentric[~tie], atol=1e-4)
    np.testing.assert_allclose(np.asarray(fragments.depth)[~tie], z[~tie], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_triangles_of_all_sizes(seed):
    mesh = random_mesh(seed, 60)
    fragments = rasterize(*mesh, image_size=SIZE)
    assert_matches_oracle(fragments, *mesh)
    assert len(np.unique(fragments.triangle)) > 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_many_small_triangles(seed):
    mesh = random_mesh(seed, 500, sizes=(0.3, 3.0))
    assert_matches_oracle(rasterize(*mesh, image_size=SIZE), *mesh)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.2, 200.0))
def test_any_single_size(seed, size):
    mesh = random_mesh(seed, 60, sizes=(size, size * 1.01))
    assert_matches_oracle(rasterize(*mesh, image_size=SIZE), *mesh, rare=0.05)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_thin_triangles(seed, on_a_grid):
    """Down to the width of rounding, crossing many tiles, some on lines through pixel centres."""
    rng = np.random.default_rng(seed)
    centers, angle = rng.uniform((-5, -5), (45, 37), (60, 1, 2)), rng.uniform(0, 2 * np.pi, (60, 1, 1))
    length, width = np.exp(rng.uniform(0, 5, (60, 1, 1))), 10.0 ** rng.uniform(-7, 0.5, (60, 1, 1))
    along, across = np.split(rng.uniform(-1, 1, (60, 3, 2)), 2, axis=-1)
    axis, normal = (
        np.concatenate([np.cos(angle), np.sin(angle)], -1),
        np.concatenate([-np.sin(angle), np.cos(angle)], -1),
    )
    points = (centers + along * length * axis + across * width * normal).reshape(-1, 2)
    points = (np.round(points * 2) / 2 if on_a_grid else points).astype(np.float32)
    mesh = points, rng.uniform(2, 20, 180).astype(np.float32), np.arange(180, dtype=np.int32).reshape(60, 3)
    fragments = rasterize(*mesh, image_size=SIZE)
    assert_matches_oracle(fragments, *mesh, rare=0.2)
    assert (fragments.barycentric >= 0).all() and (fragments.barycentric <= 1).all()


@pytest.mark.slow
def test_quad_over_the_whole_image_behind_small_triangles():
    """Two triangles with thousands of pixels each, and sixty of a few: none is cut short, nothing shows through."""
    small, small_depth, small_triangles = random_mesh(3, 60, sizes=(0.5, 5.0))
    quad = np.array([[-1, -1], [SIZE[1] + 3, -2], [SIZE[1] + 1, SIZE[0] + 1], [-2, SIZE[0] + 5]], np.float32)
    points = np.concatenate([quad, small])
    depth = np.concatenate([np.array([30, 25, 40, 50], np.float32), small_depth])
    triangles = np.concatenate([np.array([[0, 1, 2], [0, 2, 3]]), small_triangles + 4])
    fragments = rasterize(points, depth, triangles, image_size=SIZE)
    assert (fragments.triangle >= 0).all()
    assert_matches_oracle(fragments, points, depth, triangles)


@pytest.mark.slow
def test_perspective_is_right():
    """A floor that runs away from the camera: texture coordinates come out by ray casting."""
    focal, width, height = 30.0, 40, 32
    floor = np.array([[-9, -1, 2], [9, -1, 2], [9, -1, 60], [-9, -1, 60]], np.float64)  # x, y up, depth
    points = np.stack([20 + focal * floor[:, 0] / floor[:, 2], 4 - focal * floor[:, 1] / floor[:, 2]], -1)
    triangles = np.array([[0, 1, 2], [0, 2, 3]])
    fragments = rasterize(points, floor[:, 2], triangles, image_size=(height, width))
    result = interpolate(fragments, triangles, floor)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    with np.errstate(divide="ignore"):
        depth = focal / (y - 4)
    expected = np.stack([(x - 20) * depth / focal, np.full_like(x, -1.0), depth], -1)
    seen = np.asarray(fragments.triangle) >= 0
    assert seen.sum() > 300
    np.testing.assert_allclose(np.asarray(result)[seen], expected[seen], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(result)[~seen], 0.0)


def grid_mesh(columns, rows, low, high):
    x, y = np.meshgrid(np.linspace(low[0], high[0], columns + 1), np.linspace(low[1], high[1], rows + 1))
    first = (np.arange(rows)[:, None] * (columns + 1) + np.arange(columns)).ravel()
    below = first + columns + 1
    triangles = [np.stack([first, first + 1, below + 1], -1), np.stack([first, below + 1, below], -1)]
    return np.stack([x, y], -1).reshape(-1, 2).astype(np.float32), np.concatenate(triangles).astype(np.int32)


@pytest.mark.slow
def test_no_cracks_where_edges_and_corners_run_through_pixel_centres():
    points, triangles = grid_mesh(40, 32, (-0.5, -0.5), (39.5, 31.5))
    fragments = rasterize(points, np.full(len(points), 7.0), triangles, image_size=SIZE)
    assert (fragments.triangle >= 0).all()
    np.testing.assert_allclose(fragments.barycentric.sum(-1), 1.0, atol=1e-6)
    assert (fragments.barycentric >= -1e-6).all()


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_no_cracks_in_a_crumpled_grid(seed):
    """Inner vertices anywhere, also on pixel centres and on top of one another: the grid still covers the image."""
    rng = np.random.default_rng(seed)
    points, triangles = grid_mesh(9, 7, (-1, -1), (41, 33))
    inner = ((points > 0) & (points < (SIZE[1], SIZE[0]))).all(-1)
    moved = points + rng.uniform(-6, 6, points.shape)
    moved = np.where(rng.random((len(points), 1)) < 0.5, np.floor(moved) + 0.5, moved)
    points = np.where(inner[:, None], moved, points).astype(np.float32)
    fragments = rasterize(points, rng.uniform(1, 9, len(points)), triangles, image_size=SIZE)
    assert (fragments.triangle >= 0).all()


@pytest.mark.slow
def test_same_depth_goes_to_the_lowest_index():
    points = np.array([[-5, -5], [90, -5], [-5, 90], [3, 3], [20, 4], [9, 25]], np.float32)
    triangles = np.array([[3, 4, 5], [5, 3, 4], [0, 1, 2], [0, 2, 1], [4, 3, 5]])
    fragments = rasterize(points, np.full(6, 5.0), triangles, image_size=SIZE)
    assert set(np.unique(fragments.triangle)) == {0, 2}
    reverse = rasterize(points, np.full(6, 5.0), triangles[::-1], image_size=SIZE)
    assert set(np.unique(reverse.triangle)) == {0, 1}


def test_both_orientations_are_drawn():
    points, depth, triangles = random_mesh(5, 60)
    forwards = rasterize(points, depth, triangles, image_size=SIZE)
    backwards = rasterize(points, depth, triangles[:, [0, 2, 1]], image_size=SIZE)
    np.testing.assert_array_equal(forwards.triangle, backwards.triangle)


@pytest.mark.slow
def test_triangles_that_cannot_be_drawn_are_left_out():
    points, depth, triangles = random_mesh(1, 60)
    bad = np.array([[np.nan, 4], [np.inf, 4], [3, 3], [9, 9], [30, 4], [8, 30], [1e30, -1e30], [-1e9, 5]], np.float32)
    bad_depth = np.array([1, 1, 1, 1, -1, 0, 1, np.nan], np.float32)
    more = np.array([[0, 2, 3], [1, 2, 3], [2, 2, 3], [2, 2, 2], [2, 3, 4], [2, 3, 5], [2, 3, 7]]) + len(points)
    everything = (np.concatenate([points, bad]), np.concatenate([depth, bad_depth]))
    fragments = rasterize(*everything, np.concatenate([triangles, more]), image_size=SIZE)
    expected = rasterize(points, depth, triangles, image_size=SIZE)
    jax.tree.map(np.testing.assert_array_equal, fragments, expected)


def loss(points, depth, attributes, triangles, image_size=SIZE):
    fragments = rasterize(points, depth, triangles, image_size=image_size)
    rng = np.random.default_rng(0)
    image = interpolate(fragments, triangles, attributes)
    weights = rng.normal(size=(*image_size, attributes.shape[-1] + 1))
    return jnp.sum(image * weights[..., :-1]) + jnp.sum(fragments.depth * weights[..., -1])


gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)), static_argnums=4)


@pytest.mark.slow
def test_gradients_are_those_of_finite_differences():
    # One triangle over the whole image and one that lies in front, its outline away from all centres.
    points = np.array([[-50, -40], [150, -30], [-20, 160], [5.2, 5.3], [22.3, 8.2], [9.6, 21.9]])
    depth, triangles = np.array([20.0, 30, 25, 4, 6, 9]), np.array([[0, 1, 2], [3, 5, 4]])
    attributes = np.random.default_rng(1).normal(size=(6, 2))
    with jax.enable_x64(True):
        function = jax.jit(lambda *inputs: loss(*inputs, triangles))
        check_grads(function, (points, depth, attributes), order=1, modes=["rev"], eps=1e-6)


@pytest.mark.slow
def test_gradients_stay_finite_with_triangles_that_cannot_be_drawn():
    points, depth, triangles = random_mesh(1, 60)
    points[:3] = np.nan
    points[3:6] = 4.0
    depth[6:9] = -1.0
    depth[9:12] = 0.0
    attributes = np.random.default_rng(1).normal(size=(180, 2)).astype(np.float32)
    value, gradient = gradients(points, depth, attributes, triangles)
    assert np.isfinite(value)
    for one in gradient:
        assert np.isfinite(one).all() and np.any(one)
        assert not np.any(one[:12])


@pytest.mark.slow
def test_slivers_have_finite_gradients():
    rng = np.random.default_rng(0)
    along = rng.uniform(0, 1, (60, 3, 1))
    line = np.concatenate([along * 40, along * 31], -1) + rng.uniform(-1, 1, (60, 3, 2)) * 10.0 ** rng.uniform(
        -9, 0, (60, 1, 1)
    )
    points, depth = line.reshape(-1, 2).astype(np.float32), rng.uniform(2, 9, 180).astype(np.float32)
    attributes = rng.normal(size=(180, 2)).astype(np.float32)
    value, gradient = gradients(points, depth, attributes, np.arange(180, dtype=np.int32).reshape(60, 3))
    assert np.isfinite(value) and all(np.isfinite(one).all() for one in gradient)


@pytest.mark.slow
def test_batches_are_the_same_as_one_by_one():
    meshes = [random_mesh(seed, 60) for seed in range(6)]
    points, depth = (np.stack([mesh[i] for mesh in meshes]) for i in (0, 1))
    triangles = meshes[0][2]
    attributes = np.random.default_rng(0).normal(size=(180, 3)).astype(np.float32)
    batch = rasterize(points.reshape(2, 3, 180, 2), depth.reshape(2, 3, 180), triangles, image_size=SIZE)
    image = interpolate(batch, triangles, attributes)
    assert batch.barycentric.shape == image.shape == (2, 3, *SIZE, 3)
    flat = Fragments(
        batch.triangle.reshape(6, *SIZE), batch.barycentric.reshape(6, *SIZE, 3), batch.depth.reshape(6, *SIZE)
    )
    mapped = jax.vmap(lambda p, d: rasterize(p, d, triangles, image_size=SIZE))(points, depth)
    single = [rasterize(*mesh, image_size=SIZE) for mesh in meshes]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *single)
    for other in (mapped, stacked):
        np.testing.assert_array_equal(flat.triangle, other.triangle)
        np.testing.assert_allclose(flat.barycentric, other.barycentric, atol=1e-6)
        np.testing.assert_allclose(flat.depth, other.depth, rtol=1e-6)
    np.testing.assert_allclose(image[1, 2], interpolate(single[5], triangles, attributes), atol=1e-5)


def test_nothing_to_draw():
    none = np.zeros((0, 3), np.int32)
    for points, triangles in (
        (np.zeros((2, 5, 2)), none),
        (np.zeros((2, 0, 2)), none),
        (np.zeros((0, 3, 2)), [[0, 1, 2]]),
    ):
        fragments = rasterize(points, np.ones(points.shape[:2]), np.asarray(triangles), image_size=8)
        assert fragments.triangle.shape == (len(points), 8, 8)
        assert not np.any(fragments.triangle != -1)
        assert not np.any(fragments.barycentric) and not np.any(fragments.depth)
        image = interpolate(fragments, np.asarray(triangles), np.ones((*points.shape[:2], 4)))
        assert image.shape == (len(points), 8, 8, 4) and not np.any(image)


def test_new_values_do_not_compile_again():
    rasterize(*random_mesh(0, 60), image_size=SIZE)
    before = rasterize._cache_size()
    for seed in range(3):
        rasterize(*random_mesh(seed, 60, sizes=(0.5 + seed, 20.0 * (1 + seed))), image_size=SIZE)
    assert rasterize._cache_size() == before


def test_fragments_are_a_tree():
    fragments = rasterize(*random_mesh(0, 60), image_size=SIZE)
    leaves, structure = jax.tree.flatten(fragments)
    assert len(leaves) == 3
    assert isinstance(jax.tree.unflatten(structure, leaves), Fragments)
    assert fragments.triangle.dtype == jnp.int32
