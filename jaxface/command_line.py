"""What the entry points share: errors as one line, files in and out, progress, and the summary of a batch."""

import contextlib
import ctypes
import dataclasses
import glob
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from tqdm import tqdm

from jaxface.errors import InputError, MissingDependencyError

Item = TypeVar("Item")

IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .heic .heif .jfif .jp2 .jpe .jpeg .jpg .mpo .pgm .png .ppm .tif .tiff .webp".split()
)
"""What counts as a picture in a folder. HEIC cannot be read: better that each file is named than that none is seen."""

SUCCESS, SOME_FAILED, FAILED, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: all done; some inputs failed and the rest was done; nothing could be done; stopped with Ctrl-C."""


def run(main: Callable[[], int | None], *, keep_freed_memory: bool = True, wait_for_threads: bool = True) -> NoReturn:
    """Runs an entry point and exits: a user's mistake becomes one line on stderr instead of a traceback.

    Args:
        main: does the work; returns an exit code, or None for success.
        keep_freed_memory: False for programs whose single arrays fill much of the memory: freed and asked for again,
            such an array may find its place taken by small ones, and then needs as much anew.
        wait_for_threads: False for programs that on Ctrl-C have nothing left to lose in other threads: a long
            computation there is then cut off rather than waited for.
    """
    if keep_freed_memory:
        _keep_freed_memory()
    code = _exit_code(main)
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


def _exit_code(main: Callable[[], int | None]) -> int:
    try:
        return main() or SUCCESS
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Lets the caller write a file under a hidden name beside `path`, and moves it there only once it is whole.

    Yields:
        The name to write to, with the suffix of `path`. On an exception the file is removed and `path` stays as it was.

    Raises:
        InputError: when the folder cannot be made or written to.
    """
    path = Path(path)
    partial = _partial_name(path)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            os.replace(partial, path)
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


def _partial_name(path: Path) -> Path:
    return path.with_name(f".{path.stem}.partial{path.suffix}")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def collect_files(
    patterns: Sequence[str | os.PathLike],
    *,
    suffixes: frozenset[str] = IMAGE_SUFFIXES,
    exclude: str | os.PathLike | None = None,
) -> list[Path]:
    """Turns files, folders and glob patterns into a list of files, each once, in the order given.

    A folder stands for all files below it with one of `suffixes`, sorted; hidden ones are left out. What matches
    nothing stays in the list as it is: reading it then gives the message, and the rest of the batch goes on.

    Args:
        patterns: what the user typed.
        suffixes: lower-case endings that are looked for in folders.
        exclude: a folder (such as the one for the results) whose files are not taken from folders above it.
    """
    excluded = Path(exclude).resolve() if exclude is not None else None
    files: dict[Path, Path] = {}
    for pattern in patterns:
        path = Path(pattern)
        matches = [path] if path.exists() else [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        for match in matches or [path]:
            below = _files_below(match, suffixes, excluded) if match.is_dir() else []
            for file in below or [match]:
                files.setdefault(file.resolve(), file)
    return list(files.values())


def _files_below(folder: Path, suffixes: frozenset[str], excluded: Path | None) -> list[Path]:
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (excluded is None or Path(root, name).resolve() != excluded)
        )
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.suffix.lower() in suffixes)


def unique_names(
    paths: Sequence[Path], *, occupied: Callable[[str, Path], bool] = lambda name, path: False
) -> list[str]:
    """A short name per file for its results: the stem; files that share a stem get `_2`, `_3`, ... in order.

    Args:
        paths: the files.
        occupied: (name, path) -> whether results of another file than `path` have that name already.
    """
    names: list[str] = []
    taken: set[str] = set()
    for path in paths:
        name, count = path.stem, 1
        while name.lower() in taken or occupied(
            name, path
        ):  # file systems that ignore case would mix up x.jpg and X.jpg
            count += 1
            name = f"{path.stem}_{count}"
        taken.add(name.lower())
        names.append(name)
    return names


def file_digest(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def holds_another_photo(folder: Path, photo: Path, *, record: str) -> bool:
    """Whether a folder has results of another photo than `photo`, or something else; made for `unique_names`.

    Args:
        folder: where the results would go.
        photo: the photo's file.
        record: name of the JSON file in `folder` that holds the digest of its photo as "sha256".
    """
    if not folder.exists() or not photo.is_file():
        return False
    try:
        return json.loads((folder / record).read_text())["sha256"] != file_digest(photo)
    except (OSError, ValueError, KeyError, TypeError):
        return True


def progress(items: Sequence[Item], *, description: str, unit: str = "photo") -> Iterable[Item]:
    """A progress bar with the time left on stderr; silent when stderr is not a terminal."""
    return tqdm(items, desc=description, unit=unit, dynamic_ncols=True, disable=None)


def progress_bar(total: int, *, initial: int = 0, description: str, unit: str = "photo") -> tqdm:
    """A bar like `progress` that the caller moves; `initial` items were done before and do not count as speed."""
    return tqdm(
        total=total, initial=initial, desc=description, unit=unit, dynamic_ncols=True, disable=None, smoothing=0
    )


@dataclasses.dataclass
class BatchReport:
    """Counts what went well in a batch and keeps the messages of what did not.

    Attributes:
        done: inputs finished in this run.
        skipped: inputs left alone because their results were there already.
        failures: one message per failed input, which names it.
        reasons: failed input -> what is wrong with it.
    """

    done: int = 0
    skipped: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)

    @contextlib.contextmanager
    def guard(self, path: str | os.PathLike) -> Iterator[None]:
        """Reports an InputError raised inside, on one line that names `path`, and lets the batch go on."""
        try:
            yield
        except MissingDependencyError:
            raise  # no other file would fare better
        except InputError as error:
            message = str(error) if str(path) in str(error) else f"{path}: {error}"
            self.failures.append(message)
            self.reasons[str(path)] = message.removeprefix(f"{path}: ")
            tqdm.write(f"skipped: {message}", file=sys.stderr)

    @property
    def exit_code(self) -> int:
        """0 when all went well, 1 when some inputs failed, 2 when nothing could be done."""
        if not self.failures:
            return SUCCESS
        return SOME_FAILED if self.done or self.skipped else FAILED

    def summary(self, unit: str = "photo") -> str:
        """The closing line, such as "3 photos done, 1 skipped (already there), 1 failed"."""
        parts = [f"{self.done} {unit}{'' if self.done == 1 else 's'} done"]
        parts += [f"{self.skipped} skipped (already there)"] if self.skipped else []
        parts += [f"{len(self.failures)} failed"] if self.failures else []
        return ", ".join(parts)
