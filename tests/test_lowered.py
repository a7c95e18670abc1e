"""What GPUs are given to run holds no long loops: programs lowered for them, nothing compiled, no GPU needed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface import Camera, Coefficients, decode_face
from jaxface.core import parts
from jaxface.core.coefficients import vector_size
from jaxface.losses import pixel_prdl_loss, pixel_targets, prdl, prdl_loss
from jaxface.losses.faces import part_targets
from jaxface.networks.checkpoints import create_configured_encoder
from jaxface.render import interpolate, label_triangles, rasterize, soft_silhouette, visible_areas
from jaxface.training.objective import total_loss
from jaxface.training.optimizer import create_optimizer
from jaxface.training.step import create_state, make_train_step
from toys.lowered import Loop, loops
from toys.training import read_config_file

MOST_TRIPS = 64

TILES = Loop(None)
"""The renderer's loop over what is left of large triangles. Its rounds depend on the data: one or two for a face, see
render/test_on_accelerators.py."""


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def long_loops(function, *arguments):
    """The loops of more than MOST_TRIPS, those around them counted too, or of a number that only the data tell."""
    return [loop for loop in loops(function, *arguments) if loop.all_trips is None or loop.all_trips > MOST_TRIPS]


class TestCounting:
    def test_scans_maps_and_loops_inside_loops(self):
        def function(x):
            x, _ = jax.lax.scan(lambda x, y: (x + y, None), x, jnp.arange(70.0))
            return jax.lax.fori_loop(3, 9, lambda _, x: jax.lax.map(lambda y: y + x, jnp.arange(8.0)).sum(), x)

        assert loops(function, 1.0) == [Loop(70), Loop(6), Loop(8, (6,))]
        assert [loop.all_trips for loop in loops(function, 1.0)] == [70, 6, 48]
        assert long_loops(function, 1.0) == [Loop(70)]

    def test_a_loop_of_which_only_the_data_tell_the_length(self):
        def function(x):
            step = jax.jit(lambda x: jax.lax.map(jnp.sin, x * jnp.ones(5)).sum())
            return jax.lax.while_loop(lambda x: x < 3, step, x)

        assert loops(function, 1.0) == [Loop(None), Loop(5, (None,))]
        assert len(long_loops(function, 1.0)) == 2
        counted = functools.partial(jax.lax.fori_loop, 0, body_fun=lambda _, x: x + 1, init_val=1.0)
        assert loops(lambda end: counted(end), 5) == [Loop(None)]


@pytest.fixture(scope="module")
def point_counts(anny):
    return {part: len(anny.parts[part]) for part in parts.PARTS}


@pytest.mark.parametrize("batch", [1, pytest.param(64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stride", [1, 8])
@pytest.mark.parametrize("kind", [pytest.param("masks", marks=pytest.mark.slow), "descriptors"])
def test_prdl_of_vertices_and_its_gradient(point_counts, kind, stride, batch):
    anchors = prdl.grid_anchors(224, 224, stride)
    points = {part: shaped(batch, count, 2) for part, count in point_counts.items()}
    target = shaped(batch, 224, 224, dtype=bool) if kind == "masks" else shaped(batch, len(anchors), 3)
    loss = jax.value_and_grad(lambda points, targets: prdl_loss(points, targets, anchors=anchors).sum())
    assert long_loops(loss, points, dict.fromkeys(points, target)) == []


@pytest.mark.parametrize("batch", [1, pytest.param(64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stride", [1, 3])
def test_prdl_of_pixels_with_its_drawing_and_gradient(anny, stride, batch):
    points, depth = shaped(batch, len(anny.mean_shape), 2), shaped(batch, len(anny.mean_shape))
    labels, every = label_triangles(anny.parts, anny.triangles), {"signed": 1.0, "min": 1.0, "max": 1.0, "mean": 1.0}

    def loss(points, depth, label_maps, hidden):
        targets = pixel_targets(label_maps, anchor_stride=stride)
        options = {"hidden": hidden, "statistics": every}
        return pixel_prdl_loss(points, depth, anny.triangles, labels, targets, **options).sum()

    pictures = (shaped(batch, 224, 224, dtype=kind) for kind in (jnp.uint8, bool))
    assert long_loops(jax.value_and_grad(loss), points, depth, *pictures) == [TILES]


@pytest.mark.slow
def test_prdl_of_all_pairs_and_of_anchors_anywhere(point_counts):
    points = {part: shaped(4, count, 2) for part, count in point_counts.items()}
    targets = dict.fromkeys(points, shaped(4, 224, 224, dtype=bool))

    def loss(points, targets, anchors):
        return prdl_loss(points, targets, anchors=anchors, exact=True).sum()

    assert long_loops(jax.grad(loss), points, targets, shaped(20_000, 2)) == []
    grid = prdl.grid_anchors(224, 224)
    assert long_loops(jax.grad(functools.partial(loss, anchors=grid)), points, targets) == []


def test_part_targets():
    assert long_loops(functools.partial(part_targets, anchor_stride=1), shaped(64, 224, 224, dtype=jnp.uint8)) == []


@pytest.mark.parametrize("batch", [1, pytest.param(64, marks=pytest.mark.slow)])
def test_drawing_and_its_gradient(anny, batch):
    points, depth = shaped(batch, len(anny.mean_shape), 2), shaped(batch, len(anny.mean_shape))

    def drawn(points, depth, colors):
        fragments = rasterize(points, depth, anny.triangles, image_size=224)
        return interpolate(fragments, anny.triangles, colors).sum() + fragments.depth.sum()

    assert long_loops(jax.grad(drawn, (0, 1, 2)), points, depth, shaped(*points.shape[:2], 3)) == [TILES]

    def covered(points):
        return soft_silhouette(points, anny.triangles, image_size=224, sigma=1e-5).sum()

    assert long_loops(jax.value_and_grad(covered), points) == [TILES, TILES]
    for occlusion, expected in (("coarse", []), ("exact", [TILES])):
        areas = functools.partial(visible_areas, triangles=anny.triangles, image_size=224, occlusion=occlusion)
        assert long_loops(areas, points, depth) == expected


def test_decoding_and_its_gradient(anny):
    def decoded(vector):
        face = decode_face(anny, Coefficients.from_vector(vector, anny), Camera())
        return face.points.sum() + face.colors.sum()

    assert long_loops(jax.value_and_grad(decoded), shaped(64, vector_size(anny))) == []


def train_step(model, *, features, **weights):
    """The paper's step at its full size, and its arguments' shapes."""
    config = read_config_file("3ddfa_v3_resnet50")
    encoder = create_configured_encoder(config, model)
    optimizer = create_optimizer(steps=config.steps, **config.optimizer)
    size, batch = config.image_size, config.batch_size
    options = {"camera": Camera().resized(size), "features": features, **config.loss, **weights}
    step = make_train_step(encoder, optimizer, functools.partial(total_loss, **options))
    state = jax.eval_shape(lambda: create_state(encoder, optimizer, image_size=size, seed=0))
    samples = {
        "image": shaped(batch, size, size, 3, dtype=jnp.uint8),
        "labels": shaped(batch, size, size, dtype=jnp.uint8),
        "landmarks": shaped(batch, 68, 2),
        "landmark_weights": shaped(batch, 68),
        "coefficients": shaped(batch, vector_size(model)),
        "has_coefficients": shaped(batch),
    }
    return step, (state, samples)


@pytest.mark.slow
@pytest.mark.parametrize("perceptual", [0.0, 0.2])
def test_the_papers_train_step(anny, perceptual):
    matrix = np.random.default_rng(0).normal(size=(150 * 150 * 3, 8)).astype(np.float32)

    def features(chips):  # in the recogniser's place, whose convolutions are no loops
        return chips.reshape(len(chips), -1) @ matrix

    step, arguments = train_step(anny, features=features, perceptual=perceptual)
    assert long_loops(lambda state, samples: step(state, samples, anny), *arguments) == [TILES]
