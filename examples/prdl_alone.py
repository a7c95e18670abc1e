"""PRDL on its own: pulls a disc of points into the shape of a mask. Needs jax and jaxface.losses, nothing else.

Run `python examples/prdl_alone.py` (about 5 s on two CPU cores).
"""

import jax
import jax.numpy as jnp

from jaxface.losses import prdl, prdl_loss

y, x = jnp.mgrid[0.5:64, 0.5:64]
heart = ((x - 40) / 14) ** 2 + ((38 - y) / 14 - 0.7 * jnp.sqrt(jnp.abs(x - 40) / 14)) ** 2 < 1
mask = {"heart": heart[None]}
anchors = prdl.grid_anchors(64, 64, stride=2)
radius, angle = jnp.sqrt((jnp.arange(300) + 0.5) / 300), 2.4 * jnp.arange(300)
points = jnp.stack([18 + 6 * radius * jnp.cos(angle), 16 + 6 * radius * jnp.sin(angle)], axis=-1)[None]


@jax.jit
def step(points, velocity):
    """Gradient descent with momentum."""
    loss, gradient = jax.value_and_grad(lambda p: prdl_loss({"heart": p}, mask, anchors=anchors)[0])(points)
    velocity = 0.9 * velocity - 2.0 * gradient
    return points + velocity, velocity, loss


velocity = jnp.zeros_like(points)
for i in range(501):
    inside = heart[jnp.clip(points[0, :, 1], 0, 63).astype(int), jnp.clip(points[0, :, 0], 0, 63).astype(int)].mean()
    points, velocity, loss = step(points, velocity)
    if i % 100 == 0:
        print(f"step {i:3d}   loss {loss:9.4f} px^2   points inside the mask {inside:4.0%}")
