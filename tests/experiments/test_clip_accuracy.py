"""What the experiment acts out and how it measures; the drawing and the fit take minutes."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from jaxface import load_face_model
from jaxface.core.coefficients import vector_columns, vector_size

RUN = Path(__file__).parents[2] / "experiments" / "clip_accuracy" / "run.py"


@pytest.fixture(scope="module")
def run():
    specification = importlib.util.spec_from_file_location("clip_accuracy", RUN)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model():
    return load_face_model("anny")


@pytest.fixture(scope="module")
def truth(run, model):
    expression, angles = run.acted(model.expression_labels)
    vectors = np.zeros((run.FRAMES, vector_size(model)), np.float32)
    columns = vector_columns(model)
    vectors[:, columns["expression"]], vectors[:, columns["angles"]] = expression, angles
    return vectors


def test_the_truth_closes_its_lids_and_has_no_error(run, model, truth):
    told = run.measure(model, truth, truth)
    assert told["quick blink"] < 0 and told["slow blink"] < 0  # at 1, the lids lie over one another
    assert told["open height, of the true"] == pytest.approx(1)
    assert all(told[name] < 1e-5 for name in ("open, off by", "gaze, degrees", "corners in a smile, mm"))


def test_a_face_that_stays_still_misses_all(run, model, truth):
    still = np.tile(truth[:1], (run.FRAMES, 1))
    told = run.measure(model, truth, still)
    assert told["quick blink"] == told["slow blink"] == pytest.approx(1, abs=1e-4)
    sideways, upright = (np.abs(np.sin(2 * np.pi * np.arange(count) / count)) for count in (20, 10))
    turned = np.r_[22 * sideways, 15 * upright].mean()
    assert told["gaze while it moves"] == pytest.approx(turned, 0.01)
    assert told["corners in a smile, mm"] > 4
