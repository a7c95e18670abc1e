"""How far a mesh lies from a 3D scan of the same face: closest points, alignment, NoW's protocol.

Plain numpy and scipy in float64. Points are [N, 3] in any unit, and distances come back in that of the scan; NoW's
scans are in millimetres. A scan and a mesh share no topology: each point of the scan is compared with the surface.

    surface = Surface(vertices, triangles)
    distances = now_distances(scan, scan_landmarks, surface, mesh_landmarks)
    print(np.median(distances), distances.mean(), distances.std())
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy.spatial import cKDTree

from jaxface.core.errors import InputError

SEVEN_LANDMARKS = (36, 39, 42, 45, 33, 48, 54)
"""NoW's seven landmarks among ibug's 68: outer and inner corner of the subject's right eye, inner and outer corner of
the left, bottom of the nose, right and left corner of the mouth."""

_CANDIDATES, _CHUNK = 8, 4096


class ClosestPoints(NamedTuple):
    """What `Surface.closest` finds.

    Attributes:
        points: on the surface.
        distances: to them.
        triangles: on which they lie.
    """

    points: Float[np.ndarray, "N 3"]
    distances: Float[np.ndarray, "N"]
    triangles: Integer[np.ndarray, "N"]


class Surface:
    """A triangle mesh that can be asked for its closest points; triangles without area count as lines or points.

    Args:
        vertices: in any unit.
        triangles: vertex indices.

    Raises:
        InputError: when there is no triangle, an index leads nowhere, or a vertex is not finite.
    """

    def __init__(self, vertices: Float[np.ndarray, "V 3"], triangles: Integer[np.ndarray, "T 3"]):
        self.vertices = checked_points(vertices, "the mesh's vertices")
        self.triangles = np.asarray(triangles)
        if self.triangles.ndim != 2 or self.triangles.shape[1] != 3 or not len(self.triangles):
            raise InputError(f"the mesh's triangles should be [T, 3] with T > 0, but are {list(self.triangles.shape)}")
        if self.triangles.min() < 0 or self.triangles.max() >= len(self.vertices):
            raise InputError(f"the mesh has {len(self.vertices)} vertices, but a triangle names another one")
        self._corners = self.vertices[self.triangles]
        self._centers = self._corners.mean(1)
        self._radii = np.linalg.norm(self._corners - self._centers[:, None], axis=-1).max(1)
        self._tree = cKDTree(self._centers)
        # Those of about the same size together: one large triangle would otherwise widen the search for all.
        octaves = np.floor(np.log2(np.maximum(self._radii, 1e-300)))
        self._classes = [np.flatnonzero(octaves == octave) for octave in np.unique(octaves)]
        self._trees = [cKDTree(self._centers[members]) for members in self._classes]

    def closest(self, points: Float[np.ndarray, "N 3"]) -> ClosestPoints:
        """The exact closest point of the surface to each of some points.

        Raises:
            InputError: when there are no points, or one is not finite.
        """
        points = checked_points(points, "the points")
        pieces = [self._closest(points[start : start + _CHUNK]) for start in range(0, len(points), _CHUNK)]
        return ClosestPoints(*(np.concatenate(piece) for piece in zip(*pieces, strict=True)))

    def normals(self) -> Float[np.ndarray, "T 3"]:
        """Unit normals of the triangles, counter-clockwise from outside; zero for those without area."""
        a, b, c = np.moveaxis(self._corners, 1, 0)
        normals = np.cross(b - a, c - a)
        return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)

    def _closest(self, points: np.ndarray) -> ClosestPoints:
        count = min(_CANDIDATES, len(self.triangles))
        reach, found = self._tree.query(points, k=np.arange(1, count + 1))
        best = self._nearest_of(points, np.repeat(np.arange(len(points)), count), found.ravel())
        # A triangle that comes nearer has its centre within that distance plus its own radius.
        rows, more = [np.arange(len(points))], [best.triangles]
        for members, tree in zip(self._classes, self._trees, strict=True):
            limit = best.distances + self._radii[members].max()
            unsure = np.flatnonzero(limit > reach[:, -1])
            pairs = tree.query_ball_point(points[unsure], limit[unsure], return_sorted=False)
            rows.append(np.repeat(unsure, [len(one) for one in pairs]))
            more += [members[np.asarray(one, int)] for one in pairs]
        row, triangle = np.concatenate(rows), np.concatenate(more)
        offset = np.linalg.norm(points[row] - self._centers[triangle], axis=1)
        near = offset <= best.distances[row] + self._radii[triangle]
        near[: len(points)] = True  # the best so far, so that every point has one
        return self._nearest_of(points, row[near], triangle[near])

    def _nearest_of(self, points: np.ndarray, rows: np.ndarray, triangles: np.ndarray) -> ClosestPoints:
        """Of pairs (row of a point, triangle), the nearest triangle of each row; every row occurs."""
        candidates = _closest_on_triangles(points[rows], self._corners[triangles])
        distances = np.linalg.norm(candidates - points[rows], axis=1)
        order = np.lexsort((triangles, distances, rows))
        first = order[np.unique(rows[order], return_index=True)[1]]
        return ClosestPoints(candidates[first], distances[first], triangles[first])


def _closest_on_triangles(
    points: Float[np.ndarray, "M 3"], corners: Float[np.ndarray, "M 3 3"]
) -> Float[np.ndarray, "M 3"]:
    """The closest point of triangle m to point m: the foot of the perpendicular if it lies inside, else on an edge."""
    a, b, c = np.moveaxis(corners, 1, 0)
    normal = np.cross(b - a, c - a)
    squared = _dot(normal, normal)
    safe = np.where(squared > 0, squared, 1.0)
    second = _dot(np.cross(points - a, c - a), normal) / safe
    third = _dot(np.cross(b - a, points - a), normal) / safe
    inside = (squared > 0) & (second >= 0) & (third >= 0) & (second + third <= 1)
    best = a + second[:, None] * (b - a) + third[:, None] * (c - a)
    nearest = np.where(inside, _dot(points - best, points - best), np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        edge = end - start
        length = _dot(edge, edge)
        along = np.clip(_dot(points - start, edge) / np.where(length > 0, length, 1.0), 0, 1)
        candidate = start + along[:, None] * edge
        distance = _dot(points - candidate, points - candidate)
        nearer = ~inside & (distance < nearest)
        best, nearest = np.where(nearer[:, None], candidate, best), np.where(nearer, distance, nearest)
    return best


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("...i,...i->...", a, b)


def checked_points(points: np.ndarray, name: str, *, least: int = 1) -> Float[np.ndarray, "N 3"]:
    """Points as float64 [N, 3].

    Args:
        points: anything that becomes such an array.
        name: what they are, for the message.
        least: how many there must be.

    Raises:
        InputError: when they have another shape, are fewer, or one is not finite.
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or len(points) < least:
        raise InputError(f"{name} should be [N, 3] with N >= {least}, but are {list(points.shape)}")
    if not np.isfinite(points).all():
        raise InputError(f"{name} hold {int((~np.isfinite(points).all(1)).sum())} points that are not finite")
    return points


@dataclasses.dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation @ x + translation.

    Attributes:
        scale: positive.
        rotation: [3, 3], no reflection.
        translation: [3].
    """

    scale: float
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]

    def apply(self, points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
        """The points moved."""
        return self.scale * np.asarray(points) @ self.rotation.T + self.translation

    def undo(self, points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
        """The points moved back."""
        return (np.asarray(points) - self.translation) @ self.rotation / self.scale


def fit_similarity(
    source: Float[np.ndarray, "N 3"], target: Float[np.ndarray, "N 3"], *, scale: bool = True
) -> Similarity:
    """What brings corresponding points nearest to each other in least squares (Umeyama 1991, eq. 40 to 42).

    Args:
        source: at least three points that do not coincide.
        target: one for each.
        scale: False keeps the size: a rigid motion.

    Raises:
        InputError: when the points do not determine it.
    """
    source = checked_points(source, "the points to align", least=3)
    target = checked_points(target, "the points to align them to", least=3)
    if len(source) != len(target):
        raise InputError(f"{len(source)} points cannot be aligned to {len(target)}: one for each is needed")
    source_mean, target_mean = source.mean(0), target.mean(0)
    spread = ((source - source_mean) ** 2).sum()
    u, singular, vt = np.linalg.svd((target - target_mean).T @ (source - source_mean))
    if singular[1] <= 1e-12 * max(spread, np.finfo(float).tiny):
        raise InputError("the points to align lie on one line or in one place: no rotation can be found from them")
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ np.diag(signs) @ vt
    factor = float((singular * signs).sum() / spread) if scale else 1.0
    return Similarity(factor, rotation, target_mean - factor * rotation @ source_mean)


class Anchors(NamedTuple):
    """Pairs of points that `refine` also brings together.

    Attributes:
        mesh: on the mesh, before the alignment.
        scan: where they belong.
        weight: what one pair counts, in points of the scan.
    """

    mesh: Float[np.ndarray, "K 3"]
    scan: Float[np.ndarray, "K 3"]
    weight: float


def refine(
    surface: Surface,
    points: Float[np.ndarray, "N 3"],
    start: Similarity,
    *,
    scale: bool = True,
    anchors: Anchors | None = None,
    iterations: int = 100,
    tolerance: float = 1e-6,
) -> Similarity:
    """Iterates closest points: the similarity of the mesh that makes the scan's squared distances to it smallest.

    Each round takes the closest points anew and makes a damped Gauss-Newton step on the distances along their
    directions (Chen and Medioni 1991): the minimum of moving points onto points, in fewer rounds.

    Args:
        surface: the mesh.
        points: of the scan.
        start: an alignment of the mesh to the scan, such as one from landmarks.
        scale: False keeps the start's scale.
        anchors: pairs that count as well.
        iterations: rounds at most.
        tolerance: rounds end when one lowers the sum of squares by a smaller share.

    Returns:
        The alignment of the mesh to the scan.

    Raises:
        InputError: when there are no points, or one is not finite.
    """
    points = checked_points(points, "the scan's points")
    normals, damping, current = surface.normals(), 1e-3, start
    cost, rows, rest = _residuals(surface, normals, points, current, anchors)
    size = np.linalg.norm(points - points.mean(0), axis=1).max()
    negligible = len(points) * (1e-13 * size) ** 2
    # What a step of one moves the points by, squared and summed. Rows of a round face say nothing of turns, so that
    # damping by their own squares, as Marquardt does, would leave turns free.
    reach = len(points) * np.array([size, size, size, size, 1, 1, 1]) ** 2
    for _ in range(iterations):
        if cost <= negligible:
            break
        used = rows if scale else rows[:, 1:]
        normal_matrix = used.T @ used
        step = np.linalg.solve(normal_matrix + damping * np.diag(reach[-used.shape[1] :]), used.T @ rest)
        candidate = _stepped(current, step if scale else np.concatenate([[0.0], step]), points.mean(0))
        new_cost, new_rows, new_rest = _residuals(surface, normals, points, candidate, anchors)
        if new_cost >= cost:
            damping *= 10
            if damping > 1e6:
                break
            continue
        gained = cost - new_cost
        current, cost, rows, rest, damping = candidate, new_cost, new_rows, new_rest, damping / 10
        if gained < tolerance * (cost + gained):
            break
    return current


def _residuals(
    surface: Surface, normals: np.ndarray, points: np.ndarray, current: Similarity, anchors: Anchors | None
) -> tuple[float, Float[np.ndarray, "M 7"], Float[np.ndarray, "M"]]:
    """The sum of squares, and the rows of the linear problem for (log scale, rotation, translation) of the mesh."""
    found = surface.closest(current.undo(points))
    on_mesh = current.apply(found.points)
    offset = points - on_mesh
    distance = np.linalg.norm(offset, axis=1)
    facing = normals[found.triangles] @ current.rotation.T
    touching = distance <= 1e-9 * np.abs(points - points.mean(0)).max()
    direction = np.where(touching[:, None], facing, offset / np.maximum(distance, 1e-300)[:, None])
    arm = on_mesh - points.mean(0)
    rows = np.column_stack([_dot(direction, arm), np.cross(arm, direction), direction])
    rest, cost = _dot(direction, offset), float((distance**2).sum())
    if anchors is not None:
        moved = current.apply(anchors.mesh)
        arm, gap = moved - points.mean(0), np.asarray(anchors.scan) - moved
        weight = np.sqrt(anchors.weight)
        for axis in np.eye(3):
            along = np.broadcast_to(axis, arm.shape)
            rows = np.vstack([rows, weight * np.column_stack([arm @ axis, np.cross(arm, along), along])])
            rest = np.concatenate([rest, weight * gap @ axis])
        cost += anchors.weight * float((gap**2).sum())
    return cost, rows, rest


def _stepped(current: Similarity, step: Float[np.ndarray, "7"], center: np.ndarray) -> Similarity:
    """A further scaling and turn about `center`, and a shift, after the current alignment."""
    angle = np.linalg.norm(step[1:4])
    x, y, z = step[1:4] / max(angle, 1e-300)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross  # Rodrigues' formula
    factor = float(np.exp(step[0]))
    translation = factor * turn @ (current.translation - center) + center + step[4:]
    return Similarity(factor * current.scale, turn @ current.rotation, translation)


def face_region(points: Float[np.ndarray, "N 3"], landmarks: Float[np.ndarray, "7 3"]) -> Bool[np.ndarray, "N"]:
    """Which points of a scan NoW measures: those in a ball around the face.

    Its centre lies three tenths of the way from the nose's bottom to the middle of the inner eye corners, its radius is
    0.7 (distance of the outer eye corners + length of the nose).

    Args:
        points: of the scan.
        landmarks: in the order of `SEVEN_LANDMARKS`.

    Raises:
        InputError: when there are not seven landmarks, or something is not finite.
    """
    points = checked_points(points, "the scan's points")
    outer, inner, other_inner, other_outer, nose = _seven(landmarks, "the scan")[:5]
    bridge = (inner + other_inner) / 2
    center = nose + 0.3 * (bridge - nose)
    radius = 1.4 * (np.linalg.norm(outer - other_outer) + np.linalg.norm(bridge - nose)) / 2
    return np.linalg.norm(points - center, axis=1) <= radius


def _seven(landmarks: np.ndarray, owner: str) -> Float[np.ndarray, "7 3"]:
    landmarks = checked_points(landmarks, f"the landmarks of {owner}", least=7)
    if len(landmarks) != 7:
        raise InputError(f"{owner} has {len(landmarks)} landmarks, but NoW's protocol takes seven")
    return landmarks


def now_distances(
    scan: Float[np.ndarray, "N 3"],
    scan_landmarks: Float[np.ndarray, "7 3"],
    surface: Surface,
    landmarks: Float[np.ndarray, "7 3"],
    *,
    region: Bool[np.ndarray, "N"] | None = None,
) -> Float[np.ndarray, "M"]:
    """NoW's protocol (Sanyal et al., CVPR 2019): distance of each point of the scan's face to the aligned mesh.

    A similarity from seven landmarks, then refined to the smallest distances from scan to mesh; the benchmark's figures
    are the median, mean and standard deviation of these distances, in millimetres, of all photos together.

    Args:
        scan: its vertices.
        scan_landmarks: in the order of `SEVEN_LANDMARKS`.
        surface: the mesh, in any unit and place.
        landmarks: the same seven on the mesh.
        region: which points of the scan are measured; `face_region` by default.

    Raises:
        InputError: when something is empty or not finite, or the landmarks do not determine an alignment.
    """
    scan = checked_points(scan, "the scan's points")
    scan_landmarks, landmarks = _seven(scan_landmarks, "the scan"), _seven(landmarks, "the mesh")
    face = scan[face_region(scan, scan_landmarks) if region is None else region]
    if not len(face):
        raise InputError("no point of the scan lies near its landmarks; are both in the same unit?")
    aligned = refine(surface, face, fit_similarity(landmarks, scan_landmarks))
    return aligned.scale * surface.closest(aligned.undo(face)).distances
