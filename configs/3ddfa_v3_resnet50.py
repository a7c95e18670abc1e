"""The recipe of 3DDFA-V3 (Wang et al. 2024): ResNet-50 at 224 x 224, Adam, the published loss weights.

    python -m jaxface.preprocess PHOTOS dataset
    python -m jaxface.train --config configs/3ddfa_v3_resnet50.py --config.data.path=dataset

One process per host of a cluster: see parallel.initialize. What the paper does not say is taken from
Deep3DFaceRecon, whose recipe it follows: batch, schedule, light and reflectance terms.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The configuration; configs/quickstart.py explains the fields."""
    config = ConfigDict()
    config.name = "3ddfa_v3_resnet50"
    config.output_dir = "outputs/3ddfa_v3_resnet50"
    config.cache_dir = "outputs/cache"
    config.seed = 0
    config.face_model = "anny"  # the paper: BFM 2009
    config.recognition = "dlib"
    config.image_size = 224
    config.batch_size = 128
    config.steps = 94_000  # 20 epochs of 600,000 faces
    config.parallel = "pmap"
    config.multi_host = False
    config.log_every = 50
    config.checkpoint_every = 1000
    config.max_skipped_steps = 5

    config.encoder = ConfigDict()
    config.encoder.name = "resnet50"
    config.encoder.initial = ""
    config.encoder.width_multiplier = 1.0
    # "bfloat16" lets the matrix units of GPUs and TPUs work at full speed, with feature maps of half the size; weights,
    # batch statistics, heads, geometry and losses stay float32. Not the default: no whole training compared the two.
    config.encoder.dtype = "float32"

    config.data = ConfigDict()
    config.data.source = "folder"  # samples are mirrored, turned, scaled and shifted at random
    config.data.drawn_size = 0
    config.data.people = ""
    config.data.path = ""
    config.data.count = 0
    config.data.held_out = 256
    config.data.workers = 8

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 1e-4
    config.optimizer.schedule = "step"
    config.optimizer.warmup_steps = 0
    config.optimizer.clip_norm = None

    config.loss = ConfigDict()
    config.loss.prdl = 4e-3  # on pixels, which is zero for the true face
    config.loss.prdl_vertices = 0.0
    config.loss.prdl_paper = 0.0  # as published: 0.8e-3 here, prdl=0 and anchor_stride=1
    config.loss.landmark = 1.6e-3
    config.loss.photometric = 1.9
    config.loss.perceptual = 0.2  # needs the extra: pip install 'jaxface[perceptual]'; else 0.0
    config.loss.regularization = 3e-4
    config.loss.light = 10.0
    config.loss.reflectance = 5.0
    config.loss.reprojection = 0.0
    config.loss.shape = 0.0
    config.loss.color = 0.0
    config.loss.coefficients = 0.0
    config.loss.labels = 0.0
    config.loss.points = 0.0
    config.loss.visibility = 0.0
    config.loss.spread = 0.0
    config.loss.anchor_stride = 3
    config.loss.prdl_every = 1
    return config
