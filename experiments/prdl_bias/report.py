"""The figure and the tables of the experiment, from its results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxface.files import atomic


def draw(path: Path, results: Mapping[str, Any]) -> None:
    """Shifts of the optimum, per form and yaw."""
    from matplotlib import pyplot as plt

    forms = list(results["forms"])
    yaws = list(results["forms"][forms[0]])
    panels = {
        "translation alone, px": lambda row: row["translation_px"]["shift"]["all"]["median"],
        "angles alone, degrees": lambda row: row["angles_degrees"]["shift"]["all"]["median"],
        "all coefficients: vertices, mm": lambda row: row["all_coefficients"]["vertices_mm"]["median"],
    }
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.4), constrained_layout=True)
    colors = plt.get_cmap("viridis")(np.linspace(0.1, 0.85, len(yaws)))
    for panel, (title, value) in zip(axes, panels.items(), strict=True):
        for index, (yaw, color) in enumerate(zip(yaws, colors, strict=True)):
            heights = [value(results["forms"][form][yaw]) for form in forms]
            x = np.arange(len(forms)) + 0.26 * (index - (len(yaws) - 1) / 2)
            bars = panel.bar(x, heights, width=0.25, color=color, label=f"yaw {yaw} degrees")
            panel.bar_label(bars, fmt="%.2f", fontsize=8, rotation=90, padding=2)
        panel.set_xticks(range(len(forms)), [form.replace(", ", ",\n") for form in forms], fontsize=9)
        panel.set_title(title, fontsize=11)
        panel.margins(y=0.15)
    axes[0].legend(fontsize=9)
    figure.suptitle("How far the minimum of PRDL lies from the true face (medians), by what is compared")
    with atomic.atomic_write(path) as partial:
        figure.savefig(partial, dpi=110)


def print_tables(results: Mapping[str, Any]) -> None:
    """What the README quotes."""
    for yaw in next(iter(results["forms"].values())):
        print(f"\nyaw {yaw}: medians over the faces; loss, translation and angles for all statistics | for each alone")
        for form, by_yaw in results["forms"].items():
            row = by_yaw[yaw]
            unit = "px" if "loss_px" in row else "px2"
            losses = row[f"loss_{unit}"]
            columns = [
                " ".join(f"{row[key]['shift'][name]['median']:6.2f}" for name in losses)
                for key in ("translation_px", "angles_degrees")
            ]
            loss = " ".join(f"{one['median']:7.2f}" for one in losses.values())
            end = row["all_coefficients"]
            print(f"{form:18} {unit} {loss}   px {columns[0]}   degrees {columns[1]}   "
                  f"mm {end['vertices_mm']['median']:.2f}   px {end['image_points_px']['median']:.2f}")  # fmt: skip
    print("\nvisibility against a fine z-buffer")
    for yaw, tables in results["visibility"].items():
        for where, rows in tables.items():
            for name, row in rows.items():
                print(f"yaw {yaw}  {where:22} {name:24} {row}")
    print(f"\nmilliseconds for 16 faces at 96 x 96: {results['cost_ms']}")
