"""Trains an encoder: photo in, face coefficients out.

    python -m jaxface.train --config quickstart
    python -m jaxface.train --config quickstart --config.batch_size=64 --config.optimizer.learning_rate=3e-4

Everything goes to config.output_dir: metrics.jsonl (one line per log, and per held-out evaluation), previews/*.png
(photo, reconstruction, clay, its parts, target parts), checkpoints/, and at the end results.json with the held-out
figures beside those of the mean face. A run that was stopped, however it was, goes on from its last checkpoint when the
same command is given again, as if it had not been stopped. Learning rate, clipping, the number of steps, logging,
loading processes and devices may be others then: metrics.jsonl tells at which step.

A config is a file of yours (--config my_config.py) or one of those that come along, by its name. Its fields are
explained in configs/quickstart.py.
"""

import functools
import importlib.util
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":  # before the imports below: without the extra `train` this tells so, and ends
    from jaxface.__main__ import main as start

    start(["train", *sys.argv[1:]])

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import Array, Float
from ml_collections import ConfigDict, config_flags

from jaxface.core.cameras import Camera
from jaxface.core.coefficients import vector_size
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel
from jaxface.core.units import to_float
from jaxface.files import atomic, command_line, visualize
from jaxface.models import load_face_model
from jaxface.models.checks import require_parts
from jaxface.networks.checkpoints import create_configured_encoder
from jaxface.networks.face_recognition import FaceRecognizer, load_recognizer
from jaxface.networks.people_answer import PeopleAnswer, vector_of
from jaxface.networks.people_network import pixel_classes
from jaxface.photos.samples import Sample, pad_rows
from jaxface.synthetic.source import Painter
from jaxface.training import parallel
from jaxface.training.checkpoint import Checkpoints, initial_state
from jaxface.training.data import drawn_in_step, make_training_data
from jaxface.training.evaluation import comparison_table, draw_faces, evaluate_dense, evaluate_predictions
from jaxface.training.objective import total_loss
from jaxface.training.optimizer import create_optimizer
from jaxface.training.run_log import RunLog
from jaxface.training.step import TrainState, create_state, make_train_step
from jaxface.training.terms import TERMS

CONFIGS = Path(__file__).parent / "training" / "configs"
"""The repository's configs/, which are installed along."""

Answer = Float[Array, "B K"] | PeopleAnswer
"""Of an encoder: coefficients, or what a `PeopleNetwork` says."""

PREVIEW_FACES = 6
"""Rows of a preview."""
EVALUATION_BATCH = 32
"""Held-out faces that are measured at once."""


def train(config: ConfigDict) -> dict[str, Any]:
    """Trains from the start or from the last checkpoint, and evaluates on held-out samples.

    Args:
        config: see configs/quickstart.py.

    Returns:
        What results.json holds.

    Raises:
        InputError: for a configuration or data that cannot work, and when the loss stops being finite.
    """
    _check(config)
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    model = load_face_model(config.face_model)
    require_parts(model, "training")
    objective, constants = _objective_of(config, model)

    mapping = parallel.mapping(config.parallel)
    encoder = create_configured_encoder(config, model, axis_name=parallel.AXIS)
    optimizer = create_optimizer(steps=config.steps, **config.optimizer)
    checkpoints = Checkpoints(folder, config)
    start = checkpoints.latest_step or 0
    # Minutes: after what a wrong config can fail at.
    batches, held_out = make_training_data(config, model, start=start)
    step_function = make_train_step(encoder, optimizer, objective, axis_name=parallel.AXIS)
    if config.data.source == "drawn":
        step_function = drawn_in_step(step_function, size=config.image_size)
        constants = constants, Painter.of(model, seed=config.seed)
    train_step = mapping.compile(step_function)
    predict = _make_predict(encoder)

    state = create_state(encoder, optimizer, image_size=config.image_size, seed=config.seed)
    if checkpoints.latest_step is not None:
        state = checkpoints.restore(state)
    elif config.encoder.initial:
        state, taken = initial_state(state, optimizer, config.encoder.initial)
        if jax.process_index() == 0:
            print(f"The encoder starts with {taken}")
    state, constants = mapping.replicate(state), mapping.replicate(constants)

    log = RunLog(folder, step=start, total=config.steps, enabled=jax.process_index() == 0)
    log.say(f"{'Resuming' if start else 'Starting'} {config.name} at step {start}; output in {folder}")
    log.changed(start, checkpoints.changes)
    started, window = time.monotonic(), []
    try:
        for step in range(start + 1, config.steps + 1):
            state, metrics = train_step(state, mapping.shard(next(batches)), constants)
            window.append(metrics)
            log.advance()
            if step % config.log_every == 0:
                log.write(step, _mean_of_window(mapping.fetch(window), step, config.max_skipped_steps))
                window = []
            if step % config.checkpoint_every == 0 or step == config.steps:
                saved = mapping.fetch(state)
                figures = evaluate_state(saved, predict, model, held_out, preview=_preview_path(folder, step))
                log.write(step, {f"held_out_{name}": value for name, value in figures.items()}, show=False)
                log.say(_progress_line(step, figures))
                checkpoints.save(saved, figures)
    finally:
        log.close()
        checkpoints.close()
    seconds = time.monotonic() - started
    return _finish(config, mapping.fetch(state), predict, model, held_out, seconds=seconds)


def evaluate_state(
    state: TrainState,
    predict: Callable,
    model: FaceModel,
    held_out: Sequence[Sample],
    *,
    preview: Path | None = None,
) -> dict[str, float]:
    """Figures of `evaluate_predictions` on the held-out samples; draws the first few of them to `preview`."""
    answer, camera = predict(state, held_out), Camera().resized(held_out[0]["image"].shape[0])
    vectors = np.asarray(vector_of(answer))
    if preview is not None and jax.process_index() == 0:
        shown = [held_out[index] for index in range(min(PREVIEW_FACES, len(held_out)))]
        drawn = draw_faces(model, vectors[: len(shown)], camera)
        images, labels = (np.stack([sample[name] for sample in shown]) for name in ("image", "labels"))
        visualize.save_png(preview, visualize.preview_sheet(images, drawn, labels))
    dense = evaluate_dense(answer, held_out) if isinstance(answer, PeopleAnswer) else {}
    return evaluate_predictions(model, vectors, held_out, camera) | dense


def _objective_of(config: ConfigDict, model: FaceModel) -> tuple[Callable, Any]:
    """objective(constants, answer, batch) and the constants: what the step needs but does not change."""
    weights = dict(config.loss)
    if weights["perceptual"] == 0:
        return functools.partial(_objective, weights=weights), model
    # An argument of the step like the face model, so that its weights are not compiled into the program.
    return functools.partial(_perceptual_objective, weights=weights), (model, load_recognizer(config.recognition))


def _objective(
    model: FaceModel, answer: Answer, batch: Mapping[str, Array], *, weights: dict
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    return total_loss(model, answer, batch, _camera_of(batch), **weights)


def _perceptual_objective(
    constants: tuple[FaceModel, FaceRecognizer],
    answer: Answer,
    batch: Mapping[str, Array],
    *,
    weights: dict,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    model, recognizer = constants
    camera = _camera_of(batch)
    return total_loss(model, answer, batch, camera, features=recognizer, chip=recognizer.chip, **weights)


def _camera_of(batch: Mapping[str, Array]) -> Camera:
    return Camera().resized(batch["image"].shape[1])


def _make_predict(encoder: Any) -> Callable[[TrainState, Sequence[Sample]], Answer]:
    @jax.jit
    def apply(params, batch_stats, images):
        answer = encoder.apply({"params": params, "batch_stats": batch_stats}, to_float(images), train=False)
        if isinstance(answer, PeopleAnswer):  # classes, for their logits are many
            answer = answer._replace(logits=pixel_classes(answer.logits))
        return answer

    def predict(state: TrainState, samples: Sequence[Sample]) -> Answer:
        images = np.stack([samples[index]["image"] for index in range(len(samples))])
        padded = pad_rows(images, len(images) + -len(images) % EVALUATION_BATCH)
        groups = np.split(padded, len(padded) // EVALUATION_BATCH)
        variables = jax.tree.map(jnp.asarray, (state.params, state.batch_stats))
        answers = [jax.tree.map(np.asarray, apply(*variables, group)) for group in groups]
        return jax.tree.map(lambda *pieces: np.concatenate(pieces)[: len(images)], *answers)

    return predict


def _mean_of_window(window: list[dict[str, np.ndarray]], step: int, max_skipped: int) -> dict[str, float]:
    skipped = [index for index, metrics in enumerate(window) if metrics["skipped"] > 0]
    if len(skipped) > max_skipped:
        first = window[skipped[0]]
        terms = [name for name, value in first.items() if not np.isfinite(value) and name != "loss"]
        raise InputError(
            f"step {step - len(window) + 1 + skipped[0]}: {' and '.join(terms) or 'the loss'} is not finite. Nothing "
            "of it was saved: the last checkpoint is good. Lower config.optimizer.learning_rate or set "
            "config.optimizer.clip_norm, and look for bad samples; or let training leave out some such steps per log "
            "with config.max_skipped_steps. The same folder goes on with any of these changed"
        )
    kept = [metrics for index, metrics in enumerate(window) if index not in skipped]
    names = sorted(window[0].keys() - {"loss", "skipped"})
    means = {
        name: float(np.mean([metrics[name] for metrics in kept], dtype=np.float64)) if kept else float("nan")
        for name in ("loss", *names)
    }
    return means | {"skipped": len(skipped)}


def _finish(
    config: ConfigDict,
    state: TrainState,
    predict: Callable,
    model: FaceModel,
    held_out: Sequence[Sample],
    *,
    seconds: float,
) -> dict[str, Any]:
    mean_face = np.zeros((len(held_out), vector_size(model)), np.float32)
    results = {
        "name": config.name,
        "steps": config.steps,
        "held_out_faces": len(held_out),
        "seconds_of_last_session": round(seconds, 1),
        "encoder": evaluate_state(state, predict, model, held_out),
        "mean_face": evaluate_predictions(model, mean_face, held_out, Camera().resized(config.image_size)),
    }
    if jax.process_index() == 0:
        with atomic.atomic_write(Path(config.output_dir) / "results.json") as path:
            path.write_text(json.dumps(results, indent=2) + "\n")
        print(comparison_table({"encoder": results["encoder"], "mean face": results["mean_face"]}))
    return results


def _progress_line(step: int, figures: Mapping[str, float]) -> str:
    line = f"step {step}: held-out Part IoU {figures['part_iou']:.3f}, landmarks {figures['landmark_error_px']:.2f} px"
    error = figures["vertex_error_mm"]
    return line if np.isnan(error) else f"{line}, vertices {error:.2f} mm"


def _preview_path(folder: Path, step: int) -> Path:
    return folder / "previews" / f"step_{step:06}.png"


def _check(config: ConfigDict) -> None:
    if unknown := sorted(config.loss.keys() - TERMS.keys() - {"anchor_stride", "prdl_every"}):
        raise InputError(f"config.loss.{unknown[0]}: there is no such term, but {', '.join(TERMS)}")
    for name in ("anchor_stride", "prdl_every"):
        number = config.loss.get(name, 1)
        if not isinstance(number, int) or number < 1:
            raise InputError(f"config.loss.{name} is {number!r}, but must be a whole number of 1 or more")
    for name in ("steps", "log_every", "checkpoint_every", "batch_size", "image_size"):
        if config[name] < 1:
            raise InputError(f"config.{name} is {config[name]}, but must be 1 or more")
    if not 0 <= config.seed < 2**31:
        raise InputError(f"config.seed is {config.seed}, but must be a whole number from 0 to 2147483647")
    if config.checkpoint_every % config.log_every:
        # So that the logged means of a resumed run cover the same steps, and nothing unseen is saved.
        raise InputError(
            f"config.checkpoint_every is {config.checkpoint_every}: it must be a multiple of config.log_every, "
            f"which is {config.log_every}"
        )


def read_config(arguments: Sequence[str]) -> ConfigDict:
    """The configuration that the command line asks for.

    Args:
        arguments: as in sys.argv, the program's name first; --config takes a file or the name of one in `CONFIGS`.

    Raises:
        InputError: when the config file or an override is wrong.
    """
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    try:
        rest = values(_with_config_files(arguments))[1:]
        config = values.config
        if config is not None:
            config.to_dict()  # a file that could not be read is only reported at the first use
    except Exception as error:  # a config is a program of the user's: anything may go wrong in it
        told = str(error)
        if "Traceback" in told:  # its last line says what
            told = f"a mistake in the config file: {told.strip().splitlines()[-1]}"
        elif not isinstance(error, flags.Error | AttributeError | KeyError | TypeError | ValueError | OSError):
            told = f"a mistake in the config file: {type(error).__name__}: {told}"
        raise InputError(f"the command line cannot be used: {' '.join(told.split())}") from error
    if rest:
        raise InputError(f"unknown argument {rest[0]!r}; settings are given as --config.field=value")
    if config is None:
        raise InputError("no config: python -m jaxface.train --config quickstart")
    flags.FLAGS.mark_as_parsed()  # Grain's loading processes look at them
    return config


def preset(name: str) -> ConfigDict:
    """One of the configs that come along, for another config to change."""
    specification = importlib.util.spec_from_file_location(f"jaxface_config_{name}", CONFIGS / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.get_config()


def _with_config_files(arguments: Sequence[str]) -> list[str]:
    """The arguments with a file in the place of a config's name."""
    given = list(arguments)
    for index, argument in enumerate(given):
        flag, equals, value = argument.partition("=")
        if flag not in ("--config", "-config"):
            continue
        if equals:
            given[index] = f"{flag}={_config_file(value)}"
        elif index + 1 < len(given):
            given[index + 1] = _config_file(given[index + 1])
    return given


def _config_file(value: str) -> str:
    if not re.fullmatch(r"[\w-]+", value) or Path(value).is_file():
        return value  # a path
    known = sorted(path.stem for path in CONFIGS.glob("*.py"))
    if value not in known:
        raise InputError(f"there is no config {value!r}, but {', '.join(known)}; or give a file: --config FILE.py")
    return str(CONFIGS / f"{value}.py")


def main() -> None:
    """The command line."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    config = read_config(sys.argv)
    if config.cache_dir and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(Path(config.cache_dir) / "compiled"))
    parallel.initialize(config.multi_host)
    command_line.check_platforms()
    train(config)


def console() -> NoReturn:
    """The command as a program: `jaxface train` and `python -m jaxface.train`."""
    command_line.run(main)
