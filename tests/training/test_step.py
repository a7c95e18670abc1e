import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxface.core.errors import InputError
from jaxface.networks.encoder import create_encoder
from jaxface.training import parallel
from jaxface.training.step import create_state, make_train_step
from toys.models import toy_model


class Tiny(nn.Module):
    @nn.compact
    def __call__(self, image, *, train):
        pooled = nn.BatchNorm(use_running_average=not train, name="norm")(image.mean((1, 2)))
        return nn.Dense(2)(pooled)


def _objective(model, vector, batch):
    term = ((vector - batch["target"]) ** 2).mean()
    return 3 * term, {"distance": term}


@pytest.fixture(scope="module")
def setup():
    encoder, optimizer = Tiny(), optax.adam(0.1)
    state = create_state(encoder, optimizer, image_size=8, seed=0)
    random = np.random.default_rng(0)
    batch = {"image": random.integers(0, 256, (4, 8, 8, 3), np.uint8), "target": np.ones((4, 2), np.float32)}
    return jax.jit(make_train_step(encoder, optimizer, _objective)), state, batch


def test_a_step_learns_and_counts(setup):
    step, state, batch = setup
    losses = []
    for _ in range(20):
        state, metrics = step(state, batch, toy_model())
        losses.append(float(metrics["loss"]))
        np.testing.assert_allclose(metrics["loss"], 3 * metrics["distance"], rtol=1e-6)
    assert losses[-1] < 0.5 * losses[0] and int(state.step) == 20


def test_a_step_that_is_not_finite_changes_nothing_but_the_count(setup):
    step, state, batch = setup
    broken = batch | {"target": np.full((4, 2), np.nan, np.float32)}
    after, metrics = step(state, broken, toy_model())
    assert metrics["skipped"] == 1 and np.isnan(metrics["distance"]) and int(after.step) == int(state.step) + 1
    for name in ("params", "batch_stats", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(state, name))
    _, metrics = step(after, batch, toy_model())
    assert metrics["skipped"] == 0 and np.isfinite(metrics["loss"])


def test_the_same_seed_gives_the_same_parameters():
    states = [create_state(Tiny(), optax.adam(0.1), image_size=8, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (state.params["Dense_0"]["kernel"] for state in states)
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()


def test_in_bfloat16_parameters_and_statistics_stay_float32_and_the_loss_is_near(setup):
    _, _, batch = setup
    optimizer, results = optax.adam(1e-3), {}
    images = np.random.default_rng(1).integers(0, 256, (4, 64, 64, 3), np.uint8)
    for dtype in ("float32", "bfloat16"):
        encoder = create_encoder("resnet10", (1, 1, 0), width_multiplier=0.125, dtype=dtype)
        state = create_state(encoder, optimizer, image_size=64, seed=0)
        step = jax.jit(make_train_step(encoder, optimizer, _first_two))
        for _ in range(3):
            state, metrics = step(state, {"image": images, "target": batch["target"]}, toy_model())
        assert metrics["skipped"] == 0 and {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype("f4")}
        assert {leaf.dtype for leaf in jax.tree.leaves(state.batch_stats)} == {np.dtype("f4")}
        results[dtype] = float(metrics["loss"])
    assert results["float32"] != results["bfloat16"] < 3
    np.testing.assert_allclose(results["bfloat16"], results["float32"], rtol=0.01)


def _first_two(model, vector, batch):
    return _objective(model, vector[:, :2], batch)


def test_batches_must_fit_the_devices():
    assert parallel.process_batch_size(16) == 16
    with pytest.raises(InputError, match="12, which 8 devices cannot share"):
        parallel.process_batch_size(12)
    for kind in ("pmap", "sharded"):
        with pytest.raises(ValueError, match="12 cannot be split evenly among 8"):
            parallel.mapping(kind).shard({"image": jnp.zeros((12, 2))})
    with pytest.raises(InputError, match="'pmap' or 'sharded'"):
        parallel.mapping("threads")


def test_an_incomplete_multi_host_environment_is_named(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1234")
    monkeypatch.delenv("JAX_NUM_PROCESSES", raising=False)
    with pytest.raises(InputError, match="JAX_NUM_PROCESSES and JAX_PROCESS_ID"):
        parallel.initialize(False)
