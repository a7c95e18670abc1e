"""Network weights from anywhere to jaxface's own files."""

import os
from pathlib import Path

import jax

from jaxface.core.errors import InputError
from jaxface.networks.encoder import PEOPLE_NETWORKS
from jaxface.networks.people_weights import is_people_file, write_people_file
from jaxface.networks.torch_names import network_kind, some
from jaxface.networks.weight_files import DLIB_MAGIC, FORMAT, State, read_state, starts_with, write_state
from jaxface.networks.weights import describe_size, write_safetensors


def convert_weights(path: str | os.PathLike, out: str | os.PathLike) -> str:
    """Converts a network's weights, with every tensor accounted for.

    Args:
        path: a file or folder of those listed at the top.
        out: "X.safetensors", or for an encoder a new folder: an Orbax checkpoint as a training run leaves it. Both
            serve as `--checkpoint` and as `config.encoder.initial`. Or "X.onnx", for an encoder: see `onnx_files`.

    Returns:
        A summary to print.

    Raises:
        InputError: when the file cannot be read, does not fit a network that is known, or `out` cannot be written.
    """
    from jaxface.networks.checkpoints import read_encoder, save_encoder
    from jaxface.networks.onnx_files import write_onnx

    path, out = Path(path), Path(out)
    if out.suffix not in (".safetensors", ".onnx", ""):
        raise InputError(
            f"{out}: network weights are written as X.safetensors, X.onnx, or as a folder (a name without a dot)"
        )
    if out.suffix == ".onnx":
        return write_onnx(path, out)
    whole = path.is_dir() or is_people_file(path)
    state = {} if whole else read_state(path)
    if whole or network_kind(state) in ("encoder", "backbone"):
        weights = read_encoder(path)
        told, count = weights.told(), len(state) or len(jax.tree.leaves(weights.variables))
        if out.suffix and weights.config["encoder"]["name"] in PEOPLE_NETWORKS:
            write_people_file(out, weights)
        elif out.suffix:
            write_safetensors(out, weights)
        else:
            save_encoder(out, weights)
    elif out.suffix:
        told, count = _check_other(state, path), len(state)
        write_state(out, state, {"format": FORMAT})
    else:
        raise InputError(f"{out}: only encoders become checkpoint folders; give a name that ends in .safetensors")
    return f"{path}: {told}; all of {count} tensors accounted for\nwritten: {out}"


def _check_other(state: State, path: Path) -> str:
    """Has another network's module match its tensors; says what it is."""
    kind = network_kind(state)
    try:
        if kind == "face recognition":
            from jaxface.networks.iresnet import iresnet_from_torch

            variables = iresnet_from_torch(state)[1]
        elif kind == "face parsing":
            from jaxface.networks.face_parsing import dml_csr_from_torch

            variables = dml_csr_from_torch(state)[1]
        elif starts_with(path, DLIB_MAGIC):
            kind, variables = "face recognition", {"params": state}  # its layers were checked on reading
        else:
            raise InputError(f"holds no network that jaxface knows, but {len(state)} tensors such as {some(state)}")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return f"{kind} network, {describe_size(variables)}"
