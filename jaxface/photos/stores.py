"""Where the samples of photos go: a folder per photo, or files of many samples."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from jaxface.core.errors import InputError
from jaxface.files.atomic import DiskFullError, atomic_folder
from jaxface.files.images import check_file
from jaxface.files.inputs import content_digest, file_digest
from jaxface.files.names import Owner, claim_names
from jaxface.files.own_results import RECORDS, recorded_digest
from jaxface.photos.batches import Photo
from jaxface.photos.face_crops import FaceCrop, NoFaceError
from jaxface.photos.folder import DATASET_FILE, write_dataset_file, write_sample
from jaxface.photos.shard_writer import ShardWriter
from jaxface.photos.shards import encode_record, read_lists

_PHOTO_FILE = RECORDS["sample"]


class Write(Protocol):
    """Makes of a photo's crops what `Store.keep` is given; can be pickled, as it is called in a worker."""

    def __call__(self, photo: Photo, crops: Sequence[FaceCrop]) -> Any:
        """See above."""


class Store(Protocol):
    """Where samples go.

    Attributes:
        write: the part of the work that is done in a worker.
    """

    write: Write

    def has(self, photo: Photo) -> bool:
        """Whether a photo was done before."""

    def keep(self, photo: Photo, result: Any | InputError) -> None:
        """Takes what `write` made of a photo, or raises the error that it has instead."""

    def finish(self) -> None:
        """To be called when all photos were kept."""


class Folders:
    """A folder per photo, each written by a worker.

    Args:
        out: the dataset's folder.
        settings: what dataset.json says.
        overwrite: takes no photo for done.
    """

    def __init__(self, out: Path, settings: dict, overwrite: bool):
        self.write: Write = _WriteFolder(out, settings)
        self._out, self._overwrite = out, overwrite

    def named(self, photos: Sequence[Photo]) -> list[Photo]:
        """The photos with the names of their folders."""
        names = claim_names(self._out, [Owner("sample", (photo.path,)) for photo in photos])
        return [dataclasses.replace(photo, name=name) for photo, name in zip(photos, names, strict=True)]

    def has(self, photo: Photo) -> bool:
        """See `Store`."""
        recorded = None if self._overwrite else recorded_digest(self._out / photo.name, _PHOTO_FILE)
        return recorded is not None and recorded == content_digest(photo.path)

    def keep(self, photo: Photo, result: InputError | None) -> None:
        """See `Store`."""
        if result is not None:
            raise result

    def finish(self) -> None:
        """See `Store`."""


@dataclasses.dataclass(frozen=True)
class _WriteFolder:
    out: Path
    settings: dict

    def __call__(self, photo: Photo, crops: Sequence[FaceCrop]) -> None:
        _describe(self.out, self.settings)
        digest = file_digest(check_file(photo.path))  # it may be gone by now
        with atomic_folder(self.out / photo.name) as partial:
            for index, crop in enumerate(crops):
                details = {"photo": photo.path.name, **crop.found()}
                (partial / f"face_{index}").mkdir()
                write_sample(partial / f"face_{index}", crop.sample, crop.alignment, details)
            content = {"photo": photo.path.name, "sha256": digest, "faces": len(crops)}
            (partial / _PHOTO_FILE).write_text(json.dumps(content) + "\n")


class Shards:
    """Files of many samples: workers make the records, this process appends them in the order of the photos.

    A photo without a face is remembered as done. One that could not be read is not: it is tried again in the next run.

    Args:
        out: the dataset's folder; made if need be.
        settings: what dataset.json says.
        share: whose files to write, 1 to `shares`.
        shares: number of shares.
        samples_per_file: at which a file ends.

    Raises:
        InputError: when another run writes this share, or a list of samples is damaged.
        MissingDependencyError: when ArrayRecord is not installed.
    """

    def __init__(self, out: Path, settings: dict, share: int, shares: int, samples_per_file: int):
        _describe(out, settings)
        self.write: Write = _encode
        self._writer = ShardWriter(out, share=share, shares=shares, samples_per_file=samples_per_file)
        self._done = {key for one in read_lists(out) for key, _ in one.photos}
        self._paths: dict[str, Path] = {}

    def has(self, photo: Photo) -> bool:
        """See `Store`."""
        if (other := self._paths.setdefault(photo.key, photo.path)) != photo.path:
            raise InputError(
                f"{other} and {photo.path} would both be called {photo.key}; name a folder above the two, or make a "
                "dataset of each"
            )
        return photo.key in self._done

    def keep(self, photo: Photo, result: list[bytes] | InputError) -> None:
        """See `Store`."""
        if isinstance(result, NoFaceError):
            self._writer.add(photo.key, [])
        if isinstance(result, InputError):
            raise result
        self._writer.add(photo.key, result)

    def finish(self) -> None:
        """See `Store`."""
        self._writer.finish_file()

    def close(self) -> None:
        """Lets go of what is not finished, and of the share."""
        self._writer.close()


def _encode(photo: Photo, crops: Sequence[FaceCrop]) -> list[bytes]:
    return [encode_record(crop, photo.key, number) for number, crop in enumerate(crops)]


def _describe(out: Path, settings: dict) -> None:
    """Writes dataset.json if it is not there: before the first samples, or the folder is taken for another's."""
    if not (out / DATASET_FILE).exists():
        try:
            write_dataset_file(out, settings)
        except InputError as error:  # no other photo would fare better
            raise DiskFullError(str(error)) from error
