"""The optimizer, from a few plain numbers."""

import optax

from jaxface.core.errors import InputError


def learning_rate_schedule(
    learning_rate: float, *, steps: int, schedule: str = "constant", warmup_steps: int = 0
) -> optax.Schedule:
    """Learning rate per step.

    Args:
        learning_rate: the highest.
        steps: length of the training.
        schedule: "constant"; "step", a fifth of the rate for the second half, as Deep3D trains (20 epochs, x 0.2 after
            10); or "cosine", down to zero.
        warmup_steps: steps of linear rise at the start.

    Raises:
        InputError: for another schedule, or a warmup that is longer than the training.
    """
    if not 0 <= warmup_steps < max(steps, 1):
        raise InputError(f"optimizer.warmup_steps is {warmup_steps}: it must be less than the {steps} steps in all")
    if schedule == "constant":
        main: optax.Schedule = optax.constant_schedule(learning_rate)
    elif schedule == "step":
        main = optax.piecewise_constant_schedule(learning_rate, {steps // 2 - warmup_steps: 0.2})
    elif schedule == "cosine":
        main = optax.cosine_decay_schedule(learning_rate, max(steps - warmup_steps, 1))
    else:
        raise InputError(f"optimizer.schedule is {schedule!r}: choose 'constant', 'step' or 'cosine'")
    if not warmup_steps:
        return main
    # From one step's share of the rate, not from zero: no step is spent on nothing.
    rise = optax.linear_schedule(learning_rate / warmup_steps, learning_rate, warmup_steps)
    return optax.join_schedules([rise, main], [warmup_steps])


def create_optimizer(
    learning_rate: float,
    *,
    steps: int,
    schedule: str = "constant",
    warmup_steps: int = 0,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015) with a schedule, and gradients clipped to `clip_norm` unless it is None."""
    rate = learning_rate_schedule(learning_rate, steps=steps, schedule=schedule, warmup_steps=warmup_steps)
    clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    return optax.chain(clip, optax.adam(rate))
