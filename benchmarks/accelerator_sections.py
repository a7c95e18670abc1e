"""The sections of accelerator.py: each gives its figures one by one as (name, measure, *targets)."""

import dataclasses
import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
from accelerator_report import LeftOut, Target, compile_for, timed
from measuring import seconds_of
from prdl import face_problem
from training_problem import random_batch, read_config_file

import jaxface
from jaxface.core import parts
from jaxface.core.coefficients import vector_sizes
from jaxface.losses import pixel_prdl_loss, pixel_targets, prdl_loss
from jaxface.render import interpolate, label_triangles, rasterize, soft_silhouette
from render import anny, sphere


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
        image: side of the pictures in pixels.
        anchors: of the vertex form, as many in x and in y.
        points: the vertex form's, of `names` together; None: all that these parts have.
        names: the parts that the vertex form compares.
        batches: of the losses and the rasterizer; the issue's targets are for the first and the last.
        triangles: of the sphere, about.
        train_batch: of the train step; no less than the others.
        encoder: changes to the published configuration's encoder.
        budget: seconds that a figure may be repeated for.
    """

    image: int = 224
    anchors: int = 224
    points: int | None = None
    names: tuple[str, ...] = parts.PARTS
    batches: tuple[int, ...] = (1, 16, 64)
    triangles: int = 70_000
    train_batch: int = 128
    encoder: dict = dataclasses.field(default_factory=dict)
    budget: float = 0.7


FULL = Sizes()
QUICK = Sizes(
    image=32, anchors=10, points=300, names=("nose",), batches=(2,), triangles=500, train_batch=2,
    encoder={"name": "resnet10", "width_multiplier": 0.125}, budget=0.02,
)  # fmt: skip


def agreement(sizes):
    """The same on the accelerator and on the CPU: what reduced precision or a wrong kernel would change."""
    model, camera, samples, points, depth = _samples(sizes.image, sizes.train_batch)
    vectors, labels = samples["coefficients"][:2], samples["labels"][:2]
    points, depth = points[:2], depth[:2]
    problem = _vertex_problem(sizes, 1)
    soft_size = sizes.image // 2

    def decode(model, vectors):
        return jaxface.decode_face(model, jaxface.Coefficients.from_vector(vectors, model), camera)

    def faces():
        here, there = _on_both(decode, model, vectors)
        names = {"points_px": "points", "depth": "depth", "colors": "colors"}
        return {key: float(np.abs(getattr(here, name) - getattr(there, name)).max()) for key, name in names.items()}

    def drawing():
        here, there = _on_both(functools.partial(rasterize, image_size=sizes.image), points, depth, model.triangles)
        return {"pixels": here.triangle.size, "different": int((here.triangle != there.triangle).sum())}

    def on_vertices(points, masks):
        return prdl_loss(points, masks, anchors=problem["anchors"]).sum()

    def on_pixels(points, depth, labels):
        return _pixel_loss(model, points, depth, labels)

    def soft(points):
        drawn = soft_silhouette(points, model.triangles, image_size=soft_size, sigma=1e-4)
        return jnp.square(drawn).sum()

    yield "decode_face", faces
    yield "rasterize", drawing
    yield "PRDL on vertices", lambda: _differences(on_vertices, problem["points"], problem["masks"])
    yield "PRDL on pixels", lambda: _differences(on_pixels, points, depth, labels)
    yield "soft silhouette", lambda: _differences(soft, points * (soft_size / sizes.image))


def _on_both(function, *arguments):
    """The function's results on the default device and on a CPU, as numpy arrays."""
    results = []
    for device in (jax.devices()[0], jax.devices("cpu")[0]):
        with jax.default_device(device):
            result = jax.jit(function)(*jax.device_put(arguments, device))
        results.append(jax.tree.map(np.asarray, result))
    return results


def _differences(loss, *arguments):
    (here, slope_here), (there, slope_there) = _on_both(jax.value_and_grad(loss), *arguments)
    here_and_there = list(zip(jax.tree.leaves(slope_here), jax.tree.leaves(slope_there), strict=True))
    worst = max(np.abs(a - b).max() for a, b in here_and_there)
    return {
        "value_error": float(abs(here - there) / abs(there)),
        "gradient_error": float(worst / max(np.abs(b).max() for _, b in here_and_there)),
    }


def vertices(sizes):
    """PRDL on vertices, value and gradient, to masks that are described each time and to descriptors made once."""

    def measure(kind, batch):
        problem = _vertex_problem(sizes, batch)

        def loss(points, targets):
            return prdl_loss(points, targets, anchors=problem["anchors"]).sum()

        return timed(jax.value_and_grad(loss), problem["points"], problem[kind], batch=batch, budget=sizes.budget)

    for batch in sizes.batches:
        for kind in ("descriptors", "masks"):
            targets = _targets(sizes, batch, 4.0, 0.3)
            yield f"to {kind}, batch {batch}", functools.partial(measure, kind, batch), *targets


_face_problem = functools.cache(face_problem)  # it compiles something each time


def _vertex_problem(sizes, batch):
    """prdl.py's points, masks and descriptors {part: [batch, ...]}, the points shifted a little in each sample."""
    problem = _face_problem(sizes.anchors, sizes.points, sizes.names)
    shifts = np.random.default_rng(0).normal(size=(batch, 1, 2)).astype(np.float32)
    repeated = {
        kind: {part: jnp.asarray(np.repeat(array[None], batch, 0)) for part, array in getattr(problem, kind).items()}
        for kind in ("masks", "descriptors")
    }
    points = {part: jnp.asarray(array + shifts) for part, array in problem.points.items()}
    return {"points": points, "anchors": problem.anchors} | repeated


def _targets(sizes, batch, one_face, each_of_many):
    """Those of milliseconds, if this is the least or the greatest batch."""
    targets = [Target("ms", one_face)] if one_face and batch == sizes.batches[0] else []
    return targets + ([Target("ms_a_face", each_of_many)] if batch == sizes.batches[-1] else [])


def pixels(sizes):
    """PRDL on pixels, value and gradient with the drawing: to targets made once, to label maps; the drawing alone."""
    model, _, samples, points, depth = _samples(sizes.image, sizes.train_batch)
    labels, points, depth = (jnp.asarray(array[: max(sizes.batches)]) for array in (samples["labels"], points, depth))
    described = jax.block_until_ready(pixel_targets(labels))
    loss = jax.value_and_grad(functools.partial(_pixel_loss, model))

    def draw(points, depth):
        return rasterize(points, depth, model.triangles, image_size=sizes.image)

    def measure(function, batch, *arrays):
        arrays = jax.tree.map(lambda array: array[:batch], (points, depth, *arrays))
        return timed(function, *arrays, batch=batch, budget=sizes.budget)

    for batch in sizes.batches:
        targets = _targets(sizes, batch, None, 0.2)
        yield f"to described targets, batch {batch}", functools.partial(measure, loss, batch, described), *targets
        if targets:
            yield f"to label maps, batch {batch}", functools.partial(measure, loss, batch, labels), *targets
        yield f"the drawing alone, batch {batch}", functools.partial(measure, draw, batch)


@functools.cache
def _samples(image, count):
    """The built-in model, the camera, samples of random faces, and points and depth of others; made once for all."""
    model, camera = jaxface.load_face_model("anny"), jaxface.Camera().resized(image)
    samples, face = random_batch(model, camera, count)
    return model, camera, samples, np.asarray(face.points), np.asarray(face.depth)


def _pixel_loss(model, points, depth, targets):
    labels = label_triangles(model.parts, model.triangles, points.shape[1])
    return pixel_prdl_loss(points, depth, model.triangles, labels, targets).sum()


def torch(sizes):
    """What anyone writes in PyTorch: all pairs of vertices and anchors by broadcasting, one face, to descriptors."""
    if not importlib.util.find_spec("torch"):
        raise LeftOut("needs PyTorch")
    from accelerator_torch import all_pairs

    problem = _face_problem(sizes.anchors, sizes.points, sizes.names)
    for name, compiled in (("torch.compile", True), ("eager", False)):
        measure = functools.partial(all_pairs, problem, compiled=compiled, budget=sizes.budget)
        yield f"{name}, batch 1", measure


def rasterizer(sizes):
    """Drawing, and drawing with interpolation and the gradient of both, for a dense sphere and the built-in face."""
    for name, mesh in (("sphere", sphere(sizes.triangles, sizes.image)), ("built-in face", anny(sizes.image))):
        points, depth, triangles = mesh
        attributes = np.random.default_rng(0).normal(size=(len(points), 3)).astype(np.float32)
        for batch in sizes.batches:
            shifts = np.random.default_rng(1).normal(size=(batch, 1, 2)).astype(np.float32)
            arrays = jnp.asarray(points + shifts), jnp.asarray(np.repeat(depth[None], batch, 0))
            draw = functools.partial(rasterize, triangles=triangles, image_size=sizes.image)

            def shaded(points, depth, draw=draw, triangles=triangles, attributes=attributes):
                fragments = draw(points, depth)
                return jnp.square(interpolate(fragments, triangles, attributes)).sum() + fragments.depth.sum()

            what = f"{name}, {len(triangles):,} triangles, batch {batch}"
            measure = functools.partial(timed, batch=batch, budget=sizes.budget)
            yield what, functools.partial(measure, draw, *arrays)
            yield f"{what}, with gradient", functools.partial(measure, jax.grad(shaded, (0, 1)), *arrays)


def training(sizes):
    """The paper's train step on one device, all losses but the perceptual; the share of PRDL and drawing in it."""
    for package in ("flax", "ml_collections"):
        if not importlib.util.find_spec(package):
            raise LeftOut(f"needs {package}: pip install 'jaxface[train]'")
    config = read_config_file("3ddfa_v3_resnet50")
    config.encoder.update(sizes.encoder)
    config.image_size, config.batch_size = sizes.image, sizes.train_batch
    model, camera, batch, *_ = _samples(sizes.image, sizes.train_batch)
    whole = dict(config.loss) | {"perceptual": 0.0}
    without = whole | {"prdl": 0.0, "photometric": 0.0}
    milliseconds = {}

    def measure(dtype, weights):
        config.encoder.dtype = dtype
        found = _train_step(config, model, camera, batch, weights, sizes.budget)
        milliseconds[dtype, weights is whole] = found["ms"]
        return found

    def share(dtype):
        if not {(dtype, True), (dtype, False)} <= milliseconds.keys():
            raise LeftOut("one of the two steps was not measured")
        return {"share": 1 - milliseconds[dtype, False] / milliseconds[dtype, True]}

    # Compiling takes most of the time, and there may not be enough of it for all: the targets' figures come first.
    reach = (Target("images_a_second", 2000, least=True), Target("compile_seconds", 30.0))
    for dtype in ("bfloat16", "float32"):
        yield f"{dtype}, all terms", functools.partial(measure, dtype, whole), *reach
        yield f"{dtype}, without PRDL and drawing", functools.partial(measure, dtype, without)
        yield f"{dtype}, share of PRDL and drawing", functools.partial(share, dtype), Target("share", 0.25)


def _train_step(config, model, camera, batch, weights, budget):
    from jaxface.networks.encoder import create_encoder
    from jaxface.training.objective import total_loss
    from jaxface.training.optimizer import create_optimizer
    from jaxface.training.step import create_state, make_train_step

    encoder = create_encoder(
        config.encoder.name,
        vector_sizes(model)[:3],
        width_multiplier=config.encoder.width_multiplier,
        dtype=config.encoder.dtype,
    )
    optimizer = create_optimizer(steps=config.steps, **config.optimizer)
    state = create_state(encoder, optimizer, image_size=config.image_size, seed=config.seed)
    model, batch = jax.device_put((model, batch))
    step = make_train_step(encoder, optimizer, lambda *arrays: total_loss(*arrays, camera, **weights))
    program, found = compile_for(step, state, batch, model, donate=0)

    def run():
        nonlocal state
        state, _ = jax.block_until_ready(program(state, batch, model))

    seconds = seconds_of(run, budget)
    return {"ms": 1e3 * seconds, "images_a_second": config.batch_size / seconds} | found


SECTIONS = {
    "agreement": agreement,
    "pixels": pixels,
    "vertices": vertices,
    "torch": torch,
    "training": training,
    "rasterizer": rasterizer,
}
"""By name, in the order in which they run: where time is up, the last are left out."""
