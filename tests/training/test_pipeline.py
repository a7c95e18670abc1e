import json

import numpy as np
import pytest
from absl import flags

from jaxface.core.errors import InputError
from jaxface.training.augmentation import augment_colors
from jaxface.training.pipeline import make_pipeline


class NumberedSource:
    """Samples that can be told apart: sample i is filled with the number `first` + i."""

    def __init__(self, count, first=0, bad=()):
        self.count, self.first, self.bad = count, first, bad

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index in self.bad:
            raise InputError(f"sample {index} is broken")
        number = self.first + index
        return {
            "image": np.full((16, 16, 3), number, np.uint8),
            "labels": np.full((16, 16), 8, np.uint8),
            "coefficients": np.full(2, number, np.float32),
        }


def numbers(batch):
    return batch["coefficients"][:, 0].astype(int).tolist()


def equal(one, other):
    return all(np.array_equal(one[key], other[key]) for key in one)


def test_every_epoch_has_every_sample_once_in_a_new_order():
    batches = [numbers(batch) for batch in make_pipeline(NumberedSource(12), batch_size=4, seed=1, num_epochs=2)]
    first, second = np.concatenate(batches[:3]).tolist(), np.concatenate(batches[3:]).tolist()
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second and first != list(range(12))
    again = make_pipeline(NumberedSource(12), batch_size=4, seed=1, num_epochs=2)
    assert [numbers(batch) for batch in again] == batches
    other = make_pipeline(NumberedSource(12), batch_size=4, seed=2, num_epochs=2)
    assert [numbers(batch) for batch in other] != batches


def test_without_shuffling_the_order_and_the_remainder_stay():
    batches = make_pipeline(NumberedSource(5), batch_size=2, seed=0, shuffle=False, num_epochs=1, drop_remainder=False)
    assert [numbers(batch) for batch in batches] == [[0, 1], [2, 3], [4]]


def test_augmentation_differs_between_epochs_and_not_between_runs():
    def run():
        pipeline = make_pipeline(NumberedSource(1, first=90), batch_size=1, seed=3, augment=augment_colors)
        return [next(pipeline) for _ in range(3)]

    one, other = run(), run()
    assert all(equal(a, b) for a, b in zip(one, other, strict=True))
    assert not equal(one[0], one[1])


@pytest.mark.slow
@pytest.mark.parametrize("worker_count", [0, 1])
def test_resuming_gives_the_same_batches_bit_for_bit(worker_count):
    flags.FLAGS.mark_as_parsed()

    def start():
        return make_pipeline(
            NumberedSource(7),
            NumberedSource(5, first=100),
            weights=[2, 1],
            batch_size=4,
            seed=3,
            augment=augment_colors,
            worker_count=worker_count,
        )

    pipeline = start()
    for _ in range(5):
        next(pipeline)
    state = json.loads(json.dumps(pipeline.get_state()))
    expected = [next(pipeline) for _ in range(6)]
    resumed = start()
    resumed.set_state(state)
    assert all(equal(batch, next(resumed)) for batch in expected)


def test_weights_set_the_shares_of_the_sources():
    pipeline = make_pipeline(NumberedSource(50), NumberedSource(50, first=100), weights=[3, 1], batch_size=8, seed=0)
    drawn = np.concatenate([numbers(next(pipeline)) for _ in range(20)])
    assert (drawn >= 100).sum() == 40


def test_processes_share_one_order():
    alone = make_pipeline(NumberedSource(16), batch_size=8, seed=4, augment=augment_colors)
    shards = [
        make_pipeline(NumberedSource(16), batch_size=4, seed=4, augment=augment_colors, shard=(index, 2))
        for index in range(2)
    ]
    for _ in range(4):
        expected, halves = next(alone), [next(shard) for shard in shards]
        merged = {key: np.stack([half[key] for half in halves], 1).reshape(expected[key].shape) for key in expected}
        assert equal(expected, merged)


def test_a_sample_that_cannot_be_read_is_reported_once_and_replaced(capsys):
    pipeline = make_pipeline(NumberedSource(4, bad=[1]), batch_size=4, seed=0, shuffle=False)
    assert [numbers(next(pipeline)) for _ in range(3)] == [[0, 2, 2, 3]] * 3
    assert capsys.readouterr().err == "skipped: sample 1 is broken\n"


def test_what_cannot_work_is_said_at_once():
    with pytest.raises(InputError, match="no samples"):
        make_pipeline(NumberedSource(0), batch_size=1, seed=0)
    with pytest.raises(InputError, match="too few for a batch of 8"):
        make_pipeline(NumberedSource(7), batch_size=4, seed=0, num_epochs=1, shard=(0, 2))
    with pytest.raises(InputError, match="weights"):
        make_pipeline(NumberedSource(7), batch_size=4, seed=0, weights=[1, 2])
