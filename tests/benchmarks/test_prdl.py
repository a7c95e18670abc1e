"""The PRDL benchmark: every form computes the same loss and gradient, and what is measured is written."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARK = Path(__file__).parent.parent.parent / "benchmarks" / "prdl.py"

_spec = importlib.util.spec_from_file_location("prdl_benchmark", BENCHMARK)
benchmark = importlib.util.module_from_spec(_spec)
with pytest.MonkeyPatch.context() as _patch:
    _patch.syspath_prepend(BENCHMARK.parent)  # as when it runs as a program
    _spec.loader.exec_module(benchmark)


def test_the_definition_has_the_gradient_of_its_loss():
    random = np.random.default_rng(0)
    anchors = random.uniform(0, 30, (40, 2))
    points, target = random.uniform(5, 25, (6, 2)), random.uniform(1, 30, (40, 3))

    def loss_at(moved):
        distances = np.linalg.norm(anchors[:, None] - moved[None], axis=-1)
        found = np.stack([distances.min(1), distances.max(1), distances.mean(1)], axis=-1)
        return ((found - target) ** 2).sum(1).mean()

    loss, gradients = benchmark.gradient_by_definition(
        benchmark.Problem({"part": points}, {}, {"part": target}, anchors)
    )
    assert loss == pytest.approx(loss_at(points), rel=1e-12)
    numeric = np.zeros_like(points)
    for index in np.ndindex(*points.shape):
        step = np.zeros_like(points)
        step[index] = 1e-6
        numeric[index] = (loss_at(points + step) - loss_at(points - step)) / 2e-6
    np.testing.assert_allclose(gradients["part"], numeric, atol=1e-6)


def test_what_would_take_too_long_is_left_out():
    problem = benchmark.Problem({"part": np.zeros((1000, 2))}, {}, {}, np.zeros((1000, 2)))
    slow = {"seconds": 1.0, "anchors": 100, "points": 100}

    def form(problem, with_masks):
        raise AssertionError("it was run")

    row = benchmark.measure("slow", form, problem, False, budget=0.1, previous=slow)
    assert row["left_out"] == "would take over 20 s" and "seconds" not in row


def test_what_would_take_too_much_memory_is_left_out():
    problem = benchmark.Problem({"part": np.zeros((10, 2))}, {}, {}, np.zeros((10, 2)))
    row = benchmark.measure("big", lambda problem, with_masks: (None, 9e9), problem, False, budget=0.1)
    assert row["left_out"] == "would need 9.0 GB"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("benchmark")
    command = [sys.executable, str(BENCHMARK), "--quick", "--out", str(folder)]
    environment = os.environ | {"XLA_FLAGS": ""}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "train step" in done.stdout and "visiting all pairs" in done.stdout
    assert (folder / "prdl.png").read_bytes()[:4] == b"\x89PNG"
    return json.loads((folder / "prdl.json").read_text())


@pytest.mark.slow
def test_all_forms_agree_with_the_definition(results):
    rows = [row for name in ("face", "against_anchors", "against_points") for row in results[name]]
    names = {row["form"] for row in rows}
    assert {"jnp, naive", "jaxface", "jaxface, exact"} <= names
    if importlib.util.find_spec("torch"):
        assert {"torch, naive", "torch, exact", "torch, lean"} <= names
    assert {row["form"] for row in rows if row["targets"] == "masks"} == names
    for row in rows:
        assert row["seconds"] > 0
        if row["targets"] == "descriptors":
            # The expanded form |a|^2 + |v|^2 - 2 a.v, which torch.cdist takes by default, loses digits.
            limit = 1e-2 if row["form"] == "torch, naive" else 1e-4
            assert row["gradient_error"] < limit and row["loss_error"] < 1e-4


@pytest.mark.slow
def test_prdl_is_a_share_of_the_train_step(results):
    step = results["train_step"]
    assert step["prdl_seconds"] > 0 and step["step_seconds"] > 0
    assert step["prdl_share"] == pytest.approx(step["prdl_seconds"] / step["step_seconds"])
