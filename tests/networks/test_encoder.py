import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy import signal

from jaxface.networks.encoder import ENCODERS, Encoder, create_encoder
from jaxface.networks.layers import (
    DepthwiseConvolution,
    StemConvolution,
    batch_norm,
    convolution,
    grouped_convolution,
    max_pool,
    round_channels,
)
from jaxface.networks.mobilenet_v3 import InvertedResidual
from jaxface.networks.resnet import BasicBlock, Bottleneck, ResNet

BFM_SIZES = (80, 64, 80)


def tiny_encoder(axis_name=None):
    """Two blocks: what an encoder is made of, quick to compile."""
    return Encoder(ResNet(BasicBlock, (1, 1), width_multiplier=0.125, axis_name=axis_name), (4, 3, 2))


def some_variables(module, *inputs, **options):
    """Variables of the right shapes from numpy: kernels around 0, scales, biases and statistics around 1."""
    random = np.random.default_rng(0)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **options))

    def draw(leaf):
        return random.uniform(0.5, 1.5, leaf.shape).astype(np.float32) - np.float32(leaf.ndim > 1)

    return jax.tree.map(draw, variables)


def apply(module, variables, *inputs, **options):
    """module.apply as one program: operation by operation, each would be compiled by itself."""
    return jax.jit(functools.partial(module.apply, **options))(variables, *inputs)


def torch_names(variables):
    """Tensor names in a PyTorch checkpoint: a dot between levels and before numbers; BatchNorm counts its batches."""
    leaf_names = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    names = set()
    for collection in variables.values():
        for path, _ in jax.tree_util.tree_leaves_with_path(collection):
            *modules, leaf = (key.key for key in path)
            prefix = re.sub(r"_(\d+)", r".\1", ".".join(modules))
            names.add(f"{prefix}.{leaf_names[leaf]}")
            if leaf == "mean":
                names.add(f"{prefix}.num_batches_tracked")
    return names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tensors", "parameters"), [("resnet50", 332, 24_034_625), ("mobilenet_v3_large", 322, 3_218_929)]
)
def test_tensors_and_parameters_equal_the_published_checkpoints(name, tensors, parameters):
    encoder = create_encoder(name, BFM_SIZES)
    variables = jax.eval_shape(lambda: encoder.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)), train=False))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters
    names = torch_names(variables)
    assert len(names) == tensors
    examples = {
        "resnet50": ["layer1.0.downsample.1.running_var", "layer3.5.conv2.weight", "bn1.bias"],
        "mobilenet_v3_large": ["features.0.1.weight", "features.1.conv.4.weight", "features.4.conv.5.fc.2.bias"],
    }[name]
    assert {f"backbone.{example}" for example in examples} | {"final_layers.6.bias"} <= names


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("size", [33, 64])
def test_every_encoder_takes_any_image_size(name, size):
    encoder = create_encoder(name, (4, 3, 2), width_multiplier=0.125)
    image = jnp.zeros((2, size, size, 3))
    vector, _ = jax.eval_shape(lambda: encoder.init_with_output(jax.random.key(0), image, train=True))
    assert (vector.shape, vector.dtype) == ((2, 4 + 3 + 2 + 33), jnp.float32)


@pytest.mark.slow
def test_an_untrained_encoder_says_mean_face():
    image = jax.random.uniform(jax.random.key(1), (2, 32, 32, 3))
    encoder = Encoder(ResNet(BasicBlock, (), width_multiplier=0.125), (4, 3, 2))
    vector, _ = jax.jit(functools.partial(encoder.init_with_output, train=False))(jax.random.key(0), image)
    np.testing.assert_array_equal(vector, np.zeros((2, 42)))


def test_heads_follow_the_order_of_the_coefficient_vector():
    encoder = tiny_encoder()
    image = jnp.zeros((1, 32, 32, 3))
    variables = some_variables(encoder, image, train=False)
    for index in range(7):
        head = variables["params"][f"final_layers_{index}"]
        head["kernel"], head["bias"] = np.zeros_like(head["kernel"]), np.full_like(head["bias"], index)
    vector = apply(encoder, variables, image, train=False)[0]
    np.testing.assert_array_equal(vector, np.repeat([0, 1, 2, 3, 4, 5, 6], [4, 3, 2, 3, 27, 2, 1]))


@pytest.mark.slow
def test_bfloat16_keeps_parameters_and_result_in_float32():
    encoder = create_encoder("mobilenet_v3_large", (4, 3, 2), dtype=jnp.bfloat16)
    image = jnp.zeros((1, 64, 64, 3))
    vector, variables = jax.eval_shape(lambda: encoder.init_with_output(jax.random.key(0), image, train=True))
    assert {leaf.dtype for leaf in jax.tree.leaves((vector, variables))} == {jnp.dtype("float32")}


@pytest.mark.parametrize("image", [np.zeros((1, 32, 32, 3), np.uint8), np.zeros((32, 32, 3), np.float32)])
def test_wrong_images_are_refused(image):
    with pytest.raises(ValueError, match=r"floats in \[0, 1\]"):
        tiny_encoder().init(jax.random.key(0), image, train=False)


def test_unknown_encoder_names_the_known_ones():
    with pytest.raises(ValueError, match="resnet10, resnet18, resnet50, mobilenet_v3_large"):
        create_encoder("vgg", BFM_SIZES)


@pytest.mark.slow
def test_statistics_follow_the_batch_in_training_and_stand_still_in_use():
    encoder = tiny_encoder()
    image = jax.random.uniform(jax.random.key(1), (4, 32, 32, 3))
    variables = some_variables(encoder, image, train=False)
    _, updated = apply(encoder, variables, image, train=True, mutable=["batch_stats"])
    kernel = np.asarray(variables["params"]["backbone"]["conv1"]["kernel"])
    stem = torch_convolution(np.asarray(image), kernel, stride=2)
    old, new = (tree["batch_stats"]["backbone"]["bn1"] for tree in (variables, updated))
    np.testing.assert_allclose(new["mean"], 0.9 * old["mean"] + 0.1 * stem.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(new["var"], 0.9 * old["var"] + 0.1 * stem.var((0, 1, 2)), atol=1e-5)
    _, same = apply(encoder, variables, image, train=False, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, same["batch_stats"], variables["batch_stats"])


@pytest.mark.slow
def test_statistics_synchronised_over_devices_equal_the_whole_batch():
    images = jax.random.uniform(jax.random.key(1), (8, 32, 32, 3))
    variables = some_variables(tiny_encoder(), images, train=False)

    def statistics(image, axis_name=None):
        encoder = tiny_encoder(axis_name)
        return encoder.apply(variables, image, train=True, mutable=["batch_stats"])[1]["batch_stats"]

    whole = jax.jit(statistics)(images)
    shards = images.reshape(4, 2, 32, 32, 3)
    split = jax.pmap(lambda image: statistics(image, "devices"), axis_name="devices")(shards)
    for expected, got in zip(jax.tree.leaves(whole), jax.tree.leaves(split), strict=True):
        np.testing.assert_allclose(got, np.broadcast_to(expected, got.shape), rtol=1e-4, atol=1e-5)


def test_round_channels_follows_mobilenets_rule():
    assert [round_channels(c) for c in (1, 16, 18, 19, 20, 64 * 0.5, 240 // 4)] == [8, 16, 24, 24, 24, 32, 64]


# Blocks against plain numpy, written from PyTorch's definition of a convolution.


def torch_convolution(x, kernel, stride=1, groups=1):
    """x [B, H, W, C], kernel [k, k, C / groups, D]: correlation, padded by (k - 1) // 2, every stride-th pixel."""
    pad = (kernel.shape[0] - 1) // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    per_group = kernel.shape[-1] // groups
    batch = []
    for sample in x:
        channels = []
        for d in range(kernel.shape[-1]):
            first = d // per_group * kernel.shape[2]
            channels.append(
                sum(
                    signal.correlate2d(sample[..., first + c], kernel[:, :, c, d], "valid")
                    for c in range(kernel.shape[2])
                )
            )
        batch.append(np.stack(channels, -1))
    return np.stack(batch)[:, ::stride, ::stride]


def relu(x):
    return np.maximum(x, 0)


def hard_sigmoid(x):
    return np.clip(x + 3, 0, 6) / 6


class Oracle:
    """Applies one block's layers by name, in evaluation mode, from its Flax variables."""

    def __init__(self, module, x):
        self.variables = some_variables(module, x, train=False)

    def conv(self, name, x, stride=1, groups=1):
        return torch_convolution(x, self.variables["params"][name]["kernel"], stride, groups)

    def norm(self, name, x):
        weights, running = self.variables["params"][name], self.variables["batch_stats"][name]
        return (x - running["mean"]) / np.sqrt(running["var"] + 1e-5) * weights["scale"] + weights["bias"]

    def dense(self, module, name, x):
        weights = self.variables["params"][module][name]
        return x @ weights["kernel"] + weights["bias"]


def block_input(channels, size=7):
    return np.random.default_rng(1).normal(size=(2, size, size, channels)).astype(np.float32)


def test_basic_block_equals_numpy():
    x, block = block_input(2), BasicBlock(3, 2)
    o = Oracle(block, x)
    y = relu(o.norm("bn1", o.conv("conv1", x, 2)))
    y = o.norm("bn2", o.conv("conv2", y))
    expected = relu(y + o.norm("downsample_1", o.conv("downsample_0", x, 2)))
    np.testing.assert_allclose(apply(block, o.variables, x, train=False), expected, atol=1e-5)


def test_bottleneck_strides_in_its_3x3_convolution():
    x, block = block_input(2), Bottleneck(2, 2)
    o = Oracle(block, x)
    y = relu(o.norm("bn1", o.conv("conv1", x)))
    y = relu(o.norm("bn2", o.conv("conv2", y, 2)))
    y = o.norm("bn3", o.conv("conv3", y))
    expected = relu(y + o.norm("downsample_1", o.conv("downsample_0", x, 2)))
    np.testing.assert_allclose(apply(block, o.variables, x, train=False), expected, atol=1e-5)


def test_inverted_residual_squeezes_before_the_activation():
    x, block = block_input(3), InvertedResidual(5, 4, 3, True, True, 1)
    o = Oracle(block, x)
    y = o.norm("conv_1", o.conv("conv_0", x))
    y = y * hard_sigmoid(y)
    y = o.norm("conv_4", o.conv("conv_3", y, groups=4))
    gate = relu(o.dense("conv_5", "fc_0", y.mean((1, 2))))
    y = y * hard_sigmoid(o.dense("conv_5", "fc_2", gate))[:, None, None]
    y = y * hard_sigmoid(y)
    expected = x + o.norm("conv_8", o.conv("conv_7", y))
    np.testing.assert_allclose(apply(block, o.variables, x, train=False), expected, atol=1e-5)


def test_inverted_residual_without_expansion():
    x, block = block_input(3), InvertedResidual(3, 3, 5, False, False, 2)
    o = Oracle(block, x)
    y = relu(o.norm("conv_1", o.conv("conv_0", x, 2, groups=3)))
    expected = o.norm("conv_5", o.conv("conv_4", y))
    np.testing.assert_allclose(apply(block, o.variables, x, train=False), expected, atol=1e-5)


def test_stem_pools_as_pytorch_does():
    # One stage without blocks leaves the stem: convolution, normalisation, ReLU, 3x3 maximum with stride 2.
    x, stem = block_input(3, size=9), ResNet(BasicBlock, (0,), width_multiplier=0.125)
    o = Oracle(stem, x)
    y = relu(o.norm("bn1", o.conv("conv1", x, 2)))
    y = np.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(y, (3, 3), axis=(1, 2))[:, ::2, ::2]
    np.testing.assert_allclose(apply(stem, o.variables, x, train=False), windows.max((-2, -1)), atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 2), (3, 2), (5, 2), (7, 2)])
@pytest.mark.parametrize("size", [8, 9])
def test_convolution_pads_as_pytorch_does(kernel, stride, size):
    x = block_input(2, size)
    module = convolution(3, kernel, stride, name="conv")
    variables = some_variables(module, x)
    expected = torch_convolution(x, variables["params"]["kernel"], stride)
    np.testing.assert_allclose(apply(module, variables, x), expected, atol=1e-5)


@pytest.mark.parametrize("kernel", [3, 7])
@pytest.mark.parametrize("size", [8, 9])
def test_stem_convolution_is_the_convolution_with_stride_2(kernel, size):
    x = block_input(3, size)
    module, plain = StemConvolution(5, kernel), convolution(5, kernel, 2, name=None)
    variables = some_variables(module, x)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, some_variables(plain, x))
    expected = torch_convolution(x, variables["params"]["kernel"], 2)
    np.testing.assert_allclose(apply(module, variables, x), expected, atol=1e-5)

    @jax.jit
    def gradients(variables, x):
        return [
            jax.grad(lambda v, x, m=m: (m.apply(v, x) ** 3).sum(), argnums=(0, 1))(variables, x)
            for m in (module, plain)
        ]

    gradient, other = gradients(variables, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), gradient, other)


@pytest.mark.parametrize("size", [1, 8, 9])
def test_max_pool_and_its_gradient_are_those_of_the_windowed_maximum(size):
    x = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)

    def windowed(x):
        return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))

    @jax.jit
    def pooled_and_gradients(x):
        functions = (max_pool, windowed)
        return [f(x) for f in functions], [jax.grad(lambda x, f=f: (f(x) ** 2).sum())(x) for f in functions]

    (result, expected), (gradient, expected_gradient) = pooled_and_gradients(x)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("size", [4, 7])
def test_depthwise_convolution_equals_numpy_and_the_grouped_one(kernel, stride, size):
    x = block_input(3, size)
    module = DepthwiseConvolution(kernel, stride)
    variables = {"params": {"kernel": np.random.default_rng(0).normal(size=(kernel, kernel, 1, 3)).astype(np.float32)}}
    weights = variables["params"]["kernel"]
    expected = torch_convolution(x, weights, stride, groups=3)
    grouped = functools.partial(grouped_convolution, stride=stride)
    np.testing.assert_allclose(apply(module, variables, x), expected, atol=1e-5)
    np.testing.assert_allclose(jax.jit(grouped)(x, weights), expected, atol=1e-5)
    if size == 7 and stride == 2:
        gradient, other = (
            jax.jit(jax.grad(lambda x, w, f=f: (f(x, w) ** 3).sum(), argnums=(0, 1)))(x, weights)
            for f in (lambda x, w: module.apply({"params": {"kernel": w}}, x), grouped)
        )
        for one, two in zip(gradient, other, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-3)


def test_batch_norm_normalises_by_the_biased_variance():
    x = block_input(3)
    norm = batch_norm(train=True, name="norm")
    result, _ = jax.jit(norm.init_with_output)(jax.random.key(0), x)
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(result, expected, atol=1e-5)
