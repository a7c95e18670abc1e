"""Where PRDL's gradient comes from: gradient fields on one eyebrow, beside SoftRas's and the drawn brow's, and eq. 11.

    python experiments/prdl_gradients/run.py [--quick] [--out FOLDER]

Figure 6 of 3DDFA-V3 (Wang et al. 2024, arXiv 2312.00311) for the built-in face model. Writes results.json, fields.png
and displacement.png.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import report
from scene import NAMES, SCENES, SIGMAS, SIZE, Brow, direction_found, fields

from jaxface.core.errors import needs_extra
from jaxface.core.parts import mask_points
from jaxface.files import atomic, command_line, progress
from jaxface.losses import prdl

HERE = Path(__file__).resolve().parent
FORMULA_AT = (3.0, 10.0, 14.0, 20.0, 32.0)


def summary(gradient: np.ndarray) -> dict[str, float]:
    """Norm of a field and its longest vector, how many vertices it moves, and whether it leads to the target.

    `towards_target` is the cosine between the mean of -dE/dv over the vertices and the true displacement; 0 for no
    gradient.
    """
    return {
        "norm": float(np.linalg.norm(gradient)),
        "longest": float(np.linalg.norm(gradient, axis=1).max()),
        "vertices_moved": int((np.linalg.norm(gradient, axis=1) > 0).sum()),
        "towards_target": direction_found(gradient),
    }


def anchor_shares(scene: Brow, target: jax.Array, inside: np.ndarray) -> dict[str, dict[str, float]]:
    """What anchors outside the mask add to each statistic's gradient.

    `outside`: |sum over anchors outside| / (|sum outside| + |sum inside|), so with all that cancels cancelled.
    `outside_alone`: the same for the sums of the anchors' own norms.
    `pull_outside_to_inside`: one anchor outside against one inside, on average.
    `half_beyond_px`: half of the sum of the anchors' own norms comes from farther off the mask than this.
    """
    pulls, distance_to_mask = scene.pull_per_anchor(target), np.asarray(target[:, 0])
    by_distance = np.argsort(distance_to_mask)
    shares = {}
    for column, statistic in enumerate(prdl.STATISTICS):
        within, without = (
            np.linalg.norm(scene.gradient(target, side.astype(np.float32), [statistic])) for side in (inside, ~inside)
        )
        pull_within, pull_without = pulls[inside, column], pulls[~inside, column]
        summed = np.cumsum(pulls[by_distance, column])
        shares[NAMES[statistic]] = {
            "outside": float(without / (within + without)),
            "outside_alone": float(pull_without.sum() / (pull_without.sum() + pull_within.sum())),
            "pull_outside_to_inside": float(pull_without.mean() / pull_within.mean()),
            "half_beyond_px": float(distance_to_mask[by_distance][np.searchsorted(summed, summed[-1] / 2)]),
        }
    return shares


def check_equation_11(scene: Brow, mask: np.ndarray, *, count: int) -> dict[str, Any]:
    """Eq. 11, -dE/dv_n = 2 (v_n - a) (d_target / d_pred - 1) for E = (d_pred - d_target)^2 of one anchor and f_min.

    Against jax.grad of the public loss (float32) and central differences of the definition (float64), on random
    anchors and all in the mask; those with a second vertex as near as the first (to 1e-3 px) have no gradient and are
    left out.
    """
    in_mask = scene.anchors_inside(mask)
    random = np.random.default_rng(0).choice(np.flatnonzero(~in_mask), count, replace=False)
    chosen = np.concatenate([np.flatnonzero(in_mask), random])
    anchors, points = scene.anchors[chosen], scene.points.astype(np.float64)
    pixels = mask_points(mask).astype(np.float64)
    distances = np.linalg.norm(anchors[:, None] - points[None], axis=-1)
    two_nearest = np.sort(distances, axis=1)[:, :2]
    usable = (two_nearest[:, 0] > 1e-3) & (two_nearest[:, 1] - two_nearest[:, 0] > 1e-3)
    anchors, distances = anchors[usable], distances[usable]
    nearest, d_pred = distances.argmin(1), distances.min(1)
    d_target = np.linalg.norm(anchors[:, None] - pixels[None], axis=-1).min(1)
    formula = 2 * (points[nearest] - anchors) * (d_target / d_pred - 1)[:, None]

    def loss(points, anchor, target):
        descriptor = jnp.stack([target, 1.0, 1.0])[None, None]  # a furthest distance of 0 would mean an empty target
        options = {"anchors": anchor[None], "statistics": ("min",)}
        return prdl.prdl_loss({"brow": points[None]}, {"brow": descriptor}, **options)[0]

    gradients = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0, 0)))
    automatic = -np.asarray(gradients(scene.points, anchors, d_target.astype(np.float32)))
    numeric = np.stack(
        [_central_difference(points, n, a, d) for n, a, d in zip(nearest, anchors, d_target, strict=True)]
    )
    on_matched = automatic[np.arange(len(nearest)), nearest]
    elsewhere = automatic.copy()
    elsewhere[np.arange(len(nearest)), nearest] = 0
    return {
        "anchors": len(anchors),
        "anchors_in_mask": int(in_mask[chosen][usable].sum()),
        "median_gradient_px": float(np.median(np.linalg.norm(formula, axis=1))),
        "jax_grad_largest_error_px": float(np.abs(on_matched - formula).max()),
        "jax_grad_largest_on_other_vertices_px": float(np.abs(elsewhere).max()),
        "finite_differences_largest_error_px": float(np.abs(numeric - formula).max()),
    }


def _central_difference(points, vertex, anchor, d_target, step=1e-5):
    def energy(offset):
        moved = points.copy()
        moved[vertex] += offset
        return (np.linalg.norm(moved - anchor, axis=1).min() - d_target) ** 2

    return np.array([-(energy(offset) - energy(-offset)) / (2 * step) for offset in step * np.eye(2)])


def softras_by_formula(scene: Brow, displacements: Sequence[float]) -> list[dict[str, float]]:
    """Norm of the IoU loss's gradient with SoftRas's formula over all pixels and triangles, in float64, 1 / px.

    `soft_silhouette` leaves out triangles so far from a pixel that they add less than 1e-4; this says what is lost.
    """
    x, y = np.meshgrid(np.arange(110, 210) + 0.5, np.arange(10, 95) + 0.5)  # everything that the two brows reach
    pixels = np.stack([x, y], axis=-1).reshape(-1, 1, 2)

    def loss(points, mask, sigma):
        corners = points[scene.triangles]
        squared, sides = [], []
        for corner in range(3):
            start, end = corners[None, :, corner], corners[None, :, (corner + 1) % 3]
            edge, offset = end - start, pixels - start
            along = jnp.clip((offset * edge).sum(-1) / (edge * edge).sum(-1), 0, 1)
            squared.append(jnp.square(offset - along[..., None] * edge).sum(-1))
            sides.append(edge[..., 0] * offset[..., 1] - edge[..., 1] * offset[..., 0] > 0)
        inside = (sides[0] == sides[1]) & (sides[1] == sides[2])
        exponent = jnp.where(inside, 1.0, -1.0) * jnp.stack(squared).min(0) / (sigma * SIZE**2 / 4)
        drawn = -jnp.expm1(-jax.nn.softplus(exponent).sum(1))
        return 1 - jnp.sum(drawn * mask) / jnp.sum(drawn + mask - drawn * mask)

    rows = []
    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(loss))
        for displacement in progress.progress(displacements, description="SoftRas in float64", unit="step"):
            mask = scene.mask(displacement)[10:95, 110:210].ravel().astype(np.float64)
            row = {"displacement_px": float(displacement)}
            for sigma in SIGMAS:
                row[f"sigma {sigma:g}"] = float(np.linalg.norm(gradient(scene.points.astype(np.float64), mask, sigma)))
            rows.append(row)
    return rows


def measure(scene: Brow, displacements: Sequence[float]) -> list[dict[str, Any]]:
    """Per displacement: summaries of the fields, and the anchors' shares."""
    rows = []
    for displacement in progress.progress(displacements, description="displacing the target", unit="step"):
        mask = scene.mask(displacement)
        target, inside = scene.target(mask), scene.anchors_inside(mask)
        overlap = (mask & scene.mask(0.0)).sum() / (mask | scene.mask(0.0)).sum()
        rows.append({
            "displacement_px": float(displacement),
            "iou": float(overlap),
            "anchors_in_mask": int(inside.sum()),
            "median_distance_px": float(np.median(target[:, 0])),
            "fields": {title: summary(gradient) for title, gradient in fields(scene, mask).items()},
            "shares": anchor_shares(scene, target, inside),
        })  # fmt: skip
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="every 4th pixel as anchor, few displacements")
    parser.add_argument("--out", type=Path, help="folder for the results (default: this one; outputs/ with --quick)")
    options = parser.parse_args(arguments)
    with needs_extra("photo", "the drawing"):
        import matplotlib
    matplotlib.use("Agg")
    jax.config.update("jax_disable_most_optimizations", options.quick)  # compiles in half the time
    out = options.out or (Path("outputs/experiments/prdl_gradients") if options.quick else HERE)

    scene = Brow(stride=4 if options.quick else 1)
    displacements = sorted({0.0, 10.0, *SCENES.values()} if options.quick else
                           {*np.arange(0.0, 50.5, 2.0).tolist(), *SCENES.values()})  # fmt: skip
    mask = scene.mask(SCENES["overlapping"])
    target = scene.target(mask)
    summed = scene.gradient(target, np.ones(len(scene.anchors)), prdl.STATISTICS)
    by_loss = scene.loss_gradient(target)
    results = {
        "vertices": len(scene.points),
        "anchors": len(scene.anchors),
        "scenes_px": SCENES,
        "equation_11": check_equation_11(scene, mask, count=100 if options.quick else 1000),
        "loss_gradient_relative_difference": float(np.abs(summed - by_loss).max() / np.abs(by_loss).max()),
        "displacements": measure(scene, displacements),
        "softras_by_formula": softras_by_formula(scene, [d for d in FORMULA_AT if d in displacements]),
    }
    with atomic.atomic_write(out / "results.json") as path:
        path.write_text(json.dumps(results, indent=1) + "\n")
    report.draw_fields(out / "fields.png", scene)
    report.draw_displacement(out / "displacement.png", results["displacements"])
    report.print_tables(results)
    print(f"written: {out / 'results.json'}, {out / 'fields.png'}, {out / 'displacement.png'}")


if __name__ == "__main__":
    command_line.run(main)
