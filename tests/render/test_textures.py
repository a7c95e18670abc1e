"""The texture is the photo where the photo shows the surface, and continues without seams where it does not."""

import numpy as np
import pytest

from jaxface.render import rasterize, textures

SIZE = 96
FOCAL, DISTANCE = 200.0, 5.0


def dome(side=25):
    """A dome that faces the camera, laid out flat in UV space, mirrored left to right."""
    rows, columns = np.mgrid[0:side, 0:side]
    u, v = columns.ravel() / (side - 1), rows.ravel() / (side - 1)
    x, y = 2 * u - 1, 2 * v - 1
    vertices = np.stack([x, y, 1.2 - 0.9 * x**2 - 0.4 * y**2], -1)
    corner = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)[None]).ravel()
    first = np.stack([corner, corner + 1, corner + side + 1], -1)
    triangles = np.concatenate([first, np.stack([corner, corner + side + 1, corner + side], -1)])
    mirror = (np.arange(side)[:, None] * side + np.arange(side)[::-1][None]).ravel()
    normals = np.stack([1.8 * x, 0.8 * y, np.ones_like(x)], -1)
    return vertices, triangles, np.stack([u, v], -1), mirror, normals / np.linalg.norm(normals, axis=1, keepdims=True)


def turned(vectors, yaw):
    return vectors @ np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])


def project(posed):
    depth = DISTANCE - posed[:, 2]
    points = np.stack([SIZE / 2 + FOCAL * posed[:, 0] / depth / 2, SIZE / 2 - FOCAL * posed[:, 1] / depth / 2], -1)
    return points.astype(np.float32), depth.astype(np.float32)


NOTHING = np.zeros((SIZE, SIZE), np.float32)  # a z-buffer that hides nothing
SMALL = {"surface_depth": NOTHING, "texture_size": 64}


def smooth_photo():
    y, x = (np.mgrid[0:SIZE, 0:SIZE] + 0.5) / SIZE
    return np.stack([x, y, 0.5 + 0.3 * np.sin(3 * x)], -1).astype(np.float32)


def test_texels_are_the_photo_at_their_projection():
    vertices, triangles, uv, _, _ = dome()
    points, depth = project(turned(vertices, 0.3))
    colors = np.zeros((len(vertices), 3), np.float32)
    photo = smooth_photo()
    texture = textures.uv_texture(
        photo,
        points,
        depth,
        np.ones(len(points), np.float32),
        colors,
        uv,
        triangles,
        surface_depth=NOTHING,
        texture_size=64,
    )
    # Oracle: the point of each triangle's middle, projected directly, against the texel that holds it.
    middle, _ = project(turned(vertices, 0.3)[triangles].mean(1))
    texel = np.floor(uv[triangles].mean(1) * [64, -64] + [0, 64]).astype(int)
    expected = np.stack([middle[:, 0] / SIZE, middle[:, 1] / SIZE], -1)
    np.testing.assert_allclose(texture[texel[:, 1], texel[:, 0], :2], expected, atol=0.02)


def test_hidden_half_comes_from_its_mirror_image():
    vertices, triangles, uv, mirror, _ = dome()
    points, depth = project(vertices)
    photo = np.abs(smooth_photo() - np.float32([0.5, 0, 0]))  # symmetric up to the blue channel
    weights = (vertices[:, 0] > -0.2).astype(np.float32)
    gray = np.full((len(vertices), 3), 0.5, np.float32)
    full = textures.uv_texture(photo, points, depth, np.ones_like(weights), gray, uv, triangles, **SMALL)
    half = textures.uv_texture(photo, points, depth, weights, gray, uv, triangles, mirror=mirror, **SMALL)
    np.testing.assert_allclose(half[:, 34:], full[:, 34:], atol=1e-3)
    assert np.abs(half - full)[..., :2].mean() < 0.01


def test_hidden_surface_without_mirror_continues_the_colours():
    vertices, triangles, uv, _, _ = dome()
    points, depth = project(vertices)
    photo = np.full((SIZE, SIZE, 3), (0.7, 0.5, 0.4), np.float32)
    weights = (vertices[:, 0] > 0).astype(np.float32)
    model = np.tile(np.float32([0.3, 0.3, 0.3]), (len(vertices), 1))
    texture = textures.uv_texture(photo, points, depth, weights, model, uv, triangles, **SMALL)
    np.testing.assert_allclose(texture, np.broadcast_to(photo[:1, :1], texture.shape), atol=1e-3)


def test_photo_beyond_the_border_is_not_used():
    vertices, triangles, uv, _, _ = dome()
    points, depth = project(vertices)
    points = points - np.float32([SIZE * 10, 0])
    model = np.random.default_rng(0).uniform(0, 1, (len(vertices), 3)).astype(np.float32)
    texture = textures.uv_texture(
        smooth_photo(),
        points,
        depth,
        np.ones(len(points), np.float32),
        model,
        uv,
        triangles,
        surface_depth=NOTHING,
        texture_size=64,
    )
    texel = np.clip(np.floor(uv * [64, -64] + [0, 64]).astype(int), 0, 63)
    assert np.corrcoef(texture[texel[:, 1], texel[:, 0]].ravel(), model.ravel())[0, 1] > 0.8


def test_weights_follow_the_turn():
    vertices, _, _, _, normals = dome()
    posed = turned(vertices, 0.9)
    to_camera = np.array([0, 0, DISTANCE]) - posed
    facing = (turned(normals, 0.9) * to_camera).sum(-1) / np.linalg.norm(to_camera, axis=1)
    weights = textures.view_weights(turned(normals, 0.9), to_camera)
    assert (weights[facing < textures.GRAZING] == 0).all() and (weights[facing > textures.FACING] == 1).all()
    assert (np.diff(weights[np.argsort(facing)]) >= -1e-6).all()


def test_hidden_surface_is_found():
    vertices, triangles, _, _, normals = dome()
    posed = turned(vertices, 1.2)
    points, depth = project(posed)
    surface = np.asarray(rasterize(points, depth, triangles, image_size=SIZE).depth)
    to_camera = np.array([0, 0, DISTANCE]) - posed
    facing = (turned(normals, 1.2) * to_camera).sum(-1) / np.linalg.norm(to_camera, axis=1)
    seen = textures._seen(surface, points, depth)
    assert (seen == (facing > 0))[np.abs(facing) > 0.3].mean() > 0.97  # at the outline, a pixel decides
    assert textures._seen(NOTHING, points, depth).all()
    assert not textures._seen(NOTHING, points + np.float32([SIZE, 0]), depth).any()


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (64, 64)])
def test_spread_keeps_what_is_known_and_constants(shape):
    generator = np.random.default_rng(0)
    weights = (generator.uniform(size=shape) < 0.3).astype(np.float32)
    weights[0, 0] = 1
    image = generator.uniform(size=(*shape, 2)).astype(np.float32)
    filled = textures.spread(image, weights)
    np.testing.assert_allclose(filled[weights > 0], image[weights > 0], atol=1e-6)
    assert filled.min() >= 0 and filled.max() <= 1
    np.testing.assert_allclose(textures.spread(np.full_like(image, 0.25), weights), 0.25, atol=1e-6)
