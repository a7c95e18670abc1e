"""The faces to fit: synthetic ones with extreme expressions, the two portraits, and where a fit starts."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from jaxface.core import metrics, parts
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients, vector_size, vector_sizes
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import decode_face
from jaxface.files.images import read_image
from jaxface.photos.face_crops import preprocess_photo
from jaxface.render import label_triangles, render_labels
from jaxface.results.demo import portrait_paths
from jaxface.synthetic.random_faces import EXPRESSIONS, aligned_translation

EXTREME = ("closed_eyes", "open_mouth", "frown", "smile", "surprise", "pucker", "left_wink", "right_wink")
"""The kinds of expression, in turn: of those in `random_faces` all that are not mild."""

FULL_SIZE = 224
BLOCK = 8
SPECK = 25
"""A part with fewer pixels than this in the 224 picture is not there."""

PITCH, YAW, ROLL = 12.0, 40.0, 12.0
"""Largest angles of the synthetic faces in degrees, drawn evenly."""


@dataclasses.dataclass(frozen=True)
class Faces:
    """What a fit is given, and what it is measured against.

    Attributes:
        names: of the faces.
        labels: [N, S, S] label maps that are fitted.
        full_labels: [N, 224, 224] label maps that Part IoU is measured on.
        truth: [N, K] coefficients; those of the portraits are unknown (zeros, with `known` false).
        known: [N].
        placement: [N, K] the mean face, placed: in the true pose, or, of a portrait, where its crop's alignment has it.
        pictures: [N, 224, 224, 3] photos of the portraits; black for synthetic faces.
    """

    names: list[str]
    labels: UInt8[np.ndarray, "N S S"]
    full_labels: UInt8[np.ndarray, "N S S"]
    truth: Float[np.ndarray, "N K"]
    known: np.ndarray
    placement: Float[np.ndarray, "N K"]
    pictures: UInt8[np.ndarray, "N S S 3"]

    def take(self, index) -> "Faces":
        """Some of the faces, in the order of `index`."""
        arrays = {field.name: getattr(self, field.name)[index] for field in dataclasses.fields(self)[1:]}
        return Faces([self.names[i] for i in index], **arrays)


def join(first: Faces, second: Faces) -> Faces:
    """Both, one after the other."""
    arrays = [
        np.concatenate([getattr(first, field.name), getattr(second, field.name)])
        for field in dataclasses.fields(Faces)[1:]
    ]
    return Faces(first.names + second.names, *arrays)


def synthetic_faces(model: FaceModel, *, count: int, seed: int, size: int, largest_yaw: float = YAW) -> Faces:
    """Random people who pull extreme faces, aligned as photos are, with label maps drawn from the model.

    Args:
        model: the built-in face model.
        count: how many.
        seed: other seeds give other faces.
        size: side of the label maps that are fitted.
        largest_yaw: in degrees.
    """
    random = np.random.default_rng(seed)
    units = model.expression_names
    kinds = [EXTREME[i % len(EXTREME)] for i in range(count)]
    angles = np.deg2rad(random.uniform(-1, 1, (count, 3)) * np.array([[PITCH, largest_yaw, ROLL]]))
    coefficients = Coefficients.zeros(model, count).replace(
        identity=np.clip(random.normal(size=(count, vector_sizes(model)[0])), -2.5, 2.5).astype(np.float32),
        expression=np.stack([_expression(kind, units, random) for kind in kinds]),
        angles=angles.astype(np.float32),
    )
    translation = aligned_translation(model, coefficients, scale=jnp.ones(count), shift=jnp.zeros((count, 2)))
    coefficients = coefficients.replace(translation=translation)
    truth = np.asarray(coefficients.to_vector())
    placed = Coefficients.zeros(model, count).replace(angles=coefficients.angles, translation=translation)
    yaw = np.rad2deg(angles[:, 1])
    labels, full_labels = _without_specks(*(draw_labels(model, truth, side) for side in (size, FULL_SIZE)))
    return Faces(
        names=[f"{kind.replace('_', ' ')}, yaw {degrees:+.0f}°" for kind, degrees in zip(kinds, yaw, strict=True)],
        labels=labels,
        full_labels=full_labels,
        truth=truth,
        known=np.ones(count, bool),
        placement=np.asarray(placed.to_vector()),
        pictures=np.zeros((count, FULL_SIZE, FULL_SIZE, 3), np.uint8),
    )


def _expression(kind: str, units: tuple[str, ...], random: np.random.Generator) -> Float[np.ndarray, "Ke"]:
    """The upper half of each unit's range; what makes a face extreme is made extreme."""
    ranges = EXPRESSIONS[kind][1]
    values = np.zeros(len(units), np.float32)
    strength = {unit: random.uniform(0.5, 1) for unit in ranges}  # the same on both sides of the face
    for i, name in enumerate(units):
        unit = name if name in ranges else name.removesuffix("Left").removesuffix("Right")
        if unit in ranges:
            low, high = ranges[unit]
            values[i] = low + (high - low) * strength[unit]
    return values


def _without_specks(labels: np.ndarray, full_labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Parts of a few pixels, such as the slit between closed lids, become skin: the paper filters small noise too."""
    labels, full_labels = labels.copy(), full_labels.copy()
    for part, label in parts.LABELS.items():
        if part != "skin":
            speck = (full_labels == label).sum((1, 2)) < SPECK
            for label_map in (labels, full_labels):
                label_map[(label_map == label) & speck[:, None, None]] = parts.LABELS["skin"]
    return labels, full_labels


def draw_labels(model: FaceModel, vector: Float[np.ndarray, "N K"], size: int) -> UInt8[np.ndarray, "N S S"]:
    """Label maps of faces, hidden parts hidden."""
    labels = label_triangles(model.parts, model.triangles)
    return _in_blocks(lambda block: _draw(model, block, Camera().resized(size), labels), vector)


@jax.jit
def _draw(model, vector, camera, triangle_labels):
    face = decode_face(model, Coefficients.from_vector(vector, model), camera)
    return render_labels(face.points, face.depth, model.triangles, triangle_labels, image_size=camera.image_size)


def part_ious(
    model: FaceModel, vector: Float[np.ndarray, "N K"], labels: UInt8[np.ndarray, "N S S"]
) -> Float[np.ndarray, "N 8"]:
    """Part IoU of faces with label maps, by part."""
    return _in_blocks(_part_iou, draw_labels(model, vector, labels.shape[1]), labels)


_part_iou = jax.jit(metrics.part_iou)


def _in_blocks(function: Callable[..., jax.Array], *arrays: np.ndarray) -> np.ndarray:
    """function(*arrays), in blocks of one size: compiled once for any number of faces."""
    result = []
    for begin in range(0, len(arrays[0]), BLOCK):
        index = np.minimum(np.arange(begin, begin + BLOCK), len(arrays[0]) - 1)
        result.append(np.asarray(function(*(array[index] for array in arrays))))
    return np.concatenate(result)[: len(arrays[0])]


def portraits(model: FaceModel, *, size: int) -> Faces:
    """The demo's two portraits, with MediaPipe's part masks drawn at both sizes.

    Raises:
        MissingDependencyError: when the extra `photo` is not installed.
    """
    found = []
    for path in portrait_paths().values():
        photo = read_image(path)
        found.append([preprocess_photo(photo, model, size=side)[0].sample for side in (size, FULL_SIZE)])
    nothing = np.zeros((len(found), vector_size(model)), np.float32)
    return Faces(
        names=list(portrait_paths()),
        labels=np.stack([small["labels"] for small, _ in found]),
        full_labels=np.stack([full["labels"] for _, full in found]),
        truth=nothing,
        known=np.zeros(len(found), bool),
        placement=nothing,
        pictures=np.stack([full["image"] for _, full in found]),
    )


def moved(
    model: FaceModel,
    vector: Float[np.ndarray, "N K"],
    *,
    shift: Float[np.ndarray, "N 2"],
    turn: Float[np.ndarray, "N 3"],
    enlarge: Float[np.ndarray, "N"],
) -> Float[np.ndarray, "N K"]:
    """Faces shifted in the picture, turned, and brought nearer or further away.

    Args:
        model: the face model.
        vector: coefficients.
        shift: (x, y) in pixels of the 224 picture, y down.
        turn: added to pitch, yaw and roll, in degrees.
        enlarge: factor of the size in the picture.
    """
    camera = Camera()
    coefficients = Coefficients.from_vector(vector, model)
    depth = camera.distance - np.asarray(coefficients.translation[:, 2])
    # Where the model's origin appears stays, but for the shift.
    origin = np.asarray(coefficients.translation[:, :2]) * (camera.focal / depth)[:, None] + shift * np.array([[1, -1]])
    depth = depth / enlarge
    translation = np.concatenate([origin * (depth / camera.focal)[:, None], camera.distance - depth[:, None]], axis=1)
    angles = np.asarray(coefficients.angles) + np.deg2rad(turn)
    placed = coefficients.replace(angles=angles.astype(np.float32), translation=translation.astype(np.float32))
    return np.asarray(placed.to_vector())


def rough_start(model: FaceModel, faces: Faces, *, seed: int) -> Float[np.ndarray, "N K"]:
    """The mean face about where a detector would have it: off by 4 px, 5 degrees per axis and 4 % (deviations)."""
    random, count = np.random.default_rng(seed), len(faces.names)
    return moved(
        model,
        faces.placement,
        shift=4.0 * random.normal(size=(count, 2)),
        turn=5.0 * random.normal(size=(count, 3)),
        enlarge=np.exp(0.04 * random.normal(size=count)),
    )
