"""Meshes on disk: OBJ with MTL and PNG, binary glTF (GLB), PLY with vertex colours.

All writers take vertices in model units (10 cm), y up, z towards the viewer. GLB is in METRES, +y up, the face looking
along +z, as glTF asks; OBJ and PLY, which know no units, are in MILLIMETRES, as scans are. A file appears under its
name only when it is complete.
"""

import io
import json
import os
import struct
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, UInt8
from PIL import Image

from jaxface.command_line import atomic_write

MILLIMETRES_PER_UNIT = 100.0
METRES_PER_UNIT = 0.1


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
    lines = ["# jaxface; millimetres, y up", f"mtllib {path.with_suffix('.mtl').name}", "o face"]
    lines += [f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in np.asarray(vertices, np.float64) * MILLIMETRES_PER_UNIT]
    lines += [f"vt {u:.6f} {v:.6f}" for u, v in np.asarray(uv)]
    lines += ["usemtl face", "s 1"]
    lines += [f"f {a}/{a} {b}/{b} {c}/{c}" for a, b, c in np.asarray(triangles) + 1]
    _write(path, ("\n".join(lines) + "\n").encode())


def write_glb(
    path: str | os.PathLike,
    vertices: Float[np.ndarray, "V 3"],
    triangles: Integer[np.ndarray, "T 3"],
    *,
    normals: Float[np.ndarray, "V 3"],
    uv: Float[np.ndarray, "V 2"],
    texture: UInt8[np.ndarray, "H W 3"],
) -> None:
    """Writes one binary glTF 2.0 file with the texture inside (JPEG); metres.

    The material is marked unlit (KHR_materials_unlit): a photo's texture brings its light along. Viewers that do not
    know the extension show a rough, non-metallic surface.

    Args:
        path: where the GLB goes.
        vertices: in model units.
        triangles: vertex indices, counter-clockwise from outside.
        normals: unit vectors.
        uv: texture coordinates, u right, v UP; turned over here, since glTF counts v downwards.
        texture: its row 0 is v = 1.
    """
    positions = np.asarray(vertices, np.float32) * np.float32(METRES_PER_UNIT)
    uv = np.asarray(uv, np.float32) * np.array([1, -1], np.float32) + np.array([0, 1], np.float32)
    chunks = [
        np.asarray(triangles, np.uint32).tobytes(),
        positions.tobytes(),
        np.asarray(normals, np.float32).tobytes(),
        uv.tobytes(),
        encode_image(texture, "JPEG"),
    ]
    padded = [chunk + b"\0" * (-len(chunk) % 4) for chunk in chunks]
    starts = np.cumsum([0, *map(len, padded)]).tolist()
    views = [{"buffer": 0, "byteOffset": start, "byteLength": len(c)} for start, c in zip(starts, chunks, strict=False)]
    views[0]["target"] = 34963  # element array
    for view in views[1:4]:
        view["target"] = 34962  # vertex array
    count = len(positions)
    floats = {"componentType": 5126, "count": count}
    document = {
        "asset": {"version": "2.0", "generator": "jaxface"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "face"}],
        "meshes": [
            {
                "name": "face",
                "primitives": [
                    {"attributes": {"POSITION": 1, "NORMAL": 2, "TEXCOORD_0": 3}, "indices": 0, "material": 0}
                ],
            }
        ],
        "accessors": [
            {"bufferView": 0, "componentType": 5125, "count": int(np.size(triangles)), "type": "SCALAR"},
            # glTF asks for the bounds of the positions, and of nothing else.
            {"bufferView": 1, **floats, "type": "VEC3"}
            | {"min": positions.min(0).tolist(), "max": positions.max(0).tolist()},
            {"bufferView": 2, **floats, "type": "VEC3"},
            {"bufferView": 3, **floats, "type": "VEC2"},
        ],
        "materials": [
            {
                "name": "face",
                "doubleSided": True,
                "pbrMetallicRoughness": {
                    "baseColorTexture": {"index": 0},
                    "metallicFactor": 0.0,
                    "roughnessFactor": 0.9,
                },
                "extensions": {"KHR_materials_unlit": {}},
            }
        ],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
        "images": [{"bufferView": 4, "mimeType": "image/jpeg"}],
        "bufferViews": views,
        "buffers": [{"byteLength": starts[-1]}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary = b"".join(padded)
    total = 12 + 8 + len(text) + 8 + len(binary)
    header = struct.pack("<4sII", b"glTF", 2, total) + struct.pack("<I4s", len(text), b"JSON")
    _write(Path(path), header + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary)


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
    points["position"] = np.asarray(vertices) * MILLIMETRES_PER_UNIT
    points["color"] = to_bytes(colors)
    faces = np.zeros(len(triangles), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"] = 3
    faces["corners"] = triangles
    header = ["ply", "format binary_little_endian 1.0", "comment jaxface; millimetres, y up"]
    header += [f"element vertex {len(points)}", *(f"property float {axis}" for axis in "xyz")]
    header += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    _write(Path(path), ("\n".join(header) + "\n").encode() + points.tobytes() + faces.tobytes())


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Colours in [0, 1] as uint8, clipped and rounded; uint8 stays as it is."""
    image = np.asarray(image)
    return image if image.dtype == np.uint8 else np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def encode_image(image: np.ndarray, image_format: str) -> bytes:
    """An image [H, W, 3] (uint8, or float in [0, 1]) as the bytes of a "PNG" or "JPEG" file."""
    stream = io.BytesIO()
    options = {"quality": 92, "subsampling": 0} if image_format == "JPEG" else {}
    Image.fromarray(to_bytes(image)).save(stream, image_format, **options)
    return stream.getvalue()


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as partial:
        partial.write_bytes(content)
