"""The face model: a mean shape, linear bases, and what the rest of jaxface needs to know about the mesh."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from jaxface.core.skinning import Skinning, turn_joints

STANDARD_NORMAL = (-3.0, 3.0)
"""Bounds of coefficients in standard deviations."""
ARTIST_UNITS = (0.0, 1.0)
"""Bounds of coefficients that are shares of an artist's unit."""
PLAIN_SKIN = (0.8, 0.62, 0.53)
"""Albedo of the skin for models that come without colours."""

PLAIN_EYE = (0.5, 0.47, 0.45)
"""Albedo of the eyes for such models: white and iris together."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FaceModel:
    """A linear 3D morphable model (Blanz and Vetter 1999; 3DDFA-V3, eq. 1 and 2). Its arrays form a JAX tree.

    Pass it to jitted functions as an argument rather than closing over it: the bases are large.

    Attributes:
        mean_shape: [V, 3] in model units (10 cm); x right in the image, y up, z towards the viewer.
        identity_basis: [V, 3, Ki], scaled so that a standard normal coefficient is a usual person.
        expression_basis: [V, 3, Ke], likewise.
        mean_albedo: [V, 3] in [0, 1], in the photo's own colour space (no gamma is taken off).
        albedo_basis: [V, 3, Ka], likewise.
        triangles: [T, 3] vertex indices, counter-clockwise from outside.
        parts: vertex indices of each of `parts.PARTS`.
        landmarks: vertex indices per scheme; "68" is ibug's order.
        contours: per scheme [C, N]: line i holds the vertices among which landmark i of the face's outline may move
            (landmark marching); short lines repeat their first vertex.
        uv: [V, 2] texture coordinates in [0, 1], u right, v up (the OBJ convention); None if there are none.
        mirror: [V] index of each vertex's mirror image; None if the mesh is not symmetric.
        skinning: joints such as the jaw, whose angles then follow the Ke linear expression coefficients; None if all of
            the expression is linear.
        name: for messages and checkpoints; static.
        expression_names: of the linear expression coefficients, such as ARKit's "jawOpen"; empty if they have none.
            Static, as the next.
        expression_bounds: between which values faces look human: (0, 1) where a coefficient is the share of an artist's
            unit, (-3, 3) where it is a standard normal number.
    """

    mean_shape: Float[Array | np.ndarray, "V 3"]
    identity_basis: Float[Array | np.ndarray, "V 3 Ki"]
    expression_basis: Float[Array | np.ndarray, "V 3 Ke"]
    mean_albedo: Float[Array | np.ndarray, "V 3"]
    albedo_basis: Float[Array | np.ndarray, "V 3 Ka"]
    triangles: Integer[Array | np.ndarray, "T 3"]
    parts: Mapping[str, Integer[Array | np.ndarray, "N"]]
    landmarks: Mapping[str, Integer[Array | np.ndarray, "L"]]
    contours: Mapping[str, Integer[Array | np.ndarray, "C N"]] = dataclasses.field(default_factory=dict)
    uv: Float[Array | np.ndarray, "V 2"] | None = None
    mirror: Integer[Array | np.ndarray, "V"] | None = None
    skinning: Skinning | None = None
    name: str = dataclasses.field(default="", metadata={"static": True})
    expression_names: tuple[str, ...] = dataclasses.field(default=(), metadata={"static": True})
    expression_bounds: tuple[float, float] = dataclasses.field(default=STANDARD_NORMAL, metadata={"static": True})

    @property
    def has_expression_units(self) -> bool:
        """Whether an expression coefficient is the share of an artist's unit, which has no opposite."""
        return self.expression_bounds[0] >= 0

    @property
    def expression_labels(self) -> tuple[str, ...]:
        """A name for each linear expression coefficient: its own, or "expression_0" and so on."""
        count = self.expression_basis.shape[-1]
        return self.expression_names or tuple(f"expression_{index}" for index in range(count))


def linear(
    mean: Float[Array | np.ndarray, "*B V 3"],
    basis: Float[Array | np.ndarray, "V 3 K"],
    coefficients: Float[Array, "*B K"],
) -> Float[Array, "*B V 3"]:
    """mean + basis @ coefficients, in full float32 on every device."""
    # As a product of two matrices: for the einsum, XLA would transpose the whole basis at every call.
    rows = jnp.reshape(basis, (math.prod(basis.shape[:-1]), basis.shape[-1]))
    offset = jnp.matmul(coefficients, rows.T, precision=jax.lax.Precision.HIGHEST)
    offset = offset.reshape(*coefficients.shape[:-1], *basis.shape[:-1])
    return jnp.broadcast_to(mean, offset.shape) + offset


def shape(
    model: FaceModel, identity: Float[Array, "*B Ki"], expression: Float[Array, "*B E"]
) -> Float[Array, "*B V 3"]:
    """Vertices in model space before the pose, in model units (3DDFA-V3, eq. 1).

    Args:
        model: the face model.
        identity: coefficients in standard deviations.
        expression: Ke coefficients likewise; for a model with skinning, 3 axis-angle numbers in radians per posed joint
            follow (FLAME, Li et al. 2017).
    """
    neutral = linear(model.mean_shape, model.identity_basis, identity)
    if model.skinning is None:
        return linear(neutral, model.expression_basis, expression)
    skinning, count = model.skinning, model.expression_basis.shape[-1]
    linear_part, angles = expression[..., :count], expression[..., count:]
    joints = linear(skinning.joints, skinning.joint_identity_basis, identity)
    joints = linear(joints, skinning.joint_expression_basis, linear_part)
    return turn_joints(linear(neutral, model.expression_basis, linear_part), joints, angles, skinning)


def shape_of_vertices(model: FaceModel, vertices: Integer[Array | np.ndarray, "N"]) -> FaceModel:
    """The face model with the shape of some vertices alone, in place of all: `shape` gives their rows.

    Albedo, triangles and indices of vertices stay as they are, for the caller to replace where they matter.

    Args:
        model: the face model.
        vertices: their indices; may repeat.
    """

    def rows(source: FaceModel | Skinning, *names: str) -> dict[str, Any]:
        return {name: jnp.asarray(getattr(source, name))[vertices] for name in names}

    skinning = model.skinning
    if skinning is not None:
        skinning = dataclasses.replace(skinning, **rows(skinning, "weights", "pose_basis"))
    shapes = rows(model, "mean_shape", "identity_basis", "expression_basis")
    return dataclasses.replace(model, **shapes, skinning=skinning)


def vertices_of_parts(model: FaceModel) -> Integer[np.ndarray, "N"]:
    """The vertices that belong to any part, ascending: errors of shape are measured on these."""
    return np.unique(np.concatenate([np.asarray(vertices) for vertices in model.parts.values()]))


def albedo(model: FaceModel, coefficients: Float[Array, "*B Ka"]) -> Float[Array, "*B V 3"]:
    """Vertex colours without light, about [0, 1], not clipped (3DDFA-V3, eq. 2)."""
    return linear(model.mean_albedo, model.albedo_basis, coefficients)


def vertex_normals(
    vertices: Float[Array | np.ndarray, "*B V 3"], triangles: Integer[Array | np.ndarray, "T 3"]
) -> Float[Array, "*B V 3"]:
    """Unit normals: the unit normals of the triangles around a vertex, summed and normalised (as in Deep3D).

    A vertex without a triangle, or whose triangles have no area, gets the zero vector and a zero gradient.
    """
    corners = vertices[..., triangles, :]
    edge_a = corners[..., 0, :] - corners[..., 1, :]
    edge_b = corners[..., 1, :] - corners[..., 2, :]
    normals = _normalized(jnp.cross(edge_a, edge_b))
    total = jnp.zeros_like(vertices)
    for corner in range(3):
        total = total.at[..., triangles[:, corner], :].add(normals)
    return _normalized(total)


def _normalized(vectors: Float[Array, "*B 3"]) -> Float[Array, "*B 3"]:
    squared = jnp.sum(vectors**2, axis=-1, keepdims=True)
    positive = squared > 0
    return jnp.where(positive, vectors * jax.lax.rsqrt(jnp.where(positive, squared, 1.0)), 0.0)
