"""Calls in other processes: what ends a process costs one call, and is named."""

import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest

from jaxface.core.errors import InputError
from jaxface.files import workers
from jaxface.files.workers import BrokenWorkersError, SharedArrays, WorkerError, Workers
from toys import calls


def test_without_processes_calls_are_made_here():
    with Workers(0, SharedArrays(1)) as pool:
        assert pool.submit(calls.process).result() == os.getpid()
        assert isinstance(pool.submit(calls.refuse, "x.jpg").exception(), InputError)


def test_arrays_go_there_and_back():
    shared = SharedArrays(2)
    image = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    with Workers(1, shared) as pool:
        shape = shared.write(1, image)
        assert pool.submit(calls.double, 1, shape, 0).result(60) == shape
        np.testing.assert_array_equal(shared.read(0, shape), image * np.uint8(2))
        assert not shared.read(0, shape).flags.writeable
        # The place is taken by another size: larger, then much smaller.
        for size in (300, 2):
            other = np.full((size, size, 3), size % 256, np.uint8)
            assert pool.submit(calls.double, 0, shared.write(0, other), 1).result(60) == other.shape
            np.testing.assert_array_equal(shared.read(1, other.shape), other * np.uint8(2))
    shared.close()


@pytest.mark.slow
def test_what_goes_wrong_costs_one_call_and_is_named():
    with Workers(2, SharedArrays(0), call_seconds=3.0) as pool:
        first = pool.submit(calls.process).result(60)
        bad = [
            pool.submit(calls.refuse, "a.jpg"),
            pool.submit(calls.stumble),
            pool.submit(calls.kill_itself),
            pool.submit(calls.leave, 7),
            pool.submit(calls.sleep, 600),
            pool.submit(calls.process, threading.Lock()),
        ]
        good = [pool.submit(calls.process) for _ in range(6)]
        errors = [future.exception(60) for future in bad]
        assert [type(error) for error in errors[:2]] == [InputError, RuntimeError]
        assert all(isinstance(error, WorkerError) for error in errors[2:5]) and isinstance(errors[5], TypeError)
        told = ["a.jpg", "IndexError: nothing there", "want of memory", "exit code 7", "3 seconds", "pickle"]
        assert all(text in str(error) for text, error in zip(told, errors, strict=True)), errors
        numbers = {future.result(60) for future in good}
    assert first != os.getpid() and os.getpid() not in numbers


def test_the_end_cancels_what_has_not_begun_and_leaves_no_process():
    with Workers(1, SharedArrays(0)) as pool:
        number = pool.submit(calls.process).result(60)
        under_way = pool.submit(calls.sleep, 0.3)
        waiting = [pool.submit(calls.sleep, 100) for _ in range(3)]
        while not under_way.running():
            time.sleep(0.01)
    assert under_way.done() and all(future.cancelled() for future in waiting)
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_workers_do_not_hear_ctrl_c():
    with Workers(1, SharedArrays(0)) as pool:
        number = pool.submit(calls.process).result(60)
        os.kill(number, signal.SIGINT)
        assert pool.submit(calls.process).result(60) == number


@pytest.mark.parametrize(
    ("work", "message"),
    [(calls.leave_at_once, "see its messages above"), (calls.die_at_once, "killed .* fewer workers")],
)
def test_processes_that_cannot_start_are_no_mistake_of_a_call(monkeypatch, work, message):
    monkeypatch.setattr("jaxface.files.workers._work", work)
    with Workers(1, SharedArrays(0)) as pool, pytest.raises(BrokenWorkersError, match=message):
        pool.submit(calls.process).result(60)


def test_a_process_that_is_killed_as_it_begins_is_started_again(monkeypatch, tmp_path):
    (tmp_path / "once").mkdir()
    monkeypatch.setenv("DIE_ONCE", str(tmp_path / "once"))
    monkeypatch.setattr("jaxface.files.workers._work", calls.die_as_the_first)
    with Workers(1, SharedArrays(0)) as pool:
        assert pool.submit(calls.process).result(60) != os.getpid()
    assert not (tmp_path / "once").exists()


def test_a_worker_whose_parent_is_gone_ends_in_silence():
    ours, theirs = multiprocessing.Pipe()
    ours.close()
    workers._work(theirs, SharedArrays(0))
