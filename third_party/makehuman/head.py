"""The base mesh around and under the face model: how it follows the model's coefficients, in the model's own frame."""

import dataclasses

import numpy as np
import scipy.sparse as sp
import scipy.sparse.csgraph
import scipy.sparse.linalg
from geometry import UNITS, Control
from identity import align, draw_people
from scipy.spatial import cKDTree
from source import Source
from wearables import ARMPITS

PEOPLE, DIRECTIONS, NOISE = 1500, 200, 0.02
"""How many people are drawn, how many of their directions count, what a face's direction is off by (model units)."""
RINGS = 3
"""Of quads that lie under the face's rim."""
INSET = 0.010
"""How deep under the face they lie, in model units: a millimetre."""
ARMS = 2.45
"""Where the arms are cut off, in the base mesh's units."""
REACH = 2.5
"""Rings over which what the model and the regression disagree about is blended out."""


@dataclasses.dataclass(frozen=True)
class Model:
    """The face model as it is shipped: control mesh and dense mesh.

    Attributes:
        mean: [C, 3] of the control mesh, in model units.
        identity: [C, 3, Ki].
        expression: [C, 3, Ke].
        matrix: [V, C] from the control mesh to the dense one; its first C rows are the control vertices' own.
        names: of the expression units.
    """

    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    matrix: sp.csr_matrix
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Positions of some vertices, in model units: mean [N, 3], identity [N, 3, Ki], expression [N, 3, Ke]."""

    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray

    def __getitem__(self, index: np.ndarray) -> "Rows":
        return Rows(self.mean[index], self.identity[index], self.expression[index])

    def flat(self) -> np.ndarray:
        """[N, 3, 1 + Ki + Ke]."""
        return np.concatenate([self.mean[..., None], self.identity, self.expression], -1)


class Base:
    """The base mesh as the face model moves it.

    Attributes:
        neutral: [19158, 3] of the base mesh.
        face: [F] base vertices that the model's face consists of.
        control_index: [F] where they are in the model's control mesh.
        scale, rotation: from offsets of the base mesh to model units.
    """

    def __init__(self, source: Source, control: Control, model: Model, neutral: np.ndarray):
        self.source, self.model, self.neutral = source, model, neutral
        outside = ~np.any(list(control.regions.values()), 0)[: len(control.kept)]
        self.control_index = np.flatnonzero(outside)
        self.face = control.kept[self.control_index]
        self.scale, self.rotation, self.shift = _similarity(neutral[self.face], model.mean[self.control_index])
        quads = control.quads[(control.quads < len(control.kept)).all(1)]
        self.face_quads = control.kept[quads[outside[quads].all(1)]]
        self.body = source.base()[2]["body"][0]

    def to_model(self, offsets: np.ndarray) -> np.ndarray:
        """Offsets [..., 3] of the base mesh in model units and the model's frame."""
        return self.scale * offsets @ self.rotation

    def follow(self, chosen: np.ndarray) -> Rows:
        """How base vertices `chosen` [N] follow the model: the face's own by its control mesh, others by regression.

        The regression goes from the faces of random people to the rest of their base mesh. Expressions are the
        source's units. What the model says otherwise at the face's edges is blended out away from it.
        """
        every = np.union1d(chosen, np.union1d(self.face, self.head_quads()))
        is_face = np.isin(every, self.face)
        own = self.control_index[np.argsort(self.face)]
        places = self.scale * self.neutral[every] @ self.rotation + self.shift
        wanted = np.concatenate(
            [(self.model.mean[own] - places[is_face])[..., None], self.model.identity[own]], -1
        )  # the mean's difference, and the directions
        identity = self._regress(every, is_face, wanted)
        expression = np.stack([self._unit(name, every) for name in self.model.names], -1)
        guess = np.concatenate([identity, expression], -1)
        wanted = np.concatenate([wanted, self.model.expression[own]], -1)
        off = self._blend(every, is_face, wanted - guess[is_face], places)
        result = guess + off
        result[is_face] = wanted
        split = 1 + self.model.identity.shape[-1]
        rows = Rows(places + result[..., 0], result[..., 1:split], result[..., split:])
        return rows[np.searchsorted(every, chosen)]

    def _regress(self, every: np.ndarray, is_face: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """What offsets of all vertices [N, 3, K] go with offsets of the face's [F, 3, K], among random people."""
        people = self._people(every, is_face)
        faces = people[:, is_face].reshape(len(people), -1)
        # Singular vectors of the people by the smaller product, as for a principal component analysis.
        squares, u = np.linalg.eigh((faces @ faces.T).astype(np.float64))
        squares, u = squares[::-1][:DIRECTIONS], u[:, ::-1][:, :DIRECTIONS]
        answers = u.T @ people.reshape(len(people), -1)  # [D, 3 N]
        projected = (u.T @ faces) @ wanted.reshape(faces.shape[1], -1)
        scores = projected / (squares + len(people) * NOISE**2)[:, None]
        return (answers.T @ scores).reshape(len(every), 3, -1)

    def _people(self, every: np.ndarray, is_face: np.ndarray) -> np.ndarray:
        """Offsets [S, N, 3] of random people from the neutral head, aligned by their faces, in model units."""

        class Whole:
            @staticmethod
            def assemble(offsets: np.ndarray) -> np.ndarray:
                return offsets[every]

        rest = self.neutral[every]
        offsets, _ = draw_people(self.source, Whole(), np.random.default_rng(0), PEOPLE)
        return self.to_model(align(rest + offsets, rest, is_face) - rest).astype(np.float32)

    def _unit(self, name: str, every: np.ndarray) -> np.ndarray:
        """One expression unit of the source at some vertices; nothing where the source has no such unit."""
        file = f"{UNITS}{name}.target"
        if file not in self.source.names:
            return np.zeros((len(every), 3))
        return self.to_model(self.source.target(file, len(self.neutral))[every])

    def head_quads(self) -> np.ndarray:
        """Quads [Q, 4] of the head, neck and shoulders around the face, with RINGS of the face's own."""
        points, quads = self.neutral[self.body], self.body
        quads = quads[(points[..., 1] > ARMPITS).all(1) & (np.abs(points[..., 0]) < ARMS).all(1)]
        face = {frozenset(quad) for quad in self.face_quads.tolist()}
        outside = quads[[frozenset(quad) not in face for quad in quads.tolist()]]
        crown = outside.ravel()[np.argmax(self.neutral[outside.ravel(), 1])]
        reached = _connected(outside, int(crown), len(self.neutral))
        for _ in range(RINGS):
            reached[self.face_quads[reached[self.face_quads].any(1)]] = True
        return quads[reached[quads].all(1)]

    def _blend(self, every: np.ndarray, is_face: np.ndarray, off: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Differences at the face's vertices [F, 3, K] carried on to all vertices [N, 3, K], fading out.

        Over the body's mesh by a screened diffusion; to what floats above it (helpers of hair and lashes) from the
        nearest vertices.
        """
        result = np.zeros((len(every), *off.shape[1:]))
        result[is_face] = off
        quads = np.searchsorted(every, self.body[np.isin(self.body, every).all(1)])
        laplacian = graph_laplacian(quads, len(every))
        on_mesh = np.zeros(len(every), bool)
        on_mesh[quads] = True
        free = np.flatnonzero(on_mesh & ~is_face)
        matrix = laplacian[free][:, free] + sp.diags(np.full(len(free), 4 / REACH**2))
        right = -(laplacian[free][:, np.flatnonzero(is_face)] @ off.reshape(len(off), -1))
        result[free] = scipy.sparse.linalg.splu(matrix.tocsc()).solve(right).reshape(len(free), *off.shape[1:])
        above = np.flatnonzero(~on_mesh & ~is_face)
        known = np.flatnonzero(on_mesh | is_face)
        distance, near = cKDTree(places[known]).query(places[above], k=3)
        weight = 1 / (distance + 0.005)
        weight = weight / weight.sum(1, keepdims=True) * np.exp(-((np.maximum(distance[:, :1] - 0.15, 0) / 0.3) ** 2))
        result[above] = np.einsum("nk,nkcj->ncj", weight, result[known[near]])
        return result


def graph_laplacian(quads: np.ndarray, count: int) -> sp.csr_matrix:
    """Of the graph of the quads' sides, unweighted [count, count]."""
    sides = np.unique(np.sort(np.stack([quads, np.roll(quads, -1, 1)], -1).reshape(-1, 2), -1), axis=0)
    graph = sp.csr_matrix((np.ones(len(sides)), sides.T), (count, count))
    graph = graph + graph.T
    return (sp.diags(np.asarray(graph.sum(1)).ravel()) - graph).tocsr()


def _connected(quads: np.ndarray, start: int, count: int) -> np.ndarray:
    """Whether each of `count` vertices hangs together with `start` over the quads."""
    graph = sp.identity(count) - graph_laplacian(quads, count)
    piece = sp.csgraph.connected_components(graph, directed=False)[1]
    result: np.ndarray = piece == piece[start]
    return result


def _similarity(points: np.ndarray, goal: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation [3, 3] (for rows, from the right) and shift that bring `points` nearest to `goal`."""
    middle, target = points.mean(0), goal.mean(0)
    u, s, vt = np.linalg.svd((points - middle).T @ (goal - target))
    flip = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ flip @ vt
    scale = float((s * np.diag(flip)).sum() / ((points - middle) ** 2).sum())
    return scale, rotation, target - scale * middle @ rotation
