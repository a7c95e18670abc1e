"""What PyTorch calls the variables of our networks, and the check that every tensor of a file has its place."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxface.core.errors import InputError

COUNTER = "num_batches_tracked"
"""Of each batch normalisation; inference and training here do without."""

CLASSIFIER = ("fc.", "classifier.")
"""What the names of ImageNet's classifiers begin with; encoders have none."""

WRAPPERS = ("net_recon", "state_dict", "model_state_dict", "model", "net", "module", "ema")
"""Keys under which checkpoints keep their tensors, beside the optimizer's and others; of several, the first."""

_ADDED = re.compile(r"(^|\.)(_orig_mod|module)\.")
"""What torch.compile, DataParallel and AveragedModel put into names, before any part of a network."""

_LEADING = ("net_recon.", "net.", "model.", "backbone.")
"""What all names begin with where a network was a part of another."""

_LEAVES = {"kernel": "weight", "scale": "weight", "slope": "weight", "mean": "running_mean", "var": "running_var"}

_AVERAGED = "n_averaged"  # AveragedModel's counter

_LISTED = 5  # names of each sort in an error message


def network_kind(names: Iterable[str]) -> str | None:
    """ "encoder", "backbone", "face parsing" or "face recognition", or None for tensors of something else."""
    marks = {
        "encoder": ("backbone.", "final_layers."),
        "face parsing": ("context.dualgcn.",),
        "face recognition": ("layer1.0.prelu.",),
        "backbone": ("layer1.0.conv1.", "features.0.0."),
    }
    bare = bare_names(names).values()
    return next((kind for kind, mark in marks.items() if any(name.startswith(mark) for name in bare)), None)


def bare_names(names: Iterable[str]) -> dict[str, str]:
    """Names of a checkpoint's tensors -> the network's own, without what stands before them.

    "module.backbone._orig_mod.conv1.weight" is "backbone.conv1.weight" beside "module.final_layers.0.weight", and
    "conv1.weight" alone.
    """
    bare = {name: name for name in names}
    while True:
        known = {name: _ADDED.sub(r"\1", own) for name, own in bare.items()}
        shared = next((lead for lead in _LEADING if known and all(x.startswith(lead) for x in known.values())), "")
        known = {name: own.removeprefix(shared) for name, own in known.items()}
        if known == bare:
            return bare
        bare = known


def plain_state(content: Any) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint by the network's own names, out of their wrapper.

    Args:
        content: as it was read: tensors by name, bare or under `WRAPPERS`, in any nesting.

    Raises:
        InputError: when it is anything else.
    """
    while isinstance(content, Mapping):
        inner = [content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, Mapping) or not content or not all(isinstance(name, str) for name in content):
        raise InputError(f"holds no network: tensors by name are expected, bare or under {', '.join(WRAPPERS)}")
    tensors = {name: value for name, value in content.items() if name != _AVERAGED}
    other = [name for name, value in tensors.items() if not isinstance(value, np.ndarray | np.generic)]
    if other:
        raise InputError(f"holds more than tensors by name: {len(other)} entries such as {some(other)}")
    names = bare_names(tensors)
    if len(set(names.values())) < len(names):
        raise InputError(f"holds two networks in one: {len(names)} tensors such as {some(names)}")
    return {names[name]: np.asarray(value) for name, value in tensors.items()}


def backbone_name(names: Iterable[str], prefix: str) -> str:
    """The name for `create_encoder` of the backbone whose tensors begin with `prefix`: the nearest one."""
    names = set(names)
    if any(name.startswith(f"{prefix}features.") for name in names):
        return "mobilenet_v3_large"
    if f"{prefix}layer1.0.conv3.weight" in names:
        return "resnet50"
    return "resnet18" if f"{prefix}layer1.1.conv1.weight" in names else "resnet10"


def torch_name(path: tuple[str, ...]) -> str:
    """("params", "backbone", "layer1_0", "conv1", "kernel") -> "backbone.layer1.0.conv1.weight"."""
    *modules, leaf = path[1:]
    return re.sub(r"_(\d+)", r".\1", ".".join([*modules, _LEAVES.get(leaf, leaf)]))


def torch_shape(shape: tuple[int, ...], *, kernel_axes: int = 0) -> tuple[int, ...]:
    """Shape of a variable's tensor: kernels are OIHW, those of dense layers [out, in].

    Args:
        shape: of the variable.
        kernel_axes: axes of length 1 behind those of a dense layer that is a convolution there.
    """
    if len(shape) == 4:
        return (shape[3], shape[2], *shape[:2])
    return (*shape[::-1], *[1] * kernel_axes) if len(shape) == 2 else shape


def to_torch(value: np.ndarray, *, kernel_axes: int = 0) -> np.ndarray:
    """A variable in its tensor's layout, see `torch_shape`."""
    value = np.asarray(value, np.float32)
    order = (3, 2, 0, 1) if value.ndim == 4 else tuple(range(value.ndim))[::-1]
    return np.ascontiguousarray(value.transpose(order)).reshape(torch_shape(value.shape, kernel_axes=kernel_axes))


def from_torch(tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor in the layout of its variable, which has that shape."""
    tensor = np.asarray(tensor, np.float32)
    if len(shape) == 4:
        tensor = tensor.transpose(2, 3, 1, 0)
    elif len(shape) == 2:
        tensor = tensor.reshape(shape[::-1]).T
    return np.ascontiguousarray(tensor)


def check_tensors(tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], network: str) -> None:
    """Compares the tensors of a file with the shapes that a network's must have.

    Raises:
        InputError: lists the tensors that are missing, unknown, misshaped, or not finite.
    """
    counters = {name.replace("running_mean", COUNTER) for name in shapes if name.endswith("running_mean")}
    found = {name: np.shape(tensors[name]) for name in shapes if name in tensors}
    misshaped = [name for name, shape in found.items() if shape != shapes[name]]
    problems = {
        "missing": [name for name in shapes if name not in tensors],
        "unknown": [name for name in tensors if name not in shapes and name not in counters],
        "misshaped": [f"{name} {list(found[name])} instead of {list(shapes[name])}" for name in misshaped],
        "not finite numbers": [
            name for name in found if name not in misshaped and not _is_finite(np.asarray(tensors[name]))
        ],
    }
    listed = [f"{len(names)} {problem}: {some(names)}" for problem, names in problems.items() if names]
    if listed:
        raise InputError(f"the tensors do not fit {network}: {'; '.join(listed)}")


def some(names: Iterable[str]) -> str:
    """The first few of many names, for a message."""
    cut = [name[:100] for name in names]
    return ", ".join(cut[:_LISTED]) + (f" and {len(cut) - _LISTED} more" if len(cut) > _LISTED else "")


def _is_finite(tensor: np.ndarray) -> bool:
    # bfloat16 and its like are of NumPy's kind "V" and become floats all the same.
    return tensor.dtype.kind in "fV" and bool(np.isfinite(np.asarray(tensor, np.float32)).all())
