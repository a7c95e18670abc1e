"""Checkpoints: exact resume of a training run, and an encoder for inference, by Orbax.

A run's folder `checkpoints/` holds one folder per kept step, the latest two and the best one, each with

    encoder/   params, batch_stats: all that inference needs
    training/  step, opt_state
    data/      where each process's data iterator stood
    config/    the run's configuration as JSON, the face model's name in it

A step's folder gets its name when it is complete, so a killed run leaves none that is half written. An encoder that was
converted from elsewhere (networks/conversion.py) is such a folder with one step, 0, of encoder/ and config/ alone.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grain.python as grain
import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import traverse_util
from ml_collections import ConfigDict

from jaxface.core.errors import InputError
from jaxface.networks.checkpoints import FOLDER, check_shapes, config_to_dict, open_manager, read_encoder, restore_items
from jaxface.training.step import TrainState


class Checkpoints:
    """The checkpoints of one training run.

    Args:
        directory: the run's folder; checkpoints go to `checkpoints/` inside.
        config: the run's configuration.

    Raises:
        InputError: when the folder holds checkpoints of another configuration.
    """

    def __init__(self, directory: str | Path, config: ConfigDict):
        self._config = config_to_dict(config)
        self._folder = Path(directory).absolute() / FOLDER
        self._manager = open_manager(self._folder, writing=True)
        if self.latest_step is not None:
            self._check_config(restore_items(self._manager, self.latest_step, config=ocp.args.JsonRestore())["config"])

    @property
    def latest_step(self) -> int | None:
        """The last step saved, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, iterator: grain.DatasetIterator, metrics: Mapping[str, float]) -> None:
        """Saves in the background; returns when what is to be saved has been copied.

        Args:
            state: as numpy arrays, from `Mapping.fetch`.
            iterator: the training data's, after the batch of the state's last step.
            metrics: held-out figures; those of `networks.checkpoints.BEST` choose the best checkpoint.
        """
        items = {
            "encoder": ocp.args.StandardSave({"params": state.params, "batch_stats": state.batch_stats}),
            "training": ocp.args.StandardSave({"step": state.step, "opt_state": state.opt_state}),
            "data": grain.PyGrainCheckpointSave(iterator),
            "config": ocp.args.JsonSave(self._config),
        }
        known = {name: float(value) for name, value in metrics.items()}
        self._manager.save(int(state.step), args=ocp.args.Composite(**items), metrics=known)

    def restore(self, state: TrainState, iterator: grain.DatasetIterator) -> TrainState:
        """The latest checkpoint, as numpy arrays; also sets the iterator to where it stood.

        Args:
            state: a fresh state of the same structure.
            iterator: the training data's.

        Raises:
            InputError: when the checkpoint cannot be read, or its face model had other numbers of coefficients.
        """
        target = jax.tree.map(np.asarray, state)
        restored = restore_items(
            self._manager,
            self.latest_step,
            encoder=ocp.args.StandardRestore({"params": target.params, "batch_stats": target.batch_stats}),
            training=ocp.args.StandardRestore({"step": target.step, "opt_state": target.opt_state}),
            data=grain.PyGrainCheckpointRestore(iterator),
        )
        found = TrainState(**restored["encoder"], **restored["training"])
        stored, wanted = ([np.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (found, target))
        if stored != wanted:  # the same words in the configuration, but the file that they name is another
            raise InputError(
                f"{self._folder} holds checkpoints of an encoder for another edition of the face model "
                f"{self._config['face_model']!r}, of other numbers of coefficients: choose another --config.output_dir"
            )
        return found

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.close()

    def _check_config(self, saved: dict) -> None:
        old, new = {"encoder.dtype": "float32"} | _flatten(saved), _flatten(self._config)  # older runs do not name it
        changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        # Folders and files may be moved; the initial weights did what they had to at the run's first step.
        changed = [name for name in changed if name not in ("output_dir", "cache_dir", "encoder.initial")]
        if changed:
            listed = "; ".join(f"config.{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in changed)
            raise InputError(
                f"{self._folder} holds checkpoints of a run with another configuration ({listed}). "
                "Start with the same one to go on, or choose another --config.output_dir"
            )


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
