"""The files that a user names: patterns, folders, names for their results."""

import functools
import glob
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .heic .heif .jfif .jp2 .jpe .jpeg .jpg .mpo .pgm .png .ppm .tif .tiff .webp".split()
)
"""What counts as a picture in a folder. HEIC cannot be read: better that each file is named than that none is seen."""


def collect_files(
    patterns: Sequence[str | os.PathLike],
    *,
    suffixes: frozenset[str] = IMAGE_SUFFIXES,
    exclude: str | os.PathLike | None = None,
) -> list[Path]:
    """Turns files, folders and glob patterns into a list of files, each once, in the order given.

    A folder stands for all files below it with one of `suffixes`, sorted; hidden ones are left out. What matches
    nothing stays in the list as it is: reading it then gives the message, and the rest of the batch goes on.

    Args:
        patterns: what the user typed.
        suffixes: lower-case endings that are looked for in folders.
        exclude: a folder (such as the one for the results) whose files are not taken from folders above it.
    """
    return [file for file, _ in collect_keyed_files(patterns, suffixes=suffixes, exclude=exclude)]


def collect_keyed_files(
    patterns: Sequence[str | os.PathLike],
    *,
    suffixes: frozenset[str] = IMAGE_SUFFIXES,
    exclude: str | os.PathLike | None = None,
) -> list[tuple[Path, str]]:
    """`collect_files`, each file with its key: its path below the folder that was named, or else its name.

    Keys have "/" on every system, and stay the same wherever the folder lies and whatever is added to it.
    """
    excluded = Path(exclude).resolve() if exclude is not None else None
    files: dict[Path, tuple[Path, str]] = {}
    resolve_folder = functools.cache(Path.resolve)  # of hundreds of thousands of files, only the links cost a look

    def resolve(file: Path) -> Path:
        return file.resolve() if file.is_symlink() else resolve_folder(file.parent) / file.name

    for pattern in patterns:
        path = Path(pattern)
        matches = [path] if path.exists() else [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        for match in matches or [path]:
            below = _files_below(match, suffixes, excluded) if match.is_dir() else []
            for file in below or [match]:
                key = file.relative_to(match).as_posix() if below else file.name
                files.setdefault(resolve(file), (file, key))
    return list(files.values())


def share_of(key: str, shares: int) -> int:
    """Which of `shares` equal shares of all files, 1 to `shares`, the file with this key belongs to.

    It depends on nothing else: machines that share work need not talk, and files that are added move no others.
    """
    return 1 + int.from_bytes(hashlib.sha256(os.fsencode(key)).digest()[:8]) % shares


def _files_below(folder: Path, suffixes: frozenset[str], excluded: Path | None) -> list[Path]:
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (excluded is None or Path(root, name).resolve() != excluded)
        )
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.suffix.lower() in suffixes)


def unique_names(
    paths: Sequence[Path], *, occupied: Callable[[str, Path], bool] = lambda name, path: False
) -> list[str]:
    """A short name per file for its results: the stem; files that share a stem get `_2`, `_3`, ... in order.

    Args:
        paths: the files.
        occupied: (name, path) -> whether results of another file than `path` have that name already.
    """
    names: list[str] = []
    taken: set[str] = set()
    first: dict[str, int] = {}  # of those that share a stem: the count below which all are taken
    for path in paths:
        stem = path.stem.lower()  # file systems that ignore case would mix up x.jpg and X.jpg
        while _numbered(stem, first.setdefault(stem, 1)) in taken:
            first[stem] += 1
        count = first[stem]
        while (name := _numbered(path.stem, count)).lower() in taken or occupied(name, path):
            count += 1
        taken.add(name.lower())
        names.append(name)
    return names


def _numbered(stem: str, count: int) -> str:
    return stem if count == 1 else f"{stem}_{count}"


def file_digest(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def holds_another_photo(folder: Path, photo: Path, *, record: str) -> bool:
    """Whether a folder has results of another photo than `photo`, or something else; made for `unique_names`.

    Args:
        folder: where the results would go.
        photo: the photo's file.
        record: name of the JSON file in `folder` that holds the digest of its photo as "sha256".
    """
    if not folder.exists() or not photo.is_file():
        return False
    try:
        return json.loads((folder / record).read_text())["sha256"] != file_digest(photo)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return True
