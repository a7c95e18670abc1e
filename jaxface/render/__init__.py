"""Rendering: z-buffers, also of triangles with holes, soft silhouettes, interpolation, part labels, visible areas.

Imports jax and numpy only.
"""

from jaxface.render.areas import coarse_visibility, projected_areas, visible_areas
from jaxface.render.cutouts import rasterize_cutouts
from jaxface.render.labels import label_map, label_triangles, render_labels, vertex_visibility
from jaxface.render.rasterizer import Fragments, interpolate, rasterize
from jaxface.render.soft import soft_silhouette
from jaxface.render.view import View, render_face

__all__ = [
    "Fragments",
    "View",
    "coarse_visibility",
    "interpolate",
    "label_map",
    "label_triangles",
    "projected_areas",
    "rasterize",
    "rasterize_cutouts",
    "render_face",
    "render_labels",
    "soft_silhouette",
    "vertex_visibility",
    "visible_areas",
]
