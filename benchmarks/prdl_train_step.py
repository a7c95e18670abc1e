"""PRDL's share of the quickstart's train step."""

import dataclasses

import jax
from measuring import seconds_of
from training_problem import random_batch, read_config_file

import jaxface
from jaxface.losses.faces import part_loss, part_targets, vertex_part_loss
from jaxface.networks.checkpoints import create_configured_encoder
from jaxface.training import parallel
from jaxface.training.objective import total_loss
from jaxface.training.optimizer import create_optimizer
from jaxface.training.step import create_state, make_train_step

WEIGHTS = {
    "vertices": {},  # the quickstart as it is
    "pixels": {"prdl": 4e-3, "prdl_vertices": 0.0, "anchor_stride": 3, "prdl_every": 4},
    "without_prdl": {"prdl_vertices": 0.0},
}


def train_step_share(tiny):
    """Seconds of the quickstart's step with PRDL of either form and without, and of PRDL alone, on a random batch."""
    config = read_config_file("quickstart")
    if tiny:
        config.update_from_flattened_dict({"image_size": 32, "batch_size": 8, "encoder.width_multiplier": 0.125})
    model = jaxface.load_face_model(config.face_model)
    camera = jaxface.Camera().resized(config.image_size)
    batch, face = random_batch(model, camera, config.batch_size)
    budget = 0.1 if tiny else 10.0
    step_seconds = {}
    for name, changes in WEIGHTS.items():
        if not tiny or name == "vertices":
            weights = dict(config.loss) | changes
            step_seconds[name] = seconds_of(train_step(config, model, camera, batch, weights), budget)

    def on_vertices(points):
        moved = dataclasses.replace(face, points=points)
        return vertex_part_loss(model, moved, batch["labels"], camera, anchor_stride=config.loss.anchor_stride).mean()

    every = WEIGHTS["pixels"]["prdl_every"]
    some, labels = jax.tree.map(lambda array: array[::every], (face, batch["labels"]))

    def on_pixels(points):
        return part_loss(model, dataclasses.replace(some, points=points), part_targets(labels)).mean()

    seconds = {}
    for name, loss, points in (("vertices", on_vertices, face.points), ("pixels", on_pixels, some.points)):
        gradient = jax.jit(jax.value_and_grad(loss))
        seconds[name] = seconds_of(lambda run=gradient, at=points: jax.block_until_ready(run(at)), budget)
    return {
        "image_size": config.image_size, "batch_size": config.batch_size, "anchor_stride": config.loss.anchor_stride,
        "prdl_seconds": seconds["vertices"], "step_seconds": step_seconds["vertices"],
        "prdl_share": seconds["vertices"] / step_seconds["vertices"],
        "pixels_every": every, "pixels_seconds": seconds["pixels"],
    } | {f"step_{name}_seconds": value for name, value in step_seconds.items() if name != "vertices"}  # fmt: skip


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
