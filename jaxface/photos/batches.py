"""Many photos on the road: decoded in processes, looked at in batches in this one, cut out and written in processes.

Only the look needs an accelerator and sees photos together; it is what this process does. Photos lie in memory that all
processes share, in a fixed number of places: so many are on the road at most.
"""

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxface.core.errors import InputError, MissingDependencyError
from jaxface.files.atomic import DiskFullError
from jaxface.files.images import read_image
from jaxface.files.workers import BrokenWorkersError, SharedArrays, Workers

BATCH = 16
"""Photos that are looked at together."""

PHOTOS_PER_WORKER = 8
"""A worker takes a second to start, in which a core does as many photos."""

_ROAD = 3  # batches: one being decoded, one looked at, one written

_FATAL = (MissingDependencyError, DiskFullError, BrokenWorkersError)  # no other photo would fare better

_ROAD_BYTES = 2**31  # of decoded photos: where they are large, fewer are on the road


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photo to be worked on.

    Attributes:
        path: its file.
        key: what it is called wherever its folder lies, see `files.inputs.collect_keyed_files`.
        name: of its folder of results.
    """

    path: Path
    key: str
    name: str = ""


Image = UInt8[np.ndarray, "H W 3"]

Look = Callable[[Sequence[Image], Sequence[Photo]], Sequence[Any]]
"""What is found in each of some photos: something that can be pickled, or an InputError."""

Finish = Callable[[Image, Photo, Any], Any]
"""Makes the result of a photo of what was found in it; can be pickled, as it is called in another process."""


def prepare_photos(
    photos: Sequence[Photo], *, look: Look, finish: Finish, workers: int
) -> Generator[tuple[Photo, Any | InputError]]:
    """Works on photos; gives out each with its result, in their order whatever was done when.

    A photo that cannot be read, that something unforeseen happens to, or that a process died of has an InputError for a
    result; the others do not notice.

    Args:
        photos: in the order wanted.
        look: called here, with up to `BATCH` photos at once.
        finish: called in the workers.
        workers: number of processes; 0 does all in this one. Fewer are started for a few photos.

    Raises:
        MissingDependencyError: when a package is missing.
        DiskFullError: when results cannot be written.
    """
    workers = min(workers, len(photos) // PHOTOS_PER_WORKER)
    shared = SharedArrays(BATCH * (_ROAD if workers else 1))
    free, todo = list(range(len(shared))), collections.deque(photos)
    decoding: collections.deque[tuple[Photo, int, Future]] = collections.deque()
    finishing: collections.deque[tuple[Photo, int, Future]] = collections.deque()
    expected = float(2**25)  # bytes of the next photos; before the first is seen, that of a phone's
    with contextlib.closing(shared), Workers(workers, shared) as pool:
        while todo or decoding or finishing:
            on_the_road = len(decoding) + len(finishing)
            while todo and free and (on_the_road * expected < _ROAD_BYTES or not on_the_road):
                photo, place = todo.popleft(), free.pop()
                decoding.append((photo, place, pool.submit(_decode, place, photo.path)))
                on_the_road += 1
            # Full batches, whoever was quicker: what is looked at together follows from the photos alone.
            looks = bool(decoding) and (len(decoding) >= BATCH or not todo or not finishing)
            if looks:
                batch = [decoding.popleft() for _ in range(min(BATCH, len(decoding)))]
                shapes = [_outcome(future, photo) for photo, _, future in batch]
                for shape in shapes:
                    if not isinstance(shape, InputError):
                        expected = max(0.9 * expected, float(np.prod(shape)))
                found = iter(_look(look, shared, batch, shapes))
                for (photo, place, future), shape in zip(batch, shapes, strict=True):
                    finding = shape if isinstance(shape, InputError) else next(found)
                    if isinstance(finding, InputError):
                        future = Future()
                        future.set_exception(finding)
                    else:
                        future = pool.submit(_finish, place, shape, finish, photo, finding)
                    finishing.append((photo, place, future))
            while finishing and (not looks or finishing[0][2].done()):
                photo, place, future = finishing.popleft()
                result = _outcome(future, photo)
                free.append(place)
                yield photo, result
                looks = True  # there is a place again: enough to go on with


def _look(look: Look, shared: SharedArrays, batch: Sequence[tuple], shapes: Sequence[Any]) -> Sequence[Any]:
    readable = [number for number, shape in enumerate(shapes) if not isinstance(shape, InputError)]
    images = [shared.read(batch[number][1], shapes[number]) for number in readable]
    return _findings(look, images, [batch[number][0] for number in readable]) if readable else []


def _findings(look: Look, images: Sequence[Image], photos: Sequence[Photo]) -> Sequence[Any]:
    try:
        return look(images, photos)
    except _FATAL:
        raise
    except Exception as error:  # one of them is to blame: which?
        if len(photos) == 1:
            return [_unforeseen(error, photos[0])]
        alone = zip(images, photos, strict=True)
        return [finding for image, photo in alone for finding in _findings(look, [image], [photo])]


def _decode(shared: SharedArrays, place: int, path: Path) -> tuple[int, ...]:
    return shared.write(place, read_image(path))


def _finish(
    shared: SharedArrays, place: int, shape: tuple[int, ...], finish: Finish, photo: Photo, finding: Any
) -> Any:
    return finish(shared.read(place, shape), photo, finding)


def _outcome(future: Future, photo: Photo) -> Any | InputError:
    """The result of a call, or what is to be reported of the photo."""
    try:
        return future.result()
    except _FATAL:
        raise
    except Exception as error:
        return _unforeseen(error, photo)


def _unforeseen(error: Exception, photo: Photo) -> InputError:
    if isinstance(error, InputError):
        return error
    return InputError(f"{photo.path}: something unforeseen happened ({type(error).__name__}: {error})")
