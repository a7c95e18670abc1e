"""The benchmark of preprocess, in tiny sizes: every section gives its figures, and a killed run ends as others do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "preprocess.py"

STAGES = {"decode", "detect", "align and label", "write folder", "encode record", "append"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    for package in ("array_record", "skimage", "matplotlib"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("benchmark")
    environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(BENCHMARK.parents[1])}
    command = [sys.executable, str(BENCHMARK), "--quick"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "outputs/benchmarks/preprocess.json").read_text())


@pytest.mark.slow
def test_every_stage_has_its_time(results):
    assert results["quick"] and set(results["stages, 256 px, ms a photo"]) == STAGES
    for stage in results["stages, 256 px, ms a photo"].values():
        assert stage["ms"] > 0 and stage["cpu_ms"] >= 0
    for format in ("folders", "shards"):
        figure = results[f"run, {format}, 256 px"]
        assert figure["samples"] == results["photos"] and figure["photos_a_second"] > 0
        assert 1e4 < figure["bytes_a_sample"] < 2e5 and figure["peak_mb"] >= max(figure["quarters_mb"]) > 50
        assert results[f"600000 photos, {format}"]["gigabytes"] == pytest.approx(
            figure["bytes_on_disk_a_sample"] * 6e-4
        )
    assert results["run, shards, 256 px"]["inodes"] < 10 < results["run, folders, 256 px"]["inodes"]


@pytest.mark.slow
def test_reading_was_measured_at_every_step(results):
    figures = results["reading, samples/s"]
    for format in ("folders", "shards"):
        assert set(figures[format]) == {
            "read and decoded", "and augmented", "pipeline, 0 workers", "pipeline, 1 workers"
        }  # fmt: skip
        assert all(rate > 0 for rate in figures[format].values())
    assert figures["record alone, not decoded"] > figures["shards"]["read and decoded"]


@pytest.mark.slow
def test_the_killed_run_ended_like_the_others(results):
    figure = results["killed 1 times"]
    assert figure["same_bytes"] and figure["samples"] == figure["different_samples"] == results["photos"]
    assert len(figure["files_after_each_kill"]) == 1
