"""The albedo: photographic skin, and painted on it what the photographs lack: eyes, brows, beards, make-up, the mouth.

Colours are those of photos (sRGB values in [0, 1], no gamma taken off). A direction is what one standard deviation
adds.
"""

import dataclasses

import numpy as np

BROW = (0.20, 0.14, 0.11)
SCLERA = (0.86, 0.83, 0.80)
IRIS = (0.26, 0.17, 0.11)
PUPIL = (0.05, 0.045, 0.04)
MOUTH = (0.30, 0.10, 0.09)
TEETH = (0.84, 0.80, 0.72)
LIP_REDNESS = (0.012, -0.013, -0.008)
BEARD = (-0.048, -0.040, -0.034)
LASH = (0.14, 0.10, 0.09)

IRIS_RADIUS = 0.0585  # 11.7 mm across
PUPIL_RADIUS = 0.022


@dataclasses.dataclass
class Regions:
    """Soft masks [V] in [0, 1] and what else the painter needs; geometry in model units.

    Attributes:
        inside: 0 at the face's rim, 1 a little inside it: what is painted ends there, the rest of the head has none.
    """

    points: np.ndarray
    inside: np.ndarray
    eye: np.ndarray
    iris_distance: np.ndarray
    lash: np.ndarray
    lids: np.ndarray
    lips: np.ndarray
    brow: np.ndarray
    brow_wide: np.ndarray
    cavity: np.ndarray
    teeth: np.ndarray
    landmarks: np.ndarray


def smooth_step(x: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def spot(points: np.ndarray, center, radius) -> np.ndarray:
    """A Gaussian spot with radii per axis (in model units), on both sides of the face."""
    radius = np.broadcast_to(radius, 3)
    here = np.exp(-0.5 * (((points - center) / radius) ** 2).sum(-1))
    there = np.exp(-0.5 * (((points - np.asarray(center) * [-1, 1, 1]) / radius) ** 2).sum(-1))
    return np.maximum(here, there)


def paint(
    regions: Regions, skin_mean: np.ndarray, skin_basis: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Mean albedo [V, 3], directions [V, 3, K], those of the skin first, and the names of those that are painted.

    Args:
        regions: where to paint.
        skin_mean: [V, 3] photographic skin.
        skin_basis: [V, 3, Ks] its directions.
        rng: places the freckles.
    """
    r = regions
    skin = 1 - np.clip(r.eye + r.cavity + r.teeth, 0, 1)
    iris = r.eye * (1 - smooth_step(r.iris_distance, IRIS_RADIUS - 0.012, IRIS_RADIUS + 0.008))
    pupil = r.eye * (1 - smooth_step(r.iris_distance, PUPIL_RADIUS - 0.012, PUPIL_RADIUS + 0.012))
    sclera = np.clip(r.eye - iris, 0, 1)
    soft_brow = np.clip(r.brow_wide - r.brow, 0, 1)
    spots = _spots(r)
    skin_shown = skin * (1 - 0.55 * r.brow) * (1 - 0.8 * r.lash)

    painted = skin * r.inside
    beard, mustache = (spots[name] * painted * (1 - r.lips) for name in ("beard", "mustache"))

    mean = skin_mean + _on(0.7 * beard, BEARD)  # half way to one, so that fewer chins are drawn as if they glowed
    mean = _mix(mean, BROW, 0.75 * r.brow + 0.2 * soft_brow)
    mean += _on(r.lips * skin, LIP_REDNESS)  # so that they are not drawn green where skin is dark
    mean = _mix(mean, MOUTH, r.cavity)
    mean = _mix(mean, np.outer(1 - 0.75 * smooth_step(np.abs(r.points[:, 0]), 0.06, 0.22), TEETH), r.teeth)
    mean = _mix(mean, SCLERA, np.clip(r.eye, 0, 1))
    mean = _mix(mean, IRIS, iris)
    mean = _mix(mean, PUPIL, pupil)
    mean = _mix(mean, LASH, 0.8 * r.lash)
    mean *= 1 - 0.25 * (r.eye * spots["lid_shadow"])[:, None]

    bare = painted * (1 - r.lips) * (1 - r.brow)
    directions = {
        "lip redness": _on(r.lips * skin, LIP_REDNESS),
        "lip lightness": _on(r.lips * skin, (0.034, 0.028, 0.028)),
        "brow darkness": _on(-r.brow, (0.055, 0.042, 0.035)),
        "brow colour": _on(r.brow, (0.05, 0.025, 0.0)),
        "brow thickness": _on(soft_brow, (-0.045, -0.04, -0.035)) + _on(r.brow * (1 - r.brow), (-0.12, -0.10, -0.09)),
        "brow inner end": _on(spots["glabella"] * (1 - r.brow), (-0.05, -0.045, -0.04)),
        "beard": _on(beard, BEARD),
        "mustache": _on(mustache, BEARD),
        "cheek blush": _on(spots["cheek"] * bare, (0.014, -0.012, -0.008)),
        "nose redness": _on(spots["nose"] * bare, (0.015, -0.012, -0.009)),
        "under the eyes": _on(spots["under_eye"] * bare, (-0.055, -0.055, -0.04)),
        "lid shadow": _on(r.lids * skin, (-0.07, -0.075, -0.06)),
        "lid colour": _on(r.lids * skin, (0.022, 0.0, -0.02)),
        "lashes": _on(r.lash, (-0.10, -0.09, -0.085)) + _on(r.lids * skin * spots["lid_line"], (-0.06, -0.06, -0.05)),
        "iris lightness": _on(iris * (1 - pupil), (0.05, 0.075, 0.085)),
        "iris hue": _on(iris * (1 - pupil), (0.05, 0.0, -0.045)),
        "sclera": _on(sclera, (0.05, 0.06, 0.065)),
        "forehead shine": _on(spots["forehead"] * bare, (0.04, 0.04, 0.04)),
        "nose shine": _on(spots["bridge"] * bare, (0.04, 0.04, 0.04)),
        "mouth lightness": _on(r.cavity, (0.07, 0.03, 0.03)) + _on(r.teeth, (0.05, 0.055, 0.06)),
        "freckles": _on(spots["freckled"] * bare * _speckles(r, rng), (-0.02, -0.024, -0.021)),
    }
    basis = np.concatenate([skin_basis * skin_shown[:, None, None], np.stack(list(directions.values()), -1)], -1)
    return mean, basis, tuple(directions)


def _mix(base, color, weight):
    weight = np.clip(weight, 0, 1)[:, None]
    return base * (1 - weight) + np.asarray(color) * weight


def _on(field, color):
    return field[:, None] * np.asarray(color)[None]


def _spots(r: Regions) -> dict[str, np.ndarray]:
    p, marks = r.points, r.points[r.landmarks]
    eye_center = (marks[42] + marks[45]) / 2
    cheek = (marks[45] + marks[54]) / 2 + [0.05, -0.02, 0]
    mouth_y, nose_y, chin_y, brow_y = marks[62, 1], marks[33, 1], marks[8, 1], marks[[19, 24], 1].mean()
    below = smooth_step(-p[:, 1], -(nose_y - 0.12), -(nose_y - 0.42))
    jaw = np.clip(below + smooth_step(np.abs(p[:, 0]), 0.42, 0.62) * smooth_step(-p[:, 1], -nose_y, -mouth_y), 0, 1)
    mustache = spot(p, [0.12, (marks[51, 1] + nose_y) / 2, marks[33, 2]], [0.15, 0.05, 0.25])
    return {
        "under_eye": spot(p, eye_center + [-0.02, -0.10, 0], [0.12, 0.045, 0.2]),
        "cheek": spot(p, cheek, [0.17, 0.15, 0.4]),
        "nose": spot(p, marks[30], [0.13, 0.13, 0.25]),
        "bridge": spot(p, marks[28], [0.06, 0.25, 0.3]),
        "forehead": spot(p, [0, brow_y + 0.38, marks[27, 2]], [0.35, 0.22, 0.5]),
        "glabella": spot(p, [0, marks[[21, 22], 1].mean(), marks[27, 2]], [0.07, 0.04, 0.2]),
        "beard": np.clip(jaw * smooth_step(p[:, 1], chin_y - 0.45, chin_y - 0.1) + 0.8 * mustache, 0, 1),
        "mustache": mustache,
        "freckled": smooth_step(-np.abs(p[:, 1] - (nose_y + 0.15)), -0.45, -0.2),
        "lid_shadow": np.clip((p[:, 1] - eye_center[1]) / 0.05, 0, 1),
        "lid_line": smooth_step(p[:, 1], eye_center[1] - 0.01, eye_center[1] + 0.02),
    }


def _speckles(r: Regions, rng: np.random.Generator) -> np.ndarray:
    centers = rng.choice(len(r.points), 260, replace=False)
    radii = rng.uniform(0.010, 0.022, len(centers))
    squared = ((r.points[:, None] - r.points[centers][None]) ** 2).sum(-1)
    return np.exp(-0.5 * squared / radii**2).max(1)
