"""One step, three ways: plain jit on one device, pmap and sharded jit on eight, for the same global batch."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from jaxface import Camera
from jaxface.core.coefficients import vector_sizes
from jaxface.networks.encoder import Encoder
from jaxface.networks.resnet import BasicBlock, ResNet
from jaxface.training import parallel
from jaxface.training.objective import total_loss
from jaxface.training.step import create_state, make_train_step
from toys.models import toy_model
from toys.training import toy_batch

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

SIZE, BATCH, STEPS = 32, 16, 2


def _step_and_state(model, axis_name):
    # Plain gradient descent: the parameters after a step are the gradient itself, which Adam would rescale.
    optimizer = optax.sgd(1e-3)
    backbone = ResNet(BasicBlock, (1, 1), width_multiplier=0.125, axis_name=axis_name)
    encoder = Encoder(backbone, vector_sizes(model)[:3])
    camera = Camera().resized(SIZE)

    def objective(model, vector, batch):
        return total_loss(model, vector, batch, camera, perceptual=0.0, reprojection=0.1, shape=0.1, anchor_stride=4)

    state = create_state(encoder, optimizer, image_size=SIZE, seed=0)
    # Heads start at zero, which would hide the gradient of everything before them in the first step.
    heads = {name: jax.tree.map(_random_like, head) for name, head in state.params.items() if "final" in name}
    state = dataclasses.replace(state, params=state.params | heads)
    return make_train_step(encoder, optimizer, objective, axis_name=axis_name), state


def _random_like(x):
    return 0.002 * jax.random.normal(jax.random.key(x.size), x.shape)


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def batches(model):
    return [toy_batch(model, BATCH, SIZE, seed=seed) for seed in range(STEPS)]


@pytest.fixture(scope="module")
def on_one_device(model, batches):
    step, state = _step_and_state(model, None)
    step = jax.jit(step)
    history = []
    for batch in batches:
        state, metrics = step(state, batch, model)
        history.append(jax.device_get((state, metrics)))
    return history


@pytest.mark.parametrize("kind", ["pmap", "sharded"])
def test_eight_devices_equal_one(kind, model, batches, on_one_device):
    assert jax.device_count() == 8
    step, state = _step_and_state(model, parallel.AXIS)
    initial = jax.device_get(state)
    mapping = parallel.mapping(kind)
    compilations = []

    def counted(state, batch, model):
        compilations.append(1)  # runs when JAX traces the step, that is once per compilation
        return step(state, batch, model)

    mapped = mapping.compile(counted)
    state, model = mapping.replicate(state), mapping.replicate(model)
    for batch, (expected_state, expected_metrics) in zip(batches, on_one_device, strict=True):
        old = state
        state, metrics = mapped(state, mapping.shard(batch), model)
        kept = [jax.tree_util.keystr(path) for path, x in jax.tree.leaves_with_path(old) if not x.is_deleted()]
        assert not kept, "the old state's memory should be reused"
        got_state, got_metrics = mapping.fetch((state, metrics))
        assert got_metrics.keys() == expected_metrics.keys()
        for name, value in expected_metrics.items():
            np.testing.assert_allclose(got_metrics[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
        for tree in ("params", "batch_stats"):
            start = jax.tree.leaves_with_path(getattr(initial, tree))
            got, expected = (jax.tree.leaves(getattr(state, tree)) for state in (got_state, expected_state))
            for (path, before), a, b in zip(start, got, expected, strict=True):
                change = np.linalg.norm(b - before)
                assert np.linalg.norm(a - b) <= 2e-4 * change + 1e-6, jax.tree_util.keystr(path)
    assert len(compilations) == 1
    assert int(got_state.step) == STEPS
