"""Landmarks of a face model from a detector's landmarks in pictures of it, and the contour lines of its outline."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from jaxface.core.face_models import FaceModel
from jaxface.core.landmarks import MIRRORED_68

_RADIUS = 0.05  # of the face's longer side: a landmark farther off than this does no more harm

_MIDLINE = 0.005  # model units (0.5 mm)

_LINE_STEP, _LINE_REACH = 0.02, 0.03  # of the half width of the face; model units


@dataclasses.dataclass
class LandmarkCosts:
    """How far each vertex was from each of the detector's 68 landmarks, over all pictures so far.

    Attributes:
        total: [68, V] summed squared distances over the face's squared size, cut off where it is far or hidden.
        pictures: their number.
    """

    total: Float[np.ndarray, "68 V"]
    pictures: int = 0

    @classmethod
    def empty(cls, vertex_count: int) -> "LandmarkCosts":
        """No pictures yet."""
        return cls(np.zeros((68, vertex_count), np.float32))

    def add(
        self,
        points: Float[np.ndarray, "V 2"],
        visible: Bool[np.ndarray, "V"],
        landmarks: Float[np.ndarray, "68 2"],
    ) -> None:
        """Adds one picture.

        Cutting the distance off makes the best vertex robust, like a median: a picture in which the detector erred, or
        which hides the vertex, adds the same to all.

        Args:
            points: of the vertices, in pixels.
            visible: which of them the picture shows.
            landmarks: the detector's, in pixels of the picture.
        """
        self.pictures += 1
        radius = _RADIUS * np.ptp(landmarks, axis=0).max()
        self.total += 1.0
        shown = np.flatnonzero(visible)
        seen = points[shown].astype(np.float32)
        for landmark, place in enumerate(np.asarray(landmarks, np.float32)):
            squared = ((seen - place[None]) ** 2).sum(-1) / np.float32(radius**2)
            near = squared < 1
            self.total[landmark, shown[near]] += squared[near] - 1.0


def choose_landmarks(
    costs: LandmarkCosts,
    model: FaceModel,
    mirror: Integer[np.ndarray, "V"],
    parts: Mapping[str, Integer[np.ndarray, "N"]],
) -> Int[np.ndarray, "68"]:
    """The vertex of each ibug-68 landmark: the one that lay nearest over all pictures, both sides counted together.

    The inner contours of the lips stay on their own lip (with the mouth closed the two coincide in a picture), and the
    landmarks of the midline on the midline, where the mesh has vertices there.

    Args:
        costs: of all pictures.
        model: the face model.
        mirror: from `votes.mirror_partners`.
        parts: vertex indices per part.
    """
    flipped = costs.total[MIRRORED_68][:, mirror]
    paired = mirror >= 0
    total = np.where(paired[None], costs.total + flipped, 2 * costs.total)
    own = np.arange(len(mirror))
    if model.mirror is not None:
        middle = np.flatnonzero(mirror == own)
    else:
        x = np.asarray(model.mean_shape)[:, 0]
        middle = np.flatnonzero(np.abs(x - (x.min() + x.max()) / 2) < _MIDLINE)
    lips = {landmark: "upper_lip" for landmark in (61, 62, 63)} | {landmark: "lower_lip" for landmark in (65, 66, 67)}
    result = np.zeros(68, np.int32)
    for landmark in range(68):
        other = int(MIRRORED_68[landmark])
        if other < landmark and mirror[result[other]] >= 0 and model.mirror is not None:
            result[landmark] = mirror[result[other]]
            continue
        candidates = np.asarray(parts.get(lips.get(landmark, ""), own))
        on_middle = np.intersect1d(candidates, middle) if other == landmark else own[:0]
        candidates = on_middle if len(on_middle) else candidates
        result[landmark] = candidates[np.argmin(total[landmark, candidates])]
    return result


def contour_lines(
    model: FaceModel, landmarks: Integer[np.ndarray, "68"], skin: Integer[np.ndarray, "N"]
) -> Int[np.ndarray, "17 C"]:
    """Lines of vertices along which the 17 landmarks of the face's outline may move (`losses.landmark`).

    Each runs from its landmark over the cheek towards the mouth, and a little outward: there the outline lies when the
    head turns. The chin keeps its vertex.

    Args:
        model: the face model.
        landmarks: ibug-68.
        skin: vertices of the skin, from which the lines are made.

    Returns:
        [17, C] vertex indices; short lines repeat their first.
    """
    points = np.asarray(model.mean_shape, np.float64)
    jaw, mouth = points[landmarks[:17]], points[landmarks[[48, 54]]].mean(0)
    lines = []
    for index, start in enumerate(jaw):
        line = [int(landmarks[index])]
        inner = 0.55 if index < 5 or index > 11 else 0.45  # how far the lines run towards the midline
        side = np.sign(start[0] - mouth[0])
        same_side = skin[side * (points[skin, 0] - mouth[0]) > 0]
        for part in np.arange(-0.12, inner, _LINE_STEP) if index != 8 and len(same_side) else ():
            target = start[:2] + part * np.array([mouth[0] - start[0], 0.35 * (mouth[1] - start[1])])
            distance = np.linalg.norm(points[same_side, :2] - target[None], axis=-1)
            best = int(same_side[np.argmin(distance)])
            if distance.min() < _LINE_REACH and best not in line:
                line.append(best)
        lines.append(line)
    length = max(map(len, lines))
    return np.array([line + line[:1] * (length - len(line)) for line in lines], np.int32)
