"""What a training run says: metrics.jsonl, a progress bar, and TensorBoard if tensorboardX is installed."""

import importlib.util
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jaxface.core.errors import InputError


class RunLog:
    """Writes a run's figures; only process 0 of a multi-host run should hold one that is enabled.

    metrics.jsonl has one line per record: {"step": 100, "loss": ...}. It holds no clock times, so that the files of two
    equal runs are equal. Lines after `step` are dropped: they belong to steps that a killed run made after its last
    checkpoint, and that are now made again.

    Args:
        directory: the run's folder.
        step: where the run starts or goes on.
        total: where it ends.
        enabled: False writes and prints nothing.
    """

    def __init__(self, directory: str | Path, *, step: int, total: int, enabled: bool = True):
        self._path = Path(directory) / "metrics.jsonl"
        self._enabled = enabled
        self._tensorboard: Any = None
        quiet_seconds = 0.5 if sys.stderr.isatty() else 20.0  # a log file needs no animation
        self._bar = tqdm(
            total=total, initial=step, unit="step", dynamic_ncols=True, mininterval=quiet_seconds, disable=not enabled
        )
        if enabled:
            keep_lines_up_to(self._path, step)
            if importlib.util.find_spec("tensorboardX"):
                import tensorboardX

                self._tensorboard = tensorboardX.SummaryWriter(
                    str(Path(directory) / "tensorboard"), purge_step=step + 1
                )

    def advance(self, steps: int = 1) -> None:
        """Moves the progress bar."""
        self._bar.update(steps)

    def write(self, step: int, metrics: Mapping[str, float], *, show: bool = True) -> None:
        """Appends one line to metrics.jsonl; with `show` the figures appear beside the bar."""
        if not self._enabled:
            return
        line = json.dumps({"step": step, **{name: _plain(value) for name, value in metrics.items()}})
        with self._path.open("a") as file:
            file.write(line + "\n")  # one write per line, flushed on closing
        if show:
            figures = " ".join(f"{name} {value:.4g}" for name, value in metrics.items() if value)
            self._bar.set_postfix_str(figures, refresh=False)
        if self._tensorboard is not None:
            for name, value in metrics.items():
                self._tensorboard.add_scalar(name, value, step)

    def changed(self, step: int, changes: Mapping[str, tuple[Any, Any]]) -> None:
        """Appends what is another than when step `step` was made: {"step": 8, "changed": {name: [before, now]}}."""
        if not (self._enabled and changes):
            return
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, "changed": changes}) + "\n")
        self.say("Changed: " + "; ".join(f"{name} was {old!r}, is {new!r}" for name, (old, new) in changes.items()))

    def say(self, message: str) -> None:
        """Prints a line without tearing the progress bar."""
        if self._enabled:
            tqdm.write(message)

    def close(self) -> None:
        """Ends the progress bar."""
        self._bar.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


def keep_lines_up_to(path: Path, step: int) -> None:
    """Drops the lines of a metrics file that are after `step`, or that a kill left unfinished.

    Changes at `step` are dropped too: they belong to steps that were lost, and are written again if they still hold.

    Raises:
        InputError: for a file that is not a metrics file.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
            record_step = record["step"]
        except json.JSONDecodeError:
            break  # the last line of a killed run
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: is not a metrics file; move it away") from error
        if record_step < step or (record_step == step and "changed" not in record):
            kept.append(line + "\n")
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(kept))
    os.replace(temporary, path)


def _plain(value: float) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None  # JSON knows no NaN
