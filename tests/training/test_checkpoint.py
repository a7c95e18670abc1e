import dataclasses
import json
import shutil

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
    return toy_config(face_model=str(path), image_size=SIZE, steps=12)


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


@pytest.fixture(scope="module")
def run(config, fresh_state, tmp_path_factory):
    """A run's folder with the checkpoints of steps 4 (the best), 8 and 12; 2 has been dropped."""
    folder = tmp_path_factory.mktemp("run")
    checkpoints = Checkpoints(folder, config)
    for step, iou in ((2, 0.1), (4, 0.9), (8, 0.2), (12, 0.3)):
        checkpoints.save(_state_at(fresh_state, step), {"part_iou": iou, "vertex_error_mm": float("nan")})
    checkpoints.close()
    return folder


def _equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.slow
def test_the_best_and_the_latest_two_are_kept(run):
    assert sorted(int(path.name) for path in (run / FOLDER).iterdir()) == [4, 8, 12]


@pytest.mark.slow
def test_restore_gives_back_the_state(run, config, fresh_state):
    checkpoints = Checkpoints(run, config)
    state = checkpoints.restore(fresh_state)
    checkpoints.close()
    assert checkpoints.changes == {}
    _equal(state, _state_at(fresh_state, 12))


def test_a_run_from_before_clipping_could_change_is_restored(config, fresh_state, tmp_path):
    """Its optimizer had no part that clips, and its checkpoint tells of no machine."""
    saved = _state_at(fresh_state, 4)
    checkpoints = Checkpoints(tmp_path, config)
    checkpoints.save(dataclasses.replace(saved, opt_state=saved.opt_state[1]), {})
    checkpoints.close()
    shutil.rmtree(tmp_path / FOLDER / "4" / "machine")
    checkpoints = Checkpoints(tmp_path, config)
    _equal(checkpoints.restore(fresh_state), saved)
    checkpoints.close()
    assert checkpoints.changes == {}


@pytest.mark.slow
def test_checkpoints_of_another_edition_of_the_face_model_are_refused(run, config):
    model = toy_model()
    other = dataclasses.replace(model, albedo_basis=np.repeat(model.albedo_basis, 2, axis=-1))
    checkpoints = Checkpoints(run, config)
    with pytest.raises(InputError, match=r"another edition of the face model '.*toy.npz'.*choose another"):
        checkpoints.restore(_fresh_state(config, other))
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
        Checkpoints(copy, config).restore(fresh_state)
    shutil.rmtree(copy / FOLDER / "12")
    checkpoints = Checkpoints(copy, config)
    assert int(checkpoints.restore(fresh_state).step) == 8
    checkpoints.close()


def test_what_a_killed_run_left_is_no_checkpoint(run, config, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    shutil.copytree(copy / FOLDER / "12", copy / FOLDER / "16.orbax-checkpoint-tmp")
    assert load_encoder(copy, which="latest")[1].name == "toy"
    checkpoints = Checkpoints(copy, config)
    assert checkpoints.latest_step == 12
    checkpoints.close()


FREE = {
    "optimizer.learning_rate": 0.5, "optimizer.schedule": "constant", "optimizer.warmup_steps": 1,
    "optimizer.clip_norm": None, "steps": 20, "log_every": 1, "checkpoint_every": 5, "max_skipped_steps": 3,
    "data.workers": 2, "parallel": "sharded", "multi_host": True, "name": "again",
}  # fmt: skip


def _changed(config, changes):
    other = ConfigDict(config_to_dict(config), type_safe=False)
    other.update_from_flattened_dict(changes)
    return other


@pytest.mark.parametrize("name", FREE)
def test_what_may_change_on_resume_does_and_is_told(run, config, name):
    checkpoints = Checkpoints(run, _changed(config, {name: FREE[name]}))
    checkpoints.close()
    assert checkpoints.changes == {name: (_before(config, name), FREE[name])}


def _before(config, name):
    for part in name.split("."):
        config = config[part]
    return config


def test_moved_folders_and_paths_that_are_spelled_differently_are_no_change(run, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.npz").symlink_to(config.face_model)
    for model in ("link.npz", f"../{tmp_path.name}/./link.npz"):
        changes = {"output_dir": "elsewhere", "cache_dir": "other", "face_model": model, "encoder.initial": "x"}
        checkpoints = Checkpoints(run, _changed(config, changes))
        checkpoints.close()
        assert checkpoints.changes == {}


def test_relative_paths_are_seen_from_the_folder_that_they_were_given_in(config, fresh_state, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    checkpoints = Checkpoints(tmp_path / "run", _changed(config, {"data.path": "photos"}))
    checkpoints.save(_state_at(fresh_state, 4), {})
    checkpoints.close()
    monkeypatch.chdir(tmp_path / "other")
    checkpoints = Checkpoints(tmp_path / "run", _changed(config, {"data.path": "../photos"}))
    checkpoints.close()
    assert checkpoints.changes == {}
    with pytest.raises(InputError, match=r"config.data.path was 'photos', is '../other': it settles which samples"):
        Checkpoints(tmp_path / "run", _changed(config, {"data.path": "../other"}))


def test_other_devices_are_told(run, config, monkeypatch):
    devices = jax.device_count()
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    checkpoints = Checkpoints(run, config)
    checkpoints.close()
    assert checkpoints.changes == {"devices": (devices, 2)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 16}, "config.batch_size was 8, is 16: it settles which samples"),
        ({"data.held_out": 9}, "config.data.held_out was 8, is 9: it settles which samples"),
        ({"seed": 5}, "config.seed was 0, is 5: it settles which samples"),
        ({"face_model": "anny"}, "toy.npz', is 'anny': coefficients of another face model mean something else"),
        ({"encoder.width_multiplier": 1.0}, "was 0.125, is 1.0: the saved weights are this network's"),
        ({"loss.landmark": 1.0}, "is 1.0: the figures before and after would be of different objectives"),
        ({"image_size": 64}, "config.image_size was 32, is 64: the saved weights were learned at this size"),
        ({"steps": 8}, "stands at step 12: config.steps is 8, too few"),
    ],
)
def test_what_may_not_change_on_resume_says_why(run, config, changes, message):
    with pytest.raises(InputError) as error:
        Checkpoints(run, _changed(config, changes))
    assert message in str(error.value)
    assert "steps" in changes or f"--config.encoder.initial={run}" in str(error.value)


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
