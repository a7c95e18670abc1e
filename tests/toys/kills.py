"""Runs that are killed at random instants, taken up again until they end, and compared with one that nothing stopped.

    python tests/toys/kills.py COUNT [SEED [NAME...]]     COUNT kills each of preprocess, fit and train, or those named

Exit code 1: a difference.

Faces are found and fitted by stand-ins; files, names, locks and checkpoints are the real ones.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxface.models.native import write_face_model
from toys import many_photos, photos
from toys.models import toy_model
from toys.training import write_toy_dataset

TESTS = Path(__file__).parents[1]


class Program(NamedTuple):
    """A command that makes OUT, and what of OUT is the same however often it was stopped."""

    command: Callable[[Path], list[str]]
    result: Callable[[Path], Mapping[str, bytes]]


def programs(folder: Path) -> dict[str, Program]:
    """By name; what they work on is made in `folder`."""
    many, hundred = many_photos.make_photos(folder / "many", 30), photos.make_folder(folder / "hundred")
    write_face_model(toy_model(), folder / "toy.npz")
    write_toy_dataset(folder / "dataset", toy_model(), count=40, size=32)

    def preprocess(out: Path) -> list[str]:
        return [many_photos.__file__, str(many), str(out), "--workers", "0"]

    def fit(out: Path) -> list[str]:
        return ["-c", _FIT, str(hundred), str(out)]

    def train(out: Path) -> list[str]:
        changes = {
            "output_dir": out, "cache_dir": folder / "cache", "face_model": folder / "toy.npz", "image_size": 32,
            "batch_size": 8, "steps": 60, "log_every": 2, "checkpoint_every": 4, "encoder.width_multiplier": 0.125,
            "data.source": "folder", "data.path": folder / "dataset", "data.held_out": 8, "loss.prdl": 0.0,
        }  # fmt: skip
        return ["-m", "jaxface.train", "--config=quickstart", *(f"--config.{key}={to}" for key, to in changes.items())]

    def written(out: Path) -> Mapping[str, bytes]:
        return {name: content for name, content in photos.tree(out).items() if name != "summary.json"}

    def logged(out: Path) -> Mapping[str, bytes]:
        results = json.loads((out / "results.json").read_text())
        del results["seconds_of_last_session"]
        return {"metrics": (out / "metrics.jsonl").read_bytes(), "results": json.dumps(results).encode()}

    return {"preprocess": Program(preprocess, written), "fit": Program(fit, written), "train": Program(train, logged)}


_FIT = """
import sys, time
from toys import photos
from jaxface.files.command_line import print_summary
photos.photos.preprocess_photo, photos.photos.write_photo = photos.find_faces, photos.write_photo
def slowly(samples, initial):  # whatever else is in the batch: it is another one after a kill
    time.sleep(0.05)
    return [photos.SolvedFace(sample["image"][0, 0].astype("float32")) for sample in samples]
sys.exit(print_summary(*photos.process(sys.argv[1], sys.argv[2], slowly)))
"""


def stop_often(program: Program, count: int, random: np.random.Generator, folder: Path) -> dict:
    """Figures: kills, those that came before the end, runs that were completed, and what was different."""
    _run(program, folder / "first")
    began = time.monotonic()
    _run(program, folder / "whole")  # again, for how long it takes with everything compiled
    seconds = time.monotonic() - began
    expected = program.result(folder / "whole")
    figures: dict = {"kills": 0, "runs": 0, "seconds of a run": round(seconds, 1), "faults": []}
    while figures["kills"] < count:
        out = folder / f"out{figures['runs']}"
        for _ in range(8):  # times that one run is killed, at most
            process = _start(program, out)
            try:
                process.wait(random.uniform(0.2 * seconds, 1.05 * seconds))
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                figures["kills"] += 1
        told = _run(program, out)
        figures["runs"] += 1
        found = program.result(out)
        wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        if wrong or "Traceback" in told:
            figures["faults"].append(f"{out}: {wrong[:5]} {told[-500:]}")
        else:
            shutil.rmtree(out)
    return figures


def _start(program: Program, out: Path) -> subprocess.Popen:
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    environment = os.environ | {"PYTHONPATH": paths, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": ""}
    return subprocess.Popen(
        [sys.executable, *program.command(out)], env=environment, text=True, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def _run(program: Program, out: Path) -> str:
    process = _start(program, out)
    told = process.communicate(timeout=600)[1]
    if process.returncode not in (0, 1):  # some photos are no photos
        raise RuntimeError(f"{program.command(out)}: exit code {process.returncode}: {told[-2000:]}")
    return told


def main() -> int:
    """The command line; returns the exit code."""
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    figures = {}
    for name, program in programs(folder).items():
        if sys.argv[3:] and name not in sys.argv[3:]:
            continue
        (folder / name).mkdir()
        figures[name] = stop_often(program, count, np.random.default_rng(seed), folder / name)
        print(json.dumps({name: figures[name]}), flush=True)
    return int(any(one["faults"] for one in figures.values()))


if __name__ == "__main__":
    sys.exit(main())
