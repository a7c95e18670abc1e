"""Errors of fitted meshes against scans, and what they come to by yaw and distance."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from drawing import View, outside
from jaxtyping import Float
from scans import Scan

import jaxface
from jaxface.files.obj_file import read_obj
from jaxface.training.scan_errors import SEVEN_LANDMARKS, Surface, face_region, fit_similarity, now_distances

Errors = dict[str, float]
"""Median, mean and standard deviation of the scan's distances to a mesh, in millimetres."""


class Measure:
    """NoW's protocol for one upright scan, on the points that can be seen.

    Args:
        scan: the scan.
        model: the face model, whose triangles and landmarks all meshes share.
    """

    def __init__(self, scan: Scan, model: jaxface.FaceModel):
        kept = face_region(scan.vertices, scan.landmarks) & outside(scan)
        self.points = np.unique(scan.vertices[kept].round(6), axis=0)  # seams of the texture hold points twice
        self.landmarks = scan.landmarks
        self._triangles = np.asarray(model.triangles)
        self._seven = np.asarray(model.landmarks["68"])[list(SEVEN_LANDMARKS)]

    def __call__(self, vertices: Float[np.ndarray, "V 3"]) -> Errors:
        """The errors of a mesh, its vertices in the face model's order."""
        surface, region = Surface(vertices, self._triangles), np.ones(len(self.points), bool)
        distances = now_distances(self.points, self.landmarks, surface, vertices[self._seven], region=region)
        return {
            "median": round(float(np.median(distances)), 4),
            "mean": round(float(distances.mean()), 4),
            "std": round(float(distances.std()), 4),
        }


def mean_face(model: jaxface.FaceModel) -> Float[np.ndarray, "V 3"]:
    """What everything is measured beside, in millimetres."""
    return 100 * np.asarray(model.mean_shape, np.float64)


def fitted_mesh(folder: Path) -> Float[np.ndarray, "V 3"] | None:
    """The vertices of the largest face in a photo's folder, or of a person's; None if there is none."""
    path = next((path for path in (folder / "face_0" / "mesh.obj", folder / "mesh.obj") if path.exists()), None)
    return None if path is None else read_obj(path)[0]


def change_of_shape(mesh: Float[np.ndarray, "V 3"], other: Float[np.ndarray, "V 3"]) -> float:
    """Mean distance between corresponding vertices of two fits after a similarity, in millimetres."""
    moved = fit_similarity(mesh, other).apply(mesh)
    return round(float(np.linalg.norm(moved - other, axis=1).mean()), 4)


def view_groups(views: Sequence[View]) -> dict[str, Callable[[View], bool]]:
    """The columns of the table that `views` fill: title -> which views."""
    groups: dict[str, Callable[[View], bool]] = {
        "all": lambda view: view.distance == 1000 and abs(view.yaw) <= 40,
        "to 20 degrees": lambda view: view.distance == 1000 and abs(view.yaw) <= 20,
        "40 degrees": lambda view: view.distance == 1000 and abs(view.yaw) == 40,
        "60 degrees": lambda view: view.distance == 1000 and abs(view.yaw) == 60,
        "75 degrees": lambda view: view.distance == 1000 and abs(view.yaw) == 75,
        "90 degrees": lambda view: view.distance == 1000 and abs(view.yaw) == 90,
    }
    return {title: chosen for title, chosen in groups.items() if any(map(chosen, views))}


def mean_face_line(errors: Mapping[str, Errors], views: Sequence[View]) -> dict[str, float | None]:
    """The mean face's line of the table: the same from everywhere."""
    mean = round(float(np.mean([one["mean"] for one in errors.values()])), 4)
    return dict.fromkeys(view_groups(views), mean)


def summary(
    faces: Sequence[Mapping], views: Sequence[View], methods: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Method -> mean error over the views of each group, over scans alike; and how many views beat the mean face.

    Args:
        faces: rows {scan, view, method, mean, mean_face}, one per fitted view.
        views: those that were drawn.
        methods: in the order of the table.
    """
    named, result = {view.name: view for view in views}, {}
    for method in methods:
        rows = [row for row in faces if row["method"] == method]
        line: dict[str, float | None] = {}
        for title, chosen in view_groups(views).items():
            own = [row for row in rows if chosen(named[row["view"]])]
            line[title] = _mean_over_scans(own, "mean")
        usual = [row for row in rows if named[row["view"]].distance == 1000]
        line["better than the mean face"] = sum(row["mean"] < row["mean_face"] for row in usual)
        line["views"] = len(usual)
        result[method] = line
    return result


def _mean_over_scans(rows: Sequence[Mapping], name: str) -> float | None:
    scans = sorted({row["scan"] for row in rows})
    if not scans:
        return None
    return round(float(np.mean([np.mean([row[name] for row in rows if row["scan"] == scan]) for scan in scans])), 4)


def table(summaries: Mapping[str, Mapping[str, float | None]]) -> str:
    """Markdown: a line per method, means in millimetres."""
    titles = list(dict.fromkeys(title for line in summaries.values() for title in line if title != "views"))
    lines = ["| | " + " | ".join(titles) + " |", "| --- |" + " ---: |" * len(titles)]
    for method, line in summaries.items():
        cells = []
        for title in titles:
            value = line.get(title)
            if title == "better than the mean face":
                cells.append(f"{value} of {line['views']}" if line.get("views") else "")
            else:
                cells.append("" if value is None else f"{value:.2f}")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
