"""Seconds and bytes that a call takes."""

import contextlib
import ctypes
import gc
import re
import statistics
import time
from pathlib import Path

MEMORY_SHARE = 0.85  # of the memory that is available; forms that would need more are left out
LONG_SECONDS = 3.0  # a run that takes longer is repeated once only


def seconds_of(run, budget=2.0):
    """Median over repetitions after the warm-up: as many as fit in `budget` seconds, at most 30, at least three.

    A form that is slow already at the warm-up is measured once more.
    """
    start = time.perf_counter()
    run()
    least, times = (1 if time.perf_counter() - start > LONG_SECONDS else 3), []
    while len(times) < least or (len(times) < 30 and sum(times) < budget):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_resident_growth(run):
    """Growth of the peak resident set in one run, in bytes; None where the system does not tell."""
    try:
        give_back_memory()  # so that what earlier runs freed counts when taken again
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident("VmRSS")
        run()
        return max(0, _resident("VmHWM") - before)
    except (OSError, AttributeError):
        return None


def give_back_memory():
    """Hands what was freed to the system: a program keeps it otherwise, and two naive forms do not fit side by side."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # other C libraries than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _resident(field):
    return _kilobytes("/proc/self/status", field)


def most_memory():
    """Bytes that one form may take; 8 GB where the system does not tell what it has."""
    try:
        return MEMORY_SHARE * _kilobytes("/proc/meminfo", "MemAvailable")
    except (OSError, AttributeError):
        return 8e9


def _kilobytes(file, field):
    return 1024 * int(re.search(rf"{field}:\s+(\d+)", Path(file).read_text()).group(1))


def group_memory(group):
    """Bytes that the processes of a group take in memory, what they share counted once."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, AttributeError, ValueError):  # it may end meanwhile
            if int((process / "stat").read_text().rpartition(")")[2].split()[2]) == group:
                total += _kilobytes(process / "smaps_rollup", "Pss")
    return total
