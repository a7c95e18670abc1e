"""The convolution and the batch normalisation that all encoders are made of, with PyTorch's sizes and statistics."""

import functools

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

# torchvision's start for convolutions that a ReLU follows (He et al. 2015): normal, variance 2 / fan_out.
_he_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def convolution(
    features: int, kernel: int, stride: int = 1, *, groups: int = 1, dtype: DTypeLike = jnp.float32, name: str
) -> nn.Conv:
    """Square convolution without bias, zero-padded by (kernel - 1) / 2 on each side as in PyTorch.

    Written out because "SAME" pads strided convolutions on the right and bottom only, which shifts the features of
    imported weights by half a pixel per stage.
    """
    pad = (kernel - 1) // 2
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        feature_group_count=groups,
        use_bias=False,
        kernel_init=_he_init,
        dtype=dtype,
        name=name,
    )


def batch_norm(*, train: bool, axis_name: str | None = None, dtype: DTypeLike = jnp.float32, name: str) -> nn.BatchNorm:
    """Batch normalisation with PyTorch's epsilon and momentum (its 0.1 is Flax's 0.9), synchronised over `axis_name`.

    The running variance is the batch's biased one; PyTorch keeps the unbiased, a difference of one part in B H W.
    """
    return nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=1e-5, axis_name=axis_name, dtype=dtype, name=name
    )


def layers(*, train: bool, axis_name: str | None, dtype: DTypeLike) -> tuple:
    """`convolution` and `batch_norm` with one network's settings filled in."""
    return (
        functools.partial(convolution, dtype=dtype),
        functools.partial(batch_norm, train=train, axis_name=axis_name, dtype=dtype),
    )


def round_channels(channels: float) -> int:
    """The nearest multiple of 8 that is not more than 10 % below `channels` (MobileNet's rule)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
