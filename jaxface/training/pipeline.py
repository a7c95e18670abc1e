"""From sources of samples to batches, by Grain: shuffled, augmented, sharded over processes, resumable.

A source is anything with `__len__` and `__getitem__(index) -> sample` (`jaxface.photos.samples`): `SyntheticSource`,
`FolderSource`, a list.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Protocol

import grain.python as grain
import numpy as np

from jaxface.core.errors import InputError
from jaxface.photos.samples import Sample, stack_samples

Augmentation = Callable[[Sample, np.random.Generator], dict[str, np.ndarray]]


class SampleSource(Protocol):
    """Random access to samples."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """The sample number `index`; raises InputError if it cannot be read."""
        ...


def make_pipeline(
    *sources: SampleSource,
    batch_size: int,
    seed: int,
    weights: Sequence[float] | None = None,
    augment: Augmentation | Sequence[Augmentation | None] | None = None,
    shuffle: bool = True,
    num_epochs: int | None = None,
    drop_remainder: bool = True,
    worker_count: int = 0,
    shard: tuple[int, int] = (0, 1),
    start: int = 0,
) -> grain.DatasetIterator:
    """An iterator of batches that depends on its arguments alone.

    Its `get_state()` and `set_state(state)` resume it exactly: the batches that follow are the same bit for bit. The
    order and the augmentation of the samples do not depend on the number of processes or workers: process p of n gets
    every n-th sample of one common order.

    Args:
        *sources: one source, or several to be mixed.
        batch_size: samples per batch in this process.
        seed: of order and augmentation.
        weights: shares of the sources in the mixture; equal if None.
        augment: (sample, generator) -> sample, such as `augmentation.augment_colors`; one for all sources, or one (or
            None) per source.
        shuffle: a new order in every epoch.
        num_epochs: how often to go through the source; None never stops. With several sources, the one that comes to
            its end first ends the pipeline.
        drop_remainder: leaves out a last batch that is not full.
        worker_count: processes that load; 0 loads in a thread of this one.
        shard: (index, count) of this process among those that share the data: `(jax.process_index(),
            jax.process_count())`.
        start: batches to leave out at the beginning. What follows is the same whatever the number of workers and
            processes, as long as `batch_size` times the number of processes is.

    Raises:
        InputError: when there are no samples, or too few for one batch.
    """
    augments = augment if isinstance(augment, list | tuple) else [augment] * len(sources)
    _check(sources, augments, weights, batch_size * shard[1], num_epochs if drop_remainder else 1)
    datasets = [
        _samples(source, augmentation, seed=seed + number, shuffle=shuffle, num_epochs=num_epochs)
        for number, (source, augmentation) in enumerate(zip(sources, augments, strict=True))
    ]
    mixed = datasets[0] if len(datasets) == 1 else grain.MapDataset.mix(datasets, weights=weights)
    batches = mixed.slice(slice(shard[0], None, shard[1])).batch(
        batch_size, drop_remainder=drop_remainder, batch_fn=stack_samples
    )
    batches = batches.slice(slice(start, None))
    # One thread and a short queue: on a small machine the training step needs the cores.
    loaded = batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4))
    if worker_count:
        loaded = loaded.mp_prefetch(grain.MultiprocessingOptions(num_workers=worker_count))
    return iter(loaded)


def _samples(
    source: SampleSource, augment: Augmentation | None, *, seed: int, shuffle: bool, num_epochs: int | None
) -> grain.MapDataset:
    dataset = grain.MapDataset.source(_ReadableSource(source)).seed(seed)
    if shuffle:
        dataset = dataset.shuffle()
    dataset = dataset.repeat(num_epochs)
    return dataset if augment is None else dataset.random_map(augment)


class _ReadableSource:
    """A source that puts the next readable sample in the place of one that cannot be read, and says so once."""

    def __init__(self, source: SampleSource):
        self._source = source
        self._reported: set[int] = set()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        count = len(self._source)
        for candidate in range(index, index + count):
            try:
                return self._source[candidate % count]
            except InputError as error:
                if candidate % count not in self._reported:
                    self._reported.add(candidate % count)
                    print(f"skipped: {error}", file=sys.stderr)
        raise InputError("none of the samples can be read; see the messages above")


def _check(sources, augments, weights, global_batch_size: int, num_epochs: int | None) -> None:
    if not sources or not all(len(source) for source in sources):
        raise InputError("there are no samples to train on: a source is empty")
    if len(augments) != len(sources):
        raise InputError(f"{len(augments)} augmentations were given for {len(sources)} sources")
    if weights is not None and len(weights) != len(sources):
        raise InputError(f"{len(weights)} weights were given for {len(sources)} sources")
    samples = sum(len(source) for source in sources)
    if num_epochs is not None and num_epochs * samples < global_batch_size:
        raise InputError(f"{samples} samples are too few for a batch of {global_batch_size}")
