"""DML-CSR against the same network written in PyTorch from its list of tensors, and the import of checkpoints."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxface.core.errors import InputError
from jaxface.networks import face_parsing
from jaxface.networks.face_parsing import DmlCsr, dml_csr_from_torch, resize_align_corners
from jaxface.networks.torch_names import torch_name, torch_shape

FIXTURE = Path(__file__).parent / "dml_csr_outputs.npz"
SMALL = {"width": 8, "stage_sizes": (1, 2, 1, 2)}
CLASSES, HEIGHT, WIDTH = 5, 73, 57


def tensor_shapes(*, classes=19, edges=False, width=64, stage_sizes=(3, 4, 23, 3)):
    """Name -> shape of every tensor of a checkpoint, written down from the network's description."""
    shapes = {}

    def convolution(name, out, into, kernel=1, bias=False, planar=True):
        shapes[f"{name}.weight"] = (out, into, kernel, kernel) if planar else (out, into, kernel)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    def norm(name, channels, counted=False):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{leaf}"] = (channels,)
        if counted:
            shapes[f"{name}.num_batches_tracked"] = ()

    def pair(name, out, into, kernel=1, bias=False, index=0):
        convolution(f"{name}.{index}", out, into, kernel, bias)
        norm(f"{name}.{index + 1}", out)

    into = 3
    for index, out in enumerate((width, width, 2 * width), start=1):
        convolution(f"conv{index}", out, into, 3)
        norm(f"bn{index}", out)
        into = out
    for stage, blocks in enumerate(stage_sizes):
        middle = width * 2**stage
        for block in range(blocks):
            name = f"layer{stage + 1}.{block}"
            for index, (out, source, kernel) in enumerate(
                [(middle, into, 1), (middle, middle, 3), (4 * middle, middle, 1)], start=1
            ):
                convolution(f"{name}.conv{index}", out, source, kernel)
                norm(f"{name}.bn{index}", out)
            if block == 0:
                pair(f"{name}.downsample", 4 * middle, into)
            into = 4 * middle
    planes = 8 * width
    pair("context.conva", planes, into, 3)
    pair("context.convb", planes, planes, 3)
    pair("context.bottleneck", planes, into + planes, 3)
    gcn = "context.dualgcn"
    shapes[f"{gcn}.gamma1"] = (1,)
    convolution(f"{gcn}.phi", planes // 2, planes)
    norm(f"{gcn}.bn_phi", planes // 2)
    convolution(f"{gcn}.theta", planes // 4, planes)
    norm(f"{gcn}.bn_theta", planes // 4)
    for name, channels in (("adj", planes // 4), ("wg", planes // 2)):
        convolution(f"{gcn}.conv_{name}", channels, channels, planar=False)
        norm(f"{gcn}.bn_{name}", channels, counted=True)
    convolution(f"{gcn}.conv3", planes, planes // 2)
    norm(f"{gcn}.bn3", planes)
    for index in (0, 2, 4):
        pair(f"{gcn}.local", planes, 1, 3, index=index)
    pair(f"{gcn}.final", planes, 2 * planes)
    attention = f"{gcn}.gcn_local_attention"
    for name in ("node_k", "node_v", "node_q"):
        convolution(f"{attention}.{name}", planes // 2, planes, bias=True)
    convolution(f"{attention}.conv_wg", planes // 2, planes // 2, planar=False)
    norm(f"{attention}.bn_wg", planes // 2, counted=True)
    pair(f"{attention}.out", planes, planes // 2, bias=True)
    shapes[f"{attention}.gamma"] = (1,)
    middle, fine = 4 * width, 3 * width // 4
    pair("layer6.conv1", middle, planes)
    pair("layer6.conv2", fine, 4 * width)
    pair("layer6.conv3", middle, middle + fine)
    pair("layer6.conv3", middle, middle, index=2)
    convolution("layer6.conv4", classes, middle, bias=True)
    if edges:
        for index in (1, 2, 3):
            pair(f"edge_layer.conv{index}", middle, 4 * width * 2 ** (index - 1))
        convolution("edge_layer.conv4", classes, middle, 3, bias=True)
        convolution("edge_layer.conv5_b", 2, 3 * classes, bias=True)
        convolution("edge_layer.conv5", classes, 3 * classes, bias=True)
    return shapes


def random_state(shapes, seed=0):
    """Tensors that keep the features' size through the network; scales of both signs, as InPlaceABN allows."""
    random = np.random.default_rng(seed)
    state = {}
    for name, shape in sorted(shapes.items()):
        if name.endswith("num_batches_tracked"):
            state[name] = np.array(7)
        elif name.endswith("running_var"):
            state[name] = random.uniform(0.5, 1.5, shape).astype(np.float32)
        elif "gamma" in name:
            state[name] = random.uniform(1.5, 2.5, shape).astype(np.float32)
        elif len(shape) > 1:
            # Larger in the attention, whose softmax would else take the mean of everything.
            deviation = math.sqrt(1.5 / np.prod(shape[1:])) * (3 if "node_" in name else 1)
            state[name] = (deviation * random.standard_normal(shape)).astype(np.float32)
        elif name.endswith("weight"):
            state[name] = (random.uniform(0.5, 1.2, shape) * random.choice([-1, 1], shape)).astype(np.float32)
        else:
            state[name] = random.uniform(-0.5, 0.5, shape).astype(np.float32)
    return state


def torch_forward(state, image, stage_sizes):
    """The network as PyTorch has it, on a picture [B, 3, H, W]: logits, binary and semantic edges."""
    import torch
    from torch.nn import functional as F

    state = {name: torch.from_numpy(np.asarray(value)) for name, value in state.items()}

    def conv(name, x, **options):
        weight = state[f"{name}.weight"]
        options.setdefault("padding", weight.shape[-1] // 2 * options.get("dilation", 1))
        return (F.conv2d if weight.ndim == 4 else F.conv1d)(x, weight, state.get(f"{name}.bias"), **options)

    def norm(name, x):
        mean, var, weight, bias = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias, eps=1e-5)

    def abn(name, x):
        mean, var, weight, bias = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.leaky_relu(F.batch_norm(x, mean, var, weight.abs() + 1e-5, bias, eps=1e-5), 0.01)

    def pair(name, x, index=0, **options):
        return abn(f"{name}.{index + 1}", conv(f"{name}.{index}", x, **options))

    def resize(x, like):
        return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)

    x = image
    for index, stride in ((1, 2), (2, 1), (3, 1)):
        x = F.relu(abn(f"bn{index}", conv(f"conv{index}", x, stride=stride)))
    x = F.max_pool2d(x, 3, 2, 1)
    stages = []
    for stage, blocks in enumerate(stage_sizes):
        for block in range(blocks):
            name, stride = f"layer{stage + 1}.{block}", 2 if (stage, block) == (1, 0) else 1
            y = F.relu(abn(f"{name}.bn1", conv(f"{name}.conv1", x)))
            y = conv(f"{name}.conv2", y, stride=stride, dilation=2 if stage == 3 else 1)
            y = abn(f"{name}.bn3", conv(f"{name}.conv3", F.relu(abn(f"{name}.bn2", y))))
            x = F.relu(y + (x if block else pair(f"{name}.downsample", x, stride=stride)))
        stages.append(x)

    deep, x = x, pair("context.conva", x)
    gcn, attention = "context.dualgcn", "context.dualgcn.gcn_local_attention"
    local = x
    for index in (0, 2, 4):
        local = pair(f"{gcn}.local", local, index, stride=2, groups=x.shape[1])
    k, v, q = (conv(f"{attention}.node_{name}", local).flatten(2) for name in "kvq")
    y = k.transpose(1, 2) @ torch.softmax(q @ v.transpose(1, 2), dim=2)
    y = norm(f"{attention}.bn_wg", conv(f"{attention}.conv_wg", y.transpose(1, 2)))
    local = state[f"{attention}.gamma"] * pair(f"{attention}.out", y.unflatten(2, local.shape[2:])) + local
    local = x * resize(local, x) + x
    phi = abn(f"{gcn}.bn_phi", conv(f"{gcn}.phi", x)).flatten(2)
    theta = abn(f"{gcn}.bn_theta", conv(f"{gcn}.theta", x)).flatten(2)
    z = phi @ theta.transpose(1, 2)
    z = z + norm(f"{gcn}.bn_adj", conv(f"{gcn}.conv_adj", z.transpose(1, 2))).transpose(1, 2)
    y = norm(f"{gcn}.bn_wg", conv(f"{gcn}.conv_wg", z)) @ theta
    y = abn(f"{gcn}.bn3", conv(f"{gcn}.conv3", y.unflatten(2, x.shape[2:])))
    x = pair(f"{gcn}.final", torch.cat([local, state[f"{gcn}.gamma1"] * y + x], 1))
    x = pair("context.bottleneck", torch.cat([deep, pair("context.convb", x)], 1))

    x = resize(pair("layer6.conv1", x), stages[0])
    x = torch.cat([x, pair("layer6.conv2", stages[0])], 1)
    logits = conv("layer6.conv4", pair("layer6.conv3", pair("layer6.conv3", x), 2))
    edges = [pair(f"edge_layer.conv{index}", stage) for index, stage in enumerate(stages[:3], start=1)]
    edges = torch.cat([resize(conv("edge_layer.conv4", edge), stages[0]) for edge in edges], 1)
    outputs = logits, conv("edge_layer.conv5_b", edges), conv("edge_layer.conv5", edges)
    return [output.permute(0, 2, 3, 1).numpy() for output in outputs]


def some_image():
    return np.random.default_rng(1).standard_normal((2, HEIGHT, WIDTH, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def small_state():
    return random_state(tensor_shapes(classes=CLASSES, edges=True, **SMALL))


@pytest.fixture(scope="module")
def outputs(small_state, quick_compilation):
    """What the small network makes of `some_image`."""
    module, variables = dml_csr_from_torch(small_state, **SMALL)
    assert (module.classes, module.edges) == (CLASSES, True)
    return [np.asarray(output) for output in jax.jit(module.apply)(variables, some_image())]


@pytest.mark.slow
def test_the_network_equals_pytorchs(small_state, outputs):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        image = torch.from_numpy(some_image()).permute(0, 3, 1, 2)
        expected = torch_forward(small_state, image, SMALL["stage_sizes"])
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.shape == theirs.shape == (2, 19, 15, theirs.shape[-1])
        assert theirs.std() > 0.1
        np.testing.assert_allclose(ours, theirs, atol=3e-5 * np.abs(theirs).max())


@pytest.mark.slow
def test_the_network_equals_stored_outputs_of_pytorch(outputs):
    with np.load(FIXTURE, allow_pickle=False) as stored:
        for ours, name in zip(outputs, ("logits", "binary_edges", "semantic_edges"), strict=True):
            np.testing.assert_allclose(ours[0], stored[name], atol=3e-5 * np.abs(stored[name]).max())


@pytest.mark.slow
@pytest.mark.parametrize(("edges", "tensors"), [(False, 634), (True, 655)])
def test_tensors_and_parameters_of_the_published_network(edges, tensors):
    shapes = tensor_shapes(edges=edges)
    assert len(shapes) == tensors
    module = DmlCsr(edges=edges)
    variables = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 65, 65, 3), jnp.float32))
    ours = {torch_name(path): torch_shape(leaf.shape, kernel_axes=1) for path, leaf in flatten_dict(variables).items()}
    assert ours == {name: shape for name, shape in shapes.items() if not name.endswith("num_batches_tracked")}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    parameters = sum(math.prod(shape) for name, shape in shapes.items() if not name.endswith(statistics))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters
    assert 67e6 < parameters < 69e6


def test_a_quarter_of_the_published_size():
    output = jax.eval_shape(
        lambda image: DmlCsr(stage_sizes=(1, 1, 1, 1)).init_with_output(jax.random.key(0), image)[0].logits,
        jax.ShapeDtypeStruct((1, face_parsing.IMAGE_SIZE, face_parsing.IMAGE_SIZE, 3), jnp.float32),
    )
    assert output.shape == (1, 119, 119, 19)


@pytest.mark.parametrize(
    ("source", "target"), [((4, 7), (9, 5)), ((1, 3), (4, 3)), ((6, 6), (1, 11)), ((2, 2), (2, 2))]
)
def test_resizing_equals_a_loop(source, target):
    image = np.random.default_rng(2).standard_normal((*source, 2)).astype(np.float32)
    expected = np.zeros((*target, 2))
    for row, column in np.ndindex(*target):
        y, x = (
            index * (before - 1) / (after - 1) if after > 1 else 0.0
            for index, before, after in zip((row, column), source, target, strict=True)
        )
        for i, j in np.ndindex(*source):
            expected[row, column] += max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j)) * image[i, j]
    np.testing.assert_allclose(resize_align_corners(image[None], *target)[0], expected, atol=1e-6)


def test_the_picture_is_bgr_with_the_mean_and_deviation_of_rgb():
    pixel = np.array([[[[255, 0, 51]]]], np.uint8)
    expected = [(0.2 - 0.485) / 0.229, (0.0 - 0.456) / 0.224, (1.0 - 0.406) / 0.225]
    np.testing.assert_allclose(face_parsing.normalize(pixel)[0, 0, 0], expected, atol=1e-6)


def test_names_with_the_prefix_of_parallel_training_and_other_counters(small_state):
    state = {f"module.{name}": value for name, value in small_state.items() if "num_batches" not in name}
    state["module.bn1.num_batches_tracked"] = np.array(3)  # torch's own BatchNorm counts its batches
    _, variables = dml_csr_from_torch(state, **SMALL)
    kernel = variables["params"]["context"]["dualgcn"]["conv_adj"]["kernel"]
    np.testing.assert_array_equal(kernel, small_state["context.dualgcn.conv_adj.weight"][..., 0].T)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer1.0.conv2.weight": None}, r"1 missing: layer1\.0\.conv2\.weight"),
        ({"layer6.conv4.bias": None}, r"1 missing: layer6\.conv4\.bias; [3-9] misshaped"),
        ({"fc.weight": np.ones(3)}, r"1 unknown: fc\.weight"),
        (
            {"layer6.conv4.weight": np.ones((5, 5, 1, 1), np.float32)},
            r"1 misshaped: layer6\.conv4\.weight \[5, 5, 1, 1\] instead of \[5, 32, 1, 1\]",
        ),
        ({"layer6.conv4.bias": np.ones((5, 10**6), np.float32)}, r"1 misshaped: layer6\.conv4\.bias"),
        ({"bn2.bias": np.full(8, np.nan, np.float32)}, r"1 not finite numbers: bn2\.bias"),
        ({"bn2.bias": np.array(["a"] * 8)}, r"1 not finite numbers: bn2\.bias"),
        ({f"extra.{i}": np.ones(1) for i in range(40)}, r"40 unknown: extra\.0, .* and 35 more"),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_listed(small_state, change, message):
    state = {name: value for name, value in (small_state | change).items() if value is not None}
    with pytest.raises(InputError, match=message) as caught:
        dml_csr_from_torch(state, **SMALL)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("state", [{}, {"a": np.ones(1)}])
def test_other_contents_are_no_checkpoint(state):
    with pytest.raises(InputError, match=r"do not fit DML-CSR: \d+ missing: .*|holds no network: tensors by name"):
        dml_csr_from_torch(state, **SMALL)


def test_a_network_with_labels_in_an_unknown_order():
    with pytest.raises(InputError, match=r"tells 5 labels apart.*19 \(celebamask\) or 11 \(lapa\)"):
        face_parsing.label_predictor(DmlCsr(classes=5), {})
