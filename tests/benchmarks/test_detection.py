"""The benchmark of the detector runs, and every figure is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "detection.py"


@pytest.mark.slow
def test_every_figure_is_one(tmp_path):
    for package in ("skimage", "matplotlib"):
        pytest.importorskip(package)
    environment = os.environ | {"PYTHONPATH": str(BENCHMARK.parents[1])}
    command = [sys.executable, str(BENCHMARK), "--quick"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = [float(line.rsplit(": ", 1)[1]) for line in done.stdout.strip().splitlines()]
    assert len(figures) == 4 and all(figure > 0 for figure in figures)
