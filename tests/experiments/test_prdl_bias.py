"""The experiment runs, and areas as weights and drawn pixels do what its README says."""

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
VERTEX_FORMS = ["all", "visible", "area", "area, exact", "area, coarse", "area, coarse, cut"]


def _run(folder, *forms):
    environment = os.environ | {"XLA_FLAGS": ""}
    command = [sys.executable, str(RUN), "--quick", "--out", str(folder), "--forms", *forms]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=400)
    assert (folder / "bias.png").read_bytes()[:4] == b"\x89PNG"
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    alone = _run(folder, "pixels")
    assert list(alone["forms"]) == ["pixels"]
    together = _run(folder, *VERTEX_FORMS)
    assert together["forms"]["pixels"] == alone["forms"]["pixels"]  # kept, not measured again
    return together


@pytest.mark.slow
def test_forms_are_not_added_to_results_of_other_settings(tmp_path):
    settings = {"settings": {"faces": 3}}
    (tmp_path / "results.json").write_text(json.dumps(settings))
    command = [sys.executable, str(RUN), "--quick", "--out", str(tmp_path), "--forms", "all"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and "other settings" in done.stderr
    assert json.loads((tmp_path / "results.json").read_text()) == settings


@pytest.mark.slow
def test_everything_is_measured(results):
    assert list(results["forms"]) == [*VERTEX_FORMS, "pixels"]

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
    for form in VERTEX_FORMS:
        for row in results["forms"][form].values():
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


@pytest.mark.slow
def test_drawn_pixels_have_their_minimum_at_the_truth(results):
    for row in results["forms"]["pixels"].values():
        assert all(loss["mean"] < 1e-4 for loss in row["loss_px"].values())
        assert row["all_coefficients"]["prdl_after_px"]["mean"] < 1e-3
        assert row["all_coefficients"]["vertices_mm"]["mean"] < 0.02
        for kind in ("translation_px", "angles_degrees"):
            found = row[kind]
            assert list(found["shift"]) == ["all", "signed", "mean"]
            assert all(shift["mean"] < 0.8 * found["start"] for shift in found["shift"].values())  # within 12 steps


def test_the_committed_results_are_those_of_a_full_run():
    committed = json.loads((RUN.parent / "results.json").read_text())
    assert list(committed["forms"]) == [*VERTEX_FORMS, "pixels"] and committed["settings"]["faces"] == 24
    assert all(list(form) == ["0", "30", "60"] for form in committed["forms"].values())
