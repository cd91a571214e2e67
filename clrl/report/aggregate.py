"""Statistics over seeds: pure functions of arrays whose first axis is the seed.

An array is ``(seeds,)``, one figure a run, or ``(seeds, time)``, a curve a run; the seed
axis is the one that goes. Which seeds diverged is for the caller to count and to report:
every function here refuses values that are not finite, so that a missing run is never
averaged away.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

LEAST_SEEDS = 3
"""Seeds that an interval needs."""

_NORMAL = 1.96
"""The 97.5% point of the normal distribution."""


def mean(values: ArrayLike) -> Array:
    """Mean over seeds.

    Args:
        values: ``(seeds,)`` or ``(seeds, time)``.

    Returns:
        ``()`` or ``(time,)``.

    Raises:
        ValueError: no seeds, or a value that is not finite.
    """
    return np.asarray(_checked(values).mean(axis=0))


def interquartile_mean(values: ArrayLike) -> Array:
    """Mean over seeds of what is left without the lowest and the highest quarter.

    ``floor(seeds / 4)`` seeds are left out at either end, at each time anew; with fewer than
    four seeds it is the mean. Source: Agarwal et al. 2021 (rliable), which trims so.

    Args:
        values: ``(seeds,)`` or ``(seeds, time)``.

    Returns:
        ``()`` or ``(time,)``.

    Raises:
        ValueError: no seeds, or a value that is not finite.
    """
    found = _checked(values)
    cut = len(found) // 4
    return np.asarray(np.sort(found, axis=0)[cut : len(found) - cut].mean(axis=0))


def median(values: ArrayLike) -> Array:
    """Median over seeds.

    Args:
        values: ``(seeds,)`` or ``(seeds, time)``.

    Returns:
        ``()`` or ``(time,)``; between the middle two where the seeds are even in number.

    Raises:
        ValueError: no seeds, or a value that is not finite.
    """
    return np.asarray(np.median(_checked(values), axis=0))


def interval(
    values: ArrayLike, least: float = -np.inf, most: float = np.inf
) -> tuple[Array, Array]:
    """Interval of the mean over seeds, pointwise over time, wide enough for few seeds.

    Student's, at a confidence of 99%, with three and four seeds of 99.7%: the usual 95% cover the
    mean of normal outcomes only, and at three to five seeds 75 to 90% of skewed outcomes or of
    those with two modes. As it is here, 90% and more of all these are covered (docs/report.md has
    the table, and outcomes that no interval of few seeds can cover).

    Args:
        values: ``(seeds,)`` or ``(seeds, time)``.
        least: what no value can be below, such as 0 of an accuracy; nor can an interval.
        most: what no value can be above.

    Returns:
        Low and high bound, ``()`` or ``(time,)`` each; nan with fewer than three seeds, and where
        all seeds agree, which says nothing about the spread.

    Raises:
        ValueError: no seeds, or a value that is not finite.
    """
    found = _checked(values)
    seeds, middle = len(found), found.mean(axis=0)
    if seeds < LEAST_SEEDS:
        return np.full(middle.shape, np.nan), np.full(middle.shape, np.nan)
    reach = _quantile(seeds) * found.std(axis=0, ddof=1) / np.sqrt(seeds)
    reach = np.where(np.ptp(found, axis=0) > 0, reach, np.nan)
    return np.maximum(middle - reach, least), np.minimum(middle + reach, most)


@functools.cache
def _quantile(seeds: int) -> float:
    """Student's quantile by which `interval` is wide."""
    from scipy.special import stdtrit

    return float(stdtrit(seeds - 1, 0.995 if seeds > 4 else 0.9985))


def probability_of_improvement(better: ArrayLike, than: ArrayLike) -> Array:
    """Chance that a seed of one method scores higher than a seed of another.

    The share of pairs in which it does, ties counting half: the Mann-Whitney statistic over the
    number of pairs. Source: Agarwal et al. 2021 (rliable).

    Args:
        better: ``(seeds,)`` or ``(seeds, ...)``, scores of the one method.
        than: ``(seeds,)`` or ``(seeds, ...)`` of the other, which may have another number of
            seeds.

    Returns:
        ``()`` or ``(...)``, in [0, 1].

    Raises:
        ValueError: no seeds, or a value that is not finite.
    """
    one, other = _checked(better)[:, None], _checked(than)[None]
    return np.asarray((np.greater(one, other) + 0.5 * np.equal(one, other)).mean(axis=(0, 1)))


def performance_profile(values: ArrayLike, thresholds: ArrayLike) -> Array:
    """Share of seeds that score more than each threshold. Source: Agarwal et al. 2021 (rliable).

    Args:
        values: ``(seeds,)``, or ``(seeds, tasks)``, of which each counts.
        thresholds: ``(thresholds,)``.

    Returns:
        ``(thresholds,)``, falling, in [0, 1].

    Raises:
        ValueError: no seeds, or a value that is not finite.
    """
    found = _checked(values).reshape(-1, 1)
    return np.asarray((found > np.asarray(thresholds, np.float64)).mean(axis=0))


def ranks(scores: ArrayLike) -> Array:
    """Place of each method, 1 for the highest score; equal scores share the mean of their places.

    Args:
        scores: ``(methods, ...)``.

    Returns:
        ``(methods, ...)``, from 1 to the number of methods.

    Raises:
        ValueError: no methods, or a value that is not finite.
    """
    found = _checked(scores)
    above = (found[None] > found[:, None]).sum(axis=1)
    equal = (found[None] == found[:, None]).sum(axis=1)
    return np.asarray(above + (equal + 1) / 2)


def rank_correlation(one: ArrayLike, other: ArrayLike) -> float:
    """Spearman's correlation: that of the places, equal values sharing the mean of theirs.

    Args:
        one: ``(runs,)``.
        other: ``(runs,)``.

    Returns:
        In [-1, 1]; nan with fewer than three runs, or where all values of one are equal.

    Raises:
        ValueError: a value that is not finite.
    """
    x, y = ranks(one), ranks(other)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(np.corrcoef(x, y)[0, 1])


def correlation_within(groups: Sequence[tuple[ArrayLike, ArrayLike]]) -> tuple[float, float, float]:
    """Spearman's correlation over seeds within methods, and its interval.

    The mean over methods of each one's `rank_correlation`, weighted by its seeds less one;
    differences between methods do not enter. The interval is Fisher's, with Fieller's factor 1.06
    for places, at 95%, of as many seeds as the largest method has: seeds are shared by methods, so
    that more methods are not more evidence.

    Args:
        groups: of each method two figures of its seeds, ``(seeds,)`` each. Those with fewer than
            three seeds, or where all values of a figure are equal, are left out.

    Returns:
        The correlation, and its low and high bound; nan where there is none, the bounds also with
        fewer than four seeds.

    Raises:
        ValueError: a value that is not finite.
    """
    found = [(rank_correlation(*pair), len(np.asarray(pair[0]))) for pair in groups]
    found = [(value, seeds) for value, seeds in found if np.isfinite(value)]
    if not found:
        return np.nan, np.nan, np.nan
    values, seeds = np.array(found).T
    value = float(np.average(values, weights=seeds - 1))
    most = int(seeds.max())
    if most < 4:
        return value, np.nan, np.nan
    # Full agreement counts as half a swap of neighbours less, so that it has an interval.
    bound = 1 - 6 / (most * (most**2 - 1))
    reach = _NORMAL * np.sqrt(1.06 / (most - 3))
    low, high = np.tanh(np.arctanh(np.clip(value, -bound, bound)) + np.array([-reach, reach]))
    return value, float(low), float(high)


def _checked(values: ArrayLike) -> Array:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim == 0 or len(found) == 0:
        raise ValueError("expected values of at least one seed")
    if not np.isfinite(found).all():
        raise ValueError("values that are not finite: leave diverged seeds out and count them")
    return found
