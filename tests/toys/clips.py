"""A clip of a toy face that turns, and what a detector without MediaPipe would say of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxface import Camera, Coefficients, decode_face
from jaxface.clips.tracking import FollowedFace
from jaxface.core import landmarks as landmarks_module
from jaxface.core.coefficients import vector_size
from jaxface.core.faces import landmark_points
from jaxface.photos import face_mesh
from jaxface.photos.detection import DetectedFace
from jaxface.render import interpolate, label_map, label_triangles, rasterize

FRAME = (140, 180)


@dataclasses.dataclass
class ToyClip:
    """Frames, label maps, noisy landmarks and true coefficients of a clip."""

    frames: np.ndarray
    labels: np.ndarray
    landmarks: np.ndarray
    vectors: np.ndarray
    camera: Camera

    @property
    def times(self):
        return np.arange(len(self.frames)) / 25

    def followed(self, missing=(), count=None):
        found = [None if index in missing else detected(points) for index, points in enumerate(self.landmarks)]
        return FollowedFace(found[:count], self.times[:count], self.frames.shape[1:3])

    def write(self, folder):
        folder.mkdir()
        for index, frame in enumerate(self.frames):
            Image.fromarray(frame).save(folder / f"frame{index}.png")
        return folder


def detected(landmarks, score=0.9):
    """A detected face with these 68 landmarks."""
    points = np.repeat(np.asarray(landmarks, float).mean(0, keepdims=True), face_mesh.POINTS, axis=0)
    points[landmarks_module.IBUG_68] = landmarks
    return DetectedFace(points, score)


def toy_clip(model, *, count=12, noise=0.4, seed=0) -> ToyClip:
    random = np.random.default_rng(seed)
    vector = np.zeros((count, vector_size(model)), np.float32)
    sizes = np.cumsum([0, 3, 2, 3, 3, 27, 3])
    identity, expression, albedo, angles, light, translation = (slice(*sizes[index : index + 2]) for index in range(6))
    phase = 2 * np.pi * np.arange(count)[:, None] / 12
    vector[:, identity], vector[:, albedo] = random.normal(size=3), random.normal(size=3)
    vector[:, expression] = 0.5 * np.sin(phase + [0.0, 1.0])
    vector[:, angles] = [0.1, 0.3, 0.1] * np.sin(phase + [0.5, 0.0, 1.0])
    vector[:, light] = 0.1 * random.normal(size=27)
    vector[:, translation] = [0.15, 0.1, 0.2] * np.sin(phase + [0.0, 2.0, 1.0])
    camera = Camera(focal=300.0, center=(95.0, 68.0), image_size=FRAME)

    @jax.jit
    def draw(vector):
        coefficients = Coefficients.from_vector(vector, model)
        face = decode_face(model, coefficients, camera)
        fragments = rasterize(face.points, face.depth, model.triangles, image_size=FRAME)
        labels = label_map(fragments, label_triangles(model.parts, model.triangles))
        image = interpolate(fragments, model.triangles, face.colors)
        return image, labels, landmark_points(model, face.points, coefficients.angles[:, 2])

    image, labels, landmarks = (np.asarray(array) for array in draw(jnp.asarray(vector)))
    background = np.where(labels[..., None] > 0, image, 0.3)
    return ToyClip(
        frames=np.round(255 * np.clip(background, 0, 1)).astype(np.uint8),
        labels=labels,
        landmarks=landmarks + noise * random.normal(size=landmarks.shape),
        vectors=vector,
        camera=camera,
    )
