"""Fewer triangles: half-edge collapse by quadric errors over positions and texture coordinates together.

Garland and Heckbert, "Simplifying surfaces with color and texture using quadric error metrics" (1998). A vertex moves
onto a neighbour, so that what remains keeps its binding and texture coordinates. Where the texture is cut, vertices
stay.
"""

import heapq
from collections import Counter

import numpy as np

RIM_WEIGHT = 3.0


def reduce_mesh(points: np.ndarray, uv: np.ndarray, triangles: np.ndarray, target: int) -> np.ndarray:
    """Triangles [T', 3], at most about `target` of them, on a part of the same vertices.

    Args:
        points: [N, 3].
        uv: [N, 2]; a vertex where the texture is cut is there once per side.
        triangles: [T, 3].
        target: how many are wanted.
    """
    if len(triangles) <= target:
        return triangles
    space, quadrics = _quadrics(points, uv, triangles)
    faces = {i: list(t) for i, t in enumerate(triangles.tolist())}
    around: list[set[int]] = [set() for _ in range(len(points))]
    for i, corners in faces.items():
        for corner in corners:
            around[corner].add(i)
    _, place, count = np.unique(np.round(points, 6), axis=0, return_inverse=True, return_counts=True)
    fixed = count[place.ravel()] > 1
    stamp = np.zeros(len(points), int)
    heap: list[tuple[float, int, int, int, int]] = []

    def near(a: int) -> set[int]:
        return {corner for i in around[a] for corner in faces[i]} - {a}

    def push(a: int, b: int) -> None:
        if not fixed[a]:
            error = _error(quadrics[a] + quadrics[b], space[b])
            heapq.heappush(heap, (error, a, b, int(stamp[a]), int(stamp[b])))

    for a in range(len(points)):
        for b in near(a):
            push(a, b)
    while len(faces) > target and heap:
        _, a, b, stamp_a, stamp_b = heapq.heappop(heap)
        if stamp[a] != stamp_a or stamp[b] != stamp_b:
            continue
        shared = around[a] & around[b]
        rim = _on_rim(a, around, faces)
        if not shared or len(near(a) & near(b)) != len(shared) or (rim and len(shared) != 1):
            continue
        moved = [faces[i] for i in around[a] - shared]
        if not moved or _flips(points, moved, a, b):
            continue
        for i in shared:
            for corner in faces.pop(i):
                around[corner].discard(i)
        for i in around[a]:
            faces[i] = [b if corner == a else corner for corner in faces[i]]
            around[b].add(i)
        around[a] = set()
        quadrics[b] = quadrics[b] + quadrics[a]
        stamp[a] += 1
        stamp[b] += 1
        for other in near(b):
            push(b, other)
            push(other, b)
    return np.array(list(faces.values()))


def _quadrics(points: np.ndarray, uv: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices in position and texture [N, 5], and a quadric [N, 6, 6] each."""
    corners, flat = points[triangles], uv[triangles]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1) / 2
    sides = flat[:, 1:] - flat[:, :1]
    flat_area = np.abs(sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0]) / 2
    space = np.concatenate([points, uv * np.sqrt(area.sum() / max(flat_area.sum(), 1e-9))], 1)
    quadrics = np.zeros((len(points), 6, 6))
    p, q, r = (space[triangles[:, i]] for i in range(3))
    first = _unit(q - p)
    second = _unit((r - p) - ((r - p) * first).sum(-1, keepdims=True) * first)
    plane = np.eye(5) - first[:, :, None] * first[:, None] - second[:, :, None] * second[:, None]
    for i in range(3):
        np.add.at(quadrics, triangles[:, i], _homogeneous(plane, p) * area[:, None, None])
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), -1)
    edges, uses = np.unique(edges, axis=0, return_counts=True)
    a, b = edges[uses == 1].T
    along = space[b] - space[a]
    line = np.eye(5) - _unit(along)[:, :, None] * _unit(along)[:, None]
    weight = RIM_WEIGHT * (along**2).sum(-1)[:, None, None]
    for end in (a, b):
        np.add.at(quadrics, end, _homogeneous(line, space[a]) * weight)
    return space, quadrics


def _homogeneous(matrix: np.ndarray, point: np.ndarray) -> np.ndarray:
    linear = -np.einsum("nij,nj->ni", matrix, point)
    result = np.zeros((len(point), 6, 6))
    result[:, :5, :5] = matrix
    result[:, :5, 5] = result[:, 5, :5] = linear
    result[:, 5, 5] = -(linear * point).sum(-1)
    return result


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _error(quadric: np.ndarray, place: np.ndarray) -> float:
    full = np.append(place, 1.0)
    return float(full @ quadric @ full)


def _on_rim(a: int, around: list[set[int]], faces: dict[int, list[int]]) -> bool:
    uses = Counter(corner for i in around[a] for corner in faces[i] if corner != a)
    return 1 in uses.values()


def _flips(points: np.ndarray, moved: list[list[int]], a: int, b: int) -> bool:
    old = np.array(moved)
    new = np.where(old == a, b, old)
    before, after = _normals(points[old]), _normals(points[new])
    lengths = np.linalg.norm(before, axis=-1) * np.linalg.norm(after, axis=-1)
    return bool(((before * after).sum(-1) < 0.3 * lengths + 1e-14).any())


def _normals(corners: np.ndarray) -> np.ndarray:
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
