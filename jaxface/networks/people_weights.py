"""The weights of a `PeopleNetwork` in one small file: half precision, with the training's configuration.

The file is safetensors: "params/backbone/...", "batch_stats/..." in float16, and "surface", the vertices of the face
model that the points beyond the landmarks lie at. Its metadata are texts: format (FORMAT) and config (JSON).
"""

import json
import os
from importlib import resources
from pathlib import Path

import numpy as np
from flax import traverse_util
from jaxtyping import Integer

from jaxface.core.errors import InputError
from jaxface.core.surface_points import spread_points
from jaxface.files.impostors import refuse_impostor
from jaxface.models import load_face_model
from jaxface.networks.weight_files import PEOPLE_FORMAT, is_safetensors, read_safetensors, write_state
from jaxface.networks.weights import EncoderWeights, variable_shapes

FORMAT = PEOPLE_FORMAT
"""What the file says of itself."""

SHIPPED = Path(str(resources.files("jaxface.networks"))) / "assets" / "people.safetensors"
"""The network that comes with jaxface, trained by configs/encoder_people.py."""


def is_people_file(path: str | os.PathLike) -> bool:
    """Whether a file holds a `PeopleNetwork`."""
    path = Path(path)
    if not path.is_file() or not is_safetensors(path):
        return False
    return read_safetensors(path, with_tensors=False)[1].get("format") == FORMAT


def write_people_file(path: str | os.PathLike, weights: EncoderWeights) -> None:
    """Writes a network, whole or not at all.

    Args:
        path: the file.
        weights: of a training run, from `checkpoints.read_encoder`.

    Raises:
        InputError: when a weight is not finite in half precision, or the face model cannot be loaded.
    """
    surface = spread_points(load_face_model(weights.config["face_model"]))
    flat = traverse_util.flatten_dict(weights.variables, sep="/")
    with np.errstate(over="ignore"):  # told below
        halves = {name: np.asarray(value).astype(np.float16) for name, value in flat.items()}
    if bad := [name for name, value in halves.items() if not np.isfinite(value).all()]:
        raise InputError(f"{path}: {bad[0]} cannot be written in half precision")
    # Whose folders those were is nobody's business.
    config = {name: value for name, value in weights.config.items() if name not in ("output_dir", "cache_dir")}
    config["encoder"] = {name: value for name, value in config["encoder"].items() if name != "initial"}
    told = {"format": FORMAT, "config": json.dumps(config)}
    write_state(Path(path), halves | {"surface": np.asarray(surface, np.int32)}, told)


def read_people_file(path: str | os.PathLike) -> tuple[EncoderWeights, Integer[np.ndarray, "P"]]:
    """Reads a network and the vertices that its points lie at.

    Raises:
        InputError: when the file cannot be read or is not such a network.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a network's weights (.safetensors)")
    refuse_impostor(path)
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path}: holds no network of drawn people; its format is {metadata.get('format')!r}")
    try:
        config = json.loads(metadata["config"])
        surface = tensors.pop("surface")
        stored = {tuple(name.split("/")): np.asarray(value, np.float32) for name, value in tensors.items()}
        sizes = [stored["params", f"final_layers_{index}", "bias"].size for index in range(3)]
        shapes = variable_shapes(config["encoder"], tuple(sizes))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: its contents make no sense ({error}); copy or make it again") from error
    found = {key: value.shape for key, value in stored.items()}
    wrong = [key for key in found.keys() | shapes.keys() if found.get(key) != shapes.get(key)]
    if wrong or any(not np.isfinite(value).all() for value in stored.values()):
        where = "/".join(min(wrong)) if wrong else "a weight"
        raise InputError(
            f"{path}: {where} is missing, misshaped or not finite; the file is damaged, or of another version of "
            "jaxface: copy it again, or train it anew"
        )
    return EncoderWeights(config, tuple(sizes), traverse_util.unflatten_dict(stored)), surface
