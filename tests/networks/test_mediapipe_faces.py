"""MediaPipe's layers against plain definitions, and what became of its weights."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.networks import mediapipe_faces, mediapipe_layers
from jaxface.networks.mediapipe_faces import face_mesh_network, full_range, load_face_networks, short_range


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(2, 8, 6, 4)).astype(np.float32)


def convolved(x, kernel, bias, stride, pad):
    """By the definition, pixel by pixel; kernel [h, w, in, out]."""
    x = np.pad(x, ((0, 0), pad, pad, (0, 0)))
    height, width = kernel.shape[:2]
    rows, columns = ((n - k) // stride + 1 for n, k in zip(x.shape[1:3], kernel.shape[:2], strict=True))
    result = np.zeros((len(x), rows, columns, kernel.shape[3]))
    for i, j in itertools.product(range(rows), range(columns)):
        piece = x[:, i * stride : i * stride + height, j * stride : j * stride + width]
        result[:, i, j] = np.einsum("bhwc,hwcd->bd", piece, kernel) + bias
    return result


@pytest.mark.parametrize(("stride", "pad"), [(1, (1, 1)), (2, (1, 1)), (2, (0, 1))])
def test_convolutions(features, stride, pad):
    random = np.random.default_rng(1)
    kernel, bias = random.normal(size=(3, 3, 4, 5)).astype(np.float32), random.normal(size=5).astype(np.float32)
    found = mediapipe_layers.convolution(features, (kernel, bias), stride=stride, pad=pad)
    np.testing.assert_allclose(found, convolved(features, kernel, bias, stride, pad), atol=1e-5)
    each, bias = random.normal(size=(3, 3, 4)).astype(np.float32), bias[:4]
    expected = convolved(features, each[:, :, None] * np.eye(4), bias, stride, pad)
    found = mediapipe_layers.depthwise(features, (each, bias), stride=stride, pad=pad)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    grouped = mediapipe_layers.grouped_convolution(features, each, stride=stride, pad=pad)  # what accelerators run
    np.testing.assert_allclose(np.asarray(grouped) + bias, expected, atol=1e-5)


def test_small_layers(features):
    slope = np.array([0.1, -0.5, 0, 2], np.float32)
    np.testing.assert_allclose(mediapipe_layers.prelu(features, (slope,)), np.where(features > 0, 1, slope) * features)
    pooled = np.maximum.reduce([features[:, i::2, j::2] for i, j in itertools.product(range(2), range(2))])
    np.testing.assert_array_equal(mediapipe_layers.max_pool_2(features), pooled)
    wider = mediapipe_layers.grow_channels(features, 7)
    np.testing.assert_array_equal(wider[..., :4], features)
    assert not wider[..., 4:].any() and wider.shape[-1] == 7
    spread = np.asarray(mediapipe_layers.depth_to_space(features))
    assert spread.shape == (2, 16, 12, 1)
    np.testing.assert_array_equal(spread[:, 1::2, 0::2, 0], features[..., 2])


def test_twice_as_large_is_bilinear(features):
    expected = jax.image.resize(features, (2, 16, 12, 4), "bilinear")
    np.testing.assert_allclose(mediapipe_layers.bilinear_twice(features), expected, atol=1e-6)


def test_regions_are_sampled_bilinearly_and_empty_outside():
    """Of a map that is linear in its coordinates, the samples are its values at their places."""
    y, x = np.mgrid[:9, :11] + 0.5
    features = np.stack([x, y, x + 2 * y], -1)[None].astype(np.float32)
    places = np.array([[[0.5, -0.2, 3], [0.1, 0.4, 2]], [[3, 0, -1], [0, 3, -2]]], np.float32)[None]
    found = np.asarray(mediapipe_layers.sample(features, places, side=4))
    assert found.shape == (1, 2, 4, 4, 3)
    for region, (i, j) in itertools.product(range(2), itertools.product(range(4), range(4))):
        px, py = places[0, region] @ [j + 0.5, i + 0.5, 1]
        inside = 0.5 <= px <= 10.5 and 0.5 <= py <= 8.5
        np.testing.assert_allclose(found[0, region, i, j], inside * np.array([px, py, px + 2 * py]), atol=1e-5)


def test_weights_keep_the_numbers_below_float16s_smallest_normal_one():
    arrays = jax.tree.leaves(load_face_networks().mesh)
    assert all(array.dtype == np.float32 for array in arrays)
    small = sum(((array != 0) & (np.abs(array) < 2.0**-14)).sum() for array in arrays)
    assert small == 4150  # of the 1,189,277 in the file


def test_every_layer_is_used_once():
    """A layer left over, or missing, would be a network of another structure."""

    class Counted(list):
        used = 0

        def __iter__(self):
            for layer in super().__iter__():
                self.used += 1
                yield layer

    networks = load_face_networks()
    for network, side in ((full_range, 192), (short_range, 128)):
        layers = Counted(getattr(networks, network.__name__))
        boxes, scores = jax.eval_shape(lambda x, f=network, k=layers: f(k, x), jnp.zeros((2, side, side, 3)))
        assert layers.used == len(layers) and boxes.shape == (*scores.shape, 16)
    layers = Counted(networks.mesh)
    points, flags = jax.eval_shape(lambda x: face_mesh_network(layers, networks.points, x), jnp.zeros((2, 192, 192, 3)))
    assert layers.used == len(layers) and points.shape == (2, 478, 3) and flags.shape == (2,)


def test_regions_lie_around_their_points():
    """Level along the line of the region's ends, half as large again as its points."""
    points = load_face_networks().points
    mesh = np.random.default_rng(0).uniform(10, 30, (1, 468, 2)).astype(np.float32)
    places = np.asarray(mediapipe_faces.region_places(mesh, points))[0]
    for place, (left, right), indices in zip(
        places, mediapipe_faces.REGION_ENDS.values(), points.values(), strict=True
    ):
        line = mesh[0, right] - mesh[0, left]
        np.testing.assert_allclose(place[:, 0] / np.linalg.norm(place[:, 0]), line / np.linalg.norm(line), atol=1e-5)
        assert abs(place[:, 0] @ place[:, 1]) < 1e-4
        inside = np.linalg.solve(place[:, :2], (mesh[0, indices] - place[:, 2]).T).T  # in samples, of 16
        np.testing.assert_allclose([inside.min(0), inside.max(0)], [[8 - 16 / 3] * 2, [8 + 16 / 3] * 2], atol=1e-3)
