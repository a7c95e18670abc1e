"""Losses of a decoded face against the label map and landmarks of a crop."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from jaxface.core import parts
from jaxface.core.cameras import Camera
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import Face, landmark_points
from jaxface.core.units import CROP_SIZE
from jaxface.losses import (
    LANDMARK_WEIGHTS_68,
    grid_anchors,
    landmark_loss,
    mask_descriptor,
    prdl_loss,
)
from jaxface.render import visible_areas


def part_targets(labels: Integer[Array | np.ndarray, "B S S"], *, anchor_stride: int = 1) -> dict[str, Array]:
    """PRDL's descriptors of the parts in label maps: what `part_loss` compares a face with.

    Args:
        labels: part labels.
        anchor_stride: anchors lie on every n-th pixel in x and y.

    Returns:
        [B, A, 3] per part, in pixels of the label maps; zero for a part that is not there.
    """
    height, width = labels.shape[-2:]
    anchors = grid_anchors(height, width, stride=anchor_stride)
    masks = parts.part_masks(labels)
    described = jax.vmap(jax.vmap(lambda mask: mask_descriptor(mask, anchors)))(jnp.stack(list(masks.values())))
    return dict(zip(masks, described, strict=True))


def part_loss(
    model: FaceModel,
    face: Face,
    targets: Mapping[str, Float[Array, "B A 3"]],
    camera: Camera,
    *,
    anchor_stride: int = 1,
    hidden: Bool[Array, "B S S"] | None = None,
) -> Float[Array, "B"]:
    """PRDL between the model's projected parts and the pixels of a label map (3DDFA-V3, eq. 5 to 7).

    Each vertex counts as much as the area around it that is seen, as pixels do (measured in experiments/prdl_bias).
    Model skin above the brows is left out where the target shows both brows, because its skin was cut there too.

    Args:
        model: the face model.
        face: decoded with `camera`.
        targets: from `part_targets` of the crops, with the same stride.
        camera: of the S x S crops.
        anchor_stride: anchors lie on every n-th pixel in x and y.
        hidden: pixels where something lies over the face: vertices that come to lie there do not count, as no pixel of
            the target answers to them. None: nowhere.

    Returns:
        Per sample, in px^2 of the 224 x 224 picture.
    """
    height, width = camera.image_size
    points = {part: face.points[:, model.parts[part]] for part in parts.PARTS}
    seen = visible_areas(face.points, face.depth, model.triangles, image_size=camera.image_size)
    if hidden is not None:
        pixels = [
            face.points[..., axis].astype(jnp.int32).clip(0, side - 1) for axis, side in ((1, height), (0, width))
        ]
        seen = jnp.where(hidden[jnp.arange(len(hidden))[:, None], pixels[0], pixels[1]], 0.0, seen)
    areas = {part: seen[:, model.parts[part]] for part in parts.PARTS}
    both_brows = jnp.stack([targets[part].any((1, 2)) for part in ("left_brow", "right_brow")]).all(0)
    areas = comparable_areas(points, areas, both_brows)
    anchors = grid_anchors(height, width, stride=anchor_stride)
    loss = prdl_loss(points, targets, anchors=anchors, point_masks=areas)
    return loss * (CROP_SIZE / width) ** 2


def comparable_areas(
    points: Mapping[str, Float[Array, "B N 2"]], areas: Mapping[str, Float[Array, "B N"]], cut: Bool[Array, "B"]
) -> dict[str, Float[Array, "B N"]]:
    """Weights of the parts' vertices that make them comparable with a label map's pixels.

    Args:
        points: projected vertices of each part, in pixels.
        areas: what each of them stands for in the picture, see `visible_areas`.
        cut: whether the label map's skin was cut above the brows; the model's is then left out there.

    Returns:
        The areas; but all alike for a part of which nothing is seen: the loss is to pull it back into the picture as a
        whole where the photo shows it.
    """
    weights = {part: jnp.where(area.any(-1, keepdims=True), area, 1.0) for part, area in areas.items()}
    brows = (parts.visible_centroid(points[part], weights[part]) for part in ("left_brow", "right_brow"))
    below = parts.below_brows(jax.lax.stop_gradient(points["skin"]), *brows)
    weights["skin"] *= below | ~cut[:, None]
    return weights


def marched_landmark_loss(
    model: FaceModel,
    face: Face,
    roll: Float[Array, "B"],
    landmarks: Float[Array | np.ndarray, "B 68 2"],
    visible: Float[Array | np.ndarray, "B 68"],
    camera: Camera,
) -> Float[Array, "B"]:
    """Landmark loss with Deep3D's weights; the cheeks' landmarks march along the model's contour lines.

    Args:
        model: the face model.
        face: decoded with `camera`.
        roll: of the face, in radians.
        landmarks: target points in pixels.
        visible: 1 for a landmark that is known, else 0.
        camera: of the S x S crops.

    Returns:
        Per sample, in px^2 of the 224 x 224 picture.
    """
    points = landmark_points(model, face.points, roll)
    weights = LANDMARK_WEIGHTS_68[None] * visible
    return landmark_loss(points, landmarks, weights=weights) * (CROP_SIZE / camera.image_size[1]) ** 2
