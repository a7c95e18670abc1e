"""The drawing of synthetic samples: random faces, each in a painted scene, with labels of what can be seen."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt8

from jaxface.core import cameras, parts
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import Face, decode_face, landmark_points
from jaxface.render import label_map, render_face
from jaxface.synthetic.camera_effects import photograph
from jaxface.synthetic.dice import Dice
from jaxface.synthetic.drawing import HeadFrame, cover, head_frame, noise, octaves, paint, polygon
from jaxface.synthetic.occluders import add_fringe, add_glasses, add_object
from jaxface.synthetic.random_faces import random_coefficients
from jaxface.synthetic.surroundings import paint_head, random_hair, random_scene


def draw_portraits(
    keys: Key[Array, "B"],
    model: FaceModel,
    triangle_labels: UInt8[Array | np.ndarray, "T"],
    *,
    size: int,
) -> dict[str, Array]:
    """Draws one sample per key, in the layout of photos/samples.py with a leading axis B. Made to be jitted.

    Args:
        keys: one random key per sample; a sample depends on its own key alone.
        model: the face model.
        triangle_labels: from `render.label_triangles`.
        size: side S of the crops in pixels.
    """
    keys = jax.vmap(jax.random.split)(keys)
    coefficients = random_coefficients(keys[:, 0], model)
    camera = Camera().resized(size)
    face = decode_face(model, coefficients, camera)
    return draw_scenes(keys[:, 1], model, triangle_labels, coefficients, face, camera)


def draw_scenes(
    keys: Key[Array, "B"],
    model: FaceModel,
    triangle_labels: UInt8[Array | np.ndarray, "T"],
    coefficients: Coefficients,
    face: Face,
    camera: Camera,
) -> dict[str, Array]:
    """Draws given faces into random scenes: head, hair, background, occluders, and what a camera does to a picture.

    Args:
        keys: one random key per picture.
        model: the face model.
        triangle_labels: from `render.label_triangles`.
        coefficients: the faces; their light is not looked at.
        face: the same, decoded with `camera`; its colours, of whatever light, are painted.
        camera: of the square pictures.

    Returns:
        A batch in the layout of photos/samples.py.
    """
    model, labels_of_triangles = jax.tree.map(jnp.asarray, (model, triangle_labels))
    size = camera.image_size[0]
    view = render_face(face, model.triangles, image_size=size)
    landmarks = landmark_points(model, face.points, coefficients.angles[:, 2])
    attributes = jnp.concatenate([face.colors, jnp.broadcast_to(_canonical(model), face.colors.shape)], axis=-1)
    surface = view.draw(attributes)
    cut = label_map(view.fragments, labels_of_triangles)
    frame = _head_frames(face, model, coefficients, camera, size)
    image, labels = jax.vmap(_compose)(keys, surface, cut, frame, landmarks)
    uncut = jnp.where(view.seen, labels_of_triangles[view.fragments.triangle], parts.BACKGROUND)
    labels = parts.uncut_without_brows(labels, uncut)
    inside = ((landmarks >= 0) & (landmarks <= size)).all(-1)
    return {
        "image": jnp.round(255 * image).astype(jnp.uint8),
        "labels": labels,
        "landmarks": landmarks,
        "landmark_weights": inside.astype(jnp.float32),
        "coefficients": coefficients.to_vector(),
        "has_coefficients": jnp.ones(len(labels)),
    }


def _canonical(model: FaceModel) -> Float[Array, "V 3"]:
    """Where a vertex lies on the mean face: x (-1 to 1 from ear to ear), y (0 brows, 1 upper edge), and the beard."""
    shape, landmarks = model.mean_shape, model.mean_shape[model.landmarks["68"]]
    x = (shape[:, 0] - landmarks[8, 0]) / jnp.max(jnp.abs(landmarks[:17, 0] - landmarks[8, 0]))
    brow = landmarks[17:27, 1].mean()
    y = (shape[:, 1] - brow) / (shape[:, 1].max() - brow)
    # Below the nose, and from the corners of the mouth up to the ears.
    line = landmarks[33, 1] + 0.6 * jnp.maximum(jnp.abs(x) - 0.6, 0.0) - 0.25 * (jnp.abs(jnp.abs(x) - 0.5) < 0.15)
    beard = jnp.clip((line - shape[:, 1]) / 0.12, 0.0, 1.0) * jnp.zeros_like(x).at[model.parts["skin"]].set(1.0)
    return jnp.stack([x, y, beard], axis=-1)


def _head_frames(face: Face, model: FaceModel, coefficients: Coefficients, camera: Camera, size: int) -> HeadFrame:
    landmarks = face.shape[:, model.landmarks["68"]]
    ears = (landmarks[:, 0] + landmarks[:, 16]) / 2
    middle = jnp.stack([ears[:, 0], landmarks[:, 27, 1] + 0.05, ears[:, 2]], axis=-1)[:, None]
    posed = cameras.pose(middle, coefficients.angles, coefficients.translation)
    origin = cameras.project(cameras.to_camera_space(posed, camera), camera)[:, 0]
    pixels_per_unit = camera.focal / (camera.distance - coefficients.translation[:, 2])
    return jax.vmap(functools.partial(head_frame, size=size))(origin, coefficients.angles, pixels_per_unit)


def _compose(
    key: Key[Array, ""],
    surface: Float[Array, "S S 6"],
    labels: UInt8[Array, "S S"],
    frame: HeadFrame,
    landmarks: Float[Array, "68 2"],
) -> tuple[Float[Array, "S S 3"], UInt8[Array, "S S"]]:
    """Paints one picture around, on and over the drawn face; returns it and the labels of what can be seen."""
    dice, size = Dice(key), labels.shape[0]
    points = frame.locate(landmarks)
    face = (labels != parts.BACKGROUND).astype(jnp.float32)
    is_skin = (labels == parts.LABELS["skin"]).astype(jnp.float32)
    skin = jnp.einsum("hw,hwc->c", is_skin, surface[..., :3]) / jnp.maximum(is_skin.sum(), 1.0)
    hair = random_hair(dice, size, jnp.clip(1.6 * skin.mean(), 0.5, 1.3))
    ears = jnp.stack([points[0], points[16]])
    eyes = jnp.stack([points[36:42].mean(0), points[42:48].mean(0)])

    behind = random_scene(dice, size)
    behind = paint_head(dice, behind, frame, chin=points[8], ears=ears, skin=skin, hair=hair)
    colors = _detail(dice, surface[..., :3], surface[..., 5] * is_skin, hair)
    colors = _paint_eyes(dice, colors, labels, frame, points)
    image = jnp.where(face[..., None] > 0, colors, behind)
    image, labels = _open_mouth(dice, image, labels, frame, points, skin)
    image = image * _shadow(dice, frame)[..., None]
    layer = (image, jnp.zeros((size, size)))
    layer = add_fringe(dice, layer, surface[..., 3:5], face, hair)
    layer = add_glasses(dice, layer, frame, eyes, ears)
    image, hidden = add_object(dice, layer, frame, skin)
    return photograph(dice, image), jnp.where(hidden > 0.5, parts.BACKGROUND, labels).astype(jnp.uint8)


def _detail(
    dice: Dice, colors: Float[Array, "S S 3"], beard: Float[Array, "S S"], hair: Float[Array, "S S 3"]
) -> Float[Array, "S S 3"]:
    """Uneven skin, and a beard or its shadow on some faces."""
    colors = colors * (1 + 0.05 * octaves(dice, colors.shape[0], 3))
    density = dice.chance(0.2) * dice.uniform(low=0.15, high=0.95)
    patchy = jnp.clip(0.9 + 0.25 * noise(dice, colors.shape[0], (40, 40), 1)[..., 0], 0.0, 1.0)
    return paint(colors, density * patchy * beard, 0.8 * hair)


def _paint_eyes(
    dice: Dice,
    colors: Float[Array, "S S 3"],
    labels: UInt8[Array, "S S"],
    frame: HeadFrame,
    points: Float[Array, "68 2"],
) -> Float[Array, "S S 3"]:
    """Gives each open eye an iris, a pupil and at times a highlight, both looking the same way."""
    gaze = dice.normal(2, limit=2.0) * jnp.array([0.035, 0.015])
    irises = jnp.array([[0.18, 0.1, 0.05], [0.3, 0.18, 0.09], [0.22, 0.3, 0.36], [0.28, 0.3, 0.2]])
    color = irises[dice.pick((0.45, 0.25, 0.2, 0.1))]
    light = jnp.clip(colors.max(), 0.3, 1.0)
    glint = dice.uniform()
    for eye, first in (("right_eye", 36), ("left_eye", 42)):
        center = points[first : first + 6].mean(0) + gaze
        distance = jnp.linalg.norm(frame.position - center[None, None], axis=-1)
        inside = (labels == parts.LABELS[eye]).astype(jnp.float32)
        for radius, shade in ((0.06, 0.6 * color), (0.052, color), (0.024, jnp.full(3, 0.03))):
            colors = paint(colors, inside * cover(radius - distance, frame), light * shade)
        spark = jnp.linalg.norm(frame.position - (center + jnp.array([0.015, 0.02]))[None, None], axis=-1)
        colors = paint(colors, glint * inside * cover(0.012 - spark, frame), jnp.full(3, 0.9))
    return colors


def _open_mouth(
    dice: Dice,
    image: Float[Array, "S S 3"],
    labels: UInt8[Array, "S S"],
    frame: HeadFrame,
    points: Float[Array, "68 2"],
    skin: Float[Array, "3"],
) -> tuple[Float[Array, "S S 3"], UInt8[Array, "S S"]]:
    """Fills the gap between open lips with the dark of a mouth and often teeth; it is labelled FOREHEAD."""
    lips = (labels == parts.LABELS["upper_lip"]) | (labels == parts.LABELS["lower_lip"])
    gap = polygon(frame.position, points[60:68]) * ~lips
    light = jnp.clip(1.3 * skin.mean(), 0.1, 1.0)
    color = light * dice.uniform() * jnp.array([0.45, 0.16, 0.15])
    y = frame.position[..., 1]
    length = dice.uniform(low=0.04, high=0.1)
    upper, lower = points[61:64, 1].mean() - length, points[65:68, 1].mean() + 0.6 * length
    teeth = jnp.maximum(cover(y - upper, frame), dice.chance(0.4) * cover(lower - y, frame))
    teeth = teeth * dice.chance(0.75)
    inside = color[None, None] + teeth[..., None] * (light * jnp.array([0.9, 0.86, 0.78]) - color)[None, None]
    image = jnp.where(gap[..., None] > 0, inside, image)
    return image, jnp.where(gap > 0, parts.FOREHEAD, labels).astype(labels.dtype)


def _shadow(dice: Dice, frame: HeadFrame) -> Float[Array, "S S"]:
    """A soft-edged shadow over one side of some pictures, as a factor."""
    angle = 2 * np.pi * dice.uniform()
    across = frame.position @ jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    edge = dice.uniform(low=-0.3, high=0.8)
    side = cover(across - edge, frame, blur=dice.uniform(low=0.02, high=0.5))
    return 1 - dice.chance(0.2) * dice.uniform(low=0.2, high=0.6) * side
