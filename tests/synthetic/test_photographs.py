"""Photographs show whom they say, from where they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.core import parts
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients
from jaxface.core.faces import decode_face, landmark_points
from jaxface.render import label_triangles
from jaxface.synthetic.people import load_people
from jaxface.synthetic.photographs import DISTANCES, PHOTO_SIZE, draw_photographs
from toys.models import toy_model


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def drawn(model):
    """Two photographs of one person and one of another, all turned by 0.2."""
    labels = label_triangles(model.parts, model.triangles)
    keys = jax.vmap(jax.random.key)(jnp.array([1, 2, 3]))
    person_keys = jax.vmap(jax.random.key)(jnp.array([7, 7, 8]))
    yaws = jnp.full(3, 0.2)
    mean = jnp.full(model.identity_basis.shape[-1], 5.0)
    draw = jax.jit(draw_photographs)
    photographs = draw(keys, model, labels, yaws=yaws, identity_mean=mean, person_keys=person_keys)
    return {name: np.asarray(values) for name, values in photographs.items()}


@pytest.mark.slow
def test_one_person_may_be_photographed_twice(model, drawn):
    one, again, other = (Coefficients.from_vector(jnp.asarray(v)[None], model) for v in drawn["coefficients"])
    np.testing.assert_array_equal(one.identity, again.identity)
    np.testing.assert_array_equal(one.albedo, again.albedo)
    assert np.abs(one.identity - other.identity).max() > 0.1
    assert np.abs(one.expression - again.expression).max() > 0.01
    assert np.abs(drawn["image"][0].astype(int) - drawn["image"][1]).mean() > 1
    assert np.mean(np.asarray(other.identity)) > 3  # around the mean of people


@pytest.mark.slow
def test_the_camera_sees_what_is_labelled(model, drawn):
    assert drawn["image"].shape == (3, PHOTO_SIZE, PHOTO_SIZE, 3) and drawn["image"].dtype == np.uint8
    for index, vector in enumerate(drawn["coefficients"]):
        x, y = drawn["center"][index].tolist()
        camera = Camera(float(drawn["focal"][index]), (x, y), float(drawn["distance"][index]), (PHOTO_SIZE, PHOTO_SIZE))
        coefficients = Coefficients.from_vector(jnp.asarray(vector)[None], model)
        assert DISTANCES[0] <= drawn["distance"][index] <= DISTANCES[1]
        assert np.asarray(coefficients.angles)[0, 1] == pytest.approx(0.2)
        face = decode_face(model, coefficients, camera)
        np.testing.assert_allclose(face.shape[0], drawn["shape"][index], atol=1e-5)
        landmarks = np.asarray(landmark_points(model, face.points, coefficients.angles[:, 2]))[0]
        np.testing.assert_allclose(landmarks, drawn["landmarks"][index], atol=0.05)
        center = np.asarray(face.points)[0].mean(0)
        rows, columns = np.nonzero(drawn["labels"][index] != parts.BACKGROUND)
        assert np.linalg.norm(center - (columns.mean(), rows.mean())) < 60
        hidden = drawn["hidden"][index]
        assert (drawn["labels"][index][hidden] == parts.BACKGROUND).all()


@pytest.mark.slow
def test_hair_beside_the_face_hides_nothing_of_it(anny):
    keys, labels = jax.vmap(jax.random.key)(jnp.arange(3)), label_triangles(anny.parts, anny.triangles)
    drawn = jax.tree.map(np.asarray, jax.jit(draw_photographs)(keys, anny, labels, load_people(anny)))
    hidden, hair = drawn["hidden"], drawn["classes"] == parts.CLASSES.index("hair")
    assert (drawn["labels"][hidden] == parts.BACKGROUND).all()
    assert (hair & hidden).sum() > 100 and (hair & ~hidden).sum() > 1000
    assert (drawn["classes"][hidden] == parts.CLASSES.index("background")).sum() <= 5  # but for rounding
