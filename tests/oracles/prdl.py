"""PRDL from its definition, in float64 numpy and scipy, with every pair written out."""

import numpy as np
from scipy.spatial.distance import cdist


def pixel_centers(mask):
    rows, columns = np.nonzero(mask)
    return np.stack([columns + 0.5, rows + 0.5], axis=-1)


def descriptor(points, anchors, weights=None):
    points, anchors = np.asarray(points, np.float64), np.asarray(anchors, np.float64)
    weights = np.ones(len(points)) if weights is None else np.asarray(weights, np.float64)
    points, weights = points[weights > 0], weights[weights > 0]
    if len(points) == 0:
        return np.zeros((len(anchors), 3))
    distances = cdist(anchors, points)
    return np.stack([distances.min(1), distances.max(1), distances @ weights / weights.sum()], axis=-1)


def loss_and_gradient(points, target, anchors):
    """Mean over the anchors of |G(points) - target|^2 and its gradient with respect to the points [N, 2]."""
    points, anchors, target = (np.asarray(array, np.float64) for array in (points, anchors, target))
    difference = descriptor(points, anchors) - target
    slopes = 2 * difference / len(anchors)
    away = points[None] - anchors[:, None]
    distances = np.linalg.norm(away, axis=-1)
    directions = away / np.where(distances == 0, 1, distances)[..., None]
    gradient = (slopes[:, 2, None, None] * directions).sum(0) / len(points)
    for column, matched in ((0, distances.argmin(1)), (1, distances.argmax(1))):
        every = np.arange(len(anchors))
        np.add.at(gradient, matched, slopes[:, column, None] * directions[every, matched])
    return np.square(difference).sum(-1).mean(), gradient
