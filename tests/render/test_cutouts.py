import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.render import interpolate, rasterize
from jaxface.render.cutouts import CHUNK, TILE, halve_texture, rasterize_cutouts, sample_texture
from oracles.cutouts import cutouts_slowly
from toys.lowered import on_accelerator

SIZE = (18, 22)
ATLAS = (20, 32)
SOLID = np.full(ATLAS, 255, np.uint8)


def soup(seed, count=40, sizes=(1.0, 25.0), batch=2):
    """Triangles of all sizes, partly outside, a few behind the camera; texture coordinates also beyond the atlas."""
    random = np.random.default_rng(seed)
    centers = random.uniform((-3, -3), (SIZE[1] + 3, SIZE[0] + 3), (batch, count, 1, 2))
    extent = np.exp(random.uniform(*np.log(sizes), (batch, count, 1, 1)))
    points = centers + extent * random.uniform(-1, 1, (batch, count, 3, 2))
    depth, uv = random.uniform(1, 9, (batch, count, 3)), random.uniform(-0.1, 1.1, (batch, count, 3, 2))
    depth[:, ::9, 0] = -0.1
    return tuple(array.astype(np.float32) for array in (points, depth, uv))


def atlas(seed):
    """Blotches of several texels: about half of it passes."""
    coarse = np.random.default_rng(seed).integers(0, 256, (ATLAS[0] // 4, ATLAS[1] // 4), np.uint8)
    return coarse.repeat(4, 0).repeat(4, 1)


def draw(*args, **options):
    return rasterize_cutouts(*args, image_size=SIZE, **options)


def assert_matches_oracle(fragments, meshes, alpha, threshold=0.5, behind=None):
    for index, mesh in enumerate(zip(*meshes, strict=True)):
        limit = threshold[index] if np.ndim(threshold) == 3 else threshold
        back = None if behind is None else behind[index]
        triangle, barycentric, depth, doubt = cutouts_slowly(*mesh, alpha, SIZE, limit, back)
        sure = ~doubt
        assert sure.mean() > 0.9 and len(np.unique(triangle[sure])) > 5
        np.testing.assert_array_equal(fragments.triangle[index][sure], triangle[sure])
        np.testing.assert_allclose(fragments.barycentric[index][sure], barycentric[sure], atol=1e-3)
        np.testing.assert_allclose(fragments.depth[index][sure], depth[sure], rtol=1e-4)


def options_of(kind):
    random = np.random.default_rng(7)
    if kind == "a map":
        return {"threshold": random.uniform(0, 1, SIZE).astype(np.float32)}
    if kind == "maps":
        return {"threshold": random.uniform(0, 1, (2, *SIZE)).astype(np.float32)}
    if kind == "behind":
        behind = random.uniform(0.5, 12, (2, *SIZE)).astype(np.float32)
        return {"behind": np.where(random.random(behind.shape) < 0.3, random.choice([0, np.inf]), behind)}
    return {"threshold": kind}


@pytest.mark.parametrize(
    "kind", [0.5, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (0.1, "a map")), "maps", "behind"]
)
def test_the_same_as_pixel_by_pixel(kind):
    meshes, alpha, options = soup(1), atlas(1), options_of(kind)
    fragments = draw(*meshes, alpha, **options)
    assert_matches_oracle(fragments, meshes, alpha, **options)
    drawn = on_accelerator(lambda *arrays: draw(*arrays, **options))(*meshes, alpha)
    np.testing.assert_array_equal(drawn.triangle, fragments.triangle)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(0.3, 2.0), (2.0, 9.0), (40.0, 90.0)])
def test_triangles_of_all_sizes(sizes):
    meshes, alpha = soup(2, count=120 if sizes[1] < 5 else 40, sizes=sizes), atlas(2)
    assert_matches_oracle(draw(*meshes, alpha), meshes, alpha)


def test_without_holes_it_is_what_rasterize_draws():
    points, depth, uv = soup(3, count=300)
    corners = np.arange(900).reshape(300, 3)
    expected = rasterize(points.reshape(2, 900, 2), depth.reshape(2, 900), corners, image_size=SIZE)
    fragments = draw(points, depth, uv, SOLID)
    same = np.asarray(fragments.triangle == expected.triangle)
    assert same.mean() > 0.995  # but for depths that are all but the same
    np.testing.assert_array_equal(fragments.barycentric[same], expected.barycentric[same])
    np.testing.assert_array_equal(fragments.depth[same], expected.depth[same])


@pytest.mark.slow
def test_more_tiles_than_one_chunk_holds():
    points, depth, uv = soup(4, count=60, sizes=(300.0, 400.0))
    points += 60
    alpha, size = atlas(4), (120, 130)
    assert 2 * 60 * (size[0] / TILE) * (size[1] / TILE) > 4 * CHUNK

    def drawn(*arrays):
        return rasterize_cutouts(*arrays, image_size=size)

    def pieces(*arrays):  # the nearest of what is drawn one by one
        one = jax.vmap(lambda p, z, t: rasterize_cutouts(p[None], z[None], t[None], alpha, image_size=size).depth[0])
        depths = one(*(array[0][:, None] for array in arrays))
        return jnp.where(depths > 0, depths, jnp.inf).min(0)

    fragments = drawn(points, depth, uv, alpha)
    on_gpu = on_accelerator(drawn)(points, depth, uv, alpha)
    np.testing.assert_array_equal(on_gpu.triangle, fragments.triangle)
    nearest = pieces(points, depth, uv)
    np.testing.assert_allclose(jnp.where(fragments.depth > 0, fragments.depth, jnp.inf)[0], nearest, rtol=1e-4)


def card(depth):
    """Two triangles over the whole picture, with the whole atlas on them."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    square = corners[[[0, 1, 2], [0, 2, 3]]]
    return square * (SIZE[1], SIZE[0]), np.full((2, 3), depth, np.float32), square * (1, -1) + (0, 1)


def cards(*depths):
    return tuple(np.concatenate(arrays)[None] for arrays in zip(*map(card, depths), strict=True))


def test_through_a_hole_one_sees_what_is_behind_it():
    alpha = np.zeros(ATLAS, np.uint8)
    alpha[:10] = 255  # the upper half, above v = 0.5
    points, depth, uv = cards(2, 3)
    uv[0, 2:, :, 1] = 1  # the farther card is solid everywhere
    fragments = draw(points, depth, uv, alpha)
    np.testing.assert_array_equal(fragments.triangle[0] < 2, np.arange(18)[:, None] < np.full((18, 22), 9))
    assert (fragments.triangle >= 0).all()
    behind = np.full((1, *SIZE), 2.5, np.float32)
    fragments = draw(points, depth, uv, alpha, behind=behind)
    np.testing.assert_array_equal(fragments.triangle[0] >= 0, np.arange(18)[:, None] < np.full((18, 22), 9))


@pytest.mark.parametrize(
    ("distance", "drawn"), [(1.0, False), (1.999, False), (2.0, True), (2.001, True), (50.0, True)]
)
def test_behind_hides_what_is_farther_and_nothing_else(distance, drawn):
    fragments = draw(*cards(2), SOLID, behind=np.full((1, *SIZE), distance, np.float32))
    assert (fragments.triangle >= 0).all() if drawn else (fragments.triangle == -1).all()


def test_at_the_same_depth_the_lowest_index_is_seen():
    fragments = draw(*cards(2, 2, 2), SOLID)
    assert set(np.unique(fragments.triangle)) == {0, 1}


@pytest.mark.slow
def test_random_thresholds_show_a_share_of_the_pixels_that_is_the_alpha():
    size = (100, 100)
    points, depth, uv = cards(2)
    threshold = np.random.default_rng(0).uniform(size=size).astype(np.float32)
    for alpha, share in ((0, 0.0), (64, 64 / 255), (255, 1.0)):
        fragments = rasterize_cutouts(
            6 * points, depth, uv, np.full(ATLAS, alpha, np.uint8), image_size=size, threshold=threshold
        )
        assert abs((fragments.triangle >= 0).mean() - share) <= (0.02 if 0 < share < 1 else 0)


def test_what_cannot_be_drawn_is_left_out():
    points, depth, uv = soup(5)
    bad = (points[:, :8].copy(), depth[:, :8].copy(), uv[:, :8].copy())
    bad[1][:] = 0.5  # in front of all
    bad[0][:, 0, 1, 0], bad[0][:, 1, 2, 1], bad[0][:, 2] = np.nan, np.inf, 4.0
    bad[1][:, 3, 0], bad[1][:, 4, 1], bad[1][:, 5, 2] = 0.0, -1.0, np.nan
    bad[2][:, 6, 1, 1], bad[2][:, 7, 0, 0] = np.nan, np.inf
    padded = [np.concatenate(pair, 1) for pair in zip((points, depth, uv), bad, strict=True)]
    alpha = atlas(5)
    jax.tree.map(np.testing.assert_array_equal, draw(*padded, alpha), draw(points, depth, uv, alpha))


@pytest.mark.parametrize("batch, count", [(0, 3), (2, 0), (2, 3)])
def test_nothing_to_see(batch, count):
    mesh = soup(0, count=count, batch=batch)
    empty = np.zeros(ATLAS, np.uint8)
    for options in ({}, {"behind": np.ones((batch, *SIZE), np.float32)}, {"threshold": np.zeros(SIZE, np.float32)}):
        fragments = draw(*mesh, empty, **options)
        assert fragments.triangle.shape == (batch, *SIZE) and (fragments.triangle == -1).all()
        assert not np.any(fragments.barycentric) and not np.any(fragments.depth)
    hidden = draw(*mesh, SOLID, behind=np.full((batch, *SIZE), 1e-3, np.float32))
    assert (hidden.triangle == -1).all()


@pytest.mark.slow
def test_one_by_one_under_vmap_and_in_a_batch():
    mesh, alpha = soup(6, batch=3), atlas(6)
    threshold = np.random.default_rng(1).uniform(size=(3, *SIZE)).astype(np.float32)
    behind = np.random.default_rng(2).uniform(2, 12, (3, *SIZE)).astype(np.float32)

    def one(points, depth, uv, threshold, behind):
        fragments = draw(points[None], depth[None], uv[None], alpha, threshold=threshold, behind=behind[None])
        return jax.tree.map(lambda array: array[0], fragments)

    batch = draw(*mesh, alpha, threshold=threshold, behind=behind)
    mapped = jax.jit(jax.vmap(one))(*mesh, threshold, behind)
    single = [one(*arrays) for arrays in zip(*mesh, threshold, behind, strict=True)]
    for other in (mapped, jax.tree.map(lambda *leaves: np.stack(leaves), *single)):
        np.testing.assert_array_equal(batch.triangle, other.triangle)
        np.testing.assert_allclose(batch.barycentric, other.barycentric, atol=1e-5)


def test_texture_coordinates_between_corners():
    """A card that leans away from the camera: what is interpolated is right in space, not in the image."""
    points, depth, uv = cards(2)
    depth[:, :, :] = np.where(uv[..., 0] > 0.5, 8.0, 2.0)
    fragments = draw(points, depth, uv, SOLID)
    at = interpolate(fragments, np.arange(6).reshape(2, 3), uv.reshape(1, 6, 2))
    across = (np.arange(SIZE[1]) + 0.5) / SIZE[1]
    expected = (across / 8) / (across / 8 + (1 - across) / 2)
    np.testing.assert_allclose(at[0, ..., 0], np.broadcast_to(expected, SIZE), atol=1e-5)


def test_no_gradient_passes():
    mesh, alpha = soup(8), atlas(8)

    def total(points, depth):
        fragments = draw(points, depth, mesh[2], alpha)
        return fragments.depth.sum() + fragments.barycentric.sum()

    assert not any(np.any(gradient) for gradient in jax.grad(total, (0, 1))(*mesh[:2]))


def test_texels_and_a_texture_of_half_the_size():
    random = np.random.default_rng(3)
    texture = random.integers(0, 256, (4, 6, 4)).astype(np.uint8)
    for row in range(4):
        for column in range(6):
            uv = np.array([(column + 0.5) / 6, 1 - (row + 0.5) / 4], np.float32)
            np.testing.assert_allclose(sample_texture(texture, uv), texture[row, column] / 255, atol=1e-6)
    beyond = np.array([[-3.0, 7.0], [np.float32(1e30), -1e30]], np.float32)
    np.testing.assert_allclose(sample_texture(texture, beyond), texture[[0, 3], [0, 5]] / 255, atol=1e-6)
    texture[:2, :2, 3], texture[2:, 2:4, 3] = 0, [[255, 0], [0, 0]]
    half = np.asarray(halve_texture(texture))
    for row in range(2):
        for column in range(3):
            block = texture[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(4, 4).astype(float)
            weights = block[:, 3] if block[:, 3].any() else np.ones(4)
            color = (weights[:, None] * block[:, :3]).sum(0) / weights.sum()
            np.testing.assert_allclose(half[row, column], [*color, block[:, 3].mean()], atol=0.51)
