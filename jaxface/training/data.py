"""The data that a training config asks for: an iterator of batches, and held-out samples."""

import functools
import sys
from collections.abc import Sequence

import grain.python as grain
import jax
from ml_collections import ConfigDict

from jaxface.core.coefficients import vector_size
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.photos.samples import Sample
from jaxface.photos.shards import open_samples
from jaxface.synthetic.source import SyntheticSource
from jaxface.training import parallel
from jaxface.training.augmentation import augment_photo, augment_synthetic, coefficient_mirror
from jaxface.training.pipeline import Augmentation, SampleSource, make_pipeline

HELD_OUT_SEED = 1_000_000
"""Added to the seed for synthetic held-out samples."""


def make_training_data(config: ConfigDict, model: FaceModel) -> tuple[grain.DatasetIterator, Sequence[Sample]]:
    """Batches of this process for training, and samples that training never sees.

    Args:
        config: a training's; see configs/quickstart.py.
        model: the face model.

    Raises:
        InputError: for an unknown source, a missing folder, or too few samples.
    """
    data = config.data
    if data.source == "synthetic":
        training, held_out = _synthetic(config, model)
        augment: Augmentation = functools.partial(augment_synthetic, mirror=coefficient_mirror(model))
    elif data.source == "folder":
        training, held_out = _folder(config, model)
        augment = augment_photo
    else:
        raise InputError(f"config.data.source is {data.source!r}: choose 'synthetic' or 'folder'")
    batches = make_pipeline(
        training,
        batch_size=parallel.process_batch_size(config.batch_size),
        seed=config.seed,
        augment=augment,
        worker_count=data.workers,
        shard=(jax.process_index(), jax.process_count()),
    )
    return batches, _readable(held_out)


def _readable(source: SampleSource) -> list[Sample]:
    samples = []
    for index in range(len(source)):
        try:
            samples.append(source[index])
        except InputError as error:
            print(f"skipped: {error}", file=sys.stderr)
    if not samples:
        raise InputError("there is no sample to evaluate on: config.data.held_out must be 1 or more")
    return samples


def _synthetic(config: ConfigDict, model: FaceModel) -> tuple[SampleSource, SampleSource]:
    settings = {"size": config.image_size, "cache_dir": config.cache_dir or None}
    return (
        SyntheticSource(model, count=config.data.count, seed=config.seed, **settings),
        SyntheticSource(model, count=config.data.held_out, seed=config.seed + HELD_OUT_SEED, **settings),
    )


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
