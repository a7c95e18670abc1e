"""Synthetic training data: random people drawn by jaxface itself, with exact parts, landmarks and coefficients.

The built-in face model has whole heads with hair and clothes (`people_pictures`), others have painted heads
(`portraits`). Everything about sample i follows from (seed, i). CPUs draw samples once, in blocks, and keep them on
disk (`SyntheticSource`); accelerators draw them as fast as they learn from them, in the train step (`draw_samples`).
"""

import dataclasses
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Integer, UInt8
from tqdm import tqdm

from jaxface.core.coefficients import vector_size
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.landmarks import LANDMARKS
from jaxface.core.surface_points import spread_points
from jaxface.core.typed_jit import typed_jit
from jaxface.files.code import imported_files
from jaxface.photos import samples
from jaxface.render import label_triangles
from jaxface.synthetic.held_out import split_people
from jaxface.synthetic.people import People, find_people
from jaxface.synthetic.people_pictures import NO_POINTS, draw_crops
from jaxface.synthetic.portraits import draw_portraits

BLOCK = 16
"""Samples drawn by one call of the compiled function."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Painter:
    """All that samples follow from but their numbers. Its arrays form a JAX tree.

    Attributes:
        seed: every seed of 32 bits has samples of its own.
        model: the face model.
        people: heads and what they wear; None for a face model without.
        triangle_labels: of the face model, from `render.label_triangles`.
        surface: vertices whose image points are drawn along (`samples.DENSE_DTYPES`); None for none.
    """

    seed: Integer[Array | np.ndarray, ""]
    model: FaceModel
    people: People | None
    triangle_labels: UInt8[Array | np.ndarray, "T"]
    surface: Integer[Array | np.ndarray, "P"] | None = None

    @classmethod
    def of(cls, model: FaceModel, *, seed: int, dense: bool = False, held_out: bool | None = None) -> "Painter":
        """The painter of a face model's people, those that come with it if there are any.

        Args:
            model: the face model.
            seed: every seed gives other samples.
            dense: samples have `samples.DENSE_DTYPES` too.
            held_out: False leaves some skins and styles out, True has those alone (`held_out.split_people`).

        Raises:
            InputError: when the face model has no people, but `dense` or `held_out` asks for them.
        """
        people = find_people(model)
        if people is None and (dense or held_out is not None):
            raise InputError(f"there are no people to draw for the face model {model.name!r}, but for 'anny' alone")
        if people is not None and held_out is not None:
            people = split_people(people, held_out=held_out)
        labels = label_triangles(model.parts, model.triangles)
        return cls(np.array(seed % 2**32, np.uint32), model, people, labels, spread_points(model) if dense else None)

    @property
    def dtypes(self) -> Mapping[str, Any]:
        """The entries of its samples and their types."""
        return samples.DTYPES | ({} if self.surface is None else samples.DENSE_DTYPES)

    def shapes(self, size: int) -> dict[str, tuple[int, ...]]:
        """Shape of each entry of a sample with an S = `size` crop."""
        shapes = samples.field_shapes(size, vector_size(self.model))
        if self.surface is None:
            return shapes
        points = len(self.surface)
        dense = {"classes": (size, size), "landmark_visible": (LANDMARKS,)}
        return shapes | dense | {"surface_points": (points, 2), "surface_visible": (points,)}


@typed_jit(static_argnames="size")
def draw_samples(painter: Painter, indices: Int[Array | np.ndarray, "B"], *, size: int) -> dict[str, Array]:
    """Samples by their numbers, as a batch of photos/samples.py; works under jit, pmap and shard_map.

    Args:
        painter: what they follow from.
        indices: their numbers; sample i is the same in any batch, but for rounding.
        size: side of the crops in pixels.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(painter.seed), indices)
    if painter.people is None:
        return draw_portraits(keys, painter.model, painter.triangle_labels, size=size)
    surface = NO_POINTS if painter.surface is None else painter.surface
    drawn = draw_crops(keys, painter.model, painter.people, painter.triangle_labels, size=size, surface=surface)
    return {name: drawn[name] for name in painter.dtypes}


class SyntheticSource:
    """Random access to `count` synthetic samples, all drawn when the source is made.

    With a cache directory they are drawn once, written there, and read through memory maps; a second source with the
    same settings, face model and code starts at once. Take another seed for held-out samples.
    """

    def __init__(
        self,
        painter: Painter,
        *,
        count: int,
        size: int,
        cache_dir: str | os.PathLike | None = None,
    ):
        """Draws the samples, or finds them in the cache.

        Args:
            painter: what they follow from; another seed gives others.
            count: number of samples.
            size: side of the crops in pixels.
            cache_dir: folder for the cache, made if need be; None keeps the samples in memory.

        Raises:
            InputError: when the settings are out of range or the cache cannot be written or read.
        """
        if count < 1 or size < 16:
            raise InputError(f"synthetic data needs count >= 1 and size >= 16, got {count} and {size}")
        self._folder: Path | None = None
        settings: dict[str, Any] = {"start": 0, "count": count, "size": size}
        if cache_dir is None:
            blocks = list(_with_progress(_blocks(painter, **settings), count))
            self._fields = {key: np.concatenate([block[key] for block in blocks]) for key in painter.dtypes}
            return
        self._folder = Path(cache_dir) / f"synthetic-{_fingerprint(painter, settings)}"
        if not self._folder.is_dir():
            _write_cache(self._folder, painter, count, size, lambda: _blocks(painter, **settings))
        self._fields = _read_cache(self._folder)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._fields["image"])

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """The sample number `index`, as described in photos/samples.py; views, not to be written to."""
        return {key: field[index, ...] for key, field in self._fields.items()}

    def __getstate__(self) -> dict:
        # Loader processes open the cache themselves rather than receive a copy of it.
        return {"_folder": self._folder, "_fields": None if self._folder else self._fields}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if self._folder:
            self._fields = _read_cache(self._folder)


def generate_samples(
    model: FaceModel,
    *,
    seed: int,
    count: int,
    size: int,
    start: int = 0,
) -> dict[str, np.ndarray]:
    """Draws samples start, ..., start + count - 1 of the endless row that belongs to `seed`.

    Args:
        model: the face model.
        seed: every seed gives other samples.
        count: number of samples.
        size: side of the crops in pixels.
        start: index of the first.

    Returns:
        A batch: the entries of photos/samples.py with a leading axis of `count`.
    """
    blocks = list(_blocks(Painter.of(model, seed=seed), start=start, count=count, size=size))
    return {key: np.concatenate([block[key] for block in blocks]) for key in samples.DTYPES}


def _blocks(painter: Painter, *, start: int, count: int, size: int) -> Iterator[dict[str, np.ndarray]]:
    # Blocks begin at multiples of BLOCK whatever is asked for: a sample then comes out of the same place of the same
    # computation every time, to the last bit.
    painter = jax.tree.map(jnp.asarray, painter)
    first, last = start // BLOCK, (start + count - 1) // BLOCK

    def draw(block: int) -> dict[str, Array]:
        return draw_samples(painter, block * BLOCK + np.arange(BLOCK), size=size)

    pending = draw(first)  # one block ahead, so that copying out overlaps with drawing
    for block in range(first, last + 1):
        current = pending
        if block < last:
            pending = draw(block + 1)
        low, high = max(start - block * BLOCK, 0), min(start + count - block * BLOCK, BLOCK)
        yield {key: np.asarray(value)[low:high] for key, value in current.items()}


def _with_progress(blocks: Iterator[dict[str, np.ndarray]], count: int) -> Iterator[dict[str, np.ndarray]]:
    with tqdm(total=count, desc="drawing synthetic faces", unit="face", mininterval=1.0) as bar:
        for block in blocks:
            yield block
            bar.update(len(block["image"]))


def _fingerprint(painter: Painter, settings: Mapping[str, object]) -> str:
    """Hash of all that the samples follow from: settings, painter, code and the version of JAX."""
    model = painter.model
    digest = hashlib.sha256(f"{settings} {model.expression_names} {model.expression_bounds} {jax.__version__}".encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(painter):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode() + array.tobytes())
    for file in imported_files(__name__):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _write_cache(
    folder: Path,
    painter: Painter,
    count: int,
    size: int,
    draw: Callable[[], Iterator[dict[str, np.ndarray]]],
) -> None:
    """Draws the samples into a folder of .npy files that gets its name only when it is complete."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    except OSError as error:
        raise InputError(f"the cache folder {folder.parent} cannot be made: {error}") from error
    try:
        shapes = painter.shapes(size)
        files = {key: open(partial / f"{key}.npy", "wb") for key in shapes}  # noqa: SIM115
        try:
            for key, file in files.items():
                header = {
                    "descr": np.dtype(painter.dtypes[key]).str,
                    "fortran_order": False,
                    "shape": (count, *shapes[key]),
                }
                np.lib.format.write_array_header_1_0(file, header)
            for block in _with_progress(draw(), count):
                for key, file in files.items():
                    file.write(np.ascontiguousarray(block[key]).data)
        finally:
            for file in files.values():
                file.close()
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process may have drawn the same samples meanwhile
                raise
    except OSError as error:
        raise InputError(f"the cache {folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _read_cache(folder: Path) -> dict[str, np.ndarray]:
    try:
        files = sorted(folder.glob("*.npy"))
        if missing := samples.DTYPES.keys() - {file.stem for file in files}:
            raise OSError(f"{min(missing)}.npy is missing")
        return {file.stem: np.asarray(np.load(file, mmap_mode="r")) for file in files}
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"the cache {folder} is damaged ({error}); delete that folder and start again") from error
