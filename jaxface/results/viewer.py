"""The HTML page of one photo: offline, one file, with a mesh that turns under the mouse or a finger."""

import base64
import dataclasses
import json
from collections.abc import Mapping
from importlib import resources

import numpy as np
from jaxtyping import Float, Integer, UInt8
from PIL import Image

from jaxface.files.images import encode_image, to_bytes
from jaxface.results.blendshapes import Blendshapes

PHOTO_SIZE = 1280
"""Longest side, in pixels, of the whole photo inside the page."""

TEXTURE_SIZE = 2048
"""Longest side, in pixels, of a texture inside the page; the files beside it have all of it."""

BLENDSHAPE_BYTES = 2_000_000
"""Most that the blendshapes take inside the page (a third more as text), all faces together."""

_QUALITY = 88


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
        weights: [E] of the blendshapes, as they are in `vertices`; None if the page has none.
    """

    label: str
    vertices: Float[np.ndarray, "V 3"]
    texture: UInt8[np.ndarray, "H W 3"]
    pictures: Mapping[str, np.ndarray]
    part_iou: Mapping[str, float]
    measures: Mapping[str, str]
    files: Mapping[str, str]
    weights: Float[np.ndarray, "E"] | None = None


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
    blendshapes: Blendshapes | None = None,
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
        blendshapes: of the face model, shared by all faces, whose `weights` belong to them. If they are larger than
            BLENDSHAPE_BYTES, those that move the face most are taken.
    """
    index_type = np.uint16 if len(uv) <= 65536 else np.uint32
    chosen = np.zeros(0, int) if blendshapes is None else _affordable(blendshapes)
    data = {
        "title": title,
        "subtitle": subtitle,
        "topology": {
            "indexBytes": np.dtype(index_type).itemsize,
            "triangles": _base64(np.asarray(triangles, index_type)),
            "uv": _base64(np.asarray(uv, np.float32)),
            "colors": _base64(to_bytes(vertex_colors)),
        },
        "blendshapes": None if blendshapes is None else _blendshape_data(blendshapes, chosen),
        "faces": [_face_data(face, part_colors, chosen) for face in faces],
        "photo": [[name, _data_url(_shrunk(pixels, PHOTO_SIZE))] for name, pixels in photo.items()],
        "settings": [list(item) for item in settings.items()],
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    # A "</script>" or "<!--" inside a name must not end the element that holds the data.
    text = text.replace("<", "\\u003c")
    return _asset("viewer.html").replace("__DATA__", text)


def _asset(name: str) -> str:
    """A text of the package, with the scripts that it names put in: the page is one file."""
    text = resources.files("jaxface.results").joinpath("assets", name).read_text(encoding="utf-8")
    for place, script in {"__MESH_VIEW__": "viewer_mesh.js", "__PAGE__": "viewer_page.js"}.items():
        if place in text:
            text = text.replace(place, _asset(script))
    return text


def _face_data(
    face: ViewerFace, part_colors: Mapping[str, tuple[int, int, int]], chosen: Integer[np.ndarray, "C"]
) -> dict:
    rows = []
    for part, value in face.part_iou.items():
        color = "#{:02x}{:02x}{:02x}".format(*part_colors[part])
        rows.append([part.replace("_", " "), round(float(value), 4) if np.isfinite(value) else None, color])
    weights = np.zeros(len(chosen)) if face.weights is None else np.asarray(face.weights, float)[chosen]
    return {
        "label": face.label,
        "positions": _base64(np.asarray(face.vertices, np.float32)),
        "weights": weights.round(4).tolist(),
        "texture": _data_url(_shrunk(face.texture, TEXTURE_SIZE)),
        "pictures": [[name, _data_url(pixels)] for name, pixels in face.pictures.items()],
        "iou": rows,
        "measures": [list(item) for item in face.measures.items()],
        "files": [list(item) for item in face.files.items()],
    }


def _affordable(blendshapes: Blendshapes) -> Integer[np.ndarray, "C"]:
    """Indices, in order, of the blendshapes that the page has room for: those that move the face most."""
    moved = np.asarray(blendshapes.deltas != 0).any(axis=1)  # [V, E]
    sizes = 6 * moved.sum(axis=0) + moved.shape[0] // 8 + 1
    by_motion = np.argsort(-np.square(blendshapes.deltas).sum(axis=(0, 1)), kind="stable")
    return np.sort(by_motion[np.cumsum(sizes[by_motion]) <= BLENDSHAPE_BYTES])


def _blendshape_data(blendshapes: Blendshapes, chosen: Integer[np.ndarray, "C"]) -> dict:
    """Per blendshape a bit per vertex, whether it moves (lowest bit first), and 16-bit steps for those that do."""
    deltas = np.moveaxis(blendshapes.deltas[..., chosen], -1, 0)  # [C, V, 3]
    moved = np.asarray(deltas != 0).any(axis=-1)
    steps = np.abs(deltas).max(axis=(1, 2), initial=0) / 32767
    counts = np.round(deltas / np.where(steps > 0, steps, 1)[:, None, None]).astype("<i2")
    return {
        "names": [blendshapes.names[index] for index in chosen],
        "limits": list(blendshapes.limits),
        "steps": [float(step) for step in steps.astype(np.float32)],
        "moved": _base64(np.packbits(moved, axis=1, bitorder="little")),
        "counts": _base64(counts[moved]),
    }


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _data_url(image: np.ndarray) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(encode_image(image, "JPEG", quality=_QUALITY)).decode()


def _shrunk(image: np.ndarray, size: int) -> np.ndarray:
    pixels = to_bytes(image)
    if max(pixels.shape[:2]) <= size:
        return pixels
    picture = Image.fromarray(pixels)
    picture.thumbnail((size, size), Image.Resampling.BICUBIC, reducing_gap=1.0)
    return np.asarray(picture)
