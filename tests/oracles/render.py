"""Slow and plain numpy versions in float64, written from the definitions."""

import numpy as np


def rasterize_slowly(points, depth, triangles, image_size):
    """Every pixel against every triangle.

    Returns triangle [H, W], barycentric [H, W, 3], depth [H, W] and `tie` [H, W]: pixels that float32 may rightly see
    differently, because the centre lies within 1e-5 (barycentric) of an edge of a triangle that is not hidden, because
    two triangles there are within 1e-6 (relative) of the same depth, or because one is so thin that rounding in its
    edge functions moves its barycentrics by more than 2e-5.
    """
    points, depth = np.asarray(points, np.float64), np.asarray(depth, np.float64)
    height, width = image_size
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    nearest = np.full(image_size, np.inf)
    triangle = np.full(image_size, -1)
    barycentric = np.zeros((*image_size, 3))
    drawn = []
    for index, corners in enumerate(np.asarray(triangles)):
        (ax, ay), (bx, by), (cx, cy) = points[corners]
        za, zb, zc = depth[corners]
        with np.errstate(invalid="ignore"):
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if not np.isfinite([area, za, zb, zc]).all() or area == 0 or min(za, zb, zc) <= 0:
            continue
        a = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area
        b = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area
        c = 1 - a - b
        with np.errstate(divide="ignore"):
            z = 1 / (a / za + b / zb + c / zc)
        inside = (a >= 0) & (b >= 0) & (c >= 0)
        extent = np.abs(points[corners][:, None, None] - np.stack([x, y], -1)).max((0, -1))
        rounding = 4 * np.finfo(np.float32).eps * extent**2 / abs(area)
        thin = rounding > 2e-5
        nearest_possible = np.where(thin, min(za, zb, zc), np.where(z > 0, z, np.inf))
        drawn.append((np.minimum(np.minimum(a, b), c), nearest_possible, rounding, thin))
        better = inside & (z < nearest)
        nearest[better], triangle[better] = z[better], index
        barycentric[better] = (np.stack([a / za, b / zb, c / zc], -1) * z[..., None])[better]
    tie = np.zeros(image_size, bool)
    close = np.zeros(image_size, int)
    for margin, z, rounding, thin in drawn:
        in_front = z <= nearest * (1 + 1e-6)
        tie |= in_front & ((np.abs(margin) < 1e-5 + rounding) | (thin & (margin >= 0)))
        close += (margin >= 0) & in_front
    return triangle, barycentric, np.where(triangle >= 0, nearest, 0), tie | (close > 1)


def soft_silhouette_slowly(points, triangles, image_size, sigma):
    """SoftRas, equations 1 and 4, over every pixel and every triangle that has an area."""
    points = np.asarray(points, np.float64) * 2 / image_size[0]
    height, width = image_size
    grid = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    pixels = np.stack(grid, -1) * 2 / image_size[0]
    remaining = np.ones(image_size)
    for corners in np.asarray(triangles):
        triangle = points[corners]
        if not np.isfinite(triangle).all() or np.linalg.det(triangle[1:] - triangle[0]) == 0:
            continue
        distances, sides = [], []
        for start, end in ((0, 1), (1, 2), (2, 0)):
            edge, offset = triangle[end] - triangle[start], pixels - triangle[start]
            along = np.clip(offset @ edge / (edge @ edge), 0, 1)
            distances.append(np.sum((offset - along[..., None] * edge) ** 2, -1))
            sides.append(edge[0] * offset[..., 1] - edge[1] * offset[..., 0])
        sides = np.stack(sides)
        sign = np.where((sides > 0).all(0) | (sides < 0).all(0), 1, -1)
        exponent = np.clip(sign * np.min(distances, 0) / sigma, -500, 500)
        remaining *= 1 - 1 / (1 + np.exp(-exponent))
    return 1 - remaining
