"""The experiment runs end to end on a few people, goes on where it was, and says what the fit knows of its errors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "fit_accuracy"


@pytest.mark.slow
def test_quick_run(tmp_path):
    command = [sys.executable, str(FOLDER / "run.py"), "--quick", "--work", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    means = {title: line["all"] for title, line in results["means_mm"].items()}
    assert list(means) == ["mean face", "encoder alone", "fit without the network's first look", "fit"]
    assert 1 < means["fit"] < means["fit without the network's first look"] < means["mean face"] < 6
    of_group = results["of_group"]
    for some in ("yaw", "hidden"):
        assert sum(count for name, count in of_group.items() if name.startswith(some)) == of_group["all"] == 8
    assert of_group["lighter skin"] + of_group["darker skin"] == 8
    told = results["knowledge"]
    assert 0.5 < told["ratio"]["all"] < 2 and told["correlation"]["spots"] > 0.5
    assert "| all | 8 |" in done.stdout and (tmp_path / "expected.png").read_bytes()[:4] == b"\x89PNG"

    drawn = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    assert len(drawn) >= 3
    again = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")} == drawn
    assert json.loads((tmp_path / "results.json").read_text())["errors_mm"] == results["errors_mm"]
