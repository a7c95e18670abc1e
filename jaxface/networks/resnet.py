"""ResNet-18 and ResNet-50 without the classifier (He et al. 2016), as torchvision builds them.

Modules bear torchvision's names, with `_` for the dot before a number: `layer1.0.conv1` is `layer1_0` / `conv1`. The
bottleneck strides in its 3x3 convolution ("v1.5"), which is what the published 3DDFA-V3 weights expect.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxface.networks.layers import StemConvolution, layers, max_pool, round_channels


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: the block of ResNet-18.

    Attributes:
        features: channels of the result.
        stride: of the first convolution.
        axis_name: mapped axis over which batch statistics are averaged, or None.
        dtype: of the computation; parameters stay float32.
    """

    features: int
    stride: int = 1
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    expansion = 1

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w D"]:
        """Features [B, H, W, C] to [B, H / stride, W / stride, features]."""
        conv, norm = layers(train=train, axis_name=self.axis_name, dtype=self.dtype)
        y = nn.relu(norm(name="bn1")(conv(self.features, 3, self.stride, name="conv1")(x)))
        y = norm(name="bn2")(conv(self.features, 3, name="conv2")(y))
        if self.stride != 1 or x.shape[-1] != self.features:
            x = norm(name="downsample_1")(conv(self.features, 1, self.stride, name="downsample_0")(x))
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    """1x1, 3x3 (strided) and 1x1 convolutions and a shortcut: the block of ResNet-50.

    Attributes:
        features: channels inside; the result has four times as many.
        stride: of the 3x3 convolution.
        axis_name: mapped axis over which batch statistics are averaged, or None.
        dtype: of the computation; parameters stay float32.
    """

    features: int
    stride: int = 1
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    expansion = 4

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w D"]:
        """Features [B, H, W, C] to [B, H / stride, W / stride, 4 features]."""
        conv, norm = layers(train=train, axis_name=self.axis_name, dtype=self.dtype)
        out = self.features * self.expansion
        y = nn.relu(norm(name="bn1")(conv(self.features, 1, name="conv1")(x)))
        y = nn.relu(norm(name="bn2")(conv(self.features, 3, self.stride, name="conv2")(y)))
        y = norm(name="bn3")(conv(out, 1, name="conv3")(y))
        if self.stride != 1 or x.shape[-1] != out:
            x = norm(name="downsample_1")(conv(out, 1, self.stride, name="downsample_0")(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Stem, four stages of blocks; returns the feature map before pooling.

    Attributes:
        block: BasicBlock or Bottleneck.
        stage_sizes: blocks per stage.
        width_multiplier: channels relative to the published network (64 in the stem).
        axis_name: mapped axis over which batch statistics are averaged; None outside pmap and shard_map.
        dtype: of the computation; parameters and statistics stay float32.
        all_stages: returns the stem's features and those of each stage, at 1/2, 1/4, 1/8, ... of the size.
    """

    block: type[BasicBlock] | type[Bottleneck]
    stage_sizes: tuple[int, ...]
    width_multiplier: float = 1.0
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32
    all_stages: bool = False

    @nn.compact
    def __call__(
        self, image: Float[Array, "B H W 3"], *, train: bool
    ) -> Float[Array, "B h w C"] | list[Float[Array, "B h w C"]]:
        """Image [B, H, W, 3] in [0, 1] to features [B, H / 32, W / 32, C], sizes rounded up."""
        _, norm = layers(train=train, axis_name=self.axis_name, dtype=self.dtype)
        width = round_channels(64 * self.width_multiplier)
        x = nn.relu(norm(name="bn1")(StemConvolution(width, 7, dtype=self.dtype, name="conv1")(image)))
        features = [x]
        x = max_pool(x)
        for stage, blocks in enumerate(self.stage_sizes):
            for index in range(blocks):
                x = self.block(
                    features=width * 2**stage,
                    stride=2 if stage > 0 and index == 0 else 1,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                    name=f"layer{stage + 1}_{index}",
                )(x, train=train)
            features.append(x)
        return features if self.all_stages else x
