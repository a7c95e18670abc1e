"""Glasses as geometry from a few numbers: MakeHuman's core assets have none.

They hang on three kinds of points of the base mesh: the root of the nose, the temples, and where the ears begin.
"""

import numpy as np
from wearables import Piece

STYLES = {
    "round": (0.215, 0.205, 2.0, 0.011),
    "oval": (0.250, 0.165, 2.4, 0.009),
    "square": (0.255, 0.185, 4.5, 0.018),
    "large": (0.270, 0.230, 3.0, 0.014),
}
"""Half width and height of a lens in the base mesh's unit (10.7 cm), how square it is, half the rim's thickness."""

LENS = np.array([0.295, 7.325, 1.475])
"""Middle of the left lens on the neutral head, less what the front is bent; some 13 mm before the eye."""
NOSE, TEMPLE, EAR = np.array([0, 7.36, 1.41]), np.array([0.63, 7.42, 0.9]), np.array([0.71, 7.5, 0.4])
SIDES = np.array([1.0, -1.0])
POINTS = 24
"""Of a rim."""


def all_glasses(base: np.ndarray, body: np.ndarray) -> list[Piece]:
    """Frames and lenses of every style. `base` [19158, 3] is the neutral base mesh, `body` its body's vertices."""

    def nearest(point: np.ndarray) -> int:
        return int(body[np.argmin(((base[body] - point) ** 2).sum(-1))])

    anchors = np.array([[nearest(NOSE), nearest(TEMPLE * [s, 1, 1]), nearest(EAR * [s, 1, 1])] for s in SIDES])
    pieces = []
    for name, style in STYLES.items():
        for slot, (points, triangles) in {"glasses": _frame(*style), "lenses": _lenses(*style[:3])}.items():
            references = anchors[(points[:, 0] < 0).astype(int)]
            weights = _weights(points)
            pieces.append(
                Piece(
                    slot=slot,
                    name=name,
                    references=references,
                    weights=weights,
                    offsets=points - np.einsum("nk,nkc->nc", weights, base[references]),
                    triangles=triangles,
                    uv=np.full((len(points), 2), 0.5),
                    picture=np.full((16, 16, 4), [128, 128, 128, 255], np.uint8),
                )
            )
    return pieces


def _weights(points: np.ndarray) -> np.ndarray:
    """Shares [N, 3] of nose, temple and ear: sideways on the front, backwards along the arms."""
    aside = np.clip(np.abs(points[:, 0]) / TEMPLE[0], 0, 1)
    back = np.clip((1.36 - points[:, 2]) / (1.36 - EAR[2]), 0, 1)
    return np.stack([(1 - aside) * (1 - back), aside * (1 - back), back], -1)


def _curve(width: float, height: float, squareness: float, count: int = POINTS) -> np.ndarray:
    """A superellipse [count, 2] around the origin, counter-clockwise."""
    angle = 2 * np.pi * np.arange(count) / count
    cos, sin = np.cos(angle), np.sin(angle)
    power = 2 / squareness
    return np.stack([width * np.sign(cos) * np.abs(cos) ** power, height * np.sign(sin) * np.abs(sin) ** power], -1)


def _bent(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Places [N, 3] on the front, which is bent around the face."""
    return np.stack([x, y, LENS[2] + 0.03 - 0.35 * x**2], -1)


def _frame(width: float, height: float, squareness: float, thick: float) -> tuple[np.ndarray, np.ndarray]:
    parts = []
    outer = LENS[0] + width
    for side in SIDES:
        around = _curve(width, height, squareness)
        parts.append(_tube(_bent(side * LENS[0] + around[:, 0], LENS[1] + around[:, 1]), thick, closed=True))
        hinge = _bent(np.array([outer - 0.02]), LENS[1:2] + 0.4 * height)[0]
        middle = [0.5 * outer + 0.5 * 0.655, 7.44, 1.37]
        arm = np.array([hinge, middle, [0.685, 7.465, 1.0], [0.712, 7.485, 0.7], [0.725, 7.5, 0.42]])
        arm = np.concatenate([arm, [[0.715, 7.46, 0.32], [0.7, 7.38, 0.26], [0.69, 7.28, 0.22]]])
        parts.append(_tube(arm * [side, 1, 1], thick, closed=False))
    half = LENS[0] - width
    x = np.linspace(-half, half, 7)
    y = LENS[1] + 0.35 * height + 0.03 * (1 - (x / half) ** 2)
    parts.append(_tube(_bent(x, y), thick, closed=False))
    start = np.cumsum([0] + [len(points) for points, _ in parts])
    triangles = np.concatenate([faces + first for (_, faces), first in zip(parts, start[:-1], strict=True)])
    return np.concatenate([points for points, _ in parts]), triangles


def _tube(path: np.ndarray, thick: float, *, closed: bool) -> tuple[np.ndarray, np.ndarray]:
    """A square bar along a path [N, 3]: vertices [4 N, 3] and triangles."""
    along = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=-1, keepdims=True)
    # Square to the path: a direction in the face's plane for the front, upwards for the arms.
    hint = np.where(np.abs(along[:, 2:]) > 0.6, [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]])
    across = np.cross(along, hint)
    across /= np.linalg.norm(across, axis=-1, keepdims=True)
    other = np.cross(along, across)
    corners = [path + thick * (a * across + b * other) for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1))]
    count = len(path)
    rows = np.arange(count if closed else count - 1)
    after = (rows + 1) % count
    faces = []
    for i in range(4):
        j = (i + 1) % 4
        a, b, c, d = i * count + rows, i * count + after, j * count + after, j * count + rows
        faces += [np.stack([a, b, c], -1), np.stack([a, c, d], -1)]
    return np.concatenate(corners), np.concatenate(faces)


def _lenses(width: float, height: float, squareness: float) -> tuple[np.ndarray, np.ndarray]:
    points, triangles = [], []
    for side in SIDES:
        rim = _curve(width, height, squareness) + [side * LENS[0], LENS[1]]
        start = sum(map(len, points))
        points.append(_bent(*np.concatenate([rim, [[side * LENS[0], LENS[1]]]]).T))
        rows = np.arange(POINTS)
        triangles.append(start + np.stack([np.full(POINTS, POINTS), rows, (rows + 1) % POINTS], -1))
    return np.concatenate(points), np.concatenate(triangles)
