"""The figure and the tables of the PRDL benchmark, from its results."""

import numpy as np

from jaxface.core.errors import MissingDependencyError
from jaxface.files import atomic


def draw(path, results):
    """Time and memory against anchors and points, log-log."""
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise MissingDependencyError("the figure needs matplotlib: pip install 'jaxface[photo]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(2, 2, figsize=(11, 8), sharex="col", constrained_layout=True)
    for column, axis in enumerate(("anchors", "points")):
        rows = results[f"against_{axis}"]
        other = "points" if axis == "anchors" else "anchors"
        for name in dict.fromkeys(row["form"] for row in rows):
            chosen = [row for row in rows if row["form"] == name and "seconds" in row]
            style = {"marker": ".", "label": name, "linestyle": "-" if name.startswith("jaxface") else "--"}
            x = [row[axis] for row in chosen]
            panels[0, column].plot(x, [row["seconds"] for row in chosen], **style)
            memory = [np.nan if row["extra_bytes"] is None else max(row["extra_bytes"] / 1e6, 0.1) for row in chosen]
            panels[1, column].plot(x, memory, **style)
        panels[0, column].set_title(f"{rows[0][other]:,} {other}, batch 1", fontsize=10)
        panels[1, column].set_xlabel(axis)
    panels[0, 0].set_ylabel("loss and gradient, s")
    panels[1, 0].set_ylabel("extra memory, MB")
    for panel in panels.flat:
        panel.set(xscale="log", yscale="log")
        panel.grid(alpha=0.3)
    panels[0, 0].legend(fontsize=8)
    with atomic.atomic_write(path) as partial:
        figure.savefig(partial, dpi=110)


def print_rows(rows):
    print("form            targets      anchors   points |    time, ms   memory, MB   loss error   gradient error")
    for row in rows:
        head = f"{row['form']:16}{row['targets']:11}{row['anchors']:9,}{row['points']:9,} |"
        if "seconds" not in row:
            print(f"{head}    left out: {row['left_out']}")
            continue
        memory = "-" if row["extra_bytes"] is None else f"{row['extra_bytes'] / 1e6:.1f}"
        line = f"{head}{1e3 * row['seconds']:12.1f}{memory:>13}"
        if "loss_error" in row:
            line += f"{row['loss_error']:13.1e}{row['gradient_error']:17.1e}"
        print(line)


def print_report(results):
    print(f"{results['machine']}\n")
    for title in ("face", "against_anchors", "against_points"):
        print(title.replace("_", " "))
        print_rows(results[title])
        print()
    floor, step = results["floor"], results["train_step"]
    forward, backward = floor["instructions_per_pair"].values()
    passes = floor["passes_over_kept_pairs"]
    print(f"floors for {floor['pairs']:.3g} pairs ({floor['assumption']}):")
    print(f"  visiting all pairs, {forward} + {backward} instructions each: {1e3 * floor['all_pairs_seconds']:.0f} ms")
    print(f"  keeping all pairs, {passes} passes over them: {1e3 * floor['keeping_pairs_seconds']:.0f} ms")
    print(
        f"train step, {step['image_size']} px, batch {step['batch_size']}: {1e3 * step['step_seconds']:.0f} ms; "
        f"PRDL (stride {step['anchor_stride']}) alone {1e3 * step['prdl_seconds']:.0f} ms, {step['prdl_share']:.0%}"
    )
    if "step_without_prdl_seconds" in step:
        added = step["step_seconds"] - step["step_without_prdl_seconds"]
        print(f"  the step without PRDL is {1e3 * added:.0f} ms shorter: {added / step['step_seconds']:.0%}")
        print(
            f"  with PRDL on pixels of every {step['pixels_every']}th face {1e3 * step['step_pixels_seconds']:.0f} ms; "
            f"PRDL alone {1e3 * step['pixels_seconds']:.0f} ms"
        )
