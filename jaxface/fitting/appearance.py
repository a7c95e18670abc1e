"""Light and albedo of a face whose shape is known: linear least squares in turns, no gradient descent."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxface.core import face_models
from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import decode_face
from jaxface.core.lighting import AMBIENT, spherical_harmonics
from jaxface.render import rasterize, vertex_visibility

ROUNDS = 5
"""Turns of light, albedo and trust, each solved for with the others held."""

NOISE = 0.06
"""Standard deviation of a photo's colour around the model's, where they agree at all."""

LIGHT_DEVIATION, TINT_DEVIATION = 0.5, 0.05
"""How far a light coefficient strays from the plain light, and a channel's from the mean of the channels."""

OBSERVATIONS = 250.0
"""Neighbouring vertices see nearly the same: a face counts as so many independent colours, however fine its mesh."""


def fit_appearance(
    model: FaceModel,
    vector: Float[Array, "B K"],
    image: Float[Array, "B H W 3"],
    face_mask: Float[Array, "B H W"],
    camera: Camera,
    *,
    albedo_held: bool | Bool[Array, ""] = False,
) -> Float[Array, "B K"]:
    """The most probable light and albedo given shape, pose and photo; robust to hair, glasses and highlights.

    The colour of a vertex is albedo times light: linear in either with the other held fixed. Each round solves for the
    light, then for the albedo, then weighs down the vertices that fit badly (iteratively reweighted least squares).

    Args:
        model: the face model.
        vector: with shape and pose in place.
        image: the crops, in [0, 1].
        face_mask: where they show the face, 0..1.
        camera: of the crops.
        albedo_held: keeps the albedo of `vector` and solves for the light alone.
    """
    coefficients = Coefficients.from_vector(vector, model)
    face = decode_face(model, coefficients, camera)
    fragments = rasterize(face.points, face.depth, model.triangles, image_size=camera.image_size)
    seen = vertex_visibility(fragments, face.points, face.depth)
    stacked = jnp.concatenate([image, face_mask[..., None]], axis=-1)
    sampled = jax.vmap(_bilinear)(stacked, face.points)
    facing = jnp.clip(face.normals[..., 2], 0.0, 1.0)
    trust = seen * jnp.floor(sampled[..., 3] + 1e-3) * facing * (OBSERVATIONS / seen.shape[-1])
    start = jnp.where(jnp.asarray(albedo_held), coefficients.albedo, 0.0)
    solve = jax.vmap(functools.partial(_solve, model, albedo_held=albedo_held))
    light, albedo = solve(sampled[..., :3], trust, spherical_harmonics(face.normals), start)
    return coefficients.replace(light=light, albedo=albedo).to_vector()


def _solve(
    model: FaceModel,
    color: Float[Array, "V 3"],
    trust: Float[Array, "V"],
    basis: Float[Array, "V 9"],
    start: Float[Array, "Ka"],
    *,
    albedo_held: bool | Bool[Array, ""],
) -> tuple[Float[Array, "3 9"], Float[Array, "Ka"]]:
    ambient = AMBIENT * (jnp.arange(9) == 0)
    mean_albedo, albedo_basis = jnp.asarray(model.mean_albedo), jnp.asarray(model.albedo_basis)

    def one_round(
        state: tuple[Float[Array, "3 9"], Float[Array, "Ka"], Float[Array, "V"]], _: None
    ) -> tuple[tuple[Float[Array, "3 9"], Float[Array, "Ka"], Float[Array, "V"]], None]:
        light, coefficients, weight = state
        albedo = face_models.albedo(model, coefficients)
        light = _solve_light(color - albedo * (basis @ ambient)[:, None], albedo, basis, weight)
        shade = basis @ (light + ambient[None]).T
        design = albedo_basis * shade[..., None]
        missing = color - mean_albedo * shade
        normal = jnp.einsum("vck,v,vcl->kl", design, weight, design) / NOISE**2 + jnp.eye(design.shape[-1])
        right = jnp.einsum("vck,v,vc->k", design, weight, missing) / NOISE**2
        coefficients = jnp.where(albedo_held, start, jnp.clip(jnp.linalg.solve(normal, right), -3.0, 3.0))
        error = jnp.linalg.norm(color - face_models.albedo(model, coefficients) * shade, axis=-1)
        weight = trust / (1.0 + jnp.square(error / (2 * NOISE)))  # Cauchy's weights
        return (light, coefficients, weight), None

    (light, coefficients, _), _ = jax.lax.scan(one_round, (jnp.zeros((3, 9)), start, trust), length=ROUNDS)
    return light, coefficients


def _solve_light(
    missing: Float[Array, "V 3"], albedo: Float[Array, "V 3"], basis: Float[Array, "V 9"], weight: Float[Array, "V"]
) -> Float[Array, "3 9"]:
    """Ridge regression for 3 x 9 numbers that stay near zero and near their mean over the channels."""
    design = basis[:, None] * albedo[..., None]
    normal = jnp.einsum("vck,v,vcl->ckl", design, weight, design) / NOISE**2
    right = jnp.einsum("vck,v,vc->ck", design, weight, missing) / NOISE**2
    full = jax.scipy.linalg.block_diag(*normal)
    from_mean = jnp.kron(jnp.eye(3) - 1.0 / 3.0, jnp.eye(9)) / TINT_DEVIATION**2
    near_zero = jnp.eye(27) / LIGHT_DEVIATION**2
    return jnp.linalg.solve(full + from_mean + near_zero, right.reshape(-1)).reshape(3, 9)


def _bilinear(image: Float[Array, "H W C"], points: Float[Array, "V 2"]) -> Float[Array, "V C"]:
    """Values at image points; those of the border beyond it."""
    rows_columns = list((points[:, ::-1] - 0.5).T)
    sample = jax.vmap(
        lambda channel: jax.scipy.ndimage.map_coordinates(channel, rows_columns, order=1, mode="nearest"),
        in_axes=-1,
        out_axes=-1,
    )
    return sample(image)
