"""The losses that compete, each on the same projected vertices and the same masks."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from faces import FULL_SIZE, SPECK
from jaxtyping import Array, Float

from jaxface import losses
from jaxface.core import parts
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import Face
from jaxface.losses.faces import comparable_areas
from jaxface.render import label_triangles, visible_areas

Loss = Callable[..., Float[Array, "B"]]
"""loss(points, targets, triangles, anchors, point_masks) -> [B]; for one that `sees`, loss(model, face, targets)."""


@dataclasses.dataclass(frozen=True)
class Method:
    """A loss on the parts' points.

    Attributes:
        title: for tables and figures.
        variants: name -> loss; the one that does best on the tuning faces competes.
        visible: weigh every vertex by the area of the picture that it stands for; else all count alike, hidden or not.
        draws: give it the part's triangles and all their vertices, to be drawn; else the part's own vertices.
        descriptors: give it PRDL's descriptors of the masks, made once; else the masks.
        sees: give it the whole face and the described label maps: it draws for itself, and knows what hides what.
    """

    title: str
    variants: Mapping[str, Loss]
    visible: bool = True
    draws: bool = False
    descriptors: bool = False
    sees: bool = False


def _prdl(points, targets, triangles, anchors, point_masks):
    return losses.prdl_loss(points, targets, anchors=anchors, point_masks=point_masks)


def _pixels(**form) -> Loss:
    def loss(model, face, targets):
        labels = label_triangles(model.parts, model.triangles, face.points.shape[1])
        speck = round(SPECK * (targets.width / FULL_SIZE) ** 2)
        return losses.pixel_prdl_loss(face.points, face.depth, model.triangles, labels, targets, speck=speck, **form)

    return loss


def _silhouette(renderer: str, sigma: float) -> Loss:
    def loss(points, targets, triangles, anchors, point_masks):
        return losses.silhouette_iou_loss(
            points, targets, triangles=triangles, renderer=renderer, sigma=sigma, point_masks=point_masks
        )

    return loss


def _reda(points, targets, triangles, anchors, point_masks):
    return losses.reda_loss(points, targets, triangles=triangles, sigma=1e-5, point_masks=point_masks)


def _icp(direction: str) -> Loss:
    def loss(points, targets, triangles, anchors, point_masks):
        return losses.icp_loss(points, targets, direction=direction, point_masks=point_masks)

    return loss


def _chamfer(points, targets, triangles, anchors, point_masks):
    return losses.chamfer_loss(points, targets, point_masks=point_masks)


def _density_aware(points, targets, triangles, anchors, point_masks):
    return losses.density_aware_chamfer_loss(points, targets, point_masks=point_masks)


# The renderers' published sharpness was made for coarser meshes (see silhouette_iou_loss), so a finer one may compete.
METHODS = {
    "pixels": Method("PRDL, pixels", {"": _pixels()}, sees=True),
    "prdl": Method("PRDL, vertices by area", {"": _prdl}, descriptors=True),
    "prdl_plain": Method("PRDL, vertices", {"": _prdl}, visible=False, descriptors=True),
    "icp_to_target": Method("ICP, vertex to pixel", {"": _icp("to_target")}),
    "icp_to_points": Method("ICP, pixel to vertex", {"": _icp("to_points")}),
    "chamfer": Method("Chamfer", {"": _chamfer}),
    "dcd": Method("Density-aware Chamfer", {"": _density_aware}),
    "softras": Method(
        "SoftRas IoU", {f"sigma {sigma:.0e}": _silhouette("softras", sigma) for sigma in (1e-4, 1e-5)}, draws=True
    ),
    "dibr": Method(
        "DIB-R IoU", {f"sigma 1/{factor}": _silhouette("dibr", 1 / factor) for factor in (7000, 70000)}, draws=True
    ),
    "reda": Method("ReDA-style", {"sigma 1e-05": _reda}, draws=True),
}


def part_vertices(model: FaceModel, method: Method) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The vertices of each part, and its triangles between them.

    A silhouette is drawn of all the triangles that Part IoU counts as the part's, those at its seam included.
    """
    if not method.draws:
        return {part: np.asarray(model.parts[part]) for part in parts.PARTS}, {}
    labels, triangles = label_triangles(model.parts, model.triangles), np.asarray(model.triangles)
    own = {part: triangles[labels == parts.LABELS[part]] for part in parts.PARTS}
    vertices = {part: np.unique(own[part]) for part in own}
    drawn = {part: losses.part_triangles({part: vertices[part]}, own[part])[part] for part in own}
    return vertices, drawn


def make_targets(method: Method, labels: Array, anchors: np.ndarray) -> dict[str, Array]:
    """What the loss is given for each part of label maps [B, S, S]."""
    if method.sees:
        return losses.pixel_targets(labels)
    masks = parts.part_masks(labels)
    if not method.descriptors:
        return masks
    describe = jax.vmap(lambda mask: losses.mask_descriptor(mask, anchors))
    return {part: describe(mask) for part, mask in masks.items()}


def point_masks(
    method: Method, model: FaceModel, face: Face, vertices: Mapping[str, np.ndarray], cut: Array, size: int
) -> dict[str, Array]:
    """Which vertices count, and how much.

    Args:
        method: whether hidden vertices count.
        model: the face model.
        face: decoded.
        vertices: of each part.
        cut: [B] whether the target's skin was cut above the brows; the model's is cut there then.
        size: side of the picture.
    """
    points = {part: face.points[:, index] for part, index in vertices.items()}
    masks = {part: jnp.ones(array.shape[:2]) for part, array in points.items()}
    if method.visible:
        areas = visible_areas(face.points, face.depth, model.triangles, image_size=size)
        masks = {part: areas[:, index] for part, index in vertices.items()}
    return comparable_areas(points, masks, cut)
