"""Binary glTF 2.0 (GLB): a textured face in one file, with blendshapes and, if wanted, an animation.

Section numbers are those of the glTF 2.0 specification (Khronos, ISO/IEC 12113:2022).
"""

import dataclasses
import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, UInt8

from jaxface.core.units import METRES_PER_UNIT
from jaxface.files.atomic import atomic_write
from jaxface.files.images import encode_image

"""One model unit is 10 cm, and glTF counts metres."""

_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125

_VERTICES, _INDICES = 34962, 34963  # what a buffer view is for


@dataclasses.dataclass(frozen=True)
class GlbAnimation:
    """How a face moves, for `write_glb`; between the frames, viewers interpolate.

    Attributes:
        times: [F] in seconds, from 0 up, each later than the one before.
        weights: [F, E] of the blendshapes; None keeps the face's own.
        rotation: [F, 4] quaternions x, y, z, w of the head, of any length but zero; None leaves it unturned.
        translation: [F, 3] of the head in METRES; None leaves it in place.
    """

    times: Float[np.ndarray, "F"]
    weights: Float[np.ndarray, "F E"] | None = None
    rotation: Float[np.ndarray, "F 4"] | None = None
    translation: Float[np.ndarray, "F 3"] | None = None


def write_glb(
    path: str | os.PathLike,
    vertices: Float[np.ndarray, "V 3"],
    triangles: Integer[np.ndarray, "T 3"],
    *,
    normals: Float[np.ndarray, "V 3"],
    uv: Float[np.ndarray, "V 2"],
    texture: UInt8[np.ndarray, "H W 3"],
    targets: Float[np.ndarray, "V 3 E"] | None = None,
    target_names: Sequence[str] = (),
    weights: Float[np.ndarray, "E"] | None = None,
    animation: GlbAnimation | None = None,
) -> None:
    """Writes one binary glTF 2.0 file with the texture inside (JPEG); metres.

    The material is marked unlit (KHR_materials_unlit): a photo's texture brings its light along. Viewers that do not
    know the extension show a rough, non-metallic surface.

    With `targets` the face has blendshapes (morph targets, section 3.7.2.2). Stored are the vertices less
    sum_e weights_e targets_e, and `weights` as the weights to begin with, so that every viewer shows `vertices` at
    first; for a face that is neutral at zero the stored shape is the neutral face. Targets that move few vertices are
    sparse (section 3.6.2.3). Their names are in `mesh.extras.targetNames`, where viewers and editors look for them.

    Args:
        path: where the GLB goes.
        vertices: in model units, with their expression.
        triangles: vertex indices, counter-clockwise from outside.
        normals: unit vectors.
        uv: texture coordinates, u right, v UP; turned over here, since glTF counts v downwards.
        texture: its row 0 is v = 1.
        targets: what each blendshape adds to the vertices at weight 1, in model units; None for none.
        target_names: one per target; "expression_0", ... if empty.
        weights: the expression that is in `vertices`; zero by default.
        animation: plays in viewers; None for a face that keeps still.

    Raises:
        ValueError: when the sizes of targets, names, weights and animation do not fit together.
        InputError: when the file cannot be written.
    """
    deltas = _deltas(targets, len(vertices))
    count = len(deltas)
    names = list(target_names) or [f"expression_{index}" for index in range(count)]
    weights = np.zeros(count, np.float32) if weights is None else np.asarray(weights, np.float32)
    if len(names) != count or weights.shape != (count,):
        raise ValueError(f"{count} blendshapes, but {len(names)} names and weights {weights.shape}")
    base = np.asarray(vertices, np.float64) * METRES_PER_UNIT - np.einsum("e,evc->vc", weights, deltas, dtype=float)

    parts = _Parts()
    uv = np.asarray(uv, np.float32) * np.array([1, -1], np.float32) + np.array([0, 1], np.float32)
    primitive = {
        "indices": parts.array(np.asarray(triangles, np.uint32).ravel(), "SCALAR", purpose=_INDICES),
        "attributes": {
            "POSITION": parts.array(base.astype(np.float32), "VEC3", purpose=_VERTICES, bounds=True),
            "NORMAL": parts.array(np.asarray(normals, np.float32), "VEC3", purpose=_VERTICES),
            "TEXCOORD_0": parts.array(uv, "VEC2", purpose=_VERTICES),
        },
        "material": 0,
    }
    mesh: dict = {"name": "face", "primitives": [primitive]}
    if count:
        primitive["targets"] = [{"POSITION": parts.offsets(delta)} for delta in deltas]
        mesh |= {"weights": weights.tolist(), "extras": {"targetNames": names}}
    document = {
        "asset": {"version": "2.0", "generator": "jaxface"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "face"}],
        "meshes": [mesh],
        "materials": [_MATERIAL],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
        "images": [{"bufferView": parts.view(encode_image(texture, "JPEG")), "mimeType": "image/jpeg"}],
    }
    if animation is not None:
        document["animations"] = [_animation(animation, count, parts)]
    with atomic_write(Path(path)) as partial:
        partial.write_bytes(parts.file(document))


_MATERIAL = {
    "name": "face",
    "doubleSided": True,
    "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 0.9},
    "extensions": {"KHR_materials_unlit": {}},
}


def _deltas(targets: np.ndarray | None, vertex_count: int) -> Float[np.ndarray, "E V 3"]:
    """Blendshapes in metres, rounded as they are stored."""
    if targets is None:
        return np.zeros((0, vertex_count, 3), np.float32)
    targets = np.asarray(targets)
    if targets.shape[:2] != (vertex_count, 3):
        raise ValueError(f"targets {targets.shape} for {vertex_count} vertices, expected [V, 3, E]")
    return np.ascontiguousarray(np.moveaxis(targets, -1, 0) * METRES_PER_UNIT, np.float32)


def _animation(animation: GlbAnimation, target_count: int, parts: "_Parts") -> dict:
    times = np.asarray(animation.times, np.float32)
    frames = len(times)
    if frames == 0 or times[0] < 0 or not (np.diff(times) > 0).all():
        raise ValueError("the times of an animation begin at zero or later, and each is later than the one before")
    # The kind of numbers, and how many of them a frame has.
    tracks = {
        "weights": (animation.weights, "SCALAR", target_count),
        "rotation": (animation.rotation, "VEC4", 4),
        "translation": (animation.translation, "VEC3", 3),
    }
    tracks = {name: track for name, track in tracks.items() if track[0] is not None}
    if not tracks:
        raise ValueError("an animation needs weights, rotation or translation")
    start = parts.array(times, "SCALAR", bounds=True)
    samplers = []
    for name, (values, kind, width) in tracks.items():
        values = np.asarray(values, np.float32)
        if values.shape != (frames, width) or width == 0 or not np.isfinite(values).all():
            raise ValueError(f"{name} {values.shape}: expected {frames} frames of {width} finite numbers")
        if name == "rotation":
            values = values / np.linalg.norm(values, axis=1, keepdims=True)
        stored = values.ravel() if kind == "SCALAR" else values
        samplers.append({"input": start, "output": parts.array(stored, kind), "interpolation": "LINEAR"})
    channels = [{"sampler": index, "target": {"node": 0, "path": name}} for index, name in enumerate(tracks)]
    return {"name": "face", "samplers": samplers, "channels": channels}


class _Parts:
    """Collects the binary chunk of a GLB, its buffer views and accessors."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.views: list[dict] = []
        self.accessors: list[dict] = []
        self.size = 0

    def view(self, content: bytes, **purpose: int) -> int:
        """Adds bytes, begun at a multiple of four as every kind of number allows; returns the view's index."""
        self.views.append({"buffer": 0, "byteOffset": self.size, "byteLength": len(content)} | purpose)
        padded = content + b"\0" * (-len(content) % 4)
        self.chunks.append(padded)
        self.size += len(padded)
        return len(self.views) - 1

    def array(self, values: np.ndarray, kind: str, *, purpose: int | None = None, bounds: bool = False) -> int:
        """Adds an array and its accessor; returns the accessor's index."""
        view = self.view(values.tobytes(), **({} if purpose is None else {"target": purpose}))
        accessor = {
            "bufferView": view,
            "componentType": _FLOAT if values.dtype == np.float32 else _UINT32,
            "count": len(values),
            "type": kind,
        }
        return self._accessor(accessor | (_bounds(values) if bounds else {}))

    def offsets(self, delta: Float[np.ndarray, "V 3"]) -> int:
        """Adds what a blendshape moves: the vertices that it moves alone, unless these are most of them."""
        moved = np.flatnonzero(delta.any(axis=1))
        moved = moved if len(moved) else np.zeros(1, int)  # a sparse accessor may not be empty
        index_type = np.uint16 if len(delta) <= 2**16 else np.uint32
        if len(moved) * (12 + np.dtype(index_type).itemsize) >= 12 * len(delta):
            return self.array(delta, "VEC3", purpose=_VERTICES, bounds=True)
        sparse = {
            "count": len(moved),
            "indices": {
                "bufferView": self.view(moved.astype(index_type).tobytes()),
                "componentType": _UINT16 if index_type is np.uint16 else _UINT32,
            },
            "values": {"bufferView": self.view(delta[moved].tobytes())},
        }
        accessor = {"componentType": _FLOAT, "count": len(delta), "type": "VEC3", "sparse": sparse}
        return self._accessor(accessor | _bounds(delta))

    def _accessor(self, accessor: dict) -> int:
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def file(self, document: dict) -> bytes:
        """The whole GLB (section 4.4)."""
        document |= {"accessors": self.accessors, "bufferViews": self.views, "buffers": [{"byteLength": self.size}]}
        text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        header = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + self.size)
        header += struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", self.size, b"BIN\0")
        return header + b"".join(self.chunks)


def _bounds(values: np.ndarray) -> dict:
    return {"min": np.atleast_1d(values.min(axis=0)).tolist(), "max": np.atleast_1d(values.max(axis=0)).tolist()}
