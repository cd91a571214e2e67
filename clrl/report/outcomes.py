"""What one run's curve says: pure functions of arrays of one learner.

A curve is two arrays of equal length: ``steps``, not decreasing, at which a window ended, and
``values``, that window's mean. A window reaches back to the point before it, the first one to
step 0. Values that are not finite are left out, and so is their window.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def average_online(steps: ArrayLike, values: ArrayLike) -> float:
    """Average online performance: the mean over a run, each window weighted by its length.

    This is also the area under the online curve, divided by the number of steps.

    Args:
        steps: ``(points,)``, where each window ended.
        values: ``(points,)``, each window's mean, measured before the updates on it.

    Returns:
        The mean, in the unit of the values; nan where there is none.
    """
    ends, means = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    lengths = np.diff(ends, prepend=0.0) * np.isfinite(means)
    total = float(lengths.sum())
    return float(np.nansum(means * lengths) / total) if total else np.nan


def area_under_curve(values: ArrayLike) -> float:
    """Area under the per-task curve, by the trapezoidal rule, a task being one unit wide.

    Divided by the number of steps between the first and the last task, so that a level curve
    gives its level. A single task gives its value.

    Args:
        values: ``(tasks,)``, performance on each task in turn; tasks that are nan are left
            out, and bridged by a straight line.

    Returns:
        The area, in the unit of the values; nan where there is no task.
    """
    found = np.asarray(values, np.float64)
    index = np.flatnonzero(np.isfinite(found))
    if len(index) < 2:
        return float(found[index[0]]) if len(index) else np.nan
    return float(np.trapezoid(found[index], index) / (index[-1] - index[0]))


def first_and_last(values: ArrayLike, share: float = 0.2) -> tuple[float, float]:
    """Mean of the first and of the last part of a sequence.

    Args:
        values: ``(points,)``, performance on each task, or in windows of equal length.
        share: the size of either part, in (0, 0.5]; at least one point.

    Returns:
        Both means; nan where the sequence has fewer than two points.
    """
    found = np.asarray(values, np.float64)
    found = found[np.isfinite(found)]
    if len(found) < 2:
        return np.nan, np.nan
    size = max(1, int(share * len(found)))
    return float(found[:size].mean()), float(found[-size:].mean())


def loss_of_plasticity(
    values: ArrayLike, share: float = 0.2, higher_is_better: bool = True
) -> float:
    """Performance in the first window minus that in the last: positive where it got worse.

    Args:
        values: ``(points,)``, performance on each task, or in windows of equal length.
        share: how much of the run either window takes, in (0, 0.5].
        higher_is_better: False for losses, whose difference is turned round.

    Returns:
        The loss, in the unit of the values; nan where there are fewer than two points.
    """
    first, last = first_and_last(values, share)
    return first - last if higher_is_better else last - first


def levels_before(steps: ArrayLike, values: ArrayLike, changes: ArrayLike) -> Array:
    """Performance before each change: the mean of the last third of the windows of its task.

    Args:
        steps: ``(points,)``, where each window ended.
        values: ``(points,)``, each window's mean.
        changes: ``(changes,)``, the steps at which the task changed, increasing.

    Returns:
        ``(changes,)``; nan where there is nothing before the change.
    """
    before = [means for _, means in _by_task(steps, values, changes)][:-1]
    return np.array([means[-_third(means) :].mean() if len(means) else np.nan for means in before])


def bests_since(
    steps: ArrayLike, values: ArrayLike, changes: ArrayLike, higher_is_better: bool = True
) -> tuple[Array, Array]:
    """The windows from which on a task goes better than from any window of it before.

    What counts is the mean from a window to the end of its task, so that a single good one makes no
    difference; windows of the last third are too late. Those returned are all that
    `recovery_times` needs of a curve, and few.

    Args:
        steps: ``(points,)``, where each window ended.
        values: ``(points,)``, each window's mean.
        changes: ``(changes,)``, the steps at which the task changed, increasing.
        higher_is_better: False for losses.

    Returns:
        Their steps, and the means from there on, ``(bests,)`` each.
    """
    sign = 1 if higher_is_better else -1
    found = []
    for ends, means in _by_task(steps, values, changes):
        if len(ends):
            rest = np.cumsum(means[::-1])[::-1] / np.arange(len(means), 0, -1)
            rest = rest[: len(rest) - _third(means) + 1]
            highest = np.maximum.accumulate(sign * rest)
            best = np.append(True, highest[1:] > highest[:-1])
            found.append(np.stack([ends[: len(rest)][best], rest[best]]))
    both = np.concatenate(found, axis=1) if found else np.empty((2, 0))
    return both[0], both[1]


def _by_task(steps: ArrayLike, values: ArrayLike, changes: ArrayLike) -> list[tuple[Array, Array]]:
    """The finite windows of each task, ``changes + 1`` of them: where they end, their means."""
    ends, means = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    kept = np.isfinite(means)
    ends, means = ends[kept], means[kept]
    at = np.searchsorted(ends, np.asarray(changes, np.float64), side="right")
    return list(zip(np.split(ends, at), np.split(means, at), strict=True))


def _third(means: Array) -> int:
    return -(-len(means) // 3)


def recovery_times(
    steps: ArrayLike,
    values: ArrayLike,
    changes: ArrayLike,
    levels: ArrayLike,
    share: float = 0.9,
    higher_is_better: bool = True,
) -> Array:
    """Steps after each change until performance is back to a share of a level, and stays there.

    It is back at the end of the first window from which on the mean to the end of the task is at
    least ``share`` times the level. For levels below 0, and for losses, the same distance
    ``(1 - share) * abs(level)`` on the worse side is allowed. The resolution is that of the
    windows.

    Args:
        steps: ``(bests,)``, of `bests_since`.
        values: ``(bests,)``, of `bests_since`.
        changes: ``(changes,)``, the steps at which the task changed, increasing.
        levels: ``(changes,)``, what there is to come back to, nan for nothing.
        share: of the level, in (0, 1].
        higher_is_better: False for losses.

    Returns:
        ``(changes,)``: steps; inf where performance was not back before the next change, nan
        where there is no level, or nothing after the change.
    """
    ends, means = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    kept = np.isfinite(means)
    sign = 1 if higher_is_better else -1
    ends, means = ends[kept], sign * means[kept]
    starts, aims = np.asarray(changes, np.float64), sign * np.asarray(levels, np.float64)
    found = np.full(len(starts), np.nan)
    for index, (start, end) in enumerate(zip(starts, np.append(starts[1:], np.inf), strict=False)):
        after = (ends > start) & (ends <= end)
        if not after.any() or np.isnan(aims[index]):
            continue
        back = means[after] >= aims[index] - (1 - share) * abs(aims[index])
        found[index] = ends[after][back.argmax()] - start if back.any() else np.inf
    return found


def plasticity_gap(fresh: ArrayLike, continual: ArrayLike, higher_is_better: bool = True) -> Array:
    """How much better a fresh learner does on a task than the continual one.

    Args:
        fresh: ``(..., tasks)``, performance of a learner trained on each task alone.
        continual: ``(..., tasks)``, performance of the continual learner on the same tasks.
        higher_is_better: False for losses, whose difference is turned round.

    Returns:
        ``(..., tasks)``, fresh minus continual: positive where plasticity was lost.
    """
    difference = np.asarray(fresh, np.float64) - np.asarray(continual, np.float64)
    return difference if higher_is_better else -difference
