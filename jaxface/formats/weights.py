"""Network weights from PyTorch: each tensor of a checkpoint is matched by name with a variable of a Flax network.

The networks' modules bear PyTorch's names, with `_` for the dot before a number, so that the place of a variable tells
the name of its tensor; kernels go from OIHW to HWIO, linear ones are transposed. What is understood:

    .pth, .pt       PyTorch's own files, opened without running what is in them: tensors by name, bare or under one of
                    WRAPPERS, with or without a leading "module."
    .safetensors    the same names and layouts, so that PyTorch can read what is written here
    .dat            dlib's recognition network
    folders         of a training run, and what `convert_weights` writes (see checkpoint.py)

    and in them         told by
    encoders            backbone.*, final_layers.*      3DDFA-V3's and Deep3D's net_recon.pth
    backbones           layer1.*, features.*            ImageNet's ResNet-18 and -50 (torchvision), MobileNetV3-Large
    face recognition    layer1.0.prelu.*                ArcFace's iresnets
    face parsing        context.dualgcn.*               DML-CSR
"""

import dataclasses
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from flax import traverse_util
from safetensors.numpy import save_file

from jaxface.command_line import atomic_write
from jaxface.errors import InputError
from jaxface.formats import _weight_names
from jaxface.formats._weight_names import network_kind, some, torch_name
from jaxface.networks import create_encoder

FORMAT = "jaxface network 1"
IMAGE_SIZE = 224
"""Side in pixels of the crops that the published encoders take, aligned as `data.alignment` does; RGB in [0, 1]."""

WRAPPERS = ("net_recon", "state_dict")
"""Keys under which checkpoints keep their tensors, beside the optimizer's and others."""

State = dict[str, np.ndarray]

_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_DLIB_MAGIC = b"\x01\x01\x01\x0dloss_metric"


@dataclasses.dataclass(frozen=True)
class EncoderWeights:
    """An encoder's variables, and what is needed to build it.

    Attributes:
        config: name, face_model ("" where the file names none), image_size and encoder (the arguments of
            `create_encoder`), as in the configuration of a training run; of such a run, all of its configuration.
        head_sizes: numbers of identity, expression and albedo coefficients; empty for a backbone without heads.
        variables: {"params": ..., "batch_stats": ...} as the Flax module has them.
    """

    config: dict[str, Any]
    head_sizes: tuple[int, ...]
    variables: dict[str, Any]

    def told(self) -> str:
        """What it is, in one line."""
        heads = f"heads {' | '.join(map(str, (*self.head_sizes, 3, 27, 3)))}" if self.head_sizes else "no heads"
        return f"encoder {self.config['encoder']['name']}, {heads}, {_parameters(self.variables)}"


def is_weights(path: str | os.PathLike) -> bool:
    """Whether a file or folder looks like a network's weights; only its beginning or its index is read."""
    path = Path(path)
    if path.is_dir():
        return (path / "checkpoints").is_dir() or path.name == "checkpoints"
    try:
        if _is_safetensors(path):
            with safetensors.safe_open(path, framework="numpy") as content:
                return (content.metadata() or {}).get("format") == FORMAT or network_kind(content.keys()) is not None
        with open(path, "rb") as file:
            head = file.read(len(_LEGACY_MAGIC))
        if head.startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:
                return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())
        return head in (_LEGACY_MAGIC, _DLIB_MAGIC)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile, safetensors.SafetensorError):
        return False


def convert_weights(path: str | os.PathLike, out: str | os.PathLike) -> str:
    """Converts a network's weights, with every tensor accounted for.

    Args:
        path: a file or folder of those listed at the top.
        out: "X.safetensors", or for an encoder a new folder: an Orbax checkpoint as a training run leaves it. Both
            serve as `--checkpoint` and as `config.encoder.initial`.

    Returns:
        A summary to print.

    Raises:
        InputError: when the file cannot be read, does not fit a network that is known, or `out` cannot be written.
    """
    from jaxface.checkpoint import read_encoder, save_encoder

    path, out = Path(path), Path(out)
    if out.suffix not in (".safetensors", ""):
        raise InputError(f"{out}: network weights are written as X.safetensors, or as a folder (a name without a dot)")
    state = {} if path.is_dir() else read_state(path)
    if path.is_dir() or network_kind(state) in ("encoder", "backbone"):
        weights = read_encoder(path)
        told, count = weights.told(), len(state) or len(encoder_to_torch(weights))
        if out.suffix:
            write_safetensors(out, weights)
        else:
            save_encoder(out, weights)
    elif out.suffix:
        told, count = _check_other(state, path), len(state)
        _write(out, state, {"format": FORMAT})
    else:
        raise InputError(f"{out}: only encoders become checkpoint folders; give a name that ends in .safetensors")
    return f"{path}: {told}; all of {count} tensors accounted for\nwritten: {out}"


def read_state(path: str | os.PathLike) -> State:
    """The tensors of a file by name, out of their wrapper and without a leading "module.".

    A dlib file gives the arrays of the Flax network instead, such as "params.conv1.kernel".

    Raises:
        InputError: when the file cannot be read or does not hold tensors by name.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a network's weights (.pth, .safetensors)")
    content: Any
    if _is_safetensors(path):
        content, _ = _read_safetensors(path)
    elif _starts_with(path, _DLIB_MAGIC):
        from jaxface.formats.dlib_file import read_dlib_network
        from jaxface.networks.face_recognition import dlib_variables

        content = traverse_util.flatten_dict(dlib_variables(read_dlib_network(path), source=str(path)), sep=".")
    else:
        from jaxface.formats.torch_files import read_torch

        content = read_torch(path)
    while isinstance(content, Mapping) and (inner := [key for key in WRAPPERS if key in content]):
        content = content[inner[0]]
    if not isinstance(content, Mapping) or not content or not all(isinstance(name, str) for name in content):
        raise InputError(f"{path}: holds no network: tensors by name are expected, bare or under {some(WRAPPERS)}")
    other = [name for name, value in content.items() if not isinstance(value, np.ndarray | np.generic)]
    if other:
        raise InputError(f"{path}: holds more than tensors by name: {len(other)} entries such as {some(other)}")
    tensors = {name: np.asarray(value) for name, value in content.items()}
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def read_encoder_file(path: str | os.PathLike) -> EncoderWeights:
    """Reads an encoder, or the backbone of one, from a .pth or .safetensors file.

    Raises:
        InputError: when the file cannot be read or its tensors do not fit.
    """
    path = Path(path)
    state = read_state(path)
    metadata = _read_safetensors(path, with_tensors=False)[1] if _is_safetensors(path) else {}
    try:
        size = int(metadata.get("image_size", IMAGE_SIZE))
        settings, heads = (json.loads(metadata.get(key, "null")) for key in ("encoder", "head_sizes"))
        if not 1 <= size <= 4096 or not (settings is None or (isinstance(settings, dict) and "name" in settings)):
            raise ValueError(f"encoder {settings!r:.80}, image_size {size}")
        if not (heads is None or (isinstance(heads, list) and all(type(x) is int and 0 <= x < 10_000 for x in heads))):
            raise ValueError(f"head_sizes {heads!r:.80}")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: its metadata make no sense ({error}); convert the checkpoint again") from error
    try:
        weights = encoder_from_torch(state, settings=settings, head_sizes=heads)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    config = {"name": path.stem, "face_model": metadata.get("face_model", ""), "image_size": size}
    return dataclasses.replace(weights, config=config | weights.config)


def encoder_from_torch(
    state: Mapping[str, np.ndarray],
    *,
    settings: Mapping[str, Any] | None = None,
    head_sizes: Sequence[int] | None = None,
) -> EncoderWeights:
    """The variables of `jaxface.networks.Encoder` from a PyTorch state dictionary.

    Args:
        state: tensors by name. With names in `backbone.` and `final_layers.`, an encoder; else the backbone of one,
            whose classifier ("fc." or "classifier.") is left out.
        settings: arguments of `create_encoder`, "name" among them; by default the names tell the network.
        head_sizes: numbers of identity, expression and albedo coefficients; by default the tensors tell them. An
            encoder has no head for no numbers.

    Raises:
        InputError: lists the tensors that are missing, unknown, misshaped, or not finite.
    """
    kind = network_kind(state)
    if kind not in ("encoder", "backbone"):
        raise InputError(f"is no encoder: {len(state)} tensors such as {some(state)}")
    prefix = "backbone." if kind == "encoder" else ""
    settings = dict(settings or {"name": _weight_names.backbone_name(state, prefix)})
    tensors = {name: value for name, value in state.items() if prefix or not name.startswith(_weight_names.CLASSIFIER)}
    if prefix and not head_sizes:
        heads = [np.shape(state.get(f"final_layers.{index}.weight", 0.0)) for index in range(3)]
        head_sizes = [max(1, *shape[:1]) if shape else 1 for shape in heads]  # a wrong one is told below
    head_sizes = tuple(head_sizes or ()) if prefix else ()
    if len(head_sizes) not in (0, 3):
        raise InputError(f"its metadata tell of {len(head_sizes)} heads instead of 3; convert the checkpoint again")
    shapes = variable_shapes(settings, head_sizes)
    names = {path: torch_name(path).removeprefix("" if prefix else "backbone.") for path in shapes}
    expected = {names[path]: _weight_names.torch_shape(path, shape) for path, shape in shapes.items()}
    _weight_names.check_tensors(tensors, expected, settings["name"])
    variables = {path: _weight_names.from_torch(tensors[name], shapes[path]) for path, name in names.items()}
    return EncoderWeights({"encoder": settings}, head_sizes, traverse_util.unflatten_dict(variables))


def encoder_to_torch(weights: EncoderWeights) -> State:
    """The inverse of `encoder_from_torch`: PyTorch's names and layouts, and its counters of batches."""
    state: State = {}
    for path, value in traverse_util.flatten_dict(weights.variables).items():
        name = torch_name(path)
        state[name] = _weight_names.to_torch(path, value)
        if path[-1] == "mean":
            state[name.replace("running_mean", _weight_names.COUNTER)] = np.zeros((), np.int64)
    return state if weights.head_sizes else {name.removeprefix("backbone."): value for name, value in state.items()}


def write_safetensors(path: str | os.PathLike, weights: EncoderWeights) -> None:
    """Writes an encoder with PyTorch's names and layouts, whole or not at all.

    The metadata are texts: format (FORMAT), encoder (the arguments of `create_encoder` as JSON), head_sizes (a JSON
    list), image_size, face_model.
    """
    metadata = {
        "format": FORMAT,
        "encoder": json.dumps(weights.config["encoder"]),
        "head_sizes": json.dumps(weights.head_sizes),
        "image_size": str(weights.config["image_size"]),
        "face_model": str(weights.config["face_model"]),
    }
    _write(Path(path), encoder_to_torch(weights), metadata)


def variable_shapes(settings: Mapping[str, Any], head_sizes: tuple[int, ...]) -> dict[tuple, tuple[int, ...]]:
    """Shapes of an encoder's variables by their path in the tree; without heads, those of the backbone alone.

    Raises:
        InputError: when the settings are no arguments of `create_encoder`.
    """
    arguments = {key: value for key, value in settings.items() if key != "name"}
    try:
        if not 0 < float(arguments.get("width_multiplier", 1.0)) <= 16:
            raise ValueError(f"width_multiplier {arguments['width_multiplier']!r:.40} is not in (0, 16]")
        encoder = create_encoder(settings["name"], head_sizes or (1, 1, 1), **arguments)
        tree = jax.eval_shape(lambda: encoder.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"the encoder's settings cannot be used: {error}") from error
    flat = traverse_util.flatten_dict(tree)
    return {path: leaf.shape for path, leaf in flat.items() if head_sizes or path[1] == "backbone"}


def _check_other(state: State, path: Path) -> str:
    """Has another network's module match its tensors; says what it is."""
    kind = network_kind(state)
    try:
        if kind == "face recognition":
            from jaxface.networks.face_recognition import iresnet_from_torch

            variables = iresnet_from_torch(state)[1]
        elif kind == "face parsing":
            from jaxface.networks.face_parsing import dml_csr_from_torch

            variables = dml_csr_from_torch(state)[1]
        elif _starts_with(path, _DLIB_MAGIC):
            kind, variables = "face recognition", {"params": state}  # its layers were checked on reading
        else:
            raise InputError(f"holds no network that jaxface knows, but {len(state)} tensors such as {some(state)}")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return f"{kind} network, {_parameters(variables)}"


def _parameters(variables: Mapping[str, Any]) -> str:
    return f"{sum(leaf.size for leaf in jax.tree.leaves(variables['params'])):,} parameters"


def _starts_with(path: Path, magic: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(magic)) == magic


def _is_safetensors(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"


def _write(path: Path, state: State, metadata: dict[str, str]) -> None:
    tensors = {name: np.ascontiguousarray(value).reshape(np.shape(value)) for name, value in state.items()}
    with atomic_write(path) as partial:
        save_file(tensors, partial, metadata=metadata)


def _read_safetensors(path: Path, *, with_tensors: bool = True) -> tuple[State, dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="numpy") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()} if with_tensors else {}  # noqa: SIM118
            return tensors, dict(content.metadata() or {})
    except (OSError, ValueError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: is damaged or no .safetensors file ({error}); make or copy it again") from error
