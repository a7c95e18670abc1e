"""The layout of a training sample: one face, cut out and aligned, as a dictionary of NumPy arrays.

name              | dtype, shape      | meaning
image             | uint8 [S, S, 3]   | the aligned RGB crop
labels            | uint8 [S, S]      | part labels (`core.parts`), forehead cut; 0 also where the face is hidden
landmarks         | float32 [68, 2]   | ibug-68 points (x, y) in crop pixels; continuous, pixel centres at + 0.5
landmark_weights  | float32 [68]      | 1 for a known point, 0 for one that is unknown or outside the crop
coefficients      | float32 [K]       | the true coefficients of a synthetic face; zeros for a photo
has_coefficients  | float32 []        | 1 where `coefficients` are true, else 0

A drawn person has four more, where a network is to learn them:

classes           | uint8 [S, S]      | what each pixel shows, an index into `core.parts.CLASSES`
landmark_visible  | float32 [68]      | 1 for a landmark that is seen
surface_points    | float32 [P, 2]    | points spread over the face (`core.surface_points`), in crop pixels
surface_visible   | float32 [P]       | 1 for those that are seen

A face that a detector found has three more entries, which the fit asks for and no file holds:

points            | float32 [P, 2]    | all points of the detector, in crop pixels
point_weights     | float32 [P]       | 1 for a point in the photo, 0 beyond its border
focal             | float32 []        | focal length in crop pixels, NaN where the photo does not tell it

S is the crop's size in pixels, K the length of the face model's coefficient vector. A batch is the same dictionary with
a leading axis B. Images travel as bytes; the training step divides by 255.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from jaxface.core import parts
from jaxface.core.errors import InputError
from jaxface.core.landmarks import LANDMARKS
from jaxface.photos.alignment import Alignment

Sample = Mapping[str, np.ndarray]

DTYPES = {
    "image": np.uint8,
    "labels": np.uint8,
    "landmarks": np.float32,
    "landmark_weights": np.float32,
    "coefficients": np.float32,
    "has_coefficients": np.float32,
}
"""The entries of a sample and their types."""

DENSE_DTYPES = {
    "classes": np.uint8,
    "landmark_visible": np.float32,
    "surface_points": np.float32,
    "surface_visible": np.float32,
}
"""Entries that drawn people have besides, where a network is to learn them."""


def photo_sample(
    crop: UInt8[np.ndarray, "S S 3"],
    labels: UInt8[np.ndarray, "S S"],
    landmarks: Float[np.ndarray, "68 2"],
    alignment: Alignment,
    *,
    coefficients: int,
) -> dict[str, np.ndarray]:
    """The sample of a face found in a photo.

    Landmarks outside the crop or the photo get the weight 0: the detector made them up.

    Args:
        crop: the face, cut out.
        labels: of its parts.
        landmarks: ibug-68 points in photo pixels.
        alignment: where the crop lies in the photo.
        coefficients: length K of the face model's coefficient vector.
    """
    in_crop = alignment.to_crop(landmarks)
    inside = ((in_crop >= 0) & (in_crop <= alignment.size)).all(-1)
    inside &= ((landmarks >= 0) & (landmarks <= alignment.photo_size[::-1])).all(-1)
    return {
        "image": crop,
        "labels": labels,
        "landmarks": in_crop.astype(np.float32),
        "landmark_weights": np.asarray(inside, np.float32),
        **empty_coefficients(coefficients),
    }


def empty_coefficients(size: int) -> dict[str, np.ndarray]:
    """The entries of a sample whose coefficients nobody knows.

    Args:
        size: length K of the face model's coefficient vector.
    """
    return {"coefficients": np.zeros(size, np.float32), "has_coefficients": np.zeros((), np.float32)}


def field_shapes(size: int, coefficient_count: int) -> dict[str, tuple[int, ...]]:
    """Shape of each entry of a sample with an S = `size` crop and K = `coefficient_count`."""
    return {
        "image": (size, size, 3),
        "labels": (size, size),
        "landmarks": (LANDMARKS, 2),
        "landmark_weights": (LANDMARKS,),
        "coefficients": (coefficient_count,),
        "has_coefficients": (),
    }


def check_crop_size(size: int) -> int:
    """The side of crops in pixels, as given.

    Raises:
        InputError: when it is not a whole number above 0.
    """
    if not (isinstance(size, int | np.integer) and size > 0):
        raise InputError(f"the size of crops is a whole number of pixels above 0, not {size}")
    return size


def validate_sample(sample: Sample, name: str, *, size: int | None = None) -> None:
    """Checks names, shapes, dtypes and values of a sample.

    Args:
        sample: the candidate.
        name: what to call it in messages, such as its file.
        size: the crop size that it must have; None accepts any square.

    Raises:
        InputError: names the sample, the entry and what is wrong with it.
    """
    if missing := [key for key in DTYPES if key not in sample]:
        raise InputError(f"{name}: the sample lacks {', '.join(missing)}")
    height = np.shape(sample["image"])[0] if np.ndim(sample["image"]) else 0
    shapes = field_shapes(size or height, np.size(sample["coefficients"]))
    for key, dtype in DTYPES.items():
        array = sample[key]
        if getattr(array, "dtype", None) != dtype or np.shape(array) != shapes[key]:
            found = f"{getattr(array, 'dtype', type(array).__name__)} {list(np.shape(array))}"
            raise InputError(f"{name}: {key} should be {np.dtype(dtype)} {list(shapes[key])}, but is {found}")
        if dtype == np.float32 and not np.isfinite(array).all():
            raise InputError(f"{name}: {key} holds values that are not finite numbers")
    _validate_values(sample, name)


def _validate_values(sample: Sample, name: str) -> None:
    labels, weights = sample["labels"], sample["landmark_weights"]
    if not labels.size:
        raise InputError(f"{name}: the image is empty")
    if labels.max() > parts.FOREHEAD:
        raise InputError(f"{name}: labels hold {labels.max()}, but the largest label is {parts.FOREHEAD}")
    if not labels.any():
        raise InputError(f"{name}: the label map shows no face; every pixel is background")
    if weights.min() < 0:
        raise InputError(f"{name}: landmark_weights hold negative numbers")


def pad_rows(array: Shaped[np.ndarray, "N ..."], count: int) -> Shaped[np.ndarray, "{count} ..."]:
    """The array with its last row repeated until there are `count`: programs are compiled for few sizes of batch."""
    return np.concatenate([array, np.repeat(array[-1:], count - len(array), axis=0)])


def stack_samples(samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """A batch: the entries of `samples` along a new leading axis."""
    return {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}
