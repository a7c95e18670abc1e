"""DML-CSR, a face parser (Zheng et al., "Decoupled Multi-task Learning with Cyclical Self-Regulation for Face Parsing",
CVPR 2022): the network for inference, and the import of its published PyTorch checkpoints.

A dilated ResNet-101 with a deep stem, a head of two graph convolutions, over channels and over places, and a decoder.
Modules bear the names of the checkpoint's tensors, with `_` for the dot before a number.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int, UInt8

from jaxface.core.errors import InputError
from jaxface.core.parts import PARSER_LABELS
from jaxface.networks.layers import DepthwiseConvolution, StemConvolution, batch_norm, max_pool
from jaxface.networks.torch_names import check_tensors, from_torch, plain_state, torch_name, torch_shape

IMAGE_SIZE = 473
"""Side in pixels of the pictures that the published networks were trained on."""

CLASSES = {19: "celebamask", 11: "lapa"}
"""How many labels a published network tells apart -> their order in `parts.PARSER_LABELS`."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's for RGB, applied to BGR: so it was trained
_EPSILON, _SLOPE = 1e-5, 0.01


class FaceParsing(NamedTuple):
    """What the network finds.

    Attributes:
        logits: [B, h, w, classes] of the labels, h = H / 4 rounded up.
        binary_edges: [B, h, w, 2] logits of edges between any parts; None without the edge layer.
        semantic_edges: [B, h, w, classes] logits of each part's edges; None without the edge layer.
    """

    logits: Float[Array, "B h w L"]
    binary_edges: Float[Array, "B h w 2"] | None
    semantic_edges: Float[Array, "B h w L"] | None


class ActivatedBatchNorm(nn.Module):
    """InPlaceABN with its running statistics: the scale is |weight| + epsilon; a leaky ReLU follows."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Features to features of the same shape."""
        shape = (x.shape[-1],)
        scale, bias = self.param("scale", nn.initializers.ones, shape), self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape).value
        variance = self.variable("batch_stats", "var", jnp.ones, shape).value
        factor = (jnp.abs(scale) + _EPSILON) / jnp.sqrt(variance + _EPSILON)
        mean, factor, bias = (values[None, None, None] for values in (mean, factor, bias))
        return nn.leaky_relu((x - mean) * factor + bias, _SLOPE)


def _convolution(
    features: int, kernel: int = 1, stride: int = 1, *, dilation: int = 1, use_bias: bool = False, name: str
) -> nn.Conv:
    pad = dilation * (kernel // 2)
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        kernel_dilation=(dilation, dilation),
        use_bias=use_bias,
        name=name,
    )


def resize_align_corners(x: Float[Array, "B H W C"], height: int, width: int) -> Float[Array, "B h w C"]:
    """Bilinear interpolation that maps the centres of corner pixels to each other (PyTorch's align_corners=True)."""
    rows, columns = (jnp.asarray(_interpolation(*sizes)) for sizes in ((x.shape[1], height), (x.shape[2], width)))
    # In full precision also where the hardware would round the factors of a product.
    return jnp.einsum("hi,bijc,wj->bhwc", rows, x, columns, precision=jax.lax.Precision.HIGHEST)


def _interpolation(source: int, target: int) -> Float[np.ndarray, "target source"]:
    places = np.linspace(0, source - 1, target)
    lower = np.minimum(places.astype(int), max(source - 2, 0))
    weights = np.zeros((target, source), np.float32)
    weights[np.arange(target), lower] = 1 - (places - lower)
    weights[np.arange(target), np.minimum(lower + 1, source - 1)] += places - lower
    return weights


class Bottleneck(nn.Module):
    """1x1, 3x3 (strided or dilated) and 1x1 convolutions and a shortcut, which is activated where it is projected.

    Attributes:
        features: channels inside; the result has four times as many.
        stride: of the 3x3 convolution.
        dilation: likewise.
    """

    features: int
    stride: int = 1
    dilation: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Features [B, H, W, C] to [B, H / stride, W / stride, 4 features]."""
        out = 4 * self.features
        y = nn.relu(ActivatedBatchNorm(name="bn1")(_convolution(self.features, name="conv1")(x)))
        y = _convolution(self.features, 3, self.stride, dilation=self.dilation, name="conv2")(y)
        y = nn.relu(ActivatedBatchNorm(name="bn2")(y))
        y = ActivatedBatchNorm(name="bn3")(_convolution(out, name="conv3")(y))
        if self.stride != 1 or x.shape[-1] != out:
            x = ActivatedBatchNorm(name="downsample_1")(_convolution(out, 1, self.stride, name="downsample_0")(x))
        return nn.relu(x + y)


class SpatialGraphConvolution(nn.Module):
    """Places exchange features through a C/2 x C/2 affinity of the channels of two of their projections."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Features to features of the same shape."""
        batch, height, width, channels = x.shape
        nodes = channels // 2
        key, value, query = (
            _convolution(nodes, use_bias=True, name=name)(x).reshape(batch, height * width, nodes)
            for name in ("node_k", "node_v", "node_q")
        )
        affinity = nn.softmax(jnp.einsum("bnq,bnv->bqv", query, value), axis=-1)
        y = nn.Dense(nodes, use_bias=False, name="conv_wg")(key @ affinity)
        y = batch_norm(train=False, name="bn_wg")(y).reshape(batch, height, width, nodes)
        y = ActivatedBatchNorm(name="out_1")(_convolution(channels, use_bias=True, name="out_0")(y))
        return self.param("gamma", nn.initializers.zeros, (1,))[None, None, None] * y + x


class DualGraphConvolution(nn.Module):
    """Two branches: an attention over places seen at an eighth of the size, and a graph of channel features."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Features to features of the same shape."""
        batch, height, width, channels = x.shape
        local = x
        for index in (0, 2, 4):
            local = DepthwiseConvolution(3, stride=2, name=f"local_{index}")(local)
            local = ActivatedBatchNorm(name=f"local_{index + 1}")(local)
        local = SpatialGraphConvolution(name="gcn_local_attention")(local)
        local = x * resize_align_corners(local, height, width) + x

        states, nodes = channels // 2, channels // 4
        state = ActivatedBatchNorm(name="bn_phi")(_convolution(states, name="phi")(x))
        place = ActivatedBatchNorm(name="bn_theta")(_convolution(nodes, name="theta")(x))
        place = place.reshape(batch, height * width, nodes)
        graph = jnp.einsum("bns,bng->bsg", state.reshape(batch, height * width, states), place)
        graph += batch_norm(train=False, name="bn_adj")(nn.Dense(nodes, use_bias=False, name="conv_adj")(graph))
        graph = nn.Dense(states, use_bias=False, name="conv_wg")(graph.swapaxes(1, 2))
        graph = batch_norm(train=False, name="bn_wg")(graph)
        y = _convolution(channels, name="conv3")((place @ graph).reshape(batch, height, width, states))
        y = ActivatedBatchNorm(name="bn3")(y)
        y = self.param("gamma1", nn.initializers.zeros, (1,))[None, None, None] * y + x
        y = _convolution(channels, name="final_0")(jnp.concatenate([local, y], axis=-1))
        return ActivatedBatchNorm(name="final_1")(y)


class ContextHead(nn.Module):
    """The dual graph convolution between two 3x3 convolutions, joined with the backbone's features."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        """Features [B, H, W, C] to [B, H, W, features]."""
        y = ActivatedBatchNorm(name="conva_1")(_convolution(self.features, 3, name="conva_0")(x))
        y = DualGraphConvolution(name="dualgcn")(y)
        y = ActivatedBatchNorm(name="convb_1")(_convolution(self.features, 3, name="convb_0")(y))
        y = _convolution(self.features, 3, name="bottleneck_0")(jnp.concatenate([x, y], axis=-1))
        return ActivatedBatchNorm(name="bottleneck_1")(y)


class Decoder(nn.Module):
    """Joins the head's features with the finer ones of the first stage.

    Attributes:
        features: channels that the coarse ones are brought to.
        fine_features: channels that the finer ones are brought to.
        classes: labels of the result.
    """

    features: int
    fine_features: int
    classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"], fine: Float[Array, "B H W D"]) -> Float[Array, "B H W L"]:
        """Coarse and fine features to logits at the fine size."""
        x = ActivatedBatchNorm(name="conv1_1")(_convolution(self.features, name="conv1_0")(x))
        fine = ActivatedBatchNorm(name="conv2_1")(_convolution(self.fine_features, name="conv2_0")(fine))
        x = jnp.concatenate([resize_align_corners(x, *fine.shape[1:3]), fine], axis=-1)
        for index in (0, 2):
            x = ActivatedBatchNorm(name=f"conv3_{index + 1}")(_convolution(self.features, name=f"conv3_{index}")(x))
        return _convolution(self.classes, use_bias=True, name="conv4")(x)


class EdgeLayer(nn.Module):
    """Edges of the parts from three stages of the backbone: a second task that some checkpoints keep.

    Attributes:
        features: channels that each stage is brought to.
        classes: labels of the parts.
    """

    features: int
    classes: int

    @nn.compact
    def __call__(self, stages: tuple[Array, ...]) -> tuple[Float[Array, "B H W 2"], Float[Array, "B H W L"]]:
        """Features of the first three stages to binary and semantic edge logits, at the first stage's size."""
        shared = _convolution(self.classes, 3, use_bias=True, name="conv4")
        edges = []
        for index, stage in enumerate(stages, start=1):
            x = ActivatedBatchNorm(name=f"conv{index}_1")(_convolution(self.features, name=f"conv{index}_0")(stage))
            edges.append(resize_align_corners(shared(x), *stages[0].shape[1:3]))
        joined = jnp.concatenate(edges, axis=-1)
        binary = _convolution(2, use_bias=True, name="conv5_b")(joined)
        return binary, _convolution(self.classes, use_bias=True, name="conv5")(joined)


class DmlCsr(nn.Module):
    """The network for inference; the sizes are the published ones.

    Attributes:
        classes: labels that it tells apart, 19 or 11.
        edges: whether it has the edge layer.
        stage_sizes: blocks per stage.
        width: channels of the stem, of which all others are multiples.
    """

    classes: int = 19
    edges: bool = False
    stage_sizes: tuple[int, ...] = (3, 4, 23, 3)
    width: int = 64

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"]) -> FaceParsing:
        """Normalised pictures [B, H, W, 3] (`normalize`) to logits at a quarter of the size, rounded up."""
        x = nn.relu(ActivatedBatchNorm(name="bn1")(StemConvolution(self.width, 3, name="conv1")(image)))
        x = nn.relu(ActivatedBatchNorm(name="bn2")(_convolution(self.width, 3, name="conv2")(x)))
        x = nn.relu(ActivatedBatchNorm(name="bn3")(_convolution(2 * self.width, 3, name="conv3")(x)))
        x = max_pool(x)
        stages = []
        for stage, blocks in enumerate(self.stage_sizes):
            for index in range(blocks):
                x = Bottleneck(
                    features=self.width * 2**stage,
                    stride=2 if stage == 1 and index == 0 else 1,
                    dilation=2 if stage == 3 else 1,
                    name=f"layer{stage + 1}_{index}",
                )(x)
            stages.append(x)
        x = ContextHead(8 * self.width, name="context")(x)
        logits = Decoder(4 * self.width, 3 * self.width // 4, self.classes, name="layer6")(x, stages[0])
        if not self.edges:
            return FaceParsing(logits, None, None)
        return FaceParsing(logits, *EdgeLayer(4 * self.width, self.classes, name="edge_layer")(tuple(stages[:3])))


def normalize(image: UInt8[Array | np.ndarray, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """RGB bytes to what the network sees: BGR, less ImageNet's mean, over its standard deviation (those of RGB)."""
    mean, std = (jnp.array(values)[None, None, None] for values in (_MEAN, _STD))
    return (jnp.asarray(image)[..., ::-1] / 255 - mean) / std


def label_predictor(
    module: DmlCsr, variables: Mapping[str, Any]
) -> Callable[[UInt8[np.ndarray, "B H W 3"]], UInt8[np.ndarray, "B H W"]]:
    """A compiled function from RGB pictures (473 x 473 for the published networks) to label maps in our labels.

    Raises:
        InputError: when the network has a number of labels whose order is not known.
    """
    if module.classes not in CLASSES:
        known = " or ".join(f"{count} ({name})" for count, name in CLASSES.items())
        raise InputError(f"the network tells {module.classes} labels apart, but should {known}")
    table = PARSER_LABELS[CLASSES[module.classes]]

    @jax.jit
    def predict(variables: Mapping[str, Any], image: UInt8[Array | np.ndarray, "B H W 3"]) -> Int[Array, "B H W"]:
        answer = cast(FaceParsing, module.apply(variables, normalize(image)))
        return resize_align_corners(answer.logits, *image.shape[1:3]).argmax(-1)

    variables = jax.device_put(variables)
    return lambda image: table[np.asarray(predict(variables, image))]


def read_dml_csr(path: str | os.PathLike) -> tuple[DmlCsr, dict[str, Any]]:
    """Reads a checkpoint of DML-CSR, PyTorch's or a .safetensors file with its tensors: (module, variables).

    Raises:
        InputError: names the file when it cannot be read or is not such a checkpoint.
    """
    from jaxface.networks.weight_files import read_state  # which imports the networks

    state = read_state(path)
    try:
        return dml_csr_from_torch(state)
    except InputError as error:
        raise InputError(f"{Path(path)}: {error}") from error


def dml_csr_from_torch(
    state: Mapping[str, np.ndarray], *, stage_sizes: tuple[int, ...] = (3, 4, 23, 3), width: int = 64
) -> tuple[DmlCsr, dict[str, Any]]:
    """The network of a PyTorch state dictionary; how many labels it has and whether edges, the tensors tell.

    Args:
        state: tensors by name, 634 or (with the edge layer) 655; as a checkpoint has them, see
            `torch_names.plain_state`.
        stage_sizes: blocks per stage; the default is the published network.
        width: channels of the stem; likewise.

    Raises:
        InputError: lists the tensors that are missing, unknown, misshaped, or not finite.
    """
    tensors = plain_state(state)
    last = np.shape(tensors.get("layer6.conv4.bias", ()))
    module = DmlCsr(
        classes=last[0] if last and 0 < last[0] <= 1000 else 19,  # a misshaped one is told below
        edges=any(name.startswith("edge_layer.") for name in tensors),
        stage_sizes=stage_sizes,
        width=width,
    )
    image = jax.ShapeDtypeStruct((1, 65, 65, 3), jnp.float32)  # the variables do not depend on its size
    shapes = {
        path: leaf.shape for path, leaf in flatten_dict(jax.eval_shape(module.init, jax.random.key(0), image)).items()
    }
    # A dense layer here is a convolution over a sequence there.
    names = {path: torch_name(path) for path in shapes}
    check_tensors(
        tensors, {names[path]: torch_shape(shape, kernel_axes=1) for path, shape in shapes.items()}, "DML-CSR"
    )
    return module, unflatten_dict({path: from_torch(tensors[name], shapes[path]) for path, name in names.items()})
