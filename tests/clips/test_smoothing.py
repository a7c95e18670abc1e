"""Smoothing in time against a dense solve of its definition; no lag; gaps, outliers and jitter."""

from itertools import pairwise

import numpy as np
import pytest

from jaxface.clips import smoothing


def dense_smoother(values, weights, stiffness, times=None):
    """The normal equations as they stand in the definition."""
    second = np.zeros((len(values) - 2, len(values)))
    for row in range(len(second)):
        second[row, row : row + 3] = 1, -2, 1
        if times is not None:
            usual = np.median([later - earlier for earlier, later in pairwise(times)])
            a, b = (times[row + 1] - times[row]) / usual, (times[row + 2] - times[row + 1]) / usual
            slope_before, slope_after = np.array([-1 / a, 1 / a, 0]), np.array([0, -1 / b, 1 / b])
            second[row, row : row + 3] = np.sqrt((a + b) / 2) * 2 / (a + b) * (slope_after - slope_before)
    return np.linalg.solve(np.diag(weights) + stiffness * second.T @ second, weights[:, None] * values)


@pytest.mark.parametrize("frames", [3, 4, 5, 6, 40])
@pytest.mark.parametrize("stiffness", [0.3, 50.0])
def test_smoother_is_the_minimum(frames, stiffness):
    random = np.random.default_rng(frames)
    values, weights = random.normal(size=(frames, 3)), random.uniform(0.1, 1, frames)
    smooth = smoothing.smooth_in_time(values, weights, stiffness=stiffness)
    np.testing.assert_allclose(smooth, dense_smoother(values, weights, stiffness), atol=1e-8)


@pytest.mark.parametrize("frames", [3, 4, 5, 40])
@pytest.mark.parametrize("stiffness", [0.3, 50.0])
def test_smoother_at_uneven_times_is_the_minimum(frames, stiffness):
    random = np.random.default_rng(frames)
    values, weights = random.normal(size=(frames, 3)), random.uniform(0.1, 1, frames)
    times = 7 + np.cumsum(random.uniform(0.01, 0.08, frames))
    times[frames // 2 :] += 2.0
    smooth = smoothing.smooth_in_time(values, weights, stiffness=stiffness, times=times)
    np.testing.assert_allclose(smooth, dense_smoother(values, weights, stiffness, times), atol=1e-7)


@pytest.mark.parametrize("rate", [10, 24, 25, 29.97, 240])
def test_equal_steps_give_what_no_times_give(rate):
    random = np.random.default_rng(0)
    values, weights, times = random.normal(size=(50, 3)), random.uniform(0.1, 1, 50), np.arange(50) / rate
    for stiffness in (0.3, 4e3):
        np.testing.assert_allclose(
            smoothing.smooth_in_time(values, weights, stiffness=stiffness, times=times),
            smoothing.smooth_in_time(values, weights, stiffness=stiffness),
            atol=1e-9,
        )
    np.testing.assert_allclose(
        smoothing.outlier_weights(values, weights, stiffness=4.0, times=times),
        smoothing.outlier_weights(values, weights, stiffness=4.0),
        atol=1e-9,
    )
    found = random.random(50) < 0.7
    np.testing.assert_allclose(
        smoothing.fill_gaps(values, found, times=times), smoothing.fill_gaps(values, found), atol=1e-9
    )
    assert smoothing.jitter(values, times=times) == pytest.approx(smoothing.jitter(values))
    assert smoothing.usual_step(times) == pytest.approx(1 / rate)


def test_lines_in_time_pass_at_any_times():
    times = np.cumsum(np.random.default_rng(0).uniform(0.005, 0.1, 60)) + 2.0 * (np.arange(60) > 30)
    times[50:] += 1e-6 - (times[50] - times[49])  # two frames at almost one time
    line = times[:, None] * [[1.0, -3.0]] + 5
    smooth = smoothing.smooth_in_time(line, np.ones(60), stiffness=100, times=times)
    np.testing.assert_allclose(smooth, line, atol=0.03)
    np.testing.assert_allclose(smooth[:40], line[:40], atol=1e-3)
    assert smoothing.jitter(line[:50], times=times[:50]) < 1e-9 < smoothing.jitter(line[:50])


def test_a_pause_holds_little_together():
    """A head that turned while the clip stood still: with true times the frames on either side stay where they are."""
    values = np.repeat([0.0, 1.0], 20)[:, None]
    times = np.arange(40) / 25 + 2.0 * (np.arange(40) >= 20)
    stiffness = smoothing.smoothing_stiffness(2.0, frame_rate=25)
    true = smoothing.smooth_in_time(values, np.ones(40), stiffness=stiffness, times=times)
    even = smoothing.smooth_in_time(values, np.ones(40), stiffness=stiffness)
    assert np.abs(true - values).max() < 0.05 and np.abs(even - values).max() > 0.3


def test_gaps_are_lines_in_time():
    times, found = np.array([0.0, 1, 3, 4]), np.array([True, False, False, True])
    filled = smoothing.fill_gaps(np.array([[0.0], [9], [9], [8]]), found, times=times)
    np.testing.assert_allclose(filled[:, 0], [0, 2, 6, 8])


def test_lines_and_short_clips_pass():
    line = np.arange(20.0)[:, None] * [[1.0, -3.0]] + 5
    np.testing.assert_allclose(smoothing.smooth_in_time(line, np.ones(20), stiffness=1e3), line, atol=1e-6)
    for frames in (0, 1, 2):
        values = np.ones((frames, 2))
        np.testing.assert_array_equal(smoothing.smooth_in_time(values, np.ones(frames), stiffness=9.0), values)
    np.testing.assert_array_equal(smoothing.smooth_in_time(line, np.ones(20), stiffness=0), line)


def test_frames_without_weight_are_bridged_whatever_they_hold():
    line = np.arange(20.0)[:, None]
    broken, weights = line.copy(), np.ones(20)
    broken[7:10], weights[7:10] = 1e3, 0
    np.testing.assert_allclose(smoothing.smooth_in_time(broken, weights, stiffness=1.0), line, atol=1e-5)
    broken[8] = np.nan
    with pytest.raises(ValueError, match="finite"):
        smoothing.smooth_in_time(broken, weights, stiffness=1.0)


def test_cutoff_halves_the_amplitude():
    frame_rate, cutoff = 25.0, 3.0
    times = np.arange(400) / frame_rate
    sine = np.sin(2 * np.pi * cutoff * times)[:, None]
    stiffness = smoothing.smoothing_stiffness(cutoff, frame_rate=frame_rate)
    smooth = smoothing.smooth_in_time(sine, np.ones(400), stiffness=stiffness)
    np.testing.assert_allclose(smooth[50:350], 0.5 * sine[50:350], atol=1e-3)
    assert smoothing.smoothing_stiffness(80, frame_rate=25) == pytest.approx(1 / 16)
    with pytest.raises(ValueError, match="positive"):
        smoothing.smoothing_stiffness(0, frame_rate=25)


def test_no_lag_and_nearer_to_the_truth():
    """The smooth curve agrees best with the truth at a shift of zero frames, and is nearer to it than the noisy one."""
    random = np.random.default_rng(0)
    times = np.arange(200) / 25
    truth = np.stack([np.sin(2 * np.pi * 0.8 * times), np.cos(2 * np.pi * 1.3 * times)], axis=-1)
    noisy = truth + 0.15 * random.normal(size=truth.shape)
    stiffness = smoothing.smoothing_stiffness(4.0, frame_rate=25)
    smooth = smoothing.smooth_in_time(noisy, np.ones(200), stiffness=stiffness)
    shifts = np.arange(-5, 6)
    agreement = [(np.roll(smooth, -shift, 0) * truth)[10:-10].sum() for shift in shifts]
    assert shifts[np.argmax(agreement)] == 0
    late = np.vstack([noisy[:1], noisy[:-1]])  # the measure would see a lag of one frame
    assert shifts[np.argmax([(np.roll(late, -shift, 0) * truth)[10:-10].sum() for shift in shifts])] == 1
    assert np.square(smooth - truth).mean() < 0.6 * np.square(noisy - truth).mean()
    assert smoothing.jitter(smooth) < 0.4 * smoothing.jitter(noisy)


def test_outliers_lose_their_weight():
    random = np.random.default_rng(0)
    truth = np.sin(np.arange(60) / 6)[:, None] * [[1.0, 2.0, 0.5]]
    values = truth + 0.01 * random.normal(size=truth.shape)
    values[[20, 41]] += 1.0
    weights = np.ones(60)
    weights[5] = 0
    stiffness = smoothing.smoothing_stiffness(4.0, frame_rate=25)
    robust = smoothing.outlier_weights(values, weights, stiffness=stiffness)
    assert robust[[20, 41]].max() < 0.02 and robust[5] == 0
    assert np.median(robust) > 0.9
    smooth = smoothing.smooth_in_time(values, robust, stiffness=stiffness)
    assert np.abs(smooth - truth)[[20, 41]].max() < 0.1
    np.testing.assert_allclose(smoothing.outlier_weights(np.ones((9, 2)), np.ones(9), stiffness=1.0), 1, atol=1e-6)


def test_gaps_are_filled_by_lines_and_ends_are_held():
    values = np.array([[np.nan], [1.0], [np.nan], [np.nan], [4.0], [np.nan]])
    found = np.isfinite(values[:, 0])
    np.testing.assert_allclose(smoothing.fill_gaps(values, found)[:, 0], [1, 1, 2, 3, 4, 4])
    with pytest.raises(ValueError, match="no frame"):
        smoothing.fill_gaps(values, np.zeros(6, bool))


def test_angles_do_not_jump():
    angles = np.deg2rad([[170.0, 0, 0], [179, 0, 0], [-172, 0, 0]])
    np.testing.assert_allclose(np.degrees(smoothing.continuous_angles(angles))[:, 0], [170, 179, 188])


def test_jitter_is_the_second_difference():
    values = np.zeros((4, 2, 2))
    values[1, 0] = 3, 4  # one point leaps by 5: second differences 10 and 5, of 2 points and 2 instants
    assert smoothing.jitter(values) == pytest.approx(np.sqrt((100 + 25) / 4))
    assert smoothing.jitter(np.arange(10.0)[:, None]) == 0
    assert np.isnan(smoothing.jitter(np.zeros((2, 1))))
    gaps = np.concatenate([values, np.full((1, 2, 2), np.nan), values])
    assert smoothing.jitter(gaps) == pytest.approx(smoothing.jitter(values))
    assert np.isnan(smoothing.jitter(np.full((5, 1), np.nan)))


def test_key_frames_are_good_and_spread():
    scores, found = np.array([0.0, 5, 1, 9, 9, 2, 3, 1]), np.array([1, 1, 1, 0, 1, 1, 1, 1], bool)
    assert smoothing.key_frames(scores, found, count=3) == [1, 4, 6]
    assert smoothing.key_frames(scores, found, count=20) == [0, 1, 2, 4, 5, 6, 7]
    assert smoothing.key_frames(scores, np.zeros(8, bool), count=3) == []


def test_a_blink_of_three_frames_is_kept_and_noise_is_not():
    random = np.random.default_rng(0)
    truth = np.zeros((60, 2))
    truth[30:33, 0] = 0.6, 1.0, 0.6
    noisy = truth + 0.02 * random.normal(size=truth.shape)
    stiffness = smoothing.smoothing_stiffness(6.0, frame_rate=25)
    smooth = smoothing.smooth_in_time(noisy, np.ones(60), stiffness=stiffness)
    kept = smoothing.kept_events(noisy, smooth, np.ones(60))
    assert smooth[31, 0] < 0.85 < 0.95 < kept[31, 0]
    np.testing.assert_allclose(kept[29:34, 0], truth[29:34, 0], atol=0.08)
    quiet = np.r_[0:27, 36:60]
    assert np.std(kept[quiet] - truth[quiet]) < 0.85 * np.std(noisy[quiet] - truth[quiet])
    # Nothing of a frame that is not trusted, however far it stands out.
    weights = np.ones(60)
    weights[31] = 0
    assert smoothing.kept_events(noisy, smooth, weights)[31, 0] == smooth[31, 0]
    np.testing.assert_array_equal(smoothing.kept_events(smooth, smooth, weights), smooth)


def test_events_are_given_back_by_their_size():
    """The definition, number by number."""
    random = np.random.default_rng(1)
    values, smooth, weights = random.normal(size=(9, 2)), random.normal(size=(9, 2)), random.uniform(size=9)
    kept = smoothing.kept_events(values, smooth, weights)
    for column in range(2):
        left = [values[t, column] - smooth[t, column] for t in range(9)]
        typical = 1.4826 * np.median([abs(left[t]) for t in range(9) if weights[t] > 0.5])
        for t in range(9):
            d = left[t] / (smoothing.EVENT * typical)
            wanted = smooth[t, column] + weights[t] * left[t] * d**2 / (1 + d**2)
            assert kept[t, column] == pytest.approx(wanted)
