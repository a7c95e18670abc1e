"""Random changes to a decoded sample: its colours, and for photos also its geometry.

Each augmentation is a function (sample, generator) -> sample that Grain calls with a generator of its own per sample
and epoch. The input arrays are never written to: they may be views of a file.
"""

import functools
import math

import numpy as np
from PIL import Image

from jaxface import parts
from jaxface.data.sample import Sample, empty_coefficients


def augment_colors(sample: Sample, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Random contrast, brightness, tint, gamma, sensor noise and now and then a hidden rectangle.

    The geometry stays, so the coefficients of a synthetic face stay true.
    """
    result = dict(sample)
    image = _noisy(_toned(sample["image"], generator), generator)
    result["image"] = image
    if generator.random() < 0.15:
        rows, columns = _rectangle(image.shape[0], generator)
        image[rows, columns] = generator.integers(0, 256, 3, np.uint8)
        result["labels"] = sample["labels"].copy()
        result["labels"][rows, columns] = parts.BACKGROUND
    return result


def augment_photo(sample: Sample, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Random flip, rotation, scale and shift, then `augment_colors`; the coefficients are given up."""
    if generator.random() < 0.5:
        sample = flip(sample)
    size = sample["image"].shape[0]
    angle = generator.normal(0.0, math.radians(7.0))
    scale = math.exp(generator.normal(0.0, 0.06))
    shift = generator.normal(0.0, 0.025 * size, 2)
    return augment_colors(warp(sample, similarity(size, angle=angle, scale=scale, shift=shift)), generator)


def flip(sample: Sample) -> dict[str, np.ndarray]:
    """The sample in a mirror: left parts become right parts; the coefficients are given up.

    A face model need not be symmetric, so there are no coefficients of the mirrored face in general.
    """
    size = sample["image"].shape[1]
    mirrored = sample["landmarks"][parts.MIRRORED_68] * np.array([-1, 1], np.float32) + np.array([size, 0], np.float32)
    return dict(sample) | {
        "image": sample["image"][:, ::-1],
        "labels": parts.MIRRORED_LABELS[sample["labels"][:, ::-1]],
        "landmarks": mirrored.astype(np.float32),
        "landmark_weights": sample["landmark_weights"][parts.MIRRORED_68],
        **empty_coefficients(sample["coefficients"].size),
    }


def similarity(size: int, *, angle: float, scale: float, shift: np.ndarray) -> np.ndarray:
    """Affine map [2, 3] of points: turns by `angle` (radians, clockwise in the picture) and scales about the centre.

    Args:
        size: side of the picture in pixels.
        angle: in radians.
        scale: factor.
        shift: (x, y) in pixels, added last.
    """
    linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    center = np.full(2, size / 2)
    return np.concatenate([linear, (center + shift - linear @ center)[:, None]], axis=1)


def warp(sample: Sample, matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Moves the sample's picture by an affine map; the coefficients are given up.

    What comes into view from outside repeats the picture's mirror image and is labelled background. Landmarks that
    leave the picture get the weight 0.

    Args:
        sample: any sample.
        matrix: [2, 3] affine map from old to new points in pixels.
    """
    size = sample["image"].shape[0]
    inverse = np.linalg.inv(np.concatenate([matrix, [[0, 0, 1]]]))[:2]
    landmarks = sample["landmarks"] @ matrix[:, :2].T + matrix[:, 2]
    inside = ((landmarks >= 0) & (landmarks <= size)).all(-1)
    return dict(sample) | {
        "image": _resample_mirrored(sample["image"], inverse),
        "labels": np.asarray(
            Image.fromarray(sample["labels"]).transform(
                (size, size), Image.Transform.AFFINE, inverse.ravel().tolist(), Image.Resampling.NEAREST
            )
        ),
        "landmarks": landmarks.astype(np.float32),
        "landmark_weights": sample["landmark_weights"] * inside.astype(np.float32),
        **empty_coefficients(sample["coefficients"].size),
    }


def _resample_mirrored(image: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    # Pillow fills what lies outside with black, so the picture is first continued by its mirror image.
    size = image.shape[0]
    margin = size // 4
    around = np.arange(-margin, size + margin)
    around = np.where(around < 0, -1 - around, np.where(around >= size, 2 * size - 1 - around, around))
    padded = image.take(around, 0).take(around, 1)
    moved = inverse + np.array([[0, 0, margin], [0, 0, margin]])
    return np.asarray(
        Image.fromarray(padded).transform(
            (size, size), Image.Transform.AFFINE, moved.ravel().tolist(), Image.Resampling.BILINEAR
        )
    )


def _toned(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    # One table of 256 bytes per channel holds tint, contrast, brightness and gamma at once.
    levels = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    gains = np.exp(generator.normal(0, 0.06, 3)) * math.exp(generator.normal(0, 0.12))
    contrast, brightness = math.exp(generator.normal(0, 0.12)), generator.normal(0, 0.04)
    curve = np.clip((levels * gains - 0.5) * contrast + 0.5 + brightness, 0, 1) ** math.exp(generator.normal(0, 0.15))
    table = (255 * curve + 0.5).astype(np.uint8)
    return np.asarray(Image.fromarray(image).point(table.T.ravel().tolist()))


@functools.cache
def _noise_tile(size: int) -> np.ndarray:
    # Drawing a normal number per pixel and sample would cost more than all the rest of the pipeline.
    return np.random.default_rng(0).normal(0, 1, (2 * size, 2 * size, 3)).astype(np.float32)


def _noisy(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    size = image.shape[0]
    sigma = np.float32(abs(generator.normal(0, 3.0)))
    top, left = generator.integers(0, size, 2)
    noisy = _noise_tile(size)[top : top + size, left : left + size] * sigma
    noisy += image
    return np.clip(noisy, 0, 255, out=noisy).astype(np.uint8)


def _rectangle(size: int, generator: np.random.Generator) -> tuple[slice, slice]:
    height, width = generator.integers(max(size // 10, 1), max(size // 3, 2), 2)
    top, left = generator.integers(0, size - height + 1), generator.integers(0, size - width + 1)
    return slice(top, top + height), slice(left, left + width)
