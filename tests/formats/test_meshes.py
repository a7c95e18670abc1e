"""The files reopen elsewhere (trimesh) with the same geometry, orientation, units and texture."""

import io
import json
import os
import struct

import numpy as np
import pytest
import trimesh
from PIL import Image

from jaxface.errors import InputError
from jaxface.formats import meshes


@pytest.fixture
def patch():
    """A bulging 5 x 5 sheet that faces +z, with a texture whose corners have colours of their own."""
    rows, columns = np.mgrid[0:5, 0:5]
    u, v = columns.ravel() / 4, rows.ravel() / 4
    vertices = np.stack([u - 0.5, v - 0.5, 0.3 * np.cos(u - 0.5) * np.cos(v - 0.5)], -1).astype(np.float32)
    corner = (np.arange(4)[:, None] * 5 + np.arange(4)[None]).ravel()
    triangles = np.concatenate(
        [np.stack([corner, corner + 1, corner + 6], -1), np.stack([corner, corner + 6, corner + 5], -1)]
    )
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[:32, :32], texture[:32, 32:] = (250, 0, 0), (0, 250, 0)  # top left red, top right green
    texture[32:, :32], texture[32:, 32:] = (0, 0, 250), (250, 250, 250)
    uv = np.stack([u, v], -1).astype(np.float32)
    normals = np.tile(np.float32([0, 0, 1]), (25, 1))
    return vertices, triangles, uv, normals, texture


def color_at(mesh, position):
    """Colour of the textured surface nearest to `position`, looked up by hand: trimesh's v points up."""
    index = np.argmin(np.linalg.norm(mesh.vertices - position, axis=1))
    image = getattr(mesh.visual.material, "image", None) or mesh.visual.material.baseColorTexture
    u, v = mesh.visual.uv[index]
    pixels = np.asarray(image.convert("RGB"))
    size = len(pixels)
    return pixels[min(int((1 - v) * size), size - 1), min(int(u * size), size - 1)].astype(int)


def check_mesh(mesh, patch, units):
    vertices, triangles, *_ = patch
    assert mesh.faces.shape == triangles.shape
    np.testing.assert_allclose(mesh.bounds, [vertices.min(0) * units, vertices.max(0) * units], rtol=1e-4, atol=1e-4)
    assert np.isfinite(mesh.vertices).all()
    assert (mesh.face_normals[:, 2] > 0).all()  # the winding faces the viewer


@pytest.mark.parametrize("kind", ["obj", "glb"])
def test_textured_mesh_reopens(tmp_path, patch, kind):
    vertices, triangles, uv, normals, texture = patch
    path = tmp_path / f"mesh.{kind}"
    if kind == "obj":
        meshes.write_obj(path, vertices, triangles, uv=uv, texture=texture)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["mesh.mtl", "mesh.obj", "texture.png"]
    else:
        meshes.write_glb(path, vertices, triangles, normals=normals, uv=uv, texture=texture)
        assert [p.name for p in tmp_path.iterdir()] == ["mesh.glb"]
    mesh = trimesh.load(path, force="mesh")
    units = 100.0 if kind == "obj" else 0.1
    check_mesh(mesh, patch, units)
    corners = {(-0.5, 0.5): (250, 0, 0), (0.5, 0.5): (0, 250, 0), (-0.5, -0.5): (0, 0, 250), (0.5, -0.5): (250,) * 3}
    for (x, y), color in corners.items():
        z = vertices[np.argmin(np.abs(vertices[:, :2] - [x, y]).sum(1)), 2]
        assert np.abs(color_at(mesh, np.array([x, y, z]) * units) - color).max() < 12


def test_glb_follows_the_specification(tmp_path, patch):
    vertices, triangles, uv, normals, texture = patch
    path = tmp_path / "mesh.glb"
    meshes.write_glb(path, vertices, triangles, normals=normals, uv=uv, texture=texture)
    content = path.read_bytes()
    magic, version, length = struct.unpack("<4sII", content[:12])
    assert (magic, version, length) == (b"glTF", 2, len(content))
    json_length, kind = struct.unpack("<I4s", content[12:20])
    assert kind == b"JSON" and json_length % 4 == 0
    document = json.loads(content[20 : 20 + json_length])
    binary_length, kind = struct.unpack("<I4s", content[20 + json_length : 28 + json_length])
    assert kind == b"BIN\0" and binary_length == document["buffers"][0]["byteLength"]
    binary = content[28 + json_length :]
    assert all(view["byteOffset"] % 4 == 0 for view in document["bufferViews"])
    view = document["bufferViews"][document["images"][0]["bufferView"]]
    image = Image.open(io.BytesIO(binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]))
    assert image.size == (64, 64)
    bounds = document["accessors"][1]
    np.testing.assert_allclose(bounds["max"], vertices.max(0) * 0.1, rtol=1e-6)


def test_ply_keeps_colours(tmp_path, patch):
    vertices, triangles, *_ = patch
    colors = np.random.default_rng(0).uniform(-0.2, 1.2, (25, 3))
    path = tmp_path / "mesh.ply"
    meshes.write_ply(path, vertices, triangles, colors=colors)
    mesh = trimesh.load(path, process=False)
    check_mesh(mesh, patch, 100.0)
    np.testing.assert_array_equal(mesh.visual.vertex_colors[:, :3], np.round(np.clip(colors, 0, 1) * 255))


def test_a_failed_write_leaves_nothing(tmp_path, patch, monkeypatch):
    vertices, triangles, *_ = patch
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(InputError, match="disk full"):
        meshes.write_ply(tmp_path / "mesh.ply", vertices, triangles, colors=np.zeros((25, 3)))
    assert list(tmp_path.iterdir()) == []
