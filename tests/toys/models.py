"""Small face-like models for tests that need the structure of a face, not its looks."""

import numpy as np

from jaxface import FaceModel


def toy_model(identity: int = 3, expression: int = 2, albedo: int = 3, seed: int = 0) -> FaceModel:
    """A bumpy dome of 9 x 9 vertices, about 1.6 x 1.6 units, that looks at the camera."""
    random = np.random.default_rng(seed)
    grid = np.linspace(-0.8, 0.8, 9)
    x, y = (axis.ravel() for axis in np.meshgrid(grid, -grid))
    mean_shape = np.stack([x, y, 0.6 - 0.5 * (x**2 + y**2)], -1)
    index = np.arange(81).reshape(9, 9)
    a, b, c, d = (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:])  # rows run down the picture
    triangles = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])

    def basis(count, scale):
        return random.normal(size=(81, 3, count)).astype(np.float32) * scale

    columns = index[:, ::-1]  # the subject's left is the larger x
    parts = {
        "left_eye": index[2:4, 6:7].ravel(), "right_eye": columns[2:4, 6:7].ravel(),
        "left_brow": index[1:2, 5:8].ravel(), "right_brow": columns[1:2, 5:8].ravel(),
        "nose": index[3:5, 4].ravel(), "upper_lip": index[6, 3:6], "lower_lip": index[7, 3:6],
    }  # fmt: skip
    parts["skin"] = np.setdiff1d(index, np.concatenate(list(parts.values())))
    contour = np.linspace(0, 80, 17).astype(int)
    return FaceModel(
        mean_shape=mean_shape.astype(np.float32),
        identity_basis=basis(identity, 0.02),
        expression_basis=basis(expression, 0.02),
        mean_albedo=random.uniform(0.4, 0.8, (81, 3)).astype(np.float32),
        albedo_basis=basis(albedo, 0.05),
        triangles=triangles.astype(np.int32),
        parts={name: vertices.astype(np.int32) for name, vertices in parts.items()},
        landmarks={"68": (np.arange(68) * 80 // 67).astype(np.int32)},
        contours={"68": np.stack([contour, np.minimum(contour + 1, 80)], -1).astype(np.int32)},
        uv=np.stack([x, y], -1).astype(np.float32) / 2 + 0.5,
        mirror=columns.ravel().astype(np.int32),
        name="toy",
    )
