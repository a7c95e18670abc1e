import dataclasses
import json
import shutil

import grain.python as grain
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxface.core.errors import InputError
from jaxface.core.units import to_float
from jaxface.models.native import write_face_model
from jaxface.networks.checkpoints import FOLDER, config_to_dict, create_configured_encoder, load_encoder
from jaxface.training.checkpoint import Checkpoints
from jaxface.training.optimizer import create_optimizer
from jaxface.training.step import TrainState, create_state
from toys.models import toy_model
from toys.training import SMALL_ENCODER, toy_config

SIZE = 32


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "toy.npz"
    write_face_model(toy_model(), path)
    return toy_config(face_model=str(path), image_size=SIZE)


@pytest.fixture(scope="module")
def fresh_state(config):
    return _fresh_state(config, toy_model())


def _fresh_state(config, model):
    encoder = create_configured_encoder(config, model)
    optimizer = create_optimizer(1e-3, steps=10)
    shapes = jax.eval_shape(lambda: create_state(encoder, optimizer, image_size=SIZE, seed=0))
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


def _state_at(fresh: TrainState, step: int) -> TrainState:
    random = np.random.default_rng(step)
    noisy = jax.tree.map(lambda x: np.asarray(random.uniform(0.1, 0.2, x.shape), x.dtype), fresh)
    return TrainState(np.asarray(step, np.int32), noisy.params, noisy.batch_stats, noisy.opt_state)


def _batches():
    return iter(grain.MapDataset.range(20).shuffle(seed=3).repeat().to_iter_dataset())


@pytest.fixture(scope="module")
def run(config, fresh_state, tmp_path_factory):
    """A run's folder with the checkpoints of steps 4 (the best), 8 and 12; 2 has been dropped."""
    folder = tmp_path_factory.mktemp("run")
    checkpoints, batches = Checkpoints(folder, config), _batches()
    for step, iou in ((2, 0.1), (4, 0.9), (8, 0.2), (12, 0.3)):
        for _ in range(step):
            next(batches)
        checkpoints.save(_state_at(fresh_state, step), batches, {"part_iou": iou, "vertex_error_mm": float("nan")})
    checkpoints.close()
    return folder


def _equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.slow
def test_the_best_and_the_latest_two_are_kept(run):
    assert sorted(int(path.name) for path in (run / FOLDER).iterdir()) == [4, 8, 12]


@pytest.mark.slow
def test_restore_gives_back_the_state_and_the_place_in_the_data(run, config, fresh_state):
    checkpoints, batches = Checkpoints(run, config), _batches()
    state = checkpoints.restore(fresh_state, batches)
    checkpoints.close()
    _equal(state, _state_at(fresh_state, 12))
    expected = _batches()
    for _ in range(2 + 4 + 8 + 12):
        next(expected)
    assert [next(batches) for _ in range(30)] == [next(expected) for _ in range(30)]


@pytest.mark.slow
def test_checkpoints_of_another_edition_of_the_face_model_are_refused(run, config):
    model = toy_model()
    other = dataclasses.replace(model, albedo_basis=np.repeat(model.albedo_basis, 2, axis=-1))
    checkpoints = Checkpoints(run, config)
    with pytest.raises(InputError, match=r"another edition of the face model '.*toy.npz'.*choose another"):
        checkpoints.restore(_fresh_state(config, other), _batches())
    checkpoints.close()


@pytest.mark.slow
@pytest.mark.parametrize(("which", "step"), [("best", 4), ("latest", 12)])
def test_load_encoder(run, config, fresh_state, which, step):
    predict, model, loaded = load_encoder(run, which=which)
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    state = _state_at(fresh_state, step)
    encoder = create_configured_encoder(config, model)
    expected = encoder.apply({"params": state.params, "batch_stats": state.batch_stats}, to_float(images), train=False)
    np.testing.assert_allclose(predict(images), expected, rtol=1e-4, atol=1e-5)
    assert model.name == "toy" and config_to_dict(loaded) == config_to_dict(config)
    for wrong in (images[0], images[:, :16], images.astype(np.float32)):
        with pytest.raises(ValueError, match="uint8 crops"):
            predict(wrong)


def test_load_encoder_takes_the_checkpoints_folder_too(run):
    assert load_encoder(run / FOLDER)[1].name == "toy"


def test_loading_is_silent(run, capfd, caplog):
    load_encoder(run)
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_missing_checkpoints(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_encoder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no complete checkpoint"):
        load_encoder(tmp_path)
    with pytest.raises(ValueError, match="which"):
        load_encoder(tmp_path, which="worst")
    assert not list(tmp_path.iterdir())


def _damage_array(step):
    for path in (step / "encoder").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def _damage_config(step):
    (step / "config" / "metadata").write_text('{"half')


def _remove_items(step):
    shutil.rmtree(step / "encoder")
    shutil.rmtree(step / "config")


@pytest.mark.parametrize("damage", [_damage_array, _damage_config, _remove_items])
def test_a_damaged_checkpoint_is_named(run, config, fresh_state, tmp_path, damage):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    damage(copy / FOLDER / "12")
    with pytest.raises(InputError, match=r"12: the checkpoint cannot be read .* Delete this folder"):
        load_encoder(copy, which="latest")
    with pytest.raises(InputError, match=r"12: the checkpoint cannot be read .* Delete this folder"):
        Checkpoints(copy, config).restore(fresh_state, _batches())
    shutil.rmtree(copy / FOLDER / "12")
    checkpoints = Checkpoints(copy, config)
    assert int(checkpoints.restore(fresh_state, _batches()).step) == 8
    checkpoints.close()


def test_what_a_killed_run_left_is_no_checkpoint(run, config, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    shutil.copytree(copy / FOLDER / "12", copy / FOLDER / "16.orbax-checkpoint-tmp")
    assert load_encoder(copy, which="latest")[1].name == "toy"
    checkpoints = Checkpoints(copy, config)
    assert checkpoints.latest_step == 12
    checkpoints.close()


def test_resuming_with_another_config_is_refused(run, config):
    other = ConfigDict(config_to_dict(config))
    other.output_dir = "elsewhere"  # may change: the folder may have been moved
    Checkpoints(run, other).close()
    other.optimizer.learning_rate = 0.5
    other.batch_size = 7
    with pytest.raises(
        InputError, match=r"config.batch_size was 8, is 7; config.optimizer.learning_rate was .*, is 0.5"
    ):
        Checkpoints(run, other)


def test_runs_from_before_encoder_dtype_go_on_in_float32(run, config):
    newer = ConfigDict(config_to_dict(config))
    newer.encoder.dtype = "float32"
    Checkpoints(run, newer).close()
    newer.encoder.dtype = "bfloat16"
    with pytest.raises(InputError, match=r"config.encoder.dtype was 'float32', is 'bfloat16'"):
        Checkpoints(run, newer)


def test_config_is_plain_json(config):
    assert json.loads(json.dumps(config_to_dict(config))) == config_to_dict(config)


def test_an_unknown_encoder_is_an_input_error(config):
    other = ConfigDict(config_to_dict(config))
    other.encoder = {**SMALL_ENCODER, "name": "resnet19"}
    with pytest.raises(InputError, match=r"config.encoder: unknown encoder 'resnet19'"):
        create_configured_encoder(other, toy_model())
