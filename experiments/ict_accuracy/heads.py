"""ICT-FaceKit's heads, and the built-in model's people laid on them, so that they have skin, eyes, brows and hair."""

import dataclasses
import os

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Integer
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from jaxface.core import parts
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.fitting.evidence import INNER
from jaxface.models.ict import read_ict
from jaxface.synthetic.people import People
from jaxface.training.scan_errors import Surface, fit_similarity

STIFFNESS = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.05)
"""Of the links between neighbours, step by step: first the head moves as a whole, in the end each point by itself."""

LANDMARKS_WEIGHT = 5.0
"""Of a landmark beside a point of the surface: lips, lids and nostrils are to come to lie on each other's."""

FARTHEST, FACING = 0.15, 0.6
"""Model units and cosine: points of the target that are farther, or look elsewhere, are another place's."""

LARGEST = 3.0
"""Standard deviations that an identity may go before the rest is moved freely."""


@dataclasses.dataclass(frozen=True)
class Head:
    """A head of ICT-FaceKit in the built-in model's frame, of its own size.

    Attributes:
        name: of its file.
        vertices: [V, 3] in model units.
        triangles: [T, 3].
        landmarks: [68, 3] in model units; the first 17 are the outline's.
    """

    name: str
    vertices: Float[np.ndarray, "V 3"]
    triangles: Integer[np.ndarray, "T 3"]
    landmarks: Float[np.ndarray, "68 3"]


def read_heads(folder: str | os.PathLike[str], model: FaceModel, *, mixed: int = 0) -> list[Head]:
    """Each identity of the folder FaceXModel/ by itself, turned and moved to where the face model's mean lies.

    Args:
        folder: holds the OBJ files.
        model: the built-in face model.
        mixed: so many heads more, of all identities at once with standard normal coefficients, as people are.

    Raises:
        InputError: when the folder cannot be used, or holds no identity.
    """
    ict = read_ict(folder)
    count = ict.identity_basis.shape[-1]
    if not count:
        raise InputError(f"{folder}: no identity000.obj or others: there is no head but the mean one")
    rows, inner = np.asarray(ict.landmarks["68"]), slice(INNER, None)
    wanted = np.asarray(model.mean_shape, np.float64)[np.asarray(model.landmarks["68"])]
    heads = []
    coefficients = np.concatenate([np.eye(count), np.random.default_rng(0).standard_normal((mixed, count))])
    names = [f"identity{index:03d}" for index in range(count)] + [f"mixed{index}" for index in range(mixed)]
    for name, one in zip(names, coefficients, strict=True):
        own = np.asarray(ict.mean_shape + ict.identity_basis @ one, np.float64)
        rotation = fit_similarity(own[rows[inner]], wanted[inner]).rotation
        own = own @ rotation.T
        own += (wanted[inner] - own[rows[inner]]).mean(0)
        heads.append(Head(name, own, np.asarray(ict.triangles), own[rows]))
    return heads


def dressed(head: Head, model: FaceModel, people: People) -> tuple[FaceModel, People, Float[np.ndarray, "Ki"]]:
    """The face model and its people moved onto a head: drawn with this identity, they are the head.

    The nearest identity of the face model first; what it lacks is a displacement of each vertex, which its neighbours
    share the less the longer it goes on (non-rigid iterative closest points; Amberg et al. 2007). Whatever surrounds
    the face, or is worn, goes along.

    Args:
        head: from `read_heads`.
        model: the face model.
        people: its own.

    Returns:
        The face model and the people with other mean shapes, and the identity.
    """
    surface = Surface(head.vertices, head.triangles)
    identity = _nearest_identity(head, model, surface)
    basis = np.asarray(model.identity_basis, np.float64)
    face = np.asarray(model.mean_shape, np.float64) + basis @ identity
    rows = np.asarray(people.mean, np.float64) + np.asarray(people.identity_basis, np.float64) @ identity
    everything, count = np.concatenate([face, rows]), len(face)
    links = _links(everything, np.asarray(model.triangles), count + np.asarray(people.head_triangles), count)
    marks = np.asarray(model.landmarks["68"])[INNER:]
    pulled = np.unique(np.concatenate([model.parts[part] for part in parts.PARTS]))
    moved = np.zeros_like(everything)
    for stiffness in STIFFNESS:
        found, trusted = _matches(surface, face + moved[:count], np.asarray(model.triangles), pulled)
        weight, pull = np.zeros(len(everything)), np.zeros_like(everything)
        weight[found], pull[found] = 1.0, trusted - face[found]
        weight[marks] += LANDMARKS_WEIGHT
        pull[marks] = pull[marks] * (weight[marks] > LANDMARKS_WEIGHT)[:, None]
        pull[marks] += LANDMARKS_WEIGHT * (head.landmarks[INNER:] - face[marks])
        moved = splu((sp.diags(weight + 1e-6) + stiffness * links).tocsc()).solve(pull)
    shape = np.asarray(model.mean_shape, np.float64) + moved[:count]
    return (
        dataclasses.replace(model, mean_shape=shape.astype(np.float32)),
        dataclasses.replace(people, mean=(np.asarray(people.mean) + moved[count:]).astype(np.float32)),
        identity.astype(np.float32),
    )


def _nearest_identity(head: Head, model: FaceModel, surface: Surface) -> Float[np.ndarray, "Ki"]:
    """By the landmarks, then by closest points; a standard deviation weighs as much as a millimetre in each."""
    mean, basis = np.asarray(model.mean_shape, np.float64), np.asarray(model.identity_basis, np.float64)
    marks = np.asarray(model.landmarks["68"])[INNER:]
    skin = np.unique(np.concatenate([model.parts[part] for part in parts.PARTS]))
    identity = np.zeros(basis.shape[-1])
    for step in range(6):
        chosen, wanted = marks, head.landmarks[INNER:]
        if step:
            found, points = _matches(surface, mean + basis @ identity, np.asarray(model.triangles), skin)
            chosen, wanted = np.concatenate([marks, found[::4]]), np.concatenate([wanted, points[::4]])
        slopes = np.concatenate([basis[chosen].reshape(-1, basis.shape[-1]), _shifts(len(chosen))], axis=1)
        normal = slopes.T @ slopes + np.diag([1e-4 * len(chosen) / 10] * basis.shape[-1] + [1e-9] * 3)
        identity = np.linalg.solve(normal, slopes.T @ (wanted - mean[chosen]).reshape(-1))[:-3]
        identity = np.clip(identity, -LARGEST, LARGEST)
    return identity


def _shifts(count: int) -> Float[np.ndarray, "3N 3"]:
    return np.tile(np.eye(3), (count, 1))


def _matches(
    surface: Surface, vertices: Float[np.ndarray, "V 3"], triangles: Integer[np.ndarray, "T 3"], rows: np.ndarray
) -> tuple[Integer[np.ndarray, "N"], Float[np.ndarray, "N 3"]]:
    """Those of some vertices that have a closest point on the surface which faces their way, and these points."""
    own = Surface(vertices, triangles).normals()
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, triangles[:, corner], own)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    closest = surface.closest(vertices[rows])
    alike = (normals[rows] * surface.normals()[closest.triangles]).sum(1)
    good = (alike > FACING) & (closest.distances < FARTHEST)
    good &= ~np.isin(closest.triangles, _rim(surface.triangles))
    return rows[good], closest.points[good]


def _rim(triangles: Integer[np.ndarray, "T 3"]) -> Integer[np.ndarray, "R"]:
    """Triangles that touch an open edge: what lies nearest to one lies beyond it."""
    edges = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    unique, counts = np.unique(edges, axis=0, return_counts=True)
    return np.flatnonzero(np.isin(triangles, np.unique(unique[counts == 1])).any(1))


def _links(points: Float[np.ndarray, "N 3"], face: np.ndarray, head: np.ndarray, count: int) -> sp.csr_matrix:
    """The graph's Laplacian: edges of both meshes, and for what floats, links to its nearest neighbours."""
    meshes = [triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2) for triangles in (face, head)]
    rows = np.arange(count, len(points))
    near = cKDTree(points[:count]).query(points[rows], 3)[1]
    among = cKDTree(points).query(points, 4)[1][:, 1:]
    pairs = [np.stack([np.repeat(rows, 3), near.ravel()], 1)]
    pairs.append(np.stack([np.repeat(np.arange(len(points)), 3), among.ravel()], 1))
    pairs = np.unique(np.sort(np.concatenate([*meshes, *pairs]), axis=1), axis=0)
    ones = np.ones(len(pairs))
    graph = sp.coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(len(points),) * 2).tocsr()
    graph = graph + graph.T
    return sp.diags(np.asarray(graph.sum(1)).ravel()) - graph
