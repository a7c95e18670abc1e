"""SoftRas, DIB-R and ReDA-style losses against their definitions over all pixels and triangles, and at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from jax.test_util import check_grads

from jaxface.losses import part_triangles, reda_loss, silhouette_iou_loss
from jaxface.render import rasterize
from jaxface.render.dibr import dibr_silhouette
from oracles import render as oracle

pytestmark = pytest.mark.slow  # whichever test is first compiles all losses

SIZE = (26, 30)
SOFT, SHARP = 3e-3, 1e-3


def mesh(cells, origin, spacing):
    """A square of triangles, a little uneven: points [N, 2] and triangles [T, 3]."""
    column, row = np.meshgrid(np.arange(cells + 1), np.arange(cells + 1))
    points = origin + spacing * np.stack([column, row], -1).reshape(-1, 2)
    points = points + np.random.default_rng(cells).uniform(-0.4, 0.4, points.shape)
    first = (np.arange(cells)[:, None] * (cells + 1) + np.arange(cells)).ravel()
    right, below, across = first + 1, first + cells + 1, first + cells + 2
    triangles = np.concatenate([np.stack([first, right, across], -1), np.stack([first, across, below], -1)])
    return points.astype(np.float32), triangles.astype(np.int32)


MESHES = {"a": mesh(3, np.array([6.2, 5.1]), 4.0), "b": mesh(2, np.array([15.3, 12.8]), 2.5)}
TRIANGLES = {part: triangles for part, (_, triangles) in MESHES.items()}


def batch():
    """Three samples of two parts: the meshes shifted, and masks about where they were."""
    shifts = np.float32([[0, 0], [2.5, -1.5], [-3.2, 4.1]])
    points = {part: array[None] + shifts[:, None] for part, (array, _) in MESHES.items()}
    masks = {}
    for part, (array, triangles) in MESHES.items():
        drawn = rasterize(array, np.ones(len(array)), triangles, image_size=SIZE).triangle >= 0
        masks[part] = np.repeat(np.asarray(drawn)[None], 3, 0)
    return points, masks


def dibr_slowly(points, triangles, size, sigma):
    """The definition over all pixels and triangles in float64."""
    points = np.asarray(points, np.float64)
    x, y = np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5)
    centers = np.stack([x, y], -1)
    missing, covered = np.ones(size), np.zeros(size, bool)
    for triangle in triangles:
        corners = points[triangle]
        squared, sides = np.full(size, np.inf), []
        for i in range(3):
            start, edge = corners[i], corners[(i + 1) % 3] - corners[i]
            place = np.clip(((centers - start) @ edge) / (edge @ edge), 0, 1)
            squared = np.minimum(squared, np.square(centers - start - place[..., None] * edge).sum(-1))
            offset = centers - start
            sides.append(edge[0] * offset[..., 1] - edge[1] * offset[..., 0])
        covered |= (np.min(sides, 0) > 0) | (np.max(sides, 0) < 0)
        missing *= 1 - np.exp(-squared / (sigma * size[0] ** 2 / 4))
    return np.where(covered, 1.0, 1 - missing)


def draw_slowly(renderer, points, triangles, sigma):
    if renderer == "dibr":
        return dibr_slowly(points, triangles, SIZE, sigma)
    return oracle.soft_silhouette_slowly(points, triangles, SIZE, sigma)


def iou_loss_slowly(drawn, mask):
    both = drawn * mask
    return 1 - both.sum() / (drawn + mask - both).sum()


def reda_loss_slowly(drawn, mask, levels):
    mask, costs = mask.astype(float), []
    for level in range(levels):
        if level:
            for axis in (0, 1):
                kernel = np.array([1, 4, 6, 4, 1]) / 16
                drawn, mask = (scipy.ndimage.convolve1d(i, kernel, axis, mode="constant") for i in (drawn, mask))
            drawn, mask = drawn[::2, ::2], mask[::2, ::2]
        costs.append(np.square(drawn - mask).sum() / np.square(mask).sum())
    return np.mean(costs)


def softras_loss(points, masks, **options):
    return silhouette_iou_loss(points, masks, triangles=TRIANGLES, sigma=SOFT, **options)


def dibr_loss(points, masks, **options):
    return silhouette_iou_loss(points, masks, triangles=TRIANGLES, renderer="dibr", sigma=SHARP, **options)


def pyramid_loss(points, masks, **options):
    return reda_loss(points, masks, triangles=TRIANGLES, sigma=SOFT, levels=3, **options)


LOSSES = {"softras": softras_loss, "dibr": dibr_loss, "reda": pyramid_loss}


def definition(name, points, triangles, mask):
    drawn = draw_slowly(name, points, triangles, SHARP if name == "dibr" else SOFT)
    return reda_loss_slowly(drawn, mask, 3) if name == "reda" else iou_loss_slowly(drawn, mask)


ONES = {part: np.ones(3, np.float32) for part in MESHES}
ALL = {part: np.ones((3, len(points)), bool) for part, (points, _) in MESHES.items()}


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


def test_values_are_those_of_the_definition():
    points, masks = batch()
    weights = {"a": np.full(3, 0.5, np.float32), "b": np.arange(3, dtype=np.float32)}
    for name, (values, _) in values_and_gradients(points, masks, weights).items():
        expected = [
            sum(weights[p][i] * definition(name, points[p][i], TRIANGLES[p], masks[p][i]) for p in points)
            for i in range(3)
        ]
        np.testing.assert_allclose(values, expected, atol=2e-4, err_msg=name)
        assert values[1] > 0.1


def test_gradients_are_those_of_the_definition():
    points, masks = batch()
    random, step = np.random.default_rng(1), 1e-5
    for name, (_, gradients) in values_and_gradients(points, masks).items():
        for part, sample in (("a", 1), ("b", 2), ("a", 2)):
            here = points[part][sample].astype(np.float64)
            direction = random.normal(size=here.shape)
            there, back = (
                definition(name, here + sign * step * direction, TRIANGLES[part], masks[part][sample])
                for sign in (1, -1)
            )
            slope = np.sum(gradients[part][sample] * direction)
            np.testing.assert_allclose(slope, (there - back) / (2 * step), rtol=1e-2, atol=2e-4, err_msg=name)


def test_gradients_in_float64():
    with jax.enable_x64(True):
        points, masks = batch()
        points = {part: jnp.asarray(array[1:2], jnp.float64) for part, array in points.items()}
        masks = {part: mask[1:2] for part, mask in masks.items()}

        def losses(points):
            return jnp.stack([loss(points, masks) for loss in LOSSES.values()])

        check_grads(jax.jit(losses), (points,), order=1, modes=["rev"], eps=1e-6, rtol=2e-3, atol=1e-4)


def test_published_sharpness_is_the_default():
    points, masks = batch()
    points, masks = {"a": points["a"][:1]}, {"a": masks["a"][:1]}
    for renderer, sigma in (("softras", 1e-4), ("dibr", 1 / 7000)):
        value = silhouette_iou_loss(points, masks, triangles=TRIANGLES, renderer=renderer)[0]
        drawn = draw_slowly(renderer, points["a"][0], TRIANGLES["a"], sigma)
        np.testing.assert_allclose(value, iou_loss_slowly(drawn, masks["a"][0]), atol=2e-4)


class TestDibrSilhouette:
    @pytest.mark.parametrize("sigma", [1 / 7000, 3e-3])
    def test_equals_the_definition(self, sigma):
        random = np.random.default_rng(2)
        corners = random.uniform(-4, 30, (40, 1, 2)) + random.uniform(-5, 5, (40, 3, 2))
        points, triangles = corners.reshape(-1, 2).astype(np.float32), np.arange(120).reshape(40, 3)
        drawn = dibr_silhouette(points, triangles, image_size=SIZE, sigma=sigma)
        np.testing.assert_allclose(drawn, dibr_slowly(points, triangles, SIZE, sigma), atol=1e-4)
        assert 0.1 < np.mean(drawn) < 0.99

    def test_a_covered_pixel_is_one_and_does_not_pull(self):
        points, triangles = np.float32([[2, 2], [28, 2], [2, 28]]), np.array([[0, 1, 2]])

        def pixel(points):
            return dibr_silhouette(points, triangles, image_size=SIZE, sigma=1.0)[4, 4]

        value, gradient = jax.value_and_grad(pixel)(points)
        assert value == 1 and not np.any(gradient)

    def test_a_centre_on_an_edge_has_no_infinite_gradient(self):
        points, triangles = np.float32([[4.5, 2], [4.5, 20], [12, 9]]), np.array([[0, 1, 2]])
        image, pull_back = jax.vjp(lambda p: dibr_silhouette(p, triangles, image_size=SIZE), points)
        np.testing.assert_allclose(np.asarray(image)[5:15, 4], 1.0, atol=1e-5)
        assert np.isfinite(np.asarray(pull_back(jnp.ones_like(image))[0])).all()

    def test_nothing_to_draw_and_a_wrong_sigma(self):
        none = np.zeros((0, 3), np.int32)
        assert dibr_silhouette(np.zeros((2, 0, 2)), none, image_size=8).shape == (2, 8, 8)
        with pytest.raises(ValueError, match="sigma must be positive"):
            dibr_silhouette(np.zeros((3, 2)), np.array([[0, 1, 2]]), image_size=8, sigma=-1.0)


def test_levels_of_odd_sizes_halve_as_scipy_does():
    # 26 x 30 has halves of 13 x 15, which are odd; and nothing shows where the mask is far away.
    points, masks = batch()
    far = {"a": points["a"] + np.float32([200, 0])}
    values = reda_loss(far, {"a": masks["a"]}, triangles=TRIANGLES, levels=5)
    np.testing.assert_allclose(values, 1.0, atol=1e-6)
    with pytest.raises(ValueError, match="levels"):
        reda_loss(points, masks, triangles=TRIANGLES, levels=0)


def test_triangles_with_a_corner_left_out_are_not_drawn():
    points, masks = batch()
    point_masks = {part: array.copy() for part, array in ALL.items()}
    point_masks["a"][:, [0, 5]] = False
    dirty = {part: np.where(point_masks[part][..., None], array, np.nan) for part, array in points.items()}
    kept = TRIANGLES["a"][~np.isin(TRIANGLES["a"], [0, 5]).any(1)]
    assert 0 < len(kept) < len(TRIANGLES["a"])
    for name, (values, gradients) in values_and_gradients(dirty, masks, point_masks=point_masks).items():
        expected = [
            definition(name, points["a"][i], kept, masks["a"][i])
            + definition(name, points["b"][i], TRIANGLES["b"], masks["b"][i])
            for i in range(3)
        ]
        np.testing.assert_allclose(values, expected, atol=4e-4, err_msg=name)
        assert np.isfinite(gradients["a"]).all() and not gradients["a"][:, [0, 5]].any()


def test_empty_parts_weigh_nothing():
    points, masks = batch()
    masks["b"][0] = False
    point_masks = {part: array.copy() for part, array in ALL.items()}
    point_masks["a"][1] = False
    for name, (values, gradients) in values_and_gradients(points, masks, point_masks=point_masks).items():
        expected = definition(name, points["a"][0], TRIANGLES["a"], masks["a"][0])
        np.testing.assert_allclose(values[0], expected, atol=2e-4)
        expected = definition(name, points["b"][1], TRIANGLES["b"], masks["b"][1])
        np.testing.assert_allclose(values[1], expected, atol=2e-4)
        assert not gradients["b"][0].any() and not gradients["a"][1].any()


def test_a_part_without_triangles_draws_nothing():
    points, masks = batch()
    none = {"a": np.zeros((0, 3), np.int32)}
    one, empty = {"a": points["a"]}, {"a": np.zeros((3, 0, 2), np.float32)}
    for renderer in ("softras", "dibr"):
        np.testing.assert_array_equal(silhouette_iou_loss(one, masks, triangles=none, renderer=renderer), 1)
        np.testing.assert_array_equal(silhouette_iou_loss(empty, masks, triangles=none, renderer=renderer), 0)


def test_not_a_number_is_refused_or_comes_back():
    points, masks = batch()
    points["a"][2, 5, 0] = np.nan
    with pytest.raises(ValueError, match="a: points must be finite"):
        softras_loss(points, masks)
    for values, _ in values_and_gradients(points, masks).values():
        assert np.isnan(values[2]) and np.isfinite(values[:2]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"triangles": {"a": TRIANGLES["a"]}}, "no triangles"),
        ({"triangles": TRIANGLES | {"a": TRIANGLES["a"].T}}, "expected triangles"),
        ({"triangles": TRIANGLES | {"a": TRIANGLES["a"] + 1}}, "outside"),
        ({"triangles": TRIANGLES, "renderer": "opengl"}, "renderer"),
        ({"triangles": TRIANGLES, "weights": {"c": 1.0}}, "name part"),
    ],
)
def test_what_does_not_fit_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        silhouette_iou_loss(*batch(), **options)


def test_triangles_of_parts_number_the_parts_own_vertices():
    triangles = np.array([[0, 1, 2], [2, 1, 3], [3, 4, 5], [5, 4, 0]])
    parts = {"first": np.array([3, 1, 2, 0]), "second": np.array([5, 4]), "third": np.array([], int)}
    own = part_triangles(parts, triangles)
    np.testing.assert_array_equal(own["first"], [[3, 1, 2], [2, 1, 0]])
    np.testing.assert_array_equal(parts["first"][own["first"]], triangles[:2])
    assert own["second"].shape == own["third"].shape == (0, 3)
