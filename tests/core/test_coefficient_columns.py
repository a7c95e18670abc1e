"""Where each kind of coefficient lies in a vector: all that tell it agree; and what a standard deviation of it is."""

import dataclasses
import types

import numpy as np
import pytest

from jaxface import Coefficients
from jaxface.core.coefficients import (
    LAST_COLUMNS,
    column_mask,
    joint_numbers,
    standard_expression,
    vector_columns,
    vector_size,
)
from jaxface.core.skinning import ANGLE_DEVIATION, Skinning
from jaxface.training import terms
from toys.models import toy_model


def jointed_model():
    """The toy model with three joints, two of which turn: 2 linear expression coefficients, then 6 angles."""
    skinning = Skinning(
        joints=np.zeros((3, 3), np.float32),
        joint_identity_basis=np.zeros((3, 3, 3), np.float32),
        joint_expression_basis=np.zeros((3, 3, 2), np.float32),
        weights=np.full((81, 3), 1 / 3, np.float32),
        pose_basis=np.zeros((81, 3, 18), np.float32),
        parents=(-1, 0, 1),
        posed=(1, 2),
    )
    return dataclasses.replace(toy_model(), skinning=skinning)


@pytest.fixture(params=["toy", "jointed", "anny"])
def model(request, anny):
    return {"toy": toy_model, "jointed": jointed_model, "anny": lambda: anny}[request.param]()


def test_columns_masks_and_from_vector_agree(model):
    size = vector_size(model)
    vector = np.arange(size, dtype=np.float32)
    named, columns = Coefficients.from_vector(vector, model), vector_columns(model)
    assert list(columns) == [field.name for field in dataclasses.fields(Coefficients)]
    for kind, place in columns.items():
        expected = np.asarray(getattr(named, kind)).ravel()
        np.testing.assert_array_equal(vector[place], expected)
        np.testing.assert_array_equal(np.flatnonzero(column_mask(model, kind)), expected)
    for kind, place in LAST_COLUMNS.items():
        np.testing.assert_array_equal(vector[place], vector[columns[kind]])
    assert np.sum([column_mask(model, kind) for kind in columns], axis=0).tolist() == [1] * size
    two = column_mask(model, "identity", "albedo")
    np.testing.assert_array_equal(two, column_mask(model, "identity") | column_mask(model, "albedo"))
    assert not column_mask(model).any()


def test_an_angle_of_its_deviation_is_one_standard_deviation():
    model = jointed_model()
    expression = np.array([[1.0, -2.0, *(ANGLE_DEVIATION * np.array([1, 2, 3, -4, 5, 6]))]], np.float32)
    np.testing.assert_allclose(standard_expression(model, expression), [[1, -2, 1, 2, 3, -4, 5, 6]], rtol=1e-6)
    np.testing.assert_allclose(standard_expression(model, expression[0]), [1, -2, 1, 2, 3, -4, 5, 6], rtol=1e-6)


def test_without_joints_expressions_are_standard_as_they_are(anny):
    for model in (toy_model(), anny):
        assert joint_numbers(model) == 0
        expression = np.random.default_rng(0).normal(size=(2, model.expression_basis.shape[-1])).astype(np.float32)
        np.testing.assert_array_equal(standard_expression(model, expression), expression)


@pytest.mark.parametrize("make", [toy_model, jointed_model])
def test_the_regularization_weighs_all_numbers_by_their_deviations(make):
    model = make()
    random = np.random.default_rng(1)
    vector = random.normal(size=(3, vector_size(model))).astype(np.float32)
    coefficients = Coefficients.from_vector(vector, model)
    found = terms.regularization(types.SimpleNamespace(model=model, coefficients=coefficients))
    identity, expression, albedo = (
        np.float64(vector[:, vector_columns(model)[kind]]) for kind in ("identity", "expression", "albedo")
    )
    angles = expression[:, 2:] / 0.1  # the last six of the jointed model: radians of the deviation 0.1
    expected = (identity**2).sum(1) + 0.8 * ((expression[:, :2] ** 2).sum(1) + (angles**2).sum(1))
    np.testing.assert_allclose(found, expected + 0.017 * (albedo**2).sum(1), rtol=1e-5)


def test_turning_a_joint_costs_as_much_as_a_smile():
    model = jointed_model()
    vectors = np.zeros((8, vector_size(model)), np.float32)
    first = vector_columns(model)["expression"].start
    vectors[range(8), range(first, first + 8)] = [1] * 2 + [ANGLE_DEVIATION] * 6
    coefficients = Coefficients.from_vector(vectors, model)
    costs = terms.regularization(types.SimpleNamespace(model=model, coefficients=coefficients))
    np.testing.assert_allclose(costs, 0.8, rtol=1e-5)
