"""The experiment runs: every method is tuned, fitted and measured, and tables and figures are written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("skimage")

RUN = Path(__file__).parents[2] / "experiments" / "prdl_vs_rivals" / "run.py"


@pytest.mark.slow
def test_quick_run(tmp_path):
    environment = os.environ | {"XLA_FLAGS": ""}
    command = [sys.executable, str(RUN), "--quick", "--out", str(tmp_path)]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=400)
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["methods"]) == ["pixels", "prdl"]
    start = sum(results["start"]["mean_part_iou"])
    for name, method in results["methods"].items():
        assert sum(entry.get("chosen", False) for entry in method["tuning"]) == 1
        assert sum(method["test"]["mean_part_iou"]) > start, name  # fitting helps
        assert set(method["test"]["portraits"]) == {"astronaut", "grace_hopper"}
    assert "| PRDL, pixels |" in (tmp_path / "README.md").read_text()
    for name in ("curves.png", "faces.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
