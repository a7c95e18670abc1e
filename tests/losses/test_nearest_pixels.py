"""The nearest pixels of label maps against all pairs, in both ways."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxface.losses import _nearest_pixels
from jaxface.losses._nearest_pixels import AnchorGrid


def random_labels(random, height, width):
    """Blobs of labels, some of them absent."""
    coarse = random.choice(10, p=[0.3, *[0.06] * 8, 0.22], size=(-(-height // 4), -(-width // 4)))
    labels = np.kron(coarse, np.ones((4, 4), int))[:height, :width].astype(np.uint8)
    speckled = random.uniform(size=labels.shape) < 0.05
    return np.where(speckled, random.integers(0, 10, labels.shape), labels).astype(np.uint8)


class TestNearestPixels:
    @pytest.mark.parametrize(("height", "width", "stride"), [(20, 27, 3), (9, 5, 1), (7, 30, 8), (3, 3, 10), (1, 1, 1)])
    def test_against_all_pairs(self, height, width, stride):
        grid = AnchorGrid(height, width, stride)
        labels = random_labels(np.random.default_rng(stride), height, width)[None]
        ways = (_nearest_pixels._part_columns, _nearest_pixels._part_columns_by_scan)
        np.testing.assert_array_equal(*(way(jnp.asarray(labels), grid=grid) for way in ways))
        anchors = [(r, c) for r in grid.rows for c in grid.columns]
        nearest = _nearest_pixels.nearest_of_parts(jnp.asarray(labels), grid)
        other = _nearest_pixels.nearest_of_others(jnp.asarray(labels), grid)
        shape = len(grid.rows), len(grid.columns)
        for index, found in [*((p, nearest) for p in range(8)), (0, other)]:
            squared, row, column = (np.asarray(a)[0, index] for a in (found.squared, found.row, found.column))
            for k, (r, c) in enumerate(anchors):
                at = np.unravel_index(k, shape)
                matching = labels[0] == index + 1 if found is nearest else labels[0] != labels[0, r, c]
                candidates = np.argwhere(matching)
                if not len(candidates):
                    assert squared[at] >= _nearest_pixels.far(grid)
                    continue
                distances = ((candidates - (r, c)) ** 2).sum(1)
                assert squared[at] == distances.min()
                assert matching[row[at], column[at]]
                assert (row[at] - r) ** 2 + (column[at] - c) ** 2 == squared[at]

    def test_both_ways_over_the_rows_and_large_pictures(self):
        grid = AnchorGrid(21, 33, 2)
        labels = jnp.asarray(random_labels(np.random.default_rng(0), 21, 33)[None])
        across = jnp.square(_nearest_pixels._part_columns(labels, grid=grid) - grid.columns[None, None, None])
        across = jnp.minimum(across, _nearest_pixels.far(grid))
        own = labels[..., grid.columns]
        for mine in (None, own):
            columns = across if mine is None else across[:, :1]
            ways = (_nearest_pixels._packed, _nearest_pixels._packed_by_scan)
            np.testing.assert_array_equal(*(way(columns, mine, grid=grid, bits=5) for way in ways))
            ways = (_nearest_pixels._least, _nearest_pixels._least_by_scan)
            np.testing.assert_array_equal(*(way(columns, mine, grid=grid) for way in ways))
        # So high a picture that distance and row do not fit into one integer.
        tall = AnchorGrid(2400, 9, 600)
        labels = np.zeros((1, 2400, 9), np.uint8)
        labels[0, 7, 2] = labels[0, 2000, 5] = 3
        found = _nearest_pixels.nearest_of_parts(jnp.asarray(labels), tall)
        np.testing.assert_array_equal(found.row[0, 2, :, 0], [7, 7, 2000, 2000])
        np.testing.assert_array_equal(found.column[0, 2, :, 0], [2, 2, 5, 5])

    def test_large_pictures_take_no_more_memory_than_their_anchors(self):
        grid = AnchorGrid(1024, 1024, 3)
        labels = jax.ShapeDtypeStruct((1, 1024, 1024), np.uint8)
        search = jax.jit(lambda labels: _nearest_pixels.nearest_of_parts(labels, grid))
        anchors, kept = 4 * 8 * len(grid.rows) * len(grid.columns), 10
        assert search.lower(labels).compile().memory_analysis().temp_size_in_bytes < kept * anchors
