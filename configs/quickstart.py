"""Quickstart: a small encoder learns from synthetic faces of the built-in model. No download, no GPU.

    python -m jaxface.train --config configs/quickstart.py

Run time: 7 to 12 minutes on two CPU cores, after five minutes of drawing the faces. Expect a held-out Part IoU of 0.56
(mean face: 0.24).

Every field below can be changed on the command line: --config.steps=5000, --config.loss.prdl=0, ...
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The configuration; each line says what its field means."""
    config = ConfigDict()
    config.name = "quickstart"
    config.output_dir = "outputs/quickstart"  # give the same one again to resume
    config.cache_dir = "outputs/cache"  # synthetic faces and compiled programs, for the next run; "" keeps none
    config.seed = 0  # of parameters, data and their order
    config.face_model = "anny"  # a built-in face model, or the path of one
    config.recognition = "dlib"  # network of the perceptual loss, or the path of an ArcFace checkpoint
    config.image_size = 96  # side of the crops in pixels
    config.batch_size = 16  # over all devices together
    config.steps = 7200
    config.parallel = "pmap"  # or "sharded": jit over a device mesh
    config.multi_host = False  # True: one process per host, found by JAX (see parallel.initialize)
    config.log_every = 20  # steps whose mean makes one line of metrics.jsonl
    config.checkpoint_every = 1200  # steps between checkpoints, each with a held-out evaluation and a preview
    config.max_skipped_steps = 0  # per log: steps that may be left out because their loss is not finite

    config.encoder = ConfigDict()  # arguments of networks.create_encoder
    config.encoder.name = "resnet10"  # or "resnet18", "resnet50", "mobilenet_v3_large", "people18"
    config.encoder.initial = ""  # weights to start from: a run, net_recon.pth, a torchvision ResNet's .pth
    config.encoder.width_multiplier = 0.5
    config.encoder.dtype = "float32"  # of the backbone's computation; or "bfloat16": fast on GPUs, slow on CPUs

    config.data = ConfigDict()
    config.data.source = "synthetic"  # or "drawn": new ones in every step, for GPUs; "folder": from preprocess
    config.data.drawn_size = 0  # of synthetic faces before they are reduced to image_size; 0: drawn as they are
    config.data.people = ""  # of synthetic faces: "learned" tells their points too and holds some skins and styles out
    config.data.path = ""  # of the folder
    config.data.count = 20000  # number of synthetic faces
    config.data.held_out = 128  # samples for evaluation, never trained on; of a folder the last ones
    config.data.workers = 0  # loading processes; 0 loads in a thread

    config.optimizer = ConfigDict()  # arguments of optimizer.create_optimizer
    config.optimizer.learning_rate = 1.2e-3
    config.optimizer.schedule = "cosine"  # or "constant", "step"
    config.optimizer.warmup_steps = 50
    config.optimizer.clip_norm = 5.0

    config.loss = ConfigDict()  # weights: arguments of objective.total_loss
    config.loss.prdl = 0.0  # on pixels; the paper's recipe has 4e-3, but drawing faces is most of a step on a CPU
    config.loss.prdl_vertices = 0.8e-3  # on vertices, by visible area
    config.loss.prdl_paper = 0.0  # on vertices, all alike
    config.loss.landmark = 1.6e-3
    config.loss.photometric = 0.0  # the paper's is 1.9; drawing every face would double the time of a step here
    config.loss.perceptual = 0.0
    config.loss.regularization = 3e-4
    config.loss.light = 0.0
    config.loss.reflectance = 0.0
    config.loss.reprojection = 1.5  # synthetic faces have true vertices to learn from
    config.loss.shape = 0.3
    config.loss.color = 2.0  # and true colours
    config.loss.coefficients = 0.0
    config.loss.labels = 0.0  # this and the next three: of encoders "people10" and "people18", with data.people
    config.loss.points = 0.0
    config.loss.visibility = 0.0
    config.loss.spread = 0.0
    config.loss.anchor_stride = 24  # PRDL's anchors lie on every 24th pixel; 3 is for PRDL on pixels
    config.loss.prdl_every = 1  # PRDL on pixels draws every n-th face of a batch
    return config
