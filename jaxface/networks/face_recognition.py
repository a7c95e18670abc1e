"""Face recognition networks, whose features the perceptual loss compares: dlib's ResNet-29 and ArcFace's iresnets.

    recognizer = load_recognizer("dlib")  # or the path of an ArcFace checkpoint
    vectors = recognition_features(images, landmarks, recognizer)  # of one person: nearer than 0.6 to each other

dlib's network is in the public domain (CC0, King 2017) and comes with `pip install 'jaxface[perceptual]'`. ArcFace
(Deng et al. 2019) is the choice of 3DDFA-V3 and Deep3D; its checkpoints are their makers'.
"""

import dataclasses
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Array, Float

from jaxface.errors import InputError, MissingDependencyError
from jaxface.formats._weight_names import some
from jaxface.formats.dlib_file import INPUT, DlibLayer
from jaxface.losses.perceptual import ARCFACE_CHIP, DLIB_CHIP, ChipTemplate, align_chips
from jaxface.networks.layers import batch_norm, convolution

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
_DLIB_PACKAGE, _DLIB_FILE = "face_recognition_models", "models/dlib_face_recognition_resnet_model_v1.dat"

IRESNETS = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
}
"""ArcFace's networks and their blocks per stage."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FaceRecognizer:
    """A recognition network with its weights: recognizer(chips [B, S, S, 3] in [0, 1]) -> features [B, F].

    It is a pytree: given to a compiled function as an argument, the weights do not become part of the program.

    Attributes:
        variables: the network's.
        network: from chips to features.
        chip: how the network's input is cut.
    """

    variables: Any
    network: nn.Module = dataclasses.field(metadata={"static": True})
    chip: ChipTemplate = dataclasses.field(metadata={"static": True})

    def __call__(self, chips: Float[Array, "B S S 3"]) -> Float[Array, "B F"]:
        """The features of aligned chips, see `losses.align_chips`."""
        return jnp.asarray(self.network.apply(self.variables, chips))


def recognition_features(
    image: Float[Array | np.ndarray, "B H W 3"],
    landmarks: Float[Array | np.ndarray, "B 68 2"],
    recognizer: FaceRecognizer,
    *,
    weights: Float[Array | np.ndarray, "B 68"] | None = None,
) -> Float[Array, "B F"]:
    """What a network tells a person by. Differentiable in the image.

    Args:
        image: colours in [0, 1].
        landmarks: ibug-68 points in pixels of the image, y down.
        recognizer: the network.
        weights: 0 for a landmark that is not known.

    Returns:
        dlib: 128 numbers; two pictures of one person are mostly nearer than 0.6 to each other. ArcFace: 512; compare
        their angles.
    """
    return recognizer(align_chips(image, landmarks, chip=recognizer.chip, weights=weights))


def load_recognizer(name_or_path: str | os.PathLike = "dlib") -> FaceRecognizer:
    """Loads a recognition network.

    Args:
        name_or_path: "dlib": the one that the extra `perceptual` brings; or a file: dlib's (.dat), a PyTorch checkpoint
            of ArcFace's iresnet18 to iresnet100, or what `jaxface.convert` makes of either (.safetensors).

    Raises:
        MissingDependencyError: for "dlib" when the extra is not installed.
        InputError: when a file cannot be used.
    """
    from jaxface.formats.weights import read_state  # which imports this module in its functions

    path = dlib_path() if str(name_or_path) == "dlib" else Path(name_or_path)
    state = read_state(path)
    try:
        if any(name.startswith("params.") for name in state):
            return FaceRecognizer(_dlib_from_arrays(state), DlibResNet(), DLIB_CHIP)
        network, variables = iresnet_from_torch(state)
    except InputError as error:
        raise InputError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error
    return FaceRecognizer(variables, network, ARCFACE_CHIP)


def _dlib_from_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
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


def dlib_path() -> Path:
    """Where the extra `perceptual` put dlib's network.

    Raises:
        MissingDependencyError: when it is not installed.
    """
    spec = importlib.util.find_spec(_DLIB_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / _DLIB_FILE).is_file():
            return path
    raise MissingDependencyError("dlib's face recognition network is not there; run: pip install 'jaxface[perceptual]'")


class DlibBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the smaller of both is filled up with zeros."""

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
        layers: from `formats.dlib_file.read_dlib_network`.
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


class PReLU(nn.Module):
    """x where positive, else a slope of its own per channel times x."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Features to features of the same shape."""
        slope = self.param("slope", nn.initializers.constant(0.25), (x.shape[-1],))
        return jnp.where(x > 0, x, slope[None, None, None] * x)


class IResNetBlock(nn.Module):
    """A 3x3 convolution, PReLU, a strided 3x3 convolution and a shortcut: the block of ArcFace's networks."""

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
        state: name -> array; also one inside "state_dict", or with "module." before every name.

    Returns:
        The network and {"params", "batch_stats"} for `network.apply(variables, chips)`.

    Raises:
        InputError: when tensors are missing, unknown or of the wrong shape; all are accounted for.
    """
    arrays = _plain_state(state)
    network = _matching_iresnet(arrays)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, ARCFACE_CHIP.size, ARCFACE_CHIP.size, 3)))
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    names = [_torch_name(*(entry.key for entry in path)) for path, _ in leaves]
    ignored = {name for name in arrays if name.endswith(".num_batches_tracked")}
    problems = {
        "missing": [name for name in names if name not in arrays],
        "unknown": sorted(arrays.keys() - set(names) - ignored),
    }
    values, misshaped = [], []
    for name, (_, leaf) in zip(names, leaves, strict=True):
        if name in arrays:
            array, wanted = np.asarray(arrays[name]), _torch_shape(leaf.shape)
            if array.shape != wanted or not jnp.issubdtype(array.dtype, jnp.number):
                misshaped.append(f"{name} {array.dtype}{list(array.shape)} instead of numbers {list(wanted)}")
            else:
                values.append(_from_torch(array.astype(np.float32), leaf.shape))
    problems["misshaped"] = misshaped
    told = [f"{kind}: {some(found)}" for kind, found in problems.items() if found]
    if told:
        raise InputError(f"not the weights of an iresnet of ArcFace ({'; '.join(told)})")
    return network, jax.tree_util.tree_unflatten(structure, values)


def _plain_state(state: Any) -> dict[str, Any]:
    while isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if (
        not state
        or not isinstance(state, Mapping)
        or not all(isinstance(value, np.ndarray | np.generic | int) for value in state.values())
    ):
        raise InputError("holds no tensors by name; give a state dict, as torch.save(network.state_dict()) writes it")
    prefix = "module." if all(name.startswith("module.") for name in state) else ""
    return {name.removeprefix(prefix): value for name, value in state.items()}


def _matching_iresnet(arrays: Mapping[str, Any]) -> IResNet:
    """The network whose blocks are nearest to those in the file, as wide as the file's."""
    stem, last = (np.shape(arrays.get(name, ())) for name in ("conv1.weight", "fc.weight"))
    width, features = (stem[0] if len(stem) == 4 else 0) or 64, (last[0] if len(last) == 2 else 0) or 512
    found = [len({name.split(".")[1] for name in arrays if name.startswith(f"layer{k}.")}) for k in range(1, 5)]
    blocks = min(IRESNETS.values(), key=lambda known: sum(abs(a - b) for a, b in zip(known, found, strict=True)))
    return IResNet(blocks, width, features)


def _torch_name(collection: str, *names: str) -> str:
    leaf = {"kernel": "weight", "scale": "weight", "slope": "weight", "mean": "running_mean", "var": "running_var"}
    *modules, last = names
    return ".".join([*(module.replace("_", ".") for module in modules), leaf.get(last, last)])


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 4:
        return (shape[3], shape[2], shape[0], shape[1])
    return shape[::-1]


def _from_torch(array: Float[np.ndarray, "..."], shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim == 2:  # PyTorch lists features channel by channel, we pixel by pixel
        side = ARCFACE_CHIP.size // 16
        return array.reshape(len(array), -1, side, side).transpose(2, 3, 1, 0).reshape(shape)
    return array
