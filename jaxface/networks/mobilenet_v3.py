"""MobileNetV3-Large without the classifier (Howard et al. 2019), in the variant that 3DDFA-V3's weights come from.

Modules bear that variant's PyTorch names, with `_` for the dot before a number: `features.4.conv.5.fc.0` is
`features_4` / `conv_5` / `fc_0`. Two of its habits matter for imported weights: squeeze-and-excite sits between the
batch normalisation and the activation, and the hard sigmoid is relu6(x + 3) / 6.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxface.networks.layers import DepthwiseConvolution, StemConvolution, layers, round_channels

# kernel, expanded channels, channels out, squeeze-and-excite, hard swish (else ReLU), stride: the paper's table 1.
_LARGE = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)


def hard_sigmoid(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """relu6(x + 3) / 6."""
    return nn.relu6(x + 3.0) / 6.0


def hard_swish(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """x relu6(x + 3) / 6."""
    return x * hard_sigmoid(x)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate in [0, 1] computed from the means of all channels (Hu et al. 2018).

    Attributes:
        dtype: of the computation; parameters stay float32.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Features [B, H, W, C], scaled."""
        channels = x.shape[-1]
        y = x.mean((1, 2))
        y = nn.relu(nn.Dense(round_channels(channels // 4), dtype=self.dtype, name="fc_0")(y))
        y = hard_sigmoid(nn.Dense(channels, dtype=self.dtype, name="fc_2")(y))
        return x * y[:, None, None, :]


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, squeeze-and-excite, 1x1 projection, and a shortcut where shapes allow.

    Attributes:
        kernel: side of the depthwise kernel.
        expanded: channels inside.
        features: channels of the result.
        squeeze_excite: whether the channels are gated.
        hard_swish: the activation; ReLU otherwise.
        stride: of the depthwise convolution.
        axis_name: mapped axis over which batch statistics are averaged, or None.
        dtype: of the computation; parameters stay float32.
    """

    kernel: int
    expanded: int
    features: int
    squeeze_excite: bool
    hard_swish: bool
    stride: int
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w D"]:
        """Features [B, H, W, C] to [B, H / stride, W / stride, features]."""
        conv, norm = layers(train=train, axis_name=self.axis_name, dtype=self.dtype)
        activation = hard_swish if self.hard_swish else nn.relu
        first = 0  # position in the PyTorch sequence, which counts activations too
        y = x
        if x.shape[-1] != self.expanded:
            y = activation(norm(name="conv_1")(conv(self.expanded, 1, name="conv_0")(y)))
            first = 3
        depthwise = DepthwiseConvolution(self.kernel, self.stride, self.dtype, name=f"conv_{first}")
        y = norm(name=f"conv_{first + 1}")(depthwise(y))
        if self.squeeze_excite:
            y = SqueezeExcite(self.dtype, name=f"conv_{first + 2}")(y)
        y = activation(y)
        y = norm(name=f"conv_{first + 5}")(conv(self.features, 1, name=f"conv_{first + 4}")(y))
        return x + y if self.stride == 1 and x.shape[-1] == self.features else y


class MobileNetV3(nn.Module):
    """Stem, fifteen inverted residuals, a last 1x1 convolution; returns the feature map before pooling.

    Attributes:
        width_multiplier: channels relative to the published network (16 in the stem, 960 at the end).
        axis_name: mapped axis over which batch statistics are averaged; None outside pmap and shard_map.
        dtype: of the computation; parameters and statistics stay float32.
    """

    width_multiplier: float = 1.0
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"], *, train: bool) -> Float[Array, "B h w C"]:
        """Image [B, H, W, 3] in [0, 1] to features [B, H / 32, W / 32, C], sizes rounded up."""
        conv, norm = layers(train=train, axis_name=self.axis_name, dtype=self.dtype)

        def scaled(channels: int) -> int:
            return round_channels(channels * self.width_multiplier)

        stem = StemConvolution(scaled(16), 3, dtype=self.dtype, name="features_0_0")
        x = hard_swish(norm(name="features_0_1")(stem(image)))
        for index, (kernel, expanded, features, squeeze_excite, swish, stride) in enumerate(_LARGE, start=1):
            x = InvertedResidual(
                kernel,
                scaled(expanded),
                scaled(features),
                squeeze_excite,
                swish,
                stride,
                self.axis_name,
                self.dtype,
                name=f"features_{index}",
            )(x, train=train)
        return hard_swish(norm(name="conv_1")(conv(scaled(960), 1, name="conv_0")(x)))
