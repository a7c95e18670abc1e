"""Triangles with holes, slowly: every pixel against every triangle, in float64, from the definition."""

import numpy as np


def cutouts_slowly(points, depth, uv, alpha, image_size, threshold=0.5, behind=None):
    """One picture of triangles [T, 3, 2], [T, 3], [T, 3, 2].

    Returns triangle [H, W], barycentric [H, W, 3], depth [H, W] and `doubt` [H, W]: pixels that float32 may rightly see
    differently, because of a triangle that is not hidden the centre lies within 1e-4 (barycentric) of an edge, or the
    texture coordinate within 1e-3 texels of another texel with a different answer; or because two triangles, or one and
    what is behind, are within 1e-4 (relative) of the same depth.
    """
    height, width = image_size
    rows, columns = alpha.shape
    threshold = np.broadcast_to(threshold, image_size)
    behind = np.full(image_size, np.inf) if behind is None else np.where(behind > 0, behind, np.inf)
    triangle, barycentric = np.full(image_size, -1), np.zeros((*image_size, 3))
    seen, doubt = np.zeros(image_size), np.zeros(image_size, bool)
    for row in range(height):
        for column in range(width):
            nearest, limit = np.inf, behind[row, column]
            found = []
            for index in range(len(points)):
                if not (np.isfinite(points[index]).all() and np.isfinite(uv[index]).all()):
                    continue
                if not (np.isfinite(depth[index]).all() and (depth[index] > 0).all()):
                    continue
                shares = _shares(points[index].astype(float), (column + 0.5, row + 0.5))
                if shares is None or shares.min() < -1e-4:
                    continue
                in_space = shares / depth[index]
                z = 1 / in_space.sum()
                weights = in_space * z
                u, v = weights @ uv[index]
                passes = [
                    alpha[
                        int(np.clip(np.floor((1 - v) * rows + down), 0, rows - 1)),
                        int(np.clip(np.floor(u * columns + right), 0, columns - 1)),
                    ]
                    > 255 * threshold[row, column]
                    for right, down in ((0, 0), (-1e-3, -1e-3), (1e-3, -1e-3), (-1e-3, 1e-3), (1e-3, 1e-3))
                ]
                sure = all(passes) == any(passes) and shares.min() > 1e-4 and abs(z - limit) > 1e-4 * z
                if passes[0] and shares.min() >= 0 and z < nearest and z <= limit:
                    nearest, triangle[row, column], barycentric[row, column] = z, index, weights
                if any(passes) and z <= limit * (1 + 1e-4):
                    found.append((z, sure))
            seen[row, column] = nearest if nearest < np.inf else 0
            in_front = [(z, sure) for z, sure in found if z <= nearest * (1 + 1e-4)]
            doubt[row, column] = len(in_front) > 1 or not all(sure for _, sure in in_front)
    return triangle, barycentric, seen, doubt


def _shares(corners, centre):
    """Barycentric coordinates of a point in the image; None for a triangle without an area."""
    (ax, ay), (bx, by), (cx, cy) = corners - centre
    parts = np.array([bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx])
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    return None if area == 0 else parts / area
