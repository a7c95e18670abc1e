"""decode_face: from coefficients to everything that the losses and the outputs need."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxface.core import cameras, face_models, lighting
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients
from jaxface.core.face_models import FaceModel
from jaxface.core.landmarks import march_landmarks, unrolled_x
from jaxface.core.typed_jit import typed_jit


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Face:
    """A batch of decoded faces.

    Attributes:
        shape: [B, V, 3] model space, before the pose, in model units (10 cm).
        vertices: [B, V, 3] camera space (x, y, distance - z), in model units.
        points: [B, V, 2] image points in pixels, y down.
        depth: [B, V] distance from the camera along its axis, in model units; equals vertices[..., 2].
        normals: [B, V, 3] unit vectors in posed model space (x right, y up, z towards the viewer).
        albedo: [B, V, 3] colours without light.
        colors: [B, V, 3] colours under the light, about [0, 1], not clipped.
    """

    shape: Float[Array, "B V 3"]
    vertices: Float[Array, "B V 3"]
    points: Float[Array, "B V 2"]
    depth: Float[Array, "B V"]
    normals: Float[Array, "B V 3"]
    albedo: Float[Array, "B V 3"]
    colors: Float[Array, "B V 3"]


@typed_jit  # called by itself, it would otherwise be compiled in eighty pieces
def decode_face(model: FaceModel, coefficients: Coefficients, camera: Camera) -> Face:
    """Decodes coefficients to shape, pose, projection, normals, albedo and shaded colours (3DDFA-V3, section 3.1).

    Pure and differentiable. As in the reference code, normals are those of the unposed shape, rotated.
    """
    shape = face_models.shape(model, coefficients.identity, coefficients.expression)
    vertices = cameras.to_camera_space(cameras.pose(shape, coefficients.angles, coefficients.translation), camera)
    unposed_normals = face_models.vertex_normals(shape, model.triangles)
    normals = cameras.rotate(unposed_normals, coefficients.angles)
    albedo = face_models.albedo(model, coefficients.albedo)
    return Face(
        shape=shape,
        vertices=vertices,
        points=cameras.project(vertices, camera),
        depth=vertices[..., 2],
        normals=normals,
        albedo=albedo,
        colors=lighting.shade(albedo, normals, coefficients.light),
    )


@typed_jit
def vertex_points(model: FaceModel, vectors: Float[Array | np.ndarray, "B K"], camera: Camera) -> Float[Array, "B V 2"]:
    """Where the vertices of faces lie in the picture, in pixels, y down: `decode_face` for points alone.

    Args:
        model: the face model, or one cut down by `face_models.shape_of_vertices`.
        vectors: coefficients.
        camera: of the picture.
    """
    coefficients = Coefficients.from_vector(vectors, model)
    shape = face_models.shape(model, coefficients.identity, coefficients.expression)
    posed = cameras.pose(shape, coefficients.angles, coefficients.translation)
    return cameras.project(cameras.to_camera_space(posed, camera), camera)


def landmark_points(
    model: FaceModel, points: Float[Array, "B V 2"], roll: Float[Array, "B"], *, scheme: str = "68"
) -> Float[Array, "B L 2"]:
    """Landmarks in the picture as a detector gives them: those of the cheeks march to the outline that is seen.

    Args:
        model: a face model with landmarks of that scheme; without its contours nothing marches.
        points: image points of its vertices, see `Face.points`.
        roll: of the face, in radians.
        scheme: a key of `model.landmarks`.

    Returns:
        [B, L, 2] in the unit of `points`; 68 by default.
    """
    if scheme not in model.contours:
        return points[:, model.landmarks[scheme]]
    indices = march_landmarks(unrolled_x(points, roll), model.landmarks[scheme], model.contours[scheme])
    return jnp.take_along_axis(points, indices[..., None], axis=1)
