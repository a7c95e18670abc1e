"""The figures and the tables of the experiment."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scene import NAMES, PIXEL_FORMS, SCENES, SIGMAS, SIZE, Brow, fields

from jaxface.files import atomic


def draw_fields(path: Path, scene: Brow) -> None:
    """Two rows of panels for each of SCENES, vertices above and pixels below, with SoftRas at the end of both.

    Arrows of -dE/dv on the predicted vertices over the target mask, the longest of each panel as long as the next.
    Lengths are square roots: the few vertices at the ends, nearest or furthest to most anchors, would hide the others.
    """
    from matplotlib import pyplot as plt

    on_vertices = [*NAMES.values(), "PRDL: all three", f"SoftRas IoU, sigma {SIGMAS[1]:g}"]
    on_pixels = [*PIXEL_FORMS, f"SoftRas IoU, sigma {SIGMAS[2]:g}"]
    figure, axes = plt.subplots(4, len(on_vertices), figsize=(4.2 * len(on_vertices), 14), constrained_layout=True)
    corners = scene.points[scene.triangles]
    outline = np.concatenate([corners, corners[:, :1]], axis=1).transpose(2, 1, 0)
    for rows, (name, displacement) in zip((axes[:2], axes[2:]), SCENES.items(), strict=True):
        mask = scene.mask(displacement)
        found = fields(scene, mask)
        for panel, title in zip(rows.ravel(), on_vertices + on_pixels, strict=True):
            lengths = np.linalg.norm(found[title], axis=1, keepdims=True)
            longest = lengths.max()
            panel.imshow(mask, cmap="Greys", vmin=0, vmax=3.5, extent=(0, SIZE, SIZE, 0))
            panel.plot(*outline, color="tab:orange", linewidth=0.3)
            if longest > 0:
                arrows = 11 * -found[title] / np.sqrt(np.where(lengths > 0, lengths * longest, 1.0))
                style = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.003, "color": "tab:blue"}
                panel.quiver(*scene.points.T, *arrows.T, zorder=3, headwidth=4, **style)
            panel.set(xlim=(116, 204), ylim=(88, 28), xticks=[], yticks=[])
            note = f"longest: {longest:.2g} " + ("1/px" if "IoU" in title else "px") if longest else "0 at every vertex"
            panel.set_title(f"{title}\n{note}", fontsize=11)
        for panel in rows[:, 0]:
            panel.set_ylabel(f"target {displacement:g} px away ({name})", fontsize=11)
    figure.suptitle("-dE/dv on the vertices of the predicted brow (orange), square root of length; grey: the target")
    _save(figure, path)


def draw_displacement(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Gradient norm, its direction, and how hard anchors outside the mask pull, against the displacement."""
    from matplotlib import pyplot as plt

    figure, (norm, direction, pull) = plt.subplots(1, 3, figsize=(15, 4.4), constrained_layout=True)
    rows = [row for row in rows if row["displacement_px"] > 0]
    x = [row["displacement_px"] for row in rows]
    softras = [title for title in rows[0]["fields"] if "IoU" in title]
    colors = dict(zip(softras, ("black", "dimgrey", "darkgrey"), strict=True)) | {"pixels: PRDL (default)": "tab:olive"}
    for index, title in enumerate(rows[0]["fields"]):
        norms = np.array([row["fields"][title]["norm"] for row in rows])
        cosines = np.array([row["fields"][title]["towards_target"] for row in rows])
        style = "--" if "IoU" in title else ":" if title in PIXEL_FORMS else "-"
        line = {"linestyle": style, "marker": ".", "label": title, "color": colors.get(title, f"C{index}")}
        norm.plot(x, norms / norms.max(), **line)
        direction.plot(x, np.where(norms > 0, cosines, np.nan), **line)
    for name in rows[0]["shares"]:
        pull.plot(x, [row["shares"][name]["pull_outside_to_inside"] for row in rows], marker=".", label=name)
    touching = max(row["displacement_px"] for row in rows if row["iou"] > 0)
    for panel in (norm, direction, pull):
        panel.axvspan(0, touching, color="0.93", zorder=0)
        panel.set_xlabel("displacement of the target, px (grey: they overlap)")
        panel.legend(fontsize=8, loc="lower right")
    norm.set_title("|dE/dv|, relative to its largest", fontsize=11)
    norm.set(yscale="log", ylim=(1e-6, 2))
    direction.set_title("cosine of -dE/dv (mean) with the displacement", fontsize=11)
    direction.set(ylim=(0, 1.05))
    pull.set_title("pull of an anchor outside the mask : of one inside", fontsize=11)
    pull.set(ylim=(0, None))
    _save(figure, path)


def _save(figure, path: Path) -> None:
    with atomic.atomic_write(path) as partial:
        figure.savefig(partial, dpi=110)


def print_tables(results: Mapping[str, Any]) -> None:
    """What the README quotes."""
    for row in results["displacements"]:
        if row["displacement_px"] not in (0.0, *SCENES.values()):
            continue
        print(
            f"\ntarget {row['displacement_px']:g} px away, IoU {row['iou']:.2f}; {row['anchors_in_mask']} of "
            f"{results['anchors']} anchors in the mask, half of all farther than {row['median_distance_px']:.0f} px"
        )
        print("                          |dE/dv|  longest   vertices moved   cosine with the displacement")
        for title, values in row["fields"].items():
            sizes = f"{values['norm']:7.3g}  {values['longest']:7.3g}"
            print(f"{title:26}{sizes}{values['vertices_moved']:14d}{values['towards_target']:20.3f}")
        print("       gradient from outside   before cancelling   half from beyond   pull outside : inside")
        for name, share in row["shares"].items():
            percent = f"{share['outside']:18.1%}{share['outside_alone']:20.1%}"
            print(f"{name}{percent}{share['half_beyond_px']:17.0f} px{share['pull_outside_to_inside']:17.2f}")
    print("\n|dE/dv| of SoftRas's IoU loss by its formula in float64")
    for row in results["softras_by_formula"]:
        print("   ".join(f"{name} {value:.3g}" for name, value in row.items()))
    print(f"\neq. 11: {results['equation_11']}")
    print(f"sum over anchors against prdl_loss: {results['loss_gradient_relative_difference']:.1e}")
