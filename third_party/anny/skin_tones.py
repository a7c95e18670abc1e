"""Skin tones: the ten swatches that a scale of the world's skins names, and directions that reach them.

Colours are those of photos: sRGB values in [0, 1], no gamma taken off.
"""

import numpy as np
import scipy.optimize

MONK = (
    "f6ede4", "f3e7db", "f7ead0", "eadaba", "d7bd96", "a07e56", "825c43", "604134", "3a312a", "292420",
)  # fmt: skip
"""The ten swatches of the Monk Skin Tone Scale (Ellis Monk, 2019; published by Google, 2022, at skintone.google)."""

SKINS = (
    (75, 10, 13), (73, 9.5, 14.5), (71, 8.5, 16.5), (68.5, 9, 18), (65, 10, 21),
    (55, 12, 24), (43.5, 12.5, 20.5), (34, 10.5, 14.5), (27, 7, 9), (22, 5.5, 6.5),
)  # fmt: skip
"""CIELAB of the ten skins that people are drawn with: the scale's steps, but no lighter than skin is beside paper in
the same light, no darker than it is without gloss, and as red as blood under the skin makes the light ones."""

MEAN = (0.64, 0.49, 0.39)
"""As light as the sixth swatch, half way between the lightest and the darkest."""

DIRECTIONS = {"lightness": (0.212, 0.205, 0.19), "warmth": (0.028, 0.002, -0.031), "redness": (0.008, -0.010, -0.002)}
"""Chosen so that two standard deviations of lightness, nearly grey as the swatches' ends demand, span the scale, while
those of hue stay within what skins have: with independent draws nothing keeps pale faces from being drawn blue."""


TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
TO_XYZ = TO_XYZ / TO_XYZ.sum(1, keepdims=True)
"""From linear sRGB to XYZ in which white is (1, 1, 1)."""


def monk() -> np.ndarray:
    """The swatches [10, 3], from light to dark."""
    return np.array([[int(tone[i : i + 2], 16) / 255 for i in (0, 2, 4)] for tone in MONK])


def lightness(colors: np.ndarray) -> np.ndarray:
    """Mean of the channels [...] of colours [..., 3]."""
    return colors.mean(-1)


def lab(colors: np.ndarray) -> np.ndarray:
    """CIELAB [..., 3] of sRGB colours [..., 3] under D65 (IEC 61966-2-1, CIE 15)."""
    linear = np.where(colors <= 0.04045, colors / 12.92, ((np.maximum(colors, 0) + 0.055) / 1.055) ** 2.4)
    x, y, z = np.moveaxis(linear @ TO_XYZ.T, -1, 0)
    x, y, z = (np.where(v > (6 / 29) ** 3, np.cbrt(v), v / (3 * (6 / 29) ** 2) + 4 / 29) for v in (x, y, z))
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def from_lab(colors: np.ndarray) -> np.ndarray:
    """The inverse of `lab`, for colours that sRGB has."""
    y = (colors[..., 0] + 16) / 116
    roots = np.stack([y + colors[..., 1] / 500, y, y - colors[..., 2] / 200], -1)
    xyz = np.where(roots > 6 / 29, roots**3, 3 * (6 / 29) ** 2 * (roots - 4 / 29))
    linear = xyz @ np.linalg.inv(TO_XYZ).T
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)


def nearest_swatch(colors: np.ndarray) -> np.ndarray:
    """Index [N] of the swatch that looks most like each colour [N, 3] (CIELAB 1976)."""
    return np.linalg.norm(lab(np.clip(colors, 0, 1))[:, None] - lab(monk()), axis=-1).argmin(1)


def report(mean: np.ndarray, basis: np.ndarray, draws: int = 10_000) -> str:
    """What skin tones a basis has: how near the swatches come, by what coefficients, and how often each is drawn.

    Args:
        mean: [N, 3] colours of the face's skin.
        basis: [N, 3, K] its directions, those of the tone first.
        draws: people drawn from N(0, 1) for the last line.
    """
    tone, directions = mean.mean(0), basis.mean(0)
    swatches = monk()
    wanted = np.array([coefficients(tone, directions[:, :3], swatch) for swatch in swatches])
    reached = np.array([np.clip(mean + basis[..., :3] @ w, 0.01, 0.99).mean(0) for w in wanted])
    off = np.linalg.norm(lab(reached) - lab(swatches), axis=-1)
    people = tone + np.random.default_rng(0).normal(size=(draws, basis.shape[-1])) @ directions.T
    shares = np.bincount(nearest_swatch(people), minlength=len(swatches)) / draws
    drawn = [coefficients(tone, directions[:, :3], from_lab(np.array(skin))) for skin in SKINS]
    return "\n".join(
        [
            f"mean face colour {np.round(tone, 3)}, CIELAB {np.round(lab(tone), 1)}",
            f"Monk swatches: norm of their coefficients {np.round(np.linalg.norm(wanted, axis=1), 2)}",
            *(f"  {name} by {np.round(w, 2)}" for name, w in zip(MONK, wanted, strict=True)),
            f"  distance of the clipped face's mean (CIELAB 1976) {np.round(off, 1)}",
            f"  share of {draws} draws nearest to each {np.round(shares, 3)}",
            "The ten skins of drawn people, jaxface/synthetic/people.py:",
            *(f"  {skin} by {np.round(w, 2)}" for skin, w in zip(SKINS, drawn, strict=True)),
        ]
    )


def coefficients(tone: np.ndarray, directions: np.ndarray, color: np.ndarray, limit: float = 2.45) -> np.ndarray:
    """Coefficients [K] of a norm up to `limit` by which `tone` [3] and directions [3, K] look most like a colour."""

    def distance(weights):
        return np.sum((lab(tone + directions @ weights) - lab(color)) ** 2)

    within = {"type": "ineq", "fun": lambda weights: limit**2 - weights @ weights}
    start = np.linalg.lstsq(directions, color - tone, rcond=None)[0]
    start *= min(1, 0.9 * limit / np.linalg.norm(start))
    return scipy.optimize.minimize(distance, start, method="SLSQP", constraints=within).x
