import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxface.core.errors import InputError
from jaxface.training.optimizer import create_optimizer, learning_rate_schedule


def test_schedules():
    def rates(**options):
        schedule = learning_rate_schedule(0.1, steps=100, **options)
        return [float(schedule(step)) for step in (0, 49, 50, 99, 100)]

    np.testing.assert_allclose(rates(), [0.1] * 5, rtol=1e-6)
    np.testing.assert_allclose(rates(schedule="step"), [0.1, 0.1, 0.02, 0.02, 0.02], rtol=1e-6)
    cosine = [0.05 * (1 + np.cos(np.pi * step / 100)) for step in (0, 49, 50, 99, 100)]
    np.testing.assert_allclose(rates(schedule="cosine"), cosine, atol=1e-7)


def test_warmup_rises_from_its_first_share_and_keeps_the_step_in_the_middle():
    schedule = learning_rate_schedule(0.1, steps=100, schedule="step", warmup_steps=10)
    rates = [float(schedule(step)) for step in (0, 5, 10, 49, 50)]
    np.testing.assert_allclose(rates, [0.01, 0.055, 0.1, 0.1, 0.02], rtol=1e-5)


def test_clipping_bounds_the_gradient():
    # One huge gradient makes Adam's next steps small, for it divides by the root mean square; a clipped one does not.
    def walk(clip_norm):
        optimizer, parameter = create_optimizer(0.1, steps=10, clip_norm=clip_norm), jnp.zeros(3)
        state = optimizer.init(parameter)
        for gradient in (1.0, 1e4, 1.0, 1.0):
            updates, state = optimizer.update(jnp.full(3, gradient), state, parameter)
            parameter = optax.apply_updates(parameter, updates)
        return float(-updates[0])

    assert walk(None) < 0.06 and walk(2.0) > 0.08


@pytest.mark.parametrize(
    ("options", "message"),
    [({"schedule": "zigzag"}, "zigzag"), ({"warmup_steps": 10}, "warmup_steps is 10"), ({"warmup_steps": -1}, "-1")],
)
def test_mistakes(options, message):
    with pytest.raises(InputError, match=message):
        learning_rate_schedule(0.1, steps=10, **options)
