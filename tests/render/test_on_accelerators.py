"""Drawing as accelerators do it: the programs lowered for GPUs, run on the CPU, beside the CPU's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface import Camera, Coefficients, decode_face
from jaxface.core.coefficients import vector_size
from jaxface.render import interpolate, rasterize, soft_silhouette
from jaxface.render.rasterizer import ACCELERATOR_TILE, accelerator_chunk
from jaxface.render.tiles import bounding_boxes, corners_of_all, has_area
from oracles import render as oracle
from toys.lowered import on_accelerator

SIZE = (32, 40)


def triangles_of_sizes(seed, low, high, count):
    """Separate triangles, partly outside the picture, some through pixel centres, some behind the camera."""
    random = np.random.default_rng(seed)
    centers = random.uniform((-5, -5), (SIZE[1] + 5, SIZE[0] + 5), (count, 1, 2))
    extent = np.exp(random.uniform(np.log(low), np.log(high), (count, 1, 1)))
    points = (centers + extent * random.uniform(-1, 1, (count, 3, 2))).reshape(-1, 2)
    points[::7] = np.floor(points[::7]) + 0.5
    depth = random.uniform(-0.2, 20, 3 * count)
    return points.astype(np.float32), depth.astype(np.float32), np.arange(3 * count, dtype=np.int32).reshape(count, 3)


def draw(points, depth, triangles):
    return rasterize(points, depth, triangles, image_size=SIZE)


draw_on_accelerator = on_accelerator(draw)


@pytest.mark.parametrize(("low", "high"), [(0.3, 3.0), (2.0, 12.0), (0.5, 60.0), (100.0, 200.0)])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_the_same_fragments_as_on_cpus_and_as_the_oracle(seed, low, high):
    mesh = triangles_of_sizes(seed, low, high, 200)
    fragments, expected = draw_on_accelerator(*mesh), draw(*mesh)
    jax.tree.map(np.testing.assert_array_equal, fragments, expected)
    triangle, _, _, tie = oracle.rasterize_slowly(*mesh, SIZE)
    assert tie.mean() < 0.2 and len(np.unique(triangle)) > 1
    np.testing.assert_array_equal(np.asarray(fragments.triangle)[~tie], triangle[~tie])


def test_more_tiles_than_one_chunk_holds():
    """Two hundred triangles, each over the whole of a larger picture: the loop takes at least five rounds."""
    points, depth, triangles = triangles_of_sizes(0, 300, 400, 200)
    size = (120, 120)
    boxes = bounding_boxes(*corners_of_all(points[None], triangles), np.ones(200, bool), image_size=size, tile=3)
    assert (boxes.across * boxes.down - 1).sum() > 4 * accelerator_chunk(200)

    def draw(points, depth):
        return rasterize(points, depth, triangles, image_size=size)

    jax.tree.map(np.testing.assert_array_equal, on_accelerator(draw)(points, depth), draw(points, depth))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(0,), (2, 3)])
def test_batches_of_any_shape(shape):
    points, depth, triangles = triangles_of_sizes(0, 0.5, 60, 50)
    points, depth = (np.broadcast_to(array, (*shape, *array.shape)).copy() for array in (points, depth))
    points += 3 * np.arange(np.prod(shape, dtype=int)).reshape(*shape, 1, 1)
    fragments = on_accelerator(draw)(points, depth, triangles)
    assert fragments.triangle.shape == (*shape, *SIZE)
    jax.tree.map(np.testing.assert_array_equal, fragments, draw(points, depth, triangles))


def built_in_faces(model, batch, image_size):
    random = np.random.default_rng(0)
    vectors = 0.5 * random.normal(size=(batch, vector_size(model))).astype(np.float32)
    vectors[:, -33:] *= 0.3  # angles, light, translation
    vectors[0] = 0
    coefficients = Coefficients.from_vector(jnp.asarray(vectors), model)
    return jax.jit(decode_face)(model, coefficients, Camera().resized(image_size))


@pytest.mark.parametrize("image_size", [112, 224])
def test_of_faces_the_loop_has_little_left_to_do(anny, image_size):
    """At most two rounds, whatever the batch: the chunk grows with it."""
    face = built_in_faces(anny, 4, image_size)
    x, y = corners_of_all(face.points, anny.triangles)
    size = (image_size, image_size)
    boxes = bounding_boxes(x, y, has_area(x, y), image_size=size, tile=ACCELERATOR_TILE)
    left = int(jnp.maximum(boxes.across * boxes.down - 1, 0).sum())
    assert 0 < left <= 2 * accelerator_chunk(x.shape[1])


@pytest.mark.slow
def test_faces_and_their_gradient(anny):
    face = built_in_faces(anny, 2, 224)

    def drawn(points, depth, colors):
        fragments = rasterize(points, depth, anny.triangles, image_size=224)
        picture = interpolate(fragments, anny.triangles, colors)
        return jnp.square(picture).sum() + fragments.depth.sum(), fragments.triangle

    run = jax.value_and_grad(drawn, (0, 1, 2), has_aux=True)
    (value, triangle), gradient = on_accelerator(run)(face.points, face.depth, face.colors)
    (expected, expected_triangle), expected_gradient = jax.jit(run)(face.points, face.depth, face.colors)
    np.testing.assert_array_equal(triangle, expected_triangle)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for one, other in zip(gradient, expected_gradient, strict=True):
        assert np.linalg.norm(one - other) <= 1e-5 * np.linalg.norm(other)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [1e-5, 1e-3])
def test_soft_silhouette_and_its_gradient(sigma):
    points, _, triangles = triangles_of_sizes(5, 0.5, 30, 60)
    weights = np.random.default_rng(1).normal(size=SIZE).astype(np.float32)

    def total(points):
        return (soft_silhouette(points, triangles, image_size=SIZE, sigma=sigma) * weights).sum()

    value, gradient = on_accelerator(jax.value_and_grad(total))(points)
    expected, expected_gradient = jax.jit(jax.value_and_grad(total))(points)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-4)
    assert np.linalg.norm(gradient - expected_gradient) <= 1e-4 * np.linalg.norm(expected_gradient)
