"""The light on a photo's skin: what a fit says of it made fit for division, and what that leaves made even."""

import numpy as np
import scipy.ndimage
from jaxtyping import Float, Integer

UNLIKE = 0.4
"""Logarithm by which the halves of a face usually differ without their light; much more is a crooked smile, or hair."""

UNSEEN_SHARE = 0.4
"""How much of what a fit says of the light on a side that the photo does not show is believed."""

SPREAD = 1 / 24
"""Of an atlas's side: what varies over more of it than that is taken for light."""

SYMMETRIC_SHARE = 0.5
"""Of what both halves of a face have in common, how much is taken for light: the rest may be the person's colouring."""


def steady_shading(shading: Float[np.ndarray, "V 3"], weights: Float[np.ndarray, "V"]) -> Float[np.ndarray, "V 3"]:
    """A fitted shading that can be divided by: never below half or above twice its usual value, with soft bounds.

    Nine spherical harmonics fitted to one side of a head may say anything of the other, negative light included: where
    nothing is seen, UNSEEN_SHARE of the logarithm counts, and of no colour of its own.

    Args:
        shading: per vertex and channel.
        weights: how well each is seen, 0..1; the usual value is the median over those above 0.5, or over all.
    """
    shading = np.nan_to_num(np.asarray(shading, np.float32), nan=1.0)
    usual = np.maximum(np.median(shading[weights > 0.5] if (weights > 0.5).any() else shading, axis=0), 0.05)
    share = -_soft_maximum(-_soft_maximum(shading / usual[None], 0.5), -2.0)
    log, seen = np.log(share), weights[:, None]
    return usual[None] * np.exp(seen * log + (1 - seen) * UNSEEN_SHARE * log.mean(-1, keepdims=True))


def _soft_maximum(value: np.ndarray, bound: float) -> np.ndarray:
    return (value + bound + np.sqrt(np.square(value - bound) + 0.02)) / 2


def shoulder(albedo: np.ndarray, start: float = 0.65) -> np.ndarray:
    """Highlights are no skin: what divides to more than white is pressed below it, not cut off."""
    room = 1 - start
    return np.where(albedo > start, start + room * -np.expm1(-np.maximum(albedo - start, 0) / room), albedo)


def weighted_medians(values: Float[np.ndarray, "S S 3"], weights: Float[np.ndarray, "S S"]) -> Float[np.ndarray, "3"]:
    """The middle values per channel of what counts more than 0.05; zeros if nothing does."""
    chosen = weights > 0.05
    if not chosen.any():
        return np.zeros(3, np.float32)
    values, weights = values[chosen], weights[chosen]
    order = np.argsort(values, axis=0)
    total = np.cumsum(weights[order], axis=0)
    middle = (total >= total[-1:] / 2).argmax(0)
    return np.take_along_axis(np.take_along_axis(values, order, axis=0), middle[None], axis=0)[0]


def uneven_light(residual: Float[np.ndarray, "S S 3"], weights: Float[np.ndarray, "S S"]) -> Float[np.ndarray, "S S 3"]:
    """What of a skin's colours varies slowly where the face model's own do not: light that the fit left in.

    Args:
        residual: logarithm of the skin's colour less that of the model's own, on an atlas.
        weights: which texels count, 0..1.

    Returns:
        The slow part of the residual, less its median; what is very unlike the rest, such as a beard, is left alone.
    """
    rest = residual - weighted_medians(residual, weights)
    known = weights * np.exp(-np.square(rest / UNLIKE).max(-1))
    sigma = SPREAD * len(weights)
    total = scipy.ndimage.gaussian_filter(known, sigma) + 0.02
    slow = scipy.ndimage.gaussian_filter(rest * known[..., None], (sigma, sigma, 0))
    return (slow / total[..., None]).astype(np.float32)


def evened_out(uneven: Float[np.ndarray, "V 3"], mirror: Integer[np.ndarray, "V"] | None) -> Float[np.ndarray, "V 3"]:
    """What to take off the logarithm of colours: all of the halves' difference, SYMMETRIC_SHARE of what they share.

    Args:
        uneven: from `uneven_light`, at the vertices.
        mirror: index of each vertex's mirror image; without it, the share is taken of everything.
    """
    if mirror is None:
        return SYMMETRIC_SHARE * uneven
    shared = (uneven + uneven[np.asarray(mirror)]) / 2
    return uneven - (1 - SYMMETRIC_SHARE) * shared
