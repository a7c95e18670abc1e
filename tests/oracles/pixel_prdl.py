"""PRDL on pixels from its definition, in float64 numpy and scipy: distance transforms and all pairs."""

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial.distance import cdist

PARTS = ("left_eye", "right_eye", "left_brow", "right_brow", "nose", "upper_lip", "lower_lip", "skin")


def places(count, stride):
    return min(stride // 2, count - 1) + stride * np.arange(max(1, count // stride))


def signed_distance(mask):
    """[H, W] to the outline of a mask, in pixels: positive outside, negative inside."""
    if mask.all():
        return np.full(mask.shape, 0.5 - np.hypot(*mask.shape))
    inside = distance_transform_edt(mask)
    return np.where(mask, 0.5 - inside, distance_transform_edt(~mask) - 0.5)


def few_anchors(height, width, count=12):
    steps = (np.arange(count) + 0.5) / count
    return np.array([[width * x, height * y] for y in steps for x in steps])


def centers(mask, cell=1):
    """Centres of a mask's pixels, each taken at the centre of its cell."""
    rows, columns = np.nonzero(mask)
    return (np.stack([columns, rows], -1) // cell + 0.5) * cell


def describe(mask, cell):
    """signed [H, W], greatest [A], mean [A] of a mask that is not empty."""
    anchors = few_anchors(*mask.shape)
    greatest = cdist(anchors, centers(mask)).max(1)
    return signed_distance(mask), greatest, cdist(anchors, centers(mask, cell)).mean(1)


def huber(x):
    return np.where(np.abs(x) < 1, x**2, 2 * np.abs(x) - 1)


def loss(drawn, target, statistics, *, stride=3, near=4.0, weights=None):
    """Of one sample: drawn and target are label maps, all parts of the target drawn."""
    total, cell = 0.0, -(-max(drawn.shape) // 64)
    anchors = np.ix_(places(drawn.shape[0], stride), places(drawn.shape[1], stride))
    for label, part in enumerate(PARTS, 1):
        if not (target == label).any() or not (drawn == label).any():
            continue
        one, two = describe(drawn == label, cell), describe(target == label, cell)
        signed = [array[anchors] for array in (one[0], two[0])]
        outer = [np.where(array > 0, array + 0.5, 0) for array in signed]
        weight = np.ones_like(outer[1]) if near is None else 1 / (1 + (outer[1] / near) ** 2)
        weight /= weight.mean()
        terms = {
            "signed": lambda s=signed, w=weight: (w * huber(s[0] - s[1])).mean(),
            "min": lambda o=outer, w=weight: (w * huber(o[0] - o[1])).mean(),
            "max": lambda a=one, b=two: huber(a[1] - b[1]).mean(),
            "mean": lambda a=one, b=two: huber(a[2] - b[2]).mean(),
        }
        part_weight = 1.0 if weights is None else weights.get(part, 1.0)
        total += part_weight * sum(share * terms[name]() for name, share in statistics.items())
    return total


def fine_loss(drawn, target, name, fineness, *, stride=3, near=4.0):
    """One statistic's loss of label maps drawn `fineness` times as fine, in coarse pixels: nearly continuous."""
    total, size = 0.0, np.array(drawn.shape) // fineness
    rows, columns = ((places(count, stride) + 0.5) * fineness for count in size)
    anchors = np.ix_(rows.astype(int), columns.astype(int))
    few = few_anchors(*drawn.shape)
    for label in range(1, 9):
        masks = drawn == label, target == label
        if not masks[0].any() or not masks[1].any():
            continue
        if name in ("signed", "min"):
            signed = [(signed_distance(mask) / fineness)[anchors] for mask in masks]
            outer = [np.maximum(array, 0) for array in signed]
            weight = 1 / (1 + (outer[1] / near) ** 2)
            one, two = signed if name == "signed" else outer
            total += (weight / weight.mean() * huber(one - two)).mean()
        elif name == "max":
            one, two = (cdist(few, _ends(mask)).max(1) for mask in masks)
            total += huber((one - two) / fineness).mean()
        else:
            means = []
            for mask in masks:
                places_, counts = np.unique(centers(mask, fineness // 2), axis=0, return_counts=True)
                means.append(cdist(few, places_) @ counts / counts.sum())
            total += huber((means[0] - means[1]) / fineness).mean()
    return total


def _ends(mask):
    """The first and the last pixel of every row: one of them is the row's furthest from anywhere."""
    rows = np.nonzero(mask.any(1))[0]
    first, last = mask[rows].argmax(1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(1)
    return np.concatenate([np.stack([end, rows], -1) for end in (first, last)]) + 0.5
