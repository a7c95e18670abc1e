"""Faces as a camera sees them: the one place where what vertices carry becomes pixels."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from jaxface.core.faces import Face
from jaxface.render.rasterizer import Fragments, interpolate, rasterize


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class View:
    """A batch of faces in a picture.

    Attributes:
        fragments: which triangle each pixel shows, where in it, and how far away.
        triangles: [T, 3] of the mesh.
    """

    fragments: Fragments
    triangles: Integer[Array | np.ndarray, "T 3"]

    @property
    def seen(self) -> Bool[Array, "B H W"]:
        """Which pixels a face covers."""
        return self.fragments.triangle >= 0

    def draw(self, attributes: Float[Array | np.ndarray, "B V C"]) -> Float[Array, "B H W C"]:
        """What the vertices carry, between them; 0 where there is no face. Differentiable, see `interpolate`."""
        return interpolate(self.fragments, self.triangles, attributes)


def render_face(
    face: Face, triangles: Integer[Array | np.ndarray, "T 3"], *, image_size: int | tuple[int, int]
) -> View:
    """Rasterizes decoded faces; what is then drawn of them costs no more than that.

        view = render_face(face, model.triangles, image_size=camera.image_size)
        picture = view.draw(face.colors)

    Args:
        face: from `decode_face`, with a camera of that picture.
        triangles: of the face model.
        image_size: side, or (height, width), of the picture in pixels.
    """
    return View(rasterize(face.points, face.depth, triangles, image_size=image_size), triangles)
