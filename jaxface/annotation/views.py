"""Many pictures of one face model: random people, expressions, textures, lights and poses, and what each pixel shows.

What a face parser says of such a picture can be carried back to the mesh (3DDFA-V3, eq. 3; see votes.py).
"""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from jaxface.core import cameras
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients, column_mask, vector_columns, vector_sizes
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import decode_face
from jaxface.photos.samples import pad_rows
from jaxface.render import render_face, vertex_visibility
from jaxface.synthetic.dice import Dice
from jaxface.synthetic.random_faces import random_expression, random_light

BLOCK = 8
"""Views drawn at once: one compilation serves them all."""

_FILLED = 0.8  # share of the picture's side that the mean shape takes

_BACKDROP = (0.55, 0.58, 0.62)

_YAW, _PITCH_UP, _PITCH_DOWN, _ROLL = 40.0, 18.0, 12.0, 6.0  # degrees; parsers guess the far side beyond

_PERSON = 0.7  # of a standard deviation: parsers are trained on usual faces

_ACTIVE_UNITS = 3  # of an expression basis without names

_JAW = 0.3  # radians


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Views:
    """Pictures of a face model.

    Attributes:
        image: [B, S, S, 3] bytes, RGB.
        triangle: [B, S, S] which triangle each pixel shows, -1 for none.
        barycentric: [B, S, S, 3] where on it.
        points: [B, V, 2] image points of the vertices in pixels, y down.
        visible: [B, V] which of them the camera sees.
    """

    image: UInt8[Array | np.ndarray, "B S S 3"]
    triangle: Int[Array | np.ndarray, "B S S"]
    barycentric: Float[Array | np.ndarray, "B S S 3"]
    points: Float[Array | np.ndarray, "B V 2"]
    visible: Bool[Array | np.ndarray, "B V"]


def mesh_box(model: FaceModel) -> Float[np.ndarray, "2 3"]:
    """Lowest and highest coordinates of the mean shape, in model units."""
    used = np.asarray(model.mean_shape)[np.unique(np.asarray(model.triangles))]
    return np.stack([used.min(0), used.max(0)])


def view_camera(box: Float[np.ndarray, "2 3"], *, size: int) -> Camera:
    """The usual camera, its focal length such that `box` fills most of a picture of `size` pixels a side.

    Args:
        box: lowest and highest coordinates of what to show, in model units; `random_views` puts it in the middle.
        size: in pixels.
    """
    focal = _FILLED * size * Camera().distance / float((box[1] - box[0])[:2].max())
    return Camera(focal=focal, center=(size / 2, size / 2), image_size=(size, size))


def random_views(
    model: FaceModel,
    count: int,
    *,
    seed: int,
    box: Float[np.ndarray, "2 3"] | None = None,
) -> Float[np.ndarray, "N K"]:
    """Coefficient vectors of random faces turned about the middle of a box; the first is the mean face, frontal.

    View i follows from (seed, i) alone. Expressions without names are a few positive coefficients, since many bases are
    one-sided.

    Args:
        model: the face model; needs neither parts nor landmarks.
        count: number N of views.
        seed: of the random numbers.
        box: lowest and highest coordinates of what to show, in model units; the whole mesh if None.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), np.arange(count))
    middle = (mesh_box(model) if box is None else box).mean(0).astype(np.float32)
    sizes = vector_sizes(model)
    units = model.expression_basis.shape[-1]
    vectors = np.array(_random_vectors(keys, middle, sizes, units, model.expression_names))
    vectors[:1, column_mask(model, "identity", "expression", "albedo", "angles")] = 0.0
    vectors[:1, vector_columns(model)["translation"]] = -middle
    return vectors


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _random_vectors(
    keys: Key[Array, "N"], middle: Float[Array, "3"], sizes: tuple[int, ...], units: int, names: tuple[str, ...]
) -> Float[Array, "N K"]:
    identity, expressions, albedo = sizes[:3]

    def one(key):
        dice = Dice(key)
        pose = jnp.stack(
            [
                dice.uniform(low=-_PITCH_UP, high=_PITCH_DOWN),
                dice.uniform(low=-_YAW, high=_YAW),
                dice.uniform(low=-_ROLL, high=_ROLL),
            ]
        )
        if names:
            expression = random_expression(dice, names)
        else:
            active = dice.uniform(units) < _ACTIVE_UNITS / max(units, 1)
            expression = jnp.where(active, dice.uniform(units, low=0.3), 0.0)
        joints = jnp.zeros(expressions - units)  # after the linear units come the angles of joints, the jaw's first
        if joints.size:
            joints = joints.at[0].set(dice.uniform(high=_JAW))
        return Coefficients(
            identity=_PERSON * dice.normal(identity, limit=2.5),
            expression=jnp.concatenate([dice.chance(2 / 3) * expression, joints]),
            albedo=_PERSON * dice.normal(albedo, limit=2.5),
            angles=jnp.deg2rad(pose),
            light=random_light(dice),
            translation=jnp.zeros(3),
        )

    coefficients = jax.vmap(one)(keys)
    centers = jnp.broadcast_to(middle, (len(keys), 1, 3))
    return coefficients.replace(translation=-cameras.rotate(centers, coefficients.angles)[:, 0]).to_vector()


@jax.jit
def draw_views(model: FaceModel, vectors: Float[Array | np.ndarray, "B K"], camera: Camera) -> Views:
    """Draws faces on a grey backdrop.

    Args:
        model: the face model.
        vectors: coefficients, such as `random_views` gives.
        camera: such as `view_camera` gives.
    """
    face = decode_face(model, Coefficients.from_vector(vectors, model), camera)
    view = render_face(face, model.triangles, image_size=camera.image_size)
    colors = view.draw(face.colors)
    colors = jnp.where(view.seen[..., None], jnp.clip(colors, 0.0, 1.0), jnp.array(_BACKDROP)[None, None, None])
    return Views(
        image=jnp.round(colors * 255).astype(jnp.uint8),
        triangle=view.fragments.triangle,
        barycentric=view.fragments.barycentric,
        points=face.points,
        visible=vertex_visibility(view.fragments, face.points, face.depth),
    )


def draw_all_views(model: FaceModel, vectors: Float[np.ndarray, "N K"], camera: Camera) -> Iterator[Views]:
    """`draw_views` for any number of views, one at a time (without the leading B), as NumPy arrays."""
    count = len(vectors)
    padded = pad_rows(vectors, count + -count % BLOCK)

    def draw(start: int) -> Views:
        return draw_views(model, padded[start : start + BLOCK], camera)

    pending = draw(0)  # one block ahead: it is drawn while the parser looks at the one before
    for start in range(0, count, BLOCK):
        block = jax.tree.map(np.asarray, pending)
        if start + BLOCK < count:
            pending = draw(start + BLOCK)
        for index in range(min(BLOCK, count - start)):
            yield jax.tree.map(lambda array, index=index: array[index], block)
