"""The folder format: one folder per face, written by `jaxface.preprocess` or by hand. See docs/folder_format.md."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from jaxface.core import parts
from jaxface.core.errors import InputError
from jaxface.core.landmarks import LANDMARKS
from jaxface.core.units import CROP_SIZE
from jaxface.files.atomic import atomic_write
from jaxface.files.images import PNG_OPTIONS, check_file, decode_image, decode_mask
from jaxface.files.own_results import RECORDS
from jaxface.photos.alignment import Alignment
from jaxface.photos.samples import Sample, check_crop_size, empty_coefficients, validate_sample

DATASET_FILE = RECORDS["dataset"]
"""What all samples share, at the top of the folder."""

_IMAGES = ("image.png", "image.jpg", "image.jpeg")

_LANDMARKS = ("landmarks.json", "landmarks.npy", "landmarks.txt")


class FolderSource:
    """Samples in the folder format, by index; the order is that of their sorted paths.

    Args:
        path: the dataset's folder.
        size: side S in pixels of the samples given out; those stored in another size are resized.
        coefficient_count: length K of the samples' (all zero) coefficients, `coefficients.vector_size(model)`.

    Raises:
        InputError: when `size` is none, there is no such folder, no sample in it, or its dataset.json cannot be used.
    """

    def __init__(self, path: str | os.PathLike, *, size: int = CROP_SIZE, coefficient_count: int = 0):
        self.path = Path(path)
        if not self.path.is_dir():
            raise InputError(f"{self.path}: no such folder")
        order = read_dataset_file(self.path).get("labels", "jaxface")
        if order not in parts.PARSER_LABELS:
            known = ", ".join(parts.PARSER_LABELS)
            raise InputError(f"{self.path / DATASET_FILE}: labels are {order!r}, but should be one of {known}")
        self._labels = parts.PARSER_LABELS[order]
        self._size = check_crop_size(size)
        self._coefficient_count = coefficient_count
        self.images = _find_images(self.path)
        if not self.images:
            raise InputError(f"{self.path}: no samples found; each is a folder that holds {' or '.join(_IMAGES)}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """The sample number `index` (`jaxface.photos.samples`).

        Raises:
            InputError: names the file that is missing or wrong.
        """
        image_path = self.images[index]
        image = decode_image(image_path)
        labels = _read_labels(image_path.parent, image.shape[:2], self._labels)
        landmarks, weights = _read_landmarks(image_path.parent)
        if image.shape[0] != image.shape[1]:
            height, width = image.shape[:2]
            raise InputError(f"{image_path}: the crop should be square, but is {width} x {height} pixels")
        return fit_sample(
            image,
            labels,
            landmarks,
            weights,
            cut=False,
            size=self._size,
            coefficient_count=self._coefficient_count,
            name=str(image_path.parent),
        )

    def name(self, index: int) -> str:
        """What to call a sample: the path of its folder, below the dataset's."""
        return str(self.images[index].parent.relative_to(self.path))

    def __repr__(self) -> str:
        # Grain compares this text before it resumes a pipeline: it must say the same in every process.
        return f"FolderSource({str(self.path)!r}, size={self._size}, samples={len(self)})"


def fit_sample(
    image: UInt8[np.ndarray, "P P 3"],
    labels: UInt8[np.ndarray, "P P"],
    landmarks: Float[np.ndarray, "68 2"],
    weights: Float[np.ndarray, "68"],
    *,
    cut: bool,
    size: int,
    coefficient_count: int,
    name: str,
) -> Sample:
    """The sample of what was stored, in the size wanted.

    Args:
        image: the stored crop of P pixels a side.
        labels: its parts.
        landmarks: in pixels of the stored crop.
        weights: of the landmarks.
        cut: whether the labels' forehead is cut already.
        size: side S of the sample in pixels.
        coefficient_count: length K of its (all zero) coefficients.
        name: what to call it in messages.

    Raises:
        InputError: when it does not hold together.
    """
    if labels.shape != image.shape[:2]:
        raise InputError(f"{name}: the labels are {list(labels.shape)}, but the image is {list(image.shape[:2])}")
    labels = _resized(labels, size, Image.Resampling.NEAREST)
    sample = {
        "image": _resized(image, size, Image.Resampling.BICUBIC),
        "labels": labels if cut and image.shape[0] == size else parts.cut_forehead(labels),
        "landmarks": landmarks * np.float32(size / image.shape[0]),
        "landmark_weights": weights,
        **empty_coefficients(coefficient_count),
    }
    validate_sample(sample, name, size=size)
    return sample


def _find_images(folder: Path) -> list[Path]:
    images = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]  # hidden: not finished
        images += [Path(root, name) for name in _IMAGES if name in names][:1]
    return sorted(images)


def _read_labels(folder: Path, shape: tuple[int, int], table: UInt8[np.ndarray, "N"]) -> UInt8[np.ndarray, "H W"]:
    path = folder / "labels.png"
    if path.exists():
        labels = _checked_size(decode_mask(path), path, shape)
        if labels.max() >= len(table):
            raise InputError(f"{path}: holds the label {labels.max()}, but the largest is {len(table) - 1}")
        return table[labels]
    paths = sorted((folder / "masks").glob("[!.]*.png"))
    if not paths:
        raise InputError(f"{folder}: no part masks: neither labels.png nor masks/<part>.png is there")
    if unknown := [path for path in paths if path.stem not in parts.PARTS]:
        raise InputError(f"{unknown[0]}: not the name of a part; the parts are {', '.join(parts.PARTS)}")
    return parts.labels_from_masks({path.stem: _read_mask(path, shape) for path in paths})


def _read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    mask = _checked_size(decode_mask(path), path, shape)
    return mask > (127 if mask.max() > 1 else 0)


def _checked_size(mask: UInt8[np.ndarray, "H W"], path: Path, shape: tuple[int, int]) -> UInt8[np.ndarray, "H W"]:
    if mask.shape != shape:
        (height, width), (expected_height, expected_width) = mask.shape, shape
        raise InputError(f"{path}: is {width} x {height} pixels, but the image is {expected_width} x {expected_height}")
    return mask


def _read_landmarks(folder: Path) -> tuple[Float[np.ndarray, "68 2"], Float[np.ndarray, "68"]]:
    path = next((folder / name for name in _LANDMARKS if (folder / name).exists()), None)
    if path is None:
        raise InputError(f"{folder}: no landmarks: none of {', '.join(_LANDMARKS)} is there")
    check_file(path)
    try:
        if path.suffix == ".npy":
            values, weights = np.load(path, allow_pickle=False), None
        elif path.suffix == ".txt":
            values, weights = np.loadtxt(path, ndmin=2), None
        else:
            content = json.loads(path.read_text())
            content = content if isinstance(content, dict) else {"landmarks": content}
            values, weights = content.get("landmarks"), content.get("landmark_weights")
        landmarks = np.asarray(values, np.float32)
        weights = np.ones(LANDMARKS, np.float32) if weights is None else np.asarray(weights, np.float32)
    except (OSError, EOFError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise InputError(f"{path}: cannot be read as landmarks ({error})") from error
    if landmarks.shape != (LANDMARKS, 2) or weights.shape != (LANDMARKS,):
        found = f"{list(landmarks.shape)} and {list(weights.shape)}"
        raise InputError(f"{path}: landmarks and their weights should be [68, 2] and [68], but are {found}")
    if not (np.isfinite(landmarks).all() and np.isfinite(weights).all()):
        raise InputError(f"{path}: holds numbers that are not finite; give unknown points a landmark_weight of 0")
    return landmarks, weights


def _resized(image: np.ndarray, size: int, filter: Image.Resampling) -> np.ndarray:
    if image.shape[:2] == (size, size):
        return image
    return np.array(Image.fromarray(image).resize((size, size), filter))


def write_sample(folder: Path, sample: Sample, alignment: Alignment, details: Mapping[str, Any]) -> None:
    """Writes one sample into an existing folder.

    Args:
        folder: where to; made complete by the caller (`atomic.atomic_folder`).
        sample: its image, labels, landmarks and landmark_weights are written.
        alignment: where the crop lies in its photo.
        details: further entries for landmarks.json, such as the photo's name.
    """
    Image.fromarray(sample["image"]).save(folder / "image.png", **PNG_OPTIONS)
    Image.fromarray(sample["labels"]).save(folder / "labels.png")
    content = {
        **details,
        "alignment": alignment.to_dict(),
        "landmarks": np.round(sample["landmarks"].astype(float), 3).tolist(),
        "landmark_weights": sample["landmark_weights"].tolist(),
    }
    (folder / "landmarks.json").write_text(json.dumps(content) + "\n")


def read_alignment(folder: str | os.PathLike) -> Alignment:
    """Where the crop of a sample's folder lies in its photo.

    Raises:
        InputError: when its landmarks.json does not say so.
    """
    path = Path(folder) / "landmarks.json"
    content = _read_json(path)
    if "alignment" not in content:
        raise InputError(f"{path}: holds no alignment")
    try:
        return Alignment.from_dict(content["alignment"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_dataset_file(folder: Path) -> dict:
    """What dataset.json says; an empty dictionary if there is none.

    Raises:
        InputError: when it is not a JSON object.
    """
    path = folder / DATASET_FILE
    return _read_json(path) if path.exists() else {}


def write_dataset_file(folder: Path, content: Mapping[str, Any]) -> None:
    """Writes dataset.json."""
    with atomic_write(folder / DATASET_FILE) as partial:
        partial.write_text(json.dumps(dict(content), indent=2) + "\n")


def _read_json(path: Path) -> dict:
    check_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: should be a JSON object")
    return content
