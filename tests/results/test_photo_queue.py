"""The queue of photos: groups and batches, interruptions, errors on the way, and how much waits."""

import gc
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from jaxface.files.names import BOOK
from jaxface.fitting.solver import batch_sizes
from jaxface.results import photo_queue, photos
from jaxface.results.photo_queue import grouped
from toys import photos as toys


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [1, 3, 7])
def test_an_interrupted_run_goes_on_and_ends_with_the_same_files(
    stop_at, expected, hundred_files, tmp_path, stand_ins, capsys
):
    calls = []

    def interrupted(samples, initial):
        calls.append(len(samples))
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return toys.solve(samples, initial)

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        toys.process(hundred_files, out, interrupted)
    done = {1: 0, 3: 32, 7: 66}[stop_at]
    there = [path.name for path in out.iterdir()]
    assert len(there) == done + 1 and BOOK in there  # besides, whole folders alone, not even hidden ones
    assert "goes on from here" in capsys.readouterr().err
    report, _ = toys.process(hundred_files, out)
    assert (report.done, report.skipped, len(report.failures)) == (toys.GOOD - done, done, toys.BAD)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("done: ")]
    assert len(told) == len(set(told)) == toys.GOOD - done and str(hundred_files) in told[0]
    files = toys.tree(out)
    assert {**files, "summary.json": b""} == {**expected[2], "summary.json": b""}


@pytest.mark.slow
def test_ctrl_c_stops_at_once_and_keeps_what_is_finished(hundred_files, tmp_path):
    """A real signal to a real process whose second batch would take ten minutes."""
    out = tmp_path / "out"
    program = Path(toys.__file__)
    places = [str(program.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    with subprocess.Popen(
        [sys.executable, program, hundred_files, out],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout.readline() == "solving\n"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130 and "Traceback" not in errors
    assert errors.splitlines()[-1] == "interrupted"
    folders = [path for path in out.iterdir() if path.name != BOOK]
    assert len(folders) == 16 and all((path / "done.json").is_file() for path in folders)


def test_an_error_in_the_solver_spares_the_other_batches(hundred_files, tmp_path, stand_ins):
    def solve(samples, initial):
        if len(samples) == 16:
            raise MemoryError("too much")
        return toys.solve(samples, initial)

    report, _ = toys.process(hundred_files, tmp_path / "out", solve)
    assert (report.done, len(report.failures)) == (toys.GOOD - 64, toys.BAD + 64)
    assert sum("unexpected MemoryError (too much)" in reason for reason in report.reasons.values()) == 64


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (0, []), (1, [1]), (2, [1, 1]), (10, [1] * 10), (11, [16]), (16, [16]), (17, [16, 1]), (26, [16] + [1] * 10),
        (27, [16, 16]), (70, [16] * 4 + [1] * 6),
    ],
)  # fmt: skip
def test_batch_sizes(count, sizes):
    assert batch_sizes(count) == sizes


@pytest.mark.parametrize(
    ("faces", "groups"),
    [
        ([], []),
        ([1], [[1]]),
        ([1] * 10, [[1]] * 10),
        ([1] * 11, [[1] * 11]),
        ([1] * 16, [[1] * 16]),
        ([1] * 18, [[1] * 16, [1], [1]]),
        ([10, 7, 4], [[10], [7, 4]]),
        ([7, 4, 7, 40, 1], [[7, 4], [7], [40], [1]]),  # a photo stays whole
    ],
)
def test_groups_of_photos(faces, groups):
    """Written down by hand. Up to ten left over: one by one."""
    photos_of = grouped(iter([types.SimpleNamespace(crops=range(count)) for count in faces]))
    result = [[len(photo.crops) for photo in group] for group in photos_of]
    assert result == groups


def test_what_waits_does_not_grow_with_the_number_of_photos(hundred_files, tmp_path, stand_ins, monkeypatch):
    for name in ("_READ_AHEAD", "_WRITE_BEHIND", "TOGETHER", "ALONE"):
        monkeypatch.setattr(photo_queue, name, 2)
    counts, written = [], []

    def waiting():
        gc.collect()
        return sum(isinstance(one, photo_queue.PhotoWithFaces) for one in gc.get_objects())

    # What was there before, hundreds of thousands of objects by now, is neither collected nor counted.
    gc.collect()
    gc.freeze()

    def write(*arguments, **options):
        written.append(1)
        if len(written) % 10 == 0:
            time.sleep(0.1)  # what can run ahead, does
            counts.append(waiting())
        return toys.write_photo(*arguments, **options)

    monkeypatch.setattr(photos, "write_photo", write)
    try:
        toys.process(hundred_files, tmp_path / "out")
    finally:
        gc.unfreeze()
    assert len(counts) == 7 and min(counts) >= 1 and max(counts) <= 12


def test_the_bar_counts_what_was_done_before(hundred_files, tmp_path, stand_ins, monkeypatch):
    seen = []

    def bar(total, **options):
        seen.append((total, options["initial"]))
        return real(total, **options)

    real = photos.progress_bar
    monkeypatch.setattr(photos, "progress_bar", bar)
    path = hundred_files / "animated.gif"
    for _ in range(2):
        photos.process_photos([path], tmp_path / "out", None, solve=toys.solve, description="test", settings={})
    assert seen == [(1, 0), (1, 1)]
