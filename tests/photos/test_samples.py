import numpy as np
import pytest

from jaxface.core.errors import InputError
from jaxface.photos import samples


def make_sample(size=8, count=5):
    labels = np.zeros((size, size), np.uint8)
    labels[2:, 2:] = 8
    return {
        "image": np.zeros((size, size, 3), np.uint8),
        "labels": labels,
        "landmarks": np.full((68, 2), 3.0, np.float32),
        "landmark_weights": np.ones(68, np.float32),
        **samples.empty_coefficients(count),
    }


def test_a_good_sample_passes():
    samples.validate_sample(make_sample(), "good")
    samples.validate_sample(make_sample(), "good", size=8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.ones((8, 7), np.uint8)}, r"labels should be uint8 \[8, 8\]"),
        ({"labels": np.ones((8, 8), np.int32)}, "is int32"),
        ({"labels": np.zeros((8, 8), np.uint8)}, "shows no face"),
        ({"labels": np.full((8, 8), 10, np.uint8)}, "labels hold 10"),
        ({"image": np.zeros((8, 8), np.uint8)}, r"image should be uint8 \[8, 8, 3\]"),
        ({"image": "a.png"}, "is str"),
        ({"landmarks": np.full((68, 2), np.nan, np.float32)}, "landmarks holds values that are not finite"),
        ({"landmark_weights": np.full(68, -1, np.float32)}, "negative"),
        ({"has_coefficients": np.zeros(1, np.float32)}, "has_coefficients should be"),
    ],
)
def test_a_bad_sample_is_named_with_its_fault(change, message):
    with pytest.raises(InputError, match=f"^photo 7: .*{message}"):
        samples.validate_sample(make_sample() | change, "photo 7")


def test_missing_entries_and_wrong_size_are_named():
    sample = make_sample()
    del sample["labels"]
    with pytest.raises(InputError, match="lacks labels"):
        samples.validate_sample(sample, "photo 7")
    with pytest.raises(InputError, match=r"uint8 \[16, 16, 3\]"):
        samples.validate_sample(make_sample(), "photo 7", size=16)


def test_stacking_adds_a_leading_axis():
    batch = samples.stack_samples([make_sample(), make_sample(), make_sample()])
    assert {key: value.shape for key, value in batch.items()} == {
        key: (3, *shape) for key, shape in samples.field_shapes(8, 5).items()
    }
    assert all(batch[key].dtype == dtype for key, dtype in samples.DTYPES.items())
