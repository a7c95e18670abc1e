"""PRDL as accelerators compute it: the programs lowered for GPUs, run on the CPU, against the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxface.losses import prdl, prdl_loss
from oracles import prdl as oracle
from toys.lowered import loops, on_accelerator

COARSE = prdl.grid_anchors(224, 224, 32)
FINE = prdl.grid_anchors(40, 56)
"""A grid of more than FEW_ANCHORS, on which f_ave is a convolution and f_max comes from the outermost points."""
ANYWHERE = np.random.default_rng(0).uniform(-20, 60, (37, 2)).astype(np.float32)


def random_points(count, seed=0, low=5, high=35, axes=2):
    return np.random.default_rng(seed).uniform(low, high, (count, axes)).astype(np.float32)


def describe(anchors, **options):
    return on_accelerator(lambda points, mask: prdl.point_descriptor(points, anchors, mask, **options))


def loss_and_gradient(anchors):
    def loss(points, target):
        return prdl_loss({"part": points[None]}, {"part": target[None]}, anchors=anchors)[0]

    return on_accelerator(jax.value_and_grad(loss))


@pytest.mark.parametrize(
    ("anchors", "count"),
    [(COARSE, 1), (ANYWHERE, 70), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((FINE, 20), (FINE, 400)))],
)
def test_descriptor_loss_and_gradient(anchors, count):
    points, weights = random_points(count, seed=count), np.random.default_rng(1).uniform(-0.3, 1, count).clip(0)
    points[0], weights[0] = anchors[10], 1  # an anchor on top of a point
    expected = oracle.descriptor(points, anchors, weights)
    np.testing.assert_allclose(describe(anchors)(points, weights.astype(np.float32)), expected, atol=2e-3)
    target = oracle.descriptor(random_points(50, seed=2), anchors).astype(np.float32)
    loss, gradient = loss_and_gradient(anchors)(points, target)
    expected_loss, expected_gradient = oracle.loss_and_gradient(points, target, anchors)
    assert abs(loss - expected_loss) <= 1e-3 * expected_loss
    assert np.linalg.norm(gradient - expected_gradient) <= 1e-3 * np.linalg.norm(expected_gradient)


def test_three_dimensions_and_all_pairs():
    points, anchors = random_points(30, axes=3), random_points(11, seed=1, axes=3)
    every = np.ones(30, bool)
    np.testing.assert_allclose(describe(anchors)(points, every), oracle.descriptor(points, anchors), atol=1e-4)
    points, every = random_points(400), np.ones(400, bool)
    expected = oracle.descriptor(points, FINE)
    np.testing.assert_allclose(describe(FINE, exact=True)(points, every), expected, atol=1e-4)


def test_ties_go_to_the_first_point_and_an_anchor_on_its_only_point_pulls_nothing():
    points, anchor = np.float32([[8, 5], [2, 5], [5, 2]]), np.float32([[5, 5]])
    for column in (0, 1):
        gradient = on_accelerator(jax.grad(lambda p, column=column: prdl.point_descriptor(p, anchor)[0, column]))
        np.testing.assert_array_equal(gradient(points), [[1, 0], [0, 0], [0, 0]])
    loss, gradient = loss_and_gradient(anchor)(anchor, np.full((1, 3), 2.0, np.float32))
    assert loss == 12.0 and not np.any(gradient)


def test_nan_comes_out_of_every_statistic():
    points = random_points(300)
    points[7] = np.nan
    assert np.isnan(describe(COARSE)(points, np.ones(300, bool))).all()


@pytest.mark.parametrize(
    "anchors", [prdl.grid_anchors(23, 31), prdl.grid_anchors(23, 31, 4), prdl.grid_anchors(23, 31, 4) + 0.3, ANYWHERE]
)
def test_masks(anchors):
    run = on_accelerator(lambda mask: prdl.mask_descriptor(mask, anchors))
    masks = [np.random.default_rng(3).uniform(size=(23, 31)) < density for density in (0.002, 0.3, 1.0)]
    corners = np.zeros((23, 31), bool)
    corners[3:5, 2:9], corners[20:, 25:] = True, True
    for mask in [*masks, corners, np.zeros((23, 31), bool)]:
        np.testing.assert_allclose(run(mask), oracle.descriptor(oracle.pixel_centers(mask), anchors), atol=1e-3)


@pytest.mark.slow
def test_many_anchors_that_are_unknown_when_traced_and_form_no_grid():
    """Only a few at a time are compared with the pixels: chunks that do not come out even."""
    mask, anchors = np.random.default_rng(4).uniform(size=(160, 160)) < 0.1, random_points(9001, 5, -10, 170)
    result = on_accelerator(prdl.mask_descriptor)(mask, anchors)
    np.testing.assert_allclose(result, oracle.descriptor(oracle.pixel_centers(mask), anchors), atol=1e-3)


def _problem():
    generator = np.random.default_rng(6)
    points = {part: generator.uniform(2, 38, (8, n, 2)).astype(np.float32) for part, n in (("a", 350), ("b", 40))}
    return points, {part: generator.uniform(size=(8, 40, 56)) < 0.1 for part in points}


def _losses(points, masks):
    return prdl_loss(points, masks, anchors=FINE)


@pytest.mark.slow
def test_batches_of_parts():
    """The same as on CPUs: where the loops' path is right, so is this."""
    points, masks = _problem()
    run = jax.value_and_grad(lambda points, masks: _losses(points, masks).sum())
    (loss, gradient), (expected_loss, expected) = on_accelerator(run)(points, masks), jax.jit(run)(points, masks)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    for part in points:
        assert np.linalg.norm(gradient[part] - expected[part]) <= 1e-4 * np.linalg.norm(expected[part])


@pytest.mark.slow
@pytest.mark.parametrize("check", [False, True])
def test_sharded_and_mapped_programs_take_the_accelerators_way_too(check):
    points, masks = _problem()
    gradient = jax.grad(lambda points, masks: _losses(points, masks).sum())
    mesh, split = Mesh(np.array(jax.devices()), ("devices",)), PartitionSpec("devices")
    sharded = jax.shard_map(gradient, mesh=mesh, in_specs=(split, split), out_specs=split, check_vma=check)
    assert loops(sharded, points, masks) == []
    assert max(loop.trips for loop in loops(sharded, points, masks, platform="cpu")) == 56  # and CPUs theirs


@pytest.mark.slow
def test_no_array_of_anchors_times_points():
    """As far as XLA for CPUs tells, which fuses less than XLA for GPUs: with exact=True it would store one."""
    count, anchors = 8000, prdl.grid_anchors(96, 96)

    def loss(points, target):
        return prdl_loss({"part": points}, {"part": target}, anchors=anchors).sum()

    run = on_accelerator(jax.grad(loss))
    memory = run.lower(jnp.zeros((1, count, 2)), jnp.ones((1, len(anchors), 3))).compile().memory_analysis()
    assert memory.temp_size_in_bytes < count * len(anchors) * 4 / 5


@pytest.mark.slow
def test_no_array_of_anchors_times_pixels_for_all_masks():
    masks, anchors = np.zeros((64, 96, 96), bool), prdl.grid_anchors(96, 96, 8)
    run = on_accelerator(jax.vmap(lambda mask: prdl.mask_descriptor(mask, anchors)))
    memory = run.lower(masks).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * masks[0].size * len(anchors) * 4
