"""Progress bars, and reports of what was done and what failed."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

from jaxface.core.errors import InputError, MissingDependencyError
from jaxface.files.atomic import DiskFullError

Item = TypeVar("Item")

SUCCESS, SOME_FAILED, FAILED, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: all done; some inputs failed and the rest was done; nothing could be done; stopped with Ctrl-C."""


def progress(items: Sequence[Item], *, description: str, unit: str = "photo") -> Iterable[Item]:
    """A progress bar with the time left on stderr; silent when stderr is not a terminal."""
    return tqdm(items, desc=description, unit=unit, dynamic_ncols=True, disable=None)


def progress_bar(total: int, *, initial: int = 0, description: str, unit: str = "photo") -> tqdm:
    """A bar like `progress` that the caller moves; `initial` items were done before and do not count as speed."""
    return tqdm(
        total=total, initial=initial, desc=description, unit=unit, dynamic_ncols=True, disable=None, smoothing=0
    )


def tell(line: str) -> None:
    """Writes a line on stderr, beside a progress bar if there is one."""
    tqdm.write(line, file=sys.stderr)


@dataclasses.dataclass
class BatchReport:
    """Counts what went well in a batch and keeps the messages of what did not.

    Attributes:
        done: inputs finished in this run.
        skipped: inputs left alone because their results were there already.
        failures: one message per failed input, which names it.
        reasons: failed input -> what is wrong with it.
        incomplete: one message per input that is done, but for a part that is missing.
        unit: what the inputs are called.
    """

    done: int = 0
    skipped: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)
    incomplete: list[str] = dataclasses.field(default_factory=list)
    unit: str = "photo"

    def add_done(self, path: str | os.PathLike) -> None:
        """Counts a finished input; where stderr is no terminal, and so no bar shows it, on a line of its own."""
        self.done += 1
        if not sys.stderr.isatty():
            print(f"done: {path}", file=sys.stderr, flush=True)

    def add_incomplete(self, path: str | os.PathLike, problem: str) -> None:
        """Reports on one line what is missing of an input that is done otherwise."""
        self.incomplete.append(f"{path}: {problem}")
        tell(f"incomplete: {path}: {problem}")

    @contextlib.contextmanager
    def guard(self, path: str | os.PathLike) -> Iterator[None]:
        """Reports an InputError raised inside, on one line that names `path`, and lets the batch go on."""
        try:
            yield
        except (MissingDependencyError, DiskFullError):
            raise  # no other file would fare better
        except InputError as error:
            message = str(error) if str(path) in str(error) else f"{path}: {error}"
            self.failures.append(message)
            self.reasons[str(path)] = message.removeprefix(f"{path}: ")
            tell(f"skipped: {message}")

    @property
    def exit_code(self) -> int:
        """0 when all went well, 1 when some inputs failed or are incomplete, 2 when nothing could be done."""
        if not self.failures:
            return SOME_FAILED if self.incomplete else SUCCESS
        return SOME_FAILED if self.done or self.skipped else FAILED

    def summary(self) -> str:
        """The closing line, such as "3 photos done, 1 skipped (already there), 1 failed"."""
        parts = [f"{self.done} {self.unit}{'' if self.done == 1 else 's'} done"]
        parts += [f"{self.skipped} skipped (already there)"] if self.skipped else []
        parts += [f"{len(self.incomplete)} of them incomplete"] if self.incomplete else []
        parts += [f"{len(self.failures)} failed"] if self.failures else []
        return ", ".join(parts)
