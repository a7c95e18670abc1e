"""3D scans of faces with seven landmarks: from a folder, the project's shared ones, or made from the face model."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer

import jaxface
from jaxface.core import face_models
from jaxface.core.cameras import rotation_matrix
from jaxface.core.errors import InputError, needs_extra
from jaxface.files.images import read_image
from jaxface.training.scan_errors import SEVEN_LANDMARKS, checked_points, fit_similarity

SUFFIXES = (".obj", ".ply", ".glb")
IPD = 63.0
"""Millimetres between the middles of the eyes that a scan without a unit is scaled to."""


@dataclasses.dataclass(frozen=True)
class Scan:
    """A scanned face in millimetres; as `upright` leaves it, x is right, y up, and it looks along +z.

    Attributes:
        name: of its file.
        vertices: [V, 3].
        triangles: vertex indices.
        landmarks: in the order of `SEVEN_LANDMARKS`.
        colors: of the vertices, in [0, 1]; None with a texture.
        uv: of the corners of the triangles [T, 3, 2], v up; None with colours.
        texture: [H, W, 3] in [0, 1].
        ambient: share of light that comes from everywhere; near 1 for textures that hold their light already.
    """

    name: str
    vertices: Float[np.ndarray, "V 3"]
    triangles: Integer[np.ndarray, "T 3"]
    landmarks: Float[np.ndarray, "7 3"]
    colors: Float[np.ndarray, "V 3"] | None = None
    uv: Float[np.ndarray, "T 3 2"] | None = None
    texture: Float[np.ndarray, "H W 3"] | None = None
    ambient: float = 0.6


def upright(scan: Scan, model: jaxface.FaceModel) -> Scan:
    """The scan turned as its landmarks fit the mean face's best, their middle in the origin."""
    mean = 100 * np.asarray(model.mean_shape, np.float64)[np.asarray(model.landmarks["68"])[list(SEVEN_LANDMARKS)]]
    turn = fit_similarity(scan.landmarks, mean).rotation
    center = scan.landmarks.mean(0)
    return dataclasses.replace(
        scan, vertices=(scan.vertices - center) @ turn.T, landmarks=(scan.landmarks - center) @ turn.T
    )


def read_folder(folder: Path) -> list[Scan]:
    """Every NAME.obj, NAME.ply or NAME.glb with its NAME.json or NAME.txt (see README.md).

    Raises:
        InputError: when there is none, or a file cannot be used.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(f"{folder}: no scans; it should hold NAME.obj, .ply or .glb and NAME.json or NAME.txt")
    if len({path.stem for path in paths}) < len(paths):
        raise InputError(f"{folder}: two scans share a name; fits and landmarks go by it")
    return [_read(path) for path in paths]


def _read(path: Path) -> Scan:
    with needs_extra("photo", "reading scans"):
        import trimesh
    landmarks, unit = _landmarks(path)
    try:
        mesh = trimesh.load(path, force="mesh", process=False)
    except Exception as error:  # its readers meet damaged files with errors of every kind
        raise InputError(f"{path}: cannot be read ({error})") from error
    vertices, triangles = unit * np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces)
    checked_points(vertices, f"{path}: the vertices")
    uv = getattr(mesh.visual, "uv", None)
    material = getattr(mesh.visual, "material", None)
    image = getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
    scan = Scan(path.stem, vertices, triangles, unit * landmarks)
    if uv is not None and image is not None:
        texture = np.asarray(image.convert("RGB"), np.float64) / 255
        return dataclasses.replace(scan, uv=np.asarray(uv)[triangles], texture=texture)
    colors = np.asarray(mesh.visual.to_color().vertex_colors if uv is not None else mesh.visual.vertex_colors)
    return dataclasses.replace(scan, colors=colors[:, :3] / 255)


def _landmarks(path: Path) -> tuple[Float[np.ndarray, "7 3"], float]:
    told = f"{path.with_suffix('.json')}: seven landmarks x y z in the scan's coordinates are expected there or in .txt"
    try:
        if path.with_suffix(".json").exists():
            content = json.loads(path.with_suffix(".json").read_text())
            points, unit = np.array(content["landmarks"], np.float64), float(content.get("mm_per_unit", 1.0))
        else:
            points, unit = np.loadtxt(path.with_suffix(".txt"), ndmin=2), 1.0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{told} ({error})") from error
    if points.shape != (7, 3) or not np.isfinite(points).all() or not unit > 0:
        raise InputError(f"{told}; found {list(points.shape)} and {unit} mm per unit")
    return points, unit


def made_scans(model: jaxface.FaceModel, *, count: int, seed: int) -> list[Scan]:
    """People of the face model with a slight expression, as scans: for a first try without any scan."""
    random, scans = np.random.default_rng(seed), []
    for number in range(count):
        identity = random.normal(size=model.identity_basis.shape[-1]).clip(-2, 2)
        expression = 0.2 * random.uniform(size=model.expression_basis.shape[-1]) ** 4
        albedo = random.normal(size=model.albedo_basis.shape[-1]).clip(-1.5, 1.5)
        shape = face_models.shape(model, jnp.array(identity, jnp.float32), jnp.array(expression, jnp.float32))
        colors = np.clip(np.asarray(face_models.albedo(model, jnp.array(albedo, jnp.float32))), 0, 1)
        vertices = 100 * np.asarray(shape, np.float64)
        marks = vertices[np.asarray(model.landmarks["68"])[list(SEVEN_LANDMARKS)]]
        scans.append(Scan(f"made{number}", vertices, np.asarray(model.triangles), marks, colors=colors))
    return scans


# For each shared scan, where its seven landmarks were picked in a parallel view along -z: the view's middle, its width
# in the scan's units, and pixels of 900 x 900.
_PICKS = {
    "lps": (
        (-5, 50), 150, ((175, 262), (368, 243), (543, 245), (735, 262), (447, 487), (340, 633), (582, 638))
    ),
    "fran": (
        (27.81145148, -128.00015), 170,
        ((185, 275), (395, 265), (535, 265), (745, 275), (470, 525), (280, 558), (640, 570)),
    ),
}  # fmt: skip


def shared_scans(folder: Path) -> list[Scan]:
    """The two scans that are shared beside the project and never go into it: `lps` (its unit unknown) and `fran`."""
    with needs_extra("photo", "reading scans"):
        import trimesh
    missing = [name for name in ("LeePerrySmith.glb", "Map-COL.jpg", "fran_cut.vtk") if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder}: has no {', '.join(missing)}; name the folder that holds the shared scans' files")
    head = trimesh.load(folder / "LeePerrySmith.glb", force="mesh", process=False)
    triangles = np.asarray(head.faces)
    vertices = 49.4 * np.asarray(head.vertices, np.float64)
    texture = read_image(folder / "Map-COL.jpg") / 255
    marks = _picked("lps", vertices, triangles)
    unit = IPD / np.linalg.norm(marks[:2].mean(0) - marks[2:4].mean(0))
    uv = np.asarray(head.visual.uv)[triangles] * [1, -1] + [0, 1]  # the file counts v upward, against glTF's rule
    lps = Scan("lps", unit * vertices, triangles, unit * marks, uv=uv, texture=texture)
    vertices, triangles, uv = _read_vtk(folder / "fran_cut.vtk")
    vertices = 1000 * vertices @ np.asarray(rotation_matrix(np.radians([0.0, -118.0, 0.0])), np.float64).T
    texture = np.clip(1.5 * (read_image(folder / "fran_cut.png") / 255), 0, 1)  # it is dark
    marks = _picked("fran", vertices, triangles)
    return [lps, Scan("fran", vertices, triangles, marks, uv=uv[triangles], texture=texture, ambient=0.9)]


def _picked(name: str, vertices: np.ndarray, triangles: np.ndarray) -> Float[np.ndarray, "7 3"]:
    """The frontmost point of the surface behind each picked pixel's centre."""
    (x, y), width, pixels = _PICKS[name]
    corners = vertices[triangles]
    found = []
    for column, row in pixels:
        place = np.array([x + (column + 0.5 - 450) * width / 900, y - (row + 0.5 - 450) * width / 900])
        a, b, c = np.moveaxis(corners, 1, 0)
        (bx, by), (cx, cy), (px, py) = (b - a)[:, :2].T, (c - a)[:, :2].T, (place - a[:, :2]).T
        area = bx * cy - by * cx
        safe = np.where(np.abs(area) > 1e-12, area, np.inf)
        second, third = (px * cy - py * cx) / safe, (bx * py - by * px) / safe
        hit = np.isfinite(safe) & (second >= 0) & (third >= 0) & (second + third <= 1)
        points = a + second[:, None] * (b - a) + third[:, None] * (c - a)
        found.append(points[hit][points[hit][:, 2].argmax()])
    return np.array(found)


def _read_vtk(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, triangles and texture coordinates of a legacy VTK text file of polygons or strips."""
    words = path.read_text().split()
    start = words.index("POINTS")
    count = int(words[start + 1])
    points = np.array(words[start + 3 : start + 3 + 3 * count], np.float64).reshape(-1, 3)
    kind = "TRIANGLE_STRIPS" if "TRIANGLE_STRIPS" in words else "POLYGONS"
    start = words.index(kind)
    numbers = [int(word) for word in words[start + 3 : start + 3 + int(words[start + 2])]]
    triangles, at = [], 0
    while at < len(numbers):
        corners = numbers[at + 1 : at + 1 + numbers[at]]
        at += numbers[at] + 1
        for first in range(len(corners) - 2):
            if kind == "POLYGONS":
                triangles.append((corners[0], corners[first + 1], corners[first + 2]))
            else:  # every other triangle of a strip runs the other way round
                even = first % 2 == 0
                triangles.append((corners[first + (not even)], corners[first + even], corners[first + 2]))
    start = words.index("TEXTURE_COORDINATES")
    uv = np.array(words[start + 4 : start + 4 + 2 * count], np.float64).reshape(-1, 2)
    return points, np.array(triangles), uv
