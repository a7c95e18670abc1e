"""What a reader of face models is given: a file or folder, and what any of the readers has already seen of it."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel


@dataclasses.dataclass(frozen=True)
class Source:
    """A file or folder that may hold a face model; what is read of it is read once, however many formats look at it.

    Attributes:
        path: the file or folder.
    """

    path: Path

    @functools.cached_property
    def start(self) -> bytes:
        """The first 128 bytes of a file; none of a folder.

        Raises:
            InputError: when the file cannot be read.
        """
        if self.path.is_dir():
            return b""
        try:
            with open(self.path, "rb") as file:
                return file.read(128)
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror}") from error

    @functools.cached_property
    def content(self) -> Any:
        """What a pickle, or a pickle in an .npy file, holds; None of other files. Nothing in it is run.

        Raises:
            InputError: when the pickle is damaged or holds what is not allowed.
        """
        from jaxface.files.pickles import read_pickle, read_pickled_npy  # most files need neither

        if self.start.startswith(b"\x93NUMPY"):
            return read_pickled_npy(self.path)
        if self.start.startswith((b"\x80", b"(", b"c")):  # of protocol 2 and up, or a dictionary in one of 0 or 1
            return read_pickle(self.path)
        return None

    @functools.cached_property
    def variables(self) -> frozenset[str]:
        """Names of the variables of a MATLAB file; none of other files.

        Raises:
            InputError: when the MATLAB file is damaged.
        """
        from jaxface.files.matlab import is_matlab, list_matlab

        return frozenset(list_matlab(self.path)) if is_matlab(self.start) else frozenset()


@dataclasses.dataclass(frozen=True)
class FaceModelFormat:
    """A kind of file or folder that face models come in.

    Attributes:
        told: what it is, for messages: "a FLAME .pkl".
        recognizes: whether a source is one; looks at no more than it must, and raises InputError only for a source that
            it recognizes and cannot read.
        read: makes a face model of a source that it recognizes; raises InputError, naming file and key.
    """

    told: str
    recognizes: Callable[[Source], bool]
    read: Callable[[Source], FaceModel]
