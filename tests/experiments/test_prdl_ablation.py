"""The experiment trains its variants, compares them, and does not train again what is done."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxface.core.errors import InputError

pytest.importorskip("matplotlib")

RUN = Path(__file__).parent.parent.parent / "experiments" / "prdl_ablation" / "run.py"

_spec = importlib.util.spec_from_file_location("prdl_ablation", RUN)
experiment = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(experiment)


def _run(folder, *arguments):
    # One device: a batch of 8 then is one batch, as on a laptop.
    command = [sys.executable, str(RUN), "--quick", "--out", str(folder), *arguments]
    environment = os.environ | {"XLA_FLAGS": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation")
    done = _run(folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.mark.slow
def test_variants_are_trained_and_compared(finished):
    folder, output = finished
    results = json.loads((folder / "results.json").read_text())
    assert [run["variant"] for run in results["runs"]] == ["no PRDL", "pixels of every 4th"]
    without, with_prdl = (run["encoder"] for run in results["runs"])
    assert 0 < without["part_iou"] < 1 and without != with_prdl
    assert results["runs"][0]["mean_face"] == results["runs"][1]["mean_face"]  # the same held-out faces
    summary = results["summary"]["guided"]
    gain = with_prdl["part_iou"] - without["part_iou"]
    assert math.isclose(summary["pixels of every 4th"]["part_iou"]["gain"]["mean"], gain)
    assert summary["no PRDL"]["part_iou"]["gain"]["mean"] == 0
    assert (folder / "ablation.png").read_bytes()[:4] == b"\x89PNG"
    assert "| Part IoU, mean of seven parts |" in output


@pytest.mark.slow
def test_the_variants_differ_in_prdl_alone_and_leave_out_supervision(finished):
    folder, _ = finished
    without, with_prdl = (json.loads(path.read_text()) for path in sorted(folder.glob("runs/*/config.json")))
    for config in (without, with_prdl):
        assert config["loss"]["reprojection"] == config["loss"]["shape"] == 0 and config["loss"]["landmark"] > 0
    assert without["loss"].pop("prdl") == 0 < with_prdl["loss"].pop("prdl")
    for config in (without, with_prdl):
        assert config["loss"].pop("prdl_vertices") == 0
        del config["loss"]["anchor_stride"], config["loss"]["prdl_every"]
    for name in ("name", "output_dir"):
        del without[name], with_prdl[name]
    assert without == with_prdl


@pytest.fixture
def untrained(monkeypatch, quick_compilation):
    """Lets nothing be trained in this process; the experiment's own compiler setting goes when the test ends."""

    def refuse(config):
        raise AssertionError(f"{config.name} was trained")

    monkeypatch.setattr(experiment, "train", refuse)


@pytest.mark.slow
def test_what_is_done_is_not_trained_again(finished, untrained):
    folder, _ = finished
    before = (folder / "results.json").read_text()
    experiment.main(["--quick", "--out", str(folder)])
    assert (folder / "results.json").read_text() == before


@pytest.mark.slow
def test_results_of_another_configuration_are_refused(finished, untrained):
    folder, _ = finished
    path = next(folder.glob("runs/*no_PRDL*/config.json"))
    config = path.read_text()
    assert '"batch_size": 8' in config
    path.write_text(config.replace('"batch_size": 8', '"batch_size": 16'))
    with pytest.raises(InputError, match="another configuration"):
        experiment.main(["--quick", "--out", str(folder)])
    path.write_text(config)


@pytest.mark.slow
def test_nonsense_is_refused(tmp_path):
    refused = _run(tmp_path, "--steps", "0")
    assert refused.returncode == 2 and refused.stderr.startswith("error: --steps")
