import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxface.render import rasterize, soft_silhouette
from oracles import render as oracle

SIZE = (32, 40)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def separate_triangles(seed, count, extent):
    rng = np.random.default_rng(seed)
    points = rng.uniform((-4, -4), (SIZE[1] + 4, SIZE[0] + 4), (count, 1, 2)) + rng.uniform(
        -extent, extent, (count, 3, 2)
    )
    return points.reshape(-1, 2).astype(np.float32), np.arange(3 * count, dtype=np.int32).reshape(count, 3)


def grid_mesh(cells=8):
    x, y = np.meshgrid(np.linspace(8.3, 31.1, cells + 1), np.linspace(5.2, 27.7, cells + 1))
    first = (np.arange(cells)[:, None] * (cells + 1) + np.arange(cells)).ravel()
    triangles = [
        np.stack([first, first + 1, first + cells + 2], -1),
        np.stack([first, first + cells + 2, first + cells + 1], -1),
    ]
    points = np.stack([x, y], -1).reshape(-1, 2) + np.random.default_rng(0).uniform(-0.5, 0.5, ((cells + 1) ** 2, 2))
    return points.astype(np.float32), np.concatenate(triangles).astype(np.int32)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [1e-5, 1e-4, 3e-3])
def test_equals_the_dense_formula(sigma):
    for count, extent in ((50, 3.0), (50, 40.0), (1, 20.0)):
        points, triangles = separate_triangles(count, count, extent)
        result = soft_silhouette(points, triangles, image_size=SIZE, sigma=sigma)
        expected = oracle.soft_silhouette_slowly(points, triangles, SIZE, sigma)
        np.testing.assert_allclose(result, expected, atol=1e-4)
        assert expected.max() > 0.1


@pytest.mark.slow
def test_hardens_to_the_z_buffer():
    points, triangles = grid_mesh()
    hard = rasterize(points, np.ones(len(points)), triangles, image_size=SIZE).triangle >= 0
    sharp = soft_silhouette(points, triangles, image_size=SIZE, sigma=1e-7)
    np.testing.assert_array_equal(np.asarray(sharp) > 0.49, hard)


@pytest.mark.slow
def test_tail_of_many_triangles_stays_within_the_bound():
    # 3000 copies of one triangle: what they add just outside their windows is what the margin must allow for.
    points = np.array([[18.0, 14.0], [22.0, 14.5], [20.0, 18.0]], np.float32)
    triangles = np.tile(np.arange(3), (3000, 1))
    result = soft_silhouette(points, triangles, image_size=SIZE, sigma=1e-3)
    one = oracle.soft_silhouette_slowly(points, triangles[:1], SIZE, 1e-3)
    np.testing.assert_allclose(result, 1 - (1 - one) ** 3000, atol=1e-4)


@pytest.mark.slow
def test_gradients():
    (small, triangles), (large, _) = separate_triangles(7, 4, 2.0), separate_triangles(8, 4, 15.0)
    triangles = np.concatenate([triangles, triangles + 12])
    weights = np.random.default_rng(0).normal(size=SIZE)
    with jax.enable_x64(True):
        points = jnp.asarray(np.concatenate([small, large]), jnp.float64)

        @jax.jit
        def loss(points):
            return jnp.sum(weights * soft_silhouette(points, triangles, image_size=SIZE, sigma=2e-3))

        check_grads(loss, (points,), order=1, modes=["rev"], rtol=1e-3, eps=1e-5)


@pytest.mark.slow
def test_grid_mesh_and_its_gradient_in_float32_are_those_of_the_dense_formula():
    points, triangles = grid_mesh(5)
    weights = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)

    @jax.jit
    def image_and_gradient(points):
        image, pull_back = jax.vjp(lambda p: soft_silhouette(p, triangles, image_size=SIZE, sigma=1e-3), points)
        return image, pull_back(weights)[0]

    def dense(points):
        return oracle.soft_silhouette_slowly(points, triangles, SIZE, 1e-3)

    image, gradient = image_and_gradient(points)
    np.testing.assert_allclose(image, dense(points), atol=1e-4)
    rng, step = np.random.default_rng(1), 1e-4
    for _ in range(5):
        direction = rng.normal(size=points.shape)
        there, back = (np.sum(weights * dense(points + sign * step * direction)) for sign in (1, -1))
        np.testing.assert_allclose(np.sum(gradient * direction), (there - back) / (2 * step), rtol=2e-3)


@pytest.mark.slow
def test_batches_are_the_same_as_one_by_one():
    points = np.stack([separate_triangles(seed, 9, 8.0)[0] for seed in range(6)])
    triangles = separate_triangles(0, 9, 8.0)[1]

    def image_and_gradient(points):
        image, pull_back = jax.vjp(lambda p: soft_silhouette(p, triangles, image_size=SIZE, sigma=1e-3), points)
        return image, pull_back(image)[0]

    batch = jax.jit(image_and_gradient)(points.reshape(2, 3, 27, 2))
    mapped = jax.jit(jax.vmap(image_and_gradient))(points)
    assert batch[0].shape == (2, 3, *SIZE)
    np.testing.assert_allclose(batch[0].reshape(6, *SIZE), mapped[0], atol=1e-6)
    np.testing.assert_allclose(batch[1].reshape(6, 27, 2), mapped[1], atol=1e-5)
    for one, image in zip(points, mapped[0], strict=True):
        np.testing.assert_allclose(image, oracle.soft_silhouette_slowly(one, triangles, SIZE, 1e-3), atol=1e-4)


@pytest.mark.slow
def test_bad_triangles_do_not_count_and_have_no_gradient():
    points, triangles = separate_triangles(3, 6, 8.0)
    bad = np.array([[np.nan, 3], [5, 5], [7, 9], [np.inf, 2], [1e30, -1e30], [5, 5]], np.float32)
    more = np.array([[0, 1, 2], [3, 1, 2], [1, 5, 2], [4, 1, 2]], np.int32) + len(points)
    every = np.concatenate([points, bad])

    @jax.jit
    def value_and_gradient(points, triangles):
        return jax.value_and_grad(lambda p: jnp.sum(soft_silhouette(p, triangles, image_size=SIZE, sigma=1e-3) ** 2))(
            points
        )

    padding = np.zeros_like(more)
    expected, _ = value_and_gradient(every, np.concatenate([triangles, padding]))
    value, gradient = value_and_gradient(every, np.concatenate([triangles, more]))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.isfinite(gradient).all()
    assert not np.any(np.asarray(gradient)[[len(points), len(points) + 3]])


def test_nothing_to_draw_and_a_wrong_sigma():
    none = np.zeros((0, 3), np.int32)
    empty = soft_silhouette(np.zeros((2, 0, 2)), none, image_size=8, sigma=1e-4)
    np.testing.assert_array_equal(empty, np.zeros((2, 8, 8)))
    with pytest.raises(ValueError, match="sigma must be positive"):
        soft_silhouette(np.zeros((3, 2)), np.array([[0, 1, 2]]), image_size=8, sigma=0.0)
