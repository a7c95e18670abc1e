"""Units and sizes that several rooms share."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

MM_PER_UNIT = 100.0
"""One model unit is 10 cm."""

METRES_PER_UNIT = MM_PER_UNIT / 1000
"""The same in metres, which glTF counts."""

CROP_SIZE = 224
"""Side in pixels of the paper's crops, and of ours unless told otherwise.

Losses and errors in pixels are measured at this size, so that weights and figures hold at any other.
"""


def to_float(image: Integer[Array | np.ndarray, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """Bytes 0..255 to [0, 1]; images travel to the device as bytes."""
    return jnp.asarray(image).astype(jnp.float32) / 255.0
