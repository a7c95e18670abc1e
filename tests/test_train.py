"""The training command: a killed run goes on bit for bit, its files, and its messages."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxface import train as training
from jaxface.core.errors import InputError
from jaxface.files import command_line
from jaxface.models.native import write_face_model
from jaxface.networks.checkpoints import load_encoder
from toys.models import toy_model
from toys.training import CONFIGS, toy_config, write_toy_dataset

SIZE, STEPS = 32, 12

# How ml_collections reads config files.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    model = toy_model()
    write_face_model(model, folder / "toy.npz")
    write_toy_dataset(folder / "dataset", model, count=40, size=SIZE)
    return folder


def _command(workplace, output):
    changes = {
        "output_dir": output, "cache_dir": "cache", "face_model": workplace / "toy.npz", "image_size": SIZE,
        "batch_size": 8, "steps": STEPS, "log_every": 2, "checkpoint_every": 4, "encoder.width_multiplier": 0.125,
        "data.source": "folder", "data.path": "dataset", "data.held_out": 8, "optimizer.warmup_steps": 2,
        "loss.prdl": 0.0,
    }  # fmt: skip
    overrides = [f"--config.{name}={value}" for name, value in changes.items()]
    return [sys.executable, "-m", "jaxface.train", "--config", str(CONFIGS / "quickstart.py"), *overrides]


def _start(workplace, output):
    # One device, as on a laptop; compiled programs are kept (conftest.py), so that only the first run compiles.
    environment = os.environ | {"XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return subprocess.Popen(
        _command(workplace, output), cwd=workplace, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(workplace):
    """A run that nothing interrupted."""
    process = _start(workplace, "whole")
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    return workplace / "whole", output


@pytest.mark.slow
def test_a_run_leaves_metrics_previews_results_and_an_encoder(finished):
    folder, output = finished
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "loss" in r] == list(range(2, STEPS + 1, 2))
    assert [r["step"] for r in records if "held_out_part_iou" in r] == [4, 8, 12]
    assert {path.name for path in (folder / "previews").iterdir()} == {f"step_{s:06}.png" for s in (4, 8, 12)}
    results = json.loads((folder / "results.json").read_text())
    assert 0 < results["encoder"]["part_iou"] < 1 and results["held_out_faces"] == 8
    assert results["mean_face"].keys() == results["encoder"].keys()
    assert "mean face" in output and "Part IoU, nose" in output
    predict, model, config = load_encoder(folder)
    vectors = predict(np.zeros((2, SIZE, SIZE, 3), np.uint8))
    assert np.isfinite(vectors).all() and model.name == "toy" and config.steps == STEPS


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(workplace, finished):
    process = _start(workplace, "killed")
    _wait_for_lines(process, workplace / "killed" / "metrics.jsonl", count=8)  # between steps 8 and 12
    process.kill()  # SIGKILL
    process.communicate()
    assert len((workplace / "killed" / "metrics.jsonl").read_text().splitlines()) < 9, "it was killed too late"
    again = _start(workplace, "killed")
    output, errors = again.communicate(timeout=400)
    assert again.returncode == 0, errors
    assert "Resuming quickstart at step" in output
    whole, resumed = ((workplace / name / "metrics.jsonl").read_text() for name in ("whole", "killed"))
    assert resumed == whole
    leftovers = [path.name for path in (workplace / "killed" / "checkpoints").iterdir() if "tmp" in path.name]
    assert not leftovers


def _wait_for_lines(process, path, *, count):
    deadline = time.monotonic() + 300
    while not path.exists() or path.read_text().count("\n") < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _metrics(step, **changes):
    return {"loss": np.float32(step), "prdl": np.float32(2 * step), "gradient_norm": 1.0, "skipped": 0.0} | changes


def test_logged_figures_are_means_over_the_window():
    window = [_metrics(1), _metrics(2), _metrics(6)]
    means = training._mean_of_window(window, 30, 0)
    assert means == {"loss": 3.0, "gradient_norm": 1.0, "prdl": 6.0, "skipped": 0}
    assert next(iter(means)) == "loss"


def test_a_loss_that_is_not_finite_stops_training_and_names_step_and_term():
    nan = float("nan")
    window = [_metrics(1), _metrics(nan, gradient_norm=1.0, skipped=1.0), _metrics(3)]
    with pytest.raises(InputError, match=r"^step 29: prdl is not finite.*learning_rate"):
        training._mean_of_window(window, 30, 0)
    assert training._mean_of_window(window, 30, 1) == {"loss": 2, "gradient_norm": 1, "prdl": 4, "skipped": 1}
    window = [_metrics(1, gradient_norm=nan, skipped=1.0)]
    with pytest.raises(InputError, match="gradient_norm is not finite"):
        training._mean_of_window(window, 30, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "config.steps is 0"),
        ({"checkpoint_every": 3}, "multiple of config.log_every"),
        ({"batch_size": 12}, "config.batch_size is 12, which 8 devices cannot share"),
        ({"parallel": "threads"}, "config.parallel is 'threads'"),
        ({"face_model": "nobody"}, "unknown face model 'nobody'"),
        ({"data.source": "webcam"}, "config.data.source is 'webcam'"),
        ({"data.path": ""}, "config.data.path is empty"),
        ({"data.path": "nowhere"}, "nowhere: no such folder"),
        ({"data.held_out": 40}, "config.data.held_out would keep 40"),
        ({"data.held_out": 0}, "config.data.held_out is 0"),
        ({"data.held_out": -3}, "config.data.held_out is -3"),
        ({"seed": -1}, "config.seed is -1"),
        ({"seed": 2**31}, "config.seed is 2147483648"),
        ({"optimizer.schedule": "zigzag"}, "optimizer.schedule is 'zigzag'"),
        ({"encoder.name": "vgg"}, "unknown encoder 'vgg'"),
        ({"encoder.dtype": "float64"}, "config.encoder.dtype is 'float64': choose 'float32' or 'bfloat16'"),
    ],
)
def test_mistakes_in_a_config_are_input_errors(workplace, tmp_path, changes, message):
    usual = {"face_model": str(workplace / "toy.npz"), "data.source": "folder", "output_dir": str(tmp_path)}
    usual |= {"data.path": str(workplace / "dataset"), "image_size": SIZE}
    with pytest.raises(InputError, match=message):
        training.train(toy_config(**usual | changes))


def test_a_weight_of_an_unknown_term_is_an_input_error_before_anything_is_drawn(tmp_path):
    config = toy_config(output_dir=str(tmp_path), **{"data.path": "not looked at yet"})
    with config.unlocked():
        config.loss.prdll = 1.0
    with pytest.raises(InputError, match=r"config\.loss\.prdll: there is no such term, but prdl, "):
        training.train(config)


@pytest.mark.parametrize("name", ["prdl_every", "anchor_stride"])
@pytest.mark.parametrize("number", [0, 1.5, "2", None])
def test_every_how_many_is_a_whole_number(name, number, tmp_path):
    config = toy_config(output_dir=str(tmp_path), **{"data.source": "folder", "data.path": "not looked at"})
    config.loss = config.loss.to_dict() | {name: number}
    with pytest.raises(InputError, match=rf"config\.loss\.{name} is {number!r}, but must be a whole number"):
        training.train(config)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", str(CONFIGS / "quickstart.py"), "--config.batchsize=3"], "batchsize"),
        (["--config", str(CONFIGS / "quickstart.py"), "--config.steps=many"], "many"),
        (["--config", "nowhere.py"], "nowhere.py"),
        (
            ["--config", "quick-start"],
            "there is no config 'quick-start', but 3ddfa_v3_resnet50, encoder_people, parser_people, quickstart",
        ),
        (["--config=nonsense"], "there is no config 'nonsense'"),
        (["--config", str(CONFIGS / "quickstart.py"), "photos"], "unknown argument 'photos'"),
        (["--confg", "x.py"], "confg"),
        ([], "no config"),
    ],
)
def test_mistakes_on_the_command_line_exit_with_2(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        command_line.run(training.main)
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and message in errors and errors.startswith("error: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_here\n", "ModuleNotFoundError: No module named 'nothing_here'"),
        ("def get_config():\n    raise RuntimeError('oops')\n", "RuntimeError: oops"),
        ("def get_config(:\n", "SyntaxError"),
    ],
)
def test_a_config_file_with_a_mistake_is_told_in_one_line(text, message, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match="a mistake in the config file") as error:
        training.read_config(["train.py", "--config", str(path)])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_help(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--help"])
    training.main()
    assert "python -m jaxface.train --config" in capsys.readouterr().out


def test_overrides(monkeypatch):
    arguments = ["train.py", f"--config={CONFIGS / 'quickstart.py'}", "--config.steps=7", "--config.loss.prdl=0.5"]
    monkeypatch.setattr(sys, "argv", arguments)
    config = training.read_config(arguments)
    assert (config.steps, config.loss.prdl, config.name) == (7, 0.5, "quickstart")


@pytest.mark.parametrize("arguments", [["--config", "quickstart"], ["--config=quickstart"]])
def test_a_config_that_comes_along_is_found_by_its_name(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments, "--config.steps=7"])
    assert training.read_config(sys.argv).steps == 7
    (tmp_path / "quickstart").write_text((CONFIGS / "quickstart.py").read_text().replace("quickstart", "own"))
    assert training.read_config(sys.argv).name == "own"
