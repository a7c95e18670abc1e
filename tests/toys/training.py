"""Batches of the toy face model, for tests of the objective and the training step."""

import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from jaxface import Camera, Coefficients, decode_face
from jaxface.core import parts
from jaxface.core.coefficients import vector_size

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL_ENCODER = {"name": "resnet18", "width_multiplier": 0.125}
_decode = jax.jit(decode_face)


def read_config_file(name: str) -> ConfigDict:
    """What get_config() of configs/<name>.py returns."""
    specification = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.get_config()


def toy_config(name: str = "quickstart", **changes) -> ConfigDict:
    """A config shrunk to a tiny encoder, a few steps and a batch of 8; changes use "a.b" for nested fields."""
    config = read_config_file(name)
    small = {"batch_size": 8, "steps": 8, "log_every": 2, "checkpoint_every": 4, "cache_dir": "", "data.held_out": 8}
    small |= {"encoder.width_multiplier": 0.125, "optimizer.warmup_steps": 2, "data.workers": 0}
    config.update_from_flattened_dict(small | changes)
    return config


def toy_batch(model, batch: int, size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random toy faces: a pixel has the label of the part whose vertex is nearest, the picture is noise.

    The last sample has no coefficients and no right brow, the one before it no landmarks.
    """
    random = np.random.default_rng(seed)
    vector = 0.3 * random.normal(size=(batch, vector_size(model))).astype(np.float32)
    vector[:, -33:] *= 0.2  # angles, light, translation
    camera = Camera().resized(size)
    points = np.asarray(_decode(model, Coefficients.from_vector(vector, model), camera).points)
    vertex_labels = np.zeros(points.shape[1], np.uint8)
    for part, vertices in model.parts.items():
        vertex_labels[np.asarray(vertices)] = parts.LABELS[part]
    centers = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), -1)
    distance = np.linalg.norm(centers[None, :, :, None] - points[:, None, None], axis=-1)
    labels = np.where(distance.min(-1) < size / 8, vertex_labels[distance.argmin(-1)], 0).astype(np.uint8)
    labels = np.stack([parts.cut_forehead(one) for one in labels])
    labels[-1][labels[-1] == parts.LABELS["right_brow"]] = parts.BACKGROUND
    known = np.ones(batch, np.float32)
    known[-1] = 0
    landmark_weights = np.ones((batch, 68), np.float32)
    landmark_weights[-2] = 0
    return {
        "image": random.integers(0, 256, (batch, size, size, 3), np.uint8),
        "labels": labels,
        "landmarks": points[:, np.asarray(model.landmarks["68"])],
        "landmark_weights": landmark_weights,
        "coefficients": vector * known[:, None],
        "has_coefficients": known,
    }


def write_toy_dataset(folder: Path, model, *, count: int, size: int) -> Path:
    """The same faces in the folder format."""
    batch = toy_batch(model, count, size)
    for index in range(count):
        sample = folder / f"{index:03}"
        sample.mkdir(parents=True)
        Image.fromarray(batch["image"][index]).save(sample / "image.png")
        Image.fromarray(batch["labels"][index]).save(sample / "labels.png")
        points = {name: batch[name][index].tolist() for name in ("landmarks", "landmark_weights")}
        (sample / "landmarks.json").write_text(json.dumps(points))
    return folder
