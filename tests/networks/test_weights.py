"""Weights from PyTorch: every tensor has its place, the networks give PyTorch's answers, files keep all of it."""

import re
import zipfile
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from jaxface.core.errors import InputError
from jaxface.networks import conversion, torch_names, weight_files, weights
from jaxface.networks.checkpoints import load_encoder, read_encoder
from jaxface.networks.encoder import create_encoder
from jaxface.training.checkpoint import initial_state
from jaxface.training.optimizer import create_optimizer
from jaxface.training.step import TrainState
from toys.models import toy_model
from toys.torch_encoders import encoder, random_image, random_state, resnet, run

SIZES = (80, 64, 80)
STORED = np.load(Path(__file__).parent / "encoder_outputs.npz")  # PyTorch's answers to `random_image`
pytestmark = pytest.mark.usefixtures("quick_compilation")


def _state(name, sizes=SIZES):
    """Random weights with PyTorch's names and shapes, of an encoder, or without sizes of a backbone."""
    shapes = weights.variable_shapes({"name": name}, sizes)
    zeros = traverse_util.unflatten_dict({path: np.zeros(shape) for path, shape in shapes.items()})
    empty = weights.EncoderWeights({"encoder": {"name": name}}, sizes, zeros)
    return random_state({key: value.shape for key, value in weights.encoder_to_torch(empty).items()})


@pytest.fixture(scope="module")
def states():
    return {name: _state(name) for name in ("resnet50", "mobilenet_v3_large")} | {"resnet18": _state("resnet18", ())}


@pytest.fixture(scope="module")
def mobilenet_file(states, tmp_path_factory):
    """The encoder of toy faces, whose heads are of 3, 2 and 3 numbers."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_file(random_state({k: _resized(k, v.shape) for k, v in states["mobilenet_v3_large"].items()}), path)
    return path


def _resized(name, shape):
    head = re.fullmatch(r"final_layers\.([012])\..*", name)
    return ((3, 2, 3)[int(head[1])], *shape[1:]) if head else shape


def _close(result, expected):
    assert np.abs(np.asarray(result) - expected).max() < 1e-4 * max(1, np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tensors"), [("resnet50", 332), ("mobilenet_v3_large", 322)])
def test_encoders_equal_pytorchs(states, name, tensors):
    state = states[name]
    assert len(state) == tensors
    read = weights.encoder_from_torch(state)
    assert (read.config["encoder"], read.head_sizes) == ({"name": name}, SIZES)
    apply = jax.jit(lambda variables, image: create_encoder(name, SIZES).apply(variables, image, train=False))
    result = apply(read.variables, random_image())
    _close(result, STORED[name])
    pytest.importorskip("torch")
    _close(result, run(encoder(name, SIZES), state, random_image()))


@pytest.mark.slow
def test_a_backbone_equals_pytorchs_and_its_classifier_is_left_out(states):
    state = states["resnet18"] | random_state({"fc.weight": (1000, 512), "fc.bias": (1000,)})
    assert len(state) == 122
    read = weights.encoder_from_torch(state)
    assert read.head_sizes == () and "no heads" in read.told()
    backbone = create_encoder("resnet18", SIZES).backbone
    variables = {collection: tree["backbone"] for collection, tree in read.variables.items()}
    features = jax.jit(lambda variables, image: backbone.apply(variables, image, train=False))(
        variables, random_image()
    )
    _close(features.mean((1, 2)), STORED["resnet18"])
    pytest.importorskip("torch")
    _close(features, run(resnet("resnet18", 1000), state, random_image()).transpose(0, 2, 3, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_large", "resnet18"])
def test_tensors_come_back_as_they_were(states, name):
    state = states[name]
    back = weights.encoder_to_torch(weights.encoder_from_torch(state))
    assert back.keys() == state.keys()
    for key, value in state.items():
        if not key.endswith("num_batches_tracked"):  # counters start again
            np.testing.assert_array_equal(back[key], value)


@pytest.mark.slow
def test_every_wrong_tensor_is_listed_in_one_short_error(states):
    state = dict(states["mobilenet_v3_large"])
    del state["backbone.conv.0.weight"], state["final_layers.1.weight"]
    state["backbone.more.weight"] = np.zeros(3, np.float32)
    state["backbone.features.0.1.bias"] = np.zeros(17, np.float32)
    state["backbone.features.0.1.weight"] = np.full(16, np.nan, np.float32)
    state["backbone.features.0.1.running_var"] = np.ones(16, np.int64)
    with pytest.raises(InputError) as error:
        weights.encoder_from_torch(state)
    message = str(error.value)
    assert "2 missing: " in message and "backbone.conv.0.weight" in message and "final_layers.1.weight" in message
    assert "1 unknown: backbone.more.weight" in message
    assert "misshaped: " in message and "backbone.features.0.1.bias [17] instead of [16]" in message
    assert "2 not finite numbers: backbone.features.0.1.running_var, backbone.features.0.1.weight" in message
    many = state | {f"backbone.x{i}{'y' * 1000}": np.zeros(1) for i in range(1000)}
    with pytest.raises(InputError, match=r"1001 unknown: .* and 996 more") as error:
        weights.encoder_from_torch(many)
    assert "\n" not in str(error.value) and len(str(error.value)) < 2000


@pytest.mark.slow
def test_a_deeper_network_is_not_taken_for_a_known_one(states):
    extra = {f"layer1.2.conv{i}.weight": np.zeros((64, 64, 3, 3), np.float32) for i in (1, 2)}  # as ResNet-34 has
    with pytest.raises(InputError, match=r"do not fit resnet18: 2 unknown: layer1.2.conv1.weight"):
        weights.encoder_from_torch(states["resnet18"] | extra)


@pytest.mark.parametrize("wrap", [
    lambda state: state,
    lambda state: {"net_recon": state, "opt_00": {"state": {}, "param_groups": [{"lr": 1e-4}]}, "sched_00": {}},
    lambda state: {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}},
    lambda state: {"model": "resnet18", "model_state_dict": {f"_orig_mod.{name}": x for name, x in state.items()}},
    lambda state: {"optimizer": {}, "model": {f"module._orig_mod.net.{name}": x for name, x in state.items()}},
    lambda state: {"ema": {"n_averaged": np.array(5), **{f"module.net_recon.{name}": x for name, x in state.items()}}},
    lambda state: {"state_dict": {"model": {f"net.module.backbone.{name}": x for name, x in state.items()}}},
])  # fmt: skip
def test_wrappers_and_prefixes_are_taken_off(states, monkeypatch, tmp_path, wrap):
    from jaxface.files import torch_files

    (tmp_path / "x.pth").write_bytes(b"PK, and the rest")
    monkeypatch.setattr(torch_files, "read_torch", lambda path: wrap(states["resnet18"]))
    assert weight_files.read_state(tmp_path / "x.pth").keys() == states["resnet18"].keys()


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "net.", "net_recon.", "module.net_recon._orig_mod."])
@pytest.mark.parametrize("inner", ["", "module.", "_orig_mod."])
def test_prefixes_leave_an_encoders_backbone(prefix, inner):
    own = ["backbone.conv1.weight", "backbone.layer1.0.bn1.bias", "final_layers.0.weight"]
    names = [prefix + name.replace("backbone.", f"backbone.{inner}") for name in own]
    assert list(torch_names.bare_names(names).values()) == own
    assert torch_names.network_kind(names) == "encoder"


def test_two_networks_in_one_are_not_mixed_up():
    state = {"conv1.weight": np.zeros(3), "module.conv1.weight": np.ones(3)}
    with pytest.raises(InputError, match="two networks in one"):
        torch_names.plain_state(state)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_numbers_of_other_precision(mobilenet_file, tmp_path, kind):
    state = load_file(mobilenet_file)
    save_file(
        {name: x.astype(kind) if x.dtype.kind == "f" else x for name, x in state.items()}, tmp_path / "x.safetensors"
    )
    expected, found = (read_encoder(path).variables for path in (mobilenet_file, tmp_path / "x.safetensors"))
    for one, two in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert two.dtype == np.float32
        np.testing.assert_array_equal(two, one.astype(kind).astype(np.float32))
    assert "all of 322 tensors" in conversion.convert_weights(tmp_path / "x.safetensors", tmp_path / "y.safetensors")
    assert load_file(tmp_path / "y.safetensors")["backbone.conv.0.weight"].dtype == np.float32


@pytest.mark.parametrize("content", [[1, 2], {}, {"state_dict": 3}, {1: np.zeros(3)}, {"a.weight": "text"}])
def test_other_contents_are_refused(monkeypatch, tmp_path, content):
    from jaxface.files import torch_files

    (tmp_path / "x.pth").write_bytes(b"PK, and the rest")
    monkeypatch.setattr(torch_files, "read_torch", lambda path: content)
    with pytest.raises(InputError, match=r"x.pth: holds"):
        weight_files.read_state(tmp_path / "x.pth")


def test_pytorchs_files_are_read_and_converted(mobilenet_file, tmp_path):
    torch = pytest.importorskip("torch")
    state = {name: torch.as_tensor(value) for name, value in load_file(mobilenet_file).items()}
    for legacy in (False, True):
        path = tmp_path / "net_recon.pth"
        torch.save({"net_recon": state}, path, _use_new_zipfile_serialization=not legacy)
        assert weight_files.is_weights(path)
        summary = conversion.convert_weights(path, tmp_path / "out.safetensors")
        assert "mobilenet_v3_large, heads 3 | 2 | 3 | 3 | 27 | 3" in summary and "all of 322 tensors" in summary
        converted = load_file(tmp_path / "out.safetensors")
        assert converted.keys() == state.keys()
        np.testing.assert_array_equal(converted["backbone.conv.0.weight"], state["backbone.conv.0.weight"])


@pytest.mark.slow
def test_files_and_folders_give_the_same_encoder(mobilenet_file, tmp_path):
    conversion.convert_weights(mobilenet_file, tmp_path / "run")
    conversion.convert_weights(tmp_path / "run", tmp_path / "back.safetensors")
    assert weight_files.is_weights(tmp_path / "run") and weight_files.is_weights(tmp_path / "back.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    results = []
    for path in (mobilenet_file, tmp_path / "run", tmp_path / "back.safetensors"):
        predict, model, config = load_encoder(path, model=toy_model())
        assert (model.name, config.image_size, config.encoder.name) == ("toy", 224, "mobilenet_v3_large")
        if path != tmp_path / "back.safetensors":
            results.append(predict(images))
    np.testing.assert_array_equal(*results)
    for one, two in zip(*(load_file(p).items() for p in (mobilenet_file, tmp_path / "back.safetensors")), strict=True):
        assert (one[0] == two[0] and (one[1] == two[1]).all()) or one[0].endswith("num_batches_tracked")


@pytest.mark.slow
def test_the_face_model_must_be_named_and_fit(mobilenet_file):
    with pytest.raises(InputError, match=r"small.safetensors: the face model .* names none; .*--model FILE"):
        load_encoder(mobilenet_file)
    with pytest.raises(InputError, match=r"gives 3 identity, 2 expression and 3 albedo .* 'toy' has 4 identity"):
        load_encoder(mobilenet_file, model=toy_model(identity=4))


@pytest.mark.slow
def test_a_backbone_alone_is_no_encoder_but_starts_one(states, tmp_path):
    save_file(states["resnet18"] | {"fc.weight": np.zeros((10, 512), np.float32)}, tmp_path / "imagenet.safetensors")
    assert weight_files.is_weights(tmp_path / "imagenet.safetensors")
    conversion.convert_weights(tmp_path / "imagenet.safetensors", tmp_path / "folder")
    with pytest.raises(InputError, match=r"backbone without heads; .* config.encoder.initial"):
        load_encoder(tmp_path / "folder", model=toy_model())
    shapes = weights.variable_shapes({"name": "resnet18"}, (3, 2, 3))
    fresh = traverse_util.unflatten_dict({path: np.full(shape, 0.5, np.float32) for path, shape in shapes.items()})
    optimizer = create_optimizer(1e-3, steps=10)
    state = TrainState(np.zeros((), np.int32), fresh["params"], fresh["batch_stats"], optimizer.init(fresh["params"]))
    for source in ("imagenet.safetensors", "folder"):
        begun, taken = initial_state(state, optimizer, tmp_path / source)
        assert taken.startswith("the backbone and 0 of 7 heads from ")
        kernel = begun.params["backbone"]["layer2_0"]["downsample_0"]["kernel"]
        np.testing.assert_array_equal(kernel[0, 0], states["resnet18"]["layer2.0.downsample.0.weight"][..., 0, 0].T)
        variance = begun.batch_stats["backbone"]["bn1"]["var"]
        np.testing.assert_array_equal(variance, states["resnet18"]["bn1.running_var"])
        assert (begun.params["final_layers_0"]["kernel"] == 0.5).all()
        assert jax.tree.structure(begun) == jax.tree.structure(state)


def test_training_starts_with_the_configured_weights(monkeypatch, tmp_path):
    from jaxface import train as training
    from jaxface.models import native
    from toys.training import toy_config

    native.write_face_model(toy_model(), tmp_path / "toy.npz")
    config = toy_config(face_model=str(tmp_path / "toy.npz"), output_dir=str(tmp_path / "run"))
    config.encoder.initial = "imagenet.pth"
    monkeypatch.setattr(training, "make_training_data", lambda config, model, start: ([], []))
    monkeypatch.setattr(training, "create_state", lambda *_, **__: "fresh")

    def stop(state, optimizer, path):
        raise InputError(f"{state} {path}")

    monkeypatch.setattr(training, "initial_state", stop)
    with pytest.raises(InputError, match=r"^fresh imagenet.pth$"):
        training.train(config)


def test_a_head_of_no_numbers_is_none_at_all(tmp_path):
    name, sizes = "resnet10", (3, 2, 0)
    shapes = weights.variable_shapes({"name": name, "width_multiplier": 0.125}, sizes)
    variables = traverse_util.unflatten_dict({path: np.ones(shape, np.float32) for path, shape in shapes.items()})
    config = {"name": "x", "face_model": "", "image_size": 96, "encoder": {"name": name, "width_multiplier": 0.125}}
    original = weights.EncoderWeights(config, sizes, variables)
    weights.write_safetensors(tmp_path / "x.safetensors", original)
    conversion.convert_weights(tmp_path / "x.safetensors", tmp_path / "run")
    for path in (tmp_path / "x.safetensors", tmp_path / "run"):
        again = read_encoder(path)
        assert (again.head_sizes, again.config) == (sizes, config)
        assert jax.tree.map(np.shape, again.variables) == jax.tree.map(np.shape, variables)


@pytest.mark.slow
def test_an_encoder_of_a_run_is_read_from_its_file(tmp_path):
    settings = {"name": "resnet10", "width_multiplier": 0.125, "initial": "imagenet.pth"}  # as configs have it
    shapes = weights.variable_shapes(settings, (3, 2, 3))
    variables = traverse_util.unflatten_dict({path: np.ones(shape, np.float32) for path, shape in shapes.items()})
    config = {"name": "x", "face_model": "toy", "image_size": 32, "encoder": settings}
    weights.write_safetensors(tmp_path / "x.safetensors", weights.EncoderWeights(config, (3, 2, 3), variables))
    predict, _, again = load_encoder(tmp_path / "x.safetensors", model=toy_model())
    assert predict(np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, 3 + 2 + 3 + 33)
    assert again.encoder.initial == "imagenet.pth"


@pytest.mark.slow
def test_heads_start_where_their_sizes_agree(mobilenet_file):
    shapes = weights.variable_shapes({"name": "mobilenet_v3_large"}, (3, 9, 3))
    fresh = traverse_util.unflatten_dict({path: np.zeros(shape, np.float32) for path, shape in shapes.items()})
    optimizer = create_optimizer(1e-3, steps=10)
    state = TrainState(np.zeros((), np.int32), fresh["params"], fresh["batch_stats"], optimizer.init(fresh["params"]))
    begun, taken = initial_state(state, optimizer, mobilenet_file)
    assert taken.startswith("the backbone and 6 of 7 heads")
    stored = load_file(mobilenet_file)
    np.testing.assert_array_equal(begun.params["final_layers_2"]["bias"], stored["final_layers.2.bias"])
    assert not begun.params["final_layers_1"]["kernel"].any()
    other = traverse_util.unflatten_dict({("params", "backbone", "conv1", "kernel"): np.zeros((7, 7, 3, 64))})
    wrong = TrainState(np.zeros(()), other["params"], {}, ())
    with pytest.raises(InputError, match=r"'mobilenet_v3_large', which are not those that config.encoder asks for"):
        initial_state(wrong, optimizer, mobilenet_file)


@pytest.mark.slow
@pytest.mark.parametrize(("mark", "network"), [("layer1.0.prelu.weight", "iresnet"), ("context.dualgcn.x", "DML-CSR")])
def test_other_networks_are_checked_by_their_own_modules(tmp_path, mark, network):
    save_file({mark: np.zeros(3, np.float32)}, tmp_path / "in.safetensors")
    assert weight_files.is_weights(tmp_path / "in.safetensors")
    with pytest.raises(InputError, match=rf"in.safetensors: .*(?i:{network}).*missing"):
        conversion.convert_weights(tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    with pytest.raises(InputError, match=r"only encoders become checkpoint folders"):
        conversion.convert_weights(tmp_path / "in.safetensors", tmp_path / "out")
    assert not (tmp_path / "out.safetensors").exists()


def test_dlibs_network_is_converted(tmp_path):
    pytest.importorskip("face_recognition_models", reason="needs the extra `perceptual`")
    from jaxface.files.dlib_file import read_dlib_network
    from jaxface.networks.dlib_resnet import dlib_variables
    from jaxface.networks.face_recognition import dlib_path

    assert weight_files.is_weights(dlib_path())
    summary = conversion.convert_weights(dlib_path(), tmp_path / "dlib.safetensors")
    assert "face recognition network" in summary
    expected = traverse_util.flatten_dict(dlib_variables(read_dlib_network(dlib_path())), sep=".")
    found = load_file(tmp_path / "dlib.safetensors")
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(found["params.fc.kernel"], expected["params.fc.kernel"])


def test_only_weights_are_taken_for_weights(tmp_path):
    save_file({"mean_shape": np.zeros((3, 3), np.float32)}, tmp_path / "model.safetensors")
    np.savez(tmp_path / "model.npz", mean_shape=np.zeros(3))
    (tmp_path / "broken.safetensors").write_bytes(b"\x07\0\0\0\0\0\0\0{nonsense")
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "empty").touch()
    for path in [*tmp_path.iterdir(), tmp_path, tmp_path / "nowhere"]:
        assert not weight_files.is_weights(path)
    with zipfile.ZipFile(tmp_path / "torch.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    assert weight_files.is_weights(tmp_path / "torch.pth")


@pytest.mark.parametrize("metadata", [
    {"encoder": "{"}, {"encoder": "[" * 100_000}, {"encoder": '{"name": 3}'}, {"encoder": '{"no": 1}'},
    {"image_size": "x"}, {"head_sizes": "[1, 2]"}, {"head_sizes": "[1, 2, -3]"}, {"head_sizes": '{"a": 1}'},
    {"image_size": "0"}, {"encoder": '{"name": "mobilenet_v3_large", "width_multiplier": 1e300}'},
    {"encoder": '{"name": "mobilenet_v3_large", "width_multiplier": "wide"}'},
    {"encoder": '{"name": "mobilenet_v3_large", "unknown": 1}'}, {"encoder": '{"name": "resnet50"}'},
])  # fmt: skip
def test_metadata_that_make_no_sense_are_refused(mobilenet_file, tmp_path, metadata):
    save_file(load_file(mobilenet_file), tmp_path / "x.safetensors", metadata=metadata)
    with pytest.raises(InputError, match=r"x.safetensors: ") as error:
        read_encoder(tmp_path / "x.safetensors")
    assert len(str(error.value)) < 2000


def test_corrupt_safetensors_never_crash(mobilenet_file, tmp_path):
    state = {name: value for name, value in load_file(mobilenet_file).items() if value.size < 100}
    save_file(state, tmp_path / "whole.safetensors", metadata={"format": weight_files.FORMAT})
    whole = (tmp_path / "whole.safetensors").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole[: random.integers(len(whole))] if random.random() < 0.3 else whole)
        for place in random.integers(0, max(1, len(damaged) // 3), 4):
            if damaged:
                damaged[place] = random.integers(256)
        (tmp_path / "x.safetensors").write_bytes(damaged)
        weight_files.is_weights(tmp_path / "x.safetensors")
        with pytest.raises(InputError):
            weights.encoder_from_torch(weight_files.read_state(tmp_path / "x.safetensors"))


def test_where_to_write_is_checked_first(mobilenet_file, tmp_path):
    with pytest.raises(InputError, match=r"X.safetensors, X.onnx, or as a folder"):
        conversion.convert_weights(mobilenet_file, tmp_path / "x.npz")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="is there already"):
        conversion.convert_weights(mobilenet_file, tmp_path / "full")
    with pytest.raises(InputError, match="no such file"):
        conversion.convert_weights(tmp_path / "nowhere.pth", tmp_path / "x.safetensors")
