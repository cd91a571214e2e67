"""What one run's curve says, on curves worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from clrl.report.outcomes import (
    area_under_curve,
    average_online,
    bests_since,
    first_and_last,
    levels_before,
    loss_of_plasticity,
    plasticity_gap,
    recovery_times,
)

NAN = np.nan


def test_windows_weigh_by_their_length() -> None:
    assert average_online([100, 200, 250], [1.0, 0.5, 0.0]) == (100 + 50 + 0) / 250
    assert average_online([10, 20], [1.0, NAN]) == 1.0
    assert np.isnan(average_online([10], [NAN])) and np.isnan(average_online([], []))


def test_area_under_the_task_curve() -> None:
    # Trapezoids: (1 + 3) / 2 + (3 + 2) / 2 = 4.5 over 2 tasks.
    assert area_under_curve([1.0, 3.0, 2.0]) == 2.25
    assert area_under_curve([1.0, NAN, 3.0]) == 2.0  # bridged by a straight line
    assert area_under_curve([NAN, 4.0]) == 4.0
    assert np.isnan(area_under_curve([])) and np.isnan(area_under_curve([NAN]))


def test_loss_of_plasticity_by_hand() -> None:
    # A fifth of ten is two: (9 + 8) / 2 - (1 + 0) / 2.
    falling = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
    assert first_and_last(falling) == (8.5, 0.5)
    assert loss_of_plasticity(falling) == 8.0
    assert loss_of_plasticity(falling, higher_is_better=False) == -8.0
    assert loss_of_plasticity(falling, share=0.5) == 7.0 - 2.0
    assert loss_of_plasticity([3.0, 1.0]) == 2.0
    assert loss_of_plasticity([3.0, NAN, 1.0]) == 2.0
    assert np.isnan(loss_of_plasticity([3.0])) and np.isnan(loss_of_plasticity([]))


STEPS = [10, 20, 30, 40, 50, 60]


@pytest.mark.parametrize(
    ("values", "higher", "times"),
    [
        # Before the change at 20: 1.0. Back to 0.9 at 40, 20 steps after; from 1.0 at 50: never.
        ([0.5, 1.0, 0.2, 0.9, 1.0, 0.3], True, [20.0, np.inf]),
        # A first window above the level does not count, since the next is not. Then 0.95 is enough.
        ([0.5, 1.0, 1.1, 0.2, 1.0, 0.95], True, [30.0, 10.0]),
        # Returns below 0: -100 allows down to -110.
        ([-50, -100, -300, -110, -100, -111], True, [20.0, np.inf]),
        # Losses: 1.0 allows up to 1.1.
        ([2.0, 1.0, 3.0, 1.1, 1.0, 1.1], False, [20.0, 10.0]),
        # A window without a value is left out.
        ([0.5, 1.0, NAN, 1.0, 0.95, NAN], True, [20.0, NAN]),
        # On average from there on: 0.7 is not enough.
        ([0.5, 1.0, NAN, 1.0, 0.4, 0.4], True, [np.inf, 10.0]),
    ],
)
def test_recovery_by_hand(values, higher, times) -> None:
    levels = levels_before(STEPS, values, [20, 50])
    bests = bests_since(STEPS, values, [20, 50], higher)
    found = recovery_times(*bests, [20, 50], levels, higher_is_better=higher)
    assert found == pytest.approx(times, nan_ok=True)


def test_recovery_without_anything_before() -> None:
    assert np.isnan(levels_before([30, 40], [1.0, 1.0], [20])).all()
    assert np.isnan(recovery_times([30, 40], [1.0, 1.0], [20], [NAN])).all()
    assert len(recovery_times(STEPS, STEPS, [], [])) == 0


def test_one_good_window_at_the_end_is_no_recovery() -> None:
    # Fifteen windows: a third is five, and the last window alone is too late.
    steps = np.arange(1.0, 31.0)
    values = [1.0] * 15 + [0.1] * 14 + [1.0]
    (level,) = levels_before(steps, values, [15])
    assert level == 1.0
    ends, means = bests_since(steps, values, [15])
    assert ends.max() == 26 and means[-1] == pytest.approx((4 * 0.1 + 1.0) / 5)
    assert recovery_times(ends, means, [15], [level]).tolist() == [np.inf]
    back = [1.0] * 15 + [0.1] * 5 + [1.0] * 10
    # From the fourth low window on: (0.2 + 10) / 12 is short of 0.9, (0.1 + 10) / 11 is not.
    found = recovery_times(*bests_since(steps, back, [15]), [15], [level])
    assert found.tolist() == [5.0]


def test_plasticity_gap_by_hand() -> None:
    assert plasticity_gap([0.9, 0.9], [0.9, 0.5]).tolist() == pytest.approx([0.0, 0.4])
    assert plasticity_gap([[1.0]], [[3.0]], higher_is_better=False).tolist() == [[2.0]]
