"""The camera, and THE place where jaxface's coordinate conventions are written down.

Image        arrays [H, W, C], row 0 on top. Points (x, y) in pixels, x right, y DOWN, continuous: the image spans
             [0, W] x [0, H]; the pixel in row i and column j has its centre at (j + 0.5, i + 0.5).
Model space  x right in the image, y UP, z towards the viewer; right-handed. 1 unit = 10 cm. Triangles run
             counter-clockwise seen from outside.
Pose         v_posed = R v + t, with R = Rz(roll) Ry(yaw) Rx(pitch) applied to column vectors, angles in radians.
             Positive pitch turns the face down, positive yaw turns it towards the image's right (larger x), positive
             roll turns it counter-clockwise in the picture.
Camera space (x, y, distance - z): the posed point with z replaced by its depth, as in Deep3D's and 3DDFA-V3's code.
             Note that this mirrors z: take posed points (`pose`) when orientation matters.
Projection   x = cx + f X / depth, y = cy - f Y / depth, with f and (cx, cy) in pixels. Deep3D's code writes the same
             with y up and prints 223 - y_up (integer pixels); in continuous coordinates that is 224 - y_up, used here.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Camera:
    """Fixed pinhole camera on the z axis, looking down -z. The defaults are Deep3D's and 3DDFA-V3's.

    Attributes:
        focal: focal length in pixels; [B, 1] for a batch of faces, each with a camera of its own.
        center: principal point (x, y) in pixels, y down.
        distance: from the camera to the model's origin, in model units; likewise.
        image_size: (height, width) of the picture in pixels; static under jit.
    """

    focal: float | Float[Array, "*B 1"] = 1015.0
    center: tuple[float, float] = (112.0, 112.0)
    distance: float | Float[Array, "*B 1"] = 10.0
    image_size: tuple[int, int] = dataclasses.field(default=(224, 224), metadata={"static": True})

    def resized(self, size: int) -> "Camera":
        """The same view on a square picture of `size` pixels instead of the present height."""
        scale = size / self.image_size[0]
        center = (self.center[0] * scale, self.center[1] * scale)
        return dataclasses.replace(self, focal=self.focal * scale, center=center, image_size=(size, size))

    def stretched(self, factor: float | Float[Array, "*B 1"]) -> "Camera":
        """Moved away to `factor` times the distance, with a focal length that keeps the size of what it sees."""
        return dataclasses.replace(self, focal=self.focal * factor, distance=self.distance * factor)


def rotation_matrix(angles: Float[Array | np.ndarray, "*B 3"]) -> Float[Array, "*B 3 3"]:
    """R = Rz(roll) Ry(yaw) Rx(pitch) for angles (pitch, yaw, roll) in radians; apply as R @ column vector."""
    angles = jnp.asarray(angles)
    (cx, cy, cz), (sx, sy, sz) = (jnp.moveaxis(f(angles), -1, 0) for f in (jnp.cos, jnp.sin))
    rows = [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def pose(
    vertices: Float[Array, "*B V 3"], angles: Float[Array, "*B 3"], translation: Float[Array, "*B 3"]
) -> Float[Array, "*B V 3"]:
    """R v + t: model space to posed model space, in model units."""
    return rotate(vertices, angles) + translation[..., None, :]


def rotate(vectors: Float[Array, "*B V 3"], angles: Float[Array, "*B 3"]) -> Float[Array, "*B V 3"]:
    """R v, for directions such as normals."""
    rotation = rotation_matrix(angles)[..., None, :, :]
    x, y, z = (vectors[..., axis] for axis in range(3))
    # Written out: as a product of matrices, XLA takes seven times as long on CPU.
    rotated = [rotation[..., i, 0] * x + rotation[..., i, 1] * y + rotation[..., i, 2] * z for i in range(3)]
    return jnp.stack(rotated, axis=-1)


def to_camera_space(posed: Float[Array, "*B V 3"], camera: Camera) -> Float[Array, "*B V 3"]:
    """(x, y, z) -> (x, y, distance - z). Its own inverse."""
    return jnp.stack([posed[..., 0], posed[..., 1], camera.distance - posed[..., 2]], axis=-1)


def project(camera_points: Float[Array, "*B V 3"], camera: Camera) -> Float[Array, "*B V 2"]:
    """Perspective projection of camera-space points to image points (x, y) in pixels, y down."""
    scale = camera.focal / camera_points[..., 2]
    x = camera.center[0] + scale * camera_points[..., 0]
    y = camera.center[1] - scale * camera_points[..., 1]
    return jnp.stack([x, y], axis=-1)
