"""The HTML page of one photo: offline, one file, with a mesh that turns under the mouse or a finger."""

import base64
import dataclasses
import json
from collections.abc import Mapping
from importlib import resources

import numpy as np
from jaxtyping import Float, Integer, UInt8
from PIL import Image

from jaxface.formats.meshes import encode_image, to_bytes

PHOTO_SIZE = 1280
"""Longest side, in pixels, of the whole photo inside the page."""


@dataclasses.dataclass(frozen=True)
class ViewerFace:
    """What the page shows of one face.

    Attributes:
        label: names the face on its button.
        vertices: [V, 3] before the pose, in model units.
        texture: [H, W, 3] uint8, row 0 is v = 1; sides that are powers of two look best.
        pictures: name -> [S, S, 3], all of one size. The first is the photo's crop; the others are compared with it.
        part_iou: part -> IoU in [0, 1]; NaN where the part is not to be seen.
        measures: name -> value, as printed.
        files: name -> path relative to the page, offered as links.
    """

    label: str
    vertices: Float[np.ndarray, "V 3"]
    texture: UInt8[np.ndarray, "H W 3"]
    pictures: Mapping[str, np.ndarray]
    part_iou: Mapping[str, float]
    measures: Mapping[str, str]
    files: Mapping[str, str]


def page_html(
    faces: list[ViewerFace],
    triangles: Integer[np.ndarray, "T 3"],
    uv: Float[np.ndarray, "V 2"],
    vertex_colors: Float[np.ndarray, "V 3"],
    *,
    title: str,
    subtitle: str,
    part_colors: Mapping[str, tuple[int, int, int]],
    photo: Mapping[str, np.ndarray],
    settings: Mapping[str, str],
) -> str:
    """The page as text.

    Args:
        faces: at least one; all share the mesh's topology.
        triangles: vertex indices, counter-clockwise from outside.
        uv: texture coordinates, u right, v up.
        vertex_colors: colour of each vertex in the view of the parts, in [0, 1] or uint8.
        title: the heading, usually the photo's file name.
        subtitle: one line beside it.
        part_colors: part -> RGB 0..255, for the table.
        photo: two pictures [H, W, 3] of one size, name -> pixels: the whole photo without and with the faces drawn in;
            or none.
        settings: name -> value, as printed.
    """
    index_type = np.uint16 if len(uv) <= 65536 else np.uint32
    data = {
        "title": title,
        "subtitle": subtitle,
        "topology": {
            "indexBytes": np.dtype(index_type).itemsize,
            "triangles": _base64(np.asarray(triangles, index_type)),
            "uv": _base64(np.asarray(uv, np.float32)),
            "colors": _base64(to_bytes(vertex_colors)),
        },
        "faces": [_face_data(face, part_colors) for face in faces],
        "photo": [[name, _data_url(_shrunk(pixels))] for name, pixels in photo.items()],
        "settings": [list(item) for item in settings.items()],
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    # A "</script>" or "<!--" inside a name must not end the element that holds the data.
    text = text.replace("<", "\\u003c")
    template = resources.files("jaxface").joinpath("assets/viewer.html").read_text(encoding="utf-8")
    return template.replace("__DATA__", text)


def _face_data(face: ViewerFace, part_colors: Mapping[str, tuple[int, int, int]]) -> dict:
    rows = []
    for part, value in face.part_iou.items():
        color = "#{:02x}{:02x}{:02x}".format(*part_colors[part])
        rows.append([part.replace("_", " "), round(float(value), 4) if np.isfinite(value) else None, color])
    return {
        "label": face.label,
        "positions": _base64(np.asarray(face.vertices, np.float32)),
        "texture": _data_url(face.texture),
        "pictures": [[name, _data_url(pixels)] for name, pixels in face.pictures.items()],
        "iou": rows,
        "measures": [list(item) for item in face.measures.items()],
        "files": [list(item) for item in face.files.items()],
    }


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _data_url(image: np.ndarray) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(encode_image(image, "JPEG")).decode()


def _shrunk(image: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(to_bytes(image))
    picture.thumbnail((PHOTO_SIZE, PHOTO_SIZE), Image.Resampling.LANCZOS)
    return np.asarray(picture)
