"""Named arrays in one file, without pickle: .npz (NumPy) or .safetensors, told apart by their first bytes.

Besides arrays of numbers there may be strings and lists of strings; safetensors keeps them in its metadata.
"""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxface.core.errors import InputError
from jaxface.files.atomic import atomic_write
from jaxface.files.impostors import refuse_impostor

SUFFIXES = (".npz", ".safetensors")
"""Names of files of arrays end so."""

_ZIP, _EMPTY_ZIP = b"PK\x03\x04", b"PK\x05\x06"

_MOST_DEFLATED = 1100
"""How much longer content may be than what it was deflated to, a little more than the format allows."""

_LIMIT = 2**33
"""Bytes that the arrays of one file may take: what declares more is damaged or hostile."""


def is_zip(start: bytes) -> bool:
    """Whether a file that begins with `start` is a zip archive, as .npz files are (and PyTorch's)."""
    return start[:4] in (_ZIP, _EMPTY_ZIP)


def is_safetensors(start: bytes) -> bool:
    """Whether a file that begins with these (at least 9) bytes may be a .safetensors file."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**27


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a .npz or .safetensors file; its name may end in anything.

    Raises:
        InputError: when the file is missing, damaged, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no face-model file at {path}")
    refuse_impostor(path)
    try:
        with open(path, "rb") as file:
            start = file.read(16)
        return _read_safetensors(path) if is_safetensors(start) else _read_npz(path)
    except InputError:
        raise
    # The zip and safetensors libraries have errors of their own kinds for damaged files.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is damaged or not an .npz file ({reason}); make or copy it again") from error


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = [entry.filename.removesuffix(".npy") for entry in entries if entry.filename.endswith(".npy")]
    declared = sum(entry.file_size for entry in entries)
    if not names and (others := [entry.filename for entry in entries if not entry.is_dir()]):
        what = f"a zip archive of {others[0][:80]!r} and the like"
        raise InputError(f"{path} is {what}; unpack it, and give the file in it")
    if declared > _LIMIT:
        raise InputError(f"{path} says that it holds {declared / 1e9:.0f} GB, which is not a face model")
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise InputError(f"{path} is compressed as NumPy does not; write it again with np.savez_compressed")
    if declared > _MOST_DEFLATED * path.stat().st_size:  # entries that lie over one another
        raise InputError(f"{path} says that it holds {declared:,} bytes, more than can be in a file of its size")
    with np.load(path, allow_pickle=False) as content:
        return {name: content[name] for name in names}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as content:
        metadata = content.metadata() or {}
        strings = {name: np.array(text.split("\n") if "\n" in text else text) for name, text in metadata.items()}
        return strings | {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118


def write_arrays(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], *, compress: bool = False) -> None:
    """Writes arrays as .npz or .safetensors, as the name says, whole or not at all.

    Args:
        path: ends in one of SUFFIXES.
        arrays: name -> numbers, a string, or a list of strings.
        compress: an .npz: slower to write and read; worth it for integers, hardly for floating-point numbers.

    Raises:
        InputError: when the name has another ending or the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"cannot write {path}: the name of a face model ends in {' or '.join(SUFFIXES)}")
    with atomic_write(path) as partial:
        if path.suffix == ".safetensors":
            _write_safetensors(partial, arrays)
        else:
            with open(partial, "wb") as file:
                (np.savez_compressed if compress else np.savez)(file, **arrays)  # type: ignore[arg-type]


def _write_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    texts = {name: "\n".join(np.ravel(array)) for name, array in arrays.items() if array.dtype.kind == "U"}
    numbers = {name: np.ascontiguousarray(array) for name, array in arrays.items() if name not in texts}
    save_file(numbers, path, metadata=texts)
