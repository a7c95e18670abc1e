"""Checkpoints: exact resume of a training run, and an encoder for inference, by Orbax.

A run's folder `checkpoints/` holds one folder per kept step, the latest two and the best one, each with

    encoder/   params, batch_stats: all that inference needs
    training/  step, opt_state
    data/      where each process's data iterator stood
    config/    the run's configuration as JSON, the face model's name in it

A step's folder gets its name when it is complete, so a killed run leaves none that is half written. An encoder that was
converted from elsewhere (formats/weights.py) is such a folder with one step, 0, of encoder/ and config/ alone.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grain.python as grain
import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from jaxface.coefficients import vector_sizes
from jaxface.errors import InputError
from jaxface.face_model import FaceModel
from jaxface.formats import load_face_model
from jaxface.formats.weights import EncoderWeights, read_encoder_file, variable_shapes
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
        # Folders and files may be moved; the initial weights did what they had to at the run's first step.
        changed = [name for name in changed if name not in ("output_dir", "cache_dir", "encoder.initial")]
        if changed:
            listed = "; ".join(f"config.{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in changed)
            raise InputError(
                f"{self._folder} holds checkpoints of a run with another configuration ({listed}). "
                "Start with the same one to go on, or choose another --config.output_dir"
            )


def load_encoder(
    path: str | Path, *, which: str = "best", model: FaceModel | None = None
) -> tuple[Predict, FaceModel, ConfigDict]:
    """Loads a trained encoder for inference.

        predict, model, config = load_encoder("outputs/quickstart")
        vector = predict(images)  # uint8 [N, S, S, 3] with S = config.image_size -> [N, K]

        bfm = jaxface.load_face_model("face_model.npy")
        predict, model, config = load_encoder("net_recon.pth", model=bfm)

    Args:
        path: a run's folder, or the `checkpoints` folder in it; or 3DDFA-V3's or Deep3D's net_recon.pth, or a
            .safetensors file, see `formats.weights`.
        which: of a run's checkpoints, "best" (by held-out Part IoU) or "latest".
        model: the face model that the encoder was trained with; by default the one that the checkpoint names.

    Returns:
        A function from aligned crops to coefficient vectors, the face model they belong to, and the run's config (of a
        file: name, face_model, image_size, encoder).

    Raises:
        InputError: when there is no checkpoint, it cannot be read, or it does not belong to `model`.
    """
    weights = read_encoder(path, which=which)
    config = ConfigDict(weights.config)
    if not weights.head_sizes:
        raise InputError(f"{path}: holds a backbone without heads; it serves as config.encoder.initial of a training")
    try:
        if model is None and not config.face_model:
            raise InputError("it names none; give the one that it was trained with (--model FILE)")
        model = model or load_face_model(config.face_model)
        encoder = create_configured_encoder(config, model)
    except InputError as error:
        raise InputError(f"{path}: the face model of this encoder cannot be used: {error}") from error
    sizes = vector_sizes(model)[:3]
    if weights.head_sizes != sizes:
        raise InputError(
            f"{path}: the encoder gives {_told(weights.head_sizes)}, but the face model {model.name!r} has "
            f"{_told(sizes)}; give the face model that the encoder was trained with (--model FILE)"
        )
    _check_shapes(weights, variable_shapes(_settings(config), sizes), path)
    return _make_predict(encoder, weights.variables, config.image_size), model, config


def read_encoder(path: str | Path, *, which: str = "best") -> EncoderWeights:
    """Reads an encoder's variables and configuration from any of the places that `load_encoder` knows.

    Raises:
        InputError: when there is no checkpoint, or it cannot be read.
    """
    if which not in ("best", "latest"):
        raise ValueError(f'which must be "best" or "latest", not {which!r}')
    folder = Path(path).absolute()
    if folder.is_file():
        return read_encoder_file(path)
    folder = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    if not folder.is_dir():
        raise InputError(f"{path}: no such folder; give the output folder of a training run, or a file of weights")
    manager = _open(folder, writing=False)
    try:
        step = manager.best_step() if which == "best" else manager.latest_step()
        step = manager.latest_step() if step is None else step
        if step is None:
            raise InputError(f"{path}: holds no complete checkpoint; give the output folder of a training run")
        config = _restore(manager, step, config=ocp.args.JsonRestore())["config"]
        with _reading(folder / str(step)):
            stored = ocp.StandardCheckpointHandler().metadata(epath.Path(folder) / str(step) / "encoder")
            target = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), dict(stored))
            params = target["params"]
            heads = [params.get(f"final_layers_{index}", {"bias": ()}) for index in range(3)]  # none for no numbers
            head_sizes = tuple(len(head["bias"]) for head in heads) if len(params) > 1 else ()
        variables = _restore(manager, step, encoder=ocp.args.StandardRestore(target))["encoder"]
    finally:
        manager.close()
    fields = {"face_model", "image_size", "encoder"}
    if not isinstance(config, dict) or not fields <= config.keys() or not isinstance(config["encoder"], dict):
        raise InputError(f"{folder / str(step)}: the checkpoint's configuration is not a training run's")
    return EncoderWeights(config, head_sizes, variables)


def save_encoder(directory: str | Path, weights: EncoderWeights) -> None:
    """Writes an encoder as a checkpoint of a run that stands at step 0.

    Raises:
        InputError: when the folder holds something already or cannot be written.
    """
    directory = Path(directory).absolute()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory}: is there already; name a new folder for the checkpoint")
    try:
        manager = _open(directory / FOLDER, writing=True)
        items = {"encoder": ocp.args.StandardSave(weights.variables), "config": ocp.args.JsonSave(weights.config)}
        manager.save(0, args=ocp.args.Composite(**items), metrics={})
        manager.close()
    except OSError as error:
        raise InputError(f"cannot write {directory}: {error.strerror or error}") from error


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
    _check_shapes(weights, shapes, path, heads=False)
    heads = [name for name in state.params if name != "backbone"]
    fitting = [
        name for name in heads if name in given and given[name]["bias"].shape == state.params[name]["bias"].shape
    ]
    params = dict(state.params) | {name: given[name] for name in ["backbone", *fitting]}
    state = TrainState(state.step, params, weights.variables["batch_stats"], optimizer.init(params))
    return state, f"the backbone and {len(fitting)} of {len(heads)} heads from {path}"


def config_to_dict(config: ConfigDict) -> dict:
    """Plain dictionaries and lists, as they come back from JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping | ConfigDict):
            return {name: plain(value[name]) for name in value}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    return plain(config)


def create_configured_encoder(config: ConfigDict, model: FaceModel, axis_name: str | None = None) -> Encoder:
    """The encoder that `config.encoder` describes, with heads for `model`."""
    settings = _settings(config)
    try:
        return create_encoder(settings.pop("name"), vector_sizes(model)[:3], axis_name=axis_name, **settings)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"config.encoder: {error}") from error


def _settings(config: ConfigDict) -> dict[str, Any]:
    """The arguments of `create_encoder`: without the file to start from."""
    return {name: value for name, value in dict(config.encoder).items() if name != "initial"}


def _told(sizes: tuple[int, ...]) -> str:
    return "{} identity, {} expression and {} albedo coefficients".format(*sizes)


def _check_shapes(
    weights: EncoderWeights, shapes: Mapping[tuple, tuple[int, ...]], path: str | Path, *, heads: bool = True
) -> None:
    stored = traverse_util.flatten_dict(weights.variables)
    found = {path: leaf.shape for path, leaf in stored.items() if heads or path[1] == "backbone"}
    wrong = sorted(".".join(key) for key in found.keys() | shapes.keys() if found.get(key) != shapes.get(key))
    if wrong:
        name = weights.config["encoder"].get("name")
        raise InputError(
            f"{path}: holds the weights of {name!r}, which are not those that config.encoder asks for: "
            f"{len(wrong)} arrays differ, such as {', '.join(wrong[:3])}"
        )


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
    with _reading(Path(str(manager.directory)) / str(step)):
        restored = manager.restore(step, args=ocp.args.Composite(**items))
        return {name: restored[name] for name in items}


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Orbax, TensorStore and JSON raise many kinds for a damaged folder
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{folder}: the checkpoint cannot be read ({type(error).__name__}: {reason[0] if reason else ''}). "
            "Delete this folder to fall back on the one before it"
        ) from error


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    pieces = (_flatten(value, f"{prefix}.{name}" if prefix else name) for name, value in tree.items())
    return {name: value for piece in pieces for name, value in piece.items()}
