"""Figures of continual learning, from the matrix of accuracies or from the online curve.

The *matrix* A is ``(..., after, tasks)``: ``A[k, i]`` is the performance on task i, measured on
held-out data, after task k was learned; tasks and rows count from 0, and A has as many rows as
columns where nothing else is said. Any axes may lead, such as one for seeds; they stay.
Performance is anything of which more is better: accuracy in [0, 1], or return. nan entries (a task
that was not tested) give nan.

The *curve* is ``(..., steps)``: the performance on each example, or window of examples, before
it was learned.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def average_accuracy(matrix: ArrayLike) -> Array:
    """Mean performance over all tasks after the last: ``mean_i A[T, i]``.

    Source: Lopez-Paz & Ranzato 2017 (ACC).
    """
    return np.asarray(_square(matrix)[..., -1, :].mean(axis=-1))


def learning_accuracy(matrix: ArrayLike) -> Array:
    """Mean performance on each task right after it was learned: ``mean_i A[i, i]``.

    The plasticity of a learner. Source: Riemer et al. 2019.
    """
    return np.asarray(_diagonal(_square(matrix)).mean(axis=-1))


def retained_accuracy(matrix: ArrayLike) -> Array:
    """Mean performance after the last task on those before: ``mean_{i<T} A[T, i]``.

    The stability of a learner; nan with a single task.
    """
    return _mean(_square(matrix)[..., -1, :-1])


def forgetting(matrix: ArrayLike) -> Array:
    """What was lost since each task was learned: ``mean_{i<T} (A[i, i] - A[T, i])``.

    Negative where later tasks helped; nan with a single task. It is minus `backward_transfer`.
    """
    found = _square(matrix)
    return _mean((_diagonal(found) - found[..., -1, :])[..., :-1])


def max_forgetting(matrix: ArrayLike) -> Array:
    """What was lost since each task was known best.

    ``mean_{i<T} (max_{i<=k<T} A[k, i] - A[T, i])``; nan with a single task. Source: Chaudhry et
    al. 2018, where the maximum goes over all k < T; a task is not known before it was learned, so
    that here it begins with k = i.
    """
    found = _square(matrix)
    after, task = np.indices(found.shape[-2:])
    since = np.where(after >= task, found, -np.inf)
    best = since[..., :-1, :-1].max(axis=-2, initial=-np.inf)
    return _mean(best - found[..., -1, :-1])


def backward_transfer(matrix: ArrayLike) -> Array:
    """What later tasks did for earlier ones: ``mean_{i<T} (A[T, i] - A[i, i])``.

    nan with a single task. Source: Lopez-Paz & Ranzato 2017 (BWT).
    """
    return -forgetting(matrix)


def forward_transfer(matrix: ArrayLike, fresh: ArrayLike) -> Array:
    """What earlier tasks did for later ones before those were learned.

    ``mean_{i>0} (A[i-1, i] - fresh[i])``; nan with a single task. Source: Lopez-Paz & Ranzato 2017
    (FWT).

    Args:
        matrix: A.
        fresh: performance of an untrained network on each task, ``(..., tasks)``.
    """
    found = _square(matrix)
    before = np.diagonal(found, offset=1, axis1=-2, axis2=-1)
    return _mean(before - np.asarray(fresh, np.float64)[..., 1:])


def retention(matrix: ArrayLike, what: str) -> dict[str, Array]:
    """What is recorded of a matrix: name to ``(...)``; with a single task, what it has.

    Args:
        matrix: A.
        what: ``accuracy`` or ``return``, for the names.
    """
    found = _square(matrix)
    values = {
        f"average_{what}": average_accuracy(found),
        f"learning_{what}": learning_accuracy(found),
    }
    if found.shape[-1] > 1:
        values |= {
            f"retained_{what}": retained_accuracy(found),
            "forgetting": forgetting(found),
            "max_forgetting": max_forgetting(found),
        }
    return values


def task_performance(curve: ArrayLike, lengths: ArrayLike) -> Array:
    """Mean of the curve over each task: ``(..., steps)`` to ``(..., tasks)``.

    Args:
        curve: performance before each step.
        lengths: steps of each task, at least 1, adding up to the length of the curve.

    Raises:
        ValueError: they do not.
    """
    found, steps = np.asarray(curve, np.float64), np.asarray(lengths, np.int64)
    if steps.ndim != 1 or steps.min(initial=1) < 1 or steps.sum() != found.shape[-1]:
        raise ValueError(f"lengths: expected tasks of {found.shape[-1]} steps in all, got {steps}")
    starts = np.concatenate([[0], np.cumsum(steps)[:-1]])
    return np.asarray(np.add.reduceat(found, starts, axis=-1) / steps)


def loss_of_plasticity(of_tasks: ArrayLike, window: int = 1) -> Array:
    """How much worse the last tasks are learned than the first.

    Mean of the first `window` tasks minus mean of the last `window`.

    Args:
        of_tasks: online performance of each task, ``(..., tasks)``; see `task_performance`.
        window: tasks at either end, at least 1.

    Raises:
        ValueError: the window is longer than there are tasks.
    """
    found = np.asarray(of_tasks, np.float64)
    if not 1 <= window <= found.shape[-1]:
        raise ValueError(f"window: expected from 1 to {found.shape[-1]} tasks, got {window}")
    return np.asarray(found[..., :window].mean(axis=-1) - found[..., -window:].mean(axis=-1))


def recovery_time(
    curve: ArrayLike, change: int, before: int, share: float = 0.95, smooth: int = 1
) -> Array:
    """Steps after a change until performance is back.

    Back means: the mean over a window that lies after the change is at least `share` of the mean
    over the last steps before it.

    Args:
        curve: performance before each step, ``(..., steps)``, of which it is >= 0.
        change: the first step of the new task.
        before: steps before the change that say what performance was.
        share: of that performance, in (0, 1].
        smooth: steps of a window.

    Returns:
        ``(...)``: from the change to the end of the first such window; inf where there is none.

    Raises:
        ValueError: there are not so many steps before or after the change.
    """
    found = np.asarray(curve, np.float64)
    if not 1 <= before <= change <= found.shape[-1] - smooth or smooth < 1:
        raise ValueError(
            f"expected {before} steps before step {change} and {smooth} from there, of "
            f"{found.shape[-1]}"
        )
    level = share * found[..., change - before : change].mean(axis=-1)
    windows = np.lib.stride_tricks.sliding_window_view(found[..., change:], smooth, axis=-1)
    back = windows.mean(axis=-1) >= level[..., None]
    return np.where(back.any(axis=-1), back.argmax(axis=-1) + smooth, np.inf)


def _square(matrix: ArrayLike) -> Array:
    found = np.asarray(matrix, np.float64)
    if found.ndim < 2 or found.shape[-1] != found.shape[-2] or not found.shape[-1]:
        raise ValueError(f"expected a matrix (..., tasks, tasks), got the shape {found.shape}")
    return found


def _diagonal(matrix: Array) -> Array:
    return np.asarray(np.diagonal(matrix, axis1=-2, axis2=-1))


def _mean(values: Array) -> Array:
    if not values.shape[-1]:
        return np.full(values.shape[:-1], np.nan)
    return np.asarray(values.mean(axis=-1))
