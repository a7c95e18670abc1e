"""The shipped network's recipe, tiny: it learns from people, and a run that was killed ends with the same weights."""

import jax
import numpy as np
import pytest

from jaxface import train as training
from jaxface.core.errors import InputError
from jaxface.networks.checkpoints import read_encoder
from jaxface.training.data import make_training_data
from toys.models import toy_model
from toys.training import toy_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]
SMALL = {"encoder.name": "people10", "image_size": 32, "data.drawn_size": 48, "data.count": 16, "data.held_out": 4}


def test_the_recipe_learns_and_resumes_to_the_same_bit(tmp_path, monkeypatch):
    config = toy_config(
        "encoder_people", **SMALL, cache_dir=str(tmp_path / "cache"), output_dir=str(tmp_path / "whole")
    )
    results = training.train(config)
    assert {"part_iou", "parser_iou", "surface_points_px", "seen_accuracy"} <= results["encoder"].keys()
    advance, seen = training.RunLog.advance, []

    def stop(log):
        seen.append(1)
        if len(seen) == 6:  # after the checkpoint of step 4
            raise KeyboardInterrupt
        advance(log)

    config.output_dir = str(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(training.RunLog, "advance", stop)
        with pytest.raises(KeyboardInterrupt):
            training.train(config)
    assert training.train(config)["encoder"] == results["encoder"]
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "stopped")]
    assert logs[0] == logs[1]
    whole, stopped = (read_encoder(tmp_path / name, which="latest").variables for name in ("whole", "stopped"))
    jax.tree.map(np.testing.assert_array_equal, whole, stopped)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data.people": "some"}, "choose 'all', 'learned' or ''"),
        ({"data.drawn_size": 16}, "crops have 32 pixels"),
        ({}, "no people to draw for the face model 'toy'"),
    ],
)
def test_data_that_cannot_be_drawn_is_named(change, message):
    config = toy_config("encoder_people", **SMALL | change)
    with pytest.raises(InputError, match=message):
        make_training_data(config, toy_model())
