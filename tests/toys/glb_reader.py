"""A reader of GLB files in plain numpy, written from the glTF 2.0 specification, whose rules it checks on the way."""

import json
import struct
from pathlib import Path

import numpy as np

NUMBERS = {5121: "<u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def read_glb(path) -> tuple[dict, bytes]:
    """The document and the binary chunk (section 4.4)."""
    content = Path(path).read_bytes()
    magic, version, length = struct.unpack("<4sII", content[:12])
    assert (magic, version, length) == (b"glTF", 2, len(content))
    json_length, kind = struct.unpack("<I4s", content[12:20])
    assert kind == b"JSON" and json_length % 4 == 0
    document = json.loads(content[20 : 20 + json_length])
    binary_length, kind = struct.unpack("<I4s", content[20 + json_length : 28 + json_length])
    assert kind == b"BIN\0" and binary_length % 4 == 0
    binary = content[28 + json_length :]
    assert len(binary) == binary_length and len(document["buffers"]) == 1
    assert 0 <= binary_length - document["buffers"][0]["byteLength"] <= 3
    for view in document["bufferViews"]:
        assert view["byteOffset"] % 4 == 0 and view["byteOffset"] + view["byteLength"] <= binary_length
    return document, binary


def _numbers(document, binary, part, dtype, count) -> np.ndarray:
    view = document["bufferViews"][part["bufferView"]]
    start, size = part.get("byteOffset", 0), np.dtype(dtype).itemsize
    assert "byteStride" not in view and (view["byteOffset"] + start) % size == 0  # section 3.6.2.4
    assert start + count * size <= view["byteLength"]
    return np.frombuffer(binary, dtype, count, view["byteOffset"] + start)


def read_accessor(document: dict, binary: bytes, index: int) -> np.ndarray:
    """An accessor's numbers [count] or [count, width] (section 3.6.2), sparse ones filled in."""
    accessor = document["accessors"][index]
    count, width, dtype = accessor["count"], WIDTHS[accessor["type"]], NUMBERS[accessor["componentType"]]
    assert count >= 1
    values = np.zeros((count, width), dtype)
    if "bufferView" in accessor:
        values = _numbers(document, binary, accessor, dtype, count * width).reshape(count, width).copy()
    if sparse := accessor.get("sparse"):
        kind = NUMBERS[sparse["indices"]["componentType"]]
        assert 1 <= sparse["count"] <= count and kind != "<f4"
        for part in ("indices", "values"):
            assert "target" not in document["bufferViews"][sparse[part]["bufferView"]]
        moved = _numbers(document, binary, sparse["indices"], kind, sparse["count"])
        assert (np.diff(moved.astype(int)) > 0).all() and moved[-1] < count
        rows = _numbers(document, binary, sparse["values"], dtype, sparse["count"] * width)
        values[moved] = rows.reshape(-1, width)
    for name, bound in (("min", values.min(0)), ("max", values.max(0))):
        if name in accessor:
            np.testing.assert_array_equal(np.float32(accessor[name]), bound)
    return values[:, 0] if accessor["type"] == "SCALAR" else values


def read_face(path) -> dict:
    """positions [V, 3], targets [E, V, 3], weights [E], names [E] and the rest of the one mesh in a file."""
    document, binary = read_glb(path)
    (mesh,) = document["meshes"]
    (primitive,) = mesh["primitives"]
    vertices = {name: read_accessor(document, binary, index) for name, index in primitive["attributes"].items()}
    targets = []
    for target in primitive.get("targets", []):
        assert {"min", "max"} <= document["accessors"][target["POSITION"]].keys()  # section 3.7.2.2
        targets.append(read_accessor(document, binary, target["POSITION"]))
    assert {"min", "max"} <= document["accessors"][primitive["attributes"]["POSITION"]].keys()
    counts = {len(values) for values in [*vertices.values(), *targets]}
    assert len(counts) == 1
    indices = read_accessor(document, binary, primitive["indices"])
    assert len(indices) % 3 == 0 and indices.max() < counts.pop()
    return {
        "positions": vertices["POSITION"],
        "normals": vertices["NORMAL"],
        "triangles": indices.reshape(-1, 3),
        "targets": np.array(targets).reshape(len(targets), len(vertices["POSITION"]), 3),
        "weights": np.array(mesh.get("weights", ())),
        "names": mesh.get("extras", {}).get("targetNames", []),
    }


def posed(face: dict, weights=None) -> np.ndarray:
    """Vertices [V, 3] in metres as a viewer shows them: base + sum of weight x target."""
    weights = face["weights"] if weights is None else weights
    return face["positions"] + np.einsum("e,evc->vc", np.asarray(weights, float), face["targets"].astype(float))


def read_animation(path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """path -> (times [F], values [F] or [F, width]) of the one animation of a file (section 3.11)."""
    document, binary = read_glb(path)
    (animation,) = document["animations"]
    tracks = {}
    for channel in animation["channels"]:
        sampler = animation["samplers"][channel["sampler"]]
        assert sampler["interpolation"] == "LINEAR" and channel["target"]["node"] == 0
        assert {"min", "max"} <= document["accessors"][sampler["input"]].keys()
        tracks[channel["target"]["path"]] = tuple(
            read_accessor(document, binary, sampler[end]) for end in ("input", "output")
        )
    return tracks
