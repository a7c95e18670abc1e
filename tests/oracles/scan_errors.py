"""Closest points of a triangle mesh and alignments in plain numpy and scipy, written from the definitions."""

import numpy as np
from scipy.optimize import nnls
from scipy.spatial.transform import Rotation


def closest_distance(point, corners):
    """Distance of a point to a triangle [3, 3]: the smallest over all convex combinations of its corners."""
    corners = np.asarray(corners, np.float64) - point
    heavy = 1e5 * max(np.abs(corners).max(), 1.0)  # holds the sum of the weights at 1
    weights, _ = nnls(np.vstack([corners.T, np.full(3, heavy)]), np.array([0, 0, 0, heavy]))
    return np.linalg.norm(weights / weights.sum() @ corners)


def closest_distances(points, vertices, triangles):
    """Every point against every triangle."""
    return np.array([min(closest_distance(point, vertices[row]) for row in triangles) for point in points])


def best_similarity(source, target):
    """Rotation by scipy's solution of Wahba's problem, then scale and translation by their own least squares."""
    a, b = source - source.mean(0), target - target.mean(0)
    rotation = Rotation.align_vectors(b, a)[0].as_matrix()
    turned = a @ rotation.T
    scale = (turned * b).sum() / (turned**2).sum()
    return scale, rotation, target.mean(0) - scale * rotation @ source.mean(0)
