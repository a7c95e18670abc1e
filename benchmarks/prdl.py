"""Times PRDL and its gradient beside other ways to write it: python benchmarks/prdl.py [--quick] [--out FOLDER]

In one process, on the same arrays, loss and gradient with respect to the points:

    torch, naive     torch.cdist of all pairs and autograd                  (needs torch, as the next two)
    torch, exact     the same with distances from differences (compute_mode="donot_use_mm_for_euclid_dist")
    torch, lean      a hand-written autograd.Function, anchors in chunks, nothing of size A x N kept
    jnp, naive       prdl_loss(implementation="reference"), jitted
    jaxface          prdl_loss, jitted
    jaxface, exact   prdl_loss(exact=True), jitted

first for the face: the built-in model's eight parts, batch 1, every pixel of 224 x 224 an anchor; then against the
number of anchors and of points; then PRDL's share of the quickstart's train step. Time is the median of repetitions
after a warm-up (of a form that takes over 3 s, one). Memory is what comes on top of inputs and outputs: for JAX the
compiled program's temporaries (memory_analysis), for torch the growth of the process's peak resident set in one more
run (Linux only). Writes prdl.json and prdl.png. Torch is no dependency of jaxface: without it, its rows are left out.
"""

import argparse
import dataclasses
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from measuring import give_back_memory, most_memory, peak_resident_growth, seconds_of
from prdl_report import draw, print_report
from tqdm import tqdm

import jaxface
from jaxface.core import parts
from jaxface.core.coefficients import vector_size
from jaxface.files import atomic, command_line
from jaxface.losses import grid_anchors, mask_descriptor, prdl_loss
from jaxface.render import label_triangles, render_labels

HERE = Path(__file__).resolve().parent
SIZE = 224
MOST_SECONDS = 20.0  # of one run; forms that would take longer are left out

# Instructions per pair of point and anchor, each counted as one per lane and cycle (a square root takes longer: this
# flatters the machine). Forward: 2 differences, 1 product, 1 fused product and sum, 1 root, 3 each for the minimum and
# the maximum with their indices, 1 sum. Backward (f_ave alone visits pairs): 2 differences, 2 for the square, 1
# reciprocal root, 1 product, 2 fused products and sums.
FORWARD, BACKWARD = 12, 8
PASSES = 5  # over A x N floats in a form that keeps the distances: written, read for min, max and mean, and backward


def face_problem(anchors, point_count=None, names=parts.PARTS, seed=0):
    """Points of the eight parts, descriptors and masks of another face, and anchors over the picture.

    `anchors` x `anchors` anchors cover the 224 x 224 picture; `point_count` points are drawn around the parts' own.
    """
    random = np.random.default_rng(seed)
    face_points, masks = _two_faces()
    total = sum(len(face_points[part]) for part in names)
    points = {
        part: face_points[part] if point_count is None else _resampled(face_points[part], point_count / total, random)
        for part in names
    }
    grid = (grid_anchors(anchors, anchors) * (SIZE / anchors)).astype(np.float32)
    masks = {part: masks[part] for part in names}
    describe = jax.jit(jax.vmap(lambda mask: mask_descriptor(mask, grid)))
    described = np.asarray(describe(np.stack(list(masks.values()))))
    return Problem(points, masks, dict(zip(masks, described, strict=True)), grid)


@functools.cache
def _two_faces():
    """Points {part: [N, 2]} of the mean face and masks {part: [H, W]} of a random one."""
    model = jaxface.load_face_model("anny")
    vectors = np.zeros((2, vector_size(model)), np.float32)
    random = np.random.default_rng(0)
    vectors[1] = 0.5 * random.normal(size=vector_size(model))
    vectors[1, -33:] = 0.03 * random.normal(size=33)  # angles, light, translation
    coefficients = jaxface.Coefficients.from_vector(jnp.asarray(vectors), model)
    face = jax.jit(jaxface.decode_face)(model, coefficients, jaxface.Camera())
    labels = label_triangles(model.parts, model.triangles)
    drawn = render_labels(face.points[1], face.depth[1], model.triangles, labels, image_size=SIZE)
    masks = {part: np.asarray(mask) for part, mask in parts.part_masks(drawn).items()}
    return {part: np.asarray(face.points[0])[model.parts[part]] for part in parts.PARTS}, masks


def _resampled(points, share, random):
    count = max(1, round(share * len(points)))
    return (points[random.integers(0, len(points), count)] + random.normal(size=(count, 2)) / 2).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Points {part: [N, 2]}, masks {part: [H, W]}, their descriptors {part: [A, 3]}, and anchors [A, 2]."""

    points: dict
    masks: dict
    descriptors: dict
    anchors: np.ndarray

    @property
    def pairs(self):
        """Number of pairs of point and anchor."""
        return len(self.anchors) * sum(len(array) for array in self.points.values())

    @property
    def most_pairs_of_a_part(self):
        """The same for the largest part."""
        return len(self.anchors) * max(len(array) for array in self.points.values())

    @functools.cached_property
    def definition(self):
        """Loss and gradients against the descriptors in float64."""
        return gradient_by_definition(self)


def jax_form(problem, with_masks, **options):
    """(run, bytes of temporaries): run() gives loss and gradient, or is None where that takes too much memory."""
    if not with_masks:
        targets = problem.descriptors
    elif options.get("implementation") == "reference":
        targets = {part: parts.mask_points(mask) for part, mask in problem.masks.items()}  # naive on both sides
    else:
        targets = problem.masks
    points, targets = (
        {part: jnp.asarray(array)[None] for part, array in arrays.items()} for arrays in (problem.points, targets)
    )

    def loss(points, targets):
        return prdl_loss(points, targets, anchors=problem.anchors, **options)[0]

    compiled = jax.jit(jax.value_and_grad(loss)).lower(points, targets).compile()
    analysis = compiled.memory_analysis()
    temporary = None if analysis is None else analysis.temp_size_in_bytes
    if temporary is not None and temporary > most_memory():
        return None, temporary

    def run():
        value, gradient = jax.block_until_ready(compiled(points, targets))
        return float(value), {part: array[0] for part, array in gradient.items()}

    return run, temporary


def forms():
    """Name -> function (problem, with_masks) -> (run or None, bytes of temporaries or None)."""
    found = {}
    if importlib.util.find_spec("torch"):
        from torch_forms import torch_form

        for kind in ("naive", "exact", "lean"):
            found[f"torch, {kind}"] = functools.partial(torch_form, kind=kind, most_memory=most_memory)
    return found | {
        "jnp, naive": functools.partial(jax_form, implementation="reference"),
        "jaxface": jax_form,
        "jaxface, exact": functools.partial(jax_form, exact=True),
    }


def gradient_by_definition(problem):
    """Loss and gradients in float64 numpy, against the descriptors; anchors in chunks."""
    loss, gradients = 0.0, {}
    for part, points in problem.points.items():
        points, gradient = points.astype(np.float64), np.zeros(points.shape)
        size = max(1, 4_000_000 // len(points))
        for start in range(0, len(problem.anchors), size):
            anchors = problem.anchors[start : start + size].astype(np.float64)
            target = problem.descriptors[part][start : start + size].astype(np.float64)
            offsets = points[None] - anchors[:, None]
            distances = np.sqrt((offsets**2).sum(-1))
            slopes = np.zeros_like(distances)
            for column, extreme in ((0, distances.argmin(1)), (1, distances.argmax(1))):
                rows = np.arange(len(anchors))
                residual = distances[rows, extreme] - target[:, column]
                loss += (residual**2).sum()
                slopes[rows, extreme] += 2 * residual
            residual = distances.mean(1) - target[:, 2]
            loss += (residual**2).sum()
            slopes += 2 * residual[:, None] / len(points)
            slopes = np.divide(slopes, distances, out=np.zeros_like(slopes), where=distances > 0)
            gradient += np.einsum("an,and->nd", slopes, offsets)
        gradients[part] = gradient / len(problem.anchors)
    return loss / len(problem.anchors), gradients


def measure(name, form, problem, with_masks, *, budget, previous=None):
    """One row of results; `previous`, an earlier row of the same form, foretells how long this one will take."""
    points = sum(len(array) for array in problem.points.values())
    row = {"form": name, "targets": "masks" if with_masks else "descriptors"}
    row |= {"anchors": len(problem.anchors), "points": points}
    if previous and previous["seconds"] * problem.pairs / (previous["anchors"] * previous["points"]) > MOST_SECONDS:
        return row | {"left_out": f"would take over {MOST_SECONDS:.0f} s"}
    give_back_memory()
    run, temporary = form(problem, with_masks)
    if run is None:
        return row | {"left_out": f"would need {temporary / 1e9:.1f} GB"}
    row["seconds"] = seconds_of(run, budget)
    row["extra_bytes"] = peak_resident_growth(run) if temporary is None else temporary
    if not with_masks and problem.pairs < 1e9:
        row |= errors(run(), problem.definition)
    return row


def errors(found, definition):
    """Of the loss, relative; of the gradient, the largest as a share of the largest gradient."""
    scale = max(np.abs(gradient).max() for gradient in definition[1].values())
    worst = max(np.abs(np.asarray(found[1][part]) - gradient).max() for part, gradient in definition[1].items())
    return {"loss_error": float(abs(found[0] / definition[0] - 1)), "gradient_error": float(worst / scale)}


def floors(problem, options):
    """Seconds that no form can go below, under the stated assumptions."""
    per_second = options.lanes * options.cores * options.ghz * 1e9
    return {
        "assumption": f"{options.lanes} float lanes x {options.cores} cores x {options.ghz} GHz, one instruction per "
        f"lane and cycle; {options.bandwidth} GB/s of memory",
        "pairs": problem.pairs,
        "instructions_per_pair": {"forward": FORWARD, "backward": BACKWARD},
        "passes_over_kept_pairs": PASSES,
        "all_pairs_seconds": problem.pairs * (FORWARD + BACKWARD) / per_second,
        "keeping_pairs_seconds": problem.pairs * 4 * PASSES / (1e9 * options.bandwidth),
    }


def train_step_in_another_process(tiny):
    """`train_step_share` in a process that keeps freed memory, as `jaxface.train` does."""
    command = [sys.executable, __file__, "--train-step", *(["--quick"] if tiny else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def sweep(sizes, make_problem, bar, budget):
    """Rows of every form for problems of growing size, against descriptors."""
    rows, last = [], {}
    for size in sizes:
        problem = make_problem(size)
        for name, form in forms().items():
            bar.set_postfix_str(f"{name}, {problem.pairs:.1e} pairs")
            row = measure(name, form, problem, False, budget=budget, previous=last.get(name))
            rows.append(row)
            if "seconds" in row:
                last[name] = row
            bar.update()
    return rows


def main(arguments=None):
    options = _parse(arguments)
    jax.config.update("jax_disable_most_optimizations", options.quick)  # compiles sooner, to slower code
    if options.train_step:
        from prdl_train_step import train_step_share  # what it imports is for training alone

        print(json.dumps(train_step_share(options.quick)))
        return
    out = options.out or (Path("outputs/benchmarks") if options.quick else HERE)
    if options.quick:
        budget, anchors, points, most_anchors, count, names = 0.05, [10], [100], 14, 300, ("nose",)
    else:
        budget, anchors, points = 2.0, [14, 28, 56, 112, 224, 448], [100, 300, 1000, 3000, 10_000, 30_000, 100_000]
        most_anchors, count, names = SIZE, None, parts.PARTS
    face = face_problem(most_anchors, count, names)

    found = forms()
    versions = f"jax {jax.__version__}"
    if importlib.util.find_spec("torch"):
        import torch

        versions += f", torch {torch.__version__}"
    device = jax.devices()[0].device_kind
    results = {"machine": f"{_processor() if device == 'cpu' else device}, {os.cpu_count()} CPU cores; {versions}"}
    total = len(found) * (2 + len(anchors) + len(points)) + 1
    with tqdm(total=total, unit="form", dynamic_ncols=True, mininterval=1.0) as bar:
        results["face"] = []
        for with_masks in (False, True):
            for name, form in found.items():
                bar.set_postfix_str(f"{name}, the face")
                results["face"].append(measure(name, form, face, with_masks, budget=budget))
                bar.update()
        results["floor"] = floors(face, options)
        results["against_anchors"] = sweep(anchors, lambda n: face_problem(n, count, names), bar, budget)
        results["against_points"] = sweep(points, lambda n: face_problem(most_anchors, n, names), bar, budget)
        bar.set_postfix_str("train step")
        results["train_step"] = train_step_in_another_process(options.quick)
        bar.update()
    with atomic.atomic_write(out / "prdl.json") as path:
        path.write_text(json.dumps(results, indent=1) + "\n")
    print_report(results)
    draw(out / "prdl.png", results)
    print(f"written: {out / 'prdl.json'}, {out / 'prdl.png'}")


def _processor():
    try:
        return re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()).group(1)
    except (OSError, AttributeError):
        return "cpu"


def _gigahertz():
    try:
        megahertz = [float(text) for text in re.findall(r"cpu MHz\s*: (.*)", Path("/proc/cpuinfo").read_text())]
        return round(max(megahertz) / 1e3, 2)
    except (OSError, ValueError):
        return 3.0


def _parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, for tests")
    parser.add_argument("--out", type=Path, help="folder for prdl.json and prdl.png (default: benchmarks/)")
    parser.add_argument("--train-step", action="store_true", help="print the share of the train step, and nothing else")
    parser.add_argument("--lanes", type=int, default=8, help="assumed for the floor: float lanes (default: 8, AVX2)")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="likewise: cores (default: all)")
    parser.add_argument("--ghz", type=float, default=_gigahertz(), help="likewise: clock (default: the present one)")
    parser.add_argument("--bandwidth", type=float, default=20.0, help="likewise: memory in GB/s (default: 20)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    # The naive forms take arrays of most of the memory; training keeps what is freed, and so does its measurement.
    command_line.run(main, keep_freed_memory="--train-step" in sys.argv)
