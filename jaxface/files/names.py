"""Which folder of results belongs to which photo, clip or person: one rule, and a book of it beside the results.

A photo or a clip gives its folder its own name: a file's without the ending, a folder's whole. Where that is another's,
or one that jaxface writes itself, it gets `_2`, `_3`, ...; names that differ by case alone count as one. A file of
names, OUT/.names.json, remembers them: a photo that was edited finds its folder again, and runs at the same time do not
take each other's.
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxface.files.atomic import atomic_write, folder_lock, make_folder
from jaxface.files.inputs import content_digest
from jaxface.files.own_results import RECORDS, recorded_digest

BOOK = ".names.json"
"""Name of a folder -> [kind, paths as seen from OUT ...] of what it belongs to."""

PERSON = "person"
"""Folder of the first person in a folder of results."""

_RESERVED = re.compile(r"index\.html|contact_sheet.*\.png|(summary|dataset)\.json|person")

_LONGEST = 200  # bytes; file systems allow 255, and numbers and hidden names of what is not finished come on top


@dataclasses.dataclass(frozen=True)
class Owner:
    """What results belong to.

    Attributes:
        kind: a key of `own_results.RECORDS`, or that with more words after it, such as "photo of person".
        paths: its file or folder; of a person, all photos.
    """

    kind: str
    paths: tuple[Path, ...]

    @property
    def name(self) -> str:
        """The name wanted for its folder."""
        return PERSON if self.kind == PERSON else result_name(self.paths[0])


def result_name(path: Path) -> str:
    """What results of a file or folder are called: its own name, also if it is a link; shortened beyond 200 bytes."""
    named = path if path.name not in ("", "..") else path.resolve()
    name = (named.name if path.is_dir() else named.stem).lstrip(".") or "unnamed"  # hidden: not finished
    whole = os.fsencode(name)
    if len(whole) <= _LONGEST:
        return name
    return whole[: _LONGEST - 9].decode(errors="ignore") + "~" + hashlib.sha256(whole).hexdigest()[:8]


def claim_names(out: str | os.PathLike, owners: Sequence[Owner]) -> list[str]:
    """A name of a folder in `out` for each owner, its own from now on, also for other runs.

    Args:
        out: the folder of results; made if need be, unless nothing of what is named exists.
        owners: the same one twice gets two names.

    Raises:
        InputError: when `out` cannot be made or written to.
    """
    out = Path(out)
    with _book(out, writable=any(path.exists() for owner in owners for path in owner.paths)) as book:
        return _Names(out, book).claim(owners)


@contextlib.contextmanager
def _book(out: Path, *, writable: bool) -> Iterator[dict[str, list[str]]]:
    if not writable:  # nothing will come of it
        yield _read(out / BOOK)
        return
    make_folder(out)
    with folder_lock(out):
        book = _read(out / BOOK)
        before = dict(book)
        yield book
        if book != before:
            with atomic_write(out / BOOK) as partial:
                partial.write_text(json.dumps(book, indent=0, sort_keys=True) + "\n")


def _read(path: Path) -> dict[str, list[str]]:
    try:
        content = json.loads(path.read_text())
        assert all(isinstance(entry, list) and len(entry) > 1 for entry in content.values())
        return content
    except (OSError, ValueError, AttributeError, AssertionError, RecursionError):
        return {}  # then the records in the folders tell


class _Names:
    """The book of a folder, open."""

    def __init__(self, out: Path, book: dict[str, list[str]]):
        self._out, self._book = out, book
        self._names = {_folded(name): name for name in book}
        self._of = {tuple(entry): name for name, entry in book.items()}
        there = [path.name for path in out.iterdir()] if out.is_dir() else []
        self._there = {_folded(name): name for name in there}
        self._taken: set[str] = set()
        self._first: dict[str, int] = {}  # of those with one name: the count below which none is free
        self._numbered_there: dict[str, list[str]] = collections.defaultdict(list)
        for name in sorted(there):
            for wanted in {_folded(name), re.sub(r"_\d+$", "", _folded(name))}:
                self._numbered_there[wanted].append(name)
        self._made: dict[tuple[str, str], dict[str, list[str]]] = {}  # kind and name wanted -> digest -> folders

    def claim(self, owners: Sequence[Owner]) -> list[str]:
        names: dict[int, str] = {}
        for index, owner in enumerate(owners):  # who has a name keeps it, whoever comes before
            name = self._booked(owner)
            if name is not None and _folded(name) not in self._taken:
                names[index] = self._take(name, owner)
        for index, owner in enumerate(owners):
            if index not in names:
                names[index] = self._take(self._free(owner), owner)
        return [names[index] for index in range(len(owners))]

    def _take(self, name: str, owner: Owner) -> str:
        self._taken.add(_folded(name))
        of_a_copy = owner.kind != PERSON and self._has_owner(_folded(name))  # or its own: then it is booked already
        if not of_a_copy and any(path.exists() for path in owner.paths):
            self._book.pop(self._names.get(_folded(name), ""), None)
            self._book[name] = self._entry(owner)
            self._names[_folded(name)] = name
        return name

    def _entry(self, owner: Owner) -> list[str]:
        return [owner.kind, *sorted(_seen_from(self._out, path) for path in owner.paths)]

    def _booked(self, owner: Owner) -> str | None:
        entry = self._entry(owner)
        name = self._of.get(tuple(entry))
        if name is None and owner.kind == PERSON:  # photos were added, or left out: still the same person
            of = set(entry)
            same = (name for name, entry in self._book.items() if of <= set(entry) or set(entry) <= of)
            name = next(same, None)
        return None if name is None or not self._is_results(name, owner) else name

    def _is_results(self, name: str, owner: Owner) -> bool:
        there = self._there.get(_folded(name))
        return there is None or (self._out / there / _record(owner)).is_file()

    def _free(self, owner: Owner) -> str:
        wanted = owner.name
        same = self._of_same_content(owner)
        if same is not None:
            return same
        count = self._first.get(_folded(wanted), 1)
        while self._is_anothers(_numbered(wanted, count), owner):
            count += 1
        self._first[_folded(wanted)] = count
        return _numbered(wanted, count)

    def _is_anothers(self, name: str, owner: Owner) -> bool:
        folded = _folded(name)
        if folded in self._taken or folded in self._there:
            return True
        return (owner.kind != PERSON and _RESERVED.fullmatch(folded) is not None) or self._has_owner(folded)

    def _has_owner(self, folded: str) -> bool:
        entry = self._book.get(self._names.get(folded, ""))
        return entry is not None and any((self._out / path).exists() for path in entry[1:])

    def _of_same_content(self, owner: Owner) -> str | None:
        """Results of a copy, or made before there was a book or before it was moved."""
        if owner.kind == PERSON:
            return None
        key = owner.kind, _folded(owner.name)
        if key not in self._made:
            self._made[key] = collections.defaultdict(list)
            for name in self._numbered_there.get(key[1], ()):
                entry = self._book.get(self._names.get(_folded(name), ""))
                digest = recorded_digest(self._out / name, _record(owner))
                if digest is not None and (entry is None or entry[0] == owner.kind):
                    self._made[key][digest].append(name)
        made = self._made[key]
        names = made.get(content_digest(owner.paths[0]) or "", ()) if made else ()
        return next((name for name in names if _folded(name) not in self._taken), None)


def _record(owner: Owner) -> str:
    return RECORDS[owner.kind.split()[0]]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _numbered(name: str, count: int) -> str:
    return name if count == 1 else f"{name}_{count}"


def _seen_from(out: Path, path: Path) -> str:
    """Stays the same when both are moved together; links are not followed, they have names of their own."""
    try:
        return Path(os.path.relpath(path, out)).as_posix()
    except ValueError:  # on another drive
        return Path(os.path.abspath(path)).as_posix()
