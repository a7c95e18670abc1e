"""Units and sizes that several rooms share."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

MM_PER_UNIT = 100.0
"""One model unit is 10 cm."""

CROP_SIZE = 224
"""Side in pixels of the aligned crops that encoders see, unless told otherwise."""

PUBLISHED_SIZE = 224
"""Side of the paper's pictures: losses in pixels are measured at this size, so that the weights hold at any other."""


def to_float(image: Integer[Array | np.ndarray, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """Bytes 0..255 to [0, 1]; images travel to the device as bytes."""
    return jnp.asarray(image).astype(jnp.float32) / 255.0
