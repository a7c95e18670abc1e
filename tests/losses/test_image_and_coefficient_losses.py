"""The photometric and perceptual losses and the regularization against their formulas in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxface.losses import (
    coefficient_regularization,
    cosine_feature_loss,
    light_regularization,
    photometric_loss,
    reflectance_loss,
)

RANDOM = np.random.default_rng(0)


class TestPhotometric:
    RENDERED, IMAGE = (RANDOM.uniform(size=(3, 6, 5, 3)).astype(np.float32) for _ in range(2))
    MASK = RANDOM.uniform(size=(3, 6, 5)) < 0.5

    def test_formula(self):
        distance = np.sqrt(1e-6 + np.square(self.RENDERED.astype(np.float64) - self.IMAGE).sum(-1))
        expected = (distance * self.MASK).sum((1, 2)) / self.MASK.sum((1, 2))
        np.testing.assert_allclose(photometric_loss(self.RENDERED, self.IMAGE, self.MASK), expected, rtol=1e-5)
        half = 0.5 * self.MASK.astype(np.float32)
        np.testing.assert_allclose(photometric_loss(self.RENDERED, self.IMAGE, half), expected, rtol=1e-5)

    @pytest.mark.slow
    def test_empty_mask_and_garbage_outside(self):
        mask, rendered = self.MASK.copy(), np.where(self.MASK[..., None], self.RENDERED, np.nan)
        mask[0] = False
        loss, gradient = jax.value_and_grad(lambda r: photometric_loss(r, self.IMAGE, mask).sum())(rendered)
        assert photometric_loss(rendered, self.IMAGE, mask)[0] == 0
        assert np.isfinite(loss) and np.isfinite(gradient).all() and not np.any(gradient[~mask])

    def test_equal_pictures_have_a_finite_gradient(self):
        gradient = jax.grad(lambda r: photometric_loss(r, self.IMAGE, self.MASK).sum())(self.IMAGE)
        assert not np.any(gradient)

    def test_the_mask_is_held_fixed(self):
        mask = self.MASK.astype(np.float32)
        assert not np.any(jax.grad(lambda m: photometric_loss(self.RENDERED, self.IMAGE, m).sum())(mask))

    def test_gradient(self):
        with jax.enable_x64(True):
            rendered = self.RENDERED.astype(np.float64)
            check_grads(
                jax.jit(lambda r: photometric_loss(r, self.IMAGE, self.MASK)), (rendered,), order=1, modes=["rev"]
            )

    def test_mistakes_of_shape(self):
        with pytest.raises(ValueError, match="expected"):
            photometric_loss(self.RENDERED, self.IMAGE, self.MASK[..., None])


class TestFeatures:
    def test_formula(self):
        a, b = (RANDOM.normal(size=(4, 128)).astype(np.float32) for _ in range(2))
        cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        np.testing.assert_allclose(cosine_feature_loss(a, b), 1 - cosine, atol=1e-6)
        np.testing.assert_allclose(cosine_feature_loss(a, -3 * a), 2, atol=1e-6)

    @pytest.mark.slow
    def test_zero_vectors_are_neither_near_nor_far(self):
        zeros, ones = jnp.zeros((1, 8)), jnp.ones((1, 8))
        for a, b in ((zeros, ones), (ones, zeros), (zeros, zeros)):
            loss, gradient = jax.value_and_grad(lambda a, b=b: cosine_feature_loss(a, b).sum())(a)
            assert loss == 1 and np.isfinite(gradient).all()

    def test_gradient(self):
        with jax.enable_x64(True):
            a, b = RANDOM.normal(size=(2, 2, 8))
            check_grads(jax.jit(cosine_feature_loss), (a, b), order=1, modes=["rev"])

    def test_mistakes_of_shape(self):
        with pytest.raises(ValueError, match="expected"):
            cosine_feature_loss(np.zeros((2, 8)), np.zeros((1, 8)))


class TestRegularization:
    def test_coefficients(self):
        identity, expression, albedo = (RANDOM.normal(size=(3, n)).astype(np.float32) for n in (8, 6, 4))
        squares = [np.square(x).sum(-1) for x in (identity, expression, albedo)]
        expected = squares[0] + 0.8 * squares[1] + 1.7e-2 * squares[2]
        np.testing.assert_allclose(coefficient_regularization(identity, expression, albedo), expected, rtol=1e-5)
        only = coefficient_regularization(identity, expression, albedo, identity_weight=0, expression_weight=0)
        np.testing.assert_allclose(only, 1.7e-2 * squares[2], rtol=1e-5)

    def test_light(self):
        light = RANDOM.normal(size=(3, 3, 9)).astype(np.float32)
        expected = np.square(light - light.mean(1, keepdims=True)).mean((1, 2))
        np.testing.assert_allclose(light_regularization(light), expected, rtol=1e-5)
        np.testing.assert_allclose(light_regularization(np.repeat(light[:, :1], 3, axis=1)), 0, atol=1e-12)
        with pytest.raises(ValueError, match="expected light"):
            light_regularization(light[:, 0])

    @pytest.mark.parametrize("batched", [True, False])
    def test_reflectance(self, batched):
        albedo, mask = RANDOM.uniform(size=(3, 40, 3)).astype(np.float32), RANDOM.uniform(size=(3, 40)) < 0.5
        masks = mask if batched else np.tile(mask[:1], (3, 1))
        expected = [a[m].var(0).sum() for a, m in zip(albedo, masks, strict=True)]
        np.testing.assert_allclose(reflectance_loss(albedo, mask if batched else mask[0]), expected, rtol=1e-4)

    def test_reflectance_at_the_edges(self):
        albedo = RANDOM.uniform(size=(3, 40, 3)).astype(np.float32)
        np.testing.assert_allclose(reflectance_loss(albedo), albedo.var(1).sum(-1), rtol=1e-4)
        loss, gradient = jax.value_and_grad(lambda a: reflectance_loss(a, np.zeros(40)).sum())(albedo)
        assert loss == 0 and not np.any(gradient)
        with pytest.raises(ValueError, match="expected a mask"):
            reflectance_loss(albedo, np.zeros(39))
        with pytest.raises(ValueError, match="expected albedo"):
            reflectance_loss(albedo[0])

    def test_gradients(self):
        with jax.enable_x64(True):
            albedo, light = RANDOM.uniform(size=(2, 9, 3)), RANDOM.uniform(size=(2, 3, 9))
            check_grads(jax.jit(reflectance_loss), (albedo,), order=1, modes=["rev"])
            check_grads(jax.jit(light_regularization), (light,), order=1, modes=["rev"])
