"""The data that a training config asks for: an iterator of batches, and held-out samples."""

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import grain.python as grain
import jax
import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

from jaxface.core.coefficients import vector_size
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.surface_points import mirrored_points, spread_points
from jaxface.photos.samples import Sample
from jaxface.photos.shards import open_samples
from jaxface.synthetic.source import Painter, SyntheticSource, draw_samples
from jaxface.training import parallel
from jaxface.training.augmentation import augment_photo, augment_synthetic, coefficient_mirror, reduced
from jaxface.training.pipeline import Augmentation, SampleSource, make_pipeline

HELD_OUT_SEED = 1_000_000
"""Added to the seed for synthetic held-out samples."""

ENDLESS = 2**31
"""Samples that a seed has when they are drawn in the train step: numbers of 32 bits."""


def make_training_data(
    config: ConfigDict, model: FaceModel, *, start: int = 0
) -> tuple[grain.DatasetIterator, Sequence[Sample]]:
    """Batches of this process for training, and samples that training never sees.

    Batches of "drawn" hold numbers alone, {"index": [B]}: `drawn_in_step` makes samples of them.

    Args:
        config: a training's; see configs/quickstart.py.
        model: the face model.
        start: the step that a training stands at: so many batches are left out.

    Raises:
        InputError: for an unknown source, a missing folder, or too few samples.
    """
    data = config.data
    if data.held_out < 1:
        raise InputError(f"config.data.held_out is {data.held_out}, but must be 1 or more: there is a test at the end")
    batch_size = parallel.process_batch_size(config.batch_size)
    if data.source == "drawn":
        return _numbers(batch_size, start), _readable(_synthetic(config, model, held_out=True))
    if data.source == "synthetic":
        training, held_out = (_synthetic(config, model, held_out=apart) for apart in (False, True))
        points = mirrored_points(model, spread_points(model)) if data.get("people", "") else None
        mirror = coefficient_mirror(model)
        augment: Augmentation = functools.partial(augment_synthetic, mirror=mirror, mirrored_points=points)
    elif data.source == "folder":
        training, held_out = _folder(config, model)
        augment = augment_photo
    else:
        raise InputError(f"config.data.source is {data.source!r}: choose 'synthetic', 'drawn' or 'folder'")
    batches = make_pipeline(
        training,
        batch_size=batch_size,
        seed=config.seed,
        augment=augment,
        worker_count=data.workers,
        shard=(jax.process_index(), jax.process_count()),
        start=start,
    )
    return batches, _readable(held_out)


def drawn_in_step(step: parallel.Step, *, size: int) -> parallel.Step:
    """A step that draws its samples itself, and so learns from faces that were never seen before, without disk or host.

    Args:
        step: step(state, batch of samples, constants).
        size: side of the crops in pixels.

    Returns:
        step(state, {"index": [B] numbers of samples}, (constants, Painter)).
    """

    def drawing(state: Any, batch: Mapping[str, Array], constants: tuple[Any, Painter]) -> tuple[Any, Any]:
        others, painter = constants
        return step(state, draw_samples(painter, batch["index"], size=size), others)

    return drawing


def _numbers(batch_size: int, start: int) -> grain.DatasetIterator:
    """Numbers of samples in batches of this process: each only once."""
    mine = grain.MapDataset.range(ENDLESS).slice(slice(jax.process_index(), None, jax.process_count()))
    batches = mine.batch(batch_size, batch_fn=lambda numbers: {"index": np.array(numbers, np.int32)})
    return iter(batches.slice(slice(start, None)).to_iter_dataset(grain.ReadOptions(num_threads=0)))


def _readable(source: SampleSource) -> list[Sample]:
    samples = []
    for index in range(len(source)):
        try:
            samples.append(source[index])
        except InputError as error:
            print(f"skipped: {error}", file=sys.stderr)
    if not samples:
        raise InputError("there is no sample to evaluate on: none of those held out can be read")
    return samples


def _synthetic(config: ConfigDict, model: FaceModel, *, held_out: bool) -> SampleSource:
    count, seed = (config.data.held_out, config.seed + HELD_OUT_SEED) if held_out else (config.data.count, config.seed)
    drawn = config.data.get("drawn_size", 0) or config.image_size
    if drawn < config.image_size:
        raise InputError(f"config.data.drawn_size is {drawn}, but the crops have {config.image_size} pixels")
    people = config.data.get("people", "")
    if people not in ("", "all", "learned"):
        raise InputError(f"config.data.people is {people!r}: choose 'all', 'learned' or ''")
    painter = Painter.of(model, seed=seed, dense=bool(people), held_out=None if people != "learned" else held_out)
    source = SyntheticSource(painter, count=count, size=drawn, cache_dir=config.cache_dir or None)
    return source if drawn == config.image_size else _Reduced(source, config.image_size)


def _folder(config: ConfigDict, model: FaceModel) -> tuple[SampleSource, SampleSource]:
    if not config.data.path:
        raise InputError("config.data.path is empty: give the folder that `python -m jaxface.preprocess` wrote")
    source = open_samples(config.data.path, size=config.image_size, coefficient_count=vector_size(model))
    split = len(source) - config.data.held_out
    if split < 1:
        raise InputError(
            f"{config.data.path}: holds {len(source)} samples, and config.data.held_out would keep "
            f"{config.data.held_out} of them from training"
        )
    # The last in order of the photos' paths, rather than some in between: neighbours are often pictures of one person.
    return _Slice(source, 0, split), _Slice(source, split, len(source))


class _Reduced:
    """A source whose samples are reduced to `size` pixels."""

    def __init__(self, source: SampleSource, size: int):
        self._source, self._size = source, size

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        return reduced(self._source[index], self._size)


class _Slice:
    """Samples start, ..., stop - 1 of a source."""

    def __init__(self, source: SampleSource, start: int, stop: int):
        self._source, self._start, self._stop = source, start, stop

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._source[self._start + index]

    def __repr__(self) -> str:
        return f"{self._source!r}[{self._start}:{self._stop}]"
