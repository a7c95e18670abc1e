"""Checkpoints: exact resume of a training run, and an encoder for inference, by Orbax.

A run's folder `checkpoints/` holds one folder per kept step, the latest two and the best one, each with

    encoder/   params, batch_stats: all that inference needs
    training/  step, opt_state
    data/      where each process's data iterator stood
    config/    the run's configuration as JSON, the face model's name in it

A step's folder gets its name when it is complete, so a killed run leaves none that is half written.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grain.python as grain
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from jaxface.coefficients import vector_sizes
from jaxface.errors import InputError
from jaxface.face_model import FaceModel
from jaxface.formats import load_face_model
from jaxface.networks import Encoder, create_encoder
from jaxface.step import TrainState, to_float

FOLDER = "checkpoints"
BEST = "part_iou"
"""The metric by which the best checkpoint is chosen: the largest."""

Predict = Callable[[UInt8[np.ndarray, "N S S 3"]], Float[np.ndarray, "N K"]]


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
        self._manager = _open(self._folder, writing=True)
        if self.latest_step is not None:
            self._check_config(_restore(self._manager, self.latest_step, config=ocp.args.JsonRestore())["config"])

    @property
    def latest_step(self) -> int | None:
        """The last step saved, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, iterator: grain.DatasetIterator, metrics: Mapping[str, float]) -> None:
        """Saves in the background; returns when what is to be saved has been copied.

        Args:
            state: as numpy arrays, from `Mapping.fetch`.
            iterator: the training data's, after the batch of the state's last step.
            metrics: held-out figures; `part_iou` chooses the best checkpoint.
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
            InputError: when the checkpoint cannot be read.
        """
        target = jax.tree.map(np.asarray, state)
        restored = _restore(
            self._manager,
            self.latest_step,
            encoder=ocp.args.StandardRestore({"params": target.params, "batch_stats": target.batch_stats}),
            training=ocp.args.StandardRestore({"step": target.step, "opt_state": target.opt_state}),
            data=grain.PyGrainCheckpointRestore(iterator),
        )
        return TrainState(**restored["encoder"], **restored["training"])

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.close()

    def _check_config(self, saved: dict) -> None:
        old, new = _flatten(saved), _flatten(self._config)
        changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        changed = [name for name in changed if name not in ("output_dir", "cache_dir")]  # folders may be moved
        if changed:
            listed = "; ".join(f"config.{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in changed)
            raise InputError(
                f"{self._folder} holds checkpoints of a run with another configuration ({listed}). "
                "Start with the same one to go on, or choose another --config.output_dir"
            )


def load_encoder(path: str | Path, *, which: str = "best") -> tuple[Predict, FaceModel, ConfigDict]:
    """Loads a trained encoder for inference.

        predict, model, config = load_encoder("outputs/quickstart")
        vector = predict(images)  # uint8 [N, S, S, 3] with S = config.image_size -> [N, K]

    Args:
        path: a run's folder, or the `checkpoints` folder in it.
        which: "best" (by held-out Part IoU) or "latest".

    Returns:
        A function from aligned crops to coefficient vectors, the face model they belong to, and the run's config.

    Raises:
        InputError: when there is no checkpoint, or it cannot be read.
    """
    if which not in ("best", "latest"):
        raise ValueError(f'which must be "best" or "latest", not {which!r}')
    folder = Path(path).absolute()
    folder = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    if not folder.is_dir():
        raise InputError(f"{path}: no such folder; give the output folder of a training run")
    manager = _open(folder, writing=False)
    try:
        step = manager.best_step() if which == "best" else manager.latest_step()
        step = manager.latest_step() if step is None else step
        if step is None:
            raise InputError(f"{path}: holds no complete checkpoint; give the output folder of a training run")
        config = ConfigDict(_restore(manager, step, config=ocp.args.JsonRestore())["config"])
        model, encoder = _model_and_encoder(config, folder)
        shapes = jax.eval_shape(lambda: _initialize(encoder, config.image_size))
        target = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), {"batch_stats": {}, **shapes})
        variables = _restore(manager, step, encoder=ocp.args.StandardRestore(target))["encoder"]
    finally:
        manager.close()
    return _make_predict(encoder, variables, config.image_size), model, config


def config_to_dict(config: ConfigDict) -> dict:
    """Plain dictionaries and lists, as they come back from JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping | ConfigDict):
            return {name: plain(value[name]) for name in value}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    return plain(config)


def create_configured_encoder(config: ConfigDict, model: FaceModel, axis_name: str | None = None) -> Encoder:
    """The encoder that `config.encoder` describes, with heads for `model`."""
    settings = dict(config.encoder)
    try:
        return create_encoder(settings.pop("name"), vector_sizes(model)[:3], axis_name=axis_name, **settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"config.encoder: {error}") from error


def _model_and_encoder(config: ConfigDict, folder: Path) -> tuple[FaceModel, Encoder]:
    try:
        model = load_face_model(config.face_model)
        return model, create_configured_encoder(config, model)
    except InputError as error:
        raise InputError(f"{folder}: what the checkpoint was trained with cannot be made again: {error}") from error
    except AttributeError as error:
        raise InputError(f"{folder}: the checkpoint's configuration is not a training run's: {error}") from error


def _initialize(encoder: Encoder, size: int) -> Any:
    return encoder.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False)


def _make_predict(encoder: Encoder, variables: Any, size: int) -> Predict:
    apply = jax.jit(lambda variables, images: encoder.apply(variables, to_float(images), train=False))
    variables = jax.device_put(variables)

    def predict(images: UInt8[np.ndarray, "N S S 3"]) -> Float[np.ndarray, "N K"]:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise ValueError(
                f"this encoder takes uint8 crops [N, {size}, {size}, 3], got {images.dtype} {list(images.shape)}"
            )
        return np.asarray(apply(variables, images))

    return predict


def _open(folder: Path, *, writing: bool) -> ocp.CheckpointManager:
    def figure(metrics: Mapping[str, float]) -> float:
        return metrics.get(BEST, 0.0)

    options = ocp.CheckpointManagerOptions(
        best_fn=figure,
        best_mode="max",
        preservation_policy=AnyPreservationPolicy([LatestN(2), BestN(get_metric_fn=figure, n=1)]),
        cleanup_tmp_directories=writing,  # what a killed run left half written
        create=writing,
    )
    return ocp.CheckpointManager(folder, options=options)


def _restore(manager: ocp.CheckpointManager, step: int | None, **items: Any) -> Mapping[str, Any]:
    folder = Path(str(manager.directory)) / str(step)
    try:
        restored = manager.restore(step, args=ocp.args.Composite(**items))
    except Exception as error:  # Orbax, TensorStore and JSON raise many kinds for a damaged folder
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{folder}: the checkpoint cannot be read ({type(error).__name__}: {reason[0] if reason else ''}). "
            "Delete this folder to fall back on the one before it"
        ) from error
    return {name: restored[name] for name in items}


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    pieces = (_flatten(value, f"{prefix}.{name}" if prefix else name) for name, value in tree.items())
    return {name: value for piece in pieces for name, value in piece.items()}
