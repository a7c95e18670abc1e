"""What PRDL adds to training an encoder: the quickstart with and without it, on pixels and on vertices.

    python experiments/prdl_ablation/run.py [--setting guided|supervised|both] [--steps N] [--seeds N] [--quick]

Trains one encoder per variant and seed by `jaxface.train`, in this process, with configs/quickstart.py. A training that
is done is not repeated and one that was stopped goes on: give the same command again. Writes results.json and
ablation.png, and prints the tables of the README.
"""

import argparse
import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from jaxface.core.errors import InputError, needs_extra
from jaxface.core.parts import PARTS
from jaxface.files import atomic, command_line, progress
from jaxface.networks.checkpoints import config_to_dict
from jaxface.train import train

HERE = Path(__file__).resolve().parent
QUICKSTART = HERE.parent.parent / "configs" / "quickstart.py"

SETTINGS: dict[str, dict[str, Any]] = {
    "guided": {"loss.reprojection": 0.0, "loss.shape": 0.0},  # landmarks and PRDL alone shape the face, as on photos
    "supervised": {},  # the quickstart as it is: true vertices shape the face
}
PIXELS: dict[str, Any] = {"loss.prdl": 4e-3, "loss.prdl_vertices": 0.0, "loss.anchor_stride": 3}
VARIANTS: dict[str, dict[str, Any]] = {
    "no PRDL": {"loss.prdl": 0.0, "loss.prdl_vertices": 0.0},
    "vertices": {"loss.prdl": 0.0, "loss.prdl_vertices": 0.8e-3, "loss.anchor_stride": 16},
    "pixels": PIXELS,
    "pixels of every 4th": PIXELS | {"loss.prdl_every": 4},
}
BASELINE = "no PRDL"
MEASURES = {
    "part_iou": "Part IoU, mean of seven parts",
    **{f"part_iou_{part}": f"Part IoU, {part.replace('_', ' ')}" for part in PARTS},
    "landmark_error_px": "Landmark error, px at 224 x 224",
    "vertex_error_mm": "Vertex error, mm",
}
TINY: dict[str, Any] = {
    "image_size": 32, "batch_size": 8, "encoder.width_multiplier": 0.125, "data.count": 16, "data.held_out": 16,
    "optimizer.warmup_steps": 1,
}  # fmt: skip


def quickstart_config() -> ConfigDict:
    """What get_config() of configs/quickstart.py returns."""
    specification = importlib.util.spec_from_file_location("quickstart", QUICKSTART)
    if specification is None or specification.loader is None or not QUICKSTART.is_file():
        raise InputError(f"{QUICKSTART}: not found; run the experiment from a checkout of the repository")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.get_config()


def configure(setting: str, variant: str, seed: int, *, steps: int, runs: Path, cache: Path, tiny: bool) -> ConfigDict:
    """The quickstart's config with the overrides of a setting and a variant, shortened to `steps`."""
    config = quickstart_config()
    name = f"{setting}_{variant.replace(' ', '_')}_seed_{seed}_{steps}_steps{'_tiny' if tiny else ''}"
    changes = {
        "name": name, "output_dir": str(runs / name), "cache_dir": str(cache), "seed": seed, "steps": steps,
        "checkpoint_every": steps, "log_every": next(n for n in (20, 10, 5, 2, 1) if steps % n == 0),
        "data.count": min(config.data.count, steps * config.batch_size),
    }  # fmt: skip
    config.update_from_flattened_dict(changes | (TINY if tiny else {}) | SETTINGS[setting] | VARIANTS[variant])
    return config


def trained(config: ConfigDict) -> dict[str, Any]:
    """What train(config) returned, now or in an earlier call of this program.

    Raises:
        InputError: when the earlier training had another config.
    """
    folder = Path(config.output_dir)
    wanted = config_to_dict(config)
    if (folder / "config.json").exists() and json.loads((folder / "config.json").read_text()) != wanted:
        raise InputError(f"{folder} holds a training with another configuration: move it away or delete it")
    if not (folder / "results.json").exists():
        with atomic.atomic_write(folder / "config.json") as path:
            path.write_text(json.dumps(wanted, indent=1) + "\n")
        train(config)
        jax.clear_caches()  # the compiled step of this training serves no other
    return json.loads((folder / "results.json").read_text())


def summarize(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds, per setting, variant and measure.

    `gain` is the difference to the same seed without PRDL, so that the faces that a seed draws cancel.
    """
    summary: dict[str, Any] = {}
    for setting in dict.fromkeys(run["setting"] for run in runs):
        here = [run for run in runs if run["setting"] == setting]
        baseline = {run["seed"]: run["encoder"] for run in here if run["variant"] == BASELINE}
        summary[setting] = {"mean face": {m: _statistics([run["mean_face"][m] for run in here]) for m in MEASURES}}
        for variant in dict.fromkeys(run["variant"] for run in here):
            chosen = [run for run in here if run["variant"] == variant]
            summary[setting][variant] = {
                measure: _statistics([run["encoder"][measure] for run in chosen])
                | {"gain": _statistics([run["encoder"][measure] - baseline[run["seed"]][measure] for run in chosen])}
                for measure in MEASURES
            } | {"seconds": _statistics([run["seconds"] for run in chosen])}
    return summary


def _statistics(values: Sequence[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}


def table(summary: Mapping[str, Any]) -> str:
    """One setting's summary as Markdown: mean +- standard deviation, a column per variant."""
    lines = ["| | " + " | ".join(summary) + " |", "| --- |" + " ---: |" * len(summary)]
    for measure, label in MEASURES.items():
        cells = [_cell(variant[measure]) for variant in summary.values()]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    gains = [_cell(variant["part_iou"]["gain"], "+") if "gain" in variant["part_iou"] else "" for variant in
             summary.values()]  # fmt: skip
    lines.append("| Part IoU against no PRDL, seed by seed | " + " | ".join(gains) + " |")
    seconds = [f"{variant['seconds']['mean']:.0f}" if "seconds" in variant else "" for variant in summary.values()]
    return "\n".join([*lines, "| Seconds of training | " + " | ".join(seconds) + " |"])


def _cell(statistics: Mapping[str, float], sign: str = "") -> str:
    return f"{statistics['mean']:{sign}.3f} ± {statistics['std']:.3f}"


def draw(path: Path, runs: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    """A row per setting: bars of means with every seed as a dot, and the IoU of each part."""
    from matplotlib import pyplot as plt

    shown = ("part_iou", "landmark_error_px", "vertex_error_mm")
    figure, rows = plt.subplots(
        len(summary), 4, figsize=(18, 4.2 * len(summary)), width_ratios=(1, 1, 1, 2.4), squeeze=False,
        constrained_layout=True,
    )  # fmt: skip
    for axes, (setting, variants) in zip(rows, summary.items(), strict=True):
        trained_variants = [variant for variant in variants if variant != "mean face"]
        shades = plt.get_cmap("viridis")(np.linspace(0.15, 0.85, len(VARIANTS) - 1))
        colors = dict(zip(trained_variants, ["0.6", *shades], strict=False))
        for panel, measure in zip(axes, shown, strict=False):
            for position, variant in enumerate(trained_variants):
                values = [
                    run["encoder"][measure] for run in runs if run["variant"] == variant and run["setting"] == setting
                ]
                panel.bar(position, np.mean(values), color=colors[variant])
                panel.plot([position] * len(values), values, "k.", markersize=5)
            panel.axhline(variants["mean face"][measure]["mean"], color="tab:red", linestyle="--", linewidth=1)
            panel.set_title(MEASURES[measure], fontsize=10)
            panel.set_xticks(range(len(trained_variants)), trained_variants, rotation=30, fontsize=8)
        width = 0.8 / len(trained_variants)
        for index, variant in enumerate(trained_variants):
            found = [variants[variant][f"part_iou_{part}"] for part in PARTS]
            axes[3].bar(
                np.arange(len(PARTS)) + (index - (len(trained_variants) - 1) / 2) * width,
                [statistics["mean"] for statistics in found],
                width,
                yerr=[statistics["std"] for statistics in found],
                color=colors[variant],
                label=variant,
                error_kw={"linewidth": 0.8},
            )
        axes[3].set_xticks(range(len(PARTS)), [part.replace("_", " ") for part in PARTS], fontsize=8)
        axes[3].set_title("Part IoU of each part", fontsize=10)
        axes[3].legend(fontsize=8, ncols=len(trained_variants), loc="lower center", bbox_to_anchor=(0.5, -0.24))
        axes[0].set_ylabel(setting, fontsize=11)
    figure.suptitle("Held-out figures of the trained encoders: dots are seeds, red the mean face", fontsize=11)
    with atomic.atomic_write(path) as partial:
        figure.savefig(partial, dpi=100)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    options = _parse(arguments)
    with needs_extra("photo", "the drawing"):
        import matplotlib
    matplotlib.use("Agg")
    work = options.out or Path("outputs/experiments/prdl_ablation")
    out = options.out or (work if options.quick else HERE)
    cache = work / "cache" if options.quick else Path("outputs/cache")  # the quickstart's faces serve here too
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache / "compiled"))
    jax.config.update("jax_disable_most_optimizations", options.quick)  # compiles in half the time
    flags.FLAGS.mark_as_parsed()  # Grain looks at them

    settings = list(SETTINGS) if options.setting == "both" else [options.setting]
    variants = [BASELINE, "pixels of every 4th"] if options.quick else list(VARIANTS)
    # All variants of a seed before the next seed: whatever is finished can be compared.
    wanted = [(setting, variant, seed) for seed in range(options.seeds) for setting in settings for variant in variants]
    runs = []
    for setting, variant, seed in progress.progress(wanted, description="trainings", unit="training"):
        print(f"training {len(runs) + 1} of {len(wanted)}: {setting}, {variant}, seed {seed}")
        config = configure(
            setting, variant, seed, steps=options.steps, runs=work / "runs", cache=cache, tiny=options.quick
        )
        result = trained(config)
        figures = {kind: {measure: result[kind][measure] for measure in MEASURES} for kind in ("encoder", "mean_face")}
        seconds = result["seconds_of_last_session"]
        runs.append({"setting": setting, "variant": variant, "seed": seed, "seconds": seconds, **figures})
    summary = summarize(runs)
    results = {
        "steps": options.steps, "quickstart_steps": quickstart_config().steps, "seeds": options.seeds,
        "overrides": {name: SETTINGS[name] for name in settings} | {name: VARIANTS[name] for name in variants},
        "summary": summary, "runs": runs,
    }  # fmt: skip
    with atomic.atomic_write(out / "results.json") as path:
        path.write_text(json.dumps(results, indent=1) + "\n")
    draw(out / "ablation.png", runs, summary)
    for setting, variants_of_setting in summary.items():
        print(f"\n{setting}: {options.steps} steps, {options.seeds} seed(s)\n\n{table(variants_of_setting)}")
    print(f"\nwritten: {out / 'results.json'}, {out / 'ablation.png'}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--setting", choices=[*SETTINGS, "both"], default="guided",
        help="guided: no true vertices in the loss, landmarks and PRDL alone shape the face; supervised: as the "
        "quickstart; both take twice the time (default: guided)",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, help="steps of each training (default: 300; the quickstart's: 5000)")
    parser.add_argument("--seeds", type=int, help="seeds per variant (default: 3)")
    parser.add_argument("--quick", action="store_true", help="two variants, one seed, a tiny encoder, six steps")
    parser.add_argument("--out", type=Path, help="folder for everything (default: this one, trainings in outputs/)")
    options = parser.parse_args(arguments)
    if options.steps is None:
        options.steps = 6 if options.quick else 300
    if options.seeds is None:
        options.seeds = 1 if options.quick else 3
    if min(options.steps, options.seeds) < 1:
        raise InputError(f"--steps and --seeds must be 1 or more, got {options.steps} and {options.seeds}")
    return options


if __name__ == "__main__":
    command_line.run(main)
