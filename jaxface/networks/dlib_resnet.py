"""dlib's face recognition network in Flax, and its weights from dlib's own file."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Array, Float

from jaxface.core.errors import InputError
from jaxface.files.dlib_file import INPUT, DlibLayer
from jaxface.losses.perceptual import DLIB_CHIP
from jaxface.networks.torch_names import some

DLIB_COLOR = (122.782, 117.001, 104.298)
"""dlib's mean colour, of 0 to 255; the input is (picture - mean) / 256."""


# Blocks as (channels, whether the block halves the picture), from the picture on.
_DLIB_BLOCKS = (
    *[(32, False)] * 3,
    *[(64, True), *[(64, False)] * 3],
    *[(128, True), *[(128, False)] * 2],
    *[(256, True), *[(256, False)] * 2],
    (256, True),
)

_DLIB_STEM, _DLIB_FEATURES = 32, 128


def dlib_from_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The variables of DlibResNet from its arrays by name, such as "params.stem.kernel"; all of them, and no others."""
    chip = jax.ShapeDtypeStruct((1, DLIB_CHIP.size, DLIB_CHIP.size, 3), jnp.float32)
    shapes = jax.eval_shape(DlibResNet().init, jax.random.key(0), chip)
    wanted = {name: value.shape for name, value in traverse_util.flatten_dict(shapes, sep=".").items()}
    wrong = sorted(name for name in wanted.keys() | arrays.keys() if wanted.get(name) != np.shape(arrays.get(name, 0)))
    if wrong:
        raise InputError(
            f"{len(wrong)} arrays are not those of dlib's network: {some(wrong)}; convert its .dat file again"
        )
    return traverse_util.unflatten_dict(dict(arrays), sep=".")


class DlibBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the smaller of both is filled up with zeros.

    Attributes:
        channels: of the result.
        halve: whether the result is half as high and wide.
    """

    channels: int
    halve: bool

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Features [B, H, W, C] to [B, h, w, channels]."""
        stride, pad = (2, 0) if self.halve else (1, 1)
        y = nn.Conv(self.channels, (3, 3), strides=stride, padding=pad, name="conv1")(x)
        y = nn.Conv(self.channels, (3, 3), padding=1, name="conv2")(nn.relu(y))
        if self.halve:
            batch, height, width, channels = x.shape
            x = x[:, : height // 2 * 2, : width // 2 * 2]
            x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))
        shape = tuple(max(sizes) for sizes in zip(x.shape, y.shape, strict=True))
        return nn.relu(_filled(x, shape) + _filled(y, shape))


def _filled(x: Float[Array, "B H W C"], shape: tuple[int, ...]) -> Float[Array, "B h w D"]:
    return jnp.pad(x, [(0, wanted - size) for size, wanted in zip(x.shape, shape, strict=True)])


class DlibResNet(nn.Module):
    """dlib's face recognition network, a ResNet of 29 layers (King 2017).

    dlib's affine layers are parts of the convolutions before them, see `dlib_variables`.
    """

    @nn.compact
    def __call__(self, image: Float[Array, "B 150 150 3"]) -> Float[Array, "B 128"]:
        """Chips with colours in [0, 1] to 128 features."""
        x = (255.0 * image - jnp.array(DLIB_COLOR, image.dtype)[None, None, None]) / 256.0
        x = nn.relu(nn.Conv(_DLIB_STEM, (7, 7), strides=2, padding=0, name="stem")(x))
        x = _max_pool(x)
        for index, (channels, halve) in enumerate(_DLIB_BLOCKS):
            x = DlibBlock(channels, halve, name=f"block{index}")(x)
        return nn.Dense(_DLIB_FEATURES, use_bias=False, name="fc")(x.mean((1, 2)))


def _max_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Maximum over 3 x 3 pixels at stride 2, without padding; written out as in layers.max_pool."""
    for axis in (1, 2):
        reach = (x.shape[axis] - 3) // 2 * 2 + 1
        first, second, third = (jax.lax.slice_in_dim(x, k, k + reach, 2, axis) for k in range(3))
        x = jnp.maximum(jnp.maximum(first, second), third)
    return x


def dlib_variables(layers: Sequence[DlibLayer], *, source: str = "the file") -> dict[str, Any]:
    """The variables of DlibResNet from the layers of dlib's file, all 59 tensors of them.

    Args:
        layers: from `files.dlib_file.read_dlib_network`.
        source: the file's name for messages.

    Raises:
        InputError: when the layers are not those of the network.
    """
    expected = _dlib_layout()
    for index, (layer, wanted) in enumerate(zip(layers, expected, strict=False)):
        if (layer.kind, len(layer.parameters), layer.settings) != wanted:
            found = f"{layer.kind} with {len(layer.parameters)} parameters and settings {layer.settings}"
            raise InputError(
                f"{source}: layer {index} is {found}, but dlib's face recognition network has {wanted[0]} with "
                f"{wanted[1]} and {wanted[2]}; give dlib_face_recognition_resnet_model_v1.dat"
            )
    if len(layers) != len(expected):
        raise InputError(f"{source}: has {len(layers)} layers, but dlib's face recognition network {len(expected)}")
    if not np.allclose(layers[0].parameters, DLIB_COLOR, atol=1e-3):
        raise InputError(f"{source}: the mean colour is {layers[0].parameters}, not {DLIB_COLOR}")
    convolutions = [layer for layer in layers if layer.kind == "con_4"]
    affines = [layer for layer in layers if layer.kind == "affine_"]
    names = [("stem",), *((f"block{index // 2}", f"conv{index % 2 + 1}") for index in range(len(convolutions) - 1))]
    params: dict[str, Any] = {}
    channels = 3
    for (*outer, name), convolved, affine in zip(names, convolutions, affines, strict=True):
        place = params.setdefault(outer[0], {}) if outer else params
        place[name] = _folded(convolved, affine, channels)
        channels = convolved.settings[0]
    outputs, inputs = layers[-1].settings
    params["fc"] = {"kernel": layers[-1].parameters.reshape(inputs, outputs)}
    return {"params": params}


def _dlib_layout() -> list[tuple[str, int, tuple[int, ...]]]:
    """Kind, number of parameters and settings of every layer of dlib's file."""
    layout: list[tuple[str, int, tuple[int, ...]]] = [(INPUT, 3, (DLIB_CHIP.size, DLIB_CHIP.size))]

    def convolution_and_affine(inputs: int, outputs: int, kernel: int, stride: int, pad: int) -> None:
        count = outputs * (inputs * kernel**2 + 1)
        layout.append(("con_4", count, (outputs, kernel, kernel, stride, stride, pad, pad)))
        layout.append(("affine_", 2 * outputs, ()))

    convolution_and_affine(3, _DLIB_STEM, 7, 2, 0)
    layout += [("relu_", 0, ()), ("max_pool_2", 0, (3, 3, 2, 2, 0, 0))]
    inputs = _DLIB_STEM
    for channels, halve in _DLIB_BLOCKS:
        convolution_and_affine(inputs, channels, 3, *((2, 0) if halve else (1, 1)))
        layout.append(("relu_", 0, ()))
        convolution_and_affine(channels, channels, 3, 1, 1)
        layout += [("avg_pool_2", 0, (2, 2, 2, 2, 0, 0))] * halve + [("add_prev_", 0, ()), ("relu_", 0, ())]
        inputs = channels
    layout.append(("avg_pool_2", 0, (0, 0, 1, 1, 0, 0)))
    layout.append(("fc_2", inputs * _DLIB_FEATURES, (_DLIB_FEATURES, inputs)))
    return layout


def _folded(convolved: DlibLayer, affine: DlibLayer, channels: int) -> dict[str, Float[np.ndarray, "..."]]:
    """gain * (convolution + bias) + offset as one convolution."""
    outputs, height, width = convolved.settings[:3]
    kernel = convolved.parameters[:-outputs].reshape(outputs, channels, height, width).transpose(2, 3, 1, 0)
    gain, offset = affine.parameters[:outputs], affine.parameters[outputs:]
    return {"kernel": kernel * gain[None, None, None], "bias": convolved.parameters[-outputs:] * gain + offset}
