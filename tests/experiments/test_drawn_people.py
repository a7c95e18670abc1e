"""The experiment's own measures: colours, what counts as found, and the tables."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "experiments" / "drawn_people" / "run.py"


@pytest.fixture(scope="module")
def experiment():
    spec = importlib.util.spec_from_file_location("drawn_people_run", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_colours_are_those_of_cielab(experiment):
    color = pytest.importorskip("skimage.color")
    colors = np.random.default_rng(0).uniform(size=(50, 3))
    np.testing.assert_allclose(experiment.lab(colors), color.rgb2lab(colors), atol=0.1)


def drawn_face():
    truth = np.random.default_rng(1).uniform(100, 300, (68, 2)).astype(np.float32)
    truth[[36, 45]] = [[150, 200], [250, 200]]  # the outer corners of the eyes
    truth[8], truth[[19, 24]] = [200, 330], [[170, 180], [230, 180]]
    visible = np.ones(68, np.float32)
    visible[17:27] = 0
    classes = np.full((4, 4), 8)
    return {"landmarks": truth, "landmark_visible": visible, "classes": classes, "image": None}


def test_errors_are_in_per_cent_of_the_eye_distance(experiment, monkeypatch):
    drawn = drawn_face()
    right = SimpleNamespace(landmarks68=drawn["landmarks"] + [3, 0])
    wrong = SimpleNamespace(landmarks68=drawn["landmarks"] + [90, 0])
    monkeypatch.setattr(experiment, "detect_faces", lambda _: [wrong, right])
    row = experiment.judged(drawn, -12.0)
    assert row["found"] and row["yaw"] == 12
    np.testing.assert_allclose([row["inner"], row["outline"]], 3.0, rtol=1e-4)
    np.testing.assert_allclose(row["hidden"], 10 / 51, rtol=1e-4)
    monkeypatch.setattr(experiment, "detect_faces", lambda _: [wrong])
    assert not experiment.judged(drawn, 0.0)["found"]
    monkeypatch.setattr(experiment, "detect_faces", lambda _: [])
    assert not experiment.judged(drawn, 0.0)["found"]


def test_tables_count_all_and_measure_those_found(experiment):
    rows = [{"found": True, "inner": 2.0, "outline": 5.0}, {"found": False, "inner": np.inf, "outline": np.inf}]
    assert experiment.summary(rows) == {"people": 2, "found": 0.5, "inner": 2.0, "outline": 5.0}
    assert np.isnan(experiment.summary([])["inner"])
