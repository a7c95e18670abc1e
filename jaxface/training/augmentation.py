"""Random changes to a decoded sample: its colours, and for photos also its geometry.

Each augmentation is a function (sample, generator) -> sample that Grain calls with a generator of its own per sample
and epoch. The input arrays are never written to: they may be views of a file.
"""

import functools
import math

import numpy as np
from jaxtyping import Float, Integer
from PIL import Image

from jaxface.core import parts
from jaxface.core.coefficients import vector_columns, vector_size
from jaxface.core.face_models import FaceModel
from jaxface.core.landmarks import MIRRORED_68
from jaxface.photos.samples import Sample, empty_coefficients

COARSE = 0.12
"""Share of samples that are shown as small pictures, enlarged."""

# Spherical harmonics (lighting.py) with one factor x.
_ODD_LIGHT = (3, 4, 7)


# What of a basis's mirror image the basis may be unable to express, as a share of it: so wrong are the mirrored
# coefficients. (The built-in model has 0.03 in its colours, from one blemish, and none in its shapes.)
_MIRROR_TOLERANCE = 0.05


def augment_colors(sample: Sample, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Random contrast, brightness, tint, gamma, sensor noise and now and then a hidden rectangle.

    The geometry stays, so the coefficients of a synthetic face stay true.
    """
    result = dict(sample)
    image = _noisy(_toned(_coarse(sample["image"], generator), generator), generator)
    result["image"] = image
    if generator.random() < 0.15:
        rows, columns = _rectangle(image.shape[0], generator)
        image[rows, columns] = generator.integers(0, 256, 3, np.uint8)
        result["labels"] = sample["labels"].copy()
        result["labels"][rows, columns] = parts.BACKGROUND
        if "classes" in sample:
            result |= _covered(sample, rows, columns)
    return result


def _covered(sample: Sample, rows: slice, columns: slice) -> dict[str, np.ndarray]:
    """What is seen of a drawn person behind a rectangle."""
    classes = sample["classes"].copy()
    classes[rows, columns] = parts.CLASSES.index("other")
    low, high = np.array([columns.start, rows.start]), np.array([columns.stop, rows.stop])
    result = {"classes": classes}
    for points, visible in (("landmarks", "landmark_visible"), ("surface_points", "surface_visible")):
        behind = ((sample[points] >= low) & (sample[points] < high)).all(-1)
        result[visible] = np.where(behind, np.float32(0), sample[visible])
    return result


def augment_synthetic(
    sample: Sample,
    generator: np.random.Generator,
    *,
    mirror: Float[np.ndarray, "K K"] | None,
    mirrored_points: Integer[np.ndarray, "P"] | None = None,
) -> dict[str, np.ndarray]:
    """Random flip, unless `mirror` (of `coefficient_mirror`) is None, then `augment_colors`; coefficients stay true."""
    if mirror is not None and generator.random() < 0.5:
        sample = flip(sample, mirror, mirrored_points)
    return augment_colors(sample, generator)


def augment_photo(sample: Sample, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Random flip, rotation, scale and shift, then `augment_colors`; the coefficients are given up."""
    if generator.random() < 0.5:
        sample = flip(sample)
    size = sample["image"].shape[0]
    angle = generator.normal(0.0, math.radians(7.0))
    scale = math.exp(generator.normal(0.0, 0.06))
    shift = generator.normal(0.0, 0.025 * size, 2)
    return augment_colors(warp(sample, similarity(size, angle=angle, scale=scale, shift=shift)), generator)


def flip(
    sample: Sample,
    mirror: Float[np.ndarray, "K K"] | None = None,
    mirrored_points: Integer[np.ndarray, "P"] | None = None,
) -> dict[str, np.ndarray]:
    """The sample in a mirror: left parts become right parts.

    Args:
        sample: any sample.
        mirror: what the mirror does to coefficients (`coefficient_mirror`); without it, they are given up.
        mirrored_points: which of the surface's points each becomes (`surface_points.mirrored_points`).
    """
    size = sample["image"].shape[1]
    turned, shift = np.array([-1, 1], np.float32), np.array([size, 0], np.float32)
    mirrored = sample["landmarks"][MIRRORED_68] * turned + shift
    result = dict(sample) | {
        "image": np.ascontiguousarray(sample["image"][:, ::-1]),
        "labels": parts.MIRRORED_LABELS[sample["labels"][:, ::-1]],
        "landmarks": mirrored.astype(np.float32),
        "landmark_weights": sample["landmark_weights"][MIRRORED_68],
    }
    if mirrored_points is not None:
        result |= {
            "classes": parts.MIRRORED_CLASSES[sample["classes"][:, ::-1]],
            "landmark_visible": sample["landmark_visible"][MIRRORED_68],
            "surface_points": (sample["surface_points"][mirrored_points] * turned + shift).astype(np.float32),
            "surface_visible": sample["surface_visible"][mirrored_points],
        }
    if mirror is None:
        return result | empty_coefficients(sample["coefficients"].size)
    return result | {"coefficients": mirror @ sample["coefficients"]}


def coefficient_mirror(model: FaceModel) -> Float[np.ndarray, "K K"] | None:
    """The matrix that turns a face's coefficient vector into that of its mirror image.

    Returns:
        [K, K] float32; None if the model is not symmetric (no mirror table, or bases that lack a mirror image) or has
        joints.
    """
    if model.mirror is None or model.skinning is not None:
        return None
    mirror, odd_x = np.asarray(model.mirror), np.array([-1.0, 1.0, 1.0])
    columns_of, size = vector_columns(model), vector_size(model)
    result = np.zeros((size, size))
    for kind, basis, signs in (
        ("identity", model.identity_basis, odd_x),
        ("expression", model.expression_basis, odd_x),
        ("albedo", model.albedo_basis, np.ones(3)),
    ):
        values = np.asarray(basis, np.float64)
        columns = values.reshape(values.shape[0] * 3, values.shape[-1])
        mirrored = (values[mirror] * signs[:, None]).reshape(columns.shape)
        block = np.linalg.lstsq(columns, mirrored, rcond=None)[0]
        if np.linalg.norm(columns @ block - mirrored) > _MIRROR_TOLERANCE * np.linalg.norm(columns):
            return None
        result[columns_of[kind], columns_of[kind]] = block
    light = np.ones(9)
    light[list(_ODD_LIGHT)] = -1
    for kind, rest in (("angles", [1, -1, -1]), ("light", np.tile(light, 3)), ("translation", odd_x)):
        result[columns_of[kind], columns_of[kind]] = np.diag(rest)
    return result.astype(np.float32)


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


def _coarse(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Now and then a small picture, enlarged: faces of far fewer pixels than a crop has."""
    if generator.random() >= COARSE:
        return image
    size = image.shape[0]
    small = round(size * math.exp(generator.uniform(math.log(0.22), math.log(0.7))))
    reduced = Image.fromarray(image).resize((small, small), Image.Resampling.BOX)
    kind = Image.Resampling.BICUBIC if generator.random() < 0.5 else Image.Resampling.BILINEAR
    return np.asarray(reduced.resize((size, size), kind))


def reduced(sample: Sample, size: int) -> dict[str, np.ndarray]:
    """The sample in a smaller picture of `size` pixels: as drawn with several samples a pixel."""
    factor, result = size / sample["image"].shape[0], dict(sample)
    result["image"] = np.asarray(Image.fromarray(sample["image"]).resize((size, size), Image.Resampling.BOX))
    for name in ("labels", "classes"):
        if name in sample:
            picture = Image.fromarray(sample[name]).resize((size, size), Image.Resampling.NEAREST)
            result[name] = np.asarray(picture)
    for name in ("landmarks", "surface_points"):
        if name in sample:
            result[name] = (sample[name] * factor).astype(np.float32)
    return result


def _toned(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    # One table of 256 bytes per channel holds tint, contrast, brightness and gamma at once.
    levels = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    gains = np.exp(generator.normal(0, 0.06, 3)) * math.exp(generator.normal(0, 0.12))
    contrast, brightness = math.exp(generator.normal(0, 0.12)), generator.normal(0, 0.04)
    curve = np.clip((levels * gains - 0.5) * contrast + 0.5 + brightness, 0, 1) ** math.exp(generator.normal(0, 0.15))
    table = (255 * curve + 0.5).astype(np.uint8)
    return np.stack([table[:, channel][image[..., channel]] for channel in range(3)], axis=-1)


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
