"""Where the eyes of a face look that is followed: to which side, by the irises that a detector sees."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxface.clips.smoothing import fill_gaps
from jaxface.core import cameras, face_models
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients, vector_columns
from jaxface.core.face_models import FaceModel
from jaxface.synthetic.eyeballs import IRIS_RADIUS, RADIUS, gaze_tables, place_eyes

IRISES = (473, 468)
"""Middles of the left and the right iris among the detector's points."""

CORNERS = ((362, 263), (33, 133))
"""The corners of the left and the right eye among them."""

MODEL_CORNERS = ((42, 45), (36, 39))
"""The same among ibug's 68 landmarks."""

LIDS = 0.2
"""Of eyeLookDown and eyeLookUp: as much as this of what is usual in a clip is the shape of a person's lids, no gaze."""

CLOSED = 0.5
"""Share of eyeBlink beyond which nobody sees the iris."""

ASIDE = 1.3
"""By how much the turning of the irises is stretched: a detector draws them towards the middle (to 0.6 and 0.66 of the
true turn, on the two people of experiments/clip_accuracy; stretched more, its other errors come out)."""


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


def follow_gaze(
    model: FaceModel,
    vectors: Float[np.ndarray, "F K"],
    points: Float[np.ndarray, "F 478 2"],
    camera: Camera,
    *,
    times: Float[np.ndarray, "F"],
) -> Float[np.ndarray, "F K"]:
    """The vectors with eyes that look to the side where the irises are; as they are without such units.

    How far up or down is what the fit says by the lids, less what is usual in the clip: there irises told too little.

    Args:
        model: the face model; its expression units bear ARKit's names, such as "eyeBlinkLeft", or there are none.
        vectors: coefficients of the frames, without gaps.
        points: of the detector, in pixels of the frames' crops; NaN where a frame shows no face.
        camera: of the crops.
        times: of the frames in seconds, increasing.
    """
    first, names = vector_columns(model)["expression"].start, model.expression_labels
    blinks = [first + unit for unit, name in enumerate(names) if name.startswith("eyeBlink")]
    degrees = gaze_tables(names)[..., 0].sum(0)
    seen = np.isfinite(points).all((1, 2)) & (vectors[:, blinks].max(1, initial=0.0) < CLOSED)
    if not degrees.any() or not seen.any():
        return vectors
    gaze = fill_gaps(ASIDE * sideways_gaze(model, vectors, points, camera)[:, None], seen, times=times)[:, 0]
    result = np.array(vectors)
    for unit in np.flatnonzero(degrees):
        result[:, first + unit] = np.clip(gaze / degrees[unit], 0.0, 1.0)
    for unit in np.flatnonzero(gaze_tables(names)[..., 1].sum(0)):
        usual = np.clip(np.median(vectors[:, first + unit]), 0.0, LIDS)
        result[:, first + unit] = np.maximum(
            vectors[:, first + unit] - usual, np.minimum(vectors[:, first + unit], 0.0)
        )
    return result
