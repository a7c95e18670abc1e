"""What lies at each pixel of a picture of a drawn person: face and head as one mesh, what is worn before it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, UInt8

from jaxface.core import cameras, face_models
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients
from jaxface.core.face_models import FaceModel
from jaxface.core.landmarks import march_landmarks, unrolled_x
from jaxface.core.parts import BACKGROUND
from jaxface.render import Fragments, interpolate, label_map, rasterize
from jaxface.render.cutouts import rasterize_cutouts, sample_texture
from jaxface.synthetic.eyeballs import place_eyes
from jaxface.synthetic.lamps import to_linear, unit
from jaxface.synthetic.people import SLOTS, People, Soup, head_albedo, joined_normals, place_head, wear

DECALS = ("brows", "lashes", "lenses")
"""What is worn without hiding the face: hair on the skin is part of it, and glass is looked through."""

NECK = (-1.0, -1.7)
"""Heights between which the neck bends, in model units: above, all follows the head, below, the body."""

SMALL = 200
"""Side in pixels of pictures, samples counted, for which half of the atlas' texels are enough."""

HEAD_MIDDLE = (0.0, 0.35, -0.55)
"""Middle of the skull, in model units: hair bulges away from it."""

NECK_JOINT = (0.0, -1.0, -0.9)
"""What the body turns around, in model units."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pixels:
    """What lies at the pixels of a batch of pictures before anything is coloured.

    Attributes:
        solid: fragments of face and head; the face's triangles come first.
        attributes: [B, S, S, 10] of face and head: linear colour, normal, position before the pose, beard,
            inside of the mouth.
        labels: [B, S, S] parts of the face, forehead cut, whatever lies before it; 0 where there is no face.
        uncut: [B, S, S] likewise, forehead not cut.
        cards: fragments of what is worn, where it lies before face and head.
        texel: [B, S, S, 4] its colour and alpha.
        card_normal: [B, S, S, 3] unit normals of its triangles, towards the camera.
        slot: [B, S, S] index into `people.SLOTS`, -1 for none.
        lens: [B, S, S] where a lens of glasses is.
    """

    solid: Fragments
    attributes: Float[Array, "B S S 11"]
    labels: UInt8[Array, "B S S"]
    uncut: UInt8[Array, "B S S"]
    cards: Fragments
    texel: Float[Array, "B S S 4"]
    card_normal: Float[Array, "B S S 3"]
    slot: Integer[Array, "B S S"]
    lens: Float[Array, "B S S"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bodies:
    """Posed geometry of a batch of people.

    Attributes:
        face: [B, V, 3] camera space, in model units.
        points: [B, V, 2] of the face in the picture, in pixels.
        eyes: [B, 2, 3] middles of the left and the right eyeball in posed model space.
        skull: [B, 3] middle of the head, likewise.
    """

    face: Float[Array, "B V 3"]
    points: Float[Array, "B V 2"]
    eyes: Float[Array, "B 2 3"]
    skull: Float[Array, "B 3"]


def draw_fragments(
    model: FaceModel,
    people: People,
    triangle_labels: UInt8[Array | np.ndarray, "T"],
    coefficients: Coefficients,
    camera: Camera,
    *,
    styles: dict[str, Integer[Array, "B"]],
    body: Float[Array, "B 2"],
    fringe: Float[Array, "B 2"],
    carried: Float[Array, "V 2"],
    thresholds: Float[Array, "B S S"],
) -> tuple[Pixels, Bodies]:
    """Draws the geometry of people.

    Args:
        model: the face model.
        people: heads and what they wear.
        triangle_labels: of the face, from `render.label_triangles`.
        coefficients: of the faces.
        camera: of the square pictures; each may have its own.
        styles: per slot what is worn, 0 for nothing.
        body: the part of the head's pitch and yaw that the body follows.
        fringe: down to which line hair hangs into the face, see `people.wear`.
        carried: what else the face's vertices carry to the pixels: where beards grow, and the inside of the mouth.
        thresholds: random numbers in [0, 1): what is worn is seen where its alpha is greater.
    """
    size, count = camera.image_size[0], len(model.mean_shape)
    shape = face_models.shape(model, coefficients.identity, coefficients.expression)
    head = place_head(people, coefficients.identity, coefficients.expression)
    soup = wear(people, styles, coefficients.identity, coefficients.expression, fringe=fringe)
    batch, loose = soup.corners.shape[:2]
    worn = soup.corners.reshape(batch, 3 * loose, 3)
    stiff = jnp.repeat(jnp.asarray(soup.slot) == SLOTS.index("hair"), 3)

    def posed(points, *, above=False):
        return bend(points, coefficients.angles, coefficients.translation, body=body, above=above)

    everything = jnp.concatenate([posed(shape, above=True), posed(head)], axis=1)
    worn = jnp.where(stiff[None, :, None], posed(worn, above=True), posed(worn))
    triangles = jnp.concatenate([jnp.asarray(model.triangles), count + jnp.asarray(people.head_triangles)])
    view = cameras.to_camera_space(everything, camera)
    points = cameras.project(view, camera)
    solid = rasterize(points, view[..., 2], triangles, image_size=size)

    albedo = jnp.concatenate(
        [face_models.albedo(model, coefficients.albedo), head_albedo(people, coefficients.albedo)], axis=1
    )
    # Normals of the unposed shapes, turned: the neck's bend is small.
    joined = joined_normals(people, face_models.vertex_normals(shape, model.triangles), head)
    normals = cameras.rotate(jnp.concatenate(joined, axis=1), coefficients.angles)
    carried = jnp.pad(carried, ((0, head.shape[1]), (0, 0)))
    carried = jnp.broadcast_to(carried[None], (batch, *carried.shape))
    unposed = jnp.concatenate([shape, head], axis=1)
    attributes = jnp.concatenate([to_linear(albedo), normals, unposed, carried], axis=-1)
    surface = interpolate(solid, triangles, attributes)

    head_labels = jnp.full(len(people.head_triangles), BACKGROUND, jnp.uint8)
    labels = jnp.concatenate([jnp.asarray(triangle_labels), head_labels])
    uncut = jnp.where(solid.triangle >= 0, labels[solid.triangle], BACKGROUND).astype(jnp.uint8)

    cards, texel, normal, slot, lens = _draw_worn(people, worn, soup, solid, camera, thresholds)
    pixels = Pixels(solid, surface, label_map(solid, labels), uncut, cards, texel, normal, slot, lens)
    eyes = posed(place_eyes(model, coefficients.identity), above=True)
    skull = posed(jnp.broadcast_to(jnp.array(HEAD_MIDDLE), (batch, 1, 3)), above=True)[:, 0]
    return pixels, Bodies(view[:, :count], points[:, :count], eyes, skull)


def bend(
    points: Float[Array, "B N 3"],
    angles: Float[Array, "B 3"],
    translation: Float[Array, "B 3"],
    *,
    body: Float[Array, "B 2"],
    above: bool,
) -> Float[Array, "B N 3"]:
    """Pose with a neck: shoulders follow a part of the head's turn.

    Args:
        points: in model space.
        angles: of the head, in radians.
        translation: of the head.
        body: the part of pitch and yaw that the body follows.
        above: all follows the head, however low it hangs.
    """
    with_head = cameras.pose(points, angles, translation)
    if above:
        return with_head
    low, high = NECK[1], NECK[0]
    share = jnp.clip((points[..., 1:2] - low) / (high - low), 0.0, 1.0)
    share = share * share * (3 - 2 * share)
    joint = jnp.array(NECK_JOINT)[None, None]
    turned = jnp.concatenate([angles[:, :2] * body, angles[:, 2:]], axis=-1)
    place = cameras.pose(joint, angles, translation)
    return share * with_head + (1 - share) * (cameras.rotate(points - joint, turned) + place)


def _draw_worn(
    people: People,
    worn: Float[Array, "B 3*T 3"],
    soup: Soup,
    solid: Fragments,
    camera: Camera,
    thresholds: Float[Array, "B S S"],
) -> tuple[Fragments, Float[Array, "B S S 4"], Float[Array, "B S S 3"], Integer[Array, "B S S"], Float[Array, "B S S"]]:
    """Fragments, texels, normals, slots and lenses of what is worn; `worn` are its corners in posed model space."""
    size, batch, slots = camera.image_size[0], len(worn), np.asarray(soup.slot)
    atlas = people.atlas if size > SMALL else people.half_atlas
    view = cameras.to_camera_space(worn, camera)
    points = cameras.project(view, camera).reshape(batch, -1, 3, 2)
    depth, sides = view[..., 2].reshape(batch, -1, 3), worn.reshape(batch, -1, 3, 3)
    normal = unit(jnp.cross(sides[:, :, 1] - sides[:, :, 0], sides[:, :, 2] - sides[:, :, 0]))
    normal = normal * jnp.where(normal[..., 2:] < 0, -1.0, 1.0)

    def draw(these: Integer[np.ndarray, "N"], **options: Array) -> Fragments:
        corners = points[:, these], depth[:, these], soup.uv[:, these]
        return rasterize_cutouts(*corners, atlas[..., 3], image_size=size, **options)

    # Glass is seen through, so it is drawn by itself.
    glass = slots == SLOTS.index("lenses")
    dense = np.flatnonzero(~glass)
    behind = jnp.where(solid.triangle >= 0, solid.depth, jnp.inf)
    cards = draw(dense, behind=behind, threshold=thresholds)
    lenses = draw(np.flatnonzero(glass), behind=jnp.where(cards.triangle >= 0, cards.depth, behind))

    def fetch(cards: Fragments, uv: Array, normal: Array) -> tuple[Array, Array, Array]:
        index = jnp.maximum(cards.triangle, 0)
        place = (uv[index] * cards.barycentric[..., None]).sum(-2)
        return sample_texture(atlas, place), normal[index], jnp.asarray(slots[dense])[index]

    texel, normal, slot = jax.vmap(fetch)(cards, soup.uv[:, dense], normal[:, dense])
    return cards, texel, normal, jnp.where(cards.triangle >= 0, slot, -1), (lenses.triangle >= 0).astype(jnp.float32)


def visible_landmarks(
    model: FaceModel, bodies: Bodies, hidden_by: Float[Array, "B S S"], roll: Float[Array, "B"]
) -> tuple[Float[Array, "B 68 2"], Float[Array, "B 68"]]:
    """The 68 landmarks in pixels as a detector gives them, and 1 for those that are seen.

    Args:
        model: the face model.
        bodies: the people.
        hidden_by: depth of the nearest thing at each pixel, in model units; infinite where there is nothing.
        roll: of the heads, in radians.
    """
    return visible_points(
        bodies, march_landmarks(unrolled_x(bodies.points, roll), model.landmarks["68"], model.contours["68"]), hidden_by
    )


def visible_points(
    bodies: Bodies, indices: Integer[Array, "B P"], hidden_by: Float[Array, "B S S"]
) -> tuple[Float[Array, "B P 2"], Float[Array, "B P"]]:
    """The face's vertices of these indices in pixels, and 1 for those that are seen.

    Args:
        bodies: the people.
        indices: of vertices.
        hidden_by: depth of the nearest thing at each pixel, in model units; infinite where there is nothing.
    """
    points = jnp.take_along_axis(bodies.points, indices[..., None], axis=1)
    depth = jnp.take_along_axis(bodies.face[..., 2], indices, axis=1)
    size = hidden_by.shape[-1]
    farthest = jnp.zeros_like(depth)
    for right, down in ((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)):  # on the outline, one of four sees past it
        column, row = (jnp.floor(points[..., i] + d).astype(jnp.int32) for i, d in ((0, right), (1, down)))
        row, column = jnp.clip(row, 0, size - 1), jnp.clip(column, 0, size - 1)
        farthest = jnp.maximum(farthest, hidden_by[jnp.arange(len(points))[:, None], row, column])
    return points, (depth < farthest + 0.08).astype(jnp.float32)
