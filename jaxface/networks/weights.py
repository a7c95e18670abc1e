"""Network weights from PyTorch: each tensor of a checkpoint is matched by name with a variable of a Flax network.

The networks' modules bear PyTorch's names, with `_` for the dot before a number, so that the place of a variable tells
the name of its tensor; kernels go from OIHW to HWIO, linear ones are transposed. What is understood:

    .pth, .pt       PyTorch's own files, opened without running what is in them: tensors by name, bare or under one of
                    WRAPPERS, with or without what PyTorch puts before them, see `torch_names.plain_state`
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
import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxface.core.errors import InputError
from jaxface.core.units import CROP_SIZE
from jaxface.networks import torch_names
from jaxface.networks.encoder import Encoder, create_encoder
from jaxface.networks.people_network import PeopleNetwork
from jaxface.networks.torch_names import network_kind, some, torch_name
from jaxface.networks.weight_files import FORMAT, State, is_safetensors, read_safetensors, read_state, write_state

IMAGE_SIZE = CROP_SIZE
"""Side in pixels of the crops that the published encoders take, aligned as `photos.alignment` does; RGB in [0, 1]."""


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
        return f"encoder {self.config['encoder']['name']}, {heads}, {describe_size(self.variables)}"


def read_encoder_file(path: str | os.PathLike) -> EncoderWeights:
    """Reads an encoder, or the backbone of one, from a .pth or .safetensors file.

    Raises:
        InputError: when the file cannot be read or its tensors do not fit.
    """
    path = Path(path)
    state = read_state(path)
    metadata = read_safetensors(path, with_tensors=False)[1] if is_safetensors(path) else {}
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
    """The variables of `networks.encoder.Encoder` from a PyTorch state dictionary.

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
    settings = dict(settings or {"name": torch_names.backbone_name(state, prefix)})
    tensors = {name: value for name, value in state.items() if prefix or not name.startswith(torch_names.CLASSIFIER)}
    if prefix and not head_sizes:
        heads = [np.shape(state.get(f"final_layers.{index}.weight", 0.0)) for index in range(3)]
        head_sizes = [max(1, *shape[:1]) if shape else 1 for shape in heads]  # a wrong one is told below
    head_sizes = tuple(head_sizes or ()) if prefix else ()
    if len(head_sizes) not in (0, 3):
        raise InputError(f"its metadata tell of {len(head_sizes)} heads instead of 3; convert the checkpoint again")
    shapes = variable_shapes(settings, head_sizes)
    names = {path: torch_name(path).removeprefix("" if prefix else "backbone.") for path in shapes}
    expected = {
        names[path]: torch_names.torch_shape(shape, kernel_axes=_kernel_axes(path)) for path, shape in shapes.items()
    }
    torch_names.check_tensors(tensors, expected, settings["name"])
    variables = {path: torch_names.from_torch(tensors[name], shapes[path]) for path, name in names.items()}
    return EncoderWeights({"encoder": settings}, head_sizes, traverse_util.unflatten_dict(variables))


def encoder_to_torch(weights: EncoderWeights) -> State:
    """The inverse of `encoder_from_torch`: PyTorch's names and layouts, and its counters of batches."""
    state: State = {}
    for path, value in traverse_util.flatten_dict(weights.variables).items():
        name = torch_name(path)
        state[name] = torch_names.to_torch(value, kernel_axes=_kernel_axes(path))
        if path[-1] == "mean":
            state[name.replace("running_mean", torch_names.COUNTER)] = np.zeros((), np.int64)
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
    write_state(Path(path), encoder_to_torch(weights), metadata)


def variable_shapes(settings: Mapping[str, Any], head_sizes: tuple[int, ...]) -> dict[tuple, tuple[int, ...]]:
    """Shapes of an encoder's variables by their path in the tree; without heads, those of the backbone alone.

    Raises:
        InputError: when the settings are no arguments of `create_encoder`.
    """
    # Of a run they name the file that it started from, too.
    arguments = {key: value for key, value in settings.items() if key not in ("name", "initial")}
    try:
        if not 0 < float(arguments.get("width_multiplier", 1.0)) <= 16:
            raise ValueError(f"width_multiplier {arguments['width_multiplier']!r:.40} is not in (0, 16]")
        shapes = _all_shapes(create_encoder(settings["name"], head_sizes or (1, 1, 1), **arguments))
    except (TypeError, ValueError) as error:
        raise InputError(f"the encoder's settings cannot be used: {error}") from error
    return {path: shape for path, shape in shapes.items() if head_sizes or path[1] == "backbone"}


@functools.lru_cache(maxsize=4)  # half a second for a network that is traced, and encoder and parser are one
def _all_shapes(encoder: Encoder | PeopleNetwork) -> dict[tuple, tuple[int, ...]]:
    tree = jax.eval_shape(lambda: encoder.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(tree).items()}


def describe_size(variables: Mapping[str, Any]) -> str:
    """The number of parameters in words, such as "11,689,512 parameters"."""
    return f"{sum(leaf.size for leaf in jax.tree.leaves(variables['params'])):,} parameters"


def _kernel_axes(path: tuple[str, ...]) -> int:
    """The heads are 1 x 1 convolutions in PyTorch."""
    return 2 if path[1].startswith("final_layers_") else 0
