"""Folders that jaxface wrote, told by the records in them: what lies there is no input."""

import re
from pathlib import Path

RECORDS = {
    "photo": "done.json",
    "sample": "photo.json",
    "clip": "track.json",
    "person": "person.json",
    "face": "coefficients.json",
    "dataset": "dataset.json",
}
"""What a folder holds -> the file that says so."""

_OVERVIEWS = re.compile(r"index\.html|summary\.json|contact_sheet.*\.png")  # beside the folders of results

_MARKS = {
    "photo": '"sha256":',
    "sample": '"sha256":',
    "clip": '"schema": "jaxface track',
    "person": '"schema": "jaxface person',
    "face": '"schema": "jaxface face',
    "dataset": '"format": "jaxface',
}


def is_own_folder(folder: Path) -> bool:
    """Whether a folder holds results or samples that jaxface wrote."""
    return any(mark in _beginning(folder / RECORDS[kind]) for kind, mark in _MARKS.items())


def is_own_overview(file: Path) -> bool:
    """Whether a file is an overview that jaxface wrote, beside what it shows."""
    return _OVERVIEWS.fullmatch(file.name) is not None and '"done": [' in _beginning(file.parent / "summary.json")


def recorded_digest(folder: Path, record: str) -> str | None:
    """The SHA-256 of the photo or clip that a folder's results were made from; None if it does not tell."""
    found = re.search(r'"sha256": "([0-9a-f]{64})"', _beginning(folder / record))
    return found and found[1]


def _beginning(path: Path) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(65536)
    except OSError:
        return ""
