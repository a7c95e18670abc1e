import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxface.render import Fragments, interpolate, rasterize

_spec = importlib.util.spec_from_file_location("render_oracle", pathlib.Path(__file__).with_name("oracle.py"))
oracle = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(oracle)

SIZE = (32, 40)
draw = jax.jit(rasterize, static_argnames="image_size")


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


@pytest.mark.parametrize("seed", range(6))
def test_random_triangles_of_all_sizes(seed):
    mesh = random_mesh(seed, 60)
    fragments = draw(*mesh, image_size=SIZE)
    assert_matches_oracle(fragments, *mesh)
    assert len(np.unique(fragments.triangle)) > 10


@pytest.mark.parametrize("seed", range(3))
def test_many_small_triangles(seed):
    mesh = random_mesh(seed, 500, sizes=(0.3, 3.0))
    assert_matches_oracle(draw(*mesh, image_size=SIZE), *mesh)
