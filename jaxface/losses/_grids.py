"""What a fine, regular grid of anchors makes cheaper: f_ave by convolution, f_max from the outermost points alone.

Time grows like A log A + N instead of A x N. Both are approximations far below a hundredth of a pixel:

f_ave is a convolution of the points with |r|. The points are spread onto the grid and convolved by FFT, for which |r|
must be smooth: within RADIUS steps it is replaced by the start of its Taylor series in r^2, and the difference, which
is zero from RADIUS on, is added for the anchors around each point one by one (the idea of Ewald's summation). Points so
far outside the grid that the convolution would not reach them are so far from every anchor that a few Chebyshev nodes
describe their distance.

f_max is reached at a vertex of the points' convex hull, so the points that are outermost in one of many directions do.
"""

import dataclasses
import functools
import math
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from jaxface.core.platforms import by_platform
from jaxface.losses import _reductions
from jaxface.losses._distances import mean_distance

Values = TypeVar("Values", Array, np.ndarray)

RADIUS = 4
"""Grid steps within which the distance to a point is not left to the convolution."""

NODES = np.arange(-2, 4)
"""Grid points, relative to the one before a point, onto which the point is spread: Lagrange's quintic."""

CHEBYSHEV_NODES = 16
"""Per axis. Points beyond the margin, an eighth of the grid, are then described to 2e-5 of the grid's size."""

DIRECTIONS = 256
MORE = 64
"""Candidates for f_max: the outermost point in each of DIRECTIONS, and the next ones in between. Where that is not the
whole convex hull, f_max is low by a factor of cos(pi / 256) = 1 - 7.5e-5 at most."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """Anchors (x + spacing * column, y + spacing * row), listed row by row.

    Attributes:
        x: of the first anchor, in pixels.
        y: of the first anchor, in pixels.
        spacing: between neighbours, in pixels.
        height: number of rows.
        width: number of columns.
    """

    x: float
    y: float
    spacing: float
    height: int
    width: int


def find_grid(anchors: Shaped[Array | np.ndarray, "A D"]) -> Grid | None:
    """The grid that the anchors form, or None if they form none, or if they are not known when a function is traced."""
    if isinstance(anchors, jax.core.Tracer) or np.shape(anchors)[1] != 2 or len(anchors) < 4:
        return None
    values = np.asarray(anchors, np.float64)
    width = int(np.argmax(values[:, 1] != values[0, 1]))
    if width < 2 or len(values) % width:
        return None
    height, (x, y), spacing = len(values) // width, values[0], values[1, 0] - values[0, 0]
    column, row = np.tile(np.arange(width), height), np.repeat(np.arange(height), width)
    regular = np.stack([x + spacing * column, y + spacing * row], axis=-1)
    if spacing <= 0 or not np.allclose(values, regular, rtol=0, atol=1e-5 * spacing):
        return None
    return Grid(float(x), float(y), float(spacing), height, width)


@functools.partial(jax.checkpoint, static_argnums=2)
def grid_mean_distance(points: Float[Array, "N 2"], weights: Float[Array, "N"], grid: Grid) -> Float[Array, "A"]:
    """Weighted sum of the distances from each anchor of the grid to all points. Differentiable in the points.

    The gradient computes the 100 numbers around each point again: PRDL of a whole face takes 41 MB so, where keeping
    them takes 60, and about the same time (224 x 224 anchors, on CPU).
    """
    steps = (points - jnp.array([[grid.x, grid.y]], points.dtype)) / grid.spacing
    low, high = -_margin(grid), np.array([[grid.width, grid.height]]) - 1 + _margin(grid)
    within = jnp.all((steps >= low) & (steps < high), axis=-1)
    # Points outside may be anywhere; their place is taken by one of weight 0.
    inner = jnp.where(within[:, None], steps, 0.0)
    first = jax.lax.stop_gradient(jnp.floor(inner)).astype(jnp.int32)
    inner_weights = jnp.where(within, weights, 0.0)
    total = _convolved(inner, first, inner_weights, grid) + _near(inner, first, inner_weights, grid)
    total += _far(jnp.where(within[:, None], 0.0, steps), jnp.where(within, 0.0, weights), grid)
    return grid.spacing * total.reshape(-1)


def _margin(grid: Grid) -> int:
    """Steps around the grid within which points are convolved."""
    return math.ceil(max(grid.height, grid.width) / 8) + 1


def _smooth_distance(squared: Values) -> Values:
    """|r| of r^2, but within RADIUS a polynomial in r^2 that joins |r| with three continuous derivatives.

    It is sqrt(t) about t = 1, up to the third power, for t = (r / RADIUS)^2.
    """
    t = squared / RADIUS**2 - 1.0
    return RADIUS * (1 + t * (1 / 2 + t * (-1 / 8 + t * (1 / 16))))


def _convolved(
    steps: Float[Array, "N 2"], first: Int[Array, "N 2"], weights: Float[Array, "N"], grid: Grid
) -> Float[Array, "H W"]:
    """Points spread onto the grid and its margin, convolved with the smooth distance, cropped to the anchors."""
    margin = _margin(grid) - NODES[0]
    reach = (2 * (grid.height + margin) + int(NODES[-1]), 2 * (grid.width + margin) + int(NODES[-1]))
    size = periodic_size(reach)
    x, y = (_lagrange(steps[:, axis] - first[:, axis]) for axis in range(2))
    spread = weights[:, None, None] * y[:, :, None] * x[:, None, :]
    columns, rows = (first[:, axis, None] + NODES[None] + margin for axis in range(2))
    index = rows[:, :, None] * size[1] + columns[:, None, :]
    splat = jnp.zeros(size[0] * size[1], steps.dtype).at[index].add(spread).reshape(size)
    return convolve_with_distance(splat, reach, RADIUS)[margin : margin + grid.height, margin : margin + grid.width]


def _lagrange(fraction: Float[Array, "N"]) -> Float[Array, "N 6"]:
    """Weights of NODES that interpolate any quintic at `fraction` of the way from node 0 to node 1."""
    weights = []
    for node in NODES:
        others = [other for other in NODES if other != node]
        weights.append(math.prod((fraction - other) / float(node - other) for other in others))
    return jnp.stack(weights, axis=-1)


def _near(
    steps: Float[Array, "N 2"], first: Int[Array, "N 2"], weights: Float[Array, "N"], grid: Grid
) -> Float[Array, "H W"]:
    """What the smooth distance lacks, for the anchors around each point."""
    window = np.arange(1 - RADIUS, RADIUS + 1)
    columns, rows = (first[:, axis, None] + window[None] for axis in range(2))
    across, down = (jnp.square(steps[:, axis, None] - index) for axis, index in enumerate((columns, rows)))
    squared = down[:, :, None] + across[:, None, :]
    distance = jnp.where(squared == 0, 0.0, jnp.sqrt(jnp.where(squared == 0, 1.0, squared)))
    lacking = jnp.where(squared < RADIUS**2, distance - _smooth_distance(squared), 0.0)
    inside = ((rows >= 0) & (rows < grid.height))[:, :, None] & ((columns >= 0) & (columns < grid.width))[:, None, :]
    index = jnp.where(inside, rows[:, :, None] * grid.width + columns[:, None, :], grid.height * grid.width)
    total = jnp.zeros(grid.height * grid.width, steps.dtype)
    return total.at[index].add(weights[:, None, None] * lacking, mode="drop").reshape(grid.height, grid.width)


def _far(steps: Float[Array, "N 2"], weights: Float[Array, "N"], grid: Grid) -> Float[Array, "H W"]:
    """Distances to the points outside, by interpolation between Chebyshev nodes of the grid's rectangle."""
    (rows, down), (columns, across) = (_chebyshev(n) for n in (grid.height, grid.width))
    nodes = np.stack([np.tile(columns, len(rows)), np.repeat(rows, len(columns))], axis=-1)
    values = mean_distance(steps, weights, jnp.asarray(nodes, steps.dtype)).reshape(len(rows), len(columns))
    matrices = (jnp.asarray(matrix, steps.dtype) for matrix in (down, across))
    return jnp.einsum("hr,rc,wc->hw", next(matrices), values, next(matrices), precision=jax.lax.Precision.HIGHEST)


@functools.lru_cache(maxsize=16)
def _chebyshev(n: int) -> tuple[Float[np.ndarray, "M"], Float[np.ndarray, "n M"]]:
    """Chebyshev nodes in [0, n - 1], and the matrix that interpolates from them to 0, 1, ..., n - 1."""
    unit = np.cos(np.pi * (np.arange(CHEBYSHEV_NODES) + 0.5) / CHEBYSHEV_NODES)
    nodes = (n - 1) * (unit + 1) / 2
    degrees = np.arange(CHEBYSHEV_NODES)
    at_nodes = np.cos(degrees * np.arccos(unit)[:, None])
    at_anchors = np.cos(degrees * np.arccos(np.linspace(-1, 1, n))[:, None])
    return nodes, at_anchors @ np.linalg.inv(at_nodes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def convolve_with_distance(image: Float[Array, "L M"], reach: tuple[int, int], radius: float) -> Float[Array, "L M"]:
    """Periodic convolution with the distance; `image` has the size of `distance_spectrum(*reach, radius)`."""
    kernel = jnp.asarray(distance_spectrum(*reach, radius), image.dtype)
    return jnp.fft.irfft2(jnp.fft.rfft2(image) * kernel, s=image.shape)


def _convolve_forward(
    image: Float[Array, "L M"], reach: tuple[int, int], radius: float
) -> tuple[Float[Array, "L M"], None]:
    return convolve_with_distance(image, reach, radius), None


def _convolve_backward(
    reach: tuple[int, int], radius: float, _: None, cotangent: Float[Array, "L M"]
) -> tuple[Float[Array, "L M"]]:
    # The distance is even. (JAX's own transpose of the real FFT takes three times as long.)
    return (convolve_with_distance(cotangent, reach, radius),)


convolve_with_distance.defvjp(_convolve_forward, _convolve_backward)


def periodic_size(reach: tuple[int, int]) -> tuple[int, int]:
    """The least size of picture, at least `reach`, for which the FFT is fast."""
    return _fast_size(reach[0]), _fast_size(reach[1])


@functools.lru_cache(maxsize=16)
def distance_spectrum(height: int, width: int, radius: float) -> Float[np.ndarray, "L K"]:
    """Fourier transform of the distance over a periodic picture of at least this size; real, as distance is even.

    Args:
        height: of the region that the points lie in, plus that of the region in which the result is wanted.
        width: likewise.
        radius: within it the distance is made smooth; 0 leaves it as it is.
    """
    lags = [np.minimum(np.arange(n), n - np.arange(n)) ** 2.0 for n in periodic_size((height, width))]
    squared = lags[0][:, None] + lags[1][None]
    smooth = _smooth_distance(squared)
    return np.fft.rfft2(np.where(squared < radius**2, smooth, np.sqrt(squared))).real


def _fast_size(n: int) -> int:
    """The next even number with small prime factors only, for which the FFT is fast."""
    n += n % 2
    rest = n
    for prime in (2, 3, 5, 7):
        while rest % prime == 0:
            rest //= prime
    return n if rest == 1 else _fast_size(n + 2)


def outermost(points: Float[Array, "N 2"]) -> Float[Array, "K 2"]:
    """The points that can be furthest from anywhere: vertices of the convex hull, K = DIRECTIONS + MORE.

    First those that are outermost in one of DIRECTIONS, then those that lie furthest outside the polygon that they
    make: vertices of the hull in between, all of them if there are no more than MORE.
    """
    held = jax.lax.stop_gradient(points)
    angles = 2 * np.pi / DIRECTIONS * np.arange(DIRECTIONS)
    directions = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)]), points.dtype)
    found = by_platform(_outermost_in_blocks, _reductions.outermost, held, directions)
    corners = held[found]
    edges = jnp.roll(corners, -1, axis=0) - corners
    length = jnp.linalg.norm(edges, axis=-1, keepdims=True)
    edges = jnp.where(length > 0, edges / jnp.where(length > 0, length, 1.0), 0.0)
    outside = by_platform(_overhang_in_blocks, _reductions.overhang, held, corners, edges)
    more = jax.lax.top_k(outside, MORE)[1].astype(jnp.int32)
    return points[jnp.concatenate([found, more])]


def _outermost_in_blocks(points: Float[Array, "N 2"], directions: Float[Array, "2 M"]) -> Int[Array, "M"]:
    """See `_reductions.outermost`."""
    numbers = jnp.arange(len(points), dtype=jnp.int32)[:, None]
    x, y = points[:, :1], points[:, 1:]

    def search(directions: Float[Array, "2 block"]) -> Int[Array, "block"]:
        scores = x * directions[:1] + y * directions[1:]
        # Reductions over the first axis are vectorised, unlike argmax (measured on CPU).
        return jnp.min(jnp.where(scores == scores.max(0, keepdims=True), numbers, len(points) - 1), axis=0)

    found: Int[Array, "blocks block"] = jax.lax.map(search, _in_blocks(*directions))
    return found.reshape(-1)


def _overhang_in_blocks(
    points: Float[Array, "N 2"], corners: Float[Array, "M 2"], edges: Float[Array, "M 2"]
) -> Float[Array, "N"]:
    """See `_reductions.overhang`."""
    x, y = points[:, :1], points[:, 1:]

    def visit(furthest: Float[Array, "N"], edges: Float[Array, "4 block"]) -> tuple[Float[Array, "N"], None]:
        start_x, start_y, along_x, along_y = edges[:, None]
        return jnp.maximum(furthest, ((x - start_x) * along_y - (y - start_y) * along_x).max(1)), None

    return jax.lax.scan(visit, jnp.zeros_like(x[:, 0]), _in_blocks(*corners.T, *edges.T))[0]


def _in_blocks(*arrays: Float[Array, "M"]) -> Float[Array, "blocks _ block"]:
    """A few directions at a time bound the memory."""
    return jnp.stack([array.reshape(-1, 16) for array in arrays], axis=1)
