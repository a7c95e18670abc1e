"""Every config can be loaded, and the paper's recipe trains."""

import json

import pytest

from jaxface import train as training
from jaxface.models.native import write_face_model
from toys.models import toy_model
from toys.training import CONFIGS, read_config_file, toy_config, write_toy_dataset

NAMES = sorted(path.stem for path in CONFIGS.glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_configs_have_the_same_fields_and_go_to_their_own_folder(name):
    config = read_config_file(name)
    assert config.name == name and config.output_dir == f"outputs/{name}"
    assert config.to_dict().keys() == read_config_file("quickstart").to_dict().keys()
    for group in ("data", "encoder", "optimizer", "loss"):
        assert config[group].keys() == read_config_file("quickstart")[group].keys()
    training._check(config)


def test_the_papers_weights():
    config = read_config_file("3ddfa_v3_resnet50")
    assert (config.image_size, config.encoder.name) == (224, "resnet50")
    assert config.optimizer.learning_rate == 1e-4
    loss = config.loss
    assert (loss.landmark, loss.photometric, loss.regularization) == (1.6e-3, 1.9, 3e-4)
    assert loss.prdl > 0  # on pixels: another quantity than the paper's
    assert loss.perceptual == 0.2


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_the_papers_recipe_trains_a_few_steps(tmp_path):
    model = toy_model()
    write_face_model(model, tmp_path / "toy.npz")
    write_toy_dataset(tmp_path / "dataset", model, count=24, size=32)
    config = toy_config(
        "3ddfa_v3_resnet50",
        **{"face_model": str(tmp_path / "toy.npz"), "data.path": str(tmp_path / "dataset")},
        **{"output_dir": str(tmp_path / "out"), "image_size": 32, "steps": 2, "log_every": 1, "checkpoint_every": 2},
        **{"loss.anchor_stride": 4, "optimizer.warmup_steps": 0, "parallel": "sharded", "encoder.name": "resnet18"},
        **{"loss.perceptual": 0.0},  # in test_perceptual.py, since dlib's network takes long to compile
    )
    results = training.train(config)
    assert 0 < results["encoder"]["part_iou"] < 1
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert {"prdl", "landmark", "photometric", "regularization", "light", "reflectance"} <= lines[0].keys()
