"""Points spread over a face's surface: what a network of dense landmarks looks for, beside ibug's 68."""

import numpy as np
from jaxtyping import Float, Integer

from jaxface.core import parts
from jaxface.core.errors import InputError
from jaxface.core.face_models import FaceModel

OF_PARTS, OF_REST = 160, 160
"""How many points lie on eyes, brows, nose and lips, and how many on the rest of the face."""


def spread_points(model: FaceModel) -> Integer[np.ndarray, "320"]:
    """Vertices spread evenly over a face, more densely where people look; in pairs that mirror each other.

    Each is the farthest, on the mean face, from those before (Eldar et al. 1997). Inside of the mouth there are none.

    Args:
        model: the face model; its mesh is symmetric.

    Returns:
        Indices of vertices, those of eyes, brows, nose and lips first.

    Raises:
        InputError: when the face model has no mirror table.
    """
    if model.mirror is None:
        raise InputError(f"the face model {model.name!r} has no mirror table, which dense points ask for")
    mean, mirror = np.asarray(model.mean_shape, np.float64), np.asarray(model.mirror)
    of_parts = np.unique(np.concatenate([np.asarray(model.parts[part]) for part in parts.SEVEN_PARTS]))
    first = _farthest(mean, mirror, of_parts, OF_PARTS, np.zeros(0, int))
    return np.concatenate([first, _farthest(mean, mirror, outer_skin(model), OF_REST, first)]).astype(np.int32)


def outer_skin(model: FaceModel) -> Integer[np.ndarray, "N"]:
    """Vertices of skin and forehead: all but the other parts and what lies behind the lips."""
    mean, skin = np.asarray(model.mean_shape), np.asarray(model.parts["skin"])
    of_parts = np.concatenate([np.asarray(vertices) for vertices in model.parts.values()])
    rest = np.setdiff1d(np.arange(len(mean)), of_parts)
    forehead = rest[mean[rest, 1] > mean[skin, 1].max() - 0.05]
    return np.union1d(skin, forehead)


def mirrored_points(model: FaceModel, points: Integer[np.ndarray, "P"]) -> Integer[np.ndarray, "P"]:
    """Which of the points each point becomes in a mirror."""
    place = {int(vertex): index for index, vertex in enumerate(points)}
    return np.array([place[int(vertex)] for vertex in np.asarray(model.mirror)[points]], np.int32)


def _farthest(
    mean: Float[np.ndarray, "V 3"],
    mirror: Integer[np.ndarray, "V"],
    candidates: Integer[np.ndarray, "N"],
    count: int,
    taken: Integer[np.ndarray, "M"],
) -> Integer[np.ndarray, "count"]:
    chosen: list[int] = []
    places = mean[candidates]
    start = mean[taken] if len(taken) else places.mean(0)[None]
    gap = np.linalg.norm(places[:, None] - start[None], axis=-1).min(1)
    gap[~np.isin(mirror[candidates], candidates)] = -1
    while len(chosen) < count:
        middle = mirror[candidates] == candidates
        # The last odd place goes to a point in the middle, which is its own mirror image.
        vertex = int(candidates[np.where(middle | (count - len(chosen) > 1), gap, -1.0).argmax()])
        pair = [vertex] if mirror[vertex] == vertex else [vertex, int(mirror[vertex])]
        chosen += pair
        for new in pair:
            gap = np.minimum(gap, np.linalg.norm(places - mean[new], axis=1))
    return np.array(chosen)
