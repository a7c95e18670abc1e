"""The experiment runs, and its figures say what its README says."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parent.parent.parent
RUN = ROOT / "experiments" / "prdl_gradients" / "run.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    environment = os.environ | {"XLA_FLAGS": ""}
    command = [sys.executable, str(RUN), "--quick", "--out", str(folder)]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=300)
    for name in ("fields.png", "displacement.png"):
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"
    return json.loads((folder / "results.json").read_text())


def _row(results, displacement):
    return next(row for row in results["displacements"] if row["displacement_px"] == displacement)


@pytest.mark.slow
def test_prdl_points_to_the_target_where_softras_has_died(results):
    fields = _row(results, results["scenes_px"]["apart"])["fields"]
    for title, field in fields.items():
        if "IoU" in title:
            assert field["norm"] == 0
        else:
            assert field["norm"] > 0 and field["towards_target"] > 0.95
    near = _row(results, results["scenes_px"]["overlapping"])
    assert near["iou"] > 0.1 and all(field["norm"] > 0 for field in near["fields"].values())


@pytest.mark.slow
def test_only_the_drawn_brow_is_at_rest_on_its_own_mask(results):
    fields = _row(results, 0.0)["fields"]
    away = _row(results, results["scenes_px"]["overlapping"])["fields"]
    pixels = [title for title in fields if title.startswith("pixels")]
    assert len(pixels) == 4
    for title, field in fields.items():
        if title in pixels:
            assert field["norm"] < 1e-4 * away[title]["norm"]
            assert away[title]["longest"] < away[title]["norm"]
            assert 50 < away[title]["vertices_moved"] < results["vertices"]  # the outline's
        else:
            assert field["norm"] > 0.1 * away[title]["norm"]


@pytest.mark.slow
def test_softras_agrees_with_its_formula_where_it_is_alive(results):
    formula = {row["displacement_px"]: row for row in results["softras_by_formula"]}
    for displacement in (3.0, 10.0):
        fields = _row(results, displacement)["fields"]
        assert abs(fields["SoftRas IoU, sigma 0.001"]["norm"] / formula[displacement]["sigma 0.001"] - 1) < 0.01
    assert 0 < formula[32.0]["sigma 0.001"] < 1e-10


@pytest.mark.slow
def test_the_gradient_is_that_of_the_public_loss(results):
    assert results["loss_gradient_relative_difference"] < 1e-3


@pytest.mark.slow
def test_equation_11(results):
    check = results["equation_11"]
    assert check["anchors"] > 50 and check["anchors_in_mask"] > 0 and check["median_gradient_px"] > 1
    assert check["jax_grad_largest_error_px"] < 1e-3 and check["jax_grad_largest_on_other_vertices_px"] == 0
    assert check["finite_differences_largest_error_px"] < 1e-6


@pytest.mark.slow
def test_shares_are_shares(results):
    for row in results["displacements"]:
        for share in row["shares"].values():
            assert 0.9 < share["outside"] <= 1 and 0.9 < share["outside_alone"] <= 1
            assert share["pull_outside_to_inside"] > 0 and math.isfinite(share["half_beyond_px"])


def test_the_committed_results_are_those_of_a_full_run():
    committed = json.loads((RUN.parent / "results.json").read_text())
    assert committed["anchors"] == 224 * 224 and len(committed["displacements"]) > 20
    assert all("pixels: PRDL (default)" in row["fields"] for row in committed["displacements"])
