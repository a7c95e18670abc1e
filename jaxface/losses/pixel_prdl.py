"""PRDL on pixels: drawn parts against a label map's parts, each described by the same distances from the same anchors.

PRDL (3DDFA-V3, Wang et al. 2024, arXiv 2312.00311; see prdl.py) describes the vertices of a part on one side and the
pixels of its mask on the other. Vertices are no pixels: at the true face the two differ, and a fit explains the
difference by a wrong shape. Here the predicted mesh is drawn, hidden surfaces hidden, and every pixel of a part is a
point that moves with its triangle. The loss is zero for the true face.

For a part's pixels M, an anchor a, and d the Euclidean distance between centres of pixels:

    s(a) = d(a, M) - 1/2 outside M,  1/2 - d(a, all other pixels) inside        "signed"
    s(a) = d(a, M)                                                              "min"
    s(a) = max |x - a|,  mean |x - a|  over x in M                              "max", "mean"

and the loss is the sum over the parts of mean_a w(a) rho(s(a) - s_target(a)), rho Huber's function and w larger near
the target's part. Nothing of that changes while the mesh moves by less than a pixel; the gradient is that of the
outlines, which move with the nearer of the surfaces that meet there (see _pixel_pulls.py).
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Shaped, UInt8

from jaxface.core.parts import FOREHEAD, LABELS, PARTS
from jaxface.core.typed_jit import typed_jit
from jaxface.losses._nearest_pixels import AnchorGrid
from jaxface.losses._pixel_pulls import Drawn, Slopes, carry, pulls
from jaxface.losses._pixel_sets import PixelSets, describe, mean_anchors
from jaxface.render import Fragments, rasterize
from jaxface.render.labels import above_brows, surface_labels

STATISTICS: Mapping[str, float] = MappingProxyType({"signed": 1.0, "mean": 0.1})
"""What is compared, and how much it weighs: the form that fits best (experiments/prdl_vs_rivals)."""

NEAR = 4.0
"""At this distance from the target's part, in pixels, an anchor weighs half of what it weighs at the part."""

ANCHOR_STRIDE = 3
"""Anchors lie on every third pixel in x and y."""

_FALLBACK_TRIANGLES = 2048
"""What parts of which nothing is drawn are pulled back by: so many triangles or a few more, evenly chosen from all."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PixelTargets:
    """What drawn faces are compared with: the described parts of B label maps, made once where these stay the same.

    Attributes:
        signed: [B, 8, R, C] distances from the anchors to the outlines of `PARTS` in pixels, negative inside.
        greatest: [B, 8, A] greatest distances from a few anchors.
        mean: [B, 8, A] mean distances from them.
        present: [B, 8] whether the label map shows the part.
        height: of the label maps in pixels; static, as the next two.
        width: of the label maps in pixels.
        anchor_stride: anchors of `signed` lie on every n-th pixel in x and y.
    """

    signed: Float[Array, "B P R C"]
    greatest: Float[Array, "B P A"]
    mean: Float[Array, "B P A"]
    present: Bool[Array, "B P"]
    height: int = dataclasses.field(metadata={"static": True})
    width: int = dataclasses.field(metadata={"static": True})
    anchor_stride: int = dataclasses.field(metadata={"static": True})


LabelMaps = Integer[Array | np.ndarray, "B H W"]
Masks = Mapping[str, Shaped[Array | np.ndarray, "B H W"]]


def pixel_targets(labels: LabelMaps | Masks, *, anchor_stride: int = ANCHOR_STRIDE) -> PixelTargets:
    """Describes what faces are to look like; differentiable in nothing.

    Args:
        labels: part labels of `jaxface.core.parts`, where any other number is no part; or masks {part: non-zero where a
            pixel belongs to it}, of which, where they overlap, the one that comes first in `PARTS` has the pixel.
        anchor_stride: anchors lie on every n-th pixel in x and y.

    Raises:
        ValueError: for a wrong shape, a part that there is not, masks of several shapes, or a stride below 1.
    """
    if not isinstance(anchor_stride, int | np.integer) or anchor_stride < 1:
        raise ValueError(f"anchor_stride must be a whole number of 1 or more, got {anchor_stride}")
    labels = _painted(labels) if isinstance(labels, Mapping) else jnp.asarray(labels)
    if labels.ndim != 3 or 0 in labels.shape[1:] or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"expected label maps [B, H, W] of whole numbers, got {labels.dtype}{list(labels.shape)}")
    height, width = labels.shape[1:]
    labels = jnp.where((labels >= 0) & (labels <= FOREHEAD), labels, 0).astype(jnp.uint8)  # 257 is not 1
    sets = _described(labels, AnchorGrid(height, width, anchor_stride))
    return PixelTargets(sets.signed, sets.greatest, sets.mean, sets.area > 0, height, width, anchor_stride)


def _painted(masks: Masks) -> UInt8[Array, "B H W"]:
    if unknown := sorted(masks.keys() - set(PARTS)):
        raise ValueError(f"masks name part(s) {unknown}; there are {PARTS}")
    if len(shapes := {np.shape(mask) for mask in masks.values()}) != 1:
        raise ValueError(f"masks must have one shape, got {sorted(shapes)}")
    labels = jnp.zeros(shapes.pop(), jnp.uint8)
    for part in reversed(PARTS):
        if part in masks:
            labels = jnp.where(jnp.asarray(masks[part]) != 0, LABELS[part], labels)
    return labels.astype(jnp.uint8)


@typed_jit(static_argnames="grid")
def _described(labels: UInt8[Array, "B H W"], grid: AnchorGrid) -> PixelSets:
    return describe(labels, grid)


@dataclasses.dataclass(frozen=True)
class _Form:
    """What is compared, and how: static."""

    statistics: tuple[tuple[str, float], ...]
    near: float | None
    speck: int


def pixel_prdl_loss(
    points: Float[Array | np.ndarray, "B V 2"],
    depth: Float[Array | np.ndarray, "B V"],
    triangles: Integer[Array | np.ndarray, "T 3"],
    triangle_labels: Integer[Array | np.ndarray, "T"],
    targets: PixelTargets | LabelMaps | Masks,
    *,
    hidden: Bool[Array | np.ndarray, "B H W"] | None = None,
    fragments: Fragments | None = None,
    weights: Mapping[str, float | Float[Array | np.ndarray, "B"]] | None = None,
    statistics: Mapping[str, float] = STATISTICS,
    near: float | None = NEAR,
    speck: int = 0,
) -> Float[Array, "B"]:
    """Part re-projection distance loss between a drawn mesh and label maps, zero for the mesh that drew them.

    Differentiable in the points and the parts' weights (reverse mode): in the points, the gradient is that of the
    outlines in the picture, carried to the vertices by weights that are held fixed, so that it has no derivative of its
    own. Visibility, and with it depth, is held fixed too. Works under jit, vmap, pmap and shard_map.

    A part weighs nothing in a sample whose target does not show it. One that is not drawn at all though its target
    shows it is pulled back as a whole, by the mean distances of its triangles, wherever they are. Skin above the drawn
    brows is cut away where the target shows both brows, as its own skin was cut then (`parts.cut_forehead`).

    Args:
        points: projected vertices in pixels of the label maps, y down.
        depth: of the vertices, positive in front of the camera, in model units.
        triangles: vertex indices.
        triangle_labels: from `render.label_triangles`.
        targets: label maps, masks, or what `pixel_targets` made of them, which also chooses other anchors.
        hidden: pixels where something lies over the face, to be left out as the target leaves them out. None: nowhere.
        fragments: of these points, if they were rasterized before.
        weights: of each part, one number or one per sample; 1 for a part that is not listed.
        statistics: how much each of "signed", "min", "max" and "mean" weighs; those not listed are not compared.
        near: distance from the target's part at which an anchor's weight for "signed" and "min" has fallen to a half,
            in pixels; their mean is 1. None weighs all alike.
        speck: a drawn part of fewer pixels is taken for skin where the target does not show it, for label maps whose
            specks were filtered so, and whose forehead was cut after that.

    Returns:
        [B] in square pixels up to a pixel of difference, growing linearly beyond. NaN where a coordinate is not finite.

    Raises:
        ValueError: when shapes or names do not fit together; outside jit also when a coordinate is not finite.
    """
    if not isinstance(targets, PixelTargets):
        targets = pixel_targets(targets)
    points, depth = jnp.asarray(points), jnp.asarray(depth)
    _check(points, depth, triangles, triangle_labels, targets, hidden, fragments, weights or {}, statistics, near)
    size = (targets.height, targets.width)
    part_weights = jnp.stack(
        [jnp.broadcast_to(jnp.asarray((weights or {}).get(part, 1.0), jnp.float32), len(points)) for part in PARTS], 1
    )
    hidden = jnp.zeros((len(points), *size), bool) if hidden is None else jnp.asarray(hidden).astype(bool)
    form = _Form(tuple((name, float(weight)) for name, weight in statistics.items()), near and float(near), speck)
    triangles, triangle_labels = jnp.asarray(triangles, jnp.int32), jnp.asarray(triangle_labels, jnp.uint8)
    return _loss(points, depth, triangles, triangle_labels, targets, hidden, fragments, part_weights, form)


@typed_jit(static_argnames="form")
def _loss(
    points: Float[Array, "B V 2"],
    depth: Float[Array, "B V"],
    triangles: Int[Array, "T 3"],
    triangle_labels: UInt8[Array, "T"],
    targets: PixelTargets,
    hidden: Bool[Array, "B H W"],
    fragments: Fragments | None,
    part_weights: Float[Array, "B P"],
    form: _Form,
) -> Float[Array, "B"]:
    points, depth = (array.astype(jnp.promote_types(array.dtype, jnp.float32)) for array in (points, depth))
    if fragments is None:
        fragments = rasterize(points, depth, triangles, image_size=(targets.height, targets.width))
    fragments = jax.lax.stop_gradient(fragments)
    drawn = _draw(fragments, triangle_labels, targets, hidden, form.speck)
    losses, area = _compare(points, triangles, drawn, targets, form)
    missing = targets.present & (area == 0)
    losses += jnp.where(missing, _pull_back(points, triangles, triangle_labels, jax.lax.stop_gradient(targets)), 0.0)
    loss = (part_weights * losses).sum(1)
    finite = jnp.isfinite(points).all((1, 2)) & jnp.isfinite(depth).all(1)
    return jnp.where(finite, loss, jnp.nan)


def _draw(
    fragments: Fragments,
    triangle_labels: UInt8[Array, "T"],
    targets: PixelTargets,
    hidden: Bool[Array, "B H W"],
    speck: int,
) -> Drawn:
    """The drawn faces as the label maps treat theirs."""
    labels = jnp.where(hidden, 0, surface_labels(fragments, triangle_labels))
    left, right = (targets.present[:, PARTS.index(part), None, None] for part in ("left_brow", "right_brow"))
    cut = above_brows(labels) & left & right
    labels = jnp.where(cut, FOREHEAD, labels).astype(jnp.uint8)
    if speck > 0:
        for index, part in enumerate(PARTS):
            mask = labels == LABELS[part]
            few = (mask.sum((1, 2)) < speck) & ~targets.present[:, index]
            labels = jnp.where(mask & few[:, None, None], LABELS["skin"], labels).astype(jnp.uint8)
    depth = jnp.where((fragments.triangle >= 0) & ~hidden, fragments.depth, jnp.inf)
    return Drawn(labels, fragments.triangle, depth, cut, hidden)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _compare(
    points: Float[Array, "B V 2"],
    triangles: Int[Array, "T 3"],
    drawn: Drawn,
    targets: PixelTargets,
    form: _Form,
) -> tuple[Float[Array, "B P"], Float[Array, "B P"]]:
    """The loss of each part that is drawn, and how many pixels it has."""
    return _forward(points, triangles, drawn, targets, form)[0]


_Saved = tuple[Float[Array, "B V 2"], Int[Array, "T 3"], Drawn, PixelSets, Slopes, PixelTargets]


def _forward(
    points: Float[Array, "B V 2"],
    triangles: Int[Array, "T 3"],
    drawn: Drawn,
    targets: PixelTargets,
    form: _Form,
) -> tuple[tuple[Float[Array, "B P"], Float[Array, "B P"]], _Saved]:
    sets = describe(drawn.labels, _grid(targets))
    losses, slopes = _differences(sets, targets, form)
    return (losses, sets.area), (points, triangles, drawn, sets, slopes, targets)


def _backward(
    form: _Form, saved: _Saved, cotangents: tuple[Float[Array, "B P"], Float[Array, "B P"]]
) -> tuple[Float[Array, "B V 2"], None, None, None]:
    points, triangles, drawn, sets, slopes, targets = saved
    slopes = jax.tree.map(lambda slope: slope * cotangents[0].reshape(-1, len(PARTS), *[1] * (slope.ndim - 2)), slopes)
    field = pulls(drawn, sets, slopes, _grid(targets))
    return carry(field, drawn.triangle, jax.lax.stop_gradient(points), triangles), None, None, None


_compare.defvjp(_forward, _backward)


def _grid(targets: PixelTargets) -> AnchorGrid:
    return AnchorGrid(targets.height, targets.width, targets.anchor_stride)


def _differences(sets: PixelSets, targets: PixelTargets, form: _Form) -> tuple[Float[Array, "B P"], Slopes]:
    """The loss of each part and its slopes in what describes the drawn parts."""
    counts = (targets.present & (sets.area > 0)).astype(jnp.float32)
    near = jnp.ones_like(targets.signed)
    if form.near is not None:
        near = 1 / (1 + jnp.square(_outer(targets.signed) / form.near))
        near /= near.mean((2, 3), keepdims=True)
    slopes = Slopes(jnp.zeros_like(sets.signed), None, None)
    losses = jnp.zeros_like(counts)
    for name, share in form.statistics:
        if name in ("signed", "min"):
            ends = (sets.signed, targets.signed)
            difference = jnp.subtract(*(ends if name == "signed" else map(_outer, ends)))
            losses += share * counts * (near * _huber(difference)).mean((2, 3))
            anchors = math.prod(difference.shape[2:])
            slope = share * near * _huber_slope(difference) * (counts / anchors)[..., None, None]
            if name == "min":
                slope = jnp.where(sets.signed > 0, slope, 0.0)
            slopes = dataclasses.replace(slopes, signed=slopes.signed + slope)
        else:
            field = {"max": "greatest", "mean": "mean"}[name]
            difference = getattr(sets, field) - getattr(targets, field)
            losses += share * counts * _huber(difference).mean(2)
            slope = share * _huber_slope(difference) * (counts / difference.shape[2])[..., None]
            slopes = dataclasses.replace(slopes, **{field: slope})
    return losses, slopes


def _outer(signed: Float[Array, "..."]) -> Float[Array, "..."]:
    """The distance to the nearest pixel: zero inside."""
    return jnp.where(signed > 0, signed + 0.5, 0.0)


def _huber(difference: Float[Array, "..."]) -> Float[Array, "..."]:
    """Huber's function with its corner at one pixel, where outlines stop being a matter of rounding."""
    size = jnp.abs(difference)
    return jnp.where(size < 1, jnp.square(difference), 2 * size - 1)


def _huber_slope(difference: Float[Array, "..."]) -> Float[Array, "..."]:
    return 2 * jnp.clip(difference, -1, 1)


def _pull_back(
    points: Float[Array, "B V 2"],
    triangles: Int[Array, "T 3"],
    triangle_labels: UInt8[Array, "T"],
    targets: PixelTargets,
) -> Float[Array, "B P"]:
    """What each part costs if it is missing: the difference in mean distance of its triangles, seen or not."""
    step = max(1, len(triangles) // _FALLBACK_TRIANGLES)
    some = points[:, triangles[::step]].mean(2)
    member = (triangle_labels[::step, None] == jnp.arange(1, 1 + len(PARTS))[None]).astype(points.dtype)
    share = member / jnp.maximum(member.sum(0, keepdims=True), 1.0)
    every = slice(None, None, 4)  # some of the anchors say enough for this
    anchors = mean_anchors(_grid(targets))[every].astype(points.dtype)
    squared = sum(jnp.square(some[:, None, :, axis] - anchors[None, :, axis, None]) for axis in range(2))
    distance = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)
    difference = jnp.einsum("bav,vp->bpa", distance, share, precision="highest") - targets.mean[..., every]
    return jnp.where(member.any(0, keepdims=True), _huber(difference).mean(2), 0.0)


def _check(
    points: Array,
    depth: Array,
    triangles: Any,
    triangle_labels: Any,
    targets: PixelTargets,
    hidden: Any,
    fragments: Fragments | None,
    weights: Mapping[str, Any],
    statistics: Mapping[str, float],
    near: float | None,
) -> None:
    batch = len(targets.present)
    if points.ndim != 3 or points.shape[::2] != (batch, 2) or depth.shape != points.shape[:2]:
        raise ValueError(
            f"expected points [{batch}, V, 2] and depth [{batch}, V], got {list(points.shape)} and {list(depth.shape)}"
        )
    if np.ndim(triangles) != 2 or np.shape(triangles)[1] != 3 or np.shape(triangle_labels) != np.shape(triangles)[:1]:
        shapes = f"{list(np.shape(triangles))} and {list(np.shape(triangle_labels))}"
        raise ValueError(f"expected triangles [T, 3] and triangle_labels [T], got {shapes}")
    pictures = {"hidden": hidden, "fragments": None if fragments is None else fragments.triangle}
    for name, picture in pictures.items():
        if picture is not None and np.shape(picture) != (batch, targets.height, targets.width):
            shape = f"[{batch}, {targets.height}, {targets.width}]"
            raise ValueError(f"expected {name} {shape}, got {list(np.shape(picture))}")
    if unknown := sorted(weights.keys() - set(PARTS)):
        raise ValueError(f"weights name part(s) {unknown}; there are {PARTS}")
    for part, weight in weights.items():
        if np.shape(weight) not in ((), (batch,)):
            raise ValueError(f"{part}: expected one weight or [{batch}], got shape {np.shape(weight)}")
    if not statistics or (unknown := sorted(statistics.keys() - {"signed", "min", "max", "mean"})):
        raise ValueError(f"statistics must name some of signed, min, max and mean, got {dict(statistics)}")
    if near is not None and not near > 0:
        raise ValueError(f"near must be positive, or None to weigh all anchors alike, got {near}")
    for name, array in (("points", points), ("depth", depth)):
        if not isinstance(array, jax.core.Tracer) and not np.isfinite(np.asarray(array)).all():
            raise ValueError(f"{name} must be finite")
