"""The files that a face's mesh is written to: one function per format, and the registry of them.

A new format is a function like these and a line in EXPORTERS; every fitted face is then written in it too, and the page
offers it for download (docs/extending.md).
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, UInt8

from jaxface.core.face_models import FaceModel, vertex_normals
from jaxface.files import meshes
from jaxface.results.blendshapes import blendshape_weights, expression_blendshapes
from jaxface.results.drawing import DrawnFace, vertex_colors
from jaxface.texture.baking import vertex_texture
from jaxface.texture.from_photo import texture_layout

MODEL_COLORS_SIZE = 1024
"""Side in pixels, at most, of the texture with the model's own colours, which are known at the vertices alone."""


@dataclasses.dataclass(frozen=True)
class ExportedFace:
    """What an exporter may write: a face before the pose, its expression kept.

    Attributes:
        model: the face model.
        drawn: the face, decoded, drawn and textured.
        vertices: [V, 3] in model units (10 cm), y up, z towards the viewer.
        triangles: [T, 3] counter-clockwise from outside.
        uv: [V, 2] texture coordinates, u right, v up.
        texture: [S, S, 3] for them, row 0 on top.
    """

    model: FaceModel
    drawn: DrawnFace
    vertices: Float[np.ndarray, "V 3"]
    triangles: Integer[np.ndarray, "T 3"]
    uv: Float[np.ndarray, "V 2"]
    texture: UInt8[np.ndarray, "S S 3"]


Exporter = Callable[[Path, ExportedFace], None]
"""Writes a face to a file of that path, and perhaps others beside it; raises InputError when that cannot be done."""


def write_obj(path: Path, face: ExportedFace) -> None:
    """Wavefront OBJ in millimetres, with its material and the photo's texture."""
    meshes.write_obj(path, face.vertices, face.triangles, uv=face.uv, texture=face.texture)


def write_model_colors(path: Path, face: ExportedFace) -> None:
    """Wavefront OBJ in millimetres, with the face model's own colours as texture."""
    size = min(len(face.texture), MODEL_COLORS_SIZE)
    own = vertex_texture(np.asarray(face.drawn.face.albedo[0]), *texture_layout(face.model), texture_size=size)
    meshes.write_obj(path, face.vertices, face.triangles, uv=face.uv, texture=own, texture_name=f"{path.stem}.png")


def write_ply(path: Path, face: ExportedFace) -> None:
    """PLY in millimetres, with the photo's colours at the vertices."""
    meshes.write_ply(path, face.vertices, face.triangles, colors=vertex_colors(face.model, face.drawn))


def write_glb(path: Path, face: ExportedFace) -> None:
    """Binary glTF in metres: the neutral face, its expressions as blendshapes that are set to the photo's."""
    blendshapes = expression_blendshapes(face.model)
    meshes.write_glb(
        path,
        face.vertices,
        face.triangles,
        normals=np.asarray(vertex_normals(face.drawn.face.shape[0], face.triangles)),
        uv=face.uv,
        texture=face.texture,
        targets=blendshapes.deltas,
        target_names=blendshapes.names,
        weights=blendshape_weights(face.model, face.drawn.coefficients.expression[0]),
    )


EXPORTERS: dict[str, tuple[str, Exporter]] = {
    "mesh.glb": ("GLB", write_glb),
    "mesh.obj": ("OBJ", write_obj),
    "model_colors.obj": ("OBJ, the model's colours", write_model_colors),
    "mesh.ply": ("PLY", write_ply),
}
"""File name -> what the page calls it, and what writes it."""


def export_face(folder: Path, model: FaceModel, drawn: DrawnFace) -> None:
    """Writes a drawn face into a folder in every format of EXPORTERS.

    Args:
        folder: an existing folder.
        model: the face model.
        drawn: the face.

    Raises:
        InputError: when a file cannot be written.
    """
    vertices, triangles = np.asarray(drawn.face.shape[0]), np.asarray(model.triangles)
    face = ExportedFace(model, drawn, vertices, triangles, texture_layout(model)[0], drawn.texture)
    for name, (_, write) in EXPORTERS.items():
        write(folder / name, face)
