"""The layers of MediaPipe's face networks, for float32 images [B, H, W, C] in any batch.

Kernels and their axes: convolutions [h, w, in, out], pointwise [in, out], depthwise [3, 3, channels]. Products are in
float32 on every device, where accelerators would by default round the factors.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Layer = tuple[Float[Array | np.ndarray, "..."], ...]
"""(kernel, bias), or (slope,) of a PReLU."""

_HIGHEST = jax.lax.Precision.HIGHEST


def convolution(
    x: Float[Array, "B H W C"], layer: Layer, *, stride: int, pad: tuple[int, int]
) -> Float[Array, "B h w D"]:
    """A convolution; `pad` zeros before and after the rows, and the columns."""
    kernel, bias = layer
    y = jax.lax.conv_general_dilated(
        x,
        jnp.asarray(kernel),
        (stride, stride),
        (pad, pad),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=_HIGHEST,
    )
    return y + _last(bias, y)


def pointwise(x: Float[Array, "*S C"], layer: Layer) -> Float[Array, "*S D"]:
    """A 1 x 1 convolution."""
    kernel, bias = layer
    y = jnp.matmul(x, kernel, precision=_HIGHEST)
    return y + _last(bias, y)


def depthwise(
    x: Float[Array, "B H W C"], layer: Layer, *, stride: int = 1, pad: tuple[int, int] = (1, 1)
) -> Float[Array, "B h w C"]:
    """A 3 x 3 convolution of each channel by itself.

    XLA's grouped convolution crawls on CPUs; there the sum over the nine taps is written out.
    """
    kernel, bias = layer
    cpu, default = (functools.partial(f, stride=stride, pad=pad) for f in (_sum_of_taps, grouped_convolution))
    y = jax.lax.platform_dependent(x, jnp.asarray(kernel), cpu=cpu, default=default)
    return y + _last(bias, y)


def _sum_of_taps(
    x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C"], *, stride: int, pad: tuple[int, int]
) -> Float[Array, "B h w C"]:
    x = jnp.pad(x, ((0, 0), pad, pad, (0, 0)))
    spans = [[slice(k, n - 2 + k, stride) for k in range(3)] for n in x.shape[1:3]]
    taps = [x[:, spans[0][i], spans[1][j]] * _last(kernel[i, j], x) for i in range(3) for j in range(3)]
    return functools.reduce(jnp.add, taps)


def grouped_convolution(
    x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C"], *, stride: int, pad: tuple[int, int]
) -> Float[Array, "B h w C"]:
    """The depthwise convolution of accelerators, without the bias."""
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        (pad, pad),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
        precision=_HIGHEST,
    )


def prelu(x: Float[Array, "B H W C"], layer: Layer) -> Float[Array, "B H W C"]:
    """x where positive, else a slope of its own per channel times x."""
    (slope,) = layer
    return jnp.where(x > 0, x, _last(slope, x) * x)


def _last(values: Float[Array | np.ndarray, " C"], x: Float[Array, "*S C"]) -> Float[Array, "*S C"]:
    """Values per channel with as many axes as x."""
    return jnp.asarray(values).reshape((1,) * (x.ndim - 1) + (-1,))


def max_pool_2(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """The largest of each 2 x 2 pixels."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


def grow_channels(x: Float[Array, "B H W C"], channels: int) -> Float[Array, "B H W D"]:
    """Zeros in further channels."""
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, channels - x.shape[-1])))


def bilinear_twice(x: Float[Array, "B H W C"]) -> Float[Array, "B 2H 2W C"]:
    """Twice as many rows and columns, bilinear between pixel centres, the border's pixels continued."""
    for axis in (1, 2):
        count = x.shape[axis]
        before, after = (jnp.take(x, np.clip(np.arange(count) + k, 0, count - 1), axis=axis) for k in (-1, 1))
        pairs = jnp.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis + 1)
        x = pairs.reshape(*x.shape[:axis], 2 * count, *x.shape[axis + 1 :])
    return x


def depth_to_space(x: Float[Array, "B H W 4C"]) -> Float[Array, "B 2H 2W C"]:
    """Each pixel's channels, laid out as 2 x 2 pixels, row by row."""
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height, width, 2, 2, channels // 4).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(batch, 2 * height, 2 * width, channels // 4)


def sample(
    features: Float[Array, "B H W C"], places: Float[Array, "B R 2 3"], *, side: int
) -> Float[Array, "B R S S C"]:
    """Regions of a feature map, bilinear; 0 outside the centres of its outermost pixels.

    This is the operator TransformTensorBilinear of MediaPipe's graph.

    Args:
        features: the map.
        places: affine maps from a region's samples (x, y), continuous, to the feature map.
        side: samples S across a region.
    """
    batch, height, width, _ = features.shape
    centers = jnp.arange(side) + 0.5
    x, y = (
        places[..., row, 0, None, None] * centers[None, None, None]
        + places[..., row, 1, None, None] * centers[None, None, :, None]
        + places[..., row, 2, None, None]
        - 0.5
        for row in range(2)
    )
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    left, top = (jnp.clip(jnp.floor(c), 0, n - 2) for c, n in ((x, width), (y, height)))
    fraction_x, fraction_y = (x - left)[..., None], (y - top)[..., None]
    start = (top * width + left).astype(jnp.int32)
    flat = features.reshape(batch, height * width, -1)

    def pixel(offset: int) -> Float[Array, "B R S S C"]:
        return jax.vmap(lambda one, index: one[index])(flat, start + offset)

    upper = pixel(0) * (1 - fraction_x) + pixel(1) * fraction_x
    lower = pixel(width) * (1 - fraction_x) + pixel(width + 1) * fraction_x
    return jnp.where(inside[..., None], upper * (1 - fraction_y) + lower * fraction_y, 0)
