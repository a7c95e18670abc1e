"""OpenCV 3.4's perspective warp of bytes, as MediaPipe 0.10.14 asks for it, step by step in the same order of rounding.

The square's corners are rounded to float32, the map from them solved for by elimination and inverted, places counted
from blocks of 64 columns: all of which decides how a place halfway between two steps of 1/32 pixel is rounded.
"""

import math

import numpy as np


def opencv_square(picture, square, size, *, repeat_border):
    """What `warping.cut_square` gives, but for places that it rounds the other way."""
    inverse = _inverse(_map_of_corners(_corners(square), [(0, size), (0, 0), (size, 0), (size, size)]))
    j, i = np.meshgrid(np.arange(size), np.arange(size))
    block = j // 64 * 64
    x, y, depth = (row[0] * block + row[1] * i + row[2] for row in inverse)
    depth = 32 / (depth + inverse[2, 0] * (j - block))
    x = np.rint((x + inverse[0, 0] * (j - block)) * depth).astype(int)
    y = np.rint((y + inverse[1, 0] * (j - block)) * depth).astype(int)
    if not repeat_border:
        picture = np.pad(picture, ((1, 1), (1, 1), (0, 0)))
        x, y = x + 32, y + 32
    total = np.zeros((size, size, 3), int)
    for down, across in ((0, 0), (0, 1), (1, 0), (1, 1)):
        row, column = y // 32 + down, x // 32 + across
        weight = (y % 32 if down else 32 - y % 32) * (x % 32 if across else 32 - x % 32)
        colors = picture[np.clip(row, 0, len(picture) - 1), np.clip(column, 0, picture.shape[1] - 1)]
        total += weight[..., None] * colors
    return ((total + 512) >> 10).astype(np.uint8)


def _corners(square):
    """Lower left, upper left, upper right, lower right, in float32 like cv::RotatedRect::points."""
    single = np.float32
    angle = float(single(math.degrees(square.angle))) * math.pi / 180
    half_cos, half_sin = single(math.cos(angle)) * single(0.5), single(math.sin(angle)) * single(0.5)
    side, x, y = single(square.side), single(square.center[0]), single(square.center[1])
    lower = (x - half_sin * side - half_cos * side, y + half_cos * side - half_sin * side)
    upper = (x + half_sin * side - half_cos * side, y - half_cos * side - half_sin * side)
    opposite = [(single(2) * x - corner[0], single(2) * y - corner[1]) for corner in (lower, upper)]
    return np.array([lower, upper, *opposite], np.float64)


def _map_of_corners(source, target):
    """The 3 x 3 map of four points to four others, by Gauss's elimination with row pivots."""
    matrix, right = np.zeros((8, 8)), np.zeros(8)
    for k, ((x, y), (u, v)) in enumerate(zip(source, target, strict=True)):
        matrix[k] = x, y, 1, 0, 0, 0, -x * u, -y * u
        matrix[k + 4] = 0, 0, 0, x, y, 1, -x * v, -y * v
        right[k], right[k + 4] = u, v
    for k in range(8):
        pivot = k + int(np.abs(matrix[k:, k]).argmax())
        matrix[[k, pivot]], right[[k, pivot]] = matrix[[pivot, k]], right[[pivot, k]]
        factor = -1 / matrix[k, k]
        for row in range(k + 1, 8):
            share = matrix[row, k] * factor
            matrix[row, k + 1 :] += share * matrix[k, k + 1 :]
            right[row] += share * right[k]
    for k in range(7, -1, -1):
        for column in range(k + 1, 8):
            right[k] -= matrix[k, column] * right[column]
        right[k] /= matrix[k, k]
    return np.array([*right, 1.0]).reshape(3, 3)


def _inverse(m):
    """By cofactors."""
    cofactors = np.array(
        [
            [m[(i + 1) % 3, (j + 1) % 3] * m[(i + 2) % 3, (j + 2) % 3]
             - m[(i + 1) % 3, (j + 2) % 3] * m[(i + 2) % 3, (j + 1) % 3] for j in range(3)]
            for i in range(3)
        ]
    )  # fmt: skip
    determinant = (m[0] * cofactors[0]).sum()
    return cofactors.T * (1 / determinant)
