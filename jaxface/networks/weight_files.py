"""Files of network weights: tensors by name, from PyTorch, safetensors and dlib."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save_file

from jaxface.core.errors import InputError, needs_extra
from jaxface.files.atomic import atomic_write
from jaxface.files.impostors import refuse_impostor
from jaxface.networks.torch_names import network_kind, plain_state

FORMAT = "jaxface network 1"
"""What jaxface's own file of weights says of itself."""

State = dict[str, np.ndarray]

_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

PEOPLE_FORMAT = "jaxface people network 1"
"""What the metadata of a `PeopleNetwork`'s file say, see `people_weights`."""

DLIB_MAGIC = b"\x01\x01\x01\x0dloss_metric"
"""The beginning of dlib's file of its face recogniser."""


def is_weights(path: str | os.PathLike) -> bool:
    """Whether a file or folder looks like a network's weights; only its beginning or its index is read."""
    path = Path(path)
    if path.is_dir():
        return (path / "checkpoints").is_dir() or path.name == "checkpoints"
    try:
        if is_safetensors(path):
            with safetensors.safe_open(path, framework="numpy") as content:
                known = (content.metadata() or {}).get("format") in (FORMAT, PEOPLE_FORMAT)
                return known or network_kind(content.keys()) is not None
        with open(path, "rb") as file:
            head = file.read(len(_LEGACY_MAGIC))
        if head.startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:
                return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())
        return head in (_LEGACY_MAGIC, DLIB_MAGIC)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile, safetensors.SafetensorError):
        return False


def read_state(path: str | os.PathLike) -> State:
    """The tensors of a file by name, out of their wrapper and without what stands before their names.

    A dlib file gives the arrays of the Flax network instead, such as "params.conv1.kernel".

    Raises:
        InputError: when the file cannot be read or does not hold tensors by name.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a network's weights (.pth, .safetensors)")
    refuse_impostor(path)
    content: Any
    if is_safetensors(path):
        content, _ = read_safetensors(path)
    elif starts_with(path, DLIB_MAGIC):
        from jaxface.files.dlib_file import read_dlib_network

        with needs_extra("perceptual", "dlib's network"):
            from flax import traverse_util

            from jaxface.networks.dlib_resnet import dlib_variables

        content = traverse_util.flatten_dict(dlib_variables(read_dlib_network(path), source=str(path)), sep=".")
    else:
        from jaxface.files.torch_files import read_torch

        content = read_torch(path)
    try:
        return plain_state(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def starts_with(path: Path, magic: bytes) -> bool:
    """Whether the file begins with these bytes."""
    with open(path, "rb") as file:
        return file.read(len(magic)) == magic


def is_safetensors(path: Path) -> bool:
    """Whether the file looks like safetensors: a JSON header after its length."""
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"


def write_state(path: Path, state: State, metadata: dict[str, str]) -> None:
    """Writes a state dictionary as .safetensors."""
    tensors = {name: np.ascontiguousarray(value).reshape(np.shape(value)) for name, value in state.items()}
    with atomic_write(path) as partial:
        save_file(tensors, partial, metadata=metadata)


def read_safetensors(path: Path, *, with_tensors: bool = True) -> tuple[State, dict[str, str]]:
    """The tensors (left out without `with_tensors`) and the metadata of a file of safetensors."""
    try:
        with safetensors.safe_open(path, framework="numpy") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()} if with_tensors else {}  # noqa: SIM118
            return tensors, dict(content.metadata() or {})
    except (OSError, ValueError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: is damaged or no .safetensors file ({error}); make or copy it again") from error
