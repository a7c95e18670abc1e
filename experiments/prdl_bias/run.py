"""How far PRDL pulls away from the true face, by how its vertices are weighed, and with pixels in their place.

    python experiments/prdl_bias/run.py [--quick] [--forms FORM ...] [--out FOLDER]

Random faces are drawn as exact label maps; PRDL alone is then minimised from the true coefficients. An unbiased loss
would stay there. Writes results.json and bias.png; with --forms the other forms' results there are kept.
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
import pixels
import report
import vertices
from descent import rounded
from faces import FORMS, SIZE, STRIDE, Faces, decode, part_weights, random_faces
from tqdm import tqdm

import jaxface
from jaxface.core import parts
from jaxface.core.errors import InputError, MissingDependencyError
from jaxface.core.units import MM_PER_UNIT
from jaxface.files import atomic, command_line
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
            for where, chosen in (("parts", in_parts), ("all vertices", slice(None))):
                row = _precision_and_recall(seen[:, chosen], reference[:, chosen], areas[:, chosen])
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
        if form == "pixels":
            continue  # it has no weights; prdl_vs_rivals says what it costs
        result[form] = milliseconds(functools.partial(part_weights, form=form, size=size), model, points, depth)
    weights = part_weights(model, points, depth, form="area, coarse", size=size)
    result["PRDL and its gradient, 144 anchors"] = milliseconds(loss_and_gradient, points, weights, masks)
    return result


def earlier_results(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """What earlier runs left, to be added to; None if there is nothing.

    Raises:
        InputError: when they had other faces or steps.
    """
    if not path.exists():
        return None
    results = json.loads(path.read_text())
    if results["settings"] != settings:
        raise InputError(f"{path} was measured with other settings; run all forms, or choose another --out")
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few faces, few steps, two yaws, no table of visibility")
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), metavar="FORM", help=f"of {', '.join(FORMS)}")
    parser.add_argument("--out", type=Path, help="folder for the results (default: this one; outputs/ with --quick)")
    options = parser.parse_args(arguments)
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise MissingDependencyError("the figure needs matplotlib: pip install 'jaxface[photo]'") from error
    matplotlib.use("Agg")
    out = options.out or (Path("outputs/experiments/prdl_bias") if options.quick else HERE)
    forms = [form for form in FORMS if form in (options.forms or FORMS)]
    yaws, count, iterations, steps, shift_steps = (0, 30, 60), 24, 5, 60, 160
    if options.quick:
        yaws, count, iterations, steps, shift_steps = (0, 60), 4, 2, 6, 12
    settings = {"faces": count, "size": SIZE, "anchors": (SIZE // STRIDE) ** 2, "iterations": iterations,
                "steps": steps, "shift_steps": shift_steps}  # fmt: skip

    results = earlier_results(out / "results.json", settings) if options.forms else None
    model = jax.tree.map(jnp.asarray, jaxface.load_face_model("anny"))
    if results is None:
        with_tables = not (options.quick or options.forms)
        results = {
            "settings": settings,
            "cost_ms": costs(model) if with_tables else {},
            "visibility": {str(yaw): agreement(model, yaw, count) for yaw in yaws} if with_tables else {},
            "forms": {},
            "seconds": {},
        }
    work = {form: 2 * len(vertices.SETS) * iterations + steps for form in forms}
    if "pixels" in work:
        work["pixels"] = 2 * len(pixels.SETS) * shift_steps + steps
    total = len(yaws) * sum(work.values())
    with tqdm(total=total, desc="minimising PRDL", unit="step", mininterval=1.0, disable=None) as progress:
        by_yaw = {str(yaw): Faces(model, yaw, count) for yaw in yaws}
        for form in forms:
            started = time.perf_counter()
            if form == "pixels":
                measure = functools.partial(pixels.measure, shift_steps=shift_steps)
            else:
                measure = functools.partial(vertices.measure, form=form, iterations=iterations)
            results["forms"][form] = {
                yaw: measure(faces, steps=steps, progress=progress) for yaw, faces in by_yaw.items()
            }
            results["seconds"][form] = round(time.perf_counter() - started)
    results["forms"] = {form: results["forms"][form] for form in FORMS if form in results["forms"]}
    with atomic.atomic_write(out / "results.json") as path:
        path.write_text(json.dumps(results, indent=1) + "\n")
    report.draw(out / "bias.png", results)
    report.print_tables(results)
    print(f"written: {out / 'results.json'}, {out / 'bias.png'}")


if __name__ == "__main__":
    command_line.run(main)
