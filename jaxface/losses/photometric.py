"""The colour loss inside the rendered face."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped


def photometric_loss(
    rendered: Float[Array, "B H W C"],
    image: Float[Array | np.ndarray, "B H W C"],
    mask: Shaped[Array | np.ndarray, "B H W"],
) -> Float[Array, "B"]:
    """Mean colour distance over the mask: sum(sqrt(1e-6 + |rendered - image|^2) m) / max(sum(m), 1).

    As in Deep3DFaceRecon (Deng et al. 2019, section 3.1), but normalised per sample instead of over the batch. The
    paper of 3DDFA-V3 weighs it with 1.9.

    Args:
        rendered: colours in [0, 1].
        image: colours in [0, 1].
        mask: weight of each pixel, boolean or in [0, 1]: usually skin seen in the photo times what the rendered face
            covers. It is held fixed for gradients; pixels outside may hold anything.

    Returns:
        [B] loss in units of colour; 0 where the mask is empty.

    Raises:
        ValueError: when shapes do not fit together.
    """
    shapes = [np.shape(array) for array in (rendered, image, mask)]
    if len(shapes[0]) != 4 or shapes[0] != shapes[1] or shapes[2] != shapes[0][:3]:
        raise ValueError(f"expected rendered and image [B, H, W, C] and mask [B, H, W], got {shapes}")
    rendered = jnp.asarray(rendered)
    mask = jax.lax.stop_gradient(jnp.asarray(mask).astype(rendered.dtype))
    difference = jnp.where((mask != 0)[..., None], rendered - image, 0.0)
    distance = jnp.sqrt(1e-6 + jnp.square(difference).sum(-1))
    return (distance * mask).sum((1, 2)) / jnp.maximum(mask.sum((1, 2)), 1.0)
