"""REALY's protocol on pairs whose answer is known."""

import numpy as np
import pytest

from jaxface.core.errors import InputError
from jaxface.training.region_errors import REGIONS, bend, realy_errors
from jaxface.training.scan_errors import Similarity, Surface
from toys.heads import toy_head

UNIT = 9.0
"""Millimetres in a unit of the benchmark's scans, about."""


@pytest.fixture(scope="module")
def head():
    vertices, triangles, landmarks = toy_head(side=33)
    return vertices / UNIT, triangles, landmarks


def part_of(vertices, triangles, keep):
    index = np.full(len(vertices), -1)
    index[keep] = np.arange(keep.sum())
    return vertices[keep], index[triangles[keep[triangles].all(1)]]


@pytest.fixture(scope="module")
def regions(head):
    """Each holds its keypoints, as the benchmark's do."""
    vertices, triangles, _ = head
    x, y, _ = UNIT * vertices.T
    inside = {
        "nose": (np.abs(x) < 25) & (y < 35) & (y > -25),
        "mouth": (np.abs(x) < 40) & (y < -20) & (y > -65),
        "forehead": y > 15,
        "cheek": (y < 40) & (y > -79),
    }
    return {name: part_of(vertices, triangles, keep) for name, keep in inside.items()}


@pytest.mark.parametrize("scale", [1.0, 250.0])
def test_a_head_against_itself_moved_is_no_error(head, regions, scale):
    vertices, triangles, landmarks = head
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    moved = Similarity(scale, turn, np.array([5.0, -7, 100])).apply(vertices)
    errors = realy_errors(regions, vertices[landmarks], Surface(moved, triangles), moved[landmarks], mm_per_unit=UNIT)
    assert list(errors) == [*REGIONS, "all"]
    np.testing.assert_allclose(list(errors.values()), 0, atol=1e-5)


def test_what_is_wrong_is_found_where_it_is_and_in_millimetres(head, regions):
    """A nose twice as long: the regions without it still fit, since each is aligned by itself."""
    vertices, triangles, landmarks = head
    wrong = vertices.copy()
    x, y, _ = UNIT * vertices.T
    wrong[:, 2] += 8 / UNIT * np.exp(-((x / 12) ** 2) - ((y + 3) / 12) ** 2) * (y > -14)  # above the seven keypoints
    measured = [
        realy_errors(regions, vertices[landmarks], Surface(wrong, triangles), wrong[landmarks], mm_per_unit=unit)
        for unit in (UNIT, 2 * UNIT)
    ]
    assert 0.5 < measured[0]["nose"] < 3
    assert measured[0]["mouth"] < 0.02 and measured[0]["forehead"] < 0.2 * measured[0]["nose"]
    assert measured[0]["all"] == pytest.approx(np.mean([measured[0][name] for name in REGIONS]))
    np.testing.assert_allclose(list(measured[1].values()), 2 * np.array(list(measured[0].values())))


def test_what_corresponds_counts_and_not_the_surface_alone(head, regions):
    """The same surface, but on it the mesh's lips lie a vertex (5 mm) further down: its mouth is in the wrong place."""
    vertices, triangles, landmarks = head
    surface, lips = Surface(vertices, triangles), np.array(landmarks)
    lips[[*range(49, 54), *range(55, 61)]] += 33
    errors = realy_errors(regions, vertices[landmarks], surface, vertices[lips], mm_per_unit=UNIT)
    assert errors["mouth"] > 0.1 and errors["nose"] < 1e-3


def test_a_sheet_is_bent_onto_points():
    vertices, triangles, _ = toy_head(side=17)
    vertices = vertices / UNIT
    np.testing.assert_allclose(bend(vertices, triangles, vertices), vertices, atol=1e-6)
    targets = vertices + np.array([0, 0, 0.4]) * np.sin(vertices[:, :1] / 3)
    bent = bend(vertices, triangles, targets)
    assert np.abs(bent - targets).mean() < 0.5 * np.abs(vertices - targets).mean()
    held = [20, 150, 200, 250]
    pulled = bend(vertices, triangles, vertices + [0, 0, 0.3], pairs=(vertices[held], vertices[held] + [0, 0, 0.3]))
    np.testing.assert_allclose(pulled, vertices + [0, 0, 0.3], atol=1e-3)


def test_a_piece_that_nothing_pulls_at_stays():
    """Scans have crumbs; without a rule for these the problem would have no solution."""
    sheet, triangles, _ = toy_head(side=9)
    crumb = np.array([[500.0, 0, 0], [501, 0, 0], [500, 1, 0]])
    vertices = np.concatenate([sheet, crumb])
    bent = bend(vertices, np.concatenate([triangles, len(sheet) + np.array([[0, 1, 2]])]), sheet)
    np.testing.assert_allclose(bent, vertices, atol=1e-4)


def test_broken_inputs_are_refused(head, regions):
    vertices, triangles, landmarks = head
    surface, points = Surface(vertices, triangles), vertices[landmarks]
    empty = {**regions, "nose": (np.zeros((0, 3)), np.zeros((0, 3), int))}
    without = {name: region for name, region in regions.items() if name != "cheek"}
    with pytest.raises(InputError, match="the nose of the scan"):
        realy_errors(empty, points, surface, points, mm_per_unit=1.0)
    with pytest.raises(InputError, match="no region cheek"):
        realy_errors(without, points, surface, points, mm_per_unit=1.0)
    with pytest.raises(InputError, match=r"keypoints .* not finite"):
        realy_errors(regions, points * np.nan, surface, points, mm_per_unit=1.0)
    with pytest.raises(InputError, match="with N >= 68"):
        realy_errors(regions, points, surface, points[:7], mm_per_unit=1.0)
