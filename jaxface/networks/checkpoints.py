"""Encoders for inference: from a training run, or from a file of weights."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from jaxface.core.coefficients import vector_sizes
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.units import to_float
from jaxface.files.impostors import told_of_impostor
from jaxface.models import load_face_model
from jaxface.networks.encoder import COMPUTE_TYPES, Encoder, create_encoder
from jaxface.networks.people_network import PeopleNetwork, look
from jaxface.networks.people_weights import SHIPPED, is_people_file, read_people_file
from jaxface.networks.weights import EncoderWeights, read_encoder_file, variable_shapes

FOLDER = "checkpoints"
"""Of the checkpoints, in the folder of a training run."""

BEST = ("part_iou", "parser_iou")
"""The metrics whose sum chooses the best checkpoint: the largest; encoders that parse nothing lack the second."""

PredictCrops = Callable[[UInt8[np.ndarray, "N S S 3"]], Float[np.ndarray, "N K"]]


def load_encoder(
    path: str | Path = SHIPPED, *, which: str = "best", model: FaceModel | None = None
) -> tuple[PredictCrops, FaceModel, ConfigDict]:
    """Loads a trained encoder for inference.

        predict, model, config = load_encoder()  # the one that comes with jaxface
        predict, model, config = load_encoder("outputs/quickstart")
        vector = predict(images)  # uint8 [N, S, S, 3] with S = config.image_size -> [N, K]

        bfm = jaxface.load_face_model("face_model.npy")
        predict, model, config = load_encoder("net_recon.pth", model=bfm)

    Args:
        path: a run's folder, or the `checkpoints` folder in it; or 3DDFA-V3's or Deep3D's net_recon.pth, or a
            .safetensors file, see `networks.weights`; by default the encoder that comes with jaxface.
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
            f"{path}: the encoder gives {_count_of(weights.head_sizes)}, but the face model {model.name!r} has "
            f"{_count_of(sizes)}; give the face model that the encoder was trained with (--model FILE)"
        )
    check_shapes(weights, variable_shapes(_settings(config), sizes), path)
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
        return read_people_file(path)[0] if is_people_file(path) else read_encoder_file(path)
    folder = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    if not folder.is_dir():
        raise InputError(f"{path}: no such folder; give the output folder of a training run, or a file of weights")
    manager = open_manager(folder, writing=False)
    try:
        step = manager.best_step() if which == "best" else manager.latest_step()
        step = manager.latest_step() if step is None else step
        if step is None:
            raise InputError(f"{path}: holds no complete checkpoint; give the output folder of a training run")
        config = restore_items(manager, step, config=ocp.args.JsonRestore())["config"]
        with reading(folder / str(step)):
            stored = ocp.StandardCheckpointHandler().metadata(epath.Path(folder) / str(step) / "encoder")
            target = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), dict(stored))
            params = target["params"]
            heads = [params.get(f"final_layers_{index}", {"bias": ()}) for index in range(3)]  # none for no numbers
            head_sizes = tuple(len(head["bias"]) for head in heads) if len(params) > 1 else ()
        variables = restore_items(manager, step, encoder=ocp.args.StandardRestore(target))["encoder"]
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
        manager = open_manager(directory / FOLDER, writing=True)
        items = {"encoder": ocp.args.StandardSave(weights.variables), "config": ocp.args.JsonSave(weights.config)}
        manager.save(0, args=ocp.args.Composite(**items), metrics={})
        manager.close()
    except OSError as error:
        raise InputError(f"cannot write {directory}: {error.strerror or error}") from error


def config_to_dict(config: ConfigDict) -> dict:
    """Plain dictionaries and lists, as they come back from JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping | ConfigDict):
            return {name: plain(value[name]) for name in value}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    return plain(config)


def create_configured_encoder(
    config: ConfigDict, model: FaceModel, axis_name: str | None = None
) -> Encoder | PeopleNetwork:
    """The encoder that `config.encoder` describes, with heads for `model`.

    Raises:
        InputError: when the description is wrong.
    """
    settings = _settings(config)
    dtype = settings.get("dtype", "float32")  # older checkpoints do not name it
    if dtype not in COMPUTE_TYPES:
        raise InputError(f"config.encoder.dtype is {dtype!r}: choose {' or '.join(map(repr, COMPUTE_TYPES))}")
    try:
        return create_encoder(settings.pop("name"), vector_sizes(model)[:3], axis_name=axis_name, **settings)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"config.encoder: {error}") from error


def _settings(config: ConfigDict) -> dict[str, Any]:
    """The arguments of `create_encoder`: without the file to start from."""
    return {name: value for name, value in dict(config.encoder).items() if name != "initial"}


def _count_of(sizes: tuple[int, ...]) -> str:
    return "{} identity, {} expression and {} albedo coefficients".format(*sizes)


def check_shapes(
    weights: EncoderWeights, shapes: Mapping[tuple, tuple[int, ...]], path: str | Path, *, heads: bool = True
) -> None:
    """Checks that weights are those of the network that was asked for.

    Args:
        weights: as they were read.
        shapes: of the network's variables, by their path in the tree.
        path: where the weights are from, for the message.
        heads: False looks at the backbone alone.

    Raises:
        InputError: when shapes differ.
    """
    stored = traverse_util.flatten_dict(weights.variables)
    found = {path: leaf.shape for path, leaf in stored.items() if heads or path[1] == "backbone"}
    wrong = sorted(".".join(key) for key in found.keys() | shapes.keys() if found.get(key) != shapes.get(key))
    if wrong:
        name = weights.config["encoder"].get("name")
        raise InputError(
            f"{path}: holds the weights of {name!r}, which are not those that config.encoder asks for: "
            f"{len(wrong)} arrays differ, such as {', '.join(wrong[:3])}"
        )


def _make_predict(encoder: Encoder | PeopleNetwork, variables: Any, size: int) -> PredictCrops:
    @jax.jit
    def vectors(variables: Any, images: Array) -> Array:
        return cast(Array, encoder.apply(variables, to_float(images), train=False))

    variables = jax.device_put(variables)

    def predict(images: UInt8[np.ndarray, "N S S 3"]) -> Float[np.ndarray, "N K"]:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise ValueError(
                f"this encoder takes uint8 crops [N, {size}, {size}, 3], got {images.dtype} {list(images.shape)}"
            )
        # Convolutions of no picture at all cannot be compiled: of one, none is kept.
        some = images if len(images) else np.zeros((1, size, size, 3), np.uint8)
        people = isinstance(encoder, PeopleNetwork)
        found = look(encoder, variables, some).vector if people else vectors(variables, some)
        return np.asarray(found)[: len(images)]

    return predict


def open_manager(folder: Path, *, writing: bool) -> ocp.CheckpointManager:
    """Orbax's manager of a folder of checkpoints, which keeps the latest two and the best.

    Args:
        folder: the run's folder of checkpoints.
        writing: makes the folder, and removes what a killed run left half written.
    """

    def figure(metrics: Mapping[str, float]) -> float:
        return sum(metrics.get(name, 0.0) for name in BEST)

    options = ocp.CheckpointManagerOptions(
        best_fn=figure,
        best_mode="max",
        preservation_policy=AnyPreservationPolicy([LatestN(2), BestN(get_metric_fn=figure, n=1)]),
        cleanup_tmp_directories=writing,  # what a killed run left half written
        create=writing,
    )
    return ocp.CheckpointManager(folder, options=options)


def restore_items(manager: ocp.CheckpointManager, step: int | None, **items: Any) -> Mapping[str, Any]:
    """Some items of one checkpoint.

    Args:
        manager: from `open_manager`.
        step: of the checkpoint.
        items: name -> Orbax's arguments for it.

    Raises:
        InputError: when the checkpoint cannot be read.
    """
    with reading(Path(str(manager.directory)) / str(step)):
        restored = manager.restore(step, args=ocp.args.Composite(**items))
        return {name: restored[name] for name in items}


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Tells what goes wrong inside as an InputError that names the checkpoint's folder and the way out."""
    try:
        yield
    except Exception as error:  # Orbax, TensorStore and JSON raise many kinds for a damaged folder
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        pointer = next((path for path in files if "LFS" in (told_of_impostor(path) or "")), None)
        if pointer:
            raise InputError(f"{pointer}: {told_of_impostor(pointer)}") from error
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{folder}: the checkpoint cannot be read ({type(error).__name__}: {reason[0] if reason else ''}). "
            "Delete this folder to fall back on the one before it"
        ) from error
