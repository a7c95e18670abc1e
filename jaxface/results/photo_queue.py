"""Three threads for a list of photos: one finds faces, one solves, one writes; none runs far ahead of the others."""

import collections
import contextlib
import dataclasses
import itertools
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from jaxface.core.errors import InputError
from jaxface.files.progress import BatchReport
from jaxface.fitting.descent import SolvedFace
from jaxface.fitting.solver import ALONE, TOGETHER, SolveFaces
from jaxface.photos.face_crops import FaceCrop

_READ_AHEAD, _WRITE_BEHIND = 2 * TOGETHER, 2 * TOGETHER


@dataclasses.dataclass(frozen=True)
class PhotoWithFaces:
    """The faces of one photo, found but not solved.

    Attributes:
        path: the photo's file.
        name: of the folder for its results.
        digest: of the file's content.
        crops: of its faces.
        initial: [N, K] an encoder's answer; None without one.
        rivals: how many other faces could be meant instead of the first.
    """

    path: Path
    name: str
    digest: str
    crops: Sequence[FaceCrop]
    initial: Float[np.ndarray, "N K"] | None = None
    rivals: int = 0


def work_through(
    todo: Sequence[tuple[Path, str]],
    find: Callable[[tuple[Path, str]], PhotoWithFaces],
    solve: SolveFaces | None,
    write: Callable[[PhotoWithFaces, list[SolvedFace]], None],
    report: BatchReport,
    bar: tqdm,
) -> None:
    """Finds, solves and writes, in a thread each; an error in one photo is reported, and the others go on.

    On Ctrl-C, what is solved is still written. A photo itself is not kept from one step to the next, so that memory
    does not grow with the number of photos or their size.

    Args:
        todo: photos and the names of their folders.
        find: finds the faces of one photo.
        solve: as for `process_photos`.
        write: writes the results of one photo.
        report: counts what is done and what failed.
        bar: moves by one for each photo.
    """
    reader, solver, writer = (ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("find", "solve", "write"))
    writing: collections.deque[tuple[Path, Future]] = collections.deque()

    def settle(*, leave: int = _WRITE_BEHIND) -> None:
        """Counts the photos that are written, and waits until no more than `leave` are not."""
        while writing and (len(writing) > leave or writing[0][1].done()):
            path, future = writing[0]
            with report.guard(path):
                _wait(future, bar)
                report.add_done(path)
            writing.popleft()
            bar.update()

    def finding() -> Iterator[PhotoWithFaces]:
        for job, future in _ahead(reader, _telling(find), todo):
            photo = None
            with report.guard(job[0]):
                photo = _wait(future, bar, stage="finding faces", meanwhile=settle)
            if photo is None:
                bar.update()
            else:
                yield photo

    try:
        for group in grouped(finding(), together=1 if solve is None else TOGETHER):
            count = sum(len(photo.crops) for photo in group)
            future = solver.submit(_telling(_solve_group), group, solve)
            stage = f"fitting {count} face{'' if count == 1 else 's'}"
            with contextlib.suppress(InputError):  # told below, once for each photo
                _wait(future, bar, stage=stage, meanwhile=settle)
            for index, photo in enumerate(group):
                solved = None
                with report.guard(photo.path):
                    solved = future.result()[index]
                if solved is None:
                    bar.update()
                else:
                    writing.append((photo.path, writer.submit(_telling(write), photo, solved)))
            settle()
        bar.set_postfix_str("writing")
        settle(leave=0)
    except KeyboardInterrupt:
        reader.shutdown(wait=False, cancel_futures=True)
        if writing:
            more = f"{len(writing)} more photo{'' if len(writing) == 1 else 's'}"
            tqdm.write(f"interrupted: writing what is solved, {more} (Ctrl-C again stops at once)", file=sys.stderr)
            settle(leave=0)
        tqdm.write(f"{report.summary()}; the same command goes on from here", file=sys.stderr)
        raise
    finally:
        solver.shutdown(wait=False, cancel_futures=True)
        for pool in (reader, writer):
            pool.shutdown(wait=True, cancel_futures=True)


def _ahead(executor: ThreadPoolExecutor, function: Callable, items: Sequence) -> Iterator[tuple]:
    """(item, future of function(item)) in order; `_READ_AHEAD` more are under way meanwhile."""
    waiting: collections.deque[tuple] = collections.deque()
    for item in items:
        waiting.append((item, executor.submit(function, item)))
        if len(waiting) > _READ_AHEAD:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


def _wait(future: Future, bar: tqdm, *, stage: str = "", meanwhile: Callable = lambda: None):
    """The future's result; until it is there, the bar's clock goes on and Ctrl-C is heard."""
    if stage:
        bar.set_postfix_str(stage)
    while not wait([future], timeout=0.25).done:
        meanwhile()
        bar.refresh()
    return future.result()


def _telling(function: Callable) -> Callable:
    """The function, with any error that is no InputError turned into one: other photos may fare better."""

    def wrapped(*arguments):
        try:
            return function(*arguments)
        except InputError:
            raise
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in frames if Path(frame.filename).is_relative_to(Path(__file__).parents[1])]
            place = f"{Path(own[-1].filename).name}, line {own[-1].lineno}"
            raise InputError(f"unexpected {type(error).__name__} ({error}) in {place}; please report it") from error

    return wrapped


def grouped(photos: Iterator[PhotoWithFaces], *, together: int = TOGETHER) -> Iterator[list[PhotoWithFaces]]:
    """Photos whose faces are solved at once: up to `together` faces, or a photo by itself where few are left over.

    A photo's faces stay together, so that a group is finished as a whole and an interrupted job goes on with the next.
    """
    group: list[PhotoWithFaces] = []
    count = 0
    for photo in photos:
        if group and count + len(photo.crops) > together:
            yield from _as_batches(group, count)
            group, count = [], 0
        group.append(photo)
        count += len(photo.crops)
        if count >= together:
            yield from _as_batches(group, count)
            group, count = [], 0
    yield from _as_batches(group, count)


def _as_batches(group: list[PhotoWithFaces], count: int) -> list[list[PhotoWithFaces]]:
    return [[photo] for photo in group] if count <= ALONE else [group]


def _solve_group(group: Sequence[PhotoWithFaces], solve: SolveFaces | None) -> list[list[SolvedFace]]:
    """The faces of each photo."""
    answers = [photo.initial for photo in group if photo.initial is not None]
    initial = np.concatenate(answers) if answers else None
    if solve is not None:
        faces = iter(solve([crop.sample for photo in group for crop in photo.crops], initial))
    else:
        faces = iter([SolvedFace(vector) for vector in np.concatenate(answers)])
    return [list(itertools.islice(faces, len(photo.crops))) for photo in group]
