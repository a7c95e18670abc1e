"""The experiment's sums, on answers whose errors are known."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import jaxface
from jaxface.core import parts
from jaxface.core.coefficients import vector_columns, vector_size
from jaxface.networks.people_answer import PeopleAnswer, PointsFound

PATH = Path(__file__).parents[2] / "experiments" / "people_network" / "run.py"
COUNT, POINTS, SIZE = 40, 68 + 320, 32


@pytest.fixture(scope="module")
def run():
    spec = importlib.util.spec_from_file_location("people_network_run", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def known():
    """A model, people, and answers that err by 2 % of the side and by 0.3 in every coefficient, and say so."""
    model, random = jaxface.load_face_model("anny"), np.random.default_rng(0)
    truth = random.uniform(0, 1, (COUNT, POINTS, 2))
    batch = {
        "image": np.zeros((COUNT, SIZE, SIZE, 3), np.uint8),
        "coefficients": random.normal(size=(COUNT, vector_size(model))),
        "landmarks": SIZE * truth[:, :68],
        "surface_points": SIZE * truth[:, 68:],
        "landmark_visible": random.integers(0, 2, (COUNT, 68)).astype(float),
        "surface_visible": random.integers(0, 2, (COUNT, POINTS - 68)).astype(float),
        "classes": random.integers(0, len(parts.CLASSES), (COUNT, SIZE, SIZE), np.uint8),
    }
    whitening = np.zeros((COUNT, POINTS, 3), np.float32)
    whitening[..., :2] = 50
    answer = PeopleAnswer(
        batch["coefficients"] + 0.3 * random.normal(size=batch["coefficients"].shape),
        np.full(batch["coefficients"].shape, np.log(0.3)),
        batch["classes"],
        PointsFound(truth + 0.02 * random.normal(size=truth.shape), whitening, np.ones((COUNT, POINTS))),
    )
    return model, batch, answer


def test_true_uncertainties_are_called_true(run, known):
    model, batch, answer = known
    told = run.calibration(model, answer, batch)
    for name, value in told.items():
        wanted = 0.68 if "68 %" in name else 0.95 if "95 %" in name else 1.0
        assert value == pytest.approx(wanted, abs=0.02 if "ellipse" in name else 0.25), name
    half = answer._replace(log_spread=answer.log_spread - np.log(2))
    assert run.calibration(model, half, batch)["identity: rms error over predicted"] == pytest.approx(2, abs=0.1)


def test_every_person_is_in_a_group_of_each_kind(run, known):
    model, batch, _ = known
    batch = dict(batch)
    angles = vector_columns(model)["angles"]
    batch["coefficients"] = batch["coefficients"].copy()
    batch["coefficients"][:, angles.start + 1] = np.linspace(-1.5, 1.5, COUNT)
    groups = run.groups_of(model, batch)
    for kind in ("yaw", "skin", "hidden"):
        assert sum(group.astype(int) for name, group in groups.items() if name.startswith(kind)).tolist() == [1] * COUNT
    assert groups["yaw 60 to 90"].sum() == 2 * (np.abs(np.degrees(np.linspace(-1.5, 1.5, COUNT))) >= 60).sum() / 2
