"""Faces that the train step draws itself: the same as those on disk, each only once, and a run that resumes exactly."""

import json

import jax
import numpy as np
import pytest

from jaxface import train as training
from jaxface.models.native import write_face_model
from jaxface.synthetic.source import Painter, generate_samples
from jaxface.training import parallel
from jaxface.training.data import drawn_in_step, make_training_data
from toys.models import toy_model
from toys.training import toy_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]
SIZE, SEED = 32, 5


@pytest.mark.parametrize("kind", ["pmap", "sharded"])
def test_devices_draw_the_samples_that_the_seed_has(kind):
    mapping, model = parallel.mapping(kind), toy_model()
    step = mapping.compile(drawn_in_step(lambda state, batch, constants: (state + constants, _sums(batch)), size=SIZE))
    constants = np.float32(2), Painter.of(model, seed=SEED)
    numbers = np.arange(3, 11, dtype=np.int32)
    state, found = step(
        mapping.replicate(np.float32(1)), mapping.shard({"index": numbers}), mapping.replicate(constants)
    )
    assert mapping.fetch(state) == 3
    expected = _sums(generate_samples(model, seed=SEED, count=8, size=SIZE, start=3), summed=np.sum)
    found = mapping.fetch(found)
    np.testing.assert_allclose(found["landmarks"], expected["landmarks"], rtol=1e-4)
    np.testing.assert_allclose(found["coefficients"], expected["coefficients"], rtol=1e-4)
    assert abs(found["labels"] - expected["labels"]) < 1e-3 * expected["labels"]


def _sums(batch, *, summed=None):
    """Of each entry, over all devices: what a mapped step can tell."""
    own = summed or (lambda values: jax.lax.psum(values.sum(), parallel.AXIS))
    return {name: own(abs(values.astype(np.float32))) for name, values in batch.items()}


def test_every_number_comes_once_from_any_step():
    config = toy_config(**{"data.source": "drawn", "image_size": SIZE, "data.held_out": 2})
    batches, held_out = make_training_data(config, toy_model())
    first = [next(batches)["index"] for _ in range(3)]
    np.testing.assert_array_equal(np.concatenate(first), np.arange(24))
    assert len(held_out) == 2
    again, _ = make_training_data(config, toy_model(), start=3)
    np.testing.assert_array_equal(next(again)["index"], np.arange(24, 32))


def test_a_run_that_draws_learns_and_goes_on_where_it_stopped(tmp_path):
    write_face_model(toy_model(), tmp_path / "toy.npz")
    changes = {"face_model": str(tmp_path / "toy.npz"), "data.source": "drawn", "image_size": SIZE, "data.held_out": 4}
    whole = training.train(toy_config(**changes, output_dir=str(tmp_path / "whole")))
    assert 0 < whole["encoder"]["part_iou"] < 1
    with pytest.MonkeyPatch.context() as patch:  # stopped at step 6, after the checkpoint of step 4
        advance = training.RunLog.advance
        patch.setattr(training.RunLog, "advance", lambda log: _stop_after(log, advance, 6))
        with pytest.raises(KeyboardInterrupt):
            training.train(toy_config(**changes, output_dir=str(tmp_path / "stopped")))
    training.train(toy_config(**changes, output_dir=str(tmp_path / "stopped")))
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "stopped")]
    assert logs[0] == logs[1] and logs[0].count("\n") == 6


def test_a_run_goes_on_with_other_rates_clipping_logging_and_steps(tmp_path, capsys):
    """As the message after a loss that is not finite advises."""
    write_face_model(toy_model(), tmp_path / "toy.npz")
    changes = {"face_model": str(tmp_path / "toy.npz"), "data.source": "drawn", "image_size": SIZE, "data.held_out": 4}
    changes |= {"steps": 4, "output_dir": str(tmp_path / "run")}
    training.train(toy_config(**changes))
    changes |= {"steps": 6, "log_every": 1, "checkpoint_every": 1, "max_skipped_steps": 1, "parallel": "sharded"}
    config = toy_config(**changes, **{"optimizer.learning_rate": 1e-4, "optimizer.clip_norm": 0.1})
    assert training.train(config)["steps"] == 6
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (change,) = [record for record in records if "changed" in record]
    assert change["step"] == 4 and change["changed"]["optimizer.learning_rate"] == [1.2e-3, 1e-4]
    assert [record["step"] for record in records if "loss" in record] == [2, 4, 5, 6]
    assert "Changed: " in capsys.readouterr().out


def _stop_after(log, advance, steps):
    log.seen = getattr(log, "seen", 0) + 1
    if log.seen == steps:
        raise KeyboardInterrupt
    advance(log)
