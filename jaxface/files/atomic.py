"""Files and folders that appear whole or not at all."""

import contextlib
import errno
import itertools
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from jaxface.core.errors import InputError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class DiskFullError(InputError):
    """Nothing more can be written: there is no space left, or the disk does not allow it."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, *, lasting: bool = False) -> Iterator[Path]:
    """Lets the caller write a file under a hidden name beside `path`, and moves it there only once it is whole.

    Of processes that write the same file at the same time, the last wins.

    Args:
        path: the file.
        lasting: the file is on the disk before it gets its name, should the machine lose its power.

    Yields:
        The name to write to, with the suffix of `path`. On an exception the file is removed and `path` stays as it was.

    Raises:
        InputError: when the folder cannot be made or written to; DiskFullError when that is the reason.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.partial{uuid.uuid4().hex[:8]}{path.suffix}")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            if lasting:
                _to_disk(partial)
            os.replace(partial, path)
            if lasting:
                _to_disk(path.parent)  # where the name is
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Like `atomic_write` for a whole folder; an older folder of that name is replaced.

    Processes that write the same folder at once each fill one of their own; the last wins.

    Yields:
        An empty folder to fill. What an interrupted run left under its name is thrown away first.
    """
    path = Path(path)
    with _writing(path), _partial_folder(path) as partial:
        old = partial.with_suffix(".old")
        shutil.rmtree(old, ignore_errors=True)
        try:
            yield partial
            _replace_folder(partial, path, old)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _partial_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` that no other process has: one that was left behind, or else a new one."""
    for count in itertools.count(1):
        partial = path.with_name(f".{path.name}.partial" if count == 1 else f".{path.name}.{count}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        with _held(partial) as mine:
            if mine is None:  # no locks here: a name that nobody else takes
                with contextlib.suppress(OSError):
                    partial.rmdir()
                partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
                partial.mkdir()
            elif not mine:
                continue
            for leftover in partial.iterdir():
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            yield partial
            return


def _replace_folder(new: Path, path: Path, old: Path) -> None:
    while True:
        try:
            os.rename(new, path)
            return
        except OSError:
            if not path.exists():
                raise
        # A folder with files in it cannot be replaced in one step; another process may come between the two.
        shutil.rmtree(old, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, old)


@contextlib.contextmanager
def folder_lock(folder: str | os.PathLike) -> Iterator[None]:
    """Waits until no other process has the folder, and has it; on systems and disks without locks it does nothing."""
    with _held(Path(folder), wait=True):
        yield


@contextlib.contextmanager
def _held(folder: Path, *, wait: bool = False) -> Iterator[bool | None]:
    """Whether no other process has the folder, so that this one has it now; None if the system knows no locks."""
    try:
        import fcntl  # not on every system

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield None
        return
    mine: bool | None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            mine = os.path.samestat(os.fstat(descriptor), os.stat(folder))  # it may have got another name meanwhile
        except (BlockingIOError, FileNotFoundError):
            mine = False
        except OSError:  # some disks of networks have no locks
            mine = None
        yield mine
    finally:
        os.close(descriptor)  # and with it the lock


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: str | os.PathLike) -> None:
    """Makes a folder that can be written to, before long work whose result belongs there.

    Raises:
        InputError: when it cannot be made or written to.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror or error}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"{path}: no permission to write into this folder")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = DiskFullError if error.errno in _DISK_FULL else InputError
        raise kind(f"cannot write {path}: {error.strerror or error}") from error
