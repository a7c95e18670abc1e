"""Small mesh tools: boundary loops, rings, Catmull-Clark subdivision as one sparse matrix, splitting quads."""

import collections

import numpy as np
import scipy.sparse as sp


def boundary_loops(quads: np.ndarray) -> list[np.ndarray]:
    """Closed loops of vertices around the holes and the rim, each in the direction of its half-edges."""
    half_edges = {(f[i], f[(i + 1) % 4]) for f in quads.tolist() for i in range(4)}
    following = {a: b for a, b in half_edges if (b, a) not in half_edges}
    loops = []
    while following:
        vertex = min(following)
        loop = []
        while vertex in following:
            loop.append(vertex)
            vertex = following.pop(vertex)
        loops.append(np.array(loop))
    return loops


def neighbours(quads: np.ndarray) -> dict[int, set[int]]:
    """Vertices that share an edge with each vertex."""
    table = collections.defaultdict(set)
    for f in quads.tolist():
        for i in range(4):
            table[f[i]].add(f[(i + 1) % 4])
            table[f[(i + 1) % 4]].add(f[i])
    return table


def rings(quads: np.ndarray, loop: np.ndarray, count: int) -> list[np.ndarray]:
    """The loop and `count` rings outside it, index-aligned: entry i of every ring lies on the same spoke.

    Holds where the mesh around the hole is a polar grid, as artists build eyes and mouths.
    """
    table, found, seen = neighbours(quads), [np.asarray(loop)], set(loop.tolist())
    for _ in range(count):
        spokes = [[b for b in table[a] if b not in seen] for a in found[-1].tolist()]
        if not all(len(s) == 1 for s in spokes):
            raise ValueError("the mesh around the loop is not a polar grid")
        found.append(np.array([s[0] for s in spokes]))
        seen |= set(found[-1].tolist())
    return found


def catmull_clark(quads: np.ndarray, count: int, creases: set[tuple[int, int]]) -> tuple[sp.csr_matrix, np.ndarray]:
    """One Catmull-Clark step (1978) with sharp creases: a matrix [count + edges + faces, count] and the new quads.

    Rim edges are creases too. Creases and rims follow the cubic B-spline rule; where one ends, it stays put.
    """
    edges: dict[tuple[int, int], list[int]] = {}
    for index, f in enumerate(quads.tolist()):
        for i in range(4):
            edges.setdefault(tuple(sorted((f[i], f[(i + 1) % 4]))), []).append(index)
    edge_index = {edge: i for i, edge in enumerate(edges)}
    sharp = {edge for edge, faces in edges.items() if len(faces) == 1 or edge in creases}

    faces = sp.csr_matrix(
        (np.full(quads.size, 0.25), quads.ravel(), np.arange(0, quads.size + 1, 4)), (len(quads), count)
    )
    rows, columns, values = [], [], []
    face_rows, face_columns, face_values = [], [], []
    for edge, i in edge_index.items():
        smooth = edge not in sharp
        rows += [i, i]
        columns += edge
        values += [0.25 if smooth else 0.5] * 2
        if smooth:
            face_rows += [i, i]
            face_columns += edges[edge]
            face_values += [0.25] * 2
    edge_points = sp.csr_matrix((values, (rows, columns)), (len(edges), count)) + (
        sp.csr_matrix((face_values, (face_rows, face_columns)), (len(edges), len(quads))) @ faces
    )

    vertex_faces = collections.defaultdict(list)
    for index, f in enumerate(quads.tolist()):
        for a in f:
            vertex_faces[a].append(index)
    vertex_edges = collections.defaultdict(list)
    for edge in edges:
        for a in edge:
            vertex_edges[a].append(edge)
    rows, columns, values = [], [], []
    face_rows, face_columns, face_values = [], [], []
    for a in range(count):
        crease = [edge for edge in vertex_edges[a] if edge in sharp]
        if len(crease) == 2:
            ends = [edge[0] + edge[1] - a for edge in crease]
            rows += [a] * 3
            columns += [a, *ends]
            values += [0.75, 0.125, 0.125]
        elif len(crease) >= 3 or not vertex_edges[a]:
            rows.append(a)
            columns.append(a)
            values.append(1.0)
        else:
            n = len(vertex_edges[a])
            rows += [a] * (n + 1)
            columns += [a] + [edge[0] + edge[1] - a for edge in vertex_edges[a]]
            values += [(n - 3) / n + 1 / n] + [1 / n**2] * n
            face_rows += [a] * len(vertex_faces[a])
            face_columns += vertex_faces[a]
            face_values += [1 / n**2] * len(vertex_faces[a])
    vertex_points = sp.csr_matrix((values, (rows, columns)), (count, count)) + (
        sp.csr_matrix((face_values, (face_rows, face_columns)), (count, len(quads))) @ faces
    )

    def edge_vertex(a, b):
        return count + edge_index[tuple(sorted((a, b)))]

    new = []
    for index, f in enumerate(quads.tolist()):
        center = count + len(edges) + index
        for i in range(4):
            new.append([f[i], edge_vertex(f[i], f[(i + 1) % 4]), center, edge_vertex(f[i - 1], f[i])])
    return sp.vstack([vertex_points, edge_points, faces]).tocsr(), np.array(new)


def split_quads(quads: np.ndarray, points: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Triangles [2 F, 3]: every quad is cut along its shorter diagonal, the same way on both sides of the face."""
    triangles = {}
    for f in quads.tolist():
        key = frozenset(f)
        if key in triangles:
            continue
        straight = np.sum((points[f[0]] - points[f[2]]) ** 2) <= np.sum((points[f[1]] - points[f[3]]) ** 2)
        a, b, c, d = f if straight else f[1:] + f[:1]
        halves = [[a, b, c], [a, c, d]]
        triangles[key] = halves
        triangles[frozenset(mirror[f].tolist())] = [mirror[[i, k, j]].tolist() for i, j, k in halves]
    return np.array([half for halves in triangles.values() for half in halves])


def refine(matrix: sp.csr_matrix, triangles: np.ndarray, chosen: np.ndarray) -> tuple[sp.csr_matrix, np.ndarray]:
    """Splits the chosen triangles into four at their edges' middles (red-green refinement: neighbours are halved).

    Args:
        matrix: [V, C], rows of the vertices; rows of the new ones are added.
        triangles: [T, 3].
        chosen: [T] bool.
    """
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]], -1)
    unique, index = np.unique(edges.reshape(-1, 2), axis=0, return_inverse=True)
    index = index.reshape(-1, 3)
    chosen = chosen.copy()
    while True:
        split = np.zeros(len(unique), bool)
        split[index[chosen]] = True
        more = ~chosen & (split[index].sum(1) >= 2)
        if not more.any():
            break
        chosen |= more
    number = np.full(len(unique), -1)
    number[split] = matrix.shape[0] + np.arange(split.sum())
    middle = number[index]
    a, b, c = triangles[chosen].T
    ab, bc, ca = middle[chosen].T
    parts = [np.stack(corners, 1) for corners in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
    parts.append(triangles[~chosen & (split[index].sum(1) == 0)])
    for side in range(3):  # one edge split: halve the triangle towards the corner opposite
        halved = ~chosen & split[index[:, side]]
        start, end, tip = (triangles[halved][:, (side + i) % 3] for i in range(3))
        new = middle[halved, side]
        parts += [np.stack([start, new, tip], 1), np.stack([new, end, tip], 1)]
    first, second = unique[split].T
    return sp.vstack([matrix, 0.5 * (matrix[first] + matrix[second])]).tocsr(), np.concatenate(parts)
