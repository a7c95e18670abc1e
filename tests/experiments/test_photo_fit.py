"""The experiment runs end to end on two renders, and its renders are what they are said to be."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent.parent.parent / "experiments" / "photo_fit" / "run.py"


@pytest.mark.slow
def test_quick_run(tmp_path):
    command = [sys.executable, str(RUN), "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    mean_face, fitted = (results["summary"][name] for name in ("mean face", "renders, exact parts and landmarks"))
    for name in ("landmarks", "vertices"):
        assert 0 < fitted[name]["mean"] < 0.7 * mean_face[name]["mean"]
    assert fitted["part_iou"]["mean"] > mean_face["part_iou"]["mean"] + 0.2
    assert list(results["ablation"]) == ["all losses", "without colours"]
    assert results["ablation"]["all losses"] != results["ablation"]["without colours"]
    assert (tmp_path / "faces.png").read_bytes()[:4] == b"\x89PNG"
    assert "| without colours |" in done.stdout
