import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxface import Coefficients, FaceModel
from jaxface.core.coefficients import vector_columns, vector_size


def _model(identity, expression, albedo):
    return FaceModel(
        np.zeros((4, 3), np.float32),
        np.zeros((4, 3, identity), np.float32),
        np.zeros((4, 3, expression), np.float32),
        np.zeros((4, 3), np.float32),
        np.zeros((4, 3, albedo), np.float32),
        np.array([[0, 1, 2]]),
        {},
        {},
        name="toy",
    )


def test_bfm_has_257_numbers_in_the_published_order():
    model = _model(80, 64, 80)
    assert vector_size(model) == 257
    vector = np.arange(257, dtype=np.float32)[None]
    coefficients = Coefficients.from_vector(vector, model)
    assert coefficients.identity[0, 0] == 0 and coefficients.expression[0, 0] == 80
    assert coefficients.albedo[0, 0] == 144
    np.testing.assert_array_equal(coefficients.angles, [[224, 225, 226]])
    np.testing.assert_array_equal(coefficients.light[0, 1], np.arange(227 + 9, 227 + 18))
    np.testing.assert_array_equal(coefficients.translation, [[254, 255, 256]])
    np.testing.assert_array_equal(coefficients.to_vector(), vector)


@settings(max_examples=5, deadline=None)
@given(st.tuples(*[st.integers(0, 6)] * 3), st.integers(0, 9))
def test_round_trip_for_any_sizes(sizes, seed):
    model = _model(*sizes)
    vector = np.random.default_rng(seed).normal(size=(3, vector_size(model))).astype(np.float32)
    coefficients = Coefficients.from_vector(vector, model)
    np.testing.assert_array_equal(coefficients.to_vector(), vector)
    for name, columns in vector_columns(model).items():
        np.testing.assert_array_equal(np.reshape(getattr(coefficients, name), (3, -1)), vector[:, columns])


def test_a_single_vector_becomes_a_batch_of_one():
    model = _model(3, 2, 4)
    assert Coefficients.from_vector(jnp.zeros(vector_size(model)), model).identity.shape == (1, 3)


def test_a_wrong_length_says_what_is_expected():
    with pytest.raises(ValueError, match=r"'toy' takes vectors of 42 numbers, got \(1, 41\)"):
        Coefficients.from_vector(np.zeros((1, 41)), _model(3, 2, 4))


def test_zeros_and_trees():
    coefficients = Coefficients.zeros(_model(3, 2, 4), 5)
    assert coefficients.light.shape == (5, 3, 9)
    doubled = jax.jit(lambda c: jax.tree.map(lambda x: x + 1, c))(coefficients)
    assert isinstance(doubled, Coefficients) and (doubled.to_vector() == 1).all()
    assert (coefficients.replace(angles=jnp.ones((5, 3))).angles == 1).all()
