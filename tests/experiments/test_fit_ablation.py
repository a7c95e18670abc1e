"""Variants of the fit leave out what they say, and the whole runs on two people."""

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxface
from jaxface.core.coefficients import column_mask, vector_size
from jaxface.fitting import people_prior
from jaxface.fitting.first_look import FirstLook

FOLDER = Path(__file__).parents[2] / "experiments" / "fit_ablation"


@pytest.fixture(scope="module")
def experiment():
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("variants")
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("variants", None)


def test_each_variant_leaves_out_one_thing(experiment):
    found = {variant.title: variant for variant in experiment.variants()}
    assert len(found) == len(experiment.variants())
    for title, variant in found.items():
        usual = found["estimate" if title.startswith("estimate") else "fit"]
        own, others = dataclasses.asdict(variant), dataclasses.asdict(usual)
        own |= own.pop("weights")
        others |= others.pop("weights")
        changed = {name for name, value in own.items() if value != others[name]} - {"title"}
        if title.startswith("PRDL on"):
            assert changed == {"vertices", "prdl"}
        else:
            assert len(changed) == (variant is not usual), title


def test_half_a_look_holds_the_other_half_of_nothing(experiment):
    model = jaxface.load_face_model("anny")
    prior, size = people_prior(model), vector_size(model)
    random = np.random.default_rng(0)
    deviations = np.full((2, size), 0.5, np.float32)
    look = FirstLook(
        model, random.normal(size=(2, size)), deviations, *(np.ones((2, 5, n)) for n in (2, 3)), np.ones((2, 5))
    )
    answer = experiment.part_of_look(look, "answer", model, prior)
    assert not np.asarray(answer.weight).any() and answer.vectors is look.vectors
    points = experiment.part_of_look(look, "points", model, prior)
    shape = column_mask(model, "identity", "expression")
    assert not np.asarray(points.vectors)[:, shape].any() and np.asarray(points.weight).all()
    np.testing.assert_array_equal(np.asarray(points.vectors)[:, ~shape], look.vectors[:, ~shape].astype(np.float32))
    columns = np.flatnonzero(column_mask(model, "identity"))
    mean, deviation = points.identity(columns, np.ones(2), prior.deviation[columns])
    np.testing.assert_allclose(mean, 0, atol=1e-6)
    np.testing.assert_allclose(deviation, prior.deviation[columns], rtol=1e-5)
    columns = np.flatnonzero(column_mask(model, "expression"))
    np.testing.assert_allclose(points.expression(columns)[1][0], prior.deviation[columns], rtol=1e-5)


@pytest.mark.slow
def test_quick_run(tmp_path):
    command = [sys.executable, str(FOLDER / "run.py"), "--quick", "--work", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = json.loads((tmp_path / "results.json").read_text())["lines"]
    assert list(lines) == ["mean face", "encoder alone", "estimate", "estimate without the first look"]
    assert all(0 < line["iou"] < 1 and 0.5 < line["mm"] < 8 for line in lines.values())
    assert lines["mean face"]["iou"] < lines["estimate"]["iou"]
    assert "| estimate |" in done.stdout
