"""Work in other processes: each does one call at a time, and a process that dies costs its call alone.

`concurrent.futures` gives up every call once one process was killed (out of memory, say), and does not tell whose it
was. Here a thread of this process attends to each worker, so that it is known, and another worker takes its place.
"""

import contextlib
import math
import mmap
import multiprocessing
import os
import queue
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxface.core.errors import InputError

CALL_SECONDS = 300.0
"""A call that takes longer is given up and its process ended: a decoder may hang on a damaged file."""

_STARTS = 3  # that a worker is given, where the system kills it as it begins

_GRACE_SECONDS = 10.0  # that calls under way have to end in, once nobody waits for them any more


def available_cores() -> int:
    """Cores that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerError(InputError):
    """A call that ended its process, or did not end."""


class BrokenWorkersError(InputError):
    """Processes cannot even be started."""


class SharedArrays:
    """Places for arrays of bytes that this process and its workers share.

    They are memory without a name (or temporary files that have lost theirs), which is gone once the last process is,
    however that one ended.

    Args:
        count: number of places.
    """

    def __init__(self, count: int):
        self._places = [_nameless_file() for _ in range(count)]

    def __len__(self) -> int:
        return len(self._places)

    def write(self, place: int, array: UInt8[np.ndarray, "..."]) -> tuple[int, ...]:
        """Puts an array into a place, over what was there; returns the shape to read it with."""
        place = self._places[place]
        if not array.nbytes <= os.fstat(place).st_size <= 4 * array.nbytes:  # a huge one shall not keep its memory
            os.ftruncate(place, array.nbytes)
        np.copyto(np.frombuffer(mmap.mmap(place, array.nbytes), np.uint8), array.reshape(-1))
        return array.shape

    def read(self, place: int, shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
        """The array in a place, not copied and not to be written to; good until the next `write` to that place."""
        array = np.frombuffer(mmap.mmap(self._places[place], math.prod(shape)), np.uint8).reshape(shape)
        array.flags.writeable = False
        return array

    def close(self) -> None:
        """Gives the places back; arrays that were read stay good."""
        while self._places:
            os.close(self._places.pop())

    def __getstate__(self) -> list:
        from multiprocessing.reduction import DupFd  # not on every system

        return [DupFd(place) for place in self._places]  # only while a process is being started

    def __setstate__(self, state: list) -> None:
        self._places = [place.detach() for place in state]


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("jaxface")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Workers:
    """Processes that call functions; to be used in a `with`, whose end cancels what has not begun.

    Args:
        count: number of processes; with 0, calls are made at once in this one.
        shared: what functions get as their first argument, and read and write arrays in.
        call_seconds: see `CALL_SECONDS`.
    """

    def __init__(self, count: int, shared: SharedArrays, *, call_seconds: float = CALL_SECONDS):
        self._shared = shared
        self._call_seconds = call_seconds
        self._calls: queue.SimpleQueue[tuple[Future, Callable, tuple] | None] = queue.SimpleQueue()
        self._processes: dict[int, multiprocessing.process.BaseProcess] = {}
        self._threads = [threading.Thread(target=self._attend, args=(number,), daemon=True) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable, /, *arguments: Any) -> Future:
        """Has `function(shared, *arguments)` called.

        Args:
            function: of a module that can be imported.
            *arguments: what can be pickled, and small: arrays go through `shared`.

        Returns:
            The result to come, or the function's exception. A call that ended its process raises `WorkerError`.
        """
        future: Future = Future()
        if self._threads:
            self._calls.put((future, function, arguments))
        else:
            try:
                future.set_result(function(self._shared, *arguments))
            except Exception as error:
                future.set_exception(error)
        return future

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(queue.Empty):
            while call := self._calls.get_nowait():
                call[0].cancel()
        for _thread in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join(_GRACE_SECONDS)
        for process in list(self._processes.values()):  # those that did not end in time
            process.kill()

    def _attend(self, number: int) -> None:
        """Hands calls to one process, one after the other; the main thread of this process may work meanwhile."""
        connection: Connection | None = None
        while (call := self._calls.get()) is not None:
            future, function, arguments = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                connection = connection or self._start(number)
                connection.send((function, arguments))
                if not connection.poll(self._call_seconds):
                    self._processes[number].kill()
                    raise TimeoutError
                result, error = connection.recv()
            except Exception as problem:
                connection = None
                future.set_exception(self._burial(number, problem))
            else:
                future.set_result(result) if error is None else future.set_exception(error)
        if connection is not None:
            connection.close()
            self._processes.pop(number).join()

    def _start(self, number: int) -> Connection:
        # A new interpreter, not a copy of this one: JAX has threads, and a copy of a locked lock stays locked.
        context = multiprocessing.get_context("spawn")
        # Ctrl-C is for this process alone: what this thread does not hear, the process it starts does not hear either.
        resource_tracker.ensure_running()  # which the first start does otherwise, and then listens again
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        for _ in range(_STARTS):
            connection, other_end = context.Pipe()
            process = context.Process(target=_work, args=(other_end, self._shared), daemon=True)
            process.start()
            other_end.close()  # ours: so that a dead process is the end of the pipe
            self._processes[number] = process
            try:
                connection.recv()
                return connection
            except (EOFError, ConnectionError):
                process.join()
            if process.exitcode != -signal.SIGKILL:
                raise BrokenWorkersError("a worker process ended before it began; see its messages above")
        raise BrokenWorkersError(
            f"a worker process was killed as it began, {_STARTS} times, perhaps for want of memory; try fewer workers"
        )

    def _burial(self, number: int, problem: Exception) -> Exception:
        """The error to report for the call that a process is lost with."""
        process = self._processes.pop(number, None)
        if process is None:
            return problem
        if not isinstance(problem, (EOFError, OSError)):
            process.kill()  # what cannot be pickled: nobody knows where the two ends of its pipe are
            return problem
        process.join()
        if isinstance(problem, TimeoutError):
            return WorkerError(f"not done after {self._call_seconds:.0f} seconds, and given up")
        code = process.exitcode or 0
        reason = "killed, perhaps for want of memory" if code == -signal.SIGKILL else f"exit code {code}"
        return WorkerError(f"the process that worked on it died ({reason}); run again to try it once more")


def _work(connection: Connection, shared: SharedArrays) -> None:
    """A worker's life."""
    with contextlib.suppress(EOFError, ConnectionError):  # this process's parent has no more work, or is gone
        connection.send(None)
        while True:
            function, arguments = connection.recv()
            answer: tuple[Any, Exception | None]
            try:
                answer = function(shared, *arguments), None
            except InputError as error:
                answer = None, error
            except Exception as error:  # others cannot always be pickled
                answer = None, RuntimeError("".join(traceback.format_exception_only(error)).strip())
            connection.send(answer)
