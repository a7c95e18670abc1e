"""Meshes for measuring: a sphere, and the front of a head with 68 landmarks, in millimetres."""

import numpy as np


def sphere(splits: int, *, radius: float = 10.0):
    """Vertices and triangles of an octahedron whose triangles are split in four again and again."""
    vertices = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    triangles = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    for _ in range(splits):
        corners = vertices[triangles]
        middles = (corners + np.roll(corners, -1, axis=1)) / 2
        points = np.concatenate([corners, middles], axis=1)[:, [0, 3, 5, 3, 1, 4, 5, 4, 2, 3, 4, 5]]
        vertices, index = np.unique(points.reshape(-1, 3).round(12), axis=0, return_inverse=True)
        triangles = index.reshape(-1, 3)
        vertices = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    return radius * vertices, triangles


def toy_head(*, side: int = 25):
    """Vertices [side * side, 3], triangles, and the vertices of ibug's 68 landmarks: a dome 160 mm wide with a nose.

    The landmarks lie on the vertices nearest to where they would be in a face seen from the front; some share one.
    """
    grid = np.linspace(-80, 80, side)
    x, y = (axis.ravel() for axis in np.meshgrid(grid, -grid))
    nose = 25 * np.exp(-((x / 12) ** 2) - (np.clip(y + 10, None, 0) / 8) ** 2 - (np.clip(y + 10, 0, None) / 25) ** 2)
    brow = 3 * np.sin(x / 17) * np.cos(y / 23)
    vertices = np.stack([x, y, 60 - (x**2 + 0.6 * y**2) / 130 + nose + brow], -1)
    index = np.arange(side * side).reshape(side, side)
    a, b, c, d = (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:])
    triangles = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    angle = np.linspace(np.pi, 2 * np.pi, 17)
    round_the = lambda count, cx, cy, rx, ry: [  # noqa: E731
        (cx - rx * np.cos(t), cy + ry * np.sin(t)) for t in np.linspace(0, 2 * np.pi, count, endpoint=False)
    ]
    places = [
        *zip(65 * np.cos(angle), 20 + 90 * np.sin(angle), strict=True),
        *((px, 45) for px in (-55, -47, -38, -29, -20, 20, 29, 38, 47, 55)),
        *((0, py) for py in (25, 15, 5, -5)),
        *((px, -15) for px in (-14, -7, 0, 7, 14)),
        *round_the(6, -32, 27, 14, 6),
        *round_the(6, 32, 27, 14, 6),
        *round_the(12, 0, -42, 26, 11),
        *round_the(8, 0, -42, 20, 5),
    ]
    distance = np.linalg.norm(vertices[None, :, :2] - np.array(places)[:, None], axis=-1)
    return vertices, triangles, distance.argmin(1)
