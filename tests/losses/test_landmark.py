import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxface.core import cameras
from jaxface.losses import LANDMARK_WEIGHTS_68, landmark_loss, march_landmarks, unrolled_x


def test_weights_are_deep3ds():
    assert LANDMARK_WEIGHTS_68.shape == (68,)
    assert np.flatnonzero(LANDMARK_WEIGHTS_68 == 20).tolist() == [28, 29, 30, *range(60, 68)]
    assert (LANDMARK_WEIGHTS_68[LANDMARK_WEIGHTS_68 != 20] == 1).all()


class TestLoss:
    def arrays(self):
        generator = np.random.default_rng(0)
        return [generator.uniform(0, 224, (3, 68, 2)).astype(np.float32) for _ in range(2)]

    @pytest.mark.parametrize("weights", [None, LANDMARK_WEIGHTS_68, np.tile(LANDMARK_WEIGHTS_68, (3, 1))])
    def test_is_the_mean_weighted_squared_distance(self, weights):
        predicted, target = self.arrays()
        factors = np.ones(68) if weights is None else weights
        expected = np.mean(factors * np.square(predicted.astype(np.float64) - target).sum(-1), axis=-1)
        np.testing.assert_allclose(landmark_loss(predicted, target, weights=weights), expected, rtol=1e-5)

    @pytest.mark.slow
    def test_landmarks_of_weight_zero_may_hold_anything(self):
        predicted, target = self.arrays()
        weights = np.ones((3, 68), np.float32)
        weights[0, 5], target[0, 5], weights[1] = 0, np.nan, 0
        loss, gradient = jax.value_and_grad(lambda p: landmark_loss(p, target, weights=weights).sum())(predicted)
        assert np.isfinite(loss) and np.isfinite(gradient).all()
        assert not np.any(gradient[0, 5]) and not np.any(gradient[1]) and np.any(gradient[0])
        assert landmark_loss(predicted, target, weights=weights)[1] == 0

    def test_gradient(self):
        with jax.enable_x64(True):
            predicted, target = (array.astype(np.float64) / 100 for array in self.arrays())
            check_grads(
                jax.jit(lambda p: landmark_loss(p, target, weights=LANDMARK_WEIGHTS_68)),
                (predicted,),
                order=1,
                modes=["rev"],
            )

    @pytest.mark.parametrize(
        ("predicted", "target", "weights"),
        [
            ((2, 5, 2), (2, 4, 2), None),
            ((5, 2), (5, 2), None),
            ((2, 0, 2), (2, 0, 2), None),
            ((2, 5, 2), (2, 5, 2), (4,)),
            ((2, 5, 2), (2, 5, 2), (3, 5)),
        ],
    )
    def test_mistakes_of_shape(self, predicted, target, weights):
        weights = None if weights is None else np.ones(weights)
        with pytest.raises(ValueError, match=r"expected|no landmarks"):
            landmark_loss(np.zeros(predicted), np.zeros(target), weights=weights)


class TestMarching:
    LANDMARKS = np.array([0, 1, 2, 3, 4, 5, 6])  # five on the outline, two inside
    CONTOURS = np.array([[10, 11, 12, 10], [13, 14, 15, 13], [16, 17, 16, 16], [18, 19, 20, 18], [21, 22, 23, 24]])

    def test_takes_the_outermost_vertex_of_each_line(self):
        x = np.random.default_rng(0).uniform(0, 224, (6, 30)).astype(np.float32)
        result = jax.jit(march_landmarks)(x, self.LANDMARKS, self.CONTOURS)
        for row, values in zip(np.asarray(result), x, strict=True):
            left = [line[np.argmin(values[line])] for line in self.CONTOURS[:2]]
            right = [line[np.argmax(values[line])] for line in self.CONTOURS[3:]]
            assert row.tolist() == [*left, 2, *right, 5, 6]  # the chin stays, and so do the inner ones

    def test_ibugs_seventeen_lines_leave_the_chin_and_the_inner_landmarks(self):
        lines = np.arange(68, 68 + 34).reshape(17, 2)
        result = march_landmarks(np.arange(102.0)[None], np.arange(68), lines)[0]
        assert result[:8].tolist() == lines[:8, 0].tolist() and result[9:17].tolist() == lines[9:, 1].tolist()
        assert result[8] == 8 and result[17:].tolist() == list(range(17, 68))

    @pytest.mark.slow
    def test_the_choice_has_no_gradient_but_the_points_chosen_do(self):
        points = jnp.asarray(np.random.default_rng(1).uniform(0, 224, (2, 30, 2)), jnp.float32)

        def loss(points):
            indices = march_landmarks(points[..., 0], self.LANDMARKS, self.CONTOURS)
            return jnp.take_along_axis(points, indices[..., None], axis=1).sum()

        gradient = np.asarray(jax.grad(loss)(points))
        assert (gradient.sum((1, 2)) == 14).all() and set(np.unique(gradient)) == {0, 1}

    def test_mistakes_of_shape(self):
        with pytest.raises(ValueError, match="C <= L"):
            march_landmarks(np.zeros((1, 30)), self.LANDMARKS[:3], self.CONTOURS)

    @pytest.mark.slow
    def test_unrolled_x_is_that_of_the_face_without_roll(self):
        generator = np.random.default_rng(2)
        vertices = jnp.asarray(generator.uniform(-1, 1, (4, 30, 3)), jnp.float32)
        angles = jnp.asarray(generator.uniform(-0.6, 0.6, (4, 3)), jnp.float32)
        camera, still = cameras.Camera(), jnp.zeros((4, 3))

        def project(angles):
            return cameras.project(cameras.to_camera_space(cameras.pose(vertices, angles, still), camera), camera)

        x = np.asarray(unrolled_x(project(angles), angles[:, 2]))
        expected = np.asarray(project(angles * jnp.array([[1.0, 1.0, 0.0]]))[..., 0])
        np.testing.assert_allclose(x - x[:, :1], expected - expected[:, :1], atol=1e-3)
