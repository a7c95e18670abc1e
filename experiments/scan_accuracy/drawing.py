"""Scans as a camera sees them, and which of their points can be seen at all."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scans import Scan

from jaxface.core.cameras import rotation_matrix
from jaxface.core.face_models import vertex_normals
from jaxface.files.atomic import atomic_write
from jaxface.render import rasterize

FIELD = 280.0
"""Millimetres across the picture at the face, from any distance: a selfie has a wider lens, not a larger face."""

SIZE = 640
BACKGROUND = np.array([0.45, 0.5, 0.55])
GAMMA = 2.2
LIGHT = np.array([0.35, 0.5, 0.8]) / np.linalg.norm([0.35, 0.5, 0.8])


@dataclasses.dataclass(frozen=True)
class View:
    """From where a scan is drawn.

    Attributes:
        yaw: in degrees, towards the picture's right.
        pitch: in degrees, down.
        distance: of the camera in millimetres.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    distance: float = 1000.0

    @property
    def name(self) -> str:
        """For files: yaw20, pitch-15, 0.3m."""
        if self.distance != 1000:
            return f"{self.distance / 1000:g}m"
        return f"pitch{self.pitch:g}" if self.pitch else f"yaw{self.yaw:g}"


VIEWS = (View(), View(20), View(-20), View(40), View(-40), View(pitch=15), View(pitch=-15))
PROFILES = tuple(View(sign * yaw) for yaw in (60, 75, 90) for sign in (1, -1))
DISTANCES = (View(distance=300), View(distance=600), View(distance=2000))
"""Beside the first of VIEWS, which is a metre away."""


def draw(scan: Scan, view: View, *, size: int = SIZE) -> UInt8[np.ndarray, "S S 3"]:
    """A picture of an upright scan, four samples per pixel, blended in linear light."""
    turn = _turn(view.yaw, view.pitch)
    middle = scan.landmarks[:4].mean(0) + [0, -25, -20]  # of the head, seen from the eyes
    placed = (scan.vertices - middle) @ turn.T
    width = 2 * size
    focal = width * view.distance / FIELD
    depth = view.distance - placed[:, 2]
    points = width / 2 + focal * placed[:, :2] * [1, -1] / depth[:, None]
    fragments = rasterize(points.astype(np.float32), depth.astype(np.float32), scan.triangles, image_size=width)
    triangle, weights = np.asarray(fragments.triangle), np.asarray(fragments.barycentric, np.float64)
    rows, columns = np.nonzero(triangle >= 0)
    seen, weights = triangle[rows, columns], weights[rows, columns][..., None]
    normals = np.asarray(vertex_normals(scan.vertices.astype(np.float32), scan.triangles), np.float64) @ turn.T
    normal = (normals[scan.triangles[seen]] * weights).sum(1)
    normal *= np.where(normal[:, 2:] < 0, -1, 1)  # single sheets may have their normals inside
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    if scan.texture is not None and scan.uv is not None:
        color = _sampled(scan.texture, (scan.uv[seen] * weights).sum(1))
    else:
        color = (np.asarray(scan.colors)[scan.triangles[seen]] * weights).sum(1)
    light = scan.ambient + 1.3 * (1 - scan.ambient) * np.clip(normal @ LIGHT, 0, None)
    linear = np.broadcast_to(BACKGROUND**GAMMA, (width, width, 3)).copy()
    linear[rows, columns] = np.clip(color, 0, 1) ** GAMMA * light[:, None]
    linear = linear.reshape(size, 2, size, 2, 3).mean((1, 3))
    return np.round(255 * np.clip(linear, 0, 1) ** (1 / GAMMA)).astype(np.uint8)


def _turn(yaw: float, pitch: float) -> Float[np.ndarray, "3 3"]:
    return np.asarray(rotation_matrix(np.radians([pitch, yaw, 0.0])), np.float64)


def _sampled(texture: Float[np.ndarray, "H W 3"], uv: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 3"]:
    height, width = texture.shape[:2]
    x = np.clip(uv[:, 0] * width - 0.5, 0, width - 1.001)
    y = np.clip((1 - uv[:, 1]) * height - 0.5, 0, height - 1.001)
    column, row = x.astype(int), y.astype(int)
    p, q = (x - column)[:, None], (y - row)[:, None]
    upper = texture[row, column] * (1 - p) + texture[row, column + 1] * p
    lower = texture[row + 1, column] * (1 - p) + texture[row + 1, column + 1] * p
    return upper * (1 - q) + lower * q


def write_views(
    folder: Path, scans: Sequence[Scan], views: Sequence[View], *, exif: bool, size: int = SIZE
) -> list[Path]:
    """SCAN_VIEW.png for each; with `exif`, the focal length that a camera would write into it (35 mm equivalent)."""
    paths = []
    for scan in scans:
        for view in views:
            path = folder / f"{scan.name}_{view.name}.png"
            picture, tags = Image.fromarray(draw(scan, view, size=size)), Image.Exif()
            if exif:
                tags[0x8769] = {0xA405: round(36 * view.distance / FIELD)}  # FocalLengthIn35mmFilm
            with atomic_write(path) as partial:
                picture.save(partial, "PNG", exif=tags)
            paths.append(path)
    return paths


def outside(scan: Scan) -> Bool[np.ndarray, "V"]:
    """Which points of an upright scan can be seen from the front, from a side, from above or below.

    Scans of heads have insides (nostrils, mouth, a second shell) that no face model has.
    """
    middle, size = scan.landmarks.mean(0), 800
    found = np.zeros(len(scan.vertices), bool)
    for yaw, pitch in ((0, 0), (45, 0), (-45, 0), (0, 25), (0, -25)):
        placed = (scan.vertices - middle) @ _turn(yaw, pitch).T
        depth = 3000 - placed[:, 2]
        points = size / 2 + 9000 * placed[:, :2] * [1, -1] / depth[:, None]
        fragments = rasterize(points.astype(np.float32), depth.astype(np.float32), scan.triangles, image_size=size)
        triangle = np.unique(np.asarray(fragments.triangle))
        found[scan.triangles[triangle[triangle >= 0]]] = True
    return found
