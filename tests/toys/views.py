"""Views of the built-in face model with their true label maps, for the tests of the annotation."""

import jax
import numpy as np

from jaxface.annotation.views import draw_all_views, mesh_box, random_views, view_camera
from jaxface.core.parts import cut_forehead
from jaxface.render import label_triangles

SIZE, VIEWS = 256, 24


def drawn_views(model) -> tuple[np.ndarray, list, list[np.ndarray]]:
    """Coefficients of the views, the views, and their label maps."""
    box = mesh_box(model)
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)  # much is compiled, and runs once
    try:
        vectors = random_views(model, VIEWS, seed=3, box=box)
        views = list(draw_all_views(model, vectors, view_camera(box, size=SIZE)))
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
    table = label_triangles(model.parts, model.triangles)
    labels = [cut_forehead(np.where(view.triangle >= 0, table[view.triangle], 0).astype(np.uint8)) for view in views]
    return vectors, views, labels
