"""Checkpoints: exact resume of a training run, and an encoder for inference, by Orbax.

A run's folder `checkpoints/` holds one folder per kept step, the latest two and the best one, each with

    encoder/   params, batch_stats: all that inference needs
    training/  step, opt_state
    config/    the run's configuration as JSON, the face model's name in it
    machine/   devices, processes, and the working folder, which relative paths began at

Where the data stand follows from the step: each takes one batch of an order that depends on the configuration alone.

A step's folder gets its name when it is complete, so a killed run leaves none that is half written. An encoder that was
converted from elsewhere (networks/conversion.py) is such a folder with one step, 0, of encoder/ and config/ alone.
"""

import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util
from ml_collections import ConfigDict

from jaxface.core.errors import InputError
from jaxface.networks.checkpoints import (
    FOLDER,
    check_shapes,
    config_to_dict,
    open_manager,
    read_encoder,
    reading,
    restore_items,
)
from jaxface.training.step import TrainState

_PATHS = ("face_model", "recognition", "data.path")
"""Of the configuration: paths that are spelled alike (projects move as a whole) or lead to one place are the same."""

_SILENT = ("output_dir", "cache_dir", "encoder.initial")
"""May change and change nothing: folders that were moved, and weights that did what they had to at the first step."""

_FREE = ("devices", "processes", "name", "steps", "parallel", "multi_host", "log_every", "checkpoint_every") + (
    "max_skipped_steps",
    "data.workers",
    "optimizer.",
)
"""May change; a dot at the end is for all that begins so."""

_FIXED = {
    "encoder.": "the saved weights are this network's",
    "face_model": "coefficients of another face model mean something else",
    "image_size": "the saved weights were learned at this size",
    "loss.": "the figures before and after would be of different objectives",
    "recognition": "the figures before and after would be of different objectives",
}
"""Why the rest may not; what is named nowhere settles the order of the data."""

_ORDER = "it settles which samples come in which order, and which of them are held out"


class Checkpoints:
    """The checkpoints of one training run.

    Args:
        directory: the run's folder; checkpoints go to `checkpoints/` inside.
        config: the run's configuration.

    Attributes:
        changes: what is another than when the latest checkpoint was saved, and may be: name -> (before, now).

    Raises:
        InputError: when the folder holds checkpoints of a configuration that this one cannot go on from.
    """

    def __init__(self, directory: str | Path, config: ConfigDict):
        self._config = config_to_dict(config)
        self._machine = {"devices": jax.device_count(), "processes": jax.process_count(), "folder": os.getcwd()}
        self.changes: dict[str, tuple[Any, Any]] = {}
        self._folder = Path(directory).absolute() / FOLDER
        self._manager = open_manager(self._folder, writing=True)
        if self.latest_step is not None:
            self.changes = self._changes()

    @property
    def latest_step(self) -> int | None:
        """The last step saved, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, metrics: Mapping[str, float]) -> None:
        """Saves in the background; returns when what is to be saved has been copied.

        Args:
            state: as numpy arrays, from `Mapping.fetch`.
            metrics: held-out figures; those of `networks.checkpoints.BEST` choose the best checkpoint.
        """
        items = {
            "encoder": ocp.args.StandardSave({"params": state.params, "batch_stats": state.batch_stats}),
            "training": ocp.args.StandardSave({"step": state.step, "opt_state": state.opt_state}),
            "config": ocp.args.JsonSave(self._config),
            "machine": ocp.args.JsonSave(self._machine),
        }
        known = {name: float(value) for name, value in metrics.items()}
        self._manager.save(int(state.step), args=ocp.args.Composite(**items), metrics=known)

    def restore(self, state: TrainState) -> TrainState:
        """The latest checkpoint, as numpy arrays.

        Args:
            state: a fresh state of the same structure.

        Raises:
            InputError: when the checkpoint cannot be read, or its face model had other numbers of coefficients.
        """
        target = jax.tree.map(np.asarray, state)
        folder = self._folder / str(self.latest_step)
        with reading(folder):
            # By the checkpoint's own structure: before clipping could change, runs without it lacked an empty state.
            told = dict(ocp.StandardCheckpointHandler().metadata(epath.Path(folder) / "training"))
            saved = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), told)
        restored = restore_items(
            self._manager,
            self.latest_step,
            encoder=ocp.args.StandardRestore({"params": target.params, "batch_stats": target.batch_stats}),
            training=ocp.args.StandardRestore(saved),
        )
        found = TrainState(**restored["encoder"], **restored["training"])
        stored, wanted = ([np.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (found, target))
        if stored != wanted:  # the same words in the configuration, but the file that they name is another
            raise InputError(
                f"{self._folder} holds checkpoints of an encoder for another edition of the face model "
                f"{self._config['face_model']!r}, of other numbers of coefficients: choose another --config.output_dir"
            )
        return jax.tree.unflatten(jax.tree.structure(target), jax.tree.leaves(found))

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.close()

    def _changes(self) -> dict[str, tuple[Any, Any]]:
        step = self.latest_step
        saved = restore_items(self._manager, step, config=ocp.args.JsonRestore())["config"]
        machine = dict(self._machine)
        if (self._folder / str(step) / "machine").is_dir():  # older ones tell none
            machine = restore_items(self._manager, step, machine=ocp.args.JsonRestore())["machine"]
        old, new = {"encoder.dtype": "float32"} | _flatten(saved), _flatten(self._config)  # older runs do not name it
        old |= {name: machine[name] for name in ("devices", "processes")}
        new |= {name: self._machine[name] for name in ("devices", "processes")}
        changed = {
            name: (old.get(name), new.get(name))
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name) and name not in _SILENT
        }
        for name in _PATHS:
            if name in changed and _same_path(*changed[name], folder=machine["folder"]):
                del changed[name]
        refused = [name for name in changed if _named(name, _FREE) is None]
        if refused:
            listed = "; ".join(
                f"config.{name} was {changed[name][0]!r}, is {changed[name][1]!r}: {_reason(name)}" for name in refused
            )
            raise InputError(
                f"{self._folder} holds checkpoints of a run that cannot go on with this configuration ({listed}). "
                "Set back what is named here, or begin another run from these weights: "
                f"--config.output_dir=ANOTHER --config.encoder.initial={self._folder.parent}"
            )
        if self._config["steps"] < (step or 0):
            raise InputError(f"{self._folder} stands at step {step}: config.steps is {self._config['steps']}, too few")
        return changed


def _reason(name: str) -> str:
    known = _named(name, _FIXED)
    return _ORDER if known is None else _FIXED[known]


def _named(name: str, names: Iterable[str]) -> str | None:
    """Which of the names this is, or begins with if it ends with a dot."""
    return next((one for one in names if name == one or (one.endswith(".") and name.startswith(one))), None)


def _same_path(old: Any, new: Any, *, folder: str) -> bool:
    """Whether both lead to one place; `folder` is where the old one began, if it is relative."""
    if not (isinstance(old, str) and isinstance(new, str) and old and new):
        return False
    there = Path(folder, old)
    return there.exists() and there.resolve() == Path(new).resolve()


def initial_state(
    state: TrainState, optimizer: optax.GradientTransformation, path: str | Path
) -> tuple[TrainState, str]:
    """A fresh state with the weights of a file or folder in it: the backbone's, and the heads' that have its sizes.

    Args:
        state: the encoder's, at step 0.
        optimizer: begins anew with the weights.
        path: as `read_encoder` takes it; a backbone alone will do.

    Returns:
        The state, and in words what was taken.

    Raises:
        InputError: when the weights cannot be read or are another network's.
    """
    weights = read_encoder(path)
    own, given = {"params": state.params, "batch_stats": state.batch_stats}, weights.variables["params"]
    shapes = {key: leaf.shape for key, leaf in traverse_util.flatten_dict(own).items() if key[1] == "backbone"}
    check_shapes(weights, shapes, path, heads=False)
    heads = [name for name in state.params if name != "backbone"]
    shapes_of = functools.partial(jax.tree.map, np.shape)
    fitting = [name for name in heads if name in given and shapes_of(given[name]) == shapes_of(state.params[name])]
    params = dict(state.params) | {name: given[name] for name in ["backbone", *fitting]}
    state = TrainState(state.step, params, weights.variables["batch_stats"], optimizer.init(params))
    return state, f"the backbone and {len(fitting)} of {len(heads)} heads from {path}"


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    pieces = (_flatten(value, f"{prefix}.{name}" if prefix else name) for name, value in tree.items())
    return {name: value for piece in pieces for name, value in piece.items()}
