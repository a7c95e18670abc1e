"""What `jaxface.fit_photo` returns: the photo's faces as arrays and as meshes, and the way to disk."""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, UInt8
from PIL import Image

from jaxface.core import face_models
from jaxface.core.coefficients import Coefficients
from jaxface.core.errors import InputError, needs_extra
from jaxface.core.face_models import FaceModel
from jaxface.core.units import MM_PER_UNIT
from jaxface.files.atomic import atomic_folder
from jaxface.results.drawing import (
    USUAL_DRAWING,
    DrawingOptions,
    DrawnFace,
    Reconstruction,
    draw_face,
    face_pictures,
    turned_views,
)
from jaxface.results.gallery import DONE_FILE
from jaxface.results.photo_files import measure, projection_matrix
from jaxface.results.photos import write_results
from jaxface.texture.from_photo import texture_layout

if TYPE_CHECKING:
    import trimesh

"""One model unit is 10 cm."""


class FittedFace:
    """One face of a photo. What takes time (texture, pictures, measures) is made when it is first asked for.

    Attributes:
        model: the face model.
        reconstruction: the coefficient vector, the aligned crop that it was fitted to, and where it lies in the photo.
        coefficients: a batch of one; light and pose are those of the crop's camera, `jaxface.Camera()`.
    """

    def __init__(
        self,
        model: FaceModel,
        reconstruction: Reconstruction,
        photo: UInt8[np.ndarray, "H W 3"],
        *,
        drawing: DrawingOptions = USUAL_DRAWING,
    ):
        self.model, self.reconstruction, self._photo, self._drawing = model, reconstruction, photo, drawing
        self.coefficients = Coefficients.from_vector(np.asarray(reconstruction.vector)[None], model)

    @property
    def vertices(self) -> Float[np.ndarray, "V 3"]:
        """Millimetres, before the pose, expression kept: x to the image's right, y up, z out of the face."""
        return MM_PER_UNIT * np.asarray(self.drawn.face.shape[0])

    @property
    def triangles(self) -> Integer[np.ndarray, "T 3"]:
        """Vertex indices, counter-clockwise from outside."""
        return np.asarray(self.model.triangles)

    @property
    def landmarks(self) -> Float[np.ndarray, "68 2"]:
        """The 68 landmarks in photo pixels (x, y), y down; those of the outline lie on the outline that is seen."""
        return self.drawn.alignment.to_photo(self.drawn.landmarks["68"])

    @property
    def camera_matrix(self) -> Float[np.ndarray, "3 4"]:
        """P with (x w, y w, w) = P (X, Y, Z, 1): from `vertices` to photo pixels (x, y), y down."""
        alignment = self.reconstruction.alignment
        camera = alignment.photo_camera(self.reconstruction.camera(alignment.size))
        return projection_matrix(self.coefficients, camera) @ np.diag([1 / MM_PER_UNIT] * 3 + [1.0])

    @functools.cached_property
    def drawn(self) -> DrawnFace:
        """The face decoded, drawn over its crop and textured from the photo."""
        return draw_face(self.model, self.reconstruction, self._photo, options=self._drawing)

    @property
    def texture(self) -> UInt8[np.ndarray, "S S 3"]:
        """The photo's colours, completed by the model's where the photo does not show the face; row 0 is v = 1."""
        return self.drawn.texture

    @property
    def uv(self) -> Float[np.ndarray, "V 2"]:
        """Where a vertex lies in the texture: u right, v up, in [0, 1]."""
        return texture_layout(self.model)[0]

    @functools.cached_property
    def pictures(self) -> dict[str, UInt8[np.ndarray, "S S 3"]]:
        """The crop and, over it, the face in its colours, as clay, and more: see `drawing.face_pictures`."""
        return face_pictures(self.drawn)

    @functools.cached_property
    def measures(self) -> dict[str, Any]:
        """Part IoU and landmark error against what the detector saw, see `outputs.measure`."""
        return measure(self.model, self.reconstruction)

    @property
    def doubts(self) -> list[str]:
        """What speaks against trusting this face, such as "too small: ...", a sentence each; mostly nothing."""
        return self.measures["doubts"]

    def mesh(self, *, expression: Float[Array | np.ndarray, "Ke"] | None = None) -> "trimesh.Trimesh":
        """The textured mesh in millimetres; `.show()` turns it, `.export("face.glb")` writes it.

        Args:
            expression: expression coefficients to wear instead of the photo's; zeros are the neutral face.
        """
        with needs_extra("photo", "a mesh in memory"):
            import trimesh  # takes 0.7 s, which the command line need not spend

        material = trimesh.visual.material.PBRMaterial(
            baseColorTexture=Image.fromarray(self.texture), metallicFactor=0.0, roughnessFactor=0.9
        )
        visual = trimesh.visual.TextureVisuals(uv=self.uv, material=material)
        vertices = MM_PER_UNIT * np.asarray(self._with_expression(expression).face.shape[0])
        return trimesh.Trimesh(vertices, self.triangles, visual=visual, process=False)

    def turned(
        self, *, yaw: float = 0.0, pitch: float = 0.0, expression: Float[Array | np.ndarray, "Ke"] | None = None
    ) -> UInt8[np.ndarray, "S S 3"]:
        """A picture of the textured mesh from another side, on white.

        Args:
            yaw: in radians, positive towards the image's right; 0 is straight ahead, whatever the photo's pose.
            pitch: in radians, positive is down.
            expression: as for `mesh`.
        """
        return turned_views(self.model, self._with_expression(expression), yaw=yaw, pitch=pitch)[0]

    def _with_expression(self, expression: Float[Array | np.ndarray, "Ke"] | None) -> DrawnFace:
        if expression is None:
            return self.drawn
        fitted, given = self.coefficients.expression, np.asarray(expression, np.float32)[None]
        if given.shape != fitted.shape:
            raise InputError(f"{self.model.name} has {fitted.shape[-1]} expression coefficients, not {given[0].shape}")
        shape = face_models.shape(self.model, self.coefficients.identity, jnp.asarray(given))
        return dataclasses.replace(self.drawn, face=dataclasses.replace(self.drawn.face, shape=shape))


class FittedPhoto:
    """A photo and its faces, the largest first.

    Attributes:
        faces: at least one.
        photo: [H, W, 3] the pixels, upright.
        name: the photo's file name.
        settings: how it was made, as told in every result.
    """

    def __init__(
        self,
        model: FaceModel,
        photo: UInt8[np.ndarray, "H W 3"],
        reconstructions: Sequence[Reconstruction],
        *,
        name: str,
        settings: Mapping[str, str],
        drawing: DrawingOptions = USUAL_DRAWING,
    ):
        self.faces = [FittedFace(model, one, photo, drawing=drawing) for one in reconstructions]
        self.photo, self.name, self.settings, self._drawing = photo, name, settings, drawing

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes what `python -m jaxface.fit` writes for a photo: meshes, pictures, coefficients, a page.

        Args:
            folder: made if need be; results that are in it are replaced.

        Returns:
            The page to open.

        Raises:
            InputError: when `folder` holds other files, or cannot be written.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file; name a folder for the results")
        if folder.is_dir() and any(folder.iterdir()) and not (folder / DONE_FILE).is_file():
            raise InputError(f"{folder}: holds other files; name a new folder for the results")
        record = {"photo": self.name, "sha256": None, "settings": dict(self.settings)}
        with atomic_folder(folder) as partial:
            write_results(
                partial,
                self.faces[0].model,
                self.photo,
                [face.reconstruction for face in self.faces],
                record,
                description="fit",
                drawing=self._drawing,
            )
        return folder / "index.html"
