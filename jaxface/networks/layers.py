"""The convolutions and the batch normalisation that all encoders are made of, with PyTorch's sizes and statistics."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

# torchvision's start for convolutions that a ReLU follows (He et al. 2015): normal, variance 2 / fan_out.
_he_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def convolution(features: int, kernel: int, stride: int = 1, *, dtype: DTypeLike = jnp.float32, name: str) -> nn.Conv:
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
        use_bias=False,
        kernel_init=_he_init,
        dtype=dtype,
        name=name,
    )


class StemConvolution(nn.Module):
    """The convolution with stride 2 that sees the picture: `convolution(features, kernel, 2)`, made for few channels.

    The parameter is `nn.Conv`'s: kernel [k, k, C, features]. Processors do badly with three channels, so blocks of
    2 x 2 pixels become pixels of 4 C channels and the kernel, filled up to an even size, likewise: the same sums, in a
    third of the time (ResNet's at 96 px, batch 16: 9.7 ms for 24.4, with the gradient, on two CPU cores).

    Attributes:
        features: channels of the result.
        kernel: 3 or 7; sizes in between do not begin at a block's edge.
        dtype: of the computation.
    """

    features: int
    kernel: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Features [B, H, W, C] to [B, H / 2, W / 2, features], sizes rounded up."""
        channels, taps = x.shape[-1], (self.kernel + 1) // 2
        kernel = self.param("kernel", _he_init, (self.kernel, self.kernel, channels, self.features))
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        x = blocks_to_channels(jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0))))
        kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
        kernel = kernel.reshape(taps, 2, taps, 2, channels, self.features).transpose(0, 2, 1, 3, 4, 5)
        before = taps // 2
        padding = (before, taps - 1 - before)
        return jax.lax.conv_general_dilated(
            x,
            kernel.reshape(taps, taps, 4 * channels, self.features),
            (1, 1),
            (padding, padding),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


def blocks_to_channels(x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
    """Blocks of 2 x 2 pixels as pixels of four times the channels; sides are even."""
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(batch, height // 2, width // 2, 4 * channels)


def max_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Maximum over 3 x 3 pixels at stride 2, padded by 1, as ResNet has it after the stem.

    Written out, because with its gradient XLA's windowed maximum takes ten times as long (measured on CPU).
    """
    for axis in (1, 2):
        pad = [(0, 0)] * 4
        pad[axis] = (1, 1)
        padded, count = jnp.pad(x, pad, constant_values=-jnp.inf), (x.shape[axis] + 1) // 2
        taps = [jax.lax.slice_in_dim(padded, k, k + 2 * count - 1, 2, axis) for k in range(3)]
        x = functools.reduce(jnp.maximum, taps)
    return x


class DepthwiseConvolution(nn.Module):
    """Square convolution of each channel with a kernel of its own, zero-padded by (kernel - 1) / 2 on each side.

    The parameter is `nn.Conv`'s: kernel [k, k, 1, C]. XLA's grouped convolution crawls on CPUs; there, the sum over the
    k^2 taps is written out, which makes a training step of MobileNetV3 several times faster and inference more so.

    Attributes:
        kernel: side of the kernel, odd.
        stride: in both directions.
        dtype: of the computation; the parameter stays float32.
    """

    kernel: int
    stride: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
        """Features [B, H, W, C] to [B, H / stride, W / stride, C], sizes rounded up."""
        kernel = self.param("kernel", _he_init, (self.kernel, self.kernel, 1, x.shape[-1]))
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        cpu, default = (functools.partial(f, stride=self.stride) for f in (_sum_of_taps, grouped_convolution))
        return jax.lax.platform_dependent(x, kernel, cpu=cpu, default=default)


def grouped_convolution(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k 1 C"], *, stride: int
) -> Float[Array, "B h w C"]:
    """What `DepthwiseConvolution` computes, as one operation: [B, H, W, C] to [B, H / stride, W / stride, C]."""
    pad = (kernel.shape[0] - 1) // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _sum_of_taps(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k 1 C"], *, stride: int
) -> Float[Array, "B h w C"]:
    size = kernel.shape[0]
    pad = (size - 1) // 2
    height, width = ((length - 1) // stride + 1 for length in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, columns = ([slice(i, i + stride * (n - 1) + 1, stride) for i in range(size)] for n in (height, width))
    taps = [x[:, rows[i], columns[j]] * kernel[i, j][None, None] for i in range(size) for j in range(size)]
    return functools.reduce(jnp.add, taps)


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
