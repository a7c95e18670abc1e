"""Linear blend skinning: joints that turn parts of a face, as FLAME's jaw and eyeballs (Li et al. 2017, eq. 2 to 5)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

ANGLE_DEVIATION = 0.1
"""Usual size of a joint's axis-angle number, in radians: for priors and random faces."""

ANGLE_LIMIT = 0.5
"""Largest axis-angle number, in radians, that priors allow; an open jaw has about 0.4."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Skinning:
    """Joints of a face model, what hangs on them, and how the surface follows beyond a rigid turn.

    Where a joint lies depends on the person. FLAME gives a regressor from vertices to joints; since vertices are linear
    in the coefficients, joints are too, and their own mean and bases stand here in place of the regressor. So they stay
    right for a model that is cut down to some of its vertices.

    Attributes:
        joints: [J, 3] places in the mean face, in model units; a parent comes before its children.
        joint_identity_basis: [J, 3, Ki] how they move with the identity coefficients.
        joint_expression_basis: [J, 3, Ke] how they move with the linear expression coefficients.
        weights: [V, J] share of each joint in the motion of a vertex; a row sums to 1.
        pose_basis: [V, 3, 9 (J - 1)] pose correctives: offsets in model units for R - 1 of all joints but the first,
            row by row.
        parents: [J] index of each joint's parent, -1 for the first; static.
        posed: indices of the joints that have coefficients, in their order; the others never turn. Static.
    """

    joints: Float[Array | np.ndarray, "J 3"]
    joint_identity_basis: Float[Array | np.ndarray, "J 3 Ki"]
    joint_expression_basis: Float[Array | np.ndarray, "J 3 Ke"]
    weights: Float[Array | np.ndarray, "V J"]
    pose_basis: Float[Array | np.ndarray, "V 3 P"]
    parents: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    posed: tuple[int, ...] = dataclasses.field(metadata={"static": True})


def axis_angle_offset(angles: Float[Array, "*B 3"]) -> Float[Array, "*B 3 3"]:
    """R - 1 for the rotation R about the axis of `angles` by its length in radians (Rodrigues).

    The difference keeps all digits of small turns; it is smooth at zero, where it is exactly zero.
    """
    squared = jnp.sum(jnp.square(angles), axis=-1)[..., None, None]
    small = squared < 1e-3  # there sine and cosine give way to their series, which have a gradient at zero
    safe = jnp.where(small, 1.0, squared)
    length = jnp.sqrt(safe)
    sine_series = 1 - squared / 6 * (1 - squared / 20 * (1 - squared / 42))
    cosine_series = (1 - squared / 12 * (1 - squared / 30 * (1 - squared / 56))) / 2
    sine = jnp.where(small, sine_series, jnp.sin(length) / length)
    cosine = jnp.where(small, cosine_series, (1 - jnp.cos(length)) / safe)
    x, y, z = (angles[..., axis] for axis in range(3))
    zero = jnp.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    cross = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
    return sine * cross + cosine * _product(cross, cross)


def turn_joints(
    vertices: Float[Array, "*B V 3"],
    joints: Float[Array, "*B J 3"],
    angles: Float[Array, "*B A"],
    skinning: Skinning,
) -> Float[Array, "*B V 3"]:
    """Turns the posed joints of a face and what hangs on them (FLAME, Li et al. 2017, eq. 2 and 3).

    Args:
        vertices: unposed, in model units.
        joints: their places for this identity and expression, in model units.
        angles: 3 axis-angle numbers in radians per posed joint. The axes are those of the model: x right in the image,
            y up, z towards the viewer; positive x opens a jaw and lowers the gaze.
        skinning: of the model.

    Returns:
        Vertices in model units; exactly `vertices` for zero angles.
    """
    batch = angles.shape[:-1]
    turned = axis_angle_offset(angles.reshape(*batch, len(skinning.posed), 3))
    zero = jnp.zeros((*batch, 3, 3), turned.dtype)
    local = [
        turned[..., skinning.posed.index(joint), :, :] if joint in skinning.posed else zero
        for joint in range(len(skinning.parents))
    ]
    features = jnp.stack(local[1:], axis=-3).reshape(*batch, -1)
    rows = jnp.reshape(skinning.pose_basis, (-1, features.shape[-1]))
    corrected = vertices + _product(features, rows.T).reshape(vertices.shape)
    moves = jnp.stack(_joint_moves(local, joints, skinning.parents), axis=-3)  # [*B, J, 3, 4]
    blended = _product(skinning.weights, moves.reshape(*batch, len(local), 12)).reshape(*vertices.shape, 4)
    return corrected + blended[..., 3] + jnp.sum(blended[..., :3] * corrected[..., None, :], axis=-1)


def _joint_moves(
    local: list[Float[Array, "*B 3 3"]], joints: Float[Array, "*B J 3"], parents: tuple[int, ...]
) -> list[Float[Array, "*B 3 4"]]:
    """Per joint the affine map less the identity: what it adds to a point that hangs on it, after all its ancestors."""
    moves: list[Float[Array, "*B 3 4"]] = []
    for joint, parent in enumerate(parents):
        turn, place = local[joint], joints[..., joint, :, None]
        move = jnp.concatenate([turn, -_product(turn, place)], axis=-1)
        if parent >= 0:
            # (1 + P)(1 + M) - 1 = P + M + P M, where M's last row is zero.
            move = moves[parent] + move + _product(moves[parent][..., :3], move)
        moves.append(move)
    return moves


def _product(a: Array | np.ndarray, b: Array | np.ndarray) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
