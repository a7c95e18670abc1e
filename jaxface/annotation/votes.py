"""From parsed pictures of a face model to the parts of its mesh: voting, symmetry, cleaning, hand edits.

The annotation of 3DDFA-V3 (eq. 3): every pixel of a parsed picture votes for the vertex that it shows, and each vertex
goes to the part with most votes. NumPy and SciPy only; views.py draws the pictures.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Bool, Float, Int, Integer, UInt8
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from jaxface.core.face_models import FaceModel
from jaxface.core.parts import BACKGROUND, FOREHEAD, LABELS, MIRRORED_LABELS, PARTS, mask_points

LABEL_COUNT = len(MIRRORED_LABELS)
"""Labels of the label map: background, the eight parts, the forehead."""

_SEEN_SHARE = 0.01  # of the pictures must show a vertex

_HOLE_SHARE = 0.2  # holes up to this share of the part around them are filled; beyond lie necks and mouths

_MIRROR_DISTANCE = 0.05  # model units (5 mm) between a vertex and the other side's nearest


def whole_skin(labels: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """Undoes `parts.cut_forehead`: the part of a mesh holds all its skin, PRDL cuts it anew in every picture.

    What stays FOREHEAD lies below the brows: the inside of the mouth.
    """
    brows = [mask_points(labels == LABELS[part]) for part in ("left_brow", "right_brow")]
    if not all(len(brow) for brow in brows):
        return labels
    left, right = (brow.mean(0) for brow in brows)
    rows, columns = np.nonzero(labels == FOREHEAD)
    along, offset = left - right, np.stack([columns + 0.5, rows + 0.5], axis=-1) - right[None]
    above = along[0] * offset[:, 1] - along[1] * offset[:, 0] <= 0
    result = labels.copy()
    result[rows[above], columns[above]] = LABELS["skin"]
    return result


def count_votes(
    triangle: Integer[np.ndarray, "H W"],
    barycentric: Float[np.ndarray, "H W 3"],
    labels: UInt8[np.ndarray, "H W"],
    triangles: Integer[np.ndarray, "T 3"],
    *,
    vertex_count: int,
) -> Float[np.ndarray, "V 10"]:
    """Votes of one picture: every pixel splits one vote for its label between the corners of the triangle it shows.

    So near surfaces and those seen face on count more than the edge of what is seen, where a label is least sure.
    (Asking each visible vertex for the label of its own pixel instead recovered the lips of the built-in model with an
    IoU of 0.68 to 0.79, this with 0.95, from 24 pictures with true labels.)

    Args:
        triangle: which triangle each pixel shows, -1 for none, as in `render.Fragments`.
        barycentric: where on it.
        labels: of `jaxface.core.parts`.
        triangles: vertex indices.
        vertex_count: number V of the mesh.
    """
    shown = triangle >= 0
    index = triangles[triangle[shown]].astype(np.int64) * LABEL_COUNT + labels[shown][:, None]
    weights = barycentric[shown].astype(np.float64)
    votes = np.bincount(index.ravel(), weights.ravel(), minlength=vertex_count * LABEL_COUNT)
    return votes.reshape(vertex_count, LABEL_COUNT)


@dataclasses.dataclass
class Ballot:
    """The votes of all pictures so far.

    Attributes:
        triangles: [T, 3] vertex indices.
        votes: [V, 10] per vertex and label, see `count_votes`.
        shown: [V] number of pictures that show each vertex.
        pictures: their number.
    """

    triangles: Integer[np.ndarray, "T 3"]
    votes: Float[np.ndarray, "V 10"]
    shown: Int[np.ndarray, "V"]
    pictures: int = 0

    @classmethod
    def empty(cls, model: FaceModel) -> "Ballot":
        """No votes yet."""
        count = len(model.mean_shape)
        return cls(np.asarray(model.triangles), np.zeros((count, LABEL_COUNT)), np.zeros(count, np.int64))

    def add(
        self,
        triangle: Integer[np.ndarray, "H W"],
        barycentric: Float[np.ndarray, "H W 3"],
        labels: UInt8[np.ndarray, "H W"],
    ) -> None:
        """Counts the votes of one picture, see `count_votes`; its forehead becomes skin, see `whole_skin`."""
        count = len(self.shown)
        votes = count_votes(triangle, barycentric, whole_skin(labels), self.triangles, vertex_count=count)
        self.votes += votes
        self.shown += votes.any(-1)
        self.pictures += 1


def mirror_partners(model: FaceModel) -> Int[np.ndarray, "V"]:
    """The index of each vertex's mirror image: the model's own table, or else the nearest vertex of the reflected mean.

    Returns:
        [V]; -1 where the other side has no vertex within 5 mm.
    """
    if model.mirror is not None:
        return np.asarray(model.mirror, np.int64)
    points = np.asarray(model.mean_shape, np.float64)
    reflected = points * [-1, 1, 1] + [points[:, 0].min() + points[:, 0].max(), 0, 0]
    distance, partner = cKDTree(points).query(reflected)
    return np.where(distance <= _MIRROR_DISTANCE, partner, -1)


def elect(ballot: Ballot, mirror: Integer[np.ndarray, "V"]) -> tuple[UInt8[np.ndarray, "V"], Float[np.ndarray, "V"]]:
    """The label with most votes at each vertex, both sides of the face counted together.

    Args:
        ballot: the votes.
        mirror: from `mirror_partners`.

    Returns:
        labels [V], BACKGROUND where less than one picture in a hundred shows the vertex; and the winner's share of the
        votes [V] in [0, 1].
    """
    paired = (mirror >= 0)[:, None]
    votes = ballot.votes + np.where(paired, ballot.votes[mirror][:, MIRRORED_LABELS], ballot.votes)
    shown = ballot.shown + np.where(paired[:, 0], ballot.shown[mirror], ballot.shown)
    winner = votes.argmax(-1)
    share = votes[np.arange(len(votes)), winner] / np.maximum(votes.sum(-1), 1)
    enough = (shown > 0) & (shown >= 2 * _SEEN_SHARE * ballot.pictures)
    return np.where(enough, winner, BACKGROUND).astype(np.uint8), np.where(enough, share, 0.0)


def mesh_graph(model: FaceModel) -> sp.csr_array:
    """Adjacency [V, V] of the vertices along edges; vertices at the same place (seams of a texture) are neighbours."""
    triangles, points = np.asarray(model.triangles, np.int64), np.asarray(model.mean_shape)
    edges = triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    same = np.unique(points, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.argsort(same, kind="stable")
    twins = np.stack([order[:-1], order[1:]], axis=-1)[same[order[:-1]] == same[order[1:]]]
    edges = np.concatenate([edges, twins])
    edges = np.concatenate([edges, edges[:, ::-1]])
    graph = sp.coo_array((np.ones(len(edges), np.int8), tuple(edges.T)), shape=(len(points), len(points))).tocsr()
    graph.data[:] = 1
    return graph


def mesh_rim(model: FaceModel) -> Bool[np.ndarray, "V"]:
    """Which vertices lie where the mesh ends: on edges of one triangle alone. Seams of a texture do not count."""
    points = np.asarray(model.mean_shape)
    same = np.unique(points, axis=0, return_inverse=True)[1].reshape(-1)
    corners = same[np.asarray(model.triangles)]
    edges, count = np.unique(np.sort(corners[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)), axis=0, return_counts=True)
    return np.isin(same, edges[count == 1])


def clean_islands(labels: UInt8[np.ndarray, "V"], graph: sp.csr_array) -> UInt8[np.ndarray, "V"]:
    """Keeps the largest connected piece of each part; the other pieces become what most of their neighbours are.

    Args:
        labels: of the vertices.
        graph: from `mesh_graph`.
    """
    labels = labels.copy()
    for _ in range(LABEL_COUNT):  # an island may be given to another island, which is then next
        before = labels.copy()
        for label in LABELS.values():
            pieces = _pieces(labels == label, graph)
            for piece in sorted(pieces, key=len, reverse=True)[1:]:
                around = labels[_border(piece, graph)]
                labels[piece] = np.bincount(around).argmax() if len(around) else BACKGROUND
        if np.array_equal(labels, before):
            break
    return labels


def fill_holes(
    labels: UInt8[np.ndarray, "V"], graph: sp.csr_array, rim: Bool[np.ndarray, "V"]
) -> UInt8[np.ndarray, "V"]:
    """Gives vertices of no part to the part around them: nostrils that no picture shows, gaps in the skin.

    A hole borders on one part alone and has at most a fifth of its vertices. The inside of the mouth lies between two
    lips, the neck reaches to the mesh's rim: they stay out.

    Args:
        labels: of the vertices.
        graph: from `mesh_graph`.
        rim: from `mesh_rim`.
    """
    result = labels.copy()
    sizes = np.bincount(labels, minlength=LABEL_COUNT)
    for piece in _pieces((labels == BACKGROUND) | (labels == FOREHEAD), graph):
        around = np.unique(labels[_border(piece, graph)])
        if len(around) == 1 and len(piece) <= _HOLE_SHARE * sizes[around[0]] and not rim[piece].any():
            result[piece] = around[0]
    return result


def _pieces(mask: Bool[np.ndarray, "V"], graph: sp.csr_array) -> list[np.ndarray]:
    members = np.flatnonzero(mask)
    count, piece = connected_components(graph[members][:, members], directed=False)
    order = np.argsort(piece, kind="stable")
    return np.split(members[order], np.cumsum(np.bincount(piece, minlength=count))[:-1]) if len(members) else []


def _border(piece: np.ndarray, graph: sp.csr_array) -> np.ndarray:
    """The other ends of the edges that leave a piece; one that several edges lead to comes several times."""
    neighbors = graph[piece].indices
    return neighbors[~np.isin(neighbors, piece)]


def parts_of_labels(labels: UInt8[np.ndarray, "V"]) -> dict[str, Int[np.ndarray, "N"]]:
    """Vertex indices per part, as in `FaceModel.parts`; parts that no vertex bears are left out."""
    found = {part: np.flatnonzero(labels == LABELS[part]).astype(np.int32) for part in PARTS}
    return {part: vertices for part, vertices in found.items() if len(vertices)}


def merge_edits(
    parts: Mapping[str, Integer[np.ndarray, "N"]], edits: Mapping[str, Integer[np.ndarray, "N"]]
) -> dict[str, Int[np.ndarray, "N"]]:
    """Applies edits made by hand: parts replaced first, then vertices added, then vertices removed.

    A vertex given to a part by hand leaves the part that it was in; what is not mentioned stays.

    Args:
        parts: vertex indices per part.
        edits: vertex indices under "NAME" or "part/NAME" (the whole part), "add/NAME" and "remove/NAME".
    """
    result = {part: {int(vertex) for vertex in vertices} for part, vertices in parts.items()}
    replaced = {key.removeprefix("part/"): vertices for key, vertices in edits.items() if edit_kind(key) == "part"}
    for part in replaced:
        result[part] = set()
    added = [(key.removeprefix("add/"), vertices) for key, vertices in edits.items() if edit_kind(key) == "add"]
    for part, vertices in [*replaced.items(), *added]:
        chosen = {int(vertex) for vertex in vertices}
        for other in result:
            result[other] -= chosen
        result.setdefault(part, set()).update(chosen)
    for key, vertices in edits.items():
        if edit_kind(key) == "remove":
            result.setdefault(key.removeprefix("remove/"), set()).difference_update(int(v) for v in vertices)
    return {part: np.array(sorted(result[part]), np.int32) for part in PARTS if result.get(part)}


def edit_kind(key: str) -> str | None:
    """What the name of an array of edits asks for: "part" (to be replaced), "add" or "remove"; None for other names."""
    kind, _, part = key.rpartition("/")
    return (kind or "part") if kind in ("", "part", "add", "remove") and part in PARTS else None


def part_overlap(
    found: Mapping[str, Integer[Array | np.ndarray, "N"]],
    known: Mapping[str, Integer[Array | np.ndarray, "N"]],
    model: FaceModel,
) -> dict[str, dict[str, float]]:
    """Intersection over union of two annotations, part by part: of the vertices, and of the area that they stand for.

    Args:
        found: vertex indices per part.
        known: the parts to compare with.
        model: its mean shape gives the areas; a vertex stands for a third of the triangles around it.

    Returns:
        part -> {"vertices": ..., "area": ...}, in [0, 1], for every part of `known` that holds a vertex.
    """
    triangles = np.asarray(model.triangles)
    corners = np.asarray(model.mean_shape, np.float64)[triangles]
    doubled = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    area = np.bincount(triangles.ravel(), np.repeat(doubled / 6, 3), minlength=len(model.mean_shape))
    overlaps = {}
    for part in (part for part in PARTS if len(known.get(part, ()))):
        ours, theirs = np.asarray(found.get(part, np.zeros(0, np.int32))), np.asarray(known[part])
        shared, joined = np.intersect1d(ours, theirs), np.union1d(ours, theirs)
        by_area = area[shared].sum() / max(area[joined].sum(), np.finfo(float).tiny)
        overlaps[part] = {"vertices": len(shared) / len(joined), "area": float(by_area)}
    return overlaps
