"""What every command shares: its end, its arguments on photos, what it keeps compiled."""

import argparse
import ctypes
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import jax

from jaxface.core.errors import InputError
from jaxface.files.progress import FAILED, INTERRUPTED, SUCCESS, BatchReport


def run(
    main: Callable[[], int | None],
    *,
    keep_programs: bool = False,
    keep_freed_memory: bool = True,
    wait_for_threads: bool = True,
) -> NoReturn:
    """Runs an entry point and exits: a user's mistake becomes one line on stderr instead of a traceback.

    Args:
        main: does the work; returns an exit code, or None for success.
        keep_programs: calls `keep_compiled` before.
        keep_freed_memory: False for programs whose single arrays fill much of the memory: freed and asked for again,
            such an array may find its place taken by small ones, and then needs as much anew.
        wait_for_threads: False for programs that on Ctrl-C have nothing left to lose in other threads: a long
            computation there is then cut off rather than waited for.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may have letters that a terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    if keep_freed_memory:
        _keep_freed_memory()

    def work() -> int | None:
        if keep_programs:
            keep_compiled()
        return main()

    code = exit_code_of(work)
    if code == INTERRUPTED and not wait_for_threads:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _keep_freed_memory() -> None:
    """Has the C library keep memory that was freed for the next request, rather than give it back to the system.

    XLA on CPU asks for a program's working memory anew at every call, and the system hands it out page by page: of a
    quickstart step that was a fifth of the time (137 ms with, 113 ms without, measured on two cores). It only helps
    threads that have not begun to work, so it comes before JAX does anything.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries than glibc have none
    if mallopt is None:
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # names and numbers of <malloc.h>
    for parameter, value in ((arena_max, 1), (mmap_max, 0), (trim_threshold, 2**31 - 1)):
        mallopt(parameter, value)


def exit_code_of(main: Callable[[], int | None]) -> int:
    """Runs an entry point: what `run` exits with, after the line on stderr if there is one."""
    try:
        return main() or SUCCESS
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def add_photo_arguments(parser: argparse.ArgumentParser, *, out: str) -> None:
    """The arguments that all programs on photos share."""
    parser.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTO",
        help="photos, folders of photos, or glob patterns; what jaxface wrote is left out",
    )
    parser.add_argument("--out", default=out, metavar="DIR", help=f"folder for the results (default: {out})")
    parser.add_argument(
        "--faces", choices=("all", "largest"), default="all", help="which faces of a photo to take (default: all)"
    )
    parser.add_argument("--overwrite", action="store_true", help="make results again that are there already")


def check_platforms() -> None:
    """Checks that JAX finds what $JAX_PLATFORMS names; else it fails in many words wherever it is needed first.

    JAX then chooses its devices: a program of several hosts calls this after they have met.

    Raises:
        InputError: says what to do.
    """
    named = os.environ.get("JAX_PLATFORMS", "")
    if named in ("", "cpu"):
        return
    try:
        jax.devices()
    except Exception as error:  # plug-ins fail in many ways
        raise InputError(
            f"JAX_PLATFORMS={named} names what JAX does not find here; unset it, or set JAX_PLATFORMS=cpu (for a GPU, "
            "install JAX's build for it: pip install 'jax[cuda12]')"
        ) from error


def keep_compiled() -> None:
    """Lets later runs of a program start without compiling: XLA's results stay in the user's cache folder.

    $JAX_COMPILATION_CACHE_DIR, if set, names another folder. Where none can be written, one line says so, and nothing
    is kept.

    Raises:
        InputError: when $JAX_PLATFORMS names what is not there.
    """
    check_platforms()
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # A fit is some sixty programs, most of them small: what each took to compile is a second at most, all took ten.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    named = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if named is not None and (not named or "://" in named):  # none, or one that JAX reaches by other means
        return
    # What cannot be read or written later is compiled anew: no news, and there would be a line for each program.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
    try:
        folder = Path(named) if named else _cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:
        jax.config.update("jax_compilation_cache_dir", None)
        advice = "JAX_COMPILATION_CACHE_DIR can name a folder"
        print(f"note: what is compiled is not kept for the next run ({error}); {advice}", file=sys.stderr)
        return
    if named is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))


def _cache_folder() -> Path:
    """The user's own; RuntimeError without a home, PermissionError when it is another user's, whose code is not run."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxface"
    if hasattr(os, "geteuid") and folder.exists() and folder.stat().st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to another user")
    return folder


def print_summary(report: BatchReport, pages: Sequence[Path]) -> int:
    """Prints the summary, what failed and why and, last, the page to open; returns the exit code."""
    print(report.summary())
    if report.done + report.skipped + len(report.failures) > 1:
        for message in report.failures + report.incomplete:
            print(f"  {message}")
    if pages:
        print(pages[-1])
    return report.exit_code
