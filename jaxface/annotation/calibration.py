"""Measuring a detector on drawn faces: where each of its points lies on the mesh, and how far which err together."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from jaxface.core import cameras, face_models
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import LAST_COLUMNS, Coefficients
from jaxface.core.errors import needs_extra
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import decode_face
from jaxface.core.landmarks import IBUG_68
from jaxface.core.typed_jit import typed_jit
from jaxface.core.units import MM_PER_UNIT
from jaxface.photos.alignment import Alignment, alignment_template, fit_alignment
from jaxface.render import rasterize
from jaxface.synthetic.photographs import PHOTO_SIZE

YAWS = np.arange(-80.0, 81.0, 10.0)
"""The table's yaws in degrees."""

KERNEL = 10.0
"""Degrees: standard deviation of the weights that faces at other yaws have."""

SHRINKAGE, FLOOR = 0.9, 0.04
"""The covariance is 0.9 S + 0.1 diag S + 0.04 px^2: S alone, of fewer faces than numbers, would be sure of too much."""

DIRECTIONS = 40
"""Of the covariance, those of the largest variance are kept; the rest is counted to each point by itself."""

LOST = 12.0
"""Pixels of the 224 crop: where the median point is farther off, the detector took something else for the face."""

FRONTAL = 30.0
"""Degrees: faces up to this yaw tell where the points lie."""

CANDIDATES = 24
"""Triangles among which the one under a point is looked for."""


@dataclasses.dataclass(frozen=True)
class Detections:
    """Drawn faces, and where a detector saw their points.

    Attributes:
        points: [N, P, 2] in pixels of the photographs.
        coefficients: [N, K] the true ones.
        focal: [N] of the true camera, in pixels.
        center: [N, 2] likewise.
        distance: [N] likewise, in model units.
    """

    points: Float[np.ndarray, "N P 2"]
    coefficients: Float[np.ndarray, "N K"]
    focal: Float[np.ndarray, "N"]
    center: Float[np.ndarray, "N 2"]
    distance: Float[np.ndarray, "N"]

    @property
    def yaws(self) -> Float[np.ndarray, "N"]:
        """True yaws in degrees."""
        return np.degrees(self.coefficients[:, LAST_COLUMNS["angles"]][:, 1])

    def camera(self, index: int) -> Camera:
        """The true camera of one photograph."""
        x, y = self.center[index].tolist()
        return Camera(float(self.focal[index]), (x, y), float(self.distance[index]), (PHOTO_SIZE, PHOTO_SIZE))


def vote_places(
    model: FaceModel, found: Detections
) -> tuple[Integer[np.ndarray, "P 3"], Float[np.ndarray, "P 3"], Float[np.ndarray, "P"]]:
    """Where each of the detector's points lies on the mesh: what it lies on in the pictures, on average.

    Each frontal face votes with the spot under the point, carried to the mean face; the geometric median of the votes
    is brought back to the nearest spot of the surface.

    Returns:
        Vertices [P, 3] around each point, their weights [P, 3], and [P] how far the votes stray (median, mm); NaN for
        points without any vote, whose place means nothing.
    """
    frontal = np.flatnonzero(np.abs(found.yaws) < FRONTAL)
    votes = []
    for index in frontal.tolist():
        spots, hit = _spots(
            model,
            found.coefficients[index][None],
            found.points[index],
            found.camera(index),
        )
        votes.append(np.where(np.asarray(hit)[:, None], np.asarray(spots), np.nan))
    cast = np.stack(votes)
    places, stray = np.zeros(cast.shape[1:]), np.full(cast.shape[1], np.nan)
    for point, column in enumerate(cast.transpose(1, 0, 2)):
        given = column[np.isfinite(column[:, 0])]
        if len(given):
            places[point] = _geometric_median(given)
            stray[point] = MM_PER_UNIT * np.median(np.linalg.norm(given - places[point], axis=-1))
    return *_nearest_spots(np.asarray(model.mean_shape), np.asarray(model.triangles), places), stray


def _nearest_spots(
    vertices: Float[np.ndarray, "V 3"], triangles: Integer[np.ndarray, "T 3"], points: Float[np.ndarray, "P 3"]
) -> tuple[Integer[np.ndarray, "P 3"], Float[np.ndarray, "P 3"]]:
    """The vertices around the nearest spot of a surface, and their weights; among the triangles with near centres."""
    with needs_extra("photo", "calibration"):
        import trimesh
    corners = vertices[triangles]
    _, near = cKDTree(corners.mean(1)).query(points, min(CANDIDATES, len(triangles)))
    candidates = corners[near].reshape(-1, 3, 3)
    spots = trimesh.triangles.closest_point(candidates, np.repeat(points, near.shape[1], axis=0))
    distance = np.linalg.norm(spots.reshape(*near.shape, 3) - points[:, None], axis=-1)
    best = np.arange(len(points)), distance.argmin(-1)
    weights = trimesh.triangles.points_to_barycentric(corners[near[best]], spots.reshape(*near.shape, 3)[best])
    weights = np.clip(weights, 0, 1)
    return triangles[near[best]], weights / weights.sum(-1, keepdims=True)


@typed_jit
def _spots(
    model: FaceModel,
    coefficients: Float[Array | np.ndarray, "1 K"],
    points: Float[Array | np.ndarray, "P 2"],
    camera: Camera,
) -> tuple[Float[Array, "P 3"], Bool[Array, "P"]]:
    """The spots of the mean face under points of a photograph, and whether there is one."""
    face = decode_face(model, Coefficients.from_vector(jnp.asarray(coefficients), model), camera)
    fragments = rasterize(face.points, face.depth, model.triangles, image_size=PHOTO_SIZE)
    column, row = jnp.clip(jnp.asarray(points).astype(jnp.int32), 0, PHOTO_SIZE - 1).T
    triangle, weights = fragments.triangle[0, row, column], fragments.barycentric[0, row, column]
    corners = jnp.asarray(model.mean_shape)[jnp.asarray(model.triangles)[jnp.maximum(triangle, 0)]]
    return (weights[..., None] * corners).sum(1), triangle >= 0


def _geometric_median(points: Float[np.ndarray, "N 3"], steps: int = 50) -> Float[np.ndarray, "3"]:
    """The point whose distances to all others sum up to the least (Weiszfeld 1937)."""
    center = np.median(points, axis=0)
    for _ in range(steps):
        weights = 1 / np.maximum(np.linalg.norm(points - center, axis=-1), 1e-4)
        center = (weights[:, None] * points).sum(0) / weights.sum()
    return center


def detection_errors(
    model: FaceModel,
    found: Detections,
    triangles: Integer[np.ndarray, "P 3"],
    barycentric: Float[np.ndarray, "P 3"],
) -> Float[np.ndarray, "N P 2"]:
    """Detected minus true points, in pixels of the 224 crop that the detected landmarks would give."""
    errors, crops = [], crop_alignments(model, found)
    for index, points in enumerate(found.points):
        camera = found.camera(index)
        vertices = np.asarray(_posed(model, found.coefficients[index][None]))[0]
        spots = (barycentric[..., None] * vertices[triangles]).sum(1)
        true = np.asarray(cameras.project(cameras.to_camera_space(spots, camera), camera))
        errors.append(crops[index].scale * (points - true))
    return np.stack(errors)


def crop_alignments(model: FaceModel, found: Detections) -> list[Alignment]:
    """The crops that the detected landmarks give."""
    template = alignment_template(model)
    photo_size = (PHOTO_SIZE, PHOTO_SIZE)
    return [fit_alignment(points[IBUG_68], template, photo_size=photo_size) for points in found.points]


def crop_points(model: FaceModel, found: Detections) -> Float[np.ndarray, "N P 2"]:
    """The detected points in pixels of their crops."""
    crops = crop_alignments(model, found)
    return np.stack([crop.to_crop(points) for crop, points in zip(crops, found.points, strict=True)])


@typed_jit
def _posed(model: FaceModel, coefficients: Float[Array | np.ndarray, "1 K"]) -> Float[Array, "1 V 3"]:
    one = Coefficients.from_vector(jnp.asarray(coefficients), model)
    return cameras.pose(face_models.shape(model, one.identity, one.expression), one.angles, one.translation)


def mirror_points(places: Float[np.ndarray, "P 3"]) -> Integer[np.ndarray, "P"]:
    """The mirror image of each point: the pairs whose places on the mean face agree best, each point in one of them."""
    mirrored = places * np.array([-1.0, 1.0, 1.0])
    return linear_sum_assignment(np.linalg.norm(mirrored[:, None] - places[None], axis=-1))[1]


def covariance_table(
    errors: Float[np.ndarray, "N P 2"], yaws: Float[np.ndarray, "N"], mirror: Integer[np.ndarray, "P"]
) -> tuple[Float[np.ndarray, "Y P2"], Float[np.ndarray, "Y P2 R"]]:
    """Second moments of the errors around each yaw, as a diagonal plus a product.

    The mean error is not taken off: that of drawn faces is not that of people.

    Args:
        errors: px at 224 x 224.
        yaws: degrees.
        mirror: each point's mirror image: a face seen in a mirror is a face as well.
    """
    mirrored = errors[:, mirror] * np.array([-1.0, 1.0])
    both, all_yaws = np.concatenate([errors, mirrored]), np.concatenate([yaws, -yaws])
    rows = both.reshape(len(both), -1)
    variances, factors = [], []
    for yaw in YAWS:
        weights = np.exp(-0.5 * ((all_yaws - yaw) / KERNEL) ** 2)
        moment = (weights[:, None] * rows).T @ rows / weights.sum()
        covariance = SHRINKAGE * moment
        values, vectors = np.linalg.eigh(covariance)
        factor = vectors[:, -DIRECTIONS:] * np.sqrt(np.maximum(values[-DIRECTIONS:], 0))
        rest = np.diag(covariance) - np.square(factor).sum(-1)
        variances.append(rest + (1 - SHRINKAGE) * np.diag(moment) + FLOOR)
        factors.append(factor)
    return np.stack(variances), np.stack(factors)
