"""The accelerator's benchmark, in tiny sizes on a CPU: every section gives its figures, and what lacks is told."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load(name):
    specification = importlib.util.spec_from_file_location(f"{name}_benchmark", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)  # as when it runs as a program
        specification.loader.exec_module(module)
    return module


report = load("accelerator_report")


def new_report(folder, *, seconds=60.0, judged=True):
    return report.Report(folder / "figures.json", {"card": "none"}, seconds=seconds, judged=judged)


def test_targets_are_printed_beside_their_figures(tmp_path, capsys):
    figures = new_report(tmp_path)
    few, many = report.Target("ms", 4.0), report.Target("images_a_second", 2000, least=True)
    figures.figure("slow", lambda: {"ms": 5.0, "images_a_second": 2500.0}, few, many)
    assert "slow: 5.00 ms, 2,500 images/s  [target at most 4.00 ms: NOT MET; at least 2,000 images/s: met]" in (
        capsys.readouterr().out
    )
    new_report(tmp_path, judged=False).figure("tiny", lambda: {"ms": 1.0}, few)
    assert "at most 4.00 ms: not judged at these sizes" in capsys.readouterr().out
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["figures"] == {"tiny": {"ms": 1.0, "targets": [
        {"value": "ms", "limit": 4.0, "least": False, "met": None}]}}  # fmt: skip


def test_a_figure_that_fails_costs_no_other(tmp_path, capsys):
    figures = new_report(tmp_path)

    def too_large():
        raise RuntimeError("out of memory")

    def lacking():
        raise report.LeftOut("needs PyTorch")

    figures.figure("first", too_large)
    figures.figure("second", lacking)
    figures.figure("third", lambda: {"ms": 1.0})
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["failed"] == {"first": "RuntimeError: out of memory"}
    assert written["left_out"] == {"second": "needs PyTorch"} and list(written["figures"]) == ["third"]
    assert "second: left out, needs PyTorch" in capsys.readouterr().out


def test_nothing_begins_once_time_is_up(tmp_path):
    figures = new_report(tmp_path, seconds=-1.0)
    figures.figure("late", lambda: pytest.fail("it was measured"))
    assert list(figures.results["left_out"]) == ["late"] and not figures.results["figures"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("accelerator")
    command = [sys.executable, str(BENCHMARKS / "accelerator.py"), "--quick", "--seconds", "600"]
    environment = os.environ | {"XLA_FLAGS": ""}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "outputs/benchmarks/accelerator.json").read_text())


def section(results, name):
    return {key.removeprefix(f"{name}: "): figure for key, figure in results["figures"].items() if key.startswith(name)}


@pytest.mark.slow
def test_every_section_wrote_its_figures(results):
    assert {"card", "jax", "torch"} <= results.keys() and results["quick"]
    assert not results["failed"] and set(results["left_out"]) <= {"torch"}
    assert set(section(results, "agreement")) == {
        "decode_face", "rasterize", "PRDL on vertices", "PRDL on pixels", "soft silhouette"
    }  # fmt: skip
    # The CPU agrees with itself.
    assert all(figure.get("gradient_error", 0) == 0 for figure in section(results, "agreement").values())
    assert {"to descriptors, batch 2", "to masks, batch 2"} == set(section(results, "vertices"))
    assert {"to described targets, batch 2", "to label maps, batch 2", "the drawing alone, batch 2"} == set(
        section(results, "pixels")
    )
    meshes = {name.split(",")[0] for name in section(results, "rasterizer")}
    assert meshes == {"sphere", "built-in face"} and len(section(results, "rasterizer")) == 4
    timed = [figure for figure in results["figures"].values() if "ms" in figure]
    assert all(figure["ms"] > 0 for figure in timed)
    jaxface = [figure for name in ("vertices", "pixels", "rasterizer") for figure in section(results, name).values()]
    assert all(figure["compile_seconds"] > 0 and figure["temporary_mb"] >= 0 for figure in jaxface)
    if importlib.util.find_spec("torch"):
        assert set(section(results, "torch")) == {"torch.compile, batch 1", "eager, batch 1"}


@pytest.mark.slow
def test_the_shares_are_those_of_the_steps(results):
    steps = section(results, "training")
    for dtype in ("bfloat16", "float32"):
        whole, without = steps[f"{dtype}, all terms"], steps[f"{dtype}, without PRDL and drawing"]
        share = steps[f"{dtype}, share of PRDL and drawing"]["share"]
        assert share == pytest.approx(1 - without["ms"] / whole["ms"])
        assert whole["images_a_second"] == pytest.approx(2 / (whole["ms"] / 1e3))


@pytest.mark.slow
def test_every_target_has_its_figure(results):
    targets = {
        (name.split(":")[0], target["value"], target["limit"])
        for name, figure in results["figures"].items()
        for target in figure.get("targets", [])
    }
    assert targets == {
        ("vertices", "ms", 4.0),
        ("vertices", "ms_a_face", 0.3),
        ("pixels", "ms_a_face", 0.2),
        ("training", "images_a_second", 2000),
        ("training", "compile_seconds", 30.0),
        ("training", "share", 0.25),
    }
