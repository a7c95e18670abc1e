"""Encoders as ONNX files: onnxruntime gives JAX's numbers, the file says what is what, and what goes wrong."""

import json
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from jaxface import convert
from jaxface.core import parts
from jaxface.core.coefficients import vector_columns
from jaxface.core.errors import InputError, MissingDependencyError
from jaxface.core.surface_points import spread_points
from jaxface.files.command_line import run
from jaxface.networks.checkpoints import read_encoder, save_encoder
from jaxface.networks.encoder import ENCODERS, create_encoder
from jaxface.networks.onnx_files import FORMAT, OPSET, OUTPUTS, write_onnx
from jaxface.networks.people_answer import PeopleAnswer
from jaxface.networks.people_weights import write_people_file
from jaxface.networks.weights import EncoderWeights, write_safetensors
from toys.documents import ROOT, read_blocks
from toys.models import toy_model

SIZE = 64
SIZES = (3, 2, 3)  # of toy faces
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def onnxruntime():
    pytest.importorskip("jax2onnx", reason="needs jaxface[onnx]: jax2onnx")
    return pytest.importorskip("onnxruntime", reason="needs jaxface[onnx]: onnxruntime")


def _weights(name, **settings):
    """Random weights, none of them zero, with which features neither vanish nor explode."""
    settings = {"name": name, "width_multiplier": 0.125} | settings
    module = create_encoder(name, SIZES, width_multiplier=0.125)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)), train=False))
    random = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return random.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 100
        return random.normal(0, np.sqrt(2 / fan_in), leaf.shape).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, variables)
    return EncoderWeights({"face_model": "anny", "image_size": SIZE, "encoder": settings}, SIZES, variables)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An encoder of each family, in each kind of file: a checkpoint, .safetensors, a people network's."""
    folder = tmp_path_factory.mktemp("encoders")
    save_encoder(folder / "resnet10", _weights("resnet10", dtype="bfloat16"))
    write_safetensors(folder / "mobilenet_v3_large.safetensors", _weights("mobilenet_v3_large"))
    write_people_file(folder / "people10.safetensors", _weights("people10"))
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def mobilenet(onnxruntime, files, tmp_path_factory):
    """The ONNX file of one of them."""
    path = tmp_path_factory.mktemp("mobilenet") / "face.onnx"
    write_onnx(files["mobilenet_v3_large"], path)
    return path


def _answer(path, images):
    """JAX's numbers, in float32."""
    weights = read_encoder(path)
    settings = dict(weights.config["encoder"], dtype="float32")
    module = create_encoder(settings.pop("name"), SIZES, **settings)
    found = jax.jit(lambda variables, images: module.apply(variables, images, train=False))(weights.variables, images)
    if isinstance(found, PeopleAnswer):
        return [found.vector, found.log_spread, found.logits, *found.points]
    return [found]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet10", "mobilenet_v3_large", "people10"])
def test_onnxruntime_gives_the_same_numbers_and_the_file_says_what_they_are(
    onnxruntime, files, name, tmp_path, capfd, anny
):
    out = tmp_path / "new" / f"{name}.onnx"
    assert convert.main([str(files[name]), str(out)]) == 0
    printed = capfd.readouterr()
    assert f"encoder {name}" in printed.out and f"written: {out}" in printed.out and printed.err == ""
    assert "image [N, 64, 64, 3] -> coefficients [N, 41]" in printed.out
    assert [path.name for path in out.parent.iterdir()] == [out.name]

    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert names == list(OUTPUTS if name == "people10" else OUTPUTS[:1])
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(float)", ["N", SIZE, SIZE, 3])
    for batch in (1, 3):
        images = np.random.default_rng(batch).random((batch, SIZE, SIZE, 3), np.float32)
        found, expected = session.run(None, {"image": images}), _answer(files[name], images)
        for one, other, output in zip(found, expected, session.get_outputs(), strict=True):
            assert one.shape == other.shape and output.shape == ["N", *other.shape[1:]]
            assert np.abs(one - other).max() < 1e-4 * np.abs(other).max() and one.std() > 0
    assert capfd.readouterr().err == ""  # onnxruntime would complain of shapes there

    told = session.get_modelmeta().custom_metadata_map
    assert (told["format"], told["face_model"], told["image_size"]) == (FORMAT, "anny", str(SIZE))
    columns = vector_columns(toy_model())
    sizes = {group: columns[group].stop - columns[group].start for group in columns}
    assert list(json.loads(told["coefficients"]).items()) == list(sizes.items())
    if name == "people10":
        assert json.loads(told["classes"]) == list(parts.CLASSES)
        assert json.loads(told["surface"]) == spread_points(anny).tolist()
    else:
        assert "classes" not in told


@pytest.mark.slow
def test_operations_are_few_and_old_enough_for_browsers(mobilenet):
    import onnx

    model = onnx.load(mobilenet)
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", OPSET)]
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    groups = [attribute.i for node in convolutions for attribute in node.attribute if attribute.name == "group"]
    assert sum(count > 1 for count in groups) == 15  # each depthwise convolution is one operation


@pytest.mark.slow
def test_the_lines_of_the_documentation_run(mobilenet, files, monkeypatch):
    monkeypatch.chdir(mobilenet.parent)
    pixels = np.random.default_rng(0).integers(256, size=(SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("crop.png")
    block = [block for block in read_blocks(ROOT / "docs" / "onnx.md") if block.language == "python"][-1]
    assert len([line for line in block.text.splitlines() if line]) == 7
    names = {}
    exec(block.text, names)
    (vector,) = _answer(files["mobilenet_v3_large"], pixels[None].astype(np.float32) / 255)
    for group, columns in vector_columns(toy_model()).items():
        np.testing.assert_allclose(names["groups"][group], vector[:, columns], atol=1e-4 * np.abs(vector).max())


@pytest.mark.slow
def test_other_numbers_are_an_error_and_no_file_is_left(onnxruntime, files, tmp_path, monkeypatch):
    class Session(onnxruntime.InferenceSession):
        def run(self, *arguments):
            return [numbers * 1.001 for numbers in super().run(*arguments)]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    with pytest.raises(InputError, match=r"its coefficients would differ from JAX's by 1\.0e-03 of the largest; 1e-04"):
        write_onnx(files["resnet10"], tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_operation_without_translation_is_told(onnxruntime, tmp_path, monkeypatch):
    class Backbone(nn.Module):
        width_multiplier: float
        axis_name: str | None
        dtype: jnp.dtype

        @nn.compact
        def __call__(self, image, *, train):
            return jax.lax.platform_dependent(nn.Conv(8, (3, 3), use_bias=False)(image), cpu=jnp.sin, default=jnp.cos)

    monkeypatch.setitem(ENCODERS, "toy", Backbone)
    save_encoder(tmp_path / "run", _weights("toy"))
    with pytest.raises(InputError, match=r"run: jax2onnx does not translate one of .*platform_index"):
        write_onnx(tmp_path / "run", tmp_path / "a.onnx")


@pytest.fixture
def packages(monkeypatch):
    """Stand-ins for those of the extra `onnx`, for what is found out before they are used."""
    for package in ("jax2onnx", "onnx_ir", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))


@pytest.mark.parametrize("package", ["jax2onnx", "onnxruntime"])
def test_a_missing_package_is_told_in_one_line(packages, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError) as error:
        write_onnx("run", tmp_path / "a.onnx")
    assert str(error.value) == f"an ONNX file needs {package}; run: pip install 'jaxface[onnx]'"
    assert not list(tmp_path.iterdir())


def _fails(capsys, *arguments):
    """The one line that the command ends with."""
    with pytest.raises(SystemExit) as end:
        run(lambda: convert.main([str(argument) for argument in arguments]))
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1, error
    return error


def test_what_is_no_encoder_is_told_in_one_line(packages, tmp_path, capsys):
    empty, out = tmp_path / "empty", tmp_path / "a.onnx"
    (empty / "checkpoints").mkdir(parents=True)
    assert f"{empty}: holds no complete checkpoint" in _fails(capsys, empty, out)
    assert f"{tmp_path / 'no'}: no such folder" in _fails(capsys, tmp_path / "no", out)
    assert "X.safetensors, X.onnx, or as a folder" in _fails(capsys, empty / "checkpoints", tmp_path / "a.tflite")
    weights = _weights("resnet10")
    backbone = {key: {"backbone": tree["backbone"]} for key, tree in weights.variables.items()}
    write_safetensors(tmp_path / "backbone.safetensors", EncoderWeights(weights.config, (), backbone))
    assert "holds a backbone without heads" in _fails(capsys, tmp_path / "backbone.safetensors", out)
    wrong = EncoderWeights(weights.config | {"encoder": {"name": "resnet18"}}, SIZES, weights.variables)
    save_encoder(tmp_path / "wrong", wrong)
    assert "are not those that config.encoder asks for" in _fails(capsys, tmp_path / "wrong", out)
    assert not out.exists()
