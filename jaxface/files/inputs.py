"""The files that a user names: patterns and folders; what jaxface wrote itself is none of them."""

import functools
import glob
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from jaxface.core.errors import InputError
from jaxface.files.own_results import is_own_folder, is_own_overview
from jaxface.files.progress import tell

IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .heic .heif .jfif .jp2 .jpe .jpeg .jpg .mpo .pgm .png .ppm .tif .tiff .webp".split()
)
"""What counts as a picture in a folder."""


def collect_files(
    patterns: Sequence[str | os.PathLike],
    *,
    suffixes: frozenset[str] = IMAGE_SUFFIXES,
    instead: frozenset[str] = frozenset(),
    whole_folders: bool = False,
    exclude: str | os.PathLike | None = None,
) -> list[Path]:
    """Turns files, folders and glob patterns into a list of files, each once, in the order given.

    A folder stands for all files below it with one of `suffixes`, sorted; hidden ones are left out. So is what jaxface
    wrote itself (`files.own_results`), unless a file of a folder of results is named by its own name; a line on stderr
    says so. What matches nothing stays in the list as it is: reading it then gives the message, and the rest of the
    batch goes on.

    Args:
        patterns: what the user typed.
        suffixes: lower-case endings that are looked for in folders.
        instead: endings that are looked for in a folder that has none of those.
        whole_folders: folders stand for themselves.
        exclude: a folder (such as the one for the results) whose files are not taken from folders above it.

    Raises:
        InputError: when there is nothing but what jaxface wrote.
    """
    found = collect_keyed_files(
        patterns, suffixes=suffixes, instead=instead, whole_folders=whole_folders, exclude=exclude
    )
    return [path for path, _ in found]


def collect_keyed_files(
    patterns: Sequence[str | os.PathLike],
    *,
    suffixes: frozenset[str] = IMAGE_SUFFIXES,
    instead: frozenset[str] = frozenset(),
    whole_folders: bool = False,
    exclude: str | os.PathLike | None = None,
) -> list[tuple[Path, str]]:
    """`collect_files`, each file with its key: its path below the folder that was named, or else its name.

    Keys have "/" on every system, and stay the same wherever the folder lies and whatever is added to it.

    Raises:
        InputError: when there is nothing but what jaxface wrote.
    """
    excluded = Path(exclude).resolve() if exclude is not None else None
    files: dict[Path, tuple[Path, str]] = {}
    resolve_folder = functools.cache(Path.resolve)  # of hundreds of thousands of files, only the links cost a look
    own: list[Path] = []

    def resolve(file: Path) -> Path:
        return resolve_folder(file.parent) / file.name

    for match in expand_patterns(patterns, own=own):
        below: list[Path] = []
        if match.is_dir() and not whole_folders:
            before = len(own)
            below, others = _files_below(match, suffixes, instead, excluded, own)
            if below and others:
                number = f"{len(others)} video{'' if len(others) == 1 else 's'}"
                tell(f"{match}: takes its photos alone; {number} such as {others[0]} can be named besides")
            below = below or others
            if not below and len(own) > before:
                continue
        for file in below or [match]:
            key = file.relative_to(match).as_posix() if below else file.name
            files.setdefault(resolve(file), (file, key))
    if own:
        what = f"{own[0]}: was" if len(own) == 1 else f"{len(own)} folders and files such as {own[0]}: were"
        if not files:
            raise InputError(f"{what} written by jaxface itself, and nothing else is there; name photos or clips")
        tell(f"left out: {what} written by jaxface itself")
    return list(files.values())


def expand_patterns(patterns: Sequence[str | os.PathLike], *, own: list[Path]) -> list[Path]:
    """Files and folders that are named, and those that patterns match; what matches nothing stays as it is.

    Args:
        patterns: what the user typed.
        own: what jaxface wrote itself is added here instead.
    """
    is_own = functools.cache(is_own_folder)
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.exists():
            (own if is_own_overview(path) or (path.is_dir() and is_own(path)) else found).append(path)
            continue
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        for match in matches or [path]:
            folders = [match, *match.parents] if match.is_dir() else list(match.parents)
            outermost = next((folder for folder in reversed(folders) if is_own(folder)), None)
            if outermost is None and not is_own_overview(match):
                found.append(match)
            elif (left_out := outermost or match) not in own:
                own.append(left_out)
    return found


def share_of(key: str, shares: int) -> int:
    """Which of `shares` equal shares of all files, 1 to `shares`, the file with this key belongs to.

    It depends on nothing else: machines that share work need not talk, and files that are added move no others.
    """
    return 1 + int.from_bytes(hashlib.sha256(os.fsencode(key)).digest()[:8]) % shares


def _files_below(
    folder: Path, suffixes: frozenset[str], others: frozenset[str], excluded: Path | None, own: list[Path]
) -> tuple[list[Path], list[Path]]:
    """Files with one of `suffixes`, and with one of `others`."""
    found: list[Path] = []
    for root, folders, names in os.walk(folder):
        kept = []
        for name in sorted(name for name in folders if not name.startswith(".")):
            path = Path(root, name)
            if is_own_folder(path):
                own.append(path)
            elif excluded is None or path.resolve() != excluded:
                kept.append(name)
        folders[:] = kept
        for path in (Path(root, name) for name in names if not name.startswith(".")):
            (own if is_own_overview(path) and path.suffix in suffixes else found).append(path)
    found.sort()
    wanted, besides = ([path for path in found if path.suffix.lower() in endings] for endings in (suffixes, others))
    return wanted, besides


def file_digest(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(path: str | os.PathLike) -> str | None:
    """The SHA-256 of a file's content; of a folder, of the names and contents of its files; None if it cannot be read.

    Hidden files, and folders in the folder, do not count.
    """
    path = Path(path)
    try:
        if not path.is_dir():
            return file_digest(path) if path.is_file() else None
        files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        lines = (f"{file_digest(file)} {file.name}\n" for file in files)
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
    except OSError:
        return None
