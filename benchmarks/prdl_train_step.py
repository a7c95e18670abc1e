"""PRDL's share of the quickstart's train step."""

import dataclasses

import jax
from measuring import seconds_of
from training_problem import random_batch, read_config_file

import jaxface
from jaxface.losses.faces import part_loss, part_targets
from jaxface.networks.checkpoints import create_configured_encoder
from jaxface.training import parallel
from jaxface.training.objective import total_loss
from jaxface.training.optimizer import create_optimizer
from jaxface.training.step import create_state, make_train_step


def train_step_share(tiny):
    """Seconds of the quickstart's train step, of the same without PRDL, and of its PRDL alone, on a random batch."""
    config = read_config_file("quickstart")
    if tiny:
        config.update_from_flattened_dict({"image_size": 32, "batch_size": 8, "encoder.width_multiplier": 0.125})
    model = jaxface.load_face_model(config.face_model)
    camera = jaxface.Camera().resized(config.image_size)
    batch, face = random_batch(model, camera, config.batch_size)
    stride = config.loss.anchor_stride

    every = config.loss.prdl_every
    some = jax.tree.map(lambda array: array[::every], face)
    labels = batch["labels"][::every]

    def prdl_alone(points, labels):
        targets = part_targets(labels, anchor_stride=stride)
        return part_loss(model, dataclasses.replace(some, points=points), targets).mean()

    gradient = jax.jit(jax.value_and_grad(prdl_alone))
    budget = 0.1 if tiny else 10.0
    alone = seconds_of(lambda: jax.block_until_ready(gradient(some.points, labels)), budget)
    whole = seconds_of(train_step(config, model, camera, batch, dict(config.loss)), budget)
    result = {
        "image_size": config.image_size, "batch_size": config.batch_size, "anchor_stride": stride, "every": every,
        "prdl_seconds": alone, "step_seconds": whole, "prdl_share": alone / whole,
    }  # fmt: skip
    if not tiny:
        without = dict(config.loss) | {"prdl": 0.0}
        result["step_without_prdl_seconds"] = seconds_of(train_step(config, model, camera, batch, without), budget)
    return result


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
