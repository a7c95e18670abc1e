"""What one has to look at: drawings of the scans beside the fitted meshes, turned."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from drawing import VIEWS, View
from jaxtyping import Float, UInt8
from PIL import Image
from scans import Scan

import jaxface
from jaxface.core.cameras import rotation_matrix
from jaxface.core.face_models import vertex_normals
from jaxface.files import visualize
from jaxface.render import interpolate, rasterize
from jaxface.training.scan_errors import SEVEN_LANDMARKS

TURN = 40.0
"""Degrees by which the meshes are turned: what a single photo leaves open shows from the side."""

HEAD = np.array([0.0, 5, -45])
"""From the middle of the seven landmarks to that of the head, in millimetres: what a head turns about."""

_CELL, _FIELD = 180, 240.0


def clay(
    vertices: Float[np.ndarray, "V 3"],
    triangles: np.ndarray,
    *,
    yaw: float,
    center: Float[np.ndarray, "3"],
    size: int = _CELL,
) -> UInt8[np.ndarray, "S S 3"]:
    """A mesh in millimetres as grey clay, seen from far away.

    Args:
        vertices: in model space, in millimetres.
        triangles: vertex indices.
        yaw: in degrees, towards the picture's right.
        center: what comes into the picture's middle, in millimetres.
        size: side of the picture in pixels.
    """
    turn = np.asarray(rotation_matrix(np.radians([0.0, yaw, 0.0])))
    placed = ((vertices - center) @ turn.T).astype(np.float32)
    points = size / 2 + placed[:, :2] * np.float32([size / _FIELD, -size / _FIELD])
    fragments = rasterize(points, 1000 - placed[:, 2], triangles, image_size=size)
    normals = np.asarray(interpolate(fragments, triangles, vertex_normals(placed, triangles)))
    normals = normals * np.where(normals[..., 2:] < 0, -1, 1)  # single sheets may have their normals inside
    return visualize.clay(normals, np.asarray(fragments.triangle) >= 0)


def save_picture(
    path: Path,
    scans: Sequence[Scan],
    photos: Sequence[Path],
    fits: Mapping[tuple[str, str], Float[np.ndarray, "V 3"]],
    model: jaxface.FaceModel,
) -> None:
    """Two lines per scan, a column per view: the drawing, and its fit turned; before them the scan itself, turned."""
    triangles, rows = np.asarray(model.triangles), []
    seven = np.asarray(model.landmarks["68"])[list(SEVEN_LANDMARKS)]
    views = [view for view in VIEWS if any((scan.name, view.name) in fits for scan in scans)]
    blank = np.full((_CELL, _CELL, 3), 255, np.uint8)
    for scan in scans:
        drawn = {photo.stem: photo for photo in photos}
        pictures = [_small(drawn.get(f"{scan.name}_{view.name}")) for view in views]
        meshes = [fits.get((scan.name, view.name)) for view in views]
        middles = [None if mesh is None else mesh[seven].mean(0) + HEAD for mesh in meshes]
        clays = [
            blank if mesh is None else clay(mesh, triangles, yaw=TURN, center=middle)
            for mesh, middle in zip(meshes, middles, strict=True)
        ]
        truth = clay(scan.vertices, scan.triangles, yaw=TURN, center=scan.landmarks.mean(0) + HEAD)
        rows += [[blank, *pictures], [truth, *clays]]
    titles = [f"the scan, {TURN:g} degrees", *(_title(view) for view in views)]
    visualize.save_png(path, visualize.grid(rows, titles=titles, cell=_CELL))


def _title(view: View) -> str:
    return f"{view.name}, and its fit at {TURN:g}"


def _small(path: Path | None) -> UInt8[np.ndarray, "S S 3"]:
    if path is None:
        return np.full((_CELL, _CELL, 3), 255, np.uint8)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB").resize((_CELL, _CELL), Image.Resampling.LANCZOS))
