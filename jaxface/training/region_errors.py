"""REALY's protocol (Chai et al., ECCV 2022): how far each region of a scan lies from a mesh.

A similarity from seven keypoints; then, for each region by itself, a rigid alignment of the mesh; then the region is
bent onto the mesh to find which points correspond, and the mean distance of its points to their partners is its error.
Regions and keypoints are in the benchmark's own units, of about 9 mm: the constants below belong to these.
"""

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sparse
from jaxtyping import Float, Integer
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from jaxface.core.errors import InputError
from jaxface.training.scan_errors import (
    SEVEN_LANDMARKS,
    Anchors,
    Similarity,
    Surface,
    checked_points,
    fit_similarity,
    refine,
)

REGIONS = ("nose", "mouth", "forehead", "cheek")
"""The regions of a scan; the mean of their errors is the benchmark's "all"."""

_LIPS = [*range(48, 61), 64]

_ALIGNED_BY = {
    "nose": list(range(27, 36)),
    "mouth": _LIPS,
    "forehead": [*range(36, 48), *range(17, 27)],
    "cheek": [*_LIPS, 36, 41, 40, 39, 42, 47, 46, 45, 7, 8, 9],
}
"""Keypoints among ibug's 68 that hold a region. The benchmark has 17 more, for which face models have no vertices: of
these it also takes two for the nose and two for the cheek."""

_STIFFNESS, _KEYPOINT_WEIGHT = 50.0, 50.0


def realy_errors(
    regions: Mapping[str, tuple[Float[np.ndarray, "N 3"], Integer[np.ndarray, "T 3"]]],
    keypoints: Float[np.ndarray, "68 3"],
    surface: Surface,
    landmarks: Float[np.ndarray, "68 3"],
    *,
    mm_per_unit: float,
) -> dict[str, float]:
    """The error of each region in millimetres, and of "all", their mean.

    Args:
        regions: vertices and triangles of the scan's `REGIONS`.
        keypoints: the scan's, ibug's 68.
        surface: the mesh, in any unit and place.
        landmarks: the same keypoints on the mesh.
        mm_per_unit: millimetres in a unit of the scan.

    Raises:
        InputError: when a region is missing, or something is empty, not finite or degenerate.
    """
    if missing := [name for name in REGIONS if name not in regions]:
        raise InputError(f"the scan has no region {', '.join(missing)}")
    keypoints = checked_points(keypoints, "the scan's keypoints", least=68)
    landmarks = checked_points(landmarks, "the mesh's landmarks", least=68)
    start = _first_alignment(landmarks, keypoints)
    errors = {}
    for name in REGIONS:
        vertices = checked_points(regions[name][0], f"the {name} of the scan", least=3)
        held, triangles = _ALIGNED_BY[name], np.asarray(regions[name][1])
        weight = int(len(vertices) / len(held) / (4 if name == "cheek" else 1))
        anchors = Anchors(landmarks[held], keypoints[held], weight)
        aligned = refine(surface, vertices, start, scale=False, anchors=anchors)
        on_mesh = aligned.apply(surface.closest(aligned.undo(vertices)).points)
        pairs = None if name == "cheek" else (keypoints[held], aligned.apply(landmarks[held]))
        bent = bend(vertices, triangles, on_mesh, pairs=pairs)
        partners = aligned.apply(surface.closest(aligned.undo(bent)).points)
        errors[name] = mm_per_unit * float(np.linalg.norm(partners - vertices, axis=1).mean())
    return errors | {"all": float(np.mean([errors[name] for name in REGIONS]))}


def _first_alignment(landmarks: np.ndarray, keypoints: np.ndarray) -> Similarity:
    """The seven-keypoint similarity, with the benchmark's scale: the ratio of the summed absolute coordinates.

    In least squares the scale shrinks by what the keypoints are off; this one does not, and no later step mends it.
    """
    source, target = landmarks[list(SEVEN_LANDMARKS)], keypoints[list(SEVEN_LANDMARKS)]
    rotation = fit_similarity(source, target).rotation
    turned = (source - source.mean(0)) @ rotation.T
    scale = float(np.abs(target - target.mean(0)).sum() / np.abs(turned).sum())
    return Similarity(scale, rotation, target.mean(0) - scale * rotation @ source.mean(0))


def bend(
    vertices: Float[np.ndarray, "N 3"],
    triangles: Integer[np.ndarray, "T 3"],
    targets: Float[np.ndarray, "M 3"],
    *,
    pairs: tuple[Float[np.ndarray, "K 3"], Float[np.ndarray, "K 3"]] | None = None,
) -> Float[np.ndarray, "N 3"]:
    """A mesh bent onto points: non-rigid iterated closest points, an affine map per vertex (Amberg et al. 2007).

    Neighbours' maps are held together by a stiffness that falls in three stages (50, 30, 18); each stage matches the
    vertices anew, without those further from their match than twice the mean and than one unit, until the maps change
    by less than 1, 1/2, 1/4. With pairs, a first step follows these alone, and their weight then fades.

    Args:
        vertices: of the mesh.
        triangles: whose edges hold neighbours together.
        targets: the points.
        pairs: points on the mesh, and where the vertices nearest to them belong.

    Raises:
        InputError: when there are no vertices or targets, or one is not finite.
    """
    vertices = checked_points(vertices, "the vertices to bend")
    tree, targets = cKDTree(checked_points(targets, "the points to bend them onto")), np.asarray(targets, np.float64)
    held = None if pairs is None else (cKDTree(vertices).query(pairs[0])[1], np.asarray(pairs[1], np.float64))
    differences = _edge_differences(len(vertices), np.asarray(triangles))
    bent, steps, before = vertices, 0, np.ones((len(vertices), 4, 3))
    if held is not None:
        pull = (*held, np.full(len(held[0]), _KEYPOINT_WEIGHT))
        stiffness = 3 * _STIFFNESS * np.array([2.0, 2.0, 3.0, 2.0])
        (bent, before), steps = _solve(bent, differences, stiffness, [pull]), 1
    change, most_steps = np.inf, 100 if held is None else 11
    for stage in range(3):
        count = 0
        while change > 0.5**stage and count < most_steps:
            distances, nearest = tree.query(bent)
            trusted = np.flatnonzero(distances < max(2 * distances.mean(), 1.0))
            pulls = [(trusted, targets[nearest[trusted]], np.ones(len(trusted)))]
            if held is not None:
                pulls.append((*held, np.full(len(held[0]), _KEYPOINT_WEIGHT / 10 * np.exp(-0.9 * steps))))
            bent, maps = _solve(bent, differences, np.full(4, _STIFFNESS * np.exp(-0.5 * stage)), pulls)
            change, before = float(np.linalg.norm(maps - before)), maps
            count, steps = count + 1, steps + 1
    return bent


def _edge_differences(count: int, triangles: np.ndarray) -> sparse.csr_matrix:
    """[E, N]: of the two ends of each edge, one minus the other."""
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [0, 2]]]), axis=1)
    edges = np.unique(edges[edges[:, 0] != edges[:, 1]], axis=0)
    rows = np.repeat(np.arange(len(edges)), 2)
    signs = np.tile([1.0, -1.0], len(edges))
    return sparse.csr_matrix((signs, (rows, edges.ravel())), shape=(len(edges), count))


def _solve(
    vertices: np.ndarray,
    differences: sparse.csr_matrix,
    stiffness: Float[np.ndarray, "4"],
    pulls: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 4 3"]]:
    """The least-squares affine map of each vertex, and where it takes the vertices."""
    count = len(vertices)
    homogeneous = np.column_stack([vertices, np.ones(count)])
    columns = 4 * np.arange(count)[:, None] + np.arange(4)
    place = sparse.csr_matrix((homogeneous.ravel(), columns.ravel(), 4 * np.arange(count + 1)), (count, 4 * count))
    # A trace of "stay where you are" decides for pieces of a mesh that nothing pulls at.
    trace = 1e-9 * max(float(np.mean(homogeneous**2)), 1.0)
    matrix = sparse.kron(differences.T @ differences, sparse.diags(stiffness**2)) + trace * sparse.eye(4 * count)
    right = trace * np.tile(np.eye(4)[:, :3], (count, 1))
    for rows, goals, weights in pulls:
        chosen = sparse.diags(weights) @ place[rows]
        matrix = matrix + chosen.T @ chosen
        right = right + chosen.T @ (weights[:, None] * goals)
    maps = splu(sparse.csc_matrix(matrix), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(right)
    return place @ maps, maps.reshape(count, 4, 3)
