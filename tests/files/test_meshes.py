"""The files reopen elsewhere (trimesh) with the same geometry, orientation, units and texture."""

import io
import os

import numpy as np
import pytest
import trimesh
from PIL import Image

from jaxface.core.errors import InputError
from jaxface.files import meshes
from toys.glb_reader import posed, read_animation, read_face, read_glb


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
    document, binary = read_glb(path)
    view = document["bufferViews"][document["images"][0]["bufferView"]]
    image = Image.open(io.BytesIO(binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]))
    assert image.size == (64, 64)
    face = read_face(path)
    np.testing.assert_allclose(face["positions"], vertices * 0.1, rtol=1e-6)
    np.testing.assert_array_equal(face["triangles"], triangles)
    assert len(face["targets"]) == 0 and "animations" not in document


@pytest.fixture
def expressive(patch):
    """Blendshapes of all kinds: one moves every vertex, one a single vertex, one none; and weights."""
    targets = np.zeros((25, 3, 4), np.float32)
    random = np.random.default_rng(0)
    targets[..., 0] = random.normal(size=(25, 3))
    targets[24, :, 1] = (0.1, -0.2, 0.3)
    targets[3:9, 1, 3] = random.normal(size=6)
    return {"targets": targets, "target_names": ("all", "one", "none", "some"), "weights": np.float32([0.3, -1, 2, 1])}


def test_glb_blendshapes_add_up_to_the_fitted_shape(tmp_path, patch, expressive):
    vertices, triangles, uv, normals, texture = patch
    path = tmp_path / "mesh.glb"
    meshes.write_glb(path, vertices, triangles, normals=normals, uv=uv, texture=texture, **expressive)
    face = read_face(path)
    assert face["names"] == ["all", "one", "none", "some"]
    np.testing.assert_allclose(posed(face), vertices * 0.1, atol=1e-7)
    neutral = vertices - expressive["targets"] @ expressive["weights"]
    np.testing.assert_allclose(posed(face, np.zeros(4)), neutral * 0.1, atol=1e-7)
    np.testing.assert_allclose(face["targets"], np.moveaxis(expressive["targets"], -1, 0) * 0.1, rtol=1e-6)
    document, _ = read_glb(path)
    kinds = [
        "sparse" in document["accessors"][t["POSITION"]] for t in document["meshes"][0]["primitives"][0]["targets"]
    ]
    assert kinds == [False, True, True, True]
    mesh = trimesh.load(path, force="mesh", process=False)
    assert mesh.metadata["targetNames"] == face["names"] and mesh.visual.material.baseColorTexture.size == (64, 64)


def test_sparse_indices_of_a_large_mesh_are_wide(tmp_path):
    count = 70000
    targets = np.zeros((count, 3, 1), np.float32)
    targets[-1, 2] = 1
    still = {"normals": np.zeros((count, 3)), "uv": np.zeros((count, 2)), "texture": np.zeros((2, 2, 3), np.uint8)}
    meshes.write_glb(tmp_path / "a.glb", np.zeros((count, 3)), np.array([[0, 1, 69999]]), targets=targets, **still)
    face = read_face(tmp_path / "a.glb")
    np.testing.assert_allclose(face["targets"][0, -1], [0, 0, 0.1])
    assert face["names"] == ["expression_0"] and (tmp_path / "a.glb").stat().st_size < 36 * count


def test_glb_animation(tmp_path, patch, expressive):
    vertices, triangles, uv, normals, texture = patch
    random = np.random.default_rng(1)
    times, weights = np.array([0.0, 0.04, 0.1]), random.uniform(size=(3, 4))
    rotation, translation = random.normal(size=(3, 4)), random.normal(size=(3, 3))
    path = tmp_path / "mesh.glb"
    animation = meshes.GlbAnimation(times, weights, rotation, translation)
    options = {"normals": normals, "uv": uv, "texture": texture}
    meshes.write_glb(path, vertices, triangles, animation=animation, **options, **expressive)
    tracks = read_animation(path)
    assert tracks.keys() == {"weights", "rotation", "translation"}
    for found, _ in tracks.values():
        np.testing.assert_allclose(found, times, rtol=1e-6)
    np.testing.assert_allclose(tracks["weights"][1].reshape(3, 4), weights, rtol=1e-6)
    unit = rotation / np.linalg.norm(rotation, axis=1, keepdims=True)
    np.testing.assert_allclose(tracks["rotation"][1], unit, rtol=1e-5)
    np.testing.assert_allclose(tracks["translation"][1], translation, rtol=1e-6)
    np.testing.assert_allclose(posed(read_face(path)), vertices * 0.1, atol=1e-7)
    assert trimesh.load(path, force="mesh").faces.shape == triangles.shape
    meshes.write_glb(path, vertices, triangles, animation=meshes.GlbAnimation(times, rotation=rotation), **options)
    assert read_animation(path).keys() == {"rotation"}


@pytest.mark.parametrize("wrong", [
    {"times": [0.0, 0.0]}, {"times": [-1.0, 0.0]}, {"times": []}, {"weights": np.zeros((2, 3))}, {"rotation": None},
    {"rotation": np.full((2, 4), np.nan)}, {"translation": np.zeros((3, 3))},
])  # fmt: skip
def test_a_wrong_animation_is_refused(tmp_path, patch, wrong):
    vertices, triangles, uv, normals, texture = patch
    good = {"times": [0.0, 1.0], "rotation": np.ones((2, 4))}
    with pytest.raises(ValueError, match=r"times|expected|needs"):
        meshes.write_glb(
            tmp_path / "a.glb", vertices, triangles, normals=normals, uv=uv, texture=texture,
            animation=meshes.GlbAnimation(**(good | wrong)),
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [{"target_names": ("a",)}, {"weights": np.zeros(3)}, {"targets": np.zeros((24, 3, 4))}]
)
def test_blendshapes_that_do_not_fit_are_refused(tmp_path, patch, expressive, wrong):
    vertices, triangles, uv, normals, texture = patch
    with pytest.raises(ValueError, match=r"blendshapes|targets"):
        meshes.write_glb(
            tmp_path / "a.glb", vertices, triangles, normals=normals, uv=uv, texture=texture, **(expressive | wrong)
        )


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7)])
def test_png_keeps_every_pixel(shape):
    for dtype in (np.uint8, np.uint16) if len(shape) == 2 else (np.uint8,):
        pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
        stored = Image.open(io.BytesIO(meshes.encode_image(pixels, "PNG")))
        np.testing.assert_array_equal(np.asarray(stored), pixels)


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
