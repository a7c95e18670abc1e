"""Figures one by one: measured, printed beside their targets, kept in a file."""

import contextlib
import dataclasses
import json
import time

import jax
from measuring import seconds_of

from jaxface.core.errors import MissingDependencyError
from jaxface.files import atomic


class LeftOut(Exception):
    """A figure that is not to be had here, with the reason."""


@dataclasses.dataclass(frozen=True)
class Target:
    """What a value of a figure is to reach on an H100."""

    value: str
    limit: float
    least: bool = False  # the limit is the least value rather than the greatest

    def met(self, found):
        """Whether the figure {name of a value: value} reaches it."""
        return found[self.value] >= self.limit if self.least else found[self.value] <= self.limit

    def __str__(self):
        return f"{'at least' if self.least else 'at most'} {_value(self.value, self.limit)}"


class Report:
    """Prints a line per figure as it comes, and keeps all of them in `path`, which is whole at any time.

    Attributes:
        results: what is written: what it was run on, figures, what was left out, and what failed.
    """

    def __init__(self, path, header, *, seconds, judged):
        """`seconds` after now nothing more begins; targets are said to be met or not only where `judged`."""
        self._path, self._judged = path, judged
        self._start, self._seconds = time.perf_counter(), seconds
        self.results = dict(header) | {"seconds": 0.0, "figures": {}, "left_out": {}, "failed": {}}
        self._write()

    def figure(self, name, measure, *targets):
        """measure() gives {name of a value: value}; what it cannot give is told, and costs no other figure."""
        with self.keep_going(name):
            self.check_time()
            found = measure()
            line = ", ".join(_value(key, value) for key, value in found.items())
            figure, goals = dict(found), []
            for target in targets:
                met = target.met(found) if self._judged else None
                figure.setdefault("targets", []).append(dataclasses.asdict(target) | {"met": met})
                verdict = {True: "met", False: "NOT MET", None: "not judged at these sizes"}[met]
                goals.append(f"{target}: {verdict}")
            self.results["figures"][name] = figure
            self._say(f"{name}: {line}" + (f"  [target {'; '.join(goals)}]" if goals else ""))

    @contextlib.contextmanager
    def keep_going(self, name):
        """Notes what is left out and what fails: machines are lent for minutes, and the rest is still wanted."""
        try:
            yield
        except (LeftOut, ImportError, MissingDependencyError) as reason:
            self.results["left_out"][name] = str(reason)
            self._say(f"{name}: left out, {reason}")
        except Exception as error:
            text = f"{type(error).__name__}: {error}"[:500]
            self.results["failed"][name] = text
            self._say(f"{name}: FAILED, {text}")
        self._write()

    def check_time(self):
        """Raises LeftOut once time is up."""
        if time.perf_counter() - self._start > self._seconds:
            raise LeftOut(f"{self._seconds:.0f} s were up")

    def _say(self, line):
        print(f"[{time.perf_counter() - self._start:5.1f} s] {line}", flush=True)

    def _write(self):
        self.results["seconds"] = time.perf_counter() - self._start
        with atomic.atomic_write(self._path) as path:
            path.write_text(json.dumps(self.results, indent=1) + "\n")


UNITS = {
    "ms": "{:.2f} ms",
    "ms_a_face": "{:.3f} ms a face",
    "images_a_second": "{:,.0f} images/s",
    "share": "{:.0%} of the step",
    "compile_seconds": "{:.1f} s to compile",
    "temporary_mb": "{:,.0f} MB of temporaries",
    "peak_mb": "{:,.0f} MB at the peak",
    "value_error": "value off by {:.1e} of itself",
    "gradient_error": "gradient by {:.1e} of its largest",
    "points_px": "points off by {:.1e} px",
    "depth": "depth by {:.1e}",
    "colors": "colours by {:.1e}",
    "pixels": "{:,} pixels",
    "different": "{:,} differ",
}
"""How the values of a figure are printed; their names are those of the file."""


def _value(name, value):
    return UNITS[name].format(value)


def compile_for(function, *arguments, donate=()):
    """(program, what compiling took): from the Python code on; memory beside arguments and results, if JAX tells it."""
    start = time.perf_counter()
    program = jax.jit(function, donate_argnums=donate).lower(*arguments).compile()
    found = {"compile_seconds": time.perf_counter() - start}
    analysis = program.memory_analysis()
    return program, found | ({} if analysis is None else {"temporary_mb": analysis.temp_size_in_bytes / 1e6})


def timed(function, *arguments, batch, budget):
    """Compiles a function of a batch of faces and times it."""
    program, found = compile_for(function, *arguments)
    milliseconds = 1e3 * seconds_of(lambda: jax.block_until_ready(program(*arguments)), budget)
    return {"ms": milliseconds, "ms_a_face": milliseconds / batch} | found
