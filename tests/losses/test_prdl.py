"""PRDL against its definition, at the edges, and under every transformation that a training step uses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxface.losses import _grids, prdl, prdl_loss
from oracles import prdl as oracle

GRID = prdl.grid_anchors(224, 224, 32)


@jax.jit
def loss_and_gradient(points, target, anchors):
    def loss(points):
        return prdl_loss({"part": points[None]}, {"part": target[None]}, anchors=anchors)[0]

    return jax.value_and_grad(loss)(points)


@jax.jit
def describe(points, anchors, mask=None):
    return prdl.point_descriptor(points, anchors, mask)


@jax.jit
def describe_gradient(points, anchors, mask):
    return jax.grad(lambda points: prdl.point_descriptor(points, anchors, mask).sum())(points)


def random_points(count, seed=0, low=20, high=200):
    return np.random.default_rng(seed).uniform(low, high, (count, 2)).astype(np.float32)


class TestAnchors:
    def test_stride_one_is_every_pixel_centre(self):
        expected = [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5], [0.5, 1.5], [1.5, 1.5], [2.5, 1.5]]
        np.testing.assert_array_equal(prdl.grid_anchors(2, 3), expected)

    @pytest.mark.parametrize("stride", [2, 3, 8, 16])
    def test_anchors_are_pixel_centres_inside_their_block(self, stride):
        anchors = prdl.grid_anchors(50, 70, stride)
        assert anchors.shape == ((50 // stride) * (70 // stride), 2) and anchors.dtype == np.float32
        assert (np.floor(anchors) + 0.5 == anchors).all()
        assert (np.floor(anchors[:, 0] / stride) == np.tile(np.arange(70 // stride), 50 // stride)).all()
        assert (np.floor(anchors[:, 1] / stride) == np.repeat(np.arange(50 // stride), 70 // stride)).all()

    def test_a_stride_beyond_the_image_leaves_one(self):
        np.testing.assert_array_equal(prdl.grid_anchors(4, 3, 100), [[2.5, 3.5]])

    def test_nonsense_is_refused(self):
        with pytest.raises(ValueError, match="positive"):
            prdl.grid_anchors(10, 10, 0)


class TestAgainstTheDefinition:
    @pytest.mark.slow
    @pytest.mark.parametrize("count", [1, 2, 300, 20_000])
    def test_descriptor_loss_and_gradient(self, count):
        points = random_points(count, seed=count)
        points[0] = GRID[10]  # an anchor on top of a point
        target = oracle.descriptor(random_points(50, seed=1), GRID).astype(np.float32)
        every = np.ones(count, bool)
        np.testing.assert_allclose(describe(points, GRID, every), oracle.descriptor(points, GRID), atol=1e-3)
        loss, gradient = loss_and_gradient(points, target, GRID)
        expected_loss, expected_gradient = oracle.loss_and_gradient(points, target, GRID)
        assert abs(loss - expected_loss) <= 1e-4 * expected_loss
        assert np.linalg.norm(gradient - expected_gradient) <= 1e-4 * np.linalg.norm(expected_gradient)

    @pytest.mark.slow
    def test_anchors_almost_on_points_keep_their_gradient(self):
        # Where |a|^2 + |v|^2 - 2 a.v fails: a thousandth of a pixel, two hundred pixels from the origin.
        anchors = random_points(49, seed=2) + np.float32(1)
        points = anchors[:20] + np.float32(1e-3) * random_points(20, seed=3, low=-1, high=1)
        target = np.full((49, 3), 5.0, np.float32)
        _, gradient = loss_and_gradient(points, target, anchors)
        _, expected = oracle.loss_and_gradient(points, target, anchors)
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.slow
    def test_all_points_equal(self):
        points = np.tile(np.float32([[100.25, 90.5]]), (300, 1))
        target = np.full((49, 3), 30.0, np.float32)
        np.testing.assert_allclose(describe(points, GRID), oracle.descriptor(points, GRID), atol=1e-3)
        loss, gradient = loss_and_gradient(points, target, GRID)
        expected_loss, expected_gradient = oracle.loss_and_gradient(points, target, GRID)
        assert abs(loss - expected_loss) <= 1e-4 * expected_loss
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-3, atol=1e-5)

    @pytest.mark.slow
    def test_a_point_on_its_only_anchor_has_no_gradient(self):
        point = np.float32([[3.5, 4.5]])
        loss, gradient = loss_and_gradient(point, np.full((1, 3), 2.0, np.float32), point)
        assert loss == 12.0 and not np.any(gradient)

    @pytest.mark.slow
    def test_ties_go_to_the_first_point(self):
        points, anchor = np.float32([[8, 5], [2, 5], [5, 2]]), np.float32([[5, 5]])
        gradient = jax.grad(lambda p: prdl.point_descriptor(p, anchor)[0, 0])(points)
        np.testing.assert_array_equal(gradient, [[1, 0], [0, 0], [0, 0]])
        gradient = jax.grad(lambda p: prdl.point_descriptor(p, anchor)[0, 1])(points)
        np.testing.assert_array_equal(gradient, [[1, 0], [0, 0], [0, 0]])

    @pytest.mark.slow
    def test_gradient_in_float64(self):
        with jax.enable_x64(True):
            points, target = random_points(7, seed=5).astype(np.float64), np.full((10, 3), 60.0)
            anchors = GRID[::5].astype(np.float64)

            def loss(points):
                return prdl_loss({"part": points[None]}, {"part": target[None]}, anchors=anchors)

            check_grads(jax.jit(loss), (points,), order=1, modes=["rev"])

    def test_points_in_three_dimensions(self):
        points, anchors = (np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32) for n in (30, 11))
        np.testing.assert_allclose(describe(points, anchors), oracle.descriptor(points, anchors), atol=1e-5)

    @pytest.mark.slow
    def test_bfloat16_is_computed_in_float32(self):
        points = jnp.asarray(random_points(300), jnp.bfloat16)
        result, gradient = describe(points, GRID), describe_gradient(points, GRID, np.ones(300, bool))
        assert result.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
        np.testing.assert_allclose(result, oracle.descriptor(points.astype(np.float32), GRID), atol=1e-3)
        in_float32 = describe_gradient(points.astype(np.float32), GRID, np.ones(300, bool))
        np.testing.assert_allclose(gradient.astype(np.float32), in_float32, rtol=1e-2)

    def test_nan_comes_out_of_every_statistic(self):
        points = random_points(300)
        points[7] = np.nan
        assert np.isnan(describe(points, GRID)).all()

    @pytest.mark.slow
    def test_memory_is_that_of_points_plus_anchors(self):
        count, anchors = 8000, prdl.grid_anchors(64, 64)
        arguments = jnp.zeros((count, 2)), jnp.ones((len(anchors), 3)), anchors
        memory = loss_and_gradient.lower(*arguments).compile().memory_analysis()
        assert memory.temp_size_in_bytes < count * len(anchors) * 4 / 40


FINE = prdl.grid_anchors(40, 56)
"""A grid of more than FEW_ANCHORS, on which f_ave is a convolution and f_max comes from the outermost points."""


@functools.partial(jax.jit, static_argnames=("exact", "implementation"))
def fine_gradients(points, weights, cotangent, exact=False, implementation="xla"):
    """The descriptor on FINE, and the gradient of each of its columns [3, N, 2]."""

    def column_sums(points):
        options = {"exact": exact, "implementation": implementation}
        descriptor = prdl.point_descriptor(points, FINE, weights, **options)
        return (descriptor * cotangent).sum(0), descriptor

    gradients, descriptor = jax.jacrev(column_sums, has_aux=True)(points)
    return descriptor, gradients


class TestFineGrids:
    """The approximations of _grids.py against the definition, for points wherever they may be."""

    def check(self, points, weights=None, *, atol=1e-3, **options):
        points = np.resize(points, (400, 2)).astype(np.float32)  # one shape, compiled once; repeated points are legal
        weights = np.ones(400, np.float32) if weights is None else weights
        cotangent = np.random.default_rng(0).normal(size=(len(FINE), 3)).astype(np.float32)
        descriptor, gradients = fine_gradients(points, weights, cotangent, **options)
        expected, expected_gradients = fine_gradients(points, weights, cotangent, implementation="reference")
        np.testing.assert_allclose(descriptor, oracle.descriptor(points, FINE, weights), atol=atol)
        np.testing.assert_allclose(expected, descriptor, atol=atol)
        mean = np.linalg.norm(gradients[2] - expected_gradients[2])
        assert mean <= 1e-3 * np.linalg.norm(expected_gradients[2])
        return gradients, np.asarray(expected_gradients)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("low", "high"), [((5, 5), (50, 35)), ((-30, 10), (20, 60)), ((300, -900), (340, -850)), ((-4, -4), (61, 45))]
    )
    def test_inside_across_the_border_and_far_away(self, low, high):
        gradients, expected = self.check(np.random.default_rng(1).uniform(low, high, (400, 2)))
        for column in (0, 1):
            error = np.linalg.norm(gradients[column] - expected[column])
            assert error <= 1e-3 * np.linalg.norm(expected[column])

    @pytest.mark.slow
    def test_weights(self):
        weights = np.random.default_rng(2).uniform(-0.3, 1, 400).clip(0).astype(np.float32)
        self.check(np.random.default_rng(3).uniform(5, 35, (400, 2)), weights)

    @pytest.mark.slow
    def test_points_on_anchors_and_at_one_place(self):
        self.check(FINE[[7, 300, 301, 2000]])  # ties: no telling which of the equal points is pulled
        self.check(np.float32([[20.3, 11.9]]))

    @pytest.mark.slow
    def test_a_circle_has_more_corners_than_candidates(self):
        angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
        self.check(np.stack([28 + 19 * np.cos(angle), 20 + 19 * np.sin(angle)], axis=-1), atol=5e-3)

    @pytest.mark.slow
    def test_exact_visits_all_pairs(self):
        gradients, expected = self.check(np.random.default_rng(4).uniform(5, 35, (400, 2)), exact=True)
        np.testing.assert_allclose(gradients, expected, atol=1e-4)

    @pytest.mark.slow
    def test_gradient_in_float64(self):
        with jax.enable_x64(True):
            points = np.random.default_rng(5).uniform(3, 37, (40, 2))

            def loss(points):
                return jnp.square(prdl.point_descriptor(points, FINE, np.ones(40))[:, 2] - 20).mean()

            check_grads(jax.jit(loss), (points,), order=1, modes=["rev"])

    @pytest.mark.slow
    def test_batches_parts_and_devices(self):
        generator = np.random.default_rng(6)
        points = {part: generator.uniform(2, 38, (8, n, 2)).astype(np.float32) for part, n in (("a", 350), ("b", 40))}
        masks = {part: generator.uniform(size=(8, 40, 56)) < 0.1 for part in points}

        @jax.jit
        @jax.grad
        def gradient(points):
            return prdl_loss(points, masks, anchors=FINE).sum()

        @jax.jit
        @jax.grad
        def exact(points):
            return prdl_loss(points, masks, anchors=FINE, exact=True).sum()

        fast, slow = gradient(points), exact(points)
        for part in points:
            assert np.linalg.norm(fast[part] - slow[part]) <= 1e-3 * np.linalg.norm(slow[part])

    def test_nan_comes_out_of_every_statistic(self):
        points = np.random.default_rng(7).uniform(5, 35, (400, 2)).astype(np.float32)
        points[3, 1] = np.nan
        ones = np.ones(400, np.float32)
        assert np.isnan(fine_gradients(points, ones, np.ones((len(FINE), 3), np.float32))[0]).all()

    @pytest.mark.slow
    def test_a_mask_on_its_own_pixels(self):
        mask = np.random.default_rng(8).uniform(size=(40, 56)) < 0.05
        for anchors in (FINE, prdl.grid_anchors(40, 56) + np.float32(0.25)):  # by FFT, and by matrices
            result = jax.jit(lambda mask, anchors=anchors: prdl.mask_descriptor(mask, anchors))(mask)
            np.testing.assert_allclose(result, oracle.descriptor(oracle.pixel_centers(mask), anchors), atol=1e-3)

    @pytest.mark.parametrize(
        "anchors",
        [
            np.float32([[0.5, 0.5], [1.5, 0.5], [0.5, 2.5], [1.5, 2.5]]),  # different steps in x and y
            FINE[::-1],
            np.random.default_rng(0).permutation(FINE),
            FINE[:-1],
            FINE[:56],
            np.concatenate([FINE, FINE], axis=1)[:, :3],
        ],
    )
    def test_what_is_no_grid_is_not_taken_for_one(self, anchors):
        assert _grids.find_grid(anchors) is None

    def test_what_is_a_grid_is_found(self):
        assert _grids.find_grid(FINE) == _grids.Grid(0.5, 0.5, 1.0, 40, 56)
        assert _grids.find_grid(prdl.grid_anchors(224, 224, 4)) == _grids.Grid(2.5, 2.5, 4.0, 56, 56)


class TestPointMasks:
    @pytest.mark.slow
    def test_masked_points_do_not_count_whatever_they_hold(self):
        points, mask = random_points(300), np.random.default_rng(1).uniform(size=300) < 0.3
        mask[0] = False  # so that the first point is a stand-in
        dirty = np.where(mask[:, None], points, np.nan)
        expected = oracle.descriptor(points[mask], GRID)
        np.testing.assert_allclose(describe(dirty, GRID, mask), expected, atol=1e-3)
        gradient = describe_gradient(dirty, GRID, mask)
        alone = jax.jit(jax.grad(lambda p: prdl.point_descriptor(p, GRID).sum()))(points[mask])
        np.testing.assert_allclose(gradient[mask], alone, rtol=1e-4, atol=1e-5)
        assert not np.any(gradient[~mask])

    def test_weights_shape_the_mean(self):
        points, weights = random_points(300), np.random.default_rng(2).uniform(-0.2, 1, 300).clip(0).astype(np.float32)
        np.testing.assert_allclose(describe(points, GRID, weights), oracle.descriptor(points, GRID, weights), atol=1e-3)

    def test_a_weight_that_is_nan_does_not_hide_its_point(self):
        weights = np.ones(300, np.float32)
        weights[5] = np.nan
        assert np.isnan(describe(random_points(300), GRID, weights)[:, 2]).all()

    @pytest.mark.slow
    def test_a_set_without_points_is_all_zero_with_zero_gradient(self):
        points = np.full((300, 2), np.nan, np.float32)
        nobody = np.zeros(300, bool)
        assert not np.any(describe(points, GRID, nobody))
        assert not np.any(describe_gradient(points, GRID, nobody))
        assert not np.any(describe(np.zeros((0, 2), np.float32), GRID))


class TestMaskDescriptor:
    ANYWHERE = np.random.default_rng(0).uniform(-20, 50, (37, 2)).astype(np.float32)

    @pytest.mark.parametrize("anchors", [prdl.grid_anchors(23, 31), prdl.grid_anchors(23, 31, 4), ANYWHERE])
    def test_equals_the_pixels_one_by_one(self, anchors):
        run = jax.jit(lambda mask: prdl.mask_descriptor(mask, anchors))
        generator = np.random.default_rng(3)
        masks = [generator.uniform(size=(23, 31)) < density for density in (0.002, 0.02, 0.3, 1.0)]
        one_pixel, blocks = np.zeros((23, 31), bool), np.zeros((23, 31), bool)
        one_pixel[22, 30], blocks[3:5, 2:9], blocks[20:, 25:] = True, True, True
        for mask in [*masks, one_pixel, blocks, np.zeros((23, 31), bool)]:  # an empty one is all zero
            np.testing.assert_allclose(run(mask), oracle.descriptor(oracle.pixel_centers(mask), anchors), atol=1e-3)

    def test_full_resolution(self):
        mask = np.random.default_rng(4).uniform(size=(224, 224)) < 0.3
        mask[:60] = False
        for anchors in (GRID, random_points(49)):
            result = jax.jit(prdl.mask_descriptor)(mask.astype(np.float32), anchors)  # anchors unknown when traced
            np.testing.assert_allclose(result, oracle.descriptor(oracle.pixel_centers(mask), anchors), atol=1e-3)

    @pytest.mark.slow
    def test_other_number_types(self):
        mask, anchors = np.eye(9, dtype=np.uint8), prdl.grid_anchors(9, 9).astype(np.float64)
        expected = oracle.descriptor(oracle.pixel_centers(mask), anchors)
        np.testing.assert_allclose(prdl.mask_descriptor(mask, anchors), expected, atol=1e-4)
        np.testing.assert_allclose(prdl.mask_descriptor(mask, jnp.asarray(anchors, jnp.bfloat16)), expected, atol=1e-4)


seeds = st.integers(0, 2**31)
properties = settings(max_examples=15, deadline=None)


class TestProperties:
    ANCHORS = prdl.grid_anchors(16, 16, 4)

    def describe(self, points, anchors=ANCHORS, mask=None):
        mask = np.ones(len(points), bool) if mask is None else mask
        return np.asarray(describe(np.asarray(points, np.float32), np.asarray(anchors, np.float32), mask))

    @properties
    @given(seeds)
    def test_order_does_not_matter(self, seed):
        points = random_points(12, seed, 0, 16)
        shuffled = np.random.default_rng(seed).permutation(points)
        np.testing.assert_allclose(self.describe(shuffled), self.describe(points), atol=1e-5)

    @pytest.mark.slow
    @properties
    @given(seeds)
    def test_doubling_every_point_changes_nothing(self, seed):
        points = random_points(12, seed, 0, 16)
        doubled = np.concatenate([points, points])
        np.testing.assert_allclose(self.describe(doubled), self.describe(points), atol=1e-5)
        shared = describe_gradient(doubled, self.ANCHORS, np.ones(24, bool)).reshape(2, 12, 2).sum(0)
        alone = describe_gradient(points, self.ANCHORS, np.ones(12, bool))
        np.testing.assert_allclose(shared, alone, atol=1e-5)

    @properties
    @given(seeds, st.floats(-50, 50), st.floats(-50, 50))
    def test_moving_points_and_anchors_together(self, seed, dx, dy):
        points, shift = random_points(12, seed, 0, 16), np.float32([dx, dy])
        moved = self.describe(points + shift, self.ANCHORS + shift)
        np.testing.assert_allclose(moved, self.describe(points), atol=1e-4)

    @properties
    @given(seeds)
    def test_turning_by_ninety_degrees(self, seed):
        points, turn = random_points(12, seed, 0, 16), np.float32([[0, 1], [-1, 0]])
        np.testing.assert_allclose(self.describe(points @ turn, self.ANCHORS @ turn), self.describe(points), atol=1e-5)

    @properties
    @given(seeds, st.floats(0.01, 100))
    def test_scaling(self, seed, scale):
        points = random_points(12, seed, 0, 16)
        scaled = self.describe(points * scale, self.ANCHORS * np.float32(scale))
        np.testing.assert_allclose(scaled, self.describe(points) * scale, rtol=1e-4, atol=1e-5 * scale)

    @properties
    @given(seeds)
    def test_padding_with_masked_points(self, seed):
        points = random_points(12, seed, 0, 16)
        padded = np.concatenate([points, random_points(12, seed + 1, -1e6, 1e6)])
        np.testing.assert_allclose(self.describe(padded, mask=np.arange(24) < 12), self.describe(points), atol=1e-5)
