"""The encoder: a backbone, global average pooling and seven linear heads that give a face's coefficient vector."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxface.networks.mobilenet_v3 import MobileNetV3
from jaxface.networks.people_network import PeopleNetwork, coefficient_heads
from jaxface.networks.resnet import BasicBlock, Bottleneck, ResNet

ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "resnet10": functools.partial(ResNet, BasicBlock, (1, 1, 1, 1)),
    "resnet18": functools.partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    "resnet50": functools.partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    "mobilenet_v3_large": MobileNetV3,
}
"""The backbones by name: each takes width_multiplier, axis_name and dtype, and makes feature maps of images.

A new one is a Flax module and a line here (docs/extending.md); it is then `config.encoder.name`.
"""

PEOPLE_NETWORKS = {"people10": (1, 1, 1, 1), "people18": (2, 2, 2, 2)}
"""Networks that tell parts and points as well (`people_network.PeopleNetwork`): name -> blocks per stage."""

COMPUTE_TYPES = ("float32", "bfloat16")
"""What a backbone may compute in, as `config.encoder.dtype` names it."""


class Encoder(nn.Module):
    """Image to coefficient vector (3DDFA-V3, section 3.1; the heads of Deep3D).

    Attributes:
        backbone: module from image to feature map [B, h, w, C].
        head_sizes: numbers of identity, expression and albedo coefficients.
    """

    backbone: nn.Module
    head_sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"], *, train: bool) -> Float[Array, "B K"]:
        """Estimates the coefficients of the faces in aligned crops.

        Args:
            image: [B, H, W, 3] RGB, float in [0, 1]; any size from 32 pixels up.
            train: normalise by the batch's statistics (and update the running ones, collection "batch_stats") instead
                of by the running statistics.

        Returns:
            [B, K]: identity | expression | albedo | angles 3 | light 27 | translation 3, as `Coefficients.from_vector`
            takes it.

        Raises:
            ValueError: for an image of the wrong shape, or of integers.
        """
        if image.ndim != 4 or image.shape[-1] != 3 or not jnp.issubdtype(image.dtype, jnp.floating):
            raise ValueError(f"images must be floats in [0, 1] of shape [B, H, W, 3], got {image.dtype}{image.shape}")
        features = self.backbone(image, train=train)
        pooled = features.astype(jnp.float32).mean((1, 2))
        return coefficient_heads(pooled, self.head_sizes)


def create_encoder(
    name: str,
    head_sizes: tuple[int, ...],
    *,
    width_multiplier: float = 1.0,
    axis_name: str | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Encoder | PeopleNetwork:
    """Builds one of the encoders of `ENCODERS` or `PEOPLE_NETWORKS`.

        encoder = create_encoder("resnet18", coefficients.vector_sizes(model)[:3])
        variables = encoder.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)), train=False)
        vector = encoder.apply(variables, image, train=False)  # [B, K]

    Parameters bear the names of the PyTorch checkpoints of this family, with `_` for the dot before a number:
    `backbone.layer1.0.conv1.weight` is `params["backbone"]["layer1_0"]["conv1"]["kernel"]`.

    Args:
        name: one of them; "resnet10" is ResNet-18 with one block per stage instead of two.
        head_sizes: numbers of identity, expression and albedo coefficients.
        width_multiplier: channels relative to the published network; 0.5 makes training about four times cheaper.
        axis_name: name of the mapped axis (pmap, shard_map) over which batch statistics are averaged, or None.
        dtype: of the backbone's computation, e.g. bfloat16; parameters, statistics and heads stay float32.

    Raises:
        ValueError: for an unknown name.
    """
    settings: dict[str, Any] = {"width_multiplier": width_multiplier, "axis_name": axis_name, "dtype": jnp.dtype(dtype)}
    if name in PEOPLE_NETWORKS:
        return PeopleNetwork(tuple(head_sizes), stage_sizes=PEOPLE_NETWORKS[name], **settings)
    if name not in ENCODERS:
        raise ValueError(f"unknown encoder {name!r}: choose one of {', '.join((*ENCODERS, *PEOPLE_NETWORKS))}")
    return Encoder(ENCODERS[name](**settings), tuple(head_sizes))
