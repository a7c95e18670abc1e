"""The texture is the photo where the photo shows the surface, and continues without seams where it does not."""

import numpy as np
import pytest
import scipy.ndimage

from jaxface.render import rasterize
from jaxface.texture import atlases, baking
from jaxface.texture.atlases import spread
from jaxface.texture.lighting import steady_shading

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


@pytest.mark.slow
def test_texels_are_the_photo_at_their_projection():
    vertices, triangles, uv, _, _ = dome()
    points, depth = project(turned(vertices, 0.3))
    colors = np.zeros((len(vertices), 3), np.float32)
    photo = smooth_photo()
    texture = baking.uv_texture(
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


@pytest.mark.slow
def test_hidden_half_comes_from_its_mirror_image():
    vertices, triangles, uv, mirror, _ = dome()
    points, depth = project(vertices)
    photo = np.abs(smooth_photo() - np.float32([0.5, 0, 0]))  # symmetric up to the blue channel
    weights = (vertices[:, 0] > -0.2).astype(np.float32)
    gray = np.full((len(vertices), 3), 0.5, np.float32)
    full = baking.uv_texture(photo, points, depth, np.ones_like(weights), gray, uv, triangles, **SMALL)
    half = baking.uv_texture(photo, points, depth, weights, gray, uv, triangles, mirror=mirror, **SMALL)
    np.testing.assert_allclose(half[:, 34:], full[:, 34:], atol=1e-3)
    assert np.abs(half - full)[..., :2].mean() < 0.01


@pytest.mark.slow
def test_hidden_surface_without_mirror_continues_the_colours():
    vertices, triangles, uv, _, _ = dome()
    points, depth = project(vertices)
    photo = np.full((SIZE, SIZE, 3), (0.7, 0.5, 0.4), np.float32)
    weights = (vertices[:, 0] > 0).astype(np.float32)
    model = np.tile(np.float32([0.3, 0.3, 0.3]), (len(vertices), 1))
    texture = baking.uv_texture(photo, points, depth, weights, model, uv, triangles, **SMALL)
    np.testing.assert_allclose(texture, np.broadcast_to(photo[:1, :1], texture.shape), atol=4e-3)  # bytes


def test_photo_beyond_the_border_is_not_used():
    vertices, triangles, uv, _, _ = dome()
    points, depth = project(vertices)
    points = points - np.float32([SIZE * 10, 0])
    model = np.random.default_rng(0).uniform(0, 1, (len(vertices), 3)).astype(np.float32)
    texture = baking.uv_texture(
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
    weights = baking.view_weights(turned(normals, 0.9), to_camera)
    assert (weights[facing < baking.GRAZING] == 0).all() and (weights[facing > baking.FACING] == 1).all()
    assert (np.diff(weights[np.argsort(facing)]) >= -1e-6).all()


@pytest.mark.slow
def test_hidden_surface_is_found():
    vertices, triangles, _, _, normals = dome()
    posed = turned(vertices, 1.2)
    points, depth = project(posed)
    surface = np.asarray(rasterize(points, depth, triangles, image_size=SIZE).depth)
    to_camera = np.array([0, 0, DISTANCE]) - posed
    facing = (turned(normals, 1.2) * to_camera).sum(-1) / np.linalg.norm(to_camera, axis=1)
    seen = baking._seen(surface, points, depth)
    assert (seen == (facing > 0))[np.abs(facing) > 0.3].mean() > 0.97  # at the outline, a pixel decides
    assert baking._seen(NOTHING, points, depth).all()
    assert not baking._seen(NOTHING, points + np.float32([SIZE, 0]), depth).any()


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (64, 64)])
def test_spread_keeps_what_is_known_and_constants(shape):
    generator = np.random.default_rng(0)
    weights = (generator.uniform(size=shape) < 0.3).astype(np.float32)
    weights[0, 0] = 1
    image = generator.uniform(size=(*shape, 2)).astype(np.float32)
    filled = spread(image, weights)
    np.testing.assert_allclose(filled[weights > 0], image[weights > 0], atol=1e-6)
    assert filled.min() >= 0 and filled.max() <= 1
    np.testing.assert_allclose(spread(np.full_like(image, 0.25), weights), 0.25, atol=1e-6)


def side_lit(points):
    """Light that falls off across the picture, in each channel a little differently."""
    x = points[:, :1] / SIZE
    return (1.3 - 0.6 * x + np.float32([[0.05, 0.0, -0.05]]) * x).astype(np.float32)


def lit_photo(albedo):
    x = (np.arange(SIZE) + 0.5) / SIZE
    row = np.clip((1.3 - 0.6 * x[:, None] + np.array([[0.05, 0.0, -0.05]]) * x[:, None]) * albedo, 0, 1)
    return np.broadcast_to(row[None], (SIZE, SIZE, 3)).astype(np.float32)


def test_mirrored_skin_takes_the_light_of_its_own_side():
    vertices, triangles, uv, mirror, _ = dome()
    points, depth = project(vertices)
    albedo, weights = np.float32([[0.6, 0.5, 0.4]]), (vertices[:, 0] > -0.1).astype(np.float32)
    shading = side_lit(points)
    gray = np.full((len(vertices), 3), 0.2, np.float32)
    options = SMALL | {"mirror": mirror, "shading": shading}
    texture = baking.uv_texture(lit_photo(albedo), points, depth, weights, gray, uv, triangles, **options)
    texel = np.clip(np.floor(uv * [64, -64] + [0, 64]).astype(int), 0, 63)
    expected = albedo * steady_shading(shading, weights)
    np.testing.assert_allclose(texture[texel[:, 1], texel[:, 0]], expected, atol=0.03)
    left, right = texture[32, 6], texture[32, 57]
    assert (left > right + 0.05).all()  # the light still falls from the left


def test_delight_gives_the_albedo():
    vertices, triangles, uv, _, _ = dome()
    points, depth = project(vertices)
    albedo, one = np.float32([[0.6, 0.5, 0.4]]), np.ones(len(vertices), np.float32)
    gray = np.full((len(vertices), 3), 0.2, np.float32)
    options = SMALL | {"shading": side_lit(points), "delight": True}
    texture = baking.uv_texture(lit_photo(albedo), points, depth, one, gray, uv, triangles, **options)
    np.testing.assert_allclose(texture, np.broadcast_to(albedo[None], texture.shape), atol=0.02)
    hard = SMALL | {"shading": -3 * np.ones_like(gray), "delight": True}
    blown = baking.uv_texture(lit_photo(albedo), points, depth, one, gray, uv, triangles, **hard)
    assert np.isfinite(blown).all() and blown.max() <= 1


def test_steady_shading_can_be_divided_by():
    random = np.random.default_rng(0)
    wild = random.normal(1, 2, (200, 3))
    wild[3] = np.nan
    seen = np.ones(200, np.float32)
    steady = steady_shading(wild, seen)
    usual = np.median(np.nan_to_num(wild, nan=1.0), axis=0)
    assert (steady >= 0.29 * usual).all() and (steady <= 2.1 * usual).all()
    calm = np.linspace(0.7, 1.3, 200)[:, None] * np.ones((1, 3))
    np.testing.assert_allclose(steady_shading(calm, seen), calm, atol=0.02)
    unseen = steady_shading(calm, 0 * seen)
    assert (np.abs(unseen - 1) <= np.abs(calm - 1) + 0.02).all() and (np.diff(unseen[:, 0]) > 0).all()


def flat_square(side, pixels):
    """A square that faces the camera and fills a photo of `pixels` a side, texel for texel."""
    rows, columns = np.mgrid[0:side, 0:side] / (side - 1)
    uv = np.stack([columns.ravel(), rows.ravel()], -1)
    points = np.stack([uv[:, 0], 1 - uv[:, 1]], -1) * pixels
    corner = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)[None]).ravel()
    triangles = [np.stack([corner, corner + a, corner + b], -1) for a, b in ((1, side + 1), (side + 1, side))]
    return points.astype(np.float32), np.ones(side**2, np.float32), uv, np.concatenate(triangles)


@pytest.mark.slow
@pytest.mark.parametrize("texture_size", [64, 1024])
def test_texture_keeps_the_photos_pixels(texture_size):
    points, depth, uv, triangles = flat_square(5, texture_size)
    photo = np.random.default_rng(0).integers(0, 256, (texture_size, texture_size, 3), np.uint8)
    one, gray = np.ones(25, np.float32), np.full((25, 3), 0.5, np.float32)
    texture = baking.uv_texture(
        photo, points, depth, one, gray, uv, triangles, surface_depth=NOTHING, texture_size=texture_size
    )
    np.testing.assert_allclose(texture[2:-2, 2:-2], photo[2:-2, 2:-2] / 255, atol=0.01)


@pytest.mark.slow
def test_finer_photo_is_averaged():
    points, depth, uv, triangles = flat_square(5, 256)
    photo = np.zeros((256, 256, 3), np.uint8)
    photo[:, ::2] = 200  # stripes that nearest texels would turn into black or white
    one, gray = np.ones(25, np.float32), np.full((25, 3), 0.5, np.float32)
    texture = baking.uv_texture(photo, points, depth, one, gray, uv, triangles, surface_depth=NOTHING, texture_size=64)
    np.testing.assert_allclose(texture, 100 / 255, atol=0.01)


def test_mask_of_zeros_leaves_the_models_colours():
    vertices, triangles, uv, mirror, _ = dome()
    points, depth = project(vertices)
    model = np.random.default_rng(0).uniform(0.2, 0.8, (len(vertices), 3)).astype(np.float32)
    one, nothing = np.ones(len(vertices), np.float32), np.zeros((7, 9), np.float32)
    texture = baking.uv_texture(
        np.full((SIZE, SIZE, 3), np.nan), points, depth, one, model, uv, triangles, mask=nothing, mirror=mirror, **SMALL
    )
    # In logarithms between the vertices, so a little darker than the texture of the same colours.
    np.testing.assert_allclose(texture, baking.vertex_texture(model, uv, triangles, texture_size=64), atol=0.12)
    assert np.abs(texture - baking.vertex_texture(model, uv, triangles, texture_size=64)).mean() < 0.02


@pytest.mark.slow
def test_cuts_of_the_atlas_are_joined():
    """Two halves of a square, apart in the atlas: the hidden one takes the shift of the seen one across the cut."""
    points, depth, uv, triangles = flat_square(5, SIZE)
    left, right = triangles[(uv[triangles][:, :, 0] <= 0.5).all(1)], triangles[(uv[triangles][:, :, 0] >= 0.5).all(1)]
    both = np.concatenate([left, right + 25])
    shifted = np.concatenate([uv * [0.8, 0.4], uv * [0.8, 0.4] + [0.1, 0.55]])
    weights = np.repeat(np.float32([1, 0]), 25)
    points, depth = np.tile(points, (2, 1)), np.tile(depth, 2)
    photo = np.full((SIZE, SIZE, 3), (0.7, 0.5, 0.4), np.float32)
    gray = np.full((50, 3), 0.3, np.float32)
    texture = baking.uv_texture(photo, points, depth, weights, gray, shifted, both, **SMALL)
    np.testing.assert_allclose(texture[20, 45], photo[0, 0], atol=0.02)


def test_mouth_inside_counts_at_any_weight_and_is_left_alone_where_hidden():
    vertices, triangles, uv, _, _ = dome()
    points, depth = project(vertices)
    inside = np.ones(len(vertices), bool)
    model = np.tile(np.float32([0.3, 0.1, 0.1]), (len(vertices), 1))
    photo = np.full((SIZE, SIZE, 3), 0.8, np.float32)
    before = np.where(np.arange(SIZE)[None] < SIZE / 2, 1.0, 0.0) * np.ones((SIZE, 1))  # hides the left half
    options = SMALL | {"surface_depth": before.astype(np.float32), "interior": inside}
    texture = baking.uv_texture(photo, points, depth, 0 * depth, model, uv, triangles, **options)
    np.testing.assert_allclose(texture[32, 45], 0.8, atol=0.01)
    np.testing.assert_allclose(texture[32, 10], model[0], atol=0.01)


def test_beside_an_edge_the_photo_is_in_doubt():
    surface = np.full((20, 20), 5.0, np.float32)
    surface[:, :10] = 4.0
    position = np.stack([np.arange(20) + 0.5, np.full(20, 10.5)], -1)
    clear = baking._clear(surface, position, np.full(20, 5.0))
    np.testing.assert_allclose(clear[13:], 1)
    np.testing.assert_allclose(clear[:11], 0)
    np.testing.assert_allclose(baking._clear(surface, position, np.full(20, 4.0)), 1)


def test_texture_side_is_the_photos_scale():
    points, _, uv, triangles = flat_square(5, 300)
    assert baking.texture_side(points, np.ones(25), uv, triangles) == pytest.approx(300)
    assert baking.texture_side(points, np.zeros(25), uv, triangles) == 0


def test_enlarged_is_linear_between_centres():
    image = np.random.default_rng(0).uniform(size=(8, 8)).astype(np.float32)
    centers = (np.arange(32) + 0.5) / 4 - 0.5
    expected = scipy.ndimage.map_coordinates(
        image, np.meshgrid(centers, centers, indexing="ij"), order=1, mode="nearest"
    )
    whole = atlases.enlarged(image, 32)
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    np.testing.assert_allclose(atlases.enlarged(image, 32, rows=(5, 21)), whole[5:21], atol=1e-5)
    assert atlases.enlarged(image, 8) is not None and (atlases.enlarged(image, 8) == image).all()
