"""The loss: sums over parts, samples left out, and every transformation that a training step uses."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxface.losses import prdl, prdl_loss
from oracles import prdl as oracle


def batch(seed=0, count=20):
    generator = np.random.default_rng(seed)
    points = {part: generator.uniform(2, 30, (8, n, 2)).astype(np.float32) for part, n in (("a", count), ("b", 15))}
    masks = {part: generator.uniform(size=(8, 32, 32)) < 0.1 for part in points}
    return points, masks


BATCH_ANCHORS = prdl.grid_anchors(32, 32, 4)
ONES = {part: np.ones(8, np.float32) for part in ("a", "b")}
ALL = {part: np.ones((8, n), bool) for part, n in (("a", 20), ("b", 15))}


@jax.jit
def _batch_loss(points, targets, weights, point_masks):
    def total(points):
        loss = prdl_loss(points, targets, anchors=BATCH_ANCHORS, weights=weights, point_masks=point_masks)
        return loss.sum(), loss

    gradients, losses = jax.grad(total, has_aux=True)(points)
    return losses, gradients


def batch_loss(points, targets, weights=ONES, point_masks=ALL):
    """[B] losses and the gradients of their sum; compiled once."""
    return _batch_loss(points, targets, weights, point_masks)


class TestLoss:
    def expected(self, points, masks, columns=(0, 1, 2)):
        """[B] per part."""
        result = {}
        for part in points:
            differences = [
                oracle.descriptor(p, BATCH_ANCHORS) - oracle.descriptor(oracle.pixel_centers(m), BATCH_ANCHORS)
                for p, m in zip(points[part], masks[part], strict=True)
            ]
            result[part] = np.array([np.square(d[:, list(columns)]).sum(-1).mean() for d in differences])
        return result

    @pytest.mark.slow
    def test_sums_the_weighted_parts_of_each_sample(self):
        points, masks = batch()
        expected = self.expected(points, masks)
        np.testing.assert_allclose(batch_loss(points, masks)[0], expected["a"] + expected["b"], rtol=1e-4)
        weights = {"a": np.full(8, 0.5, np.float32), "b": np.arange(8, dtype=np.float32)}
        losses, _ = batch_loss(points, masks, weights)
        np.testing.assert_allclose(losses, 0.5 * expected["a"] + np.arange(8) * expected["b"], rtol=1e-4)

    @pytest.mark.slow
    def test_some_of_the_statistics_and_options_left_out(self):
        points, masks = batch()
        expected = self.expected(points, masks, (2, 0))

        @jax.jit
        def loss(points):
            options = {"weights": {"a": 0.5}, "statistics": ["mean", "min"]}
            return prdl_loss(points, masks, anchors=BATCH_ANCHORS, **options)

        np.testing.assert_allclose(loss(points), 0.5 * expected["a"] + expected["b"], rtol=1e-4)

    @pytest.mark.slow
    def test_statistics_of_each_part(self):
        points, masks = batch()

        @jax.jit
        def loss(points):
            return prdl_loss(points, masks, anchors=BATCH_ANCHORS, statistics={"a": ["max"]})

        expected = self.expected(points, masks, (1,))["a"] + self.expected(points, masks)["b"]
        np.testing.assert_allclose(loss(points), expected, rtol=1e-4)

    @pytest.mark.slow
    def test_points_as_targets(self):
        points, _ = batch()
        others, _ = batch(1, count=9)
        loss = jax.jit(lambda points, others: prdl_loss(points, others, anchors=BATCH_ANCHORS))(points, others)
        expected = 0
        for part in points:
            described = [[oracle.descriptor(p, BATCH_ANCHORS) for p in sets[part]] for sets in (points, others)]
            expected += np.square(np.subtract(*described)).sum(-1).mean(-1)
        np.testing.assert_allclose(loss, expected, rtol=1e-4)

    @pytest.mark.slow
    def test_the_reference_says_the_same(self):
        points, masks = batch()
        reference = jax.jit(lambda p: prdl_loss(p, masks, anchors=BATCH_ANCHORS, implementation="reference"))
        np.testing.assert_allclose(reference(points), batch_loss(points, masks)[0], rtol=1e-4)
        with pytest.raises(ValueError, match="choose 'xla' or 'reference'"):
            prdl_loss(points, masks, anchors=BATCH_ANCHORS, implementation="cuda")

    @pytest.mark.slow
    def test_descriptors_do_as_well_as_masks(self):
        points, masks = batch()
        describe_masks = jax.jit(jax.vmap(lambda mask: prdl.mask_descriptor(mask, BATCH_ANCHORS)))
        losses, gradients = batch_loss(points, {part: describe_masks(masks[part]) for part in masks})
        expected_losses, expected_gradients = batch_loss(points, masks)
        np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
        np.testing.assert_allclose(gradients["a"], expected_gradients["a"], rtol=1e-3, atol=1e-5)

    @pytest.mark.slow
    def test_empty_parts_weigh_nothing(self):
        points, masks = batch()
        masks["b"][0] = False
        point_masks = ALL | {"a": ALL["a"] & (np.arange(8) != 1)[:, None]}
        expected = self.expected(points, masks)
        expected["b"][0] = expected["a"][1] = 0
        losses, gradients = batch_loss(points, masks, ONES, point_masks)
        np.testing.assert_allclose(losses, expected["a"] + expected["b"], rtol=1e-4)
        assert not np.any(gradients["b"][0]) and not np.any(gradients["a"][1])
        assert np.all(np.any(gradients["a"][2:], axis=(1, 2))) and np.isfinite(gradients["a"]).all()

    def test_no_points_at_all(self):
        _, masks = batch()
        nobody = {"b": np.zeros((8, 0, 2), np.float32)}
        loss = jax.jit(lambda points: prdl_loss(points, masks, anchors=BATCH_ANCHORS))(nobody)
        np.testing.assert_array_equal(loss, np.zeros(8))

    @pytest.mark.slow
    def test_pixels_compared_with_themselves_cost_nothing(self):
        points, masks = batch()
        for part in points:
            pixels = np.stack([np.random.default_rng(i).permutation(1024)[: points[part].shape[1]] for i in range(8)])
            masks[part] = (np.arange(1024) == pixels[..., None]).any(1).reshape(8, 32, 32)
            points[part] = np.stack([pixels % 32 + 0.5, pixels // 32 + 0.5], axis=-1).astype(np.float32)
        losses, _ = batch_loss(points, masks)
        np.testing.assert_allclose(losses, 0, atol=1e-8)

    @pytest.mark.slow
    def test_nan_is_refused_or_comes_out(self):
        points, masks = batch()
        points["a"][2, 3, 0] = np.nan
        with pytest.raises(ValueError, match="finite"):
            prdl_loss(points, masks, anchors=BATCH_ANCHORS)
        losses, _ = batch_loss(points, masks)
        assert np.isnan(losses[2]) and np.isfinite(np.delete(losses, 2)).all()

    @pytest.mark.slow
    def test_devices_and_batches_give_the_same(self):
        points, masks = batch()

        def gradient(points, masks):
            return jax.grad(lambda p: prdl_loss(p, masks, anchors=BATCH_ANCHORS).sum())(points)

        mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
        spec = PartitionSpec("batch")
        sharded = jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=(spec, spec), out_specs=spec))
        one_by_one = jax.tree.map(lambda array: array[:, None], (points, masks))
        mapped = jax.tree.map(lambda array: array[:, 0], jax.pmap(gradient)(*one_by_one))
        _, expected = batch_loss(points, masks)
        for result in (sharded(points, masks), mapped):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), result, expected)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda p, t, o: p.clear(), "no part"),
            (lambda p, t, o: t.pop("b"), "no target"),
            (lambda p, t, o: p.update(a=p["a"][0]), "a: expected points"),
            (lambda p, t, o: t.update(a=t["a"][:3]), r"a: expected .* got \(3, 32, 32\)"),
            (lambda p, t, o: t.update(a=t["a"][:, :9]), "differ in shape"),
            (lambda p, t, o: t.update(a=t["a"][:, 0]), r"a: expected a mask \[B, H, W\]"),
            (lambda p, t, o: o.update(weights={"c": 1.0}), "name part"),
            (lambda p, t, o: o.update(weights={"a": np.ones(3)}), "one weight"),
            (lambda p, t, o: o.update(point_masks={"a": np.ones((8, 3), bool)}), r"a: expected a point mask \(8, 20\)"),
            (lambda p, t, o: o.update(statistics=["median"]), "statistics"),
            (lambda p, t, o: o.update(anchors=np.zeros((4, 3), np.float32)), r"a: expected points \[8, N, 3\]"),
            (lambda p, t, o: o.update(anchors=np.zeros(3, np.float32)), "expected anchors"),
        ],
    )
    def test_mistakes_are_named(self, change, message):
        points, targets = batch()
        options = {"anchors": BATCH_ANCHORS}
        change(points, targets, options)
        with pytest.raises(ValueError, match=message):
            prdl_loss(points, targets, **options)

    @pytest.mark.parametrize("arguments", [((5, 2), (3, 3)), ((5,), (3, 2)), ((5, 2), (3, 2), (4,))])
    def test_mistakes_of_shape_in_a_descriptor(self, arguments):
        with pytest.raises(ValueError, match="expected"):
            prdl.point_descriptor(*(np.zeros(shape, np.float32) for shape in arguments))
        with pytest.raises(ValueError, match="expected"):
            prdl.mask_descriptor(np.zeros((5, 5, 1)), BATCH_ANCHORS)
