"""How long a video file says it is, whatever it holds: a file that is shorter was cut off.

A decoder takes a file that ends early for a shorter film. What tells is the container: sizes of boxes (MP4, MOV, 3GP),
chunks (AVI), elements (Matroska, WebM), pages (Ogg), packets (MPEG-TS, which tells no length but has packets of one
size), or a field in the header (WMV). MPEG program streams (.mpg) tell nothing.
"""

from pathlib import Path
from typing import BinaryIO

_BOXES = frozenset(
    (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"free", b"skip", b"wide", b"uuid", b"meta", b"sidx")
    + (b"pdin", b"udta", b"pnot", b"emsg", b"prft", b"ssix")
)
"""Of the top level (ISO 14496-12); what follows others is no longer the film's, such as a phone's own trailer."""

_EMPTY = 65_536
"""Bytes that are not all zero at the end of a film."""

_ELEMENTS = (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67")
"""Of Matroska's top level (RFC 9559): the header, and the segment that holds the film."""

_ASF, _ASF_PROPERTIES = (
    bytes.fromhex(guid) for guid in ("3026b2758e66cf11a6d900aa0062ce6c", "a1dcab8c47a9cf118ee400c00c205365")
)


def declared_length(path: Path) -> int | None:
    """Bytes that a video file should have at least, by what it says of itself; None where it says nothing."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4096)
        if head[4:8] in _BOXES:
            return _boxes(file, size)
        if head.startswith(b"RIFF"):
            return _riff(file, size)
        if head.startswith(_ELEMENTS[0]):
            return _matroska(file, size)
        if head.startswith(b"OggS"):
            return _ogg(file, size)
        if head.startswith(_ASF) and _ASF_PROPERTIES in head:
            place = head.index(_ASF_PROPERTIES) + 40  # after its name, its size and the file's name
            return int.from_bytes(head[place : place + 8], "little")
        for first, packet in ((0, 188), (4, 192)):  # the second is M2TS, with a clock before each packet
            if head[first::packet][:3] == b"GGG":
                return -(-size // packet) * packet
    return None


def ends_in_zeros(path: Path) -> bool:
    """Whether a file has its full length, but nothing at its end: a download that did not finish.

    Not of MP4 and MOV, where an empty box may stand there, and frames that are lost are noticed anyway.
    """
    with path.open("rb") as file:
        if file.read(8)[4:] in _BOXES or path.stat().st_size < 2 * _EMPTY:
            return False
        file.seek(-_EMPTY, 2)
        return not any(file.read())


def _boxes(file: BinaryIO, size: int) -> int:
    end = 0
    while end < size:
        file.seek(end)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if len(head) < 8:
            return end + 8
        if kind not in _BOXES:
            return end
        if length == 0:  # up to the file's end
            return size
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        end += max(length, 8)
    return end


def _riff(file: BinaryIO, size: int) -> int:
    end = 0
    while end < size:
        file.seek(end)
        head = file.read(8)
        if head[:4] != b"RIFF":
            return end
        length = int.from_bytes(head[4:8], "little")
        end += 8 + length + length % 2
    return end


def _matroska(file: BinaryIO, size: int) -> int | None:
    end = 0
    while end < size:
        file.seek(end)
        if file.read(4) not in _ELEMENTS:
            return end
        # The zeros before the first one bit tell how many bytes the length takes; all ones: not known.
        first = file.read(1)
        bits = 7 * (9 - first[0].bit_length()) if first and first[0] else 0
        length = int.from_bytes(first + file.read(bits // 7 - 1), "big") - (1 << bits) if bits else -1
        if not 0 <= length < (1 << bits) - 1:
            return None
        end = file.tell() + length
    return end


def _ogg(file: BinaryIO, size: int) -> int:
    end = 0
    while end < size:
        file.seek(end)
        head = file.read(27)
        if not head.startswith(b"OggS"):
            return end
        count = head[26] if len(head) == 27 else 0
        end += 27 + count + sum(file.read(count))
    return end
