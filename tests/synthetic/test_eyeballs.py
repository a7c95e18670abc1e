"""Eyeballs against rays followed one by one in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxface.core import cameras
from jaxface.synthetic import eyeballs
from jaxface.synthetic.dice import Dice

SIZE, DISTANCE, RADIUS = 41, 10.0, 0.121
FOCAL = 0.8 * SIZE / 2 / RADIUS * DISTANCE  # the ball fills four fifths of the picture


def picture_of(center, axes):
    grid = (np.arange(SIZE) + 0.5 - SIZE / 2) / FOCAL
    rays = np.stack(np.broadcast_arrays(grid[None], -grid[:, None], -1.0), -1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    eyes = eyeballs.random_eyes(Dice(jax.random.key(0)))
    origin = jnp.array([0.0, 0.0, DISTANCE])
    centers, both = jnp.stack([jnp.asarray(center), jnp.full(3, 7.0)]), jnp.stack([axes, jnp.eye(3)])
    left = jnp.ones((SIZE, SIZE), bool)
    drawn = eyeballs.eyeball_surface(eyes, jnp.asarray(rays), origin, centers, both, left)
    other = eyeballs.eyeball_surface(eyes, jnp.asarray(rays), origin, centers[::-1], both[::-1], ~left)
    for one, same in zip(drawn, other, strict=True):
        np.testing.assert_array_equal(one, same)
    return rays, eyes, [np.asarray(part) for part in drawn]


def test_the_iris_is_where_the_eye_looks():
    for pitch, yaw in ((0.0, 0.0), (0.0, 0.4), (0.35, -0.3)):
        axes = cameras.rotation_matrix(jnp.array([pitch, yaw, 0.0]))
        _, eyes, (color, normal) = picture_of(np.zeros(3, np.float32), axes)
        pupil = color.max(-1) < 0.01
        row, column = np.argwhere(pupil).mean(0) + 0.5
        gaze = np.asarray(axes)[:, 2]
        assert abs(column - (SIZE / 2 + FOCAL / DISTANCE * 0.87 * RADIUS * gaze[0])) < 2.5
        assert abs(row - (SIZE / 2 - FOCAL / DISTANCE * 0.87 * RADIUS * gaze[1])) < 2.5
        assert color[int(row), int(column)].max() < 0.05  # the pupil
        assert np.isfinite(color).all() and abs(np.linalg.norm(normal, axis=-1) - 1).max() < 1e-4
    assert np.asarray(eyes.white).min() > 0.25


def test_hits_are_those_of_rays_and_a_sphere():
    center = np.array([0.02, -0.03, 0.01], np.float32)
    rays, _, (color, normal) = picture_of(center, cameras.rotation_matrix(jnp.array([0.0, np.pi, 0.0])))
    assert color.min() > 0.1  # it looks away: no cornea, so that the normals are the sphere's own
    for row, column in ((20, 20), (12, 25), (30, 14)):
        ray, toward = rays[row, column], center - np.array([0, 0, DISTANCE])
        along = ray @ toward
        hit = np.array([0, 0, DISTANCE]) + (along - np.sqrt(RADIUS**2 - (toward @ toward - along**2))) * ray
        # Rounding of the distance, 10 units from the camera in float32, is some thousandth of the radius.
        np.testing.assert_allclose(normal[row, column], (hit - center) / RADIUS, atol=2e-2)


def test_units_turn_both_eyes_the_same_way():
    names = ("jawOpen", "eyeLookOutLeft", "eyeLookInRight", "eyeLookUpLeft", "eyeLookDownRight")
    left, right = eyeballs.gaze_tables(names)
    assert left[1, 0] > 0 and right[2, 0] > 0  # to the image's right
    assert left[3, 1] < 0 < right[4, 1]
    assert not left[0].any() and not left[2].any() and not right[1].any()


def test_eyeballs_lie_behind_the_openings_between_the_lids(anny):
    """Of mean and random faces: what the opening shows of the middle of an eye is about a radius away."""
    identity = np.random.default_rng(0).normal(size=(20, anny.identity_basis.shape[-1])).clip(-2.5, 2.5)
    identity[0] = 0
    centers = np.asarray(eyeballs.place_eyes(anny, jnp.asarray(identity, jnp.float32)))
    neutral = anny.mean_shape + np.einsum("vck,bk->bvc", anny.identity_basis, identity)
    for side, part in enumerate(("left_eye", "right_eye")):
        opening = neutral[:, anny.parts[part]]
        across = opening[..., 0] - opening[..., 0].mean(1, keepdims=True)
        away = np.linalg.norm(opening - centers[:, side, None], axis=-1)
        middle = np.abs(across) < 0.06
        assert abs(away[0][middle[0]] - eyeballs.RADIUS).max() < 0.02
        assert abs(away[middle] - eyeballs.RADIUS).max() < 0.05
    np.testing.assert_allclose(centers[0, 0] * [-1, 1, 1], centers[0, 1], atol=1e-4)
