"""Losses of 3D face reconstruction: plain functions of arrays that return one value per sample [B].

They need jax and numpy only and can be used without the rest of jaxface. `prdl` is the module of PRDL's pieces
(anchors, descriptors); everything else here is a function or a constant.
"""

from jaxface.core.landmarks import march_landmarks, unrolled_x
from jaxface.losses import prdl
from jaxface.losses.landmark import LANDMARK_WEIGHTS_68, landmark_loss
from jaxface.losses.perceptual import (
    ARCFACE_CHIP,
    DLIB_CHIP,
    ChipTemplate,
    align_chips,
    cosine_feature_loss,
    perceptual_loss,
)
from jaxface.losses.photometric import photometric_loss
from jaxface.losses.pixel_prdl import PixelTargets, pixel_prdl_loss, pixel_targets
from jaxface.losses.point_sets import chamfer_loss, density_aware_chamfer_loss, icp_loss
from jaxface.losses.prdl import grid_anchors, mask_descriptor, point_descriptor, prdl_loss
from jaxface.losses.regularization import coefficient_regularization, light_regularization, reflectance_loss
from jaxface.losses.silhouette import part_triangles, reda_loss, silhouette_iou_loss

__all__ = [
    "ARCFACE_CHIP",
    "DLIB_CHIP",
    "LANDMARK_WEIGHTS_68",
    "ChipTemplate",
    "PixelTargets",
    "align_chips",
    "chamfer_loss",
    "coefficient_regularization",
    "cosine_feature_loss",
    "density_aware_chamfer_loss",
    "grid_anchors",
    "icp_loss",
    "landmark_loss",
    "light_regularization",
    "march_landmarks",
    "mask_descriptor",
    "part_triangles",
    "perceptual_loss",
    "photometric_loss",
    "pixel_prdl_loss",
    "pixel_targets",
    "point_descriptor",
    "prdl",
    "prdl_loss",
    "reda_loss",
    "reflectance_loss",
    "silhouette_iou_loss",
    "unrolled_x",
]
