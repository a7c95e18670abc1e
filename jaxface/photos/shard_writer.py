"""Writing files of many samples (`photos.shards`), so that a kill at any instant loses no finished file and doubles no
sample.

A file is written under a hidden name, put on the disk, and named; then its list is, in the same way. The list is what
counts: a file without one is what a killed run left between the two steps, and the next run writes it anew.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from jaxface.core.errors import InputError, needs_extra
from jaxface.files.atomic import DiskFullError, atomic_write
from jaxface.photos.shards import SUFFIX, list_name

SAMPLES_PER_FILE, BYTES_PER_FILE = 1024, 2**27
"""A file ends after the photo with which it has one of these: so much work is lost, at most, when a run is killed."""


class ShardWriter:
    """Appends the samples of photos to the files of one share.

    Where a file ends depends on the photos in it alone: given the same photos in the same order, an interrupted run
    that is taken up again writes the same files to the last byte.

    Args:
        folder: the dataset's folder, which is there.
        share: whose files to write, from 1.
        shares: number of shares.
        samples_per_file: at which a file ends.

    Raises:
        InputError: when another run writes this share.
        MissingDependencyError: when ArrayRecord is not installed.
    """

    def __init__(self, folder: Path, *, share: int, shares: int, samples_per_file: int):
        with needs_extra("photo", "the shard format"):
            from array_record.python import array_record_module
        self._module = array_record_module
        self._folder, self._share, self._shares = folder, share, shares
        self._samples_per_file = samples_per_file
        self._lock = _locked(folder / f".samples-{share:04d}-of-{shares:04d}.lock")
        self._number = 0
        while self._list.exists():
            self._number += 1
        self._photos: list[tuple[str, int]] = []
        self._samples = self._bytes = 0
        self._writer: Any = None

    def add(self, key: str, records: Sequence[bytes]) -> None:
        """Adds a photo, with one record per face; with none, to be remembered as done.

        Raises:
            DiskFullError: when it cannot be written.
        """
        with _writing(self._data):
            for record in records:
                if self._writer is None:
                    # One record a chunk, to be read alone; its pictures are compressed already.
                    self._writer = self._module.ArrayRecordWriter(str(self._unfinished), "group_size:1,uncompressed")
                self._writer.write(record)
                self._bytes += len(record)
        self._samples += len(records)
        self._photos.append((key, len(records)))
        if self._samples >= self._samples_per_file or self._bytes >= BYTES_PER_FILE:
            self.finish_file()

    def finish_file(self) -> None:
        """Gives what was added since the last file its place; to be called at the end.

        Raises:
            DiskFullError: when it cannot be written.
        """
        size = 0
        if self._writer is not None:
            with _writing(self._data):
                self._writer.close()
                self._writer = None
            with atomic_write(self._data, lasting=True) as partial:
                os.replace(self._unfinished, partial)
            size = self._data.stat().st_size
        if self._photos:
            content = {"samples": self._samples, "bytes": size, "photos": self._photos}
            with atomic_write(self._list, lasting=True) as partial:
                partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
            self._number += 1
        self._photos, self._samples, self._bytes = [], 0, 0

    def close(self) -> None:
        """Lets go of what is not finished."""
        if self._writer is not None:
            with contextlib.suppress(RuntimeError):
                self._writer.close()
            self._writer = None
        self._unfinished.unlink(missing_ok=True)
        self._lock.close()

    @property
    def _list(self) -> Path:
        return self._folder / list_name(self._share, self._shares, self._number)

    @property
    def _data(self) -> Path:
        return self._list.with_suffix(SUFFIX)

    @property
    def _unfinished(self) -> Path:
        return self._list.with_name(f".{self._list.stem}.unfinished")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # ArrayRecord's
        raise DiskFullError(f"cannot write {path}: {str(error).splitlines()[0]}") from error


def _locked(path: Path) -> IO[str]:
    """A file that one process at a time can have."""
    file = open(path, "w", encoding="utf-8")  # noqa: SIM115
    try:
        import fcntl  # not on every system

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(f"{path.parent}: another run writes this share already; wait for its end") from None
    except (ImportError, OSError):  # and some disks of networks have no locks
        pass
    return file
