"""MediaPipe's face networks (Apache-2.0), as plain functions of images and layers: two detectors and a face mesh.

    networks = load_face_networks()
    boxes, scores = short_range(networks.short_range, images)  # [B, 128, 128, 3] in [-1, 1]
    mesh, flags = face_mesh_network(networks.mesh, crops)  # [B, 192, 192, 3] in [0, 1]

The detectors are BlazeFace (Bazarevsky et al. 2019) and its successor for faces far away, the mesh is Attention Mesh
(Grishchenko et al. 2020). `third_party/mediapipe` took the weights out of MediaPipe 0.10.14, a list of layers per
network in the order of their use; each function below takes them in that order, and its loops are the network's
structure. Measured beside MediaPipe on the same bytes: detections equal to 1e-6, mesh points to 1e-4 pixels.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from safetensors.numpy import load

from jaxface.networks.mediapipe_layers import (
    Layer,
    bilinear_twice,
    convolution,
    depth_to_space,
    depthwise,
    grow_channels,
    max_pool_2,
    pointwise,
    prelu,
    sample,
)

_ASSET = "mediapipe_faces.safetensors"

MESH_POINTS = 468
"""Of the mesh, without the irises."""

MESH_SIDE = 192
"""Pixels of the mesh's input, in which its points are given."""

REGION_ENDS = {"lips": (61, 291), "left_eye": (33, 133), "right_eye": (362, 263)}
"""The regions that the mesh looks at again -> the points whose line is turned level. Left is the image's left."""

_REGION_SIDE, _REGION_SCALE, _FEATURE_STEP = 16, 1.5, 4
"""Samples across a region, its side relative to the points in it, and input pixels per pixel of the features."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FaceNetworks:
    """The networks' layers, a pytree: given to a compiled function, the weights do not become part of the program.

    Attributes:
        full_range: of the detector for faces near and far.
        short_range: of the detector for a face within two metres, as in a picture that shows little else.
        mesh: of the face mesh with its second look at lips and eyes.
        points: region -> mesh points that the second look finds again.
    """

    full_range: list[Layer]
    short_range: list[Layer]
    mesh: list[Layer]
    points: dict[str, Int[np.ndarray, " N"]]


@functools.cache
def load_face_networks() -> FaceNetworks:
    """The weights that come with jaxface, as float32."""
    tensors = load((resources.files("jaxface.networks") / "assets" / _ASSET).read_bytes())
    layers: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for name in sorted(name for name in tensors if not name.startswith("points.")):
        network, place, _, part = name.split(".")
        layers.setdefault(network, {}).setdefault(place, {})[part] = tensors[name]
    points = {region: tensors[f"points.{region}"] for region in REGION_ENDS}
    full, short, mesh = (_as_layers(layers[name]) for name in ("full_range", "short_range", "mesh"))
    return FaceNetworks(full, short, mesh, points)


def _as_layers(arrays: dict[str, dict[str, np.ndarray]]) -> list[Layer]:
    # NumPy's cast keeps what float16 holds below its smallest normal number; a compiled one may not.
    parts = ("kernel", "bias", "slope")
    return [tuple(one[p].astype(np.float32) for p in parts if p in one) for one in arrays.values()]


def full_range(
    layers: Sequence[Layer], images: Float[Array, "B S S 3"]
) -> tuple[Float[Array, "B A 16"], Float[Array, "B A"]]:
    """Boxes and scores of the detector for faces near and far, one for each cell of 4 x 4 pixels, row by row.

    Args:
        layers: `FaceNetworks.full_range`.
        images: RGB in [-1, 1]; the side is 192 pixels in MediaPipe, and may be any multiple of 32.

    Returns:
        Box and six keypoints relative to the cell's centre, in pixels of the input, and the score before the sigmoid;
        `photos.face_boxes` decodes them.
    """
    layer = iter(layers)
    x = jax.nn.relu(convolution(images, next(layer), stride=2, pad=(1, 1)))
    x = _bottlenecks(layer, x, 2)
    skips = []
    for stage, count in enumerate((2, 2, 2, 3)):
        if stage:
            skips.append(jax.nn.relu(pointwise(x, next(layer))))
        x = jax.nn.relu(pointwise(depthwise(x, next(layer), stride=2, pad=(1, 1)), next(layer)))
        x = jax.nn.relu(pointwise(depthwise(x, next(layer)), next(layer)))
        x = _bottlenecks(layer, x, count)
    for count in (2, 2, 1):
        x = skips.pop() + bilinear_twice(jax.nn.relu(pointwise(x, next(layer))))
        x = _bottlenecks(layer, x, count)

    def head() -> Float[Array, "B h w C"]:
        return depth_to_space(depthwise(pointwise(x, next(layer)), next(layer), stride=2, pad=(1, 1)))

    scores, boxes = head(), head()
    return boxes.reshape(len(images), -1, 16), scores.reshape(len(images), -1)


def _bottlenecks(layer: Iterator[Layer], x: Float[Array, "B H W C"], count: int) -> Float[Array, "B H W C"]:
    """Residual blocks of two depthwise and two pointwise convolutions, with fewer channels between them."""
    for _ in range(count):
        y = jax.nn.relu(pointwise(depthwise(x, next(layer)), next(layer)))
        x = jax.nn.relu(x + pointwise(depthwise(y, next(layer)), next(layer)))
    return x


def short_range(
    layers: Sequence[Layer], images: Float[Array, "B 128 128 3"]
) -> tuple[Float[Array, "B 896 16"], Float[Array, "B 896"]]:
    """Boxes and scores of the detector for near faces: two for each of 16 x 16 cells, then six for each of 8 x 8.

    Args:
        layers: `FaceNetworks.short_range`.
        images: RGB in [-1, 1].

    Returns:
        As of `full_range`.
    """
    layer = iter(layers)
    x = jax.nn.relu(convolution(images, next(layer), stride=2, pad=(1, 2)))
    fine = x
    for stage, count in enumerate((2, 3, 6, 5)):
        for index in range(count):
            x = jax.nn.relu(_residual(layer, x, stride=2 if stage and not index else 1))
        fine = x if stage == 2 else fine
    heads = [pointwise(features, next(layer)) for features in (fine, x, fine, x)]
    scores = jnp.concatenate([head.reshape(len(images), -1) for head in heads[:2]], axis=1)
    boxes = jnp.concatenate([head.reshape(len(images), -1, 16) for head in heads[2:]], axis=1)
    return boxes, scores


def _residual(layer: Iterator[Layer], x: Float[Array, "B H W C"], *, stride: int) -> Float[Array, "B h w D"]:
    """A depthwise and a pointwise convolution beside a shortcut; new channels of the shortcut are zero."""
    y = pointwise(depthwise(x, next(layer), stride=stride, pad=(1, 1) if stride == 1 else (0, 1)), next(layer))
    shortcut = max_pool_2(x) if stride == 2 else x
    return grow_channels(shortcut, y.shape[-1]) + y


def face_mesh_network(
    layers: Sequence[Layer], points: dict[str, Int[np.ndarray, " N"]], images: Float[Array, "B 192 192 3"]
) -> tuple[Float[Array, "B 478 3"], Float[Array, " B"]]:
    """The 478 points of the face that fills the picture, and whether there is one.

    Args:
        layers: `FaceNetworks.mesh`.
        points: `FaceNetworks.points`.
        images: RGB in [0, 1]: the face upright, in a square of 1.5 times its box.

    Returns:
        Points (x, y, z) in pixels of the input, continuous, z towards the scene and relative to the face's middle, the
        irises' ten points last; and the presence before the sigmoid.
    """
    layer = iter(layers)
    x = prelu(convolution(images, next(layer), stride=2, pad=(0, 1)), next(layer))
    features = x
    for stage, count in enumerate((2, 3, 3, 3, 3, 3)):
        for index in range(count):
            x = prelu(_residual(layer, x, stride=2 if stage and not index else 1), next(layer))
            features = x if (stage, index) == (1, 0) else features
    x = prelu(pointwise(x, next(layer)), next(layer))
    x = prelu(_residual(layer, x, stride=1), next(layer))
    mesh = _whole(x, next(layer)).reshape(-1, MESH_POINTS, 3)
    places = region_places(mesh[..., :2] / _FEATURE_STEP, points)
    heads = _region_heads(layer, sample(features, places, side=_REGION_SIDE))
    flags = _whole(x, next(layer))[:, 0]
    return _refined(mesh, points, places * jnp.array([1.0, 1, _FEATURE_STEP])[None, None, None], heads), flags


def _whole(x: Float[Array, "B S S C"], layer: Layer) -> Float[Array, "B D"]:
    """A convolution whose kernel is as large as the picture."""
    kernel, bias = layer
    return pointwise(x.reshape(len(x), -1), (kernel.reshape(-1, kernel.shape[-1]), bias))


def region_places(mesh: Float[Array, "B 468 2"], points: dict[str, Int[np.ndarray, " N"]]) -> Float[Array, "B 3 2 3"]:
    """The affine maps from the samples of each region to the features: level, and half as large again as its points.

    This is the operator Landmarks2TransformMatrix of MediaPipe's graph.
    """
    places = []
    for region, (left, right) in REGION_ENDS.items():
        line = mesh[:, right] - mesh[:, left]
        angle = jnp.arctan2(line[:, 1], line[:, 0])
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        turn = jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], -2)  # from level to the picture
        level = _matmul(mesh[:, points[region]], turn)
        low, high = level.min(1), level.max(1)
        linear = turn * ((high - low) * _REGION_SCALE / _REGION_SIDE)[:, None]
        middle = _matmul(turn, ((low + high) / 2)[..., None])
        corner = middle - _matmul(linear, jnp.full((len(mesh), 2, 1), _REGION_SIDE / 2))
        places.append(jnp.concatenate([linear, corner], -1))
    return jnp.stack(places, 1)


def _matmul(a: Float[Array, "B N K"], b: Float[Array, "B K M"]) -> Float[Array, "B N M"]:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _region_heads(layer: Iterator[Layer], x: Float[Array, "B 3 16 16 32"]) -> list[Float[Array, "B N 2"]]:
    """What the second look finds, in samples of the regions: lips, left eye, its iris, right eye, its iris.

    Three branches of one structure run side by side; the two of the eyes split again, in eye and iris.
    """
    x = x.swapaxes(0, 1)
    for stage, count in enumerate((2, 3, 1)):
        for index in range(count):
            x = _branch_block(layer, x, stride=2 if stage and not index else 1)
    x = x[np.array([0, 1, 1, 2, 2])]
    for index in range(5):
        x = _branch_block(layer, x, stride=2 if index == 2 else 1)
    x = jax.vmap(prelu)(jax.vmap(pointwise)(x, next(layer)), next(layer))
    x = _branch_block(layer, x, stride=1)
    return [_whole(branch, next(layer)).reshape(x.shape[1], -1, 2) for branch in x]


def _branch_block(layer: Iterator[Layer], x: Float[Array, "N B H W C"], *, stride: int) -> Float[Array, "N B h w D"]:
    weights = [next(layer) for _ in range(3)]

    def block(x: Float[Array, "B H W C"], *weights: Layer) -> Float[Array, "B h w D"]:
        return prelu(_residual(iter(weights[:2]), x, stride=stride), weights[2])

    run: Callable[..., Float[Array, "N B h w D"]] = jax.vmap(block)
    return run(x, *weights)


def _refined(
    mesh: Float[Array, "B 468 3"],
    points: dict[str, Int[np.ndarray, " N"]],
    places: Float[Array, "B 3 2 3"],
    heads: list[Float[Array, "B N 2"]],
) -> Float[Array, "B 478 3"]:
    """The mesh with the second look's points in the place of its own, and the irises at the end.

    An iris lies as deep as the eye's first sixteen points, its lids, do on average.
    """
    lips, left_eye, left_iris, right_eye, right_iris = (
        _matmul(head, places[:, region, :, :2].swapaxes(1, 2)) + places[:, region, None, :, 2]
        for head, region in zip(heads, (0, 1, 1, 2, 2), strict=True)
    )
    for region, found in (("lips", lips), ("left_eye", left_eye), ("right_eye", right_eye)):
        mesh = mesh.at[:, points[region], :2].set(found)
    irises = []
    for region, iris in (("left_eye", left_iris), ("right_eye", right_iris)):
        depth = mesh[:, points[region][:16], 2].mean(1)
        irises.append(jnp.concatenate([iris, jnp.broadcast_to(depth[:, None, None], (*iris.shape[:2], 1))], -1))
    return jnp.concatenate([mesh, *irises], 1)
