"""The network that ships: coefficients, parts and points of a face at one look, learned from drawn people.

    python -m jaxface.train --config configs/encoder_people.py

On two CPU cores a quarter of an hour of drawing and some 80 minutes of training; the same command goes on where it was
stopped. On an accelerator add --config.data.source=drawn: faces are then drawn in the train step, each only once.
docs/training.md tells what it costs, and how real photos are mixed in.
"""

from ml_collections import ConfigDict

from jaxface.train import preset


def get_config() -> ConfigDict:
    """The quickstart's configuration, changed; what is not named here is explained there."""
    config = preset("quickstart")
    config.name = "encoder_people"
    config.output_dir = "outputs/encoder_people"
    config.seed = 17
    config.image_size = 96
    config.batch_size = 16
    config.steps = 13000
    config.log_every = 50
    config.checkpoint_every = 1000

    config.encoder.name = "people18"  # tells parts and points as well
    config.encoder.width_multiplier = 0.5

    config.data.count = 40000
    config.data.drawn_size = 128  # about two samples a pixel: edges of hair and lids are soft, as in photos
    config.data.held_out = 256
    config.data.people = "learned"  # without the skins and styles that held-out samples have; "all" has both

    config.optimizer.learning_rate = 1.2e-3
    config.optimizer.warmup_steps = 200
    config.optimizer.clip_norm = 5.0

    config.loss.prdl = 4e-3
    config.loss.prdl_every = 8
    config.loss.anchor_stride = 3
    config.loss.prdl_vertices = 0.0
    config.loss.landmark = 0.0  # the points' terms tell it
    config.loss.regularization = 0.0
    config.loss.reprojection = 0.5
    config.loss.shape = 0.5
    config.loss.color = 4.0
    config.loss.coefficients = 0.5
    config.loss.labels = 2.0
    config.loss.points = 0.3
    config.loss.visibility = 0.5
    config.loss.spread = 0.1
    return config
