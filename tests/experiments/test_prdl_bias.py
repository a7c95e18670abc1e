"""The experiment runs, and areas as weights do what its README says."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parent.parent.parent
RUN = ROOT / "experiments" / "prdl_bias" / "run.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    environment = os.environ | {"XLA_FLAGS": ""}
    command = [sys.executable, str(RUN), "--quick", "--out", str(folder)]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=400)
    assert (folder / "bias.png").read_bytes()[:4] == b"\x89PNG"
    return json.loads((folder / "results.json").read_text())


@pytest.mark.slow
def test_everything_is_measured(results):
    assert list(results["forms"]) == list(results["settings"]["forms"])

    def numbers(node):
        if isinstance(node, dict):
            for value in node.values():
                yield from numbers(value)
        else:
            yield node

    for form in results["forms"].values():
        assert list(form) == ["0", "60"]
        assert all(math.isfinite(number) and number >= 0 for number in numbers(form))


@pytest.mark.slow
def test_its_residuals_are_those_of_the_public_loss(results):
    for form in results["forms"].values():
        for row in form.values():
            by_residuals, public = row["loss_px2"]["all"], row["all_coefficients"]["prdl_before_px2"]
            assert by_residuals["mean"] == pytest.approx(public["mean"], rel=2e-3)


@pytest.mark.slow
def test_descent_descends(results):
    row = results["forms"]["all"]["60"]["all_coefficients"]
    assert row["prdl_after_px2"]["mean"] < 0.96 * row["prdl_before_px2"]["mean"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["area, exact", "area, coarse"])
def test_areas_take_most_of_the_bias_away(results, form):
    for yaw in ("0", "60"):
        plain, weighted = results["forms"]["all"][yaw], results["forms"][form][yaw]
        assert weighted["loss_px2"]["mean"]["mean"] < 0.02 * plain["loss_px2"]["mean"]["mean"]
        for kind in ("translation_px", "angles_degrees"):
            assert weighted[kind]["shift"]["mean"]["mean"] < 0.5 * plain[kind]["shift"]["mean"]["mean"]
        assert weighted["all_coefficients"]["vertices_mm"]["mean"] < plain["all_coefficients"]["vertices_mm"]["mean"]
