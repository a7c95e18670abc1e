import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from jaxface.core import metrics
from jaxface.core.parts import LABELS, PARTS


def test_part_iou_equals_sets_of_pixels():
    rng = np.random.default_rng(0)
    predicted, target = rng.integers(0, 10, (2, 3, 12, 9)).astype(np.uint8)
    target[1][target[1] == LABELS["nose"]] = 0
    iou = np.asarray(metrics.part_iou(predicted, target))
    for sample in range(3):
        for index, part in enumerate(PARTS):
            a = set(zip(*np.nonzero(predicted[sample] == LABELS[part]), strict=True))
            b = set(zip(*np.nonzero(target[sample] == LABELS[part]), strict=True))
            if b:
                assert iou[sample, index] == pytest.approx(len(a & b) / len(a | b), abs=1e-6)
            else:
                assert np.isnan(iou[sample, index])
    mean = np.asarray(metrics.mean_part_iou(iou))
    np.testing.assert_allclose(mean, [np.nanmean(row[:7]) for row in iou], rtol=1e-6)


def test_part_iou_of_a_missed_part_is_zero_and_of_an_empty_target_unknown():
    target = np.full((4, 4), LABELS["nose"], np.uint8)
    iou = metrics.part_iou(np.zeros_like(target), target)
    assert iou[PARTS.index("nose")] == 0.0
    assert metrics.mean_part_iou(iou) == 0.0
    assert np.isnan(metrics.mean_part_iou(metrics.part_iou(target, np.zeros_like(target))))


def test_mean_over_known_ignores_nan():
    values = np.array([[1.0, np.nan], [3.0, np.nan]], np.float32)
    np.testing.assert_array_equal(metrics.mean_over_known(values, axis=0), [2.0, np.nan])
    assert metrics.mean_over_known(values) == 2.0


def test_landmark_error_counts_visible_landmarks_alike():
    target = np.zeros((2, 68, 2), np.float32)
    target[:, 45] = [30.0, 40.0]
    predicted = target.copy()
    predicted[:, 0] += [3.0, 4.0]
    predicted[:, 1] += [100.0, 0.0]
    weights = np.ones((2, 68), np.float32)
    weights[0, 1] = 0.0
    weights[0, 0] = 20.0
    weights[1] = 0.0
    np.testing.assert_allclose(metrics.landmark_error(predicted, target, weights), [5 / 67, np.nan], rtol=1e-6)
    np.testing.assert_allclose(metrics.interocular_distance(target, weights), [50.0, np.nan])


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), factor=st.floats(0.2, 5.0))
def test_alignment_undoes_any_similarity(seed, factor):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(2, 30, 3)).astype(np.float32)
    rotation = Rotation.random(random_state=seed % 2**31).as_matrix()
    source = (factor * target @ rotation.T + rng.normal(size=3)).astype(np.float32)
    np.testing.assert_allclose(metrics.align_points(source, target, scale=True), target, atol=2e-5)
    rigid = np.asarray(metrics.align_points(source, target))
    centred = target - target.mean(1, keepdims=True)
    np.testing.assert_allclose(rigid - target.mean(1, keepdims=True), factor * centred, atol=2e-4)


def test_alignment_equals_scipy_on_noisy_points():
    rng = np.random.default_rng(1)
    source = rng.normal(size=(4, 20, 3)).astype(np.float32)
    target = (source[:, :, [1, 2, 0]] + 0.5 * rng.normal(size=source.shape)).astype(np.float32)
    moved = np.asarray(metrics.align_points(source, target))
    for b in range(4):
        centred, goal = source[b] - source[b].mean(0), target[b] - target[b].mean(0)
        rotation, _ = Rotation.align_vectors(goal, centred)
        np.testing.assert_allclose(moved[b], rotation.apply(centred) + target[b].mean(0), atol=2e-5)


@pytest.mark.slow
def test_alignment_never_reflects():
    rng = np.random.default_rng(2)
    source = rng.normal(size=(1, 50, 3)).astype(np.float32)
    mirrored = source * np.array([-1, 1, 1], np.float32)[None, None]
    assert metrics.vertex_error_mm(source, mirrored, align="similarity")[0] > 10.0


def test_alignment_of_coinciding_points_only_shifts():
    source = np.ones((1, 4, 3), np.float32)
    np.testing.assert_array_equal(metrics.align_points(source, source + 2.0, scale=True), source + 2.0)


@pytest.mark.slow
def test_vertex_error_is_in_millimetres():
    rng = np.random.default_rng(3)
    target = rng.normal(size=(1, 40, 3)).astype(np.float32)
    shifted = target + np.array([0.0, 0.03, 0.04], np.float32)[None, None]
    assert metrics.vertex_error_mm(shifted, target, align="none")[0] == pytest.approx(5.0, rel=1e-4)
    assert metrics.vertex_error_mm(shifted, target)[0] < 1e-2
    assert metrics.vertex_error_mm(1.1 * target, target)[0] > 1.0
    assert metrics.vertex_error_mm(1.1 * target, target, align="similarity")[0] < 1e-2
    spoiled = jnp.asarray(target).at[:, 7].add(1.0)
    assert metrics.vertex_error_mm(spoiled, target, vertices=np.arange(5))[0] < 1e-2
    with pytest.raises(ValueError, match="align"):
        metrics.vertex_error_mm(target, target, align="affine")


def test_landmark_error_by_box_is_a_share_of_the_box():
    """A box of 40 x 10 is as good as a square of 20; all points 3-4-5 off are 5 / 20 off."""
    random = np.random.default_rng(0)
    target = random.uniform(0, 1, (2, 68, 2)).astype(np.float32) * [40, 10] + [100, 50]
    target[:, 0], target[:, 1] = [100, 50], [140, 60]
    error = metrics.landmark_error_by_box(target + [[[3, 4]], [[-4, 3]]], target)
    np.testing.assert_allclose(error, 0.25, rtol=1e-5)
    assert np.isnan(metrics.landmark_error_by_box(target[0], np.full((68, 2), 5.0)))
