"""ICT-FaceKit's light face model: the folder FaceXModel/ with one OBJ per shape (Li et al. 2020; MIT licence).

generic_neutral_mesh.obj, identity000.obj ..., one OBJ per expression and vertex_indices.json; all meshes whole heads in
centimetres, y up, z towards the viewer, of one topology. A basis vector is a file minus the neutral one. Taken is the
face area of the topology, or the narrow one without forehead, ears and throat. Its eye openings are holes with eyeballs
behind: they are closed here by a surface between the lids, so that an eye is a part that opens and shuts.
"""

import json
import os
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Integer
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from jaxface.core.errors import InputError
from jaxface.core.face_models import ARTIST_UNITS, PLAIN_EYE, PLAIN_SKIN, FaceModel
from jaxface.files.impostors import refuse_impostor
from jaxface.models.annotations import with_annotation
from jaxface.models.source import FaceModelFormat

NEUTRAL = "generic_neutral_mesh.obj"
"""The mean shape, in the folder."""

INDICES = "vertex_indices.json"
"""Names of vertices, in the folder: landmarks among them."""

VERTICES = 26_719
"""Of the makers' topology, eyes, teeth and all."""

AREAS = {"face": (9409, 9230), "narrow": (6706, 6560)}
"""Vertices and polygons of the topology, counted from its first ones, that each area takes."""

EYEBALLS = {"left_eye": slice(21451, 23021), "right_eye": slice(23021, 24591)}
"""Vertices of each eyeball."""

EYE_LANDMARKS = {"left_eye": (45, 42), "right_eye": (36, 39)}  # outer and inner corner

EYE_ROWS = 5  # rows of vertices between the lids

EYES_AT = np.array([0.0, 0.25, 0.0])
"""Where the middle between the corners of the eyes comes to, in model units, as in BFM's crops."""

UNITS_PER_CENTIMETRE = 0.1
"""ICT counts centimetres, jaxface 10 cm."""

LARGEST = 1e4  # centimetres

MIRROR_TOLERANCE = 1e-3  # model units, 0.1 mm: the makers' own symmetry is good to half of it


def read_ict(folder: str | os.PathLike[str], *, area: str = "face") -> FaceModel:
    """Reads a folder FaceXModel/ into NumPy arrays (float32, int32).

    Identity coefficients are standard normal, expression coefficients lie in [0, 1]: see `expression_names`. The folder
    may hold some of the shapes only. Parts are both eyes and lips; parts.npz in the folder, which the annotation tool
    makes, adds the others, landmarks and contours. There are no albedo coefficients: the colour is a plain skin tone.

    Args:
        folder: holds the OBJ files and vertex_indices.json.
        area: "face", or "narrow" for a face without forehead, ears and throat.

    Raises:
        InputError: when a file is missing, damaged or of another topology.
        ValueError: for an unknown area.
    """
    if area not in AREAS:
        raise ValueError(f"unknown area {area!r}: choose one of {', '.join(AREAS)}")
    folder = Path(folder)
    neutral = read_vertices(folder / NEUTRAL)
    polygons, texture, coordinates = _read_polygons(folder / NEUTRAL, AREAS[area])
    landmarks = _landmarks(folder / INDICES, AREAS[area][0])
    lids = {eye: _lids(polygons, neutral, landmarks[list(EYE_LANDMARKS[eye])]) for eye in EYEBALLS}
    kept = AREAS[area][0]

    def face(vertices: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "V 3"]:
        eyes = [_eye_surface(vertices[lids[eye]], vertices[EYEBALLS[eye]]) for eye in EYEBALLS]
        return np.concatenate([vertices[:kept], *eyes]) * UNITS_PER_CENTIMETRE

    mean = face(neutral)
    surfaces = np.arange(kept, len(mean)).reshape(len(EYEBALLS), -1)
    triangles = _triangles(polygons, lids, surfaces)
    corners = landmarks[[36, 39, 42, 45]]
    albedo = np.tile(np.array(PLAIN_SKIN, np.float32), (len(mean), 1))
    albedo[kept:] = PLAIN_EYE
    uv = _vertex_uv(polygons, texture, coordinates, kept)
    uv = np.concatenate([uv, *(_between(uv[lids[eye]]).reshape(-1, 2) for eye in EYEBALLS)])
    parts = {eye: np.union1d(surface, lids[eye]) for eye, surface in zip(EYEBALLS, surfaces, strict=True)}
    parts |= _lips(mean, triangles, landmarks)
    names = expression_names(folder)
    model = FaceModel(
        mean_shape=(mean + (EYES_AT - mean[corners].mean(0)) * [0, 1, 1]).astype(np.float32),  # x is symmetric already
        identity_basis=_basis(folder, _identity_files(folder), face, mean),
        expression_basis=_basis(folder, names, face, mean),
        mean_albedo=albedo,
        albedo_basis=np.zeros((len(mean), 3, 0), np.float32),
        triangles=triangles,
        parts={name: indices.astype(np.int32) for name, indices in parts.items()},
        landmarks={"68": landmarks},
        uv=uv.astype(np.float32),
        mirror=_mirror(mean),
        name="ict" if area == "face" else f"ict_{area}",
        expression_names=names,
        expression_bounds=ARTIST_UNITS,
    )
    annotation = folder / "parts.npz"
    return with_annotation(model, annotation) if annotation.is_file() else model


def expression_names(folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of the expression coefficients in order: those of vertex_indices.json whose files are there.

    Raises:
        InputError: when vertex_indices.json is missing or damaged.
    """
    folder = Path(folder)
    names = _read_indices(folder / INDICES).get("expressions")
    if not isinstance(names, list) or not all(isinstance(name, str) and re.fullmatch(r"\w+", name) for name in names):
        raise InputError(f"{folder / INDICES}: 'expressions' is not a list of names; download it again")
    return tuple(name for name in dict.fromkeys(names) if (folder / f"{name}.obj").is_file())


def read_vertices(path: str | os.PathLike[str]) -> Float[np.ndarray, "N 3"]:
    """Vertices of one of the folder's OBJ files in centimetres, float64; other lines are not looked at.

    Raises:
        InputError: when the file is missing or damaged, or has another number of vertices.
    """
    path = Path(path)
    refuse_impostor(path)
    values = _numbers(_lines(_read(path), b"v"), 3, f"{path}: the 'v' lines")
    if len(values) != VERTICES:
        raise InputError(f"{path} has {len(values)} vertices, ICT-FaceKit's light model has {VERTICES}")
    return values


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read {path} ({error.strerror}); it belongs to the folder FaceXModel of ICT-FaceKit's light model"
        ) from error


def _lines(data: bytes, keyword: bytes) -> list[bytes]:
    """What stands behind `keyword` in the lines that begin with it; neighbouring lines in one piece.

    A mesh has its vertices one after the other, so that this is a search for a few places, not for 27,000 lines.
    """
    row = re.compile(rb"(?:^%s[ \t][^\n]*(?:\n|\Z))+" % keyword, re.MULTILINE)
    return [match.group().replace(keyword + b" ", b" ").replace(keyword + b"\t", b" ") for match in row.finditer(data)]


def _numbers(blocks: Sequence[bytes], columns: int, what: str) -> Float[np.ndarray, "N C"]:
    text = b"".join(blocks)
    rows = text.count(b"\n") + (not text.endswith(b"\n"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy only warns of text that is not a number
            values = np.fromstring(text.decode("ascii"), sep=" ")
    except (ValueError, Warning) as error:
        raise InputError(f"{what} hold something that is not a number; download the file again") from error
    if not text or values.size != columns * rows:
        raise InputError(f"{what} do not hold {columns} numbers each; download the file again")
    if not (np.abs(values) < LARGEST).all():  # so that NaN fails as well
        raise InputError(f"{what} hold values that are not finite or beyond {LARGEST:g}; download the file again")
    return values.reshape(-1, columns)


def _read_polygons(path: Path, counts: tuple[int, int]) -> tuple[list[list[int]], list[list[int]], np.ndarray]:
    """Vertex and texture indices, from 0, of an area's polygons, and the texture coordinates of the file."""
    refuse_impostor(path)
    data, (vertices, wanted) = _read(path), counts
    coordinates = _numbers(_lines(data, b"vt"), 2, f"{path}: the 'vt' lines")
    rows = b"".join(_lines(data, b"f")).splitlines()[:wanted]
    try:
        corners = [[[int(index) for index in corner.split(b"/")[:2]] for corner in row.split()] for row in rows]
        polygons, texture = ([[corner[i] - 1 for corner in row] for row in corners] for i in (0, 1))
    except (ValueError, IndexError) as error:
        raise InputError(f"{path}: an 'f' line is not made of vertex/texture pairs; download the file again") from error
    for indices, limit in ((polygons, vertices), (texture, len(coordinates))):
        if len(rows) != wanted or any(len(row) not in (3, 4) or min(row) < 0 or max(row) >= limit for row in indices):
            raise InputError(
                f"{path}: its first {wanted} polygons are not those of ICT-FaceKit's light model, triangles and quads "
                f"over its first {vertices} vertices; download the file again"
            )
    return polygons, texture, coordinates


def _read_indices(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); download it again") from error
    return content if isinstance(content, dict) else {}


def _landmarks(path: Path, vertices: int) -> Integer[np.ndarray, "68"]:
    values = _read_indices(path).get("idx_to_landmark_verts")
    if (
        not isinstance(values, list)
        or len(values) != 68
        or not all(type(value) is int and 0 <= value < vertices for value in values)
    ):
        raise InputError(f"{path}: 'idx_to_landmark_verts' is not a list of 68 vertices below {vertices}")
    return np.array(values, np.int32)


def _identity_files(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("identity*.obj") if re.fullmatch(r"identity\d+", path.stem))


def _basis(
    folder: Path, names: Sequence[str], face: Callable[[np.ndarray], np.ndarray], mean: np.ndarray
) -> Float[np.ndarray, "V 3 K"]:
    """File minus neutral for each name, in model units."""
    basis = np.zeros((*mean.shape, len(names)), np.float32)
    for index, name in enumerate(names):
        basis[..., index] = face(read_vertices(folder / f"{name}.obj")) - mean
    return basis


def _lids(
    polygons: list[list[int]], points: np.ndarray, corners: Integer[np.ndarray, "2"]
) -> Integer[np.ndarray, "M 2"]:
    """Pairs of vertices (upper lid, lower lid) along an eye opening, from its outer to its inner corner.

    The first and the last pair are the corners, twice the same vertex.
    """
    edges = {(row[i - 1], row[i]) for row in polygons for i in range(len(row))}
    following = {a: b for a, b in edges if (b, a) not in edges}
    distances = np.linalg.norm(points[list(following)] - points[corners[0]], axis=1) if following else np.zeros(0)
    loop = [list(following)[int(distances.argmin())]] if following else []
    while loop and following.get(loop[-1], loop[0]) != loop[0] and len(loop) <= len(following):
        loop.append(following[loop[-1]])
    if len(loop) < 8 or len(loop) % 2:
        raise InputError(f"{NEUTRAL} has no eye opening at the landmarks of the eye; download the folder again")
    half = len(loop) // 2
    pairs = np.array([loop[: half + 1], [loop[0], *loop[: half - 1 : -1]]]).T
    upper_first = points[pairs[:, 0], 1].mean() > points[pairs[:, 1], 1].mean()
    return pairs if upper_first else pairs[:, ::-1]


def _between(pairs: Float[np.ndarray, "M 2 C"]) -> Float[np.ndarray, "M-2 R C"]:
    """EYE_ROWS points in equal steps between the upper and the lower lid, without the corners."""
    share = (np.arange(1, EYE_ROWS + 1) / (EYE_ROWS + 1))[None, :, None]
    points: np.ndarray = (1 - share) * pairs[1:-1, :1] + share * pairs[1:-1, 1:]
    return points


def _eye_surface(lids: Float[np.ndarray, "M 2 3"], eyeball: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "S 3"]:
    """The closed surface of an eye: around the eyeball from lid to lid, as far from its centre as they are.

    A blink draws the upper lid before it, whose inner rim, where the surface begins, stays behind.
    """
    # The sphere that fits best: |p|^2 = 2 p . centre + (radius^2 - |centre|^2).
    design = np.concatenate([2 * eyeball, np.ones((len(eyeball), 1))], axis=1)
    center = np.linalg.lstsq(design, np.square(eyeball).sum(1), rcond=None)[0][:3]
    chord = _between(lids - center)
    radius = _between(np.linalg.norm(lids - center, axis=-1, keepdims=True))
    length = np.linalg.norm(chord, axis=-1, keepdims=True)
    surface: np.ndarray = center + chord * radius / np.maximum(length, 1e-6)
    return surface.reshape(-1, 3)


def _triangles(
    polygons: list[list[int]], lids: dict[str, np.ndarray], surfaces: Integer[np.ndarray, "E S"]
) -> Integer[np.ndarray, "T 3"]:
    """The area's polygons and those of the eyes, as triangles that keep their sense of rotation."""
    split = [[row[0], row[i], row[i + 1]] for row in polygons for i in range(1, len(row) - 1)]
    for pairs, surface in zip(lids.values(), surfaces, strict=True):
        grid = np.concatenate([pairs[1:-1, :1], surface.reshape(-1, EYE_ROWS), pairs[1:-1, 1:]], axis=1)
        cells = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], -1).reshape(-1, 4)
        fans = [
            np.stack([np.full(len(row) - 1, corner), row[:-1], row[1:]], -1)
            for corner, row in ((pairs[0, 0], grid[0]), (pairs[-1, 0], grid[-1, ::-1]))
        ]
        eye = np.concatenate([cells[:, [0, 1, 2]], cells[:, [0, 2, 3]], *fans])
        # Along the lid, the eye's edges must run against those of the face.
        edge = (pairs[0, 0], pairs[1, 0])
        along = any(edge == (row[i - 1], row[i]) for row in polygons for i in range(len(row)))
        split.extend((eye[:, ::-1] if along else eye).tolist())
    return np.array(split, np.int32)


def _vertex_uv(
    polygons: list[list[int]], texture: list[list[int]], coordinates: Float[np.ndarray, "C 2"], count: int
) -> Float[np.ndarray, "N 2"]:
    """One texture coordinate per vertex; on a seam, that of its first polygon."""
    uv = np.zeros((count, 2))
    for row, corners in zip(reversed(polygons), reversed(texture), strict=True):
        uv[row] = coordinates[corners]
    return uv


def _mirror(points: Float[np.ndarray, "V 3"]) -> Integer[np.ndarray, "V"] | None:
    distance, mirror = cKDTree(points).query(points * [-1, 1, 1])
    exact = distance.max() < MIRROR_TOLERANCE and np.array_equal(mirror[mirror], np.arange(len(mirror)))
    return mirror.astype(np.int32) if exact else None


def _lips(
    points: Float[np.ndarray, "V 3"], triangles: Integer[np.ndarray, "T 3"], landmarks: Integer[np.ndarray, "68"]
) -> dict[str, np.ndarray]:
    """Both lips: what lies inside the shortest way over the mesh along the outer landmarks of the mouth."""
    edges = triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    lengths = np.maximum(np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1), 1e-6)
    graph = sp.coo_matrix((lengths, edges.T), (len(points), len(points))).tocsr()
    graph = graph.maximum(graph.T)
    outer, inner = landmarks[48:60], landmarks[60:68]
    outline = _closed_way(graph, outer)
    open_mesh = np.ones(len(points), bool)
    open_mesh[outline] = False
    _, island = connected_components(graph[open_mesh][:, open_mesh], directed=False)
    islands = np.full(len(points), -1)
    islands[open_mesh] = island
    inside = np.isin(islands, np.setdiff1d(islands[inner], [-1]))
    inside[outline] = True
    upper, lower = (
        dijkstra(graph, indices=np.concatenate([outer[ends], inner[mid]]), min_only=True, directed=False)
        for ends, mid in ((slice(1, 6), slice(1, 4)), (slice(7, 12), slice(5, 8)))
    )
    return {
        "upper_lip": np.flatnonzero(inside & (upper <= lower)),
        "lower_lip": np.flatnonzero(inside & (lower < upper)),
    }


def _closed_way(graph: sp.csr_matrix, stops: Integer[np.ndarray, "N"]) -> list[int]:
    """Vertices on the shortest ways from each stop to the next, and from the last to the first."""
    _, before = dijkstra(graph, indices=stops, return_predecessors=True, directed=False)
    way = []
    for row, goal in zip(before, np.roll(stops, -1), strict=True):
        here = int(goal)
        while here >= 0:
            way.append(here)
            here = int(row[here])
    return way


def _folder_of(path: Path) -> Path | None:
    """The folder FaceXModel: the one given, or the one in it."""
    return next((folder for folder in (path, path / "FaceXModel") if (folder / NEUTRAL).is_file()), None)


PUBLISHED = FaceModelFormat(
    "ICT-FaceKit's folder FaceXModel",
    lambda source: _folder_of(source.path) is not None,
    lambda source: read_ict(_folder_of(source.path) or source.path),
)
"""As the registry knows it."""
