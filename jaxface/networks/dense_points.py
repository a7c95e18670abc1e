"""Where many points of a face lie in a picture, how surely, and whether they are seen: a network and its answer.

A ResNet's stages are joined from coarse to fine (a feature pyramid, Lin et al. 2017). Each point attends to one place
of the picture: the mean of its heat map is about where the point lies (Sun et al. 2018), and the features there tell
the rest: a correction, a covariance as in Wood et al. (2022), and how visible the point is.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxface.networks.layers import blocks_to_channels, layers
from jaxface.networks.people_answer import PointsFound
from jaxface.networks.resnet import BasicBlock, ResNet

WIDTH = 64
"""Channels of the pyramid."""

SHARPEST, WIDEST = 0.002, 0.5
"""Standard deviations that an answer may have, as shares of the picture's side."""


class Pyramid(nn.Module):
    """A ResNet's features, joined from its last stage to its first.

    Attributes:
        stage_sizes: blocks per stage.
        width_multiplier: channels relative to ResNet-18.
        axis_name: mapped axis over which batch statistics are averaged, or None.
        dtype: of the computation; parameters stay float32.
    """

    stage_sizes: tuple[int, ...]
    width_multiplier: float = 1.0
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, image: Float[Array, "B H W 3"], *, train: bool
    ) -> tuple[Float[Array, "B h w D"], Float[Array, "B i j D"], Float[Array, "B C"]]:
        """Image [B, H, W, 3] in [0, 1], sides multiples of 32, to features at 1/4, at 1/8, and of the whole."""
        conv, norm = layers(train=train, axis_name=self.axis_name, dtype=self.dtype)
        backbone = ResNet(
            BasicBlock,
            self.stage_sizes,
            self.width_multiplier,
            self.axis_name,
            self.dtype,
            all_stages=True,
            name="stages",
        )
        stem, *stages = backbone(image, train=train)
        x = conv(WIDTH, 1, name=f"lateral_{len(stages)}")(stages[-1])
        for level in range(len(stages) - 1, 0, -1):
            side = conv(WIDTH, 1, name=f"lateral_{level}")(stages[level - 1])
            if level == 1:  # what the stem saw, at its own size: edges of lids and lips
                side += conv(WIDTH, 1, name="lateral_0")(blocks_to_channels(stem))
            coarser, x = x, nn.relu(norm(name=f"join_{level}")(conv(WIDTH, 3, name=f"merge_{level}")(double(x) + side)))
        return x, coarser, stages[-1].astype(jnp.float32).mean((1, 2))


class PointHead(nn.Module):
    """The points in a pyramid's features.

    Attributes:
        points: their number P.
        hidden: channels between a point's features and its answer.
        dtype: of the attention's computation.
    """

    points: int
    hidden: int = 64
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, features: Float[Array, "B h w D"], picture: Float[Array, "B H W C"]
    ) -> tuple[PointsFound, Float[Array, "B P C"]]:
        """Where the points lie in the picture, and the picture's colors about there.

        Args:
            features: [B, h, w, D] of the picture.
            picture: itself, of sides that h and w divide.
        """
        batch, height, width, channels = features.shape
        heat = nn.Dense(self.points, dtype=self.dtype, name="heat")(features).astype(jnp.float32)
        heat = jax.nn.softmax(heat.reshape(batch, height * width, self.points), axis=1)
        grid = _cell_middles(height, width)
        mean = functools.partial(jnp.einsum, "bnp,nc->bpc", heat, precision=jax.lax.Precision.HIGHEST)
        position = mean(grid)
        there = jnp.einsum("bnp,bnd->bpd", heat, features.reshape(batch, height * width, channels))
        spread = mean(grid**2) - position**2
        blocks = picture.reshape(batch, height, picture.shape[1] // height, width, picture.shape[2] // width, -1)
        colors = jnp.einsum("bnp,bnc->bpc", heat, blocks.mean((2, 4)).reshape(batch, height * width, -1))
        x = jnp.concatenate([there, 4 * position - 2, jnp.sqrt(jnp.maximum(spread, 0.0) + 1e-6)], axis=-1)
        own = self.param("own", nn.initializers.normal(0.02), (self.points, self.hidden))
        x = nn.relu(nn.Dense(self.hidden, name="hidden")(x.astype(jnp.float32)) + own[None])
        last = self.param("last", nn.initializers.normal(0.02), (self.points, self.hidden, 6))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.points, 6))
        answer = jnp.einsum("bph,phk->bpk", x, last) + bias[None]
        along = 1 / (SHARPEST + (WIDEST - SHARPEST) * jax.nn.sigmoid(answer[..., 2:4] - 2.5))
        whitening = jnp.concatenate([along, along[..., :1] * jnp.tanh(answer[..., 4:5])], axis=-1)
        return PointsFound(position + answer[..., :2] / 32, whitening, answer[..., 5]), colors


def double(x: Float[Array, "B h w C"]) -> Float[Array, "B H W C"]:
    """Twice the size, bilinearly: a pixel becomes four, each three quarters its own and one quarter its neighbour's."""
    # As two products with small matrices, which take half as long as moving rows and columns about.
    down, across = (jnp.asarray(_doubling(length), x.dtype) for length in x.shape[1:3])
    return jnp.einsum("hi,bijc,wj->bhwc", down, x, across)


def _doubling(count: int) -> Float[np.ndarray, "2*N N"]:
    place = np.arange(2 * count)
    weights = np.zeros((2 * count, count), np.float32)
    np.add.at(weights, (place, place // 2), 0.75)
    np.add.at(weights, (place, np.clip(place // 2 + place % 2 * 2 - 1, 0, count - 1)), 0.25)
    return weights


def _cell_middles(height: int, width: int) -> Float[np.ndarray, "N 2"]:
    y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    return np.stack([x, y], -1).reshape(-1, 2).astype(np.float32)
