import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxface.core import parts
from jaxface.core.landmarks import LANDMARKS
from jaxface.networks.dense_points import PointHead, double
from jaxface.networks.encoder import create_encoder
from jaxface.networks.parser import covariance
from jaxface.networks.people_answer import vector_of
from jaxface.networks.people_network import pixel_classes

SIZES = (4, 3, 2)


@pytest.fixture(scope="module")
def network():
    module = create_encoder("people10", SIZES, width_multiplier=0.125)
    variables = jax.jit(lambda: module.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False))()
    return module, variables


@pytest.fixture(scope="module")
def answer(network):
    module, variables = network
    image = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    return jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, image)


def test_what_it_says_has_the_promised_shapes_and_starts_at_the_mean_face(answer):
    points = LANDMARKS + 320
    assert answer.vector.shape == (2, sum(SIZES) + 33) and not answer.vector.any()
    assert answer.log_spread.shape == answer.vector.shape and not answer.log_spread.any()
    assert answer.logits.shape == (2, 32, 32, len(parts.CLASSES))
    assert answer.points.position.shape == (2, points, 2) and answer.points.visibility.shape == (2, points)
    assert (answer.points.whitening[..., :2] > 0).all()
    assert np.array_equal(vector_of(answer), answer.vector) and vector_of(answer.vector) is answer.vector
    classes = pixel_classes(answer.logits)
    assert classes.shape == (2, 64, 64) and classes.dtype == jnp.uint8 and classes.max() < len(parts.CLASSES)


@pytest.mark.parametrize("shape", [(1, 60, 64, 3), (1, 64, 64, 1), (64, 64, 3)])
def test_pictures_of_other_shapes_are_refused(network, shape):
    module, variables = network
    with pytest.raises(ValueError, match="multiples of 32"):
        module.apply(variables, jnp.zeros(shape), train=False)
    with pytest.raises(ValueError, match="floats"):
        module.apply(variables, jnp.zeros((1, 64, 64, 3), jnp.uint8), train=False)


def test_doubling_is_bilinear_interpolation_between_pixels_middles():
    x = np.random.default_rng(0).normal(size=(1, 5, 4, 2)).astype(np.float32)
    places = [(np.arange(2 * n) + 0.5) / 2 - 0.5 for n in x.shape[1:3]]
    grid = np.meshgrid(*places, indexing="ij")
    expected = [ndimage.map_coordinates(x[0, ..., c], grid, order=1, mode="nearest") for c in (0, 1)]
    np.testing.assert_allclose(double(jnp.asarray(x))[0], np.stack(expected, -1), atol=1e-6)


def test_a_point_lies_where_its_heat_is_and_has_the_color_of_that_place():
    head = PointHead(1)
    features = jnp.zeros((1, 8, 6, 4)).at[0, 5, 2, 0].set(1.0)
    picture = jax.random.uniform(jax.random.key(1), (1, 16, 12, 3))
    variables = head.init(jax.random.key(0), features, picture)
    params = jax.tree.map(jnp.zeros_like, variables["params"])
    params["heat"]["kernel"] = params["heat"]["kernel"].at[0, 0].set(100.0)
    found, colors = head.apply({"params": params}, features, picture)
    np.testing.assert_allclose(found.position[0, 0], [2.5 / 6, 5.5 / 8], atol=1e-5)
    np.testing.assert_allclose(colors[0, 0], picture[0, 10:12, 4:6].mean((0, 1)), atol=1e-5)


def test_covariance_is_that_of_the_whitening_matrix():
    whitening = np.array([[[2.0, 3.0, -1.0], [0.5, 10.0, 4.0]]])
    for (a, b, c), found in zip(whitening[0], covariance(jnp.asarray(whitening))[0], strict=True):
        matrix = np.array([[a, 0], [c, b]])
        np.testing.assert_allclose(found, np.linalg.inv(matrix.T @ matrix), rtol=1e-5)
