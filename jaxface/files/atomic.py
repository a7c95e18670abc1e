"""Files and folders that appear whole or not at all."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from jaxface.core.errors import InputError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class DiskFullError(InputError):
    """Nothing more can be written: there is no space left, or the disk does not allow it."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, *, writer: str = "", lasting: bool = False) -> Iterator[Path]:
    """Lets the caller write a file under a hidden name beside `path`, and moves it there only once it is whole.

    Args:
        path: the file.
        writer: distinguishes processes that may write this file at the same time: the last wins.
        lasting: the file is on the disk before it gets its name, should the machine lose its power.

    Yields:
        The name to write to, with the suffix of `path`. On an exception the file is removed and `path` stays as it was.

    Raises:
        InputError: when the folder cannot be made or written to; DiskFullError when that is the reason.
    """
    path = Path(path)
    partial = _partial_name(path, writer)
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

    Yields:
        An empty folder to fill. What an interrupted run left under its name is thrown away first.
    """
    path = Path(path)
    partial, old = _partial_name(path), path.with_name(f".{path.name}.old")
    with _writing(path):
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            if path.exists():
                os.rename(path, old)  # a folder with files in it cannot be replaced in one step
            os.rename(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _partial_name(path: Path, writer: str = "") -> Path:
    return path.with_name(f".{path.stem}.partial{writer}{path.suffix}")


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
