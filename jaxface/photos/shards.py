"""Samples by the thousand in one file: for large datasets, and for disks that mind small files.

A dataset's folder holds pairs of files (docs/large_datasets.md):

    samples-0001-of-0004-00000.array_record    samples of share 1 of 4, in ArrayRecord, read at random
    samples-0001-of-0004-00000.json            which photos these are: without its list, a file does not count

A record is the bytes of a safetensors file; `ENTRIES` says what is in it.
"""

import collections
import contextlib
import io
import itertools
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxface.core.errors import InputError, needs_extra
from jaxface.core.units import CROP_SIZE
from jaxface.files.images import check_file
from jaxface.photos.face_crops import FaceCrop
from jaxface.photos.folder import FolderSource, fit_sample
from jaxface.photos.samples import Sample, check_crop_size

ENTRIES = {
    "image": (np.uint8, 1),
    "labels": (np.uint8, 1),
    "landmarks": (np.float32, 2),
    "landmark_weights": (np.float32, 1),
    "points": (np.float32, 2),
    "about": (np.uint8, 1),
}
"""Of a record: name -> type and number of axes. The crop as a lossless WebP and the part labels as a PNG, each [bytes];
[68, 2] landmarks and [68] weights as in `photos.samples`; [P, 2] all points of the detector, in crop pixels; and UTF-8
JSON [bytes]: the photo's key, the face's number in it, alignment, score and box."""

SUFFIX = ".array_record"
"""Of the files that hold samples."""

LARGEST_CROP = 2048
"""Side in pixels; a record that claims more is damaged or hostile."""

_NAME = re.compile(r"samples-\d+-of-\d+-\d+")

_OPEN_FILES = 256  # that a source keeps open; a process may often have 1024

_LEAST_RECORD = 40  # bytes in the file: the header of a chunk


class ShardList(NamedTuple):
    """Which photos a file of samples holds.

    Attributes:
        path: the list's file.
        photos: (key, number of faces) in the order of the samples; photos without a face are listed too.
        samples: number of samples.
        bytes: size of the file of samples; with no samples there is none.
    """

    path: Path
    photos: Sequence[tuple[str, int]]
    samples: int
    bytes: int

    @property
    def data(self) -> Path:
        """The file of samples."""
        return self.path.with_suffix(SUFFIX)


def list_name(share: int, shares: int, number: int) -> str:
    """Name of the list of the file `number` (from 0) of a share (from 1)."""
    return f"samples-{share:04d}-of-{shares:04d}-{number:05d}.json"


def read_lists(folder: str | os.PathLike) -> list[ShardList]:
    """All lists in a folder, in the order of their names.

    Raises:
        InputError: names a list that is damaged.
    """
    paths = sorted(path for path in Path(folder).glob("samples-*.json") if _NAME.fullmatch(path.stem))
    return [_read_list(path) for path in paths]


def _read_list(path: Path) -> ShardList:
    check_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        photos = [(str(key), int(faces)) for key, faces in content["photos"]]
        result = ShardList(path, photos, int(content["samples"]), int(content["bytes"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise InputError(f"{path}: is no list of samples ({type(error).__name__}: {error})") from error
    if any(faces < 0 for _, faces in photos) or sum(faces for _, faces in photos) != result.samples:
        raise InputError(f"{path}: its photos do not have the {result.samples} faces that it tells of")
    return result


def holds_shards(folder: str | os.PathLike) -> bool:
    """Whether a folder has files of samples in it."""
    return any(_NAME.fullmatch(path.stem) for path in Path(folder).glob("samples-*"))


def open_samples(
    path: str | os.PathLike, *, size: int = CROP_SIZE, coefficient_count: int = 0
) -> "FolderSource | ShardSource":
    """The samples of a dataset, whichever of the two formats it is in.

    Arguments and errors are those of `FolderSource` and `ShardSource`.
    """
    source = ShardSource if holds_shards(path) else FolderSource
    return source(path, size=size, coefficient_count=coefficient_count)


class ShardSource:
    """Samples in files of many, by index; the order is that of the photos' keys, whoever wrote which file.

    A copy in another process opens the files itself, each when it is first asked for.

    Args:
        path: the dataset's folder.
        size: side S in pixels of the samples given out; those stored in another size are resized.
        coefficient_count: length K of the samples' (all zero) coefficients, `coefficients.vector_size(model)`.

    Raises:
        InputError: when `size` is none, there is no sample, or a file is missing, cut short, or not listed.
        MissingDependencyError: when ArrayRecord is not installed.
    """

    def __init__(self, path: str | os.PathLike, *, size: int = CROP_SIZE, coefficient_count: int = 0):
        self.path = Path(path)
        self._size = check_crop_size(size)
        self._coefficient_count = coefficient_count
        if not self.path.is_dir():
            raise InputError(f"{self.path}: no such folder")
        lists = [one for one in read_lists(self.path) if one.samples]
        if not lists:
            hint = "; bring the .json files along that lie beside them" if holds_shards(self.path) else ""
            raise InputError(f"{self.path}: no samples are listed in it{hint}")
        for one in lists:
            if check_file(one.data).stat().st_size != one.bytes:
                raise InputError(f"{one.data}: has {one.data.stat().st_size} bytes, but should have {one.bytes}")
        _array_record()
        self._files = [one.data for one in lists]
        self._counts = [one.samples for one in lists]
        self._places = _in_order(lists)
        self._readers: collections.OrderedDict[int, Any] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        """The sample number `index` (`jaxface.photos.samples`).

        Raises:
            InputError: names the file and the record that cannot be read.
        """
        entries, name = self._entries(index)
        with _named(name):
            return fit_sample(
                _decoded(entries["image"], "WEBP", "RGB"),
                _decoded(entries["labels"], "PNG", "L"),
                entries["landmarks"],
                entries["landmark_weights"],
                cut=True,
                size=self._size,
                coefficient_count=self._coefficient_count,
                name=name,
            )

    def about(self, index: int) -> dict[str, Any]:
        """What else is known of a sample: "photo" (its key), "face" (its number there), "alignment", "score", "box".

        Raises:
            InputError: as for the sample itself.
        """
        entries, name = self._entries(index)
        with _named(name):
            content = json.loads(entries["about"].tobytes())
            if not isinstance(content, dict):
                raise ValueError("its description is not a JSON object")
            return content

    def name(self, index: int) -> str:
        """What to call a sample: its photo's key and its number there, or else its place."""
        try:
            about = self.about(index)
            return f"{about['photo']}/face_{about['face']}"
        except (InputError, KeyError):
            return self._location(index)

    def _location(self, index: int) -> str:
        file, record = self._places[index]
        return f"{self._files[file]}, record {record}"

    def _entries(self, index: int) -> tuple[dict[str, np.ndarray], str]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        file, record = (int(number) for number in self._places[index])
        name = self._location(index)
        with _named(name):
            return _parsed(self._reader(file).read([record])[0]), name

    def _reader(self, file: int) -> Any:
        if file in self._readers:
            self._readers.move_to_end(file)
            return self._readers[file]
        while len(self._readers) >= _OPEN_FILES:
            self._readers.popitem(last=False)
        self._readers[file] = _open(self._files[file], self._counts[file])
        return self._readers[file]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_readers": collections.OrderedDict()}

    def __repr__(self) -> str:
        # Grain compares this text before it resumes a pipeline: it must say the same in every process.
        return f"ShardSource({str(self.path)!r}, size={self._size}, samples={len(self)})"


def _in_order(lists: Sequence[ShardList]) -> np.ndarray:
    """[N, 2] the file and the record in it of each sample, in the order of keys; a photo listed twice counts once."""
    found: dict[str, tuple[int, int, int]] = {}
    for file, one in enumerate(lists):
        starts = itertools.accumulate((faces for _, faces in one.photos), initial=0)
        for (key, faces), start in zip(one.photos, starts, strict=False):
            found.setdefault(key, (file, start, faces))
    places = [(file, start + face) for _, (file, start, faces) in sorted(found.items()) for face in range(faces)]
    return np.array(places, np.int32).reshape(-1, 2)


def _array_record() -> Any:
    with needs_extra("train", "the shard format"):
        from array_record.python import array_record_module
    return array_record_module


def _open(path: Path, count: int) -> Any:
    """A reader of a file that was checked to be what its list says."""
    size = check_file(path).stat().st_size
    with _named(str(path)):
        # Without threads and reading ahead, which are of no use for single records.
        reader = _array_record().ArrayRecordReader(
            str(path), "readahead_buffer_size:0,max_parallelism:0", file_reader_buffer_size=2**15
        )
        found = reader.num_records() if reader.ok() else None
        if found is None:
            raise InputError(f"{path}: is damaged or not an ArrayRecord file; copy it again")
        if found != count or found * _LEAST_RECORD > size:
            raise InputError(f"{path}: holds {found} records, but should have {count}")
        return reader


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Whatever is met in damaged content becomes an InputError that names its place."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise InputError(f"{name}: is damaged ({reason[:200]}); copy the file again") from error


def _parsed(record: bytes) -> dict[str, np.ndarray]:
    from safetensors.numpy import load

    entries = load(record)
    for name, (dtype, axes) in ENTRIES.items():
        if name not in entries:
            raise ValueError(f"the record lacks {name}")
        if entries[name].dtype != dtype or entries[name].ndim != axes:
            raise ValueError(f"{name} is {entries[name].dtype} with {entries[name].ndim} axes")
    return entries


def _decoded(content: UInt8[np.ndarray, "N"], picture_format: str, mode: str) -> UInt8[np.ndarray, "S S ..."]:
    with Image.open(io.BytesIO(content.tobytes()), formats=[picture_format]) as image:
        if image.width != image.height or image.width > LARGEST_CROP or image.mode != mode:
            raise ValueError(f"a picture of {image.width} x {image.height} pixels, {image.mode}")
        return np.array(image)


def encode_record(crop: FaceCrop, photo: str, face: int) -> bytes:
    """The record of a face.

    The crop is kept without loss, so that both formats hold the same samples. At 224 pixels a WebP of the least effort
    has 71 KB, takes 1.8 ms to write and 1.2 ms to read; a PNG 89 KB, 4 ms and 1.8 ms. (A JPEG of quality 95 has 29 KB,
    takes 0.3 ms and 0.6 ms, and is 1.4 of 255 levels off.)

    Args:
        crop: of a detected face.
        photo: the photo's key.
        face: its number there.
    """
    from safetensors.numpy import save

    sample = crop.sample
    about = {"photo": photo, "face": face, "alignment": crop.alignment.to_dict(), **crop.found()}
    image = _encoded(sample["image"], "WEBP", lossless=True, method=0, quality=0)
    entries = {
        "image": image,
        "labels": _encoded(sample["labels"], "PNG"),
        "landmarks": sample["landmarks"],
        "landmark_weights": sample["landmark_weights"],
        "points": sample["points"],
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
    }
    return save({name: np.ascontiguousarray(entry) for name, entry in entries.items()})


def _encoded(image: UInt8[np.ndarray, "S S ..."], picture_format: str, **options: Any) -> UInt8[np.ndarray, "N"]:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, picture_format, **options)
    return np.frombuffer(stream.getvalue(), np.uint8)
