"""The forms that compare vertices: how far the minimum of each lies from the truth."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from descent import descend, rounded, summary
from faces import DEGREES, SIZE, STRIDE, Faces, decode
from tqdm import tqdm

import jaxface
from jaxface.core import parts
from jaxface.fitting import FitWeights, coefficient_prior
from jaxface.losses import prdl

SETS = {"all": prdl.STATISTICS, **{name: (name,) for name in prdl.STATISTICS}}
COLUMNS = {name: np.array([prdl.STATISTICS.index(one) for one in chosen]) for name, chosen in SETS.items()}
WEIGHT = 4e-3  # of these forms in the fit, per px^2, while they were its PRDL
# Steps of the finite differences, and the longest step of Gauss-Newton: px of translation, radians of angles.
STEPS = {"translation": (2, 0.1, 8.0), "angles": (3, 0.1 / DEGREES, 5 / DEGREES)}


@jax.jit
def _normal_equations(residuals, columns):
    """Per set of statistics: J'J [B, K, K] and J'r [B, K], from residuals at a point and after a step on each axis."""
    start, *moved = (r[..., columns].reshape(len(r), -1) for r in residuals)
    jacobian = jnp.stack([m - start for m in moved], axis=-1)
    return jnp.einsum("bri,brj->bij", jacobian, jacobian), jnp.einsum("bri,br->bi", jacobian, start)


def residuals_around(faces: Faces, form: str, kind: str, shift) -> list[jax.Array]:
    """PRDL's residuals at a shift [B, K] from the truth, and one step of the finite differences away on each axis.

    The weights are those at the shift in all of them: they are held fixed for gradients.
    """
    size, difference, _ = STEPS[kind]
    points, depth = faces.place(kind, shift)
    weights = faces.weights(form, points, depth)
    axes = difference * np.eye(size, dtype=np.float32)
    places = [points, *(faces.place(kind, shift + axis[None])[0] for axis in axes)]
    return [faces.residuals(place, weights) for place in places]


def find_optimum(faces: Faces, form: str, kind: str, statistic: str, at_truth: list[jax.Array], iterations: int):
    """Where gradient descent on PRDL would end, by Gauss-Newton from the truth on.

    Args:
        faces: the faces.
        form: one of FORMS.
        kind: one of STEPS.
        statistic: one of SETS.
        at_truth: `residuals_around` a shift of zero, which all statistics share.
        iterations: of Gauss-Newton.

    Returns:
        The shift [B, K] from the truth and the last step [B, K], in px or radians; the gradient at the truth [B, K],
        in px^2 per px or per radian.
    """
    size, difference, longest = STEPS[kind]
    shift = jnp.zeros((len(faces.points), size))
    for iteration in range(iterations):
        residuals = at_truth if iteration == 0 else residuals_around(faces, form, kind, shift)
        matrix, slope = _normal_equations(residuals, COLUMNS[statistic])
        if iteration == 0:
            gradient = 2 * slope / difference / faces.target.shape[2]
        matrix += 1e-4 * jnp.trace(matrix, axis1=1, axis2=2)[:, None, None] * jnp.eye(size)[None]
        step = difference * jnp.linalg.solve(matrix, slope[..., None])[..., 0]
        step *= jnp.minimum(1.0, longest / jnp.maximum(jnp.linalg.norm(step, axis=-1, keepdims=True), 1e-9))
        # Who is matched and who is seen changes from step to step: halved in the end, they settle.
        step *= 1.0 if iteration < iterations - 2 else 0.5
        shift -= step
    return np.asarray(shift), np.asarray(step), np.asarray(gradient)


def _descent(faces: Faces, form: str, deviation, vector):
    """The loss [B], and the gradient [B, K] of it and of the fit's prior, moved to the truth; weights held fixed."""
    points, depth, _ = decode(faces.model, jaxface.Coefficients.from_vector(vector, faces.model))
    weights = faces.weights(form, points, depth)
    truth = faces.coefficients.to_vector()
    return _loss_and_gradient(vector, faces.model, truth, weights, faces.target, faces.present, deviation)


@jax.jit
def _loss_and_gradient(vector, model, true_vector, weights, target, present, deviation):
    anchors = prdl.grid_anchors(SIZE, SIZE, STRIDE)
    targets = {part: jnp.where(present[:, i, None, None], target[:, i], 0.0) for i, part in enumerate(parts.PARTS)}
    ratio = FitWeights().prior / WEIGHT

    def total(vector):
        points = decode(model, jaxface.Coefficients.from_vector(vector, model))[0]
        points = {part: points[:, model.parts[part]] for part in parts.PARTS}
        loss = prdl.prdl_loss(points, targets, anchors=anchors, point_masks=weights)
        prior = jnp.square((vector - true_vector) / deviation[None]).sum(-1)
        return (loss + ratio * prior).sum(), loss

    (_, loss), gradient = jax.value_and_grad(total, has_aux=True)(vector)
    return loss, gradient


def measure(faces: Faces, form: str, *, iterations: int, steps: int, progress: tqdm) -> dict[str, Any]:
    """All that is asked of one form at one yaw."""
    weights = faces.weights(form, faces.points, faces.depth)
    squared = np.square(faces.residuals(faces.points, weights)).mean(2)  # [B, P, 3]
    result: dict[str, Any] = {"loss_px2": {}, "loss_px2_by_part": {}}
    for name, columns in COLUMNS.items():
        result["loss_px2"][name] = summary(squared[..., columns].sum((1, 2)))
    for index, part in enumerate(parts.PARTS):
        medians = np.median(squared[:, index], axis=0)
        result["loss_px2_by_part"][part] = dict(zip(prdl.STATISTICS, rounded(medians), strict=True))
    for kind, unit, scale in (("translation", "px", 1.0), ("angles", "degrees", DEGREES)):
        found: dict[str, Any] = {"shift": {}, "last_step": {}, "gradient_at_truth": {}}
        at_truth = residuals_around(faces, form, kind, jnp.zeros((len(faces.points), STEPS[kind][0])))
        for name in SETS:
            shift, step, gradient = find_optimum(faces, form, kind, name, at_truth, iterations)
            found["shift"][name] = summary(scale * np.linalg.norm(shift, axis=-1))
            found["last_step"][name] = summary(scale * np.linalg.norm(step, axis=-1))
            found["gradient_at_truth"][name] = summary(np.linalg.norm(gradient, axis=-1) / scale)
            progress.update(iterations)
        result[f"{kind}_{unit}"] = found
    deviation = jnp.asarray(coefficient_prior(faces.model).deviation)
    before, after, mm, px = descend(faces, functools.partial(_descent, faces, form, deviation), steps, progress)
    result["all_coefficients"] = {
        "prdl_before_px2": summary(before), "prdl_after_px2": summary(after), "vertices_mm": summary(mm),
        "image_points_px": summary(px),
    }  # fmt: skip
    return result
