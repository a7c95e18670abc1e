"""What training is measured with: a shipped configuration, and a batch of random faces."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxface
from jaxface.core.coefficients import vector_size
from jaxface.core.faces import landmark_points
from jaxface.render import label_triangles, render_labels

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def read_config_file(name):
    """What get_config() of configs/<name>.py returns; needs ml_collections."""
    specification = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.get_config()


def random_batch(model, camera, size, seed=0):
    """Drawn labels and landmarks of random faces, noise for pictures; and other faces as predictions."""
    random = np.random.default_rng(seed)
    vectors = 0.5 * random.normal(size=(2, size, vector_size(model))).astype(np.float32)
    vectors[..., -33:] *= 0.1  # angles, light, translation
    decode = jax.jit(jaxface.decode_face)
    truth, predicted = (jaxface.Coefficients.from_vector(jnp.asarray(vector), model) for vector in vectors)
    face = decode(model, truth, camera)
    labels = label_triangles(model.parts, model.triangles)
    batch = {
        "image": random.integers(0, 256, (size, *camera.image_size, 3), np.uint8),
        "labels": render_labels(face.points, face.depth, model.triangles, labels, image_size=camera.image_size),
        "landmarks": landmark_points(model, face.points, truth.angles[:, 2]),
        "landmark_weights": np.ones((size, 68), np.float32),
        "coefficients": vectors[0],
        "has_coefficients": np.ones(size, np.float32),
    }
    return {name: np.asarray(value) for name, value in batch.items()}, decode(model, predicted, camera)
