"""The colours of the head around the face: the skins' average, moved so that it meets the face model's at its rim."""

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg
from head import Base, graph_laplacian
from people_files import MakeHuman
from scipy.ndimage import gaussian_filter, map_coordinates

from jaxface.core.face_models import FaceModel

REACH = 5.0
"""Rings over which what is peculiar to the face's rim (a beard's shadow, a blotch) fades out."""


def split(quads: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Triangles of quads [Q, 4], cut along the shorter diagonal; a quad that repeats a vertex gives one."""
    straight = ((points[quads[:, 0]] - points[quads[:, 2]]) ** 2).sum(-1)
    other = ((points[quads[:, 1]] - points[quads[:, 3]]) ** 2).sum(-1)
    quads = np.where((straight <= other)[:, None], quads, np.roll(quads, -1, 1))
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return triangles[(triangles != np.roll(triangles, 1, 1)).all(1)]


def head_albedo(
    base: Base, files: MakeHuman, vertices: np.ndarray, triangles: np.ndarray, model: FaceModel
) -> tuple[np.ndarray, np.ndarray]:
    """Mean [H, 3] and directions [H, 3, Ka] of the colours of base vertices `vertices` [H].

    At the face's rim they are the model's own. Away from it a direction does what it does to the face's skin on
    average, and the mean is the skins' average with the rim's average difference to the model.
    """
    index = dict(zip(base.face.tolist(), base.control_index.tolist(), strict=True))
    rim = np.flatnonzero(np.isin(vertices, base.face))
    control = [index[v] for v in vertices[rim].tolist()]  # the dense mesh begins with the control mesh's vertices
    photographed = _without_hair(_average_skin(base, files), base.face)[vertices]
    off = np.asarray(model.mean_albedo)[control] - photographed[rim]
    own = np.concatenate([off[..., None], np.asarray(model.albedo_basis)[control]], -1)
    skin = np.asarray(model.albedo_basis)[model.parts["skin"]].mean(0)
    far = np.concatenate([off.mean(0)[:, None], skin], -1)
    result = _fade(own - far, rim, triangles, len(vertices)) + far
    return photographed + result[..., 0], result[..., 1:]


def _without_hair(colors: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Colours [N, 3] with the hair that is painted on the scalps lifted to the face's tone."""
    tone = np.median(colors[face], 0)
    dark = np.clip((0.95 - colors.mean(1) / tone.mean()) / 0.1, 0, 1)[:, None]
    return colors * (1 - dark) + 0.97 * tone * dark


def _average_skin(base: Base, files: MakeHuman) -> np.ndarray:
    """The mean colour [19158, 3] of the photographic skins at each vertex of the base mesh."""
    picture = np.mean([skin / 255 for skin in files.skins().values()], 0)
    picture = gaussian_filter(picture, (1.5, 1.5, 0))
    vertices, texture, groups = base.source.base()
    quads, corners = groups["body"]
    uv = np.zeros((len(vertices), 2))
    uv[quads.ravel()] = texture[corners.ravel()]
    size = np.array(picture.shape[:2])
    places = np.stack([(1 - uv[:, 1]) * size[0], uv[:, 0] * size[1]]) - 0.5
    return np.stack([map_coordinates(picture[..., i], places, order=1, mode="nearest") for i in range(3)], -1)


def _fade(own: np.ndarray, rim: np.ndarray, triangles: np.ndarray, count: int) -> np.ndarray:
    """Values [R, ...] at `rim` carried on over the mesh to all `count` vertices, fading to zero."""
    laplacian = graph_laplacian(triangles, count)
    free = np.setdiff1d(np.arange(count), rim)
    matrix = laplacian[free][:, free] + sp.diags(np.full(len(free), 6 / REACH**2))
    right = -(laplacian[free][:, rim] @ own.reshape(len(rim), -1))
    result = np.zeros((count, *own.shape[1:]))
    result[rim] = own
    result[free] = scipy.sparse.linalg.splu(matrix.tocsc()).solve(right).reshape(len(free), *own.shape[1:])
    return result
