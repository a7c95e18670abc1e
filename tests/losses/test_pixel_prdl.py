"""PRDL on pixels against its definition, its gradient beside differences of a fine drawing, and at the edges."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from jaxface import Camera, Coefficients, decode_face
from jaxface.core import parts
from jaxface.core.coefficients import vector_sizes
from jaxface.core.metrics import vertex_error_mm
from jaxface.fitting import coefficient_prior
from jaxface.fitting.descent import RATES
from jaxface.losses import pixel_prdl_loss, pixel_targets
from jaxface.losses.faces import part_loss
from jaxface.render import label_triangles, rasterize, render_labels
from oracles import pixel_prdl as oracle
from toys.models import toy_model

SIZE = 48
BATCH = 8
EVERY = {"signed": 1.0, "min": 0.5, "max": 0.25, "mean": 0.1}
MODEL = toy_model()
LABELS = label_triangles(MODEL.parts, MODEL.triangles)
TRIANGLES = np.asarray(MODEL.triangles)


@functools.cache
def faces(seed=0, spread=1.0):
    """Points and depths of toy faces in a picture of 48 x 48 px."""
    random = np.random.default_rng(seed)
    coefficients = Coefficients.zeros(MODEL, BATCH).replace(
        identity=spread * random.normal(size=(BATCH, 3)).astype(np.float32),
        angles=spread * random.uniform(-0.4, 0.4, (BATCH, 3)).astype(np.float32),
        translation=spread * random.uniform(-0.15, 0.15, (BATCH, 3)).astype(np.float32),
    )
    face = decode_face(MODEL, coefficients, Camera().resized(SIZE))
    return np.asarray(face.points), np.asarray(face.depth)


@functools.partial(jax.jit, static_argnames="size")
def draw(points, depth, size=SIZE):
    return render_labels(points, depth, TRIANGLES, LABELS, image_size=size)


def loss(points, depth, targets, statistics=None, **options):
    options |= {} if statistics is None else {"statistics": statistics}
    return pixel_prdl_loss(points, depth, TRIANGLES, LABELS, targets, **options)


@functools.partial(jax.jit, static_argnames="names")
def _loss_and_gradient(points, depth, targets, hidden, names):
    def total(points):
        losses = loss(points, depth, targets, dict(names), hidden=hidden)
        return losses.sum(), losses

    gradient, losses = jax.grad(total, has_aux=True)(points)
    return losses, gradient


def loss_and_gradient(points, depth, labels, statistics=None, hidden=None):
    """[B] losses and the gradient of their sum; compiled once for each choice of statistics."""
    names = tuple((statistics or {"signed": 1.0, "mean": 0.1}).items())
    hidden = np.zeros((BATCH, SIZE, SIZE), bool) if hidden is None else hidden
    return _loss_and_gradient(points, depth, pixel_targets(labels), hidden, names)


def assert_nothing(losses, gradient=0.0):
    """Nothing but what is left of rounding where two programs sum in another order."""
    np.testing.assert_allclose(losses, 0, atol=1e-9)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


class TestValue:
    @pytest.mark.parametrize("name", EVERY)
    def test_against_the_definition(self, name):
        points, depth = faces(0)
        labels, drawn = np.asarray(draw(*faces(1))), np.asarray(draw(points, depth))
        labels = np.where(labels == 1, 8, labels)  # a part that is not in the target
        losses, _ = loss_and_gradient(points, depth, labels, {name: EVERY[name]})
        # Without two brows in the target nothing is cut, and here both have them.
        expected = [oracle.loss(a, b, {name: EVERY[name]}) for a, b in zip(drawn, labels, strict=True)]
        np.testing.assert_allclose(losses, expected, rtol=1e-4)

    def test_zero_at_the_truth_and_nowhere_else(self):
        points, depth = faces(0)
        labels = draw(points, depth)
        losses, gradient = loss_and_gradient(points, depth, labels, EVERY)
        assert_nothing(losses, gradient)
        losses, gradient = loss_and_gradient(points + np.float32(2), depth, labels, EVERY)
        assert np.all(losses > 0.1) and np.any(gradient, axis=(1, 2)).all()

    def test_the_mean_by_cells_is_that_of_the_pixels(self):
        random = np.random.default_rng(0)
        mask = (
            np.kron(random.uniform(size=(56, 56)) < 0.3, np.ones((4, 4))) + (random.uniform(size=(224, 224)) < 0.05) > 0
        )
        _, _, mean = oracle.describe(mask, 4)
        np.testing.assert_allclose(mean, oracle.describe(mask, 1)[2], atol=0.02)

    def test_weights_masks_and_descriptors(self):
        points, depth = faces(0)
        labels = np.asarray(draw(*faces(1)))
        weights = {"nose": 0.5, "skin": np.arange(BATCH, dtype=np.float32)}
        found = loss(points, depth, pixel_targets(labels, anchor_stride=3), weights=weights)
        drawn = np.asarray(draw(points, depth))
        expected = [
            oracle.loss(a, b, {"signed": 1.0, "mean": 0.1}, weights={"nose": 0.5, "skin": i})
            for i, (a, b) in enumerate(zip(drawn, labels, strict=True))
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        masks = {part: labels == label for part, label in parts.LABELS.items()}
        for targets in (labels, masks, masks | {"skin": (labels > 0) & (labels < 9)}):
            np.testing.assert_array_equal(loss(points, depth, targets, weights=weights), found)

    def test_bfloat16_and_other_sizes(self):
        points, depth = faces(0)
        wide = np.zeros((BATCH, SIZE - 7, SIZE + 10), np.uint8)
        wide[:, 5:30, 8:40] = 8
        assert np.isfinite(loss(points, depth, wide)).all()
        labels = np.asarray(draw(*faces(1)))
        coarse = loss(jnp.asarray(points, jnp.bfloat16), jnp.asarray(depth, jnp.bfloat16), labels)
        assert coarse.dtype == jnp.float32
        np.testing.assert_allclose(coarse, loss(points, depth, labels), rtol=0.2)


class TestWhatDoesNotCount:
    def test_hidden_pixels(self):
        points, depth = faces(0)
        hidden = np.zeros((BATCH, SIZE, SIZE), bool)
        hidden[:, 20:34, 10:26] = True
        labels = np.where(hidden, 0, draw(points, depth))
        losses, gradient = loss_and_gradient(points, depth, labels, EVERY, hidden)
        # A hidden brow would move the cut above the brows; here none is.
        assert_nothing(losses, gradient)
        assert np.all(loss_and_gradient(points, depth, labels, EVERY)[0] > 0.01)

    def test_nothing_pulls_at_the_cut(self):
        points, depth = faces(0, 0.0)
        labels = np.asarray(draw(points, depth)).copy()
        assert (labels == parts.FOREHEAD).any()
        skin = labels == parts.LABELS["skin"]
        first = np.argmax(skin.any(2), axis=1)
        for sample, row in enumerate(first):  # the target's skin ends a row lower, the rest is the same
            labels[sample, row][skin[sample, row]] = parts.FOREHEAD
        losses, gradient = loss_and_gradient(points, depth, labels, {"signed": 1.0})
        assert np.all(losses > 0)
        # In the middle: at its ends the cut meets the outline of the face, which does move.
        above = (points[..., 1] < first[:, None] - 2) & (np.abs(points[..., 0] - SIZE / 2) < 10)
        assert above.any() and not np.any(np.asarray(gradient)[above])

    def test_an_uncut_target_leaves_the_face_uncut(self):
        points, depth = faces(0, 0.0)
        labels = np.asarray(draw(points, depth))
        brows = (labels == 3) | (labels == 4)
        labels = np.where(brows, 0, np.where(labels == parts.FOREHEAD, parts.LABELS["skin"], labels))
        only_skin = {part: float(part == "skin") for part in parts.PARTS}
        losses = loss(points, depth, labels, weights=only_skin, hidden=brows)
        assert_nothing(losses)

    def test_specks(self):
        points, depth = faces(0)
        labels = np.asarray(draw(points, depth))
        count = int((labels == 1).sum((1, 2)).max())
        filtered = np.where(labels == 1, parts.LABELS["skin"], labels)
        assert_nothing(loss(points, depth, filtered, speck=count + 1))
        assert np.all(loss(points, depth, filtered) > 0)
        # A part that the target shows is itself, however small.
        assert_nothing(loss(points, depth, labels, speck=count + 1))

    def test_empty_targets_and_pictures(self):
        points, depth = faces(0)
        nothing = np.zeros((BATCH, SIZE, SIZE), np.uint8)
        losses, gradient = loss_and_gradient(points, depth, nothing, EVERY)
        assert_nothing(losses, gradient)
        everything = np.full_like(nothing, parts.LABELS["skin"])
        losses, gradient = loss_and_gradient(points, depth, everything, EVERY)
        assert np.isfinite(losses).all() and np.isfinite(gradient).all() and np.any(gradient, axis=(1, 2)).all()
        unknown = np.full(nothing.shape, 256 + parts.LABELS["skin"])  # no label of ours, though its last byte is one
        assert not pixel_targets(unknown).present.any() and not pixel_targets(-unknown).present.any()

    def test_no_triangles_and_no_faces(self):
        (points, depth), labels = faces(0), np.ones((BATCH, SIZE, SIZE), np.uint8)

        def total(points, count):
            drawn = (depth[: len(points)], TRIANGLES[:count], LABELS[:count], labels[: len(points)])
            return pixel_prdl_loss(points, *drawn).sum()

        assert_nothing(*jax.value_and_grad(total)(points, 0))
        assert_nothing(*jax.value_and_grad(total)(points[:0], len(LABELS)))


class TestGradient:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", EVERY)
    def test_beside_differences_of_a_fine_drawing(self, name):
        fineness, step = 8, np.float32(0.25)
        (points, depth), (target, target_depth) = faces(0), faces(1)
        labels = draw(target, target_depth)
        fine = np.asarray(draw(fineness * target, target_depth, fineness * SIZE))
        _, gradient = loss_and_gradient(points, depth, labels, {name: 1.0})
        away = points - points.mean(1, keepdims=True)
        moves = [  # to the right, down, growth, two bends
            np.broadcast_to(np.float32([1, 0]), points.shape),
            np.broadcast_to(np.float32([0, 1]), points.shape),
            away / 12,
            np.sin(points[..., ::-1] / 8),
            np.cos(points[..., ::-1] / 10),
        ]
        found, expected = [], []
        for move in moves:
            ends = [
                np.asarray(draw(fineness * (points + sign * step * move), depth, fineness * SIZE)) for sign in (1, -1)
            ]
            for sample in range(4):
                high, low = (oracle.fine_loss(end[sample], fine[sample], name, fineness) for end in ends)
                expected.append((high - low) / (2 * step))
                found.append(float((np.asarray(gradient) * move)[sample].sum()))
        found, expected = np.array(found), np.array(expected)
        print("FD", name, np.corrcoef(found, expected)[0, 1], (found @ expected) / (expected @ expected))
        assert np.corrcoef(found, expected)[0, 1] > {"signed": 0.97, "min": 0.95, "max": 0.9, "mean": 0.97}[name]
        assert 0.8 < (found @ expected) / (expected @ expected) < 1.2

    def test_a_part_that_is_not_drawn_is_pulled_back(self):
        points, depth = faces(0)
        labels = np.asarray(draw(points, depth))
        away = points + np.float32([3 * SIZE, 0])
        alone = jax.value_and_grad(lambda points, weights: loss(points, depth, labels, weights=weights).sum())
        for part, label in parts.LABELS.items():  # however few its triangles are, and whomever their corners belong to
            seen, corners = (labels == label).any((1, 2)), np.unique(TRIANGLES[label == LABELS])
            weights = {other: np.float32(other == part) * np.ones(BATCH, np.float32) for other in parts.PARTS}
            total, gradient = alone(away, weights)
            assert total > 10 * seen.sum() > 0
            assert np.all(np.asarray(gradient)[seen][:, corners, 0] > 0)

    def test_what_hides_carries_the_outline(self):
        """A small square of lip in front of a large one of skin: only the front one moves the outline between them."""
        square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)
        points = np.concatenate([24 + 16 * square, 24 + 6 * square])[None]
        depth = np.repeat(np.float32([9.0, 8.0]), 4)[None]
        triangles = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
        labels = np.repeat(np.uint8([8, 6]), 2)
        target = render_labels(points + np.float32([2, 0]), depth, triangles, labels, image_size=SIZE)
        target = np.where(np.asarray(target) == 6, 6, np.asarray(draw_uncut(points, depth, triangles, labels)))

        lips_free = {"upper_lip": 0.0}

        def total(points):
            return pixel_prdl_loss(
                points, depth, triangles, labels, target, statistics={"signed": 1.0}, weights=lips_free
            ).sum()

        gradient = np.asarray(jax.grad(total)(jnp.asarray(points)))[0]
        # Almost: midway between the two outlines an anchor's nearest other pixel is the large square's own outline.
        assert np.abs(gradient[4:]).sum() > 20 * np.abs(gradient[:4]).sum() > 0

    @pytest.mark.slow
    def test_a_face_stays_at_its_truth(self, anny):
        """A hundred steps of Adam at the fit's rates, with PRDL and a prior that pulls to the mean face: half a mm."""
        camera, random, prior = Camera(), np.random.default_rng(0), coefficient_prior(anny)
        coefficients = Coefficients.zeros(anny, 2)
        coefficients = coefficients.replace(identity=random.normal(size=coefficients.identity.shape).clip(-2, 2))
        truth = jnp.asarray(coefficients.to_vector(), jnp.float32)
        labels = label_triangles(anny.parts, anny.triangles)
        rates = jnp.asarray(np.repeat(np.float32(list(RATES.values())), vector_sizes(anny)))
        optimizer = optax.scale_by_adam(b2=0.9)

        def decoded(vector):
            return decode_face(anny, Coefficients.from_vector(vector, anny), camera)

        @jax.jit
        def drawn(vector):
            face = decoded(vector)
            return render_labels(face.points, face.depth, anny.triangles, labels, image_size=224)

        targets = pixel_targets(drawn(truth))

        @jax.jit
        def descended(start):
            def step(state, index):
                vector, moments = state
                gradient = jax.grad(lambda v: part_loss(anny, decoded(v), targets).sum())(vector)
                direction, moments = optimizer.update(gradient, moments)
                move = direction + 0.03 * vector / prior.deviation[None]  # as in experiments/prdl_vs_rivals
                fall = 0.5 * (1 + jnp.cos(jnp.pi * index / 100))
                return (vector - fall * rates[None] * move, moments), None

            return jax.lax.scan(step, (start, optimizer.init(start)), jnp.arange(100.0))[0][0]

        drift = vertex_error_mm(decoded(descended(truth)).shape, decoded(truth).shape)
        assert np.all(drift > 0)
        assert np.mean(drift) < 0.5

    def test_in_the_weights_and_only_once(self):
        points, depth = faces(0)
        targets, ones = pixel_targets(draw(*faces(1))), np.ones(BATCH, np.float32)
        away = points + np.arange(BATCH, dtype=np.float32)[:, None, None] * SIZE / 4  # the last are out of the picture

        @jax.jit
        def slopes(weight):
            return jax.grad(lambda w: loss(away, depth, targets, weights={"skin": w}).sum())(weight)

        one, two = (loss(away, depth, targets, weights={"skin": factor * ones}) for factor in (1, 2))
        np.testing.assert_allclose(slopes(ones), two - one, rtol=1e-3)
        square = jax.jit(jax.grad(lambda p: jnp.square(jax.grad(lambda p: loss(p, depth, targets).sum())(p)).sum()))
        assert not np.any(square(points))

    def test_float64(self):
        points, depth = faces(0)
        labels = np.asarray(draw(*faces(1)))
        _, gradient = loss_and_gradient(points, depth, labels)
        with jax.enable_x64(True):
            wide = jax.grad(lambda p: loss(p, depth.astype(np.float64), labels).sum())(points.astype(np.float64))
            narrow = jax.grad(lambda p: loss(p, depth, labels).sum())(points)  # what is float32 stays so
        np.testing.assert_allclose(narrow, gradient, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(wide, gradient, rtol=1e-3, atol=1e-3 * np.abs(gradient).max())


def draw_uncut(points, depth, triangles, labels):
    return render_labels(points, depth, triangles, labels, image_size=SIZE)


class TestTransformations:
    def test_devices_and_batches_give_the_same(self):
        (points, depth), labels = faces(0), np.asarray(draw(*faces(1)))

        def gradient(points, depth, labels):
            return jax.grad(lambda p: loss(p, depth, labels).sum())(points)

        expected = jax.jit(gradient)(points, depth, labels)
        mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
        spec = PartitionSpec("batch")
        sharded = jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=(spec,) * 3, out_specs=spec))
        one_by_one = [array[:, None] for array in (points, depth, labels)]
        for result in (
            sharded(points, depth, labels),
            jax.pmap(gradient)(*one_by_one)[:, 0],
            jax.jit(jax.vmap(gradient))(*one_by_one)[:, 0],
        ):
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)

    def test_moves_with_the_picture(self):
        """A shift of both by whole steps of the anchors changes the loss only by what anchors at the rim see."""
        points, depth = faces(0, 0.0)
        labels = np.asarray(draw(*faces(2, 0.3)))
        one, _ = loss_and_gradient(points, depth, labels, {"signed": 1.0})
        two, _ = loss_and_gradient(
            points + np.float32([3, -3]), depth, np.roll(labels, (-3, 3), (1, 2)), {"signed": 1.0}
        )
        np.testing.assert_allclose(one, two, rtol=0.1)

    def test_nan_is_refused_or_comes_out(self):
        points, depth = (array.copy() for array in faces(0))
        labels = np.asarray(draw(points, depth))
        points[2, 3, 0] = np.nan
        with pytest.raises(ValueError, match="finite"):
            loss(points, depth, labels)
        losses, _ = loss_and_gradient(points, depth, labels)
        assert np.isnan(losses[2]) and np.isfinite(np.delete(losses, 2)).all()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda a, o: a.update(points=a["points"][0]), "expected points"),
            (lambda a, o: a.update(depth=a["depth"][:, :3]), "expected points"),
            (lambda a, o: a.update(triangle_labels=LABELS[:3]), "expected triangles"),
            (lambda a, o: a.update(targets=a["targets"][0]), "expected label maps"),
            (lambda a, o: a.update(targets=a["targets"].astype(np.float32)), "whole numbers"),
            (lambda a, o: a.update(targets={"ear": a["targets"]}), "ear"),
            (lambda a, o: a.update(targets={"nose": a["targets"], "skin": a["targets"][:, :3]}), "one shape"),
            (lambda a, o: o.update(hidden=np.zeros((BATCH, 3, 3), bool)), "expected hidden"),
            (lambda a, o: o.update(weights={"ear": 1.0}), "ear"),
            (lambda a, o: o.update(weights={"nose": np.ones(3)}), "one weight"),
            (lambda a, o: o.update(statistics={"median": 1.0}), "statistics"),
            (lambda a, o: o.update(near=0.0), "near must be positive"),
            (lambda a, o: o.update(fragments=rasterize(*faces(0), TRIANGLES, image_size=8)), "expected fragments"),
        ],
    )
    def test_mistakes_are_named(self, change, message):
        points, depth = faces(0)
        arguments = {"points": points, "depth": depth, "triangles": TRIANGLES, "triangle_labels": LABELS}
        arguments["targets"] = np.zeros((BATCH, SIZE, SIZE), np.uint8)
        options = {}
        change(arguments, options)
        with pytest.raises(ValueError, match=message):
            pixel_prdl_loss(*arguments.values(), **options)
        for stride in (0, 2.5):
            with pytest.raises(ValueError, match="stride"):
                pixel_targets(np.zeros((1, 4, 4), np.uint8), anchor_stride=stride)
