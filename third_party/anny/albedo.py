"""The procedural albedo: a mean face and directions of change, painted by hand onto the mesh. Not learned from photos.

Colours are those of photos (sRGB values in [0, 1], no gamma taken off). A direction is what one standard deviation
adds.
"""

import dataclasses

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg

SKIN = (0.75, 0.57, 0.475)
LIPS = (0.66, 0.385, 0.36)
BROW = (0.25, 0.17, 0.13)
SCLERA = (0.86, 0.83, 0.80)
IRIS = (0.26, 0.17, 0.11)
PUPIL = (0.05, 0.045, 0.04)
MOUTH = (0.30, 0.10, 0.09)
TEETH = (0.84, 0.80, 0.72)
LASH = (0.14, 0.10, 0.09)

IRIS_RADIUS = 0.0585  # 11.7 mm across
PUPIL_RADIUS = 0.022


@dataclasses.dataclass
class Regions:
    """Soft masks [V] in [0, 1] and what else the painter needs; geometry in model units."""

    points: np.ndarray
    normals: np.ndarray
    laplacian: sp.csr_matrix
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


def paint(regions: Regions, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Mean albedo [V, 3], directions [V, 3, K] and their names."""
    r = regions
    skin = 1 - np.clip(r.eye + r.cavity + r.teeth, 0, 1)
    iris = r.eye * (1 - smooth_step(r.iris_distance, IRIS_RADIUS - 0.012, IRIS_RADIUS + 0.008))
    pupil = r.eye * (1 - smooth_step(r.iris_distance, PUPIL_RADIUS - 0.012, PUPIL_RADIUS + 0.012))
    sclera = np.clip(r.eye - iris, 0, 1)
    spots = _spots(r)
    beard = spots["beard"] * skin * (1 - r.lips)
    mustache = spots["mustache"] * skin * (1 - r.lips)
    bare = skin * (1 - r.lips) * (1 - r.brow)

    mean = np.tile(SKIN, (len(r.points), 1))
    shading = 0.10 * spots["orbit"] + 0.04 * spots["side"] + 0.3 * spots["nostril"] + 0.05 * spots["under_eye"]
    mean *= 1 - (shading + 0.05 * beard)[:, None]
    mean += spots["cheek"][:, None] * [0.02, -0.015, -0.01] + spots["nose"][:, None] * [0.015, -0.01, -0.008]
    mean = _mix(mean, LIPS, 0.85 * r.lips)
    mean = _mix(mean, BROW, 0.75 * r.brow)
    mean = _mix(mean, MOUTH, r.cavity)
    mean = _mix(mean, np.outer(1 - 0.75 * smooth_step(np.abs(r.points[:, 0]), 0.06, 0.22), TEETH), r.teeth)
    mean = _mix(mean, SCLERA, np.clip(r.eye, 0, 1))
    mean = _mix(mean, IRIS, iris)
    mean = _mix(mean, PUPIL, pupil)
    mean = _mix(mean, LASH, 0.8 * r.lash)
    mean *= 1 - 0.25 * (r.eye * spots["lid_shadow"])[:, None]

    waves = _waves(r, 8)
    soft_brow = np.clip(r.brow_wide - r.brow, 0, 1)
    directions = {
        "melanin": _on(skin * (1 - 0.55 * r.brow), (0.125, 0.112, 0.102)) + _on(r.lips, (-0.04, -0.045, -0.04)),
        "redness": _on(skin - 0.5 * r.brow, (0.014, -0.010, -0.007)),
        "yellowness": _on(skin - 0.5 * r.brow, (0.004, 0.003, -0.020)),
        "lip redness": _on(r.lips, (0.028, -0.030, -0.020)),
        "lip lightness": _on(r.lips, (0.045, 0.038, 0.038)),
        "brow darkness": _on(-r.brow, (0.055, 0.042, 0.035)),
        "brow colour": _on(r.brow, (0.05, 0.025, 0.0)),
        "brow thickness": _on(soft_brow, (-0.09, -0.08, -0.07)) + _on(r.brow * (1 - r.brow), (-0.12, -0.10, -0.09)),
        "brow inner end": _on(spots["glabella"] * (1 - r.brow), (-0.05, -0.045, -0.04)),
        "beard": _on(beard, (-0.075, -0.06, -0.05)),
        "mustache": _on(mustache, (-0.08, -0.065, -0.055)),
        "cheek blush": _on(spots["cheek"] * bare, (0.022, -0.018, -0.012)),
        "nose redness": _on(spots["nose"] * bare, (0.02, -0.016, -0.012)),
        "under the eyes": _on(spots["under_eye"] * bare, (-0.055, -0.055, -0.04)),
        "lid shadow": _on(r.lids * skin, (-0.07, -0.075, -0.06)),
        "lashes": _on(r.lash, (-0.10, -0.09, -0.085)) + _on(r.lids * skin * spots["lid_line"], (-0.06, -0.06, -0.05)),
        "iris lightness": _on(iris * (1 - pupil), (0.05, 0.075, 0.085)),
        "iris hue": _on(iris * (1 - pupil), (0.05, 0.0, -0.045)),
        "sclera": _on(sclera, (0.05, 0.06, 0.065)),
        "forehead shine": _on(spots["forehead"] * bare, (0.04, 0.04, 0.04)),
        "side shade": _on(spots["side"] * bare, (-0.045, -0.05, -0.05)),
        "nose shine": _on(spots["bridge"] * bare, (0.04, 0.04, 0.04)),
        "mouth lightness": _on(r.cavity, (0.07, 0.03, 0.03)) + _on(r.teeth, (0.05, 0.055, 0.06)),
        "freckles": _on(spots["freckled"] * bare * _speckles(r, rng), (-0.02, -0.024, -0.021)),
    }
    for i, wave in enumerate(waves):
        directions[f"wave {i + 1}"] = _on(wave * bare, np.array([0.017, 0.017, 0.017]) + 0.003 * _tint(i))
    return mean, np.stack(list(directions.values()), -1), tuple(directions)


def _tint(i):
    return np.array([(1, -1, 0), (0, 1, -1), (-1, 0, 1)][i % 3])


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
        "orbit": spot(p, eye_center + [-0.06, 0.06, 0], [0.13, 0.06, 0.2]),
        "under_eye": spot(p, eye_center + [-0.02, -0.10, 0], [0.12, 0.045, 0.2]),
        "side": smooth_step(np.abs(p[:, 0]), 0.35, 0.72),
        "nostril": _nostrils(r),
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


def _nostrils(r: Regions) -> np.ndarray:
    """Dark where the surface under the nose faces down and lies inward: the nostrils' openings."""
    p, marks = r.points, r.points[r.landmarks]
    near = spot(p, [0.075, marks[33, 1] + 0.03, marks[33, 2] - 0.02], [0.045, 0.04, 0.07])
    return near * smooth_step(-r.normals[:, 1], 0.2, 0.8)


def _waves(r: Regions, count: int) -> np.ndarray:
    """The lowest vibrations of the surface (Laplacian eigenvectors), scaled to a maximum of 1: blotches and shades."""
    size = r.laplacian.shape[0]
    _, vectors = scipy.sparse.linalg.eigsh(
        r.laplacian + 1e-6 * sp.identity(size), k=count + 4, sigma=0, v0=np.ones(size)
    )
    waves = vectors.T[4:]
    waves *= np.sign(waves[np.arange(count), np.abs(waves).argmax(1)])[:, None]
    return waves / np.abs(waves).max(1, keepdims=True)


def _speckles(r: Regions, rng: np.random.Generator) -> np.ndarray:
    centers = rng.choice(len(r.points), 260, replace=False)
    radii = rng.uniform(0.010, 0.022, len(centers))
    squared = ((r.points[:, None] - r.points[centers][None]) ** 2).sum(-1)
    return np.exp(-0.5 * squared / radii**2).max(1)
