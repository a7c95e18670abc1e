"""ICP, Chamfer and density-aware Chamfer against their definitions over all pairs, and at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxface.losses import chamfer_loss, density_aware_chamfer_loss, icp_loss, point_sets

pytestmark = pytest.mark.usefixtures("quick_compilation")

HEIGHT, WIDTH = 26, 31
LOSSES = {
    "to_target": lambda *a, **o: icp_loss(*a, direction="to_target", **o),
    "to_points": lambda *a, **o: icp_loss(*a, direction="to_points", **o),
    "chamfer": chamfer_loss,
    "dcd": density_aware_chamfer_loss,
}


def pairs(points, mask):
    """Squared distances [N, M] from points to pixel centres, in float64."""
    rows, columns = np.nonzero(mask)
    pixels = np.stack([columns + 0.5, rows + 0.5], -1)
    return np.square(np.asarray(points, np.float64)[:, None] - pixels).sum(-1)


def definition(name, points, mask, shares=None, alpha=1000.0, exponent=1.0):
    """The loss of one part of one sample; `shares`: weights of the points, which sum to one."""
    squared = pairs(points, mask)
    shares = np.full(len(points), 1 / len(points)) if shares is None else shares
    kept = shares > 0
    squared, shares = squared[kept], shares[kept]
    if name == "to_target":
        return (shares * squared.min(1)).sum()
    if name == "to_points":
        return squared.min(0).mean()
    if name == "chamfer":
        return (shares * squared.min(1)).sum() + squared.min(0).mean()
    pixel, point = squared.argmin(1), squared.argmin(0)
    of_pixel, of_point = np.bincount(pixel, minlength=squared.shape[1]), np.bincount(point, minlength=len(squared))
    normalised = squared / (HEIGHT / 2) ** 2
    first = 1 - np.exp(-alpha * normalised.min(1)) / of_pixel[pixel] ** exponent
    second = 1 - np.exp(-alpha * normalised.min(0)) / of_point[point] ** exponent
    return ((shares * first).sum() + second.mean()) / 2


def batch(seed=0, outside=6.0):
    """Two parts, four samples; points reach `outside` pixels beyond the picture."""
    random = np.random.default_rng(seed)
    size = np.array([WIDTH, HEIGHT])
    points = {
        part: random.uniform(-outside, size + outside, (4, count, 2)).astype(np.float32)
        for part, count in (("a", 37), ("b", 16))
    }
    masks = {part: random.uniform(size=(4, HEIGHT, WIDTH)) < 0.04 for part in points}
    masks["b"][1] = False
    masks["b"][1, 25, 30] = True  # one pixel, in the corner
    masks["a"][2] = True
    return points, masks


ONES = {part: np.ones(4, np.float32) for part in ("a", "b")}
ALL = {"a": np.ones((4, 37), np.float32), "b": np.ones((4, 16), np.float32)}


@jax.jit
def _values_and_gradients(points, masks, weights, point_masks):
    """{name: ([B], gradients)} for all losses, compiled once."""

    def total(points, loss):
        values = loss(points, masks, weights=weights, point_masks=point_masks)
        return values.sum(), values

    result = {name: jax.grad(total, has_aux=True)(points, loss) for name, loss in LOSSES.items()}
    return {name: (values, gradients) for name, (gradients, values) in result.items()}


def values_and_gradients(points, masks, weights=ONES, point_masks=ALL):
    return jax.tree.map(np.asarray, _values_and_gradients(points, masks, weights, point_masks))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_values_are_those_of_the_definition(seed):
    points, masks = batch(seed)
    weights = {"a": np.full(4, 0.5, np.float32), "b": np.arange(4, dtype=np.float32)}
    for name, (values, _) in values_and_gradients(points, masks, weights).items():
        expected = [
            sum(weights[part][i] * definition(name, points[part][i], masks[part][i]) for part in points)
            for i in range(4)
        ]
        np.testing.assert_allclose(values, expected, rtol=1e-5, err_msg=name)


@pytest.mark.slow
def test_gradients_are_those_of_the_definition():
    points, masks = batch(2)
    random, step = np.random.default_rng(3), 1e-5
    gradients = {name: gradient for name, (_, gradient) in values_and_gradients(points, masks).items()}
    for name, gradient in gradients.items():
        for part, sample in (("a", 0), ("b", 0), ("b", 1), ("a", 2)):
            here, mask = points[part][sample].astype(np.float64), masks[part][sample]
            direction = random.normal(size=here.shape)
            there, back = (definition(name, here + sign * step * direction, mask) for sign in (1, -1))
            slope = np.sum(gradient[part][sample] * direction)
            np.testing.assert_allclose(slope, (there - back) / (2 * step), rtol=2e-3, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_gradients_in_float64():
    with jax.enable_x64(True):
        points, masks = batch(4)
        points = {part: jnp.asarray(array[:1], jnp.float64) for part, array in points.items()}
        masks = {part: mask[:1] for part, mask in masks.items()}

        def losses(points):
            return jnp.stack([loss(points, masks) for loss in LOSSES.values()])

        check_grads(jax.jit(losses), (points,), order=1, modes=["rev"], eps=1e-6)


@pytest.mark.slow
def test_full_blocks_of_pixels_and_points():
    # More pixels than one block of the search holds, and counts that fill blocks exactly.
    height, width = 40, 64
    random = np.random.default_rng(5)
    points = random.uniform(0, (width, height), (2, 64, 2)).astype(np.float32)
    masks = random.uniform(size=(2, height, width)) < np.array([[[0.9]], [[0.1]]])
    masks[0].ravel()[np.flatnonzero(masks[0])[4 * point_sets._PIXEL_BLOCK :]] = False
    assert masks[0].sum() == 4 * point_sets._PIXEL_BLOCK
    value = jax.jit(chamfer_loss)({"part": points}, {"part": masks})
    expected = [definition("chamfer", points[i], masks[i]) for i in range(2)]
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_matched_pixels_are_the_nearest_wherever_a_point_lies():
    mask = np.random.default_rng(6).uniform(size=(HEIGHT, WIDTH)) < 0.02
    x, y = np.meshgrid(np.arange(-5, WIDTH + 5, 0.25), np.arange(-5, HEIGHT + 5, 0.25))
    points = np.stack([x.ravel(), y.ravel()], -1).astype(np.float32)
    column, row = jax.jit(point_sets._nearest_pixel)(points, mask)
    assert mask[row, column].all()
    reached = np.square(points - np.stack([column + 0.5, row + 0.5], -1)).sum(-1)
    np.testing.assert_allclose(reached, pairs(points, mask).min(1), rtol=1e-6)


@pytest.mark.slow
def test_options_of_the_density_aware_distance():
    points, masks = batch(7)
    loss = jax.jit(lambda alpha, exponent: density_aware_chamfer_loss(points, masks, alpha=alpha, exponent=exponent))
    for alpha, exponent in ((50.0, 0.5), (1000.0, 0.0)):
        options = {"alpha": alpha, "exponent": exponent}
        expected = [
            sum(definition("dcd", points[part][i], masks[part][i], **options) for part in points) for i in range(4)
        ]
        np.testing.assert_allclose(loss(alpha, exponent), expected, rtol=1e-5)


@pytest.mark.slow
def test_crowding_costs():
    mask = np.zeros((1, HEIGHT, WIDTH), bool)
    mask[0, 10, [10, 14]] = True
    apart, together = np.float32([[[10.5, 10.5], [14.5, 10.5]]]), np.float32([[[10.5, 10.5], [10.5, 10.5]]])
    loss = jax.jit(lambda points: density_aware_chamfer_loss({"a": points}, {"a": mask})[0])
    assert loss(apart) == 0
    # Both points share a pixel: 1 - 1/2. Both pixels share a point, one of them out of its sight: 1 - (1/2 + 0) / 2.
    np.testing.assert_allclose(loss(together), (0.5 + 0.75) / 2, atol=1e-4)


@pytest.mark.slow
def test_points_left_out_do_not_count_whatever_they_hold():
    points, masks = batch(8)
    random = np.random.default_rng(9)
    shares = {part: random.uniform(-0.5, 1, array.shape[:2]).clip(0).astype(np.float32) for part, array in ALL.items()}
    shares["a"][:, 0] = 0  # so that the first point has a stand-in
    dirty = {part: np.where(shares[part][..., None] > 0, array, np.nan) for part, array in points.items()}
    for name, (values, gradients) in values_and_gradients(dirty, masks, point_masks=shares).items():
        expected = [
            sum(
                definition(name, points[part][i], masks[part][i], shares[part][i] / shares[part][i].sum(dtype=float))
                for part in points
            )
            for i in range(4)
        ]
        np.testing.assert_allclose(values, expected, rtol=1e-5, err_msg=name)
        for part in points:
            assert np.isfinite(gradients[part]).all()
            assert not gradients[part][shares[part] == 0].any()
            assert gradients[part][shares[part] > 0].any()


@pytest.mark.slow
def test_empty_parts_weigh_nothing():
    points, masks = batch(10)
    masks["b"][0] = False
    point_masks = {part: array.copy() for part, array in ALL.items()}
    point_masks["a"][1] = 0
    for name, (values, gradients) in values_and_gradients(points, masks, point_masks=point_masks).items():
        np.testing.assert_allclose(values[0], definition(name, points["a"][0], masks["a"][0]), rtol=1e-5)
        np.testing.assert_allclose(values[1], definition(name, points["b"][1], masks["b"][1]), rtol=1e-5)
        assert not gradients["b"][0].any() and not gradients["a"][1].any()
        assert np.isfinite(gradients["a"]).all() and np.isfinite(gradients["b"]).all()


@pytest.mark.slow
def test_a_part_without_points():
    _, masks = batch()
    for loss in LOSSES.values():
        assert not np.any(loss({"a": np.zeros((4, 0, 2), np.float32)}, masks))


@pytest.mark.slow
def test_one_point_on_one_pixel_is_at_rest():
    mask = np.zeros((1, HEIGHT, WIDTH), bool)
    mask[0, 7, 9] = True
    points = {"a": np.float32([[[9.5, 7.5]]])}
    for loss in LOSSES.values():
        value, gradient = jax.value_and_grad(lambda p, loss=loss: loss(p, {"a": mask})[0])(points)
        assert value == 0 and not np.any(gradient["a"])


@pytest.mark.slow
def test_bfloat16_is_computed_in_float32():
    points, masks = batch(11)
    rough = {part: jnp.asarray(array, jnp.bfloat16) for part, array in points.items()}
    exact = {part: np.asarray(array, np.float32) for part, array in rough.items()}
    for values, expected in zip(
        values_and_gradients(rough, masks).values(), values_and_gradients(exact, masks).values(), strict=True
    ):
        np.testing.assert_allclose(values[0], expected[0], rtol=1e-6)
        assert values[1]["a"].dtype == jnp.bfloat16


def test_not_a_number_is_refused_or_comes_back():
    points, masks = batch(12)
    points["a"][3, 5, 0] = np.nan
    with pytest.raises(ValueError, match="a: points must be finite"):
        chamfer_loss(points, masks)
    for values, _ in values_and_gradients(points, masks).values():
        assert np.isnan(values[3]) and np.isfinite(values[:3]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, m: ({}, m, {}), "no part"),
        (lambda p, m: (p, {"a": m["a"]}, {}), "no target"),
        (lambda p, m: (p, m, {"weights": {"c": 1.0}}), "name part"),
        (lambda p, m: (p, m, {"weights": {"a": np.ones(3)}}), "one weight"),
        (lambda p, m: (p, m, {"point_masks": {"a": np.ones((4, 5))}}), "point mask"),
        (lambda p, m: (p, {"a": m["a"], "b": m["b"][:3]}, {}), "expected a mask"),
        (lambda p, m: ({"a": p["a"][..., :1], "b": p["b"]}, m, {}), "expected points"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    points, masks, options = change(*batch())
    with pytest.raises(ValueError, match=message):
        chamfer_loss(points, masks, **options)


def test_an_unknown_direction_is_refused():
    with pytest.raises(ValueError, match="to_points"):
        icp_loss(*batch(), direction="sideways")
