"""The lids and the eye's surface between them: the blink, the gaze, and how much people's openings differ."""

import numpy as np
from geometry import EYE_ROWS, LID, LID_RINGS, Control, eye_rows


def close_eye(control: Control, points: np.ndarray, blink: np.ndarray, side: int, overlap: np.ndarray) -> np.ndarray:
    """The blink unit [C, 3] of one side, remade so that at 1 the upper lid lies over the lower one.

    Its margin comes to lie `overlap` [13] lower than that of the lower lid, before it and on its surface. The eye's
    surface, which bulges with the opening, then lies behind both. The source's upper lid comes down far over the lower
    one, as if before an eyeball, and pulls the corners along. Kept of it is how far each vertex above the margin goes
    along with the margin.
    """
    upper, lower = control.lids[side].T
    goal = below(points[np.concatenate([lower[None], control.lower_rings[side]])], overlap)
    down = goal - points[upper] + np.outer(np.minimum(overlap / 0.03, 1), [0.0, 0.0, LID])
    source = blink[upper]
    order = np.argsort(points[upper, 0])
    x = points[upper, 0][order]

    def along(values):  # of the margin's vertices, interpolated to every vertex by x
        return np.stack([np.interp(points[:, 0], x, values[order, i]) for i in range(3)], -1)

    reference = along(source)
    share = np.clip((blink * reference).sum(-1) / (reference**2).sum(-1), 0, 1)
    above = points[:, 1] > np.interp(points[:, 0], x, points[upper, 1][order]) - 0.012
    wide = np.clip(1 - np.maximum(x[0] - points[:, 0], points[:, 0] - x[-1]) / 0.06, 0, 1)
    result = (share * above * wide**2)[:, None] * along(down)
    for ring in control.lid_rings[side]:
        ratio = (blink[ring] * source).sum(-1) / (source**2).sum(-1)
        result[ring] = np.clip(ratio, 0, 1)[:, None] * down
    result[upper] = down
    result[lower] = 0
    result[control.corners[side]] = 0
    return follow_lids(control, result, side)


def below(rings: np.ndarray, drop: np.ndarray) -> np.ndarray:
    """Points [13, 3] on the lines through rings [R, 13, 3], lower by `drop` [13] than the first one."""
    depth = np.maximum.accumulate(rings[0, :, 1] - rings[..., 1], axis=0)
    points = np.stack([[np.interp(d, depth[:, i], rings[:, i, axis]) for axis in range(3)] for i, d in enumerate(drop)])
    points[:, 1] = rings[0, :, 1] - drop
    return points


def follow_lids(control: Control, offsets: np.ndarray, side: int) -> np.ndarray:
    """Sets the eye's rows from the lids, after the lids' offsets [C, 3] were changed by hand."""
    upper, lower = (offsets[control.lids[side][:, i]] for i in (0, 1))
    result = offsets.copy()
    result[control.eyes[side]] = eye_rows(upper, lower, control.bulges)
    return result


def calm_lids(control: Control, directions: np.ndarray) -> np.ndarray:
    """Identity directions [C, 3, K] in which the openings of the eyes differ half as much.

    The other half is left to the units of expression, which open and close the eyes anyway. The blink, one for all
    people, need not then close the lids so far beyond each other.
    """
    result = directions.copy()
    for lids, rings in zip(control.lids, control.lid_rings, strict=True):
        change = -0.5 * (directions[lids[:, 0], 1] - directions[lids[:, 1], 1])
        for row, ring in enumerate([lids[:, 0], *rings]):
            result[ring, 1] += change * (1 - row / (LID_RINGS + 1))
    for k in range(directions.shape[-1]):
        for side in (0, 1):
            result[..., k] = follow_lids(control, result[..., k], side)
    return result


def look(control: Control, points: np.ndarray, side: int, across: float, up: float) -> np.ndarray:
    """Offsets [C, 3] that slide the eye's surface under the still lids, so that the painted iris looks aside.

    Args:
        control: the control mesh.
        points: neutral control vertices [C, 3].
        side: 0 for the subject's left eye, 1 for the right.
        across: shift of the iris to the image's right, in the units of `points`.
        up: shift of the iris towards the upper lid, as a part of the opening.
    """
    surface = control.eyes[side]
    upper, lower = (points[control.lids[side][:, i]] for i in (0, 1))
    outer, inner = points[control.corners[side]]
    offsets = np.zeros_like(points)
    lanes = np.concatenate([upper[:, None], points[surface], lower[:, None]], 1)
    for row in range(EYE_ROWS):
        lane = np.concatenate([[outer], points[surface[:, row]], [inner]])
        order = np.argsort(lane[:, 0])
        x = points[surface[:, row], 0]
        reach = np.clip(np.minimum(abs(x - outer[0]), abs(x - inner[0])) / 0.11, 0, 1)
        goal = x + across * reach
        moved = np.stack([np.interp(goal, lane[order, 0], lane[order, i]) for i in range(3)], -1)
        offsets[surface[:, row]] += moved - points[surface[:, row]]
        step = np.gradient(lanes, axis=1)[:, row + 1]  # one row down
        offsets[surface[:, row]] -= up * (EYE_ROWS + 1) * step * np.clip(reach, 0, 1)[:, None]
    return offsets
