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
    PixelTargets,
    grid_anchors,
    landmark_loss,
    pixel_prdl_loss,
    pixel_targets,
    prdl_loss,
)
from jaxface.losses.pixel_prdl import ANCHOR_STRIDE
from jaxface.render import Fragments, label_triangles, visible_areas


def part_targets(labels: Integer[Array | np.ndarray, "B S S"], *, anchor_stride: int = ANCHOR_STRIDE) -> PixelTargets:
    """The described parts of label maps: what `part_loss` compares a face with.

    Args:
        labels: part labels.
        anchor_stride: anchors lie on every n-th pixel in x and y.
    """
    return pixel_targets(labels, anchor_stride=anchor_stride)


def part_loss(
    model: FaceModel,
    face: Face,
    targets: PixelTargets,
    *,
    hidden: Bool[Array | np.ndarray, "B S S"] | None = None,
    fragments: Fragments | None = None,
    weights: Mapping[str, float] | None = None,
) -> Float[Array, "B"]:
    """PRDL on pixels between a drawn face and a label map, see `pixel_prdl_loss`; zero for the true face.

    Args:
        model: the face model.
        face: decoded with the camera of the label maps.
        targets: from `part_targets`.
        hidden: pixels where something lies over the face, as no pixel of the target answers to them. None: nowhere.
        fragments: of the face, if it was rasterized before.
        weights: of parts, 1 where not listed.

    Returns:
        Per sample: twice the differences in px of the 224 x 224 picture, their squares within a pixel of the label map.
    """
    labels = label_triangles(model.parts, model.triangles, face.points.shape[1])
    loss = pixel_prdl_loss(
        face.points, face.depth, model.triangles, labels, targets, hidden=hidden, fragments=fragments, weights=weights
    )
    return loss * CROP_SIZE / targets.width  # once: it grows linearly with the distances, not with their squares


def vertex_part_loss(
    model: FaceModel,
    face: Face,
    labels: Integer[Array | np.ndarray, "B S S"],
    camera: Camera,
    *,
    anchor_stride: int = 1,
    by_area: bool = True,
) -> Float[Array, "B"]:
    """PRDL between the model's projected vertices and the pixels of a label map: the paper's form.

    Model skin above the brows is left out where the target shows both brows, because its skin was cut there too.

    Args:
        model: the face model.
        face: decoded with `camera`.
        labels: part labels.
        camera: of the S x S crops.
        anchor_stride: anchors lie on every n-th pixel in x and y.
        by_area: each vertex counts as much as the area around it that is seen, as pixels do (measured in
            experiments/prdl_bias). Else all count alike, hidden or not, as in 3DDFA-V3, eq. 5 to 7.

    Returns:
        Per sample, in px^2 of the 224 x 224 picture.
    """
    points = {part: face.points[:, model.parts[part]] for part in parts.PARTS}
    if by_area:
        seen = visible_areas(face.points, face.depth, model.triangles, image_size=camera.image_size)
    else:
        seen = jnp.ones_like(face.depth)
    areas = {part: seen[:, model.parts[part]] for part in parts.PARTS}
    masks = parts.part_masks(labels)
    both_brows = masks["left_brow"].any((1, 2)) & masks["right_brow"].any((1, 2))
    areas = comparable_areas(points, areas, both_brows)
    anchors = grid_anchors(*camera.image_size, stride=anchor_stride)
    loss = prdl_loss(points, masks, anchors=anchors, point_masks=areas)
    return loss * (CROP_SIZE / camera.image_size[1]) ** 2


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
