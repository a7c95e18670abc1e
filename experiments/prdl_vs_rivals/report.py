"""The tables and figures of a run."""

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from faces import FULL_SIZE, Faces
from jaxtyping import Float

from jaxface.core.cameras import Camera
from jaxface.core.coefficients import Coefficients
from jaxface.core.errors import needs_extra
from jaxface.core.face_models import FaceModel
from jaxface.core.faces import decode_face
from jaxface.core.parts import PARTS, SEVEN_PARTS
from jaxface.files import visualize
from jaxface.files.atomic import atomic_write
from jaxface.render import interpolate, label_map, label_triangles, rasterize

BEGIN, END = "<!-- results -->", "<!-- /results -->"
ROWS = 6
"""Synthetic faces in the figure, one of each of the first kinds of expression."""

LINES = {
    "pixels": ("#c8321e", "-"),
    "prdl": ("#c8321e", "--"),
    "prdl_plain": ("#c8321e", ":"),
    "softras": ("#1f5fa8", "-"),
    "dibr": ("#1f5fa8", "--"),
    "reda": ("#1f5fa8", ":"),
    "icp_to_target": ("#9a9a9a", "--"),
    "icp_to_points": ("#9a9a9a", "-"),
    "chamfer": ("#2e8b57", "-"),
    "dcd": ("#2e8b57", "--"),
}
"""Colour and dash of each method: PRDL red, silhouettes blue, matched points green and grey."""


def tables(results: Mapping) -> str:
    """What a reader wants to know of results.json, in Markdown."""
    shifts = [entry for entry in _any(results)["reach"] if entry["unit"] == "px"]
    turns = [entry for entry in _any(results)["reach"] if entry["unit"] == "degrees"]
    known = len(results["start"]["mean_part_iou"])
    return "\n\n".join(
        [
            f"Final fits of the {known} synthetic test faces and of the two portraits:",
            _table(["", "sharpness; rate", "Part IoU", "vertices, mm", *_portraits(results)], _final_rows(results)),
            "Part IoU by part, synthetic test faces:",
            _table(["", *(part.replace("_", " ") for part in PARTS)], _part_rows(results)),
            f"How fast, synthetic test faces ({results['device']}):",
            _table(
                ["", "steps to 90 % of its own end", f"steps to {_common_level(results):.2f}", "ms per face and step"]
                + ["seconds per face to 90 %"],
                _speed_rows(results),
            ),
            f"Part IoU after {results['settings']['reach_steps']} steps against where a fit starts: at the true "
            "coefficients (last columns: how far the vertices drift from there, at the tuned and at the usual rates), "
            "and at the mean face, placed truly but "
            f"for an offset ({len(shifts[0]['part_iou'])} other synthetic faces):",
            _table(
                ["", "truth", *(f"{entry['offset']} px" for entry in shifts)]
                + [*(f"{entry['offset']}° yaw" for entry in turns), "drift, mm", "at x 1, mm"],
                _reach_rows(results),
            ),
        ]
    )


def _any(results: Mapping) -> Mapping:
    return next(iter(results["methods"].values()))


def _portraits(results: Mapping) -> list[str]:
    return list(results["start"]["portraits"])


def _table(head: list[str], rows: list[list[str | tuple[float, str]]]) -> str:
    """A Markdown table; cells (value, text) compete in their column, and the best is bold.

    In columns whose head names a cost the smallest wins.
    """
    lines = [" | ".join(["", *head, ""]).strip(), " | ".join(["", "---", *["--:"] * (len(head) - 1), ""]).strip()]
    best = {}
    for column, title in enumerate(head):
        values = [row[column][0] for row in rows if isinstance(row[column], tuple)]
        if values:
            cost = any(word in title for word in ("mm", "steps", "ms", "seconds"))
            best[column] = min(values) if cost else max(values)
    for row in rows:
        cells = []
        for column, cell in enumerate(row):
            text = cell[1] if isinstance(cell, tuple) else cell
            cells.append(f"**{text}**" if isinstance(cell, tuple) and cell[0] == best[column] else text)
        lines.append(" | ".join(["", *cells, ""]).strip())
    return "\n".join(lines)


def _measures(measured: Mapping) -> list[tuple[float, str]]:
    iou, error = np.array(measured["mean_part_iou"]), np.array(measured["vertex_error_mm"])
    uncertain = iou.std(ddof=1) / np.sqrt(len(iou))
    portraits = [entry["mean_part_iou"] for entry in measured["portraits"].values()]
    return [
        (iou.mean(), f"{iou.mean():.3f} ± {uncertain:.3f}"),
        (error.mean(), f"{error.mean():.2f}"),
        *((value, f"{value:.2f}") for value in portraits),
    ]


def _final_rows(results: Mapping) -> list[list]:
    rows: list[list] = [["start", "", *(text for _, text in _measures(results["start"]))]]
    for method in results["methods"].values():
        chosen = next(entry for entry in method["tuning"] if entry.get("chosen"))
        settings = "; ".join(filter(None, [chosen["variant"], f"x {chosen['factor']:g}"]))
        rows.append([method["title"], settings, *_measures(method["test"])])
    return rows


def _part_rows(results: Mapping) -> list[list]:
    rows: list[list] = [["start", *(f"{results['start']['part_iou'][part]:.2f}" for part in PARTS)]]
    for method in results["methods"].values():
        values = [method["test"]["part_iou"][part] for part in PARTS]
        rows.append([method["title"], *((value, f"{value:.2f}") for value in values)])
    return rows


def _common_level(results: Mapping) -> float:
    return 0.9 * max(method["way"]["part_iou"][-1] for method in results["methods"].values())


def _steps_to(way: Mapping, level: float) -> int | None:
    return next((step for step, iou in zip(way["steps"], way["part_iou"], strict=True) if iou >= level), None)


def _speed_rows(results: Mapping) -> list[list]:
    rows = []
    for method in results["methods"].values():
        own = _steps_to(method["way"], 0.9 * method["way"]["part_iou"][-1])
        common = _steps_to(method["way"], _common_level(results))
        each = method["milliseconds_per_face_and_step"]
        rows.append(
            [
                method["title"],
                (own, str(own)),
                "never" if common is None else (common, str(common)),
                (each, f"{each:.1f}"),
                (own * each, f"{own * each / 1000:.2f}"),
            ]
        )
    return rows


def _reach_rows(results: Mapping) -> list[list]:
    rows = []
    for method in results["methods"].values():
        means = [float(np.mean(entry["part_iou"])) for entry in method["reach"]]
        drift = float(np.mean(method["reach"][0]["vertex_error_mm"]))
        usual = float(np.mean(method["drift_at_usual_rates_mm"]))
        drifts = ((value, f"{value:.2f}") for value in (drift, usual))
        rows.append([method["title"], *((mean, f"{mean:.2f}") for mean in means), *drifts])
    return rows


def write_readme(template: Path, out: Path, results: Mapping) -> None:
    """Puts the tables between the marks of the README."""
    text = template.read_text(encoding="utf-8")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    minutes = f"Measured in {results['minutes']:.1f} minutes by the command above."
    with atomic_write(out) as partial:
        partial.write_text(f"{head}{BEGIN}\n\n{minutes}\n\n{tables(results)}\n\n{END}{tail}", encoding="utf-8")


def _pyplot():
    with needs_extra("photo", "the drawing"):
        import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def draw_curves(path: Path, results: Mapping) -> None:
    """Part IoU on the way, and at the end against the offset of the start."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4.2), sharey=True, constrained_layout=True)
    for name, method in results["methods"].items():
        color, dash = LINES[name]
        style = {"color": color, "linestyle": dash, "linewidth": 2.4 if name == "pixels" else 1.5}
        axes[0].plot(method["way"]["steps"], method["way"]["part_iou"], label=method["title"], **style)
        for axis, unit in zip(axes[1:], ("px", "degrees"), strict=True):
            entries = [e for e in method["reach"] if e["unit"] == unit or (e["unit"], e["offset"]) == ("px", 0)]
            means = [np.mean(entry["part_iou"]) for entry in entries]
            axis.plot([entry["offset"] for entry in entries], means, marker="o", markersize=3.5, **style)
    for axis, title in zip(
        axes, ("step", "start shifted by, px of 224", "start turned by, degrees of yaw"), strict=True
    ):
        axis.set_xlabel(title)
        axis.grid(color="#e6e6e6")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("Part IoU, mean of seven parts")
    axes[0].set_ylim(0, 1)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=130)
    pyplot.close(figure)


def draw_faces(
    path: Path, model: FaceModel, faces: Faces, fitted: Mapping[str, Float[np.ndarray, "N K"]], results: Mapping
) -> None:
    """Targets, and what each method made of them, with the parts painted on; below each its Part IoU."""
    pyplot = _pyplot()
    shown = [*range(min(ROWS, int(faces.known.sum()))), *np.flatnonzero(~faces.known)]
    true_faces = _painted(model, faces.truth[shown])
    columns = {name: _painted(model, vector[shown]) for name, vector in fitted.items()}
    figure, axes = pyplot.subplots(
        len(shown),
        1 + len(columns),
        figsize=(1.35 * (1 + len(columns)), 1.55 * len(shown)),
        squeeze=False,
        gridspec_kw={
            "wspace": 0.03,
            "hspace": 0.22,
            "left": 0.005,
            "right": 0.995,
            "top": 1 - 0.3 / len(shown),
            "bottom": 0.12 / len(shown),
        },
    )
    for row, index in enumerate(shown):
        photo = visualize.draw_labels(faces.pictures[index], faces.full_labels[index])
        target = true_faces[row] if faces.known[index] else photo
        _cell(axes[row, 0], target, faces.names[index].replace("_", " "), "target" if row == 0 else "")
        for column, name in enumerate(columns, start=1):
            test = results["methods"][name]["test"]
            known = faces.known[index]
            iou = test["mean_part_iou"][index] if known else test["portraits"][faces.names[index]]["mean_part_iou"]
            title = results["methods"][name]["title"].replace(", ", ",\n").replace("aware ", "aware\n")
            _cell(axes[row, column], columns[name][row], f"{iou:.2f}", title if row == 0 else "")
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=110)
    pyplot.close(figure)


def _cell(axis, picture: np.ndarray, below: str, above: str) -> None:
    axis.imshow(picture)
    axis.set_axis_off()
    axis.text(0.5, -0.02, below, transform=axis.transAxes, ha="center", va="top", fontsize=7.5)
    if above:
        axis.set_title(above, fontsize=8, pad=4)


def _painted(model: FaceModel, vector: Float[np.ndarray, "N K"]) -> list[np.ndarray]:
    """Clay renders with the parts painted on, at 224 x 224."""
    labels = label_triangles(model.parts, model.triangles)
    pictures = []
    for one in vector:
        normals, label_maps = _draw(model, one[None], Camera().resized(FULL_SIZE), labels)
        label_maps = np.asarray(label_maps[0])
        clay = visualize.clay(np.asarray(normals[0]), label_maps > 0)
        seven = np.where(label_maps <= len(SEVEN_PARTS), label_maps, 0)
        pictures.append(visualize.draw_labels(clay, seven, opacity=0.6))
    return pictures


@jax.jit
def _draw(model, vector, camera, triangle_labels):
    face = decode_face(model, Coefficients.from_vector(vector, model), camera)
    fragments = rasterize(face.points, face.depth, model.triangles, image_size=camera.image_size)
    return interpolate(fragments, model.triangles, face.normals), label_map(fragments, triangle_labels)
