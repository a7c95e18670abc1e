"""Rendering: z-buffer and soft rasterizer, interpolation, part labels. Imports jax and numpy only."""

from jaxface.render.rasterizer import Fragments, interpolate, rasterize

__all__ = ["Fragments", "interpolate", "rasterize"]
