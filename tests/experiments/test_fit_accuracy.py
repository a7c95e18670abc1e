"""The experiment runs end to end on a few people, and says what the fit knows of its errors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "fit_accuracy"


@pytest.mark.slow
def test_quick_run(tmp_path):
    command = [sys.executable, str(FOLDER / "run.py"), "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    errors = {title: sum(values) / len(values) for title, values in results["errors_mm"].items()}
    assert list(errors) == ["mean face", "mean of real people", "first look alone", "points", "points, first look"]
    assert 1 < errors["points, first look"] < errors["points"] < errors["mean face"] < 6
    knowledge = results["knowledge"]
    assert 0.5 < knowledge["ratio_of_means"] < 2 and knowledge["correlation"]["spots"] > 0.5
    assert len(knowledge["parts_mm"]["expected"]) == 8
    assert "| points |" in done.stdout and (tmp_path / "expected.png").read_bytes()[:4] == b"\x89PNG"
