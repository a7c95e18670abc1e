"""A stand-in for a face model: 68 vertices, of which five lie where an adult's eyes, nose and mouth are."""

import numpy as np

from jaxface.core.face_models import FaceModel

TEMPLATE = np.array(
    [[-0.31, 0.29, 0.52], [0.31, 0.29, 0.52], [0.0, -0.04, 0.80], [-0.25, -0.36, 0.57], [0.25, -0.36, 0.57]]
)
"""Image-left eye, image-right eye, nose tip, mouth corners, in units of 10 cm, y up."""


def toy_face_model() -> FaceModel:
    vertices = np.zeros((68, 3), np.float32)
    for point, indices in zip(TEMPLATE, ([36, 39], [42, 45], [30], [48], [54]), strict=True):
        vertices[indices] = point
    basis = np.zeros((68, 3, 2), np.float32)
    return FaceModel(
        mean_shape=vertices,
        identity_basis=basis,
        expression_basis=basis,
        mean_albedo=np.full((68, 3), 0.5, np.float32),
        albedo_basis=basis,
        triangles=np.array([[0, 1, 2]], np.int32),
        parts={},
        landmarks={"68": np.arange(68)},
        name="toy",
    )
