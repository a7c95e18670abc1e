"""What lies in the place of a file that did not come: pointers, web pages, archives, nothing at all."""

import os
import re
from pathlib import Path

from jaxface.core.errors import InputError

_LFS = b"version https://git-lfs.github.com/spec/"

_KINDS = {
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"<?xml": "an XML text, such as a server sends with an error",
    b"{": "a JSON text, such as a server sends with an error",
    b"%pdf": "a PDF document",
    b"\x1f\x8b": "a gzip archive: unpack it, and give the file in it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it, and give the file in it",
    b"rar!\x1a\x07": "a RAR archive: unpack it, and give the file in it",
}
"""How files begin, in lower case and without leading blanks, and what they are."""


def told_of_impostor(path: str | os.PathLike) -> str | None:
    """What a file is if it can be no picture, model or checkpoint, and what to do; None if it may be one.

    Args:
        path: of a file; only its beginning is read.
    """
    try:
        with open(path, "rb") as file:
            start, size = file.read(512), os.fstat(file.fileno()).st_size
    except OSError:
        return None
    if not start:
        return "the file is empty (0 bytes); download or copy it again"
    if start.startswith(_LFS):
        told = re.search(rb"\nsize (\d{1,15})\s", start)
        length = f" of {int(told[1]):,} bytes" if told else ""
        return f"is a Git LFS pointer, not the file{length} that it points to; run `git lfs pull` where it lies"
    if not start.strip(b"\0") and size >= len(start):
        return "begins with zeros alone: its download was not finished; download or copy it again"
    if start[257:262] == b"ustar":
        return "is a tar archive: unpack it, and give the file in it"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    kind = next((told for begin, told in _KINDS.items() if text.startswith(begin)), None)
    return kind and f"is {kind}" + ("" if "archive" in kind else "; download the file itself")


def refuse_impostor(path: str | os.PathLike) -> None:
    """Refuses what `told_of_impostor` tells of.

    Raises:
        InputError: names the file, and says what it is and what to do.
    """
    if Path(path).is_file() and (told := told_of_impostor(path)):
        raise InputError(f"{path}: {told}")
