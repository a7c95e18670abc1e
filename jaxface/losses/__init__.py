"""Losses of 3D face reconstruction: plain functions of arrays that return one value per sample [B].

They need jax and numpy only and can be used without the rest of jaxface. `prdl` is the module of PRDL's pieces
(anchors, descriptors); everything else here is a function or a constant.
"""

from jaxface.losses import prdl
from jaxface.losses.landmark import LANDMARK_WEIGHTS_68, landmark_loss, march_landmarks, unrolled_x
from jaxface.losses.perceptual import cosine_feature_loss
from jaxface.losses.photometric import photometric_loss
from jaxface.losses.prdl import grid_anchors, mask_descriptor, point_descriptor, prdl_loss
from jaxface.losses.regularization import coefficient_regularization, light_regularization, reflectance_loss

__all__ = [
    "LANDMARK_WEIGHTS_68",
    "coefficient_regularization",
    "cosine_feature_loss",
    "grid_anchors",
    "landmark_loss",
    "light_regularization",
    "march_landmarks",
    "mask_descriptor",
    "photometric_loss",
    "point_descriptor",
    "prdl",
    "prdl_loss",
    "reflectance_loss",
    "unrolled_x",
]
