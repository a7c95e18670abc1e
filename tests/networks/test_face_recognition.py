"""The recognition networks equal plain transcriptions of them, and dlib's tells two persons apart."""

import importlib.util
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from jaxface.core.errors import InputError, MissingDependencyError
from jaxface.files.dlib_file import DlibLayer, read_dlib_network
from jaxface.files.images import read_image
from jaxface.networks import dlib_resnet
from jaxface.networks.dlib_resnet import DlibResNet, dlib_variables
from jaxface.networks.face_recognition import dlib_path, load_recognizer, recognition_features
from jaxface.networks.iresnet import IRESNETS, IResNet, iresnet_from_torch
from jaxface.networks.torch_names import torch_name, torch_shape
from jaxface.results import demo
from oracles.recognition import dlib_features, torch_iresnet

FIXTURE = Path(__file__).parent / "recognition.npz"
"""portrait_<name> [68, 2]: landmarks of demo.PORTRAITS in the photo's pixels, found by MediaPipe. dlib_reference [128]:
recognition_oracle.dlib_features of the published weights and `picture(150)`. iresnet_reference [2, 8]:
recognition_oracle.torch_iresnet of `random_state(IRESNETS["iresnet18"], width=4, features=8)` and `chips(2)`."""

needs_extra = pytest.mark.skipif(
    importlib.util.find_spec("face_recognition_models") is None, reason="needs jaxface[perceptual]"
)
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def fixture():
    with np.load(FIXTURE, allow_pickle=False) as file:
        return dict(file)


def picture(size):
    """A smooth coloured pattern."""
    y, x = np.mgrid[:size, :size] / size
    waves = [np.sin(9 * x + 4 * y), np.cos(7 * y - 3 * x), np.sin(11 * x * y + 1)]
    return np.stack([0.5 + 0.5 * wave for wave in waves], axis=-1).astype(np.float32)


def chips(count):
    return np.random.default_rng(5).uniform(size=(count, 112, 112, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    """DlibResNet, compiled once: network(variables, chips)."""
    return jax.jit(DlibResNet().apply)


def random_layers():
    """dlib's layers with random weights that keep the signal's size."""
    random, layers = np.random.default_rng(0), []
    for kind, count, settings in dlib_resnet._dlib_layout():
        values = random.normal(size=count).astype(np.float32)
        if kind == "con_4":
            values *= np.sqrt(settings[0] / count)
        elif kind == "affine_":
            values = 0.3 * values + np.float32(np.arange(count) < count // 2)
        elif kind == "input_rgb_image_sized":
            values = np.array(dlib_resnet.DLIB_COLOR, np.float32)
        layers.append(DlibLayer(kind, values, settings))
    return layers


def test_dlibs_network_equals_the_definition(network):
    layers, image = random_layers(), picture(150)
    expected = dlib_features(layers, image)
    features = np.asarray(network(dlib_variables(layers), image[None])[0])
    np.testing.assert_allclose(features, expected, atol=1e-5 * np.abs(expected).max())


@needs_extra
def test_dlibs_weights_give_the_reference_numbers(network, fixture):
    variables = dlib_variables(read_dlib_network(dlib_path()))
    features = np.asarray(network(variables, picture(150)[None])[0])
    np.testing.assert_allclose(features, fixture["dlib_reference"], atol=2e-6)


def test_other_layers_are_refused():
    layers = random_layers()
    wrong = [*layers[:5], layers[5]._replace(settings=(32, 3, 3, 2, 2, 1, 1)), *layers[6:]]
    for bad, message in (
        (wrong, "layer 5 is con_4 with 9248 parameters"),
        (layers[:-1], "has 108 layers"),
        ([*layers, layers[-1]], "has 110 layers"),
        ([layers[0]._replace(parameters=np.zeros(3, np.float32)), *layers[1:]], "mean colour"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            dlib_variables(bad, source="net.dat")
        assert "net.dat" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
@needs_extra
def test_two_photos_of_a_person_are_nearer_than_those_of_two_persons(fixture):
    try:
        paths = demo.portrait_paths()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    recognizer = load_recognizer("dlib")
    features = jax.jit(recognition_features)
    persons = []
    for name, path in paths.items():
        photo, points = read_image(path).astype(np.float32) / 255, fixture[f"portrait_{name}"]
        side = 512
        photo = photo[:side, :side]
        mirrored = np.stack([side - points[:, 0], points[:, 1]], axis=-1)[MIRROR_68]
        brighter = np.clip(1.3 * photo, 0, 1)
        pictures, landmarks = [photo, photo[:, ::-1], brighter], [points, mirrored, points]
        turned = np.rot90(photo)  # a quarter turn counter-clockwise: (x, y) -> (y, side - x)
        pictures.append(turned)
        landmarks.append(np.stack([points[:, 1], side - points[:, 0]], axis=-1))
        persons.append(np.asarray(features(np.stack(pictures), np.stack(landmarks), recognizer)))
    collins, hopper = persons
    for person in persons:
        distances = np.linalg.norm(person[:, None] - person[None], axis=-1)
        assert distances.max() < 0.5 and distances[0, 3] < 0.02
    assert np.linalg.norm(collins[:, None] - hopper[None], axis=-1).min() > 0.6


PAIRS = [
    *[(i, 16 - i) for i in range(8)],
    *[(17 + i, 26 - i) for i in range(5)],
    *[(31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)],
    *[(48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)],
]
MIRROR_68 = np.arange(68)
for _a, _b in PAIRS:
    MIRROR_68[[_a, _b]] = _b, _a


@pytest.mark.slow
def test_gradient_reaches_the_picture():
    """Along a line, features rise as the gradient says (float64, where the network is smooth enough)."""
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda x: np.asarray(x, np.float64), dlib_variables(random_layers()))
        image, direction = picture(150).astype(np.float64)[None], picture(150)[None, ::-1] - 0.5
        value_and_gradient = jax.jit(
            jax.value_and_grad(lambda image: DlibResNet().apply(variables, image)[0, :3].sum())
        )
        slope = jnp.vdot(value_and_gradient(image)[1], direction)
        step = 1e-6
        after, before = (value_and_gradient(image + sign * step * direction)[0] for sign in (1, -1))
        difference = (after - before) / (2 * step)
        np.testing.assert_allclose(slope, difference, rtol=1e-4)


def random_state(blocks, *, width, features, seed=3):
    """A state dict of ArcFace's layout: name -> array, made by numpy alone."""
    random = np.random.default_rng(seed)
    variables = jax.eval_shape(IResNet(blocks, width, features).init, jax.random.key(0), jnp.zeros((1, 112, 112, 3)))
    state = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        name = torch_name(tuple(entry.key for entry in path))
        shape = torch_shape(leaf.shape)
        if len(shape) > 1:
            state[name] = random.normal(size=shape).astype(np.float32) / np.sqrt(np.prod(shape[1:])).astype(np.float32)
        else:
            state[name] = random.uniform(0.5, 1.5, shape).astype(np.float32)
        if name.endswith("running_var"):
            state[name.replace("running_var", "num_batches_tracked")] = np.array(7)
    return state


def torch_features(torch, blocks, state, images, **sizes):
    reference = torch_iresnet(torch, blocks, **sizes)
    reference.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
    with torch.no_grad():
        return reference(torch.from_numpy((images.transpose(0, 3, 1, 2) - 0.5) / 0.5)).numpy()


@pytest.mark.slow
def test_iresnet_equals_the_reference_numbers(fixture):
    state = random_state(IRESNETS["iresnet18"], width=4, features=8)
    network, variables = iresnet_from_torch({"state_dict": {f"module.{name}": state[name] for name in state}})
    features = jax.jit(network.apply)(variables, chips(2))
    np.testing.assert_allclose(features, fixture["iresnet_reference"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "width"), [("iresnet50", 64), ("iresnet100", 8)])
def test_iresnet_equals_pytorch(name, width):
    torch = pytest.importorskip("torch")
    sizes = {"width": width, "features": 512}
    state = random_state(IRESNETS[name], **sizes)
    network, variables = iresnet_from_torch(state)
    assert network == IResNet(IRESNETS[name], **sizes)
    images = chips(1)
    expected = torch_features(torch, IRESNETS[name], state, images, **sizes)
    features = jax.jit(network.apply)(variables, images)
    np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "millions"), [("iresnet50", 43.59), ("iresnet100", 65.16)])
def test_iresnets_have_the_published_number_of_parameters(name, millions):
    shapes = jax.eval_shape(IResNet(IRESNETS[name]).init, jax.random.key(0), jnp.zeros((1, 112, 112, 3)))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6 == pytest.approx(millions, abs=0.005)


def test_every_wrong_tensor_is_named():
    state = random_state(IRESNETS["iresnet18"], width=4, features=8)
    del state["layer2.1.prelu.weight"]
    state["head.weight"] = np.zeros((2, 2))
    state["fc.weight"] = state["fc.weight"][:, 1:]
    state["bn1.bias"] = np.array(["text"])
    with pytest.raises(InputError) as caught:
        iresnet_from_torch(state)
    message = str(caught.value)
    for wanted in (r"missing: layer2\.1\.prelu\.weight;", r"unknown: head\.weight;", r"fc\.weight \[8, 1567\]"):
        assert re.search(wanted, message), message
    assert "bn1.bias" in message and "\n" not in message


@pytest.mark.parametrize(
    "state", [{}, [1], {"epoch": 3, "optimizer": {}}, {"a": "text"}, {"conv1.weight": np.zeros((0, 3, 3, 3))}]
)
def test_what_is_no_state_dict_is_refused(state):
    with pytest.raises(InputError):
        iresnet_from_torch(state)


def test_a_converted_dlib_file_gives_the_same_network(tmp_path):
    variables = dlib_variables(random_layers())
    arrays = traverse_util.flatten_dict(jax.tree.map(np.ascontiguousarray, variables), sep=".")
    save_file(arrays, tmp_path / "dlib.safetensors")
    loaded = load_recognizer(tmp_path / "dlib.safetensors")
    assert loaded.chip.size == 150
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)
    del arrays["params.fc.kernel"]
    save_file(arrays | {"params.other": np.zeros(3, np.float32)}, tmp_path / "part.safetensors")
    with pytest.raises(InputError, match=r"part\.safetensors: 2 arrays .* params\.fc\.kernel, params\.other"):
        load_recognizer(tmp_path / "part.safetensors")


def test_recognizers_are_loaded_by_name_and_by_file(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    state = random_state(IRESNETS["iresnet18"], width=4, features=8)
    torch.save({name: torch.from_numpy(np.array(value)) for name, value in state.items()}, tmp_path / "arcface.pth")
    recognizer = load_recognizer(tmp_path / "arcface.pth")
    assert recognizer.chip.size == 112 and recognizer.network.width == 4
    torch.save({"conv1.weight": torch.zeros(4, 3, 3, 3)}, tmp_path / "part.pth")
    with pytest.raises(InputError, match=r"part\.pth: .*missing"):
        load_recognizer(tmp_path / "part.pth")
    with pytest.raises(InputError, match=r"none\.dat"):
        load_recognizer(tmp_path / "none.dat")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match="perceptual"):
        load_recognizer("dlib")
