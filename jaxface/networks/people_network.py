"""The network that is trained on drawn people: one look at a face gives its coefficients, parts and points.

Labels and points are read from a pyramid of features; coefficients follow from the points, how sure each is, and the
picture as a whole. What is seen where tells the encoder most, and dense answers teach the features they share fast.
Skin's and lights' coefficients have a layer of their own, which sees the picture's colors where the points are: among
the thousands of numbers that tell the shape, colors would drown.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from jaxface.core import parts
from jaxface.core.landmarks import LANDMARKS
from jaxface.core.units import to_float
from jaxface.networks.dense_points import PointHead, Pyramid, double
from jaxface.networks.layers import convolution
from jaxface.networks.people_answer import PeopleAnswer


class PixelHead(nn.Module):
    """Classes of the pixels from features at a quarter of the picture's size.

    Attributes:
        dtype: of the computation; parameters stay float32.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, "B h w D"]) -> Float[Array, "B H W L"]:
        """Features [B, h, w, D] to logits [B, 2 h, 2 w, L]."""
        count = len(parts.CLASSES)
        x = nn.relu(convolution(2 * count, 3, dtype=self.dtype, name="before")(features))
        x = nn.Dense(4 * count, dtype=self.dtype, name="labels")(x).astype(jnp.float32)
        batch, height, width, _ = x.shape
        x = x.reshape(batch, height, width, 2, 2, count).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(batch, 2 * height, 2 * width, count)


class PeopleNetwork(nn.Module):
    """Image to coefficients, classes of pixels, and points.

    Attributes:
        head_sizes: numbers of identity, expression and albedo coefficients.
        surface_points: number of points beside the 68 landmarks.
        stage_sizes: blocks per stage of the ResNet.
        hidden: channels between what is seen and the coefficients.
        width_multiplier: channels relative to ResNet-18.
        axis_name: mapped axis over which batch statistics are averaged, or None.
        dtype: of the features' computation; parameters, statistics and heads stay float32.
    """

    head_sizes: tuple[int, ...]
    surface_points: int = 320
    stage_sizes: tuple[int, ...] = (2, 2, 2, 2)
    hidden: int = 512
    width_multiplier: float = 1.0
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"], *, train: bool) -> PeopleAnswer:
        """Image [B, H, W, 3] RGB in [0, 1], H and W multiples of 32.

        Args:
            image: aligned crops.
            train: normalise by the batch's statistics instead of by the running ones.

        Raises:
            ValueError: for an image of the wrong shape, or of integers.
        """
        wrong = image.ndim != 4 or image.shape[-1] != 3 or not jnp.issubdtype(image.dtype, jnp.floating)
        if wrong or image.shape[1] % 32 or image.shape[2] % 32:
            raise ValueError(
                f"images must be floats in [0, 1] of shape [B, H, W, 3], H and W multiples of 32, got {image.dtype}"
                f"{image.shape}"
            )
        pyramid = Pyramid(self.stage_sizes, self.width_multiplier, self.axis_name, self.dtype, name="backbone")
        fine, middle, whole = pyramid(image, train=train)
        points, colors = PointHead(LANDMARKS + self.surface_points, dtype=self.dtype, name="points")(middle, image)
        logits = PixelHead(self.dtype, name="pixels")(fine)
        # Positions, logarithms of precisions and of odds, each within a few units.
        sure = jnp.log(points.whitening[..., :2]) - 3
        told = jnp.concatenate([8 * (points.position - 0.5), 0.5 * sure, 0.3 * points.visibility[..., None]], axis=-1)
        told = told.reshape(image.shape[0], -1)
        x = nn.Dense(self.hidden, name="join")(jnp.concatenate([told, whole], axis=-1))
        x = nn.relu(nn.LayerNorm(name="norm")(x))
        zeros = nn.initializers.zeros_init()
        # Where no point is seen, its color is another thing's: the layer is told how likely that is.
        seen = jax.nn.sigmoid(points.visibility)[..., None]
        shades = jnp.concatenate([4 * seen * (colors - 0.4), seen], axis=-1).reshape(image.shape[0], -1)
        shades = nn.Dense(self.hidden // 2, name="join_colors")(jnp.concatenate([shades, whole, x], axis=-1))
        shades = nn.relu(nn.LayerNorm(name="norm_colors")(shades))
        vector = coefficient_heads(x, self.head_sizes, shades)
        log_spread = nn.Dense(vector.shape[1], kernel_init=zeros, bias_init=zeros, name="log_spread")(x)
        return PeopleAnswer(vector, log_spread, logits, points)


def coefficient_heads(
    features: Float[Array, "B C"], head_sizes: tuple[int, ...], colors: Float[Array, "B D"] | None = None
) -> Float[Array, "B K"]:
    """Seven linear heads from features to a coefficient vector; to be called in a module's compact method.

    They start at zero, so that training starts from the mean face, frontal and centred, under the ambient light.

    Args:
        features: of the pictures.
        head_sizes: numbers of identity, expression and albedo coefficients.
        colors: features that albedo and light follow from, if others.
    """
    zeros = nn.initializers.zeros_init()
    colors = features if colors is None else colors
    inputs = (features, features, colors, features, colors, features, features)
    heads = [  # the last two are translation in x and y, and in z
        nn.Dense(size, kernel_init=zeros, bias_init=zeros, name=f"final_layers_{index}")(inputs[index])
        for index, size in enumerate((*head_sizes, 3, 27, 2, 1))
        if size  # a face model without albedo basis; checkpoints cannot hold empty arrays
    ]
    return jnp.concatenate(heads, axis=-1)


@functools.partial(jax.jit, static_argnames="network")
def look(network: PeopleNetwork, variables: Any, images: UInt8[Array, "N S S 3"]) -> PeopleAnswer:
    """What a network says of crops: one program for encoder and parser, which need not be compiled for each."""
    answer = network.apply(variables, to_float(images), train=False)
    assert isinstance(answer, PeopleAnswer)
    return answer


def pixel_classes(logits: Float[Array, "B h w L"]) -> UInt8[Array, "B H W"]:
    """The likeliest class of each pixel, from logits at half the picture's size."""
    return double(logits).argmax(-1).astype(jnp.uint8)
