"""The distance between two faces' recognition features, and the chip that a recognition network looks at.

The networks were trained on faces that are turned upright and scaled to one size. `align_chips` does that by bilinear
sampling, so that gradients reach the picture.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class ChipTemplate:
    """Where a network wants the landmarks of a face in its square input, the chip.

    Attributes:
        size: side of the chip in pixels.
        landmarks: per point, the landmarks of ibug-68 whose mean it is.
        points: (x, y) of each point in the chip's pixels, y down, pixel centres at + 0.5.
    """

    size: int
    landmarks: tuple[tuple[int, ...], ...]
    points: tuple[tuple[float, float], ...]


# dlib's mean face for a chip of side 1: bridge and tip of the nose, nostrils, eyes, upper lip's two edges (King 2017,
# get_face_chip_details in image_transforms/interpolation.h; it leaves out jaw, brows and lower lip, which move most).
_DLIB_LANDMARKS = (*range(27, 55), *range(60, 65))
_DLIB_X = (
    0.490127, 0.490127, 0.490127, 0.490127, 0.36688, 0.426036, 0.490127, 0.554217, 0.613373, 0.121737, 0.187122,
    0.265825, 0.334606, 0.260918, 0.182743, 0.645647, 0.714428, 0.793132, 0.858516, 0.79751, 0.719335, 0.254149,
    0.340985, 0.428858, 0.490127, 0.551395, 0.639268, 0.726104, 0.290379, 0.428096, 0.490127, 0.552157, 0.689874,
)  # fmt: skip
_DLIB_Y = (
    0.203352, 0.307009, 0.409805, 0.515625, 0.587326, 0.609345, 0.628106, 0.609345, 0.587326, 0.216423, 0.178758,
    0.179852, 0.231733, 0.245099, 0.244077, 0.231733, 0.179852, 0.178758, 0.216423, 0.244077, 0.245099, 0.780233,
    0.745405, 0.727388, 0.742578, 0.727388, 0.745405, 0.780233, 0.784792, 0.778746, 0.785343, 0.778746, 0.784792,
)  # fmt: skip
_DLIB_SIZE, _DLIB_PADDING = 150, 0.25


def _in_dlib_chip(value: float) -> float:
    return _DLIB_SIZE * (value + _DLIB_PADDING) / (1 + 2 * _DLIB_PADDING)


DLIB_CHIP = ChipTemplate(
    size=_DLIB_SIZE,
    landmarks=tuple((landmark,) for landmark in _DLIB_LANDMARKS),
    points=tuple((_in_dlib_chip(x), _in_dlib_chip(y)) for x, y in zip(_DLIB_X, _DLIB_Y, strict=True)),
)
"""The 150 x 150 chip of dlib's face recogniser, with its padding of 0.25."""

ARCFACE_CHIP = ChipTemplate(
    size=112,
    landmarks=((36, 39), (42, 45), (30,), (48,), (54,)),
    points=tuple(
        (x + 0.5, y + 0.5)  # published for pixel centres at whole numbers
        for x, y in (
            (38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041),
        )
    ),
)  # fmt: skip
"""The 112 x 112 chip of ArcFace (Deng et al. 2019): both eyes, tip of the nose, corners of the mouth."""


def perceptual_loss(
    rendered: Float[Array, "B H W 3"],
    photo: Float[Array | np.ndarray, "B H W 3"],
    landmarks: Float[Array | np.ndarray, "B 68 2"],
    *,
    features: Callable[[Float[Array, "B S S 3"]], Float[Array, "B F"]],
    chip: ChipTemplate = DLIB_CHIP,
    weights: Float[Array | np.ndarray, "B 68"] | None = None,
) -> Float[Array, "B"]:
    """1 - cosine of the recognition features of two pictures of one face (3DDFA-V3's L_per; weight 0.2).

    Both pictures are cut alike, by the same landmarks, so that the loss compares faces and not their places.

    Args:
        rendered: the drawn face, over the photo where it draws nothing; colours in [0, 1].
        photo: colours in [0, 1]. It and the landmarks get no gradient.
        landmarks: ibug-68 points in pixels of the pictures, y down.
        features: the network, from chips [B, S, S, 3] with colours in [0, 1] to vectors; differentiable.
        chip: the network's input; its size is S.
        weights: 0 for a landmark that is not known, see `align_chips`.

    Returns:
        [B] loss in [0, 2]; 0 where fewer than two points of the chip are known.
    """
    drawn, seen = (align_chips(image, landmarks, chip=chip, weights=weights) for image in (rendered, photo))
    loss = cosine_feature_loss(features(drawn), jax.lax.stop_gradient(features(seen)))
    if weights is None:
        return loss
    known = (_point_weights(jnp.asarray(weights), chip) > 0).sum(-1) >= 2
    return jnp.where(known, loss, 0.0)


def cosine_feature_loss(
    features: Float[Array, "B D"], target_features: Float[Array | np.ndarray, "B D"]
) -> Float[Array, "B"]:
    """1 - cosine of the angle between two feature vectors (3DDFA-V3's L_per, as in Deep3DFaceRecon; weight 0.2).

    Args:
        features: of the rendered face, from a face recognition network; need not be normalised.
        target_features: of the photo, from the same network.

    Returns:
        [B] loss in [0, 2]; 1, with a finite gradient, where a vector is zero.

    Raises:
        ValueError: when the shapes are not the same [B, D].
    """
    if np.ndim(features) != 2 or np.shape(features) != np.shape(target_features):
        raise ValueError(f"expected two arrays [B, D], got {np.shape(features)} and {np.shape(target_features)}")
    return 1.0 - (_normalised(jnp.asarray(features)) * _normalised(jnp.asarray(target_features))).sum(-1)


def _normalised(features: Float[Array, "B D"]) -> Float[Array, "B D"]:
    squared = jnp.square(features).sum(-1, keepdims=True)
    return features / jnp.sqrt(jnp.where(squared == 0, 1.0, squared))


def align_chips(
    image: Float[Array | np.ndarray, "B H W C"],
    landmarks: Float[Array | np.ndarray, "B 68 2"],
    *,
    chip: ChipTemplate = DLIB_CHIP,
    weights: Float[Array | np.ndarray, "B 68"] | None = None,
) -> Float[Array, "B S S C"]:
    """Cuts faces out for a recognition network: turned, scaled and moved to the chip's template, bilinear.

    The similarity transform takes the template's points nearest to the landmarks, in least squares, as dlib's does.
    There is no filter against aliasing: faces should not be more than about twice as large as in the chip.

    Args:
        image: any colours; gradients go to it.
        landmarks: ibug-68 points in pixels of the image, y down. They are held fixed for gradients.
        chip: the network's input.
        weights: 0 for a landmark that is not known and may hold anything, even NaN; None: all are known.

    Returns:
        [B, S, S, C], 0 outside the image.

    Raises:
        ValueError: when shapes do not fit together.
    """
    if np.ndim(image) != 4 or np.shape(landmarks) != (len(image), 68, 2):
        raise ValueError(
            f"expected images [B, H, W, C] and landmarks [B, 68, 2], got {np.shape(image)} and {np.shape(landmarks)}"
        )
    landmarks = jax.lax.stop_gradient(jnp.asarray(landmarks))
    weights = jnp.ones(landmarks.shape[:2], landmarks.dtype) if weights is None else jnp.asarray(weights)
    landmarks = jnp.where((weights != 0)[..., None], landmarks, 0.0)
    points = jnp.stack([landmarks[:, list(group)].mean(1) for group in chip.landmarks], axis=1)
    places = _chip_pixels(points, _point_weights(weights, chip), chip)
    return jax.vmap(_sample)(jnp.asarray(image), places)


def _point_weights(weights: Float[Array, "B 68"], chip: ChipTemplate) -> Float[Array, "B N"]:
    """1 for a point of the chip all of whose landmarks are known, else 0."""
    known = jnp.stack([(weights[:, list(group)] != 0).all(-1) for group in chip.landmarks], axis=1)
    return known.astype(jnp.float32)


def _chip_pixels(
    points: Float[Array, "B N 2"], weights: Float[Array, "B N"], chip: ChipTemplate
) -> Float[Array, "B S S 2"]:
    """Where the chip's pixel centres lie in the image."""
    template = jnp.asarray(np.array(chip.points, np.float32))[None]
    total = jnp.maximum(weights.sum(-1), 1.0)[:, None]
    middle, target = ((weights[..., None] * values).sum(1) / total for values in (template, points))
    from_middle, from_target = template - middle[:, None], points - target[:, None]
    spread = (weights * jnp.square(from_middle).sum(-1)).sum(-1)
    spread = jnp.where(spread == 0, 1.0, spread)
    # Scale and turn as one complex number: the regression of the points on the template.
    cos = (weights * (from_middle * from_target).sum(-1)).sum(-1) / spread
    sin = (weights * (from_middle[..., 0] * from_target[..., 1] - from_middle[..., 1] * from_target[..., 0])).sum(-1)
    sin = (sin / spread)[:, None, None]
    cos = cos[:, None, None]
    centers = jnp.arange(chip.size) + 0.5
    x, y = centers[None, None, :] - middle[:, None, :1], centers[None, :, None] - middle[:, None, 1:]
    return jnp.stack([cos * x - sin * y + target[:, None, :1], sin * x + cos * y + target[:, None, 1:]], axis=-1)


def _sample(image: Float[Array, "H W C"], places: Float[Array, "S S 2"]) -> Float[Array, "S S C"]:
    """The image at places (x, y) in pixels, bilinear between pixel centres; a border of zeros around it."""
    height, width, channels = image.shape
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0))).reshape(-1, channels)
    # In the padded image, pixel centres lie at whole numbers after this shift.
    place = jnp.clip(places + 0.5, 0.0, jnp.array([width + 1.0, height + 1.0])[None, None])
    first = jnp.minimum(jnp.floor(place).astype(jnp.int32), jnp.array([width, height])[None, None])
    right, down = (place - first)[..., 0, None], (place - first)[..., 1, None]
    index = first[..., 1] * (width + 2) + first[..., 0]
    upper = padded[index] * (1 - right) + padded[index + 1] * right
    lower = padded[index + width + 2] * (1 - right) + padded[index + width + 3] * right
    return upper * (1 - down) + lower * down
