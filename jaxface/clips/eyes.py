"""Eyes of a face that is followed: where they look, by the irises that a detector sees, and lids that close.

The points of lids and irises that a detector tells are drawn towards what is usual: closed lids come out a little open,
and eyes that look aside look less so. In a clip, what is usual of a person is known, and the rest can be stretched.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxface.clips.smoothing import fill_gaps
from jaxface.core import cameras, face_models
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients, vector_columns
from jaxface.core.face_models import FaceModel
from jaxface.fitting.priors import Prior
from jaxface.synthetic.eyeballs import IRIS_RADIUS, RADIUS, gaze_tables, place_eyes

IRISES = (473, 468)
"""Middles of the left and the right iris among the detector's points."""

CORNERS = ((362, 263), (33, 133))
"""The corners of the left and the right eye among them."""

MODEL_CORNERS = ((42, 45), (36, 39))
"""The same among ibug's 68 landmarks."""

CLOSED = 0.5
"""Share of eyeBlink beyond which nobody sees the iris."""

LIDS = 1.3
"""By how much the closing of lids is stretched: see experiments/clip_accuracy."""

ASIDE = 1.3
"""Likewise the turning of eyes to the side."""


def sideways_gaze(
    model: FaceModel, vectors: Float[np.ndarray, "F K"], points: Float[np.ndarray, "F 478 2"], camera: Camera
) -> Float[np.ndarray, "F"]:
    """How far both eyes turn to the image's right in the head, in degrees; NaN where the points are.

    An iris lies on its eyeball. How far from the ball's middle is measured from the corners of the eye that the same
    detector saw, so that a habit which moves all of an eye cancels.

    Args:
        model: the face model.
        vectors: coefficients of the frames.
        points: of the detector, in pixels of the frames' crops.
        camera: of the crops.
    """
    coefficients = Coefficients.from_vector(jnp.asarray(vectors, jnp.float32), model)
    balls = place_eyes(model, coefficients.identity)
    small = face_models.shape_of_vertices(model, np.asarray(model.landmarks["68"])[np.asarray(MODEL_CORNERS).ravel()])
    still = jnp.zeros_like(coefficients.expression)
    corners = face_models.shape(small, coefficients.identity, still).reshape(len(vectors), 2, 2, 3).mean(2)

    def seen(positions):
        posed = cameras.pose(positions, coefficients.angles, coefficients.translation)
        in_camera = cameras.to_camera_space(posed, camera)
        return np.asarray(cameras.project(in_camera, camera)), np.abs(np.asarray(in_camera)[..., 2])

    (ball, depth), (corner, _) = seen(balls), seen(corners)
    offset = points[:, IRISES] - points[:, CORNERS].mean(2) - (ball - corner)
    across, down = np.moveaxis(offset * depth[..., None] / camera.focal, -1, 0)
    ring = RADIUS * np.sqrt(1 - IRIS_RADIUS**2)  # from the ball's middle to that of the iris
    along = np.sqrt(np.maximum(ring**2 - across**2 - down**2, (0.3 * ring) ** 2))
    aside, up = np.moveaxis((ball - np.asarray(camera.center)) / camera.focal, -1, 0) * [[[1.0]], [[-1.0]]]
    toward = np.stack([across - aside * along, -down - up * along, along], axis=-1)
    rotation = np.asarray(cameras.rotation_matrix(coefficients.angles))
    x, _, z = np.moveaxis(np.einsum("fji,fej->fei", rotation, toward), -1, 0)
    return np.degrees(np.arctan2(x, z)).mean(1)


def follow_eyes(
    model: FaceModel,
    vectors: Float[np.ndarray, "F K"],
    points: Float[np.ndarray, "F 478 2"],
    camera: Camera,
    prior: Prior,
    *,
    times: Float[np.ndarray, "F"],
) -> Float[np.ndarray, "F K"]:
    """The vectors with eyes that look where the irises are, and lids that close; as they are without such units.

    Args:
        model: the face model; its expression units bear ARKit's names, such as "eyeBlinkLeft", or there are none.
        vectors: coefficients of the frames, without gaps.
        points: of the detector, in pixels of the frames' crops; NaN where a frame shows no face.
        camera: of the crops.
        prior: coefficients stay within its bounds.
        times: of the frames in seconds, increasing.
    """
    first, names = vector_columns(model)["expression"].start, model.expression_labels
    blinks = [first + unit for unit, name in enumerate(names) if name.startswith("eyeBlink")]
    degrees = gaze_tables(names)[..., 0].sum(0)
    if not blinks or not degrees.any():
        return vectors
    result = np.array(vectors)
    seen = np.isfinite(points).all((1, 2)) & (vectors[:, blinks].max(1) < CLOSED)
    if seen.any():
        gaze = ASIDE * sideways_gaze(model, vectors, points, camera)
        gaze = fill_gaps(gaze[:, None], seen, times=times)[:, 0]
        for unit in np.flatnonzero(degrees):
            result[:, first + unit] = np.clip(gaze / degrees[unit], 0.0, 1.0)
    usual = np.median(vectors[:, blinks], axis=0)
    closing = np.maximum(vectors[:, blinks] - usual, 0.0)
    result[:, blinks] = np.minimum(vectors[:, blinks] + (LIDS - 1) * closing, np.asarray(prior.upper)[blinks])
    return result
