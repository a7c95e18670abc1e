"""Reading the geometry of OBJ files: scans, and meshes that jaxface or others wrote."""

import itertools
import os

import numpy as np
from jaxtyping import Float, Integer

from jaxface.core.errors import InputError
from jaxface.files.images import check_file
from jaxface.files.impostors import refuse_impostor


def read_obj(path: str | os.PathLike) -> tuple[Float[np.ndarray, "V 3"], Integer[np.ndarray, "T 3"]]:
    """The vertices in the file's order and unit, and the triangles; polygons become fans of triangles.

    Colours behind a vertex, texture coordinates, normals and groups are passed over. A file of points alone has [0, 3]
    triangles.

    Raises:
        InputError: when the file is missing or damaged, has no vertex, or a polygon names a vertex that is not there.
    """
    path = check_file(path)
    refuse_impostor(path)
    vertices: list[tuple[float, float, float]] = []
    triangles: list[tuple[int, int, int]] = []
    line = ""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("v "):
                    x, y, z = map(float, line.split()[1:4])
                    vertices.append((x, y, z))
                elif line.startswith("f "):
                    corners = [int(word.partition("/")[0]) for word in line.split()[1:]]
                    corners = [corner - 1 if corner > 0 else len(vertices) + corner for corner in corners]
                    triangles += [(corners[0], *pair) for pair in itertools.pairwise(corners[1:])]
        points, indices = np.array(vertices, np.float64), np.array(triangles, np.int64).reshape(-1, 3)
    except (ValueError, IndexError, OverflowError) as error:
        told = line.strip()[:60]
        raise InputError(f"{path}: the line {told!r} is not as OBJ files are; copy the file again") from error
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise InputError(f"{path}: has no vertices of three finite numbers each; is it a mesh?")
    if len(indices) and (indices.min() < 0 or indices.max() >= len(points)):
        raise InputError(f"{path}: has {len(points)} vertices, but a polygon names another one; copy the file again")
    return points, indices
