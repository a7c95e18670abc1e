"""Rendering: z-buffer and soft rasterizer, interpolation, part labels. Imports jax and numpy only."""

from jaxface.render.labels import label_map, label_triangles, render_labels, vertex_visibility
from jaxface.render.rasterizer import Fragments, interpolate, rasterize
from jaxface.render.soft import soft_silhouette

__all__ = [
    "Fragments",
    "interpolate",
    "label_map",
    "label_triangles",
    "rasterize",
    "render_labels",
    "soft_silhouette",
    "vertex_visibility",
]
