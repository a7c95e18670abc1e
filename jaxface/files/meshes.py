"""Meshes on disk: OBJ with MTL and PNG, binary glTF (GLB), PLY with vertex colours.

All writers take vertices in model units (10 cm), y up, z towards the viewer. GLB is in METRES, +y up, the face looking
along +z, as glTF asks; OBJ and PLY, which know no units, are in MILLIMETRES, as scans are. A file appears under its
name only when it is complete.
"""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, UInt8

from jaxface.core.units import MM_PER_UNIT
from jaxface.files.atomic import atomic_write
from jaxface.files.gltf import GlbAnimation, write_glb
from jaxface.files.images import encode_image, to_bytes

__all__ = ["GlbAnimation", "encode_image", "to_bytes", "write_glb", "write_obj", "write_ply"]


def write_obj(
    path: str | os.PathLike,
    vertices: Float[np.ndarray, "V 3"],
    triangles: Integer[np.ndarray, "T 3"],
    *,
    uv: Float[np.ndarray, "V 2"],
    texture: UInt8[np.ndarray, "H W 3"],
    texture_name: str = "texture.png",
) -> None:
    """Writes PATH (.obj), the .mtl of the same stem and the texture beside it; millimetres.

    Args:
        path: where the OBJ goes.
        vertices: in model units.
        triangles: vertex indices, counter-clockwise from outside.
        uv: texture coordinates, u right, v up.
        texture: its row 0 is v = 1.
        texture_name: file name of the texture, in the same folder.
    """
    path = Path(path)
    _write(path.with_name(texture_name), encode_image(texture, "PNG"))
    material = "newmtl face\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nd 1\nillum 1\n" + f"map_Kd {texture_name}\n"
    _write(path.with_suffix(".mtl"), material.encode())
    corners = np.repeat(np.asarray(triangles) + 1, 2, axis=1)
    text = "".join(
        [
            f"# jaxface; millimetres, y up\nmtllib {path.with_suffix('.mtl').name}\no face\n",
            _rows("v %.4f %.4f %.4f\n", np.asarray(vertices, np.float64) * MM_PER_UNIT),
            _rows("vt %.6f %.6f\n", np.asarray(uv)),
            "usemtl face\ns 1\n",
            _rows("f %d/%d %d/%d %d/%d\n", corners),
        ]
    )
    _write(path, text.encode())


def write_ply(
    path: str | os.PathLike,
    vertices: Float[np.ndarray, "V 3"],
    triangles: Integer[np.ndarray, "T 3"],
    *,
    colors: Float[np.ndarray, "V 3"],
) -> None:
    """Writes a binary PLY with a colour per vertex; millimetres.

    Args:
        path: where the PLY goes.
        vertices: in model units.
        triangles: vertex indices, counter-clockwise from outside.
        colors: in [0, 1]; clipped.
    """
    points = np.zeros(len(vertices), [("position", "<f4", 3), ("color", "u1", 3)])
    points["position"] = np.asarray(vertices) * MM_PER_UNIT
    points["color"] = to_bytes(colors)
    faces = np.zeros(len(triangles), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"] = 3
    faces["corners"] = triangles
    header = ["ply", "format binary_little_endian 1.0", "comment jaxface; millimetres, y up"]
    header += [f"element vertex {len(points)}", *(f"property float {axis}" for axis in "xyz")]
    header += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    _write(Path(path), ("\n".join(header) + "\n").encode() + points.tobytes() + faces.tobytes())


def _rows(row: str, numbers: np.ndarray) -> str:
    """One line per row of numbers; all at once, which is several times as fast as line by line."""
    return row * len(numbers) % tuple(numbers.ravel().tolist())


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as partial:
        partial.write_bytes(content)
