"""Losses that draw a part's silhouette and compare it with the part's mask: SoftRas, DIB-R, and a reading of ReDA.

The renderer-based rivals of PRDL (3DDFA-V3, figures 8 and 9). Their gradient comes from the rims of the drawn parts
alone: where a part and its mask do not touch, it is nearly or wholly nothing.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from jaxface.losses import _part_sets
from jaxface.losses._part_sets import PointMasks, Points, Targets, Weights
from jaxface.render.dibr import FALLOFF, dibr_silhouette
from jaxface.render.soft import soft_silhouette

SOFTRAS_SIGMA = 1e-4
"""SoftRas's sharpness, in squared units of half the image's height."""

DIBR_SIGMA = 1 / FALLOFF
"""DIB-R's, in the same unit: its factor of 7000 in the exponent."""

BINOMIAL = np.array([1, 4, 6, 4, 1], np.float32) / 16
"""Blur before every second pixel is kept: the Gaussian pyramid of Burt and Adelson (1983)."""

Triangles = Mapping[str, Integer[Array | np.ndarray, "T 3"]]
OnePart = Callable[[Float[Array, "B H W"], Float[Array, "B H W"]], Float[Array, "B"]]


def part_triangles(
    parts: Mapping[str, Integer[Array | np.ndarray, "N"]], triangles: Integer[Array | np.ndarray, "T 3"]
) -> dict[str, Int[np.ndarray, "T 3"]]:
    """The triangles of each part, renumbered to the part's own vertices. Once per model, in numpy.

    A part has the triangles whose three corners are among its vertices: corner i of the result is vertex
    parts[part][i] of the mesh, and point i of {part: points[:, parts[part]]}.

    Args:
        parts: vertex indices per part, as `FaceModel.parts`.
        triangles: vertex indices of the whole mesh.
    """
    triangles = np.asarray(triangles)
    result = {}
    for part, vertices in parts.items():
        vertices = np.asarray(vertices)
        number = np.full(1 + max(triangles.max(initial=-1), vertices.max(initial=-1)), -1)
        number[vertices] = np.arange(len(vertices))
        renumbered = number[triangles]
        result[part] = renumbered[(renumbered >= 0).all(1)].astype(np.int32)
    return result


def silhouette_iou_loss(
    points: Points,
    targets: Targets,
    *,
    triangles: Triangles,
    renderer: Literal["softras", "dibr"] = "softras",
    sigma: float | None = None,
    weights: Weights | None = None,
    point_masks: PointMasks | None = None,
) -> Float[Array, "B"]:
    """1 - intersection over union of drawn silhouette s and mask t: 1 - sum(s t) / sum(s + t - s t), summed over parts.

    The silhouette losses of SoftRas (Liu et al. 2019) and DIB-R (Chen et al. 2019). Each part is drawn by itself: what
    hides it is not known. The soft rims of all triangles add up: with the published sharpness, made for coarse meshes,
    an eye of the built-in face model in its true place comes out at twice its size (picture of 112 x 112; SoftRas
    1.9 times, with sigma 1e-5 1.1 times; DIB-R 2.1 times, with 1 / 70000 1.3 times).

    Args:
        points: projected vertices of each part, in pixels, y down.
        targets: for each part its mask, non-zero where a pixel belongs to it.
        triangles: of each part, numbering its points; see `part_triangles`.
        renderer: "softras" or "dibr".
        sigma: sharpness in squared units of half the image's height; by default SoftRas's 1e-4 or DIB-R's 1 / 7000.
        weights: w_p of each part, one number or one per sample; 1 for a part that is not listed. A part of a sample
            weighs nothing where its target is empty or all its points are masked.
        point_masks: which points count: a triangle is drawn if all its corners do. Parts not listed count whole.

    Returns:
        [B] loss, in [0, 1] per part. NaN where a coordinate that counts is not finite.

    Raises:
        ValueError: when parts, names or shapes do not fit together; outside jit also when a coordinate is not finite.
    """
    if renderer not in ("softras", "dibr"):
        raise ValueError(f'renderer must be "softras" or "dibr", not {renderer!r}')

    def one_part(drawn: Float[Array, "B H W"], mask: Float[Array, "B H W"]) -> Float[Array, "B"]:
        both = drawn * mask
        union = (drawn + mask - both).sum((1, 2))
        return 1 - both.sum((1, 2)) / jnp.where(union > 0, union, 1.0)

    return _sum_over_parts(one_part, points, targets, triangles, renderer, sigma, weights, point_masks)


def reda_loss(
    points: Points,
    targets: Targets,
    *,
    triangles: Triangles,
    sigma: float = SOFTRAS_SIGMA,
    levels: int = 5,
    weights: Weights | None = None,
    point_masks: PointMasks | None = None,
) -> Float[Array, "B"]:
    """Soft silhouettes against masks over a pyramid of blurred pictures: OUR READING of ReDA, not its authors' loss.

    ReDA (Zhu et al. 2020, "ReDA: Reinforced Differentiable Attribute for 3D Face Reconstruction") draws attributes of
    the face, its parts among them, softly, and compares them after convolutions with kernels of several sizes. Neither
    code nor all of its formulas were published. Read here: the attribute is membership in a part; each part is drawn
    by itself as SoftRas does; level k of the pyramid is blurred with the binomial kernel (1, 4, 6, 4, 1) / 16 and
    halved k times; a level costs the squared difference over the mask's own square, sum (s - t)^2 / sum t^2, so that
    levels and parts weigh alike; and the levels are averaged. ReDA's depth and colours, its order in depth and its
    free-form deformation are left out.

    Args:
        points: projected vertices of each part, in pixels, y down.
        targets: for each part its mask, non-zero where a pixel belongs to it.
        triangles: of each part, numbering its points; see `part_triangles`.
        sigma: sharpness of the silhouettes, in squared units of half the image's height.
        levels: of the pyramid, the picture itself included.
        weights: as in `silhouette_iou_loss`.
        point_masks: as in `silhouette_iou_loss`.

    Returns:
        [B] loss, 1 per part that draws nothing. NaN where a coordinate that counts is not finite.

    Raises:
        ValueError: as in `silhouette_iou_loss`; and when there is no level.
    """
    if levels < 1:
        raise ValueError(f"levels must be positive, not {levels}")

    def one_part(drawn: Float[Array, "B H W"], mask: Float[Array, "B H W"]) -> Float[Array, "B"]:
        costs = []
        for level in range(levels):
            if level:
                drawn, mask = _halved(drawn), _halved(mask)
            square = jnp.square(mask).sum((1, 2))
            costs.append(jnp.square(drawn - mask).sum((1, 2)) / jnp.where(square > 0, square, 1.0))
        return jnp.stack(costs).mean(0)

    return _sum_over_parts(one_part, points, targets, triangles, "softras", sigma, weights, point_masks)


def _halved(images: Float[Array, "B H W"]) -> Float[Array, "B h w"]:
    """Blurred, with nothing around the picture, and every second row and column kept."""
    for axis in (1, 2):
        size = images.shape[axis]
        padded = jnp.pad(images, [(0, 0) if i != axis else (2, 2) for i in range(3)])
        taps = [jnp.take(padded, np.arange(i, i + size, 2), axis=axis) for i in range(5)]
        images = sum((weight * tap for weight, tap in zip(BINOMIAL, taps, strict=True)), start=jnp.zeros_like(taps[0]))
    return images


def _sum_over_parts(
    one_part: OnePart,
    points: Points,
    targets: Targets,
    triangles: Triangles,
    renderer: Literal["softras", "dibr"],
    sigma: float | None,
    weights: Weights | None,
    point_masks: PointMasks | None,
) -> Float[Array, "B"]:
    weights, point_masks = weights or {}, point_masks or {}
    _part_sets.check_parts(points, targets, weights, point_masks)
    _check_triangles(points, triangles)
    losses, finite, present = {}, {}, {}
    for part, array in points.items():
        members, shares = _part_sets.members(array, point_masks.get(part))
        mask = jnp.asarray(targets[part]).astype(bool)
        # The renderers leave out triangles with a corner that is not finite.
        corners = members if part not in point_masks else jnp.where(shares[..., None] > 0, members, jnp.nan)
        size = (mask.shape[1], mask.shape[2])
        if renderer == "softras":
            drawn = soft_silhouette(corners, triangles[part], image_size=size, sigma=sigma or SOFTRAS_SIGMA)
        else:
            drawn = dibr_silhouette(corners, triangles[part], image_size=size, sigma=sigma or DIBR_SIGMA)
        losses[part] = one_part(drawn, mask.astype(drawn.dtype))
        finite[part] = jnp.isfinite(members).all((1, 2))
        present[part] = (shares > 0).any(1) & mask.any((1, 2))
    return _part_sets.weighted_total(losses, finite, present, weights)


def _check_triangles(points: Points, triangles: Triangles) -> None:
    if missing := [part for part in points if part not in triangles]:
        raise ValueError(f"no triangles for the part(s) {missing}; triangles has {list(triangles)}")
    for part in points:
        shape, count = np.shape(triangles[part]), np.shape(points[part])[1]
        if len(shape) != 2 or shape[1] != 3:
            raise ValueError(f"{part}: expected triangles [T, 3], got {shape}")
        known = isinstance(triangles[part], np.ndarray)
        if known and shape[0] and not 0 <= np.min(triangles[part]) <= np.max(triangles[part]) < count:
            raise ValueError(f"{part}: a triangle names a corner outside the part's {count} points")
