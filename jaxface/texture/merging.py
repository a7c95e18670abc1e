"""Several textures of one surface made one, in two bands."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import ndimage

FLOOR = 1e-4
"""What a texel counts where its photo does not show it: the completion then decides, if no photo does better."""

DETAIL_POWER = 6
"""Details come from the best photo: their weights are taken to this power."""

TYPICAL_DIFFERENCE = 0.06
"""By how much the colour of a place differs between photos that agree about it."""

LOCAL_REACH = 1 / 10
"""Of a texture's side: how far the colours of one photo are fitted to those of the others beside it."""

REDUCTION = 8
"""What changes slowly is merged at so much smaller a size."""


def merge_textures(
    textures: Sequence[Float[np.ndarray, "T T 3"]], weights: Sequence[Float[np.ndarray, "T T"]]
) -> Float[np.ndarray, "T T 3"]:
    """Joins textures of one surface.

    Args:
        textures: colours in [0, 1], complete, of a side that can be divided by 8; one is returned as it is.
        weights: how well each shows each texel, 0..1.
    """
    if len(textures) == 1:
        return textures[0]
    # What changes slowly is handled at an eighth of the size.
    small = np.stack([_reduced(np.asarray(texture, np.float32)) for texture in textures])
    trust = np.stack([_reduced(np.asarray(weight, np.float32)) for weight in weights]) + FLOOR
    gains = _equalizing_gains(small, trust)
    sigma = max(small.shape[1] / 64, 0.5)
    equal = small * gains[:, None, None]
    local = _local_gains(equal, trust / _doubt(equal, trust, sigma))
    low = ndimage.gaussian_filter(equal * local, (0, sigma, sigma, 0), mode="nearest")
    trust = trust / _doubt(equal * local, trust, sigma)
    best = (trust / trust.max(0)) ** DETAIL_POWER
    # Weights that change about as slowly as the bands that they mix leave no seams.
    trust, best = (ndimage.gaussian_filter(field, (0, width, width)) for field, width in ((trust, sigma), (best, 0.5)))
    colors = _enlarged((trust[..., None] * low).sum(0) / trust.sum(0)[..., None])
    for texture, gain, where, smooth, share in zip(textures, gains, local, low, best / best.sum(0), strict=True):
        colors += _enlarged(share)[..., None] * (gain * _enlarged(where) * texture - _enlarged(smooth))
    return np.clip(colors, 0, 1)


def _doubt(colors: np.ndarray, trust: np.ndarray, sigma: float) -> Float[np.ndarray, "N S S"]:
    """1 where a texture has the colours that most have, more where not: something lies before the face."""
    low = ndimage.gaussian_filter(colors, (0, sigma, sigma, 0), mode="nearest")
    distance = np.linalg.norm(low - _weighted_median(low, trust)[None], axis=-1)
    return 1 + (distance / TYPICAL_DIFFERENCE) ** 2


def _reduced(image: np.ndarray) -> np.ndarray:
    """Means of blocks of REDUCTION x REDUCTION pixels."""
    side = len(image) // REDUCTION
    return image.reshape(side, REDUCTION, side, REDUCTION, *image.shape[2:]).mean((1, 3))


def _enlarged(image: np.ndarray) -> np.ndarray:
    """The inverse, linear between the centres of the blocks."""
    factors = (REDUCTION, REDUCTION) + (1,) * (image.ndim - 2)
    return ndimage.zoom(image, factors, order=1, mode="nearest", grid_mode=True).astype(np.float32)


def _equalizing_gains(colors: Float[np.ndarray, "N S S 3"], trust: Float[np.ndarray, "N S S"]):
    """A factor per texture and channel that takes away differences of exposure and white balance; on average 1."""
    logarithms = np.log(np.maximum(colors, 0.02)).reshape(len(colors), -1, 3)
    trust = trust.reshape(len(colors), -1)
    gains = np.zeros((len(colors), 3))
    for _ in range(5):
        shifted = logarithms + gains[:, None]
        mean = (trust[..., None] * shifted).sum(0) / trust.sum(0)[:, None]
        for index, weight in enumerate(trust):
            others = trust.sum(0) - weight
            shared = (weight > 0.2 * weight.max()) & (others > 0.2 * others.max())
            if shared.sum() >= 20:
                gains[index] += np.median((mean - shifted[index])[shared], axis=0)
        gains -= gains.mean(0)
    return np.exp(np.clip(gains, -1, 1)).astype(np.float32)


def _local_gains(colors: Float[np.ndarray, "N S S 3"], trust: Float[np.ndarray, "N S S"]):
    """Factors that change slowly over the surface, by which textures agree where several show it; beyond, they go on.

    Light that was not taken off wholly differs from photo to photo: without this, edges would show where one ends.
    """
    logarithms = np.log(np.maximum(colors, 0.02))
    change, sigma = np.zeros_like(logarithms), LOCAL_REACH * colors.shape[1]
    for _ in range(3):
        shifted = logarithms + change
        others = trust.sum(0)[None] - trust
        total = (trust[..., None] * shifted).sum(0)[None] - trust[..., None] * shifted
        apart = total / np.maximum(others, 1e-9)[..., None] - shifted
        # Where both are sure; a smile or a hand in one of them is no light.
        both = np.minimum(trust, others) ** 2 * np.exp(-np.square(apart / 0.4).max(-1))
        weight = ndimage.gaussian_filter(both, (0, sigma, sigma)) + 1e-4
        slow = ndimage.gaussian_filter(both[..., None] * apart, (0, sigma, sigma, 0)) / weight[..., None]
        change += slow / 2
    return np.exp(np.clip(change - change.mean(0), -0.5, 0.5)).astype(np.float32)


def _weighted_median(values: Float[np.ndarray, "N S S 3"], trust: Float[np.ndarray, "N S S"]):
    order = np.argsort(values, axis=0)
    ranked = np.take_along_axis(np.broadcast_to(trust[..., None], values.shape), order, axis=0)
    total = np.cumsum(ranked, axis=0)
    middle = (total >= total[-1:] / 2).argmax(0)
    return np.take_along_axis(np.take_along_axis(values, order, axis=0), middle[None], axis=0)[0]
