"""ArcFace's recognition networks, iresnet18 to iresnet100, in Flax, and their weights from PyTorch."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Array, Float

from jaxface.losses.perceptual import ARCFACE_CHIP
from jaxface.networks.layers import batch_norm, convolution
from jaxface.networks.torch_names import check_tensors, from_torch, plain_state, torch_name, torch_shape

IRESNETS = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
}
"""ArcFace's networks and their blocks per stage."""


class PReLU(nn.Module):
    """x where positive, else a slope of its own per channel times x."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Features to features of the same shape."""
        slope = self.param("slope", nn.initializers.constant(0.25), (x.shape[-1],))
        return jnp.where(x > 0, x, slope[None, None, None] * x)


class IResNetBlock(nn.Module):
    """A 3x3 convolution, PReLU, a strided 3x3 convolution and a shortcut: the block of ArcFace's networks.

    Attributes:
        features: channels of the result.
        stride: of the second convolution.
    """

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Features [B, H, W, C] to [B, H / stride, W / stride, features]."""
        y = batch_norm(train=False, name="bn1")(x)
        y = convolution(self.features, 3, name="conv1")(y)
        y = PReLU(name="prelu")(batch_norm(train=False, name="bn2")(y))
        y = batch_norm(train=False, name="bn3")(convolution(self.features, 3, self.stride, name="conv2")(y))
        if self.stride != 1:
            x = convolution(self.features, 1, self.stride, name="downsample_0")(x)
            x = batch_norm(train=False, name="downsample_1")(x)
        return x + y


class IResNet(nn.Module):
    """ArcFace's residual network, for inference (Deng et al. 2019). Modules bear the checkpoints' names.

    Attributes:
        blocks: per stage, see IRESNETS.
        width: channels of the stem, doubled from stage to stage; 64 in the published networks.
        features: length of the result.
    """

    blocks: tuple[int, ...]
    width: int = 64
    features: int = 512

    @nn.compact
    def __call__(self, image: Float[Array, "B 112 112 3"]) -> Float[Array, "B F"]:
        """Chips with colours in [0, 1] to features."""
        x = convolution(self.width, 3, name="conv1")((image - 0.5) / 0.5)
        x = PReLU(name="prelu")(batch_norm(train=False, name="bn1")(x))
        for stage, blocks in enumerate(self.blocks):
            for index in range(blocks):
                name = f"layer{stage + 1}_{index}"
                x = IResNetBlock(self.width * 2**stage, 2 if index == 0 else 1, name=name)(x)
        x = batch_norm(train=False, name="bn2")(x)
        x = nn.Dense(self.features, name="fc")(x.reshape(len(x), -1))
        return batch_norm(train=False, name="features")(x)


def iresnet_from_torch(state: Mapping[str, Any]) -> tuple[IResNet, dict[str, Any]]:
    """ArcFace's network and its variables from a PyTorch state dict (iresnet18, 34, 50 or 100).

    Args:
        state: name -> array, as a checkpoint has it, see `torch_names.plain_state`.

    Returns:
        The network and {"params", "batch_stats"} for `network.apply(variables, chips)`.

    Raises:
        InputError: when tensors are missing, unknown or of the wrong shape; all are accounted for.
    """
    arrays = plain_state(state)
    network = _matching_iresnet(arrays)
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, ARCFACE_CHIP.size, ARCFACE_CHIP.size, 3)))
    shapes = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(variables).items()}
    names = {path: torch_name(path) for path in shapes}
    check_tensors(arrays, {names[path]: torch_shape(shape) for path, shape in shapes.items()}, "an iresnet of ArcFace")
    values = {path: _from_torch(arrays[name], shapes[path]) for path, name in names.items()}
    return network, traverse_util.unflatten_dict(values)


def _matching_iresnet(arrays: Mapping[str, Any]) -> IResNet:
    """The network whose blocks are nearest to those in the file, as wide as the file's."""
    stem, last = (np.shape(arrays.get(name, ())) for name in ("conv1.weight", "fc.weight"))
    width, features = (stem[0] if len(stem) == 4 else 0) or 64, (last[0] if len(last) == 2 else 0) or 512
    found = [len({name.split(".")[1] for name in arrays if name.startswith(f"layer{k}.")}) for k in range(1, 5)]
    blocks = min(IRESNETS.values(), key=lambda known: sum(abs(a - b) for a, b in zip(known, found, strict=True)))
    return IResNet(blocks, width, features)


def _from_torch(array: Float[np.ndarray, "..."], shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    if len(shape) == 2:  # PyTorch lists features channel by channel, we pixel by pixel
        side = ARCFACE_CHIP.size // 16
        array = np.asarray(array, np.float32).reshape(len(array), -1, side, side)
        return array.transpose(2, 3, 1, 0).reshape(shape)
    return from_torch(array, shape)
