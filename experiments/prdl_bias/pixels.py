"""The form that compares no vertices: the mesh is drawn, and its pixels are compared with the target's."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from descent import adam, descend, summary
from faces import DEGREES, SIZE, Faces, decode
from tqdm import tqdm

import jaxface
from jaxface.fitting import coefficient_prior
from jaxface.losses import pixel_prdl, pixel_prdl_loss
from jaxface.losses.faces import part_loss, part_targets
from jaxface.render import label_triangles, render_labels

SETS = {"all": pixel_prdl.STATISTICS, **{name: {name: share} for name, share in pixel_prdl.STATISTICS.items()}}
"""Both statistics as they are weighed, and each alone."""

STARTS = {"translation": (2, 2.0), "angles": (3, 3 / DEGREES)}
"""How many numbers, and how far from the truth Adam starts: px of translation, radians of angles."""

PRIOR_WEIGHT = 0.05
"""Of squared coefficients in standard deviations, in px of the loss."""

FIRST_STEP = 0.075
"""Of Adam, in that distance."""

SHIFT_FACES = 4
"""So many faces only start off the truth: it takes 160 steps until Adam itself is no limit (40 end at 0.2 px)."""


def measure(faces: Faces, *, shift_steps: int, steps: int, progress: tqdm) -> dict[str, Any]:
    """All that is asked of the form at one yaw.

    Its value is a staircase: it has no residuals for Gauss-Newton, and at the truth its gradient is nothing at all.
    Standing still there would prove little, so translation and angles start off the truth and have to find it.
    """
    labels = jnp.asarray(label_triangles(faces.model.parts, faces.model.triangles))
    maps = render_labels(faces.points, faces.depth, faces.model.triangles, labels, image_size=SIZE)
    targets = part_targets(maps)
    result: dict[str, Any] = {"loss_px": {}}
    for kind, unit, scale in (("translation", "px", 1.0), ("angles", "degrees", DEGREES)):
        found: dict[str, Any] = {"start": scale * STARTS[kind][1], "shift": {}, "gradient_at_truth": {}}
        for name in SETS:
            arrays = {"model": faces.model, "truth": faces.coefficients, "labels": labels, "targets": targets}
            at_truth, gradient = _shifted(
                jnp.zeros((len(faces.points), STARTS[kind][0])), **arrays, kind=kind, name=name
            )
            result["loss_px"][name] = summary(at_truth)
            found["gradient_at_truth"][name] = summary(np.linalg.norm(gradient, axis=-1) / scale)
            shift = find_truth(faces, labels, targets, kind, name, shift_steps, progress)
            found["shift"][name] = summary(scale * np.linalg.norm(shift, axis=-1))
        result[f"{kind}_{unit}"] = found
    deviation = jnp.asarray(coefficient_prior(faces.model).deviation)
    truth = faces.coefficients.to_vector()
    descent = functools.partial(_with_prior, model=faces.model, truth=truth, targets=targets, deviation=deviation)
    before, after, mm, px = descend(faces, descent, steps, progress)
    result["all_coefficients"] = {
        "prdl_before_px": summary(before), "prdl_after_px": summary(after), "vertices_mm": summary(mm),
        "image_points_px": summary(px),
    }  # fmt: skip
    return result


def find_truth(faces: Faces, labels, targets, kind: str, name: str, steps: int, progress: tqdm):
    """How far from the truth [N, K] Adam ends that started off it, for the first SHIFT_FACES faces."""
    size, distance = STARTS[kind]
    some = {"truth": faces.coefficients, "targets": targets}
    some = jax.tree.map(lambda array: array[:SHIFT_FACES], some)
    start = np.random.default_rng(0).normal(size=(len(some["targets"].present), size)).astype(np.float32)
    start *= distance / np.linalg.norm(start, axis=-1, keepdims=True)
    descent = functools.partial(_shifted, model=faces.model, labels=labels, **some, kind=kind, name=name)
    return adam(jnp.asarray(start), descent, jnp.full(size, FIRST_STEP * distance), steps, progress)[0]


@functools.partial(jax.jit, static_argnames=("kind", "name"))
def _shifted(shift, *, model, truth, labels, targets, kind: str, name: str):
    """The loss [B] a shift [B, K] from the truth, and its gradient."""

    def total(shift):
        coefficients = truth.replace(angles=truth.angles + shift) if kind == "angles" else truth
        points, depth, _ = decode(model, coefficients)
        points = points + shift[:, None] if kind == "translation" else points
        loss = pixel_prdl_loss(points, depth, model.triangles, labels, targets, statistics=SETS[name])
        return loss.sum(), loss

    (_, loss), gradient = jax.value_and_grad(total, has_aux=True)(shift)
    return loss, gradient


@jax.jit
def _with_prior(vector, *, model, truth, targets, deviation):
    """The loss [B], and the gradient [B, K] of it and of the fit's prior, moved to the truth."""

    def total(vector):
        face = jaxface.decode_face(model, jaxface.Coefficients.from_vector(vector, model), jaxface.Camera())
        loss = part_loss(model, face, targets)
        prior = jnp.square((vector - truth) / deviation[None]).sum(-1)
        return (loss + PRIOR_WEIGHT * prior).sum(), loss

    (_, loss), gradient = jax.value_and_grad(total, has_aux=True)(vector)
    return loss, gradient
