"""What the seeds can bear: every comparison of methods that a report states is made here.

Methods of a benchmark are compared pair by pair, by an exact rank test, and all comparisons of a
report are corrected together (Holm), so that with methods that are alike one report in twenty at
most claims anything. How many comparisons are made is settled by the numbers of seeds, before
anything is compared: where they could show nothing of all pairs, each method is compared with the
suite's first alone; where they could not show that either, nothing is compared.
"""

from __future__ import annotations

import collections
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clrl.report.aggregate import probability_of_improvement, ranks

Array = NDArray[np.float64]

LEVEL = 0.05
"""The chance that a report claims anything of methods that are all alike, at most."""


@dataclass(frozen=True)
class Comparison:
    """Two methods on a benchmark.

    Attributes:
        better: the label of the one whose seeds stand higher.
        than: the label of the other.
        probability: chance that a seed of the one does better than a seed of the other, in
            [1/2, 1].
        p: of the exact rank test, two-sided.
        adjusted: the same, corrected for all comparisons of the report.
    """

    better: str
    than: str
    probability: float
    p: float
    adjusted: float

    @property
    def shown(self) -> bool:
        """Whether the seeds show it."""
        return self.adjusted <= LEVEL


@dataclass(frozen=True)
class Claims:
    """The comparisons made on a benchmark.

    Attributes:
        comparisons: of its methods; empty where so few seeds could show nothing.
        made: how many were made in the whole report, which is what they are corrected for.
        against: the one method that the others are compared with; None for all pairs.
        fewest: how many would be made in the whole report were methods compared with the first of
            each benchmark alone.
    """

    comparisons: tuple[Comparison, ...] = ()
    made: int = 0
    against: str | None = None
    fewest: int = 0

    def beaten(self, label: str) -> list[str]:
        """The methods that one is shown to be better than."""
        return [one.than for one in self.comparisons if one.shown and one.better == label]


def compare(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Claims]:
    """Compare the methods of each benchmark, and correct for all comparisons together.

    Args:
        scores: benchmark to method's label to a score a seed, of which more is better, in the
            suite's order. Methods without seeds are left out.

    Returns:
        Benchmark to what is claimed there.

    Raises:
        ValueError: a score is not finite.
    """
    designs = dict.fromkeys(scores, 0)
    while True:
        pairs = [
            (name, pair)
            for name, of_methods in scores.items()
            for pair in _pairs([label for label, one in of_methods.items() if len(one)])[
                designs[name]
            ]
        ]
        least = [least_p(*(len(scores[name][one]) for one in pair)) for name, pair in pairs]
        possible = {
            name
            for (name, _), p in zip(pairs, corrected(least), strict=True)
            if p <= LEVEL
        }  # fmt: skip
        numbers = collections.Counter(name for name, _ in pairs if name not in possible)
        if not numbers:
            break
        designs[numbers.most_common(1)[0][0]] += 1
    found = [
        (name, *pair, rank_test(scores[name][pair[0]], scores[name][pair[1]]))
        for name, pair in pairs
    ]
    adjusted = corrected([p for *_, p in found])
    claims: dict[str, list[Comparison]] = {name: [] for name in scores}
    for (name, one, other, p), after in zip(found, adjusted.tolist(), strict=True):
        chance = float(probability_of_improvement(scores[name][one], scores[name][other]))
        if chance < 0.5:
            one, other, chance = other, one, 1 - chance
        claims[name].append(Comparison(one, other, chance, p, after))
    fewest = sum(max(0, sum(map(bool, map(len, one.values()))) - 1) for one in scores.values())
    return {
        name: Claims(
            tuple(of_benchmark),
            len(pairs),
            next(label for label, one in scores[name].items() if len(one))
            if of_benchmark and designs[name]
            else None,
            fewest,
        )
        for name, of_benchmark in claims.items()
    }


def _pairs(labels: Sequence[str]) -> tuple[list[tuple[str, str]], ...]:
    """All pairs, those with the first, none."""
    every = list(itertools.combinations(labels, 2))
    return every, every[: max(0, len(labels) - 1)], []


def rank_test(one: ArrayLike, other: ArrayLike) -> float:
    """Exact Mann-Whitney test that two groups of seeds come from one distribution.

    The distribution of the sum of places over all divisions of the seeds into two such groups,
    equal values sharing the mean of their places, so that it is exact with ties too. Source: the
    shift algorithm of Streitberg & Roehmel 1986.

    Args:
        one: ``(seeds,)``.
        other: ``(seeds,)``; the groups may differ in size.

    Returns:
        The two-sided p: the share of divisions whose sum of places lies at least as far from its
        mean as the one found, in (0, 1].

    Raises:
        ValueError: no seeds, or a value that is not finite.
    """
    first = len(np.asarray(one))
    doubled = np.rint(2 * ranks(np.concatenate([one, other]))).astype(np.int64)
    if not 0 < first < len(doubled):
        raise ValueError("expected values of at least one seed in either group")
    shared = 1 + bool((doubled % 2 == 0).all())  # whole places need not be doubled
    places = doubled // shared
    table = _distribution(first, tuple(np.sort(places).tolist()))
    return float(table[places[:first].sum()])


@functools.lru_cache(maxsize=64)
def _distribution(size: int, places: tuple[int, ...]) -> Array:
    """Two-sided p of each sum of ``size`` of the places, ``(sum of all places + 1,)``."""
    total = sum(places)
    ways = np.zeros((size + 1, total + 1))
    ways[0, 0] = 1.0
    for place in places:
        ways[1:, place:] += ways[:-1, : total + 1 - place].copy()
    counts = ways[size]
    # Doubled and multiplied, so that the distance of a sum from its mean is a whole number.
    distances = np.abs(len(places) * np.arange(total + 1) - size * total)
    beyond = np.bincount(distances, counts)[::-1].cumsum()[::-1]
    return np.asarray(np.minimum(1.0, beyond[distances] / counts.sum()))


def least_p(one: int, other: int) -> float:
    """The smallest two-sided p that groups of such sizes can have: of full separation."""
    return min(1.0, 2 / math.comb(one + other, one))


def corrected(p: Sequence[float]) -> Array:
    """P-values corrected for their number. Source: Holm 1979.

    Args:
        p: ``(comparisons,)``.

    Returns:
        ``(comparisons,)``, in the same order, at most 1; those up to `LEVEL` may be claimed
        together.
    """
    found = np.asarray(p, np.float64)
    order = np.argsort(found, kind="stable")
    stepped = np.maximum.accumulate(found[order] * np.arange(len(found), 0, -1))
    adjusted = np.empty_like(found)
    adjusted[order] = np.minimum(1.0, stepped)
    return adjusted


def enough(comparisons: int) -> int:
    """The number of seeds a method from which on so many comparisons can show something."""
    return next(
        seeds for seeds in itertools.count(1) if least_p(seeds, seeds) * comparisons <= LEVEL
    )
