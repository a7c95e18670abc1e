"""The file of a network of drawn people: what is written is read, what is damaged is named; and its parser."""

import json

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import jaxface
from jaxface.core.coefficients import vector_sizes
from jaxface.core.errors import InputError
from jaxface.core.surface_points import spread_points
from jaxface.networks import conversion
from jaxface.networks.checkpoints import load_encoder, read_encoder, save_encoder
from jaxface.networks.parser import covariance, load_parser
from jaxface.networks.people_weights import FORMAT, is_people_file, read_people_file, write_people_file
from jaxface.networks.weight_files import is_weights
from jaxface.networks.weights import EncoderWeights, variable_shapes
from jaxface.training.checkpoint import initial_state
from jaxface.training.optimizer import create_optimizer
from jaxface.training.step import TrainState

pytestmark = pytest.mark.usefixtures("quick_compilation")
SETTINGS = {"name": "people10", "width_multiplier": 0.125}
SIZE = 64


@pytest.fixture(scope="module")
def weights():
    model, random = jaxface.load_face_model("anny"), np.random.default_rng(0)
    sizes = vector_sizes(model)[:3]
    tree: dict = {}
    for path, shape in variable_shapes(SETTINGS, sizes).items():
        level = tree
        for name in path[:-1]:
            level = level.setdefault(name, {})
        level[path[-1]] = (
            (random.uniform(0.5, 1.5, shape) if len(shape) < 2 else 0.1 * random.normal(size=shape))
            .astype(np.float16)
            .astype(np.float32)
        )
    config = {"name": "toy", "face_model": "anny", "image_size": SIZE, "encoder": SETTINGS}
    return EncoderWeights(config, sizes, tree)


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("people") / "people.safetensors"
    write_people_file(path, weights)
    return path


def test_a_file_holds_the_network_in_half_precision(weights, file):
    assert is_people_file(file) and not is_people_file(file.parent / "none")
    found, surface = read_people_file(file)
    assert found.config == weights.config and found.head_sizes == weights.head_sizes
    jax.tree.map(np.testing.assert_array_equal, found.variables, weights.variables)
    np.testing.assert_array_equal(surface, spread_points(jaxface.load_face_model("anny")))
    assert all(array.dtype == np.float16 for name, array in load_file(file).items() if name != "surface")
    with safe_open(file, "numpy") as content:
        assert content.metadata()["format"] == FORMAT


def test_runs_become_files_and_files_serve_as_checkpoints(weights, file, tmp_path):
    save_encoder(tmp_path / "run", weights)
    told = conversion.convert_weights(tmp_path / "run", tmp_path / "again.safetensors")
    assert "encoder people10" in told
    assert load_file(tmp_path / "again.safetensors").keys() == load_file(file).keys()
    assert is_weights(file) and "encoder people10" in conversion.convert_weights(file, tmp_path / "folder")
    assert read_encoder(tmp_path / "folder").head_sizes == weights.head_sizes
    predict, model, config = load_encoder(tmp_path / "again.safetensors")
    assert model.name == "anny" and config.image_size == SIZE
    vectors = predict(np.random.default_rng(0).integers(0, 255, (2, SIZE, SIZE, 3), np.uint8))
    assert vectors.shape == (2, sum(weights.head_sizes) + 33) and np.isfinite(vectors).all()


def test_a_training_starts_with_all_that_fits(weights, file):
    optimizer = create_optimizer(1e-3, steps=10)
    params = jax.tree.map(np.zeros_like, weights.variables["params"])
    params["final_layers_0"]["bias"] = np.zeros(3, np.float32)
    state = TrainState(np.int32(0), params, weights.variables["batch_stats"], optimizer.init(params))
    state, told = initial_state(state, optimizer, file)
    assert told.startswith("the backbone and 13 of 14 heads")
    assert state.params["points"]["own"].any() and not state.params["final_layers_0"]["kernel"].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: t.pop("params/points/own"), "params/points/own is missing"),
        (lambda t, m: t.update({"params/points/own": np.zeros((2, 2), np.float16)}), "misshaped.*another version"),
        (lambda t, m: t["params/points/bias"].fill(np.nan), "not finite"),
        (lambda t, m: m.update(config="{"), "make no sense"),
        (lambda t, m: m.update(config=json.dumps({"encoder": {"name": "people99"}})), "cannot be used|make no sense"),
        (lambda t, m: m.update(format="other"), "its format is 'other'"),
        (lambda t, m: t.pop("surface"), "make no sense"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(file, tmp_path, change, message):
    tensors = {name: array.copy() for name, array in load_file(file).items()}
    with safe_open(file, "numpy") as content:
        metadata = dict(content.metadata())
    change(tensors, metadata)
    save_file(tensors, tmp_path / "bad.safetensors", metadata=metadata)
    with pytest.raises(InputError, match=message):
        read_people_file(tmp_path / "bad.safetensors")


def test_weights_that_halves_cannot_hold_are_refused(weights, tmp_path):
    huge = jax.tree.map(lambda array: array * 1e6, weights.variables)
    with pytest.raises(InputError, match="half precision"):
        write_people_file(tmp_path / "huge.safetensors", EncoderWeights(weights.config, weights.head_sizes, huge))
    assert not list(tmp_path.iterdir())


def test_the_parser_tells_of_pictures_of_any_size(weights, file):
    parser = load_parser(file)
    image = np.random.default_rng(0).integers(0, 255, (2, SIZE, SIZE, 3), np.uint8)
    small, large = parser(image), parser(image, size=2 * SIZE)
    assert small.classes.shape == (2, SIZE, SIZE) and large.classes.shape == (2, 2 * SIZE, 2 * SIZE)
    np.testing.assert_allclose(large.points, 2 * small.points, rtol=1e-5)
    np.testing.assert_allclose(large.covariance, 4 * small.covariance, rtol=1e-4)
    assert small.landmarks.shape == (2, 68, 2) and ((small.visible >= 0) & (small.visible <= 1)).all()
    with pytest.raises(ValueError, match=f"{SIZE}, {SIZE}, 3"):
        parser(image[:, :32])
    with pytest.raises(ValueError, match="not 0"):
        parser(image, size=0)
    assert read_encoder(file).head_sizes == weights.head_sizes and covariance(np.ones((1, 3))).shape == (1, 2, 2)


def test_no_crops_have_no_answers(weights, file):
    none = np.zeros((0, SIZE, SIZE, 3), np.uint8)
    assert load_encoder(file)[0](none).shape == (0, sum(weights.head_sizes) + 33)
    parsed = load_parser(file)(none, size=32)
    assert parsed.classes.shape == (0, 32, 32) and parsed.covariance.shape == (0, *parsed.points.shape[1:], 2)
