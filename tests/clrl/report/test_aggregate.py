"""Statistics over seeds, against numbers worked by hand and by simulation."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from clrl.report.aggregate import (
    correlation_within,
    interquartile_mean,
    interval,
    mean,
    median,
    performance_profile,
    probability_of_improvement,
    rank_correlation,
    ranks,
)


def test_mean_by_hand() -> None:
    assert float(mean([1.0, 2.0, 6.0])) == 3.0
    assert mean([[1.0, 10.0], [3.0, 20.0]]).tolist() == [2.0, 15.0]


def test_interquartile_mean_by_hand() -> None:
    # 8 seeds: two off at either end leave 3, 4, 5, 6.
    assert float(interquartile_mean([100.0, 1.0, 3.0, 4.0, 5.0, 6.0, -50.0, 7.0])) == 4.5
    # 5 seeds: floor(5 / 4) = 1 off at either end leaves 2, 3, 7.
    assert float(interquartile_mean([7.0, 1.0, 3.0, 1000.0, 2.0])) == 4.0
    # 3 seeds: none off.
    assert float(interquartile_mean([1.0, 2.0, 6.0])) == 3.0


def test_interquartile_mean_leaves_seeds_out_at_each_time_anew() -> None:
    curves = [[1.0, 40.0], [2.0, 30.0], [3.0, 20.0], [4.0, 10.0]]
    # Without the ends: 2 and 3, then 30 and 20.
    assert interquartile_mean(curves).tolist() == [2.5, 25.0]


@pytest.mark.parametrize(
    ("seeds", "confidence"), [(3, 0.997), (4, 0.997), (5, 0.99), (10, 0.99), (30, 0.99)]
)
def test_the_interval_is_scipys(seeds: int, confidence: float) -> None:
    values = np.random.default_rng(seeds).normal(5, 2, seeds)
    error = values.std(ddof=1) / np.sqrt(seeds)
    expected = scipy.stats.t.interval(confidence, seeds - 1, values.mean(), error)
    assert interval(values) == pytest.approx(expected)


def test_an_interval_stays_where_values_can_be() -> None:
    low, high = interval([0.98, 0.99, 0.95], 0.0, 1.0)
    assert float(high) == 1.0 and 0 < float(low) < 0.95
    assert float(interval([0.98, 0.99, 0.95])[1]) > 1.0


@pytest.mark.parametrize("values", [[3.0], [3.0, 4.0], [2.0, 2.0, 2.0, 2.0]])
def test_there_is_no_interval_without_a_spread_to_go_by(values: list[float]) -> None:
    assert np.isnan(interval(values)).all()


def test_a_curve_is_each_of_its_points() -> None:
    curves = np.random.default_rng(0).normal(size=(5, 40))
    curves[:, 7] = 1.0
    low, high = interval(curves)
    assert low.shape == high.shape == (40,) and np.isnan([low[7], high[7]]).all()
    for point in (0, 12, 39):
        assert (low[point], high[point]) == pytest.approx(interval(curves[:, point]))
    assert [bound.shape for bound in interval(np.zeros((3, 0)))] == [(0,), (0,)]


def test_median_by_hand() -> None:
    assert float(median([5.0, 1.0, 2.0])) == 2.0
    assert median([[1.0, 4.0], [3.0, 0.0]]).tolist() == [2.0, 2.0]


def test_probability_of_improvement_by_hand() -> None:
    # Pairs of (1, 2, 3) with (0, 2): 1 > 0, 2 > 0, 3 > 0, 3 > 2 win, 2 = 2 is half: 4.5 of 6.
    assert float(probability_of_improvement([1.0, 2.0, 3.0], [0.0, 2.0])) == 0.75
    assert float(probability_of_improvement([0.0, 2.0], [1.0, 2.0, 3.0])) == 0.25


def test_probability_of_improvement_is_mann_whitney() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.integers(0, 9, 13), generator.integers(2, 11, 8)
    statistic = scipy.stats.mannwhitneyu(one, other).statistic
    assert float(probability_of_improvement(one, other)) == pytest.approx(statistic / (13 * 8))


def test_performance_profile_by_hand() -> None:
    scores = [[0.1, 0.5], [0.5, 0.9]]
    assert performance_profile(scores, [0.0, 0.1, 0.5, 0.9]).tolist() == [1.0, 0.75, 0.25, 0.0]


def test_ranks_are_scipys_from_the_top() -> None:
    assert ranks([10.0, 30.0, 10.0, 20.0]).tolist() == [3.5, 1.0, 3.5, 2.0]
    scores = np.random.default_rng(0).integers(0, 5, size=(8, 6)).astype(float)
    assert np.array_equal(ranks(scores), scipy.stats.rankdata(-scores, axis=0))


def test_rank_correlation_is_scipys() -> None:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 6, 30)
    y = x + generator.normal(size=30).round()
    assert rank_correlation(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert np.isnan(rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
    assert np.isnan(rank_correlation([1.0, 2.0], [1.0, 2.0]))


def test_correlation_within_methods_by_hand() -> None:
    rising, falling = (
        ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]),
        ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]),
    )
    # 1 with four seeds and -1 with three, weighted 3 to 2; the methods' levels do not matter.
    shifted = (np.array(rising[0]) + 100, rising[1])
    assert correlation_within([shifted, falling])[0] == pytest.approx((3 - 2) / 5)
    # Methods that do not vary, or have two seeds, say nothing.
    alone = correlation_within([falling, ([1.0] * 4, rising[1]), ([1.0, 2.0], [1.0, 2.0])])
    assert alone[0] == -1 and np.isnan(alone[1:]).all()  # three seeds have no interval
    value, low, high = correlation_within([rising])
    # Full agreement of four seeds: Fisher's z of 0.9, 1.96 * sqrt(1.06) to either side.
    reach = 1.96 * np.sqrt(1.06)
    assert (value, low, high) == pytest.approx((1, *np.tanh(np.arctanh(0.9) + [-reach, reach])))
    assert low < 0 < high
    assert np.isnan(correlation_within([])).all()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_correlations_are_covered(rho: float, shared: bool) -> None:
    # Of normal seeds, Spearman's correlation is 6 / pi asin(rho / 2). Methods that share their
    # seeds' luck whole are as good as one.
    true = 6 / np.pi * np.arcsin(rho / 2)
    generator = np.random.default_rng(int(10 * rho))
    for seeds in (4, 5, 10):
        covered = 0
        for _ in range(200):
            one, other = generator.normal(size=(2, 1 if shared else 3, seeds))
            other = rho * one + np.sqrt(1 - rho**2) * other
            groups = list(zip(one, other, strict=True)) * (3 if shared else 1)
            _, low, high = correlation_within(groups)
            covered += low <= true <= high
        assert covered >= 0.9 * 200


def test_global_generators_are_left_alone() -> None:
    np.random.seed(0)
    before = np.random.get_state()[2]
    interval([1.0, 2.0, 3.0])
    assert np.random.get_state()[2] == before


@pytest.mark.parametrize("function", [mean, interquartile_mean, interval])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(function, bad) -> None:
    with pytest.raises(ValueError, match="not finite"):
        function([1.0, bad, 2.0])


@pytest.mark.parametrize("function", [mean, interquartile_mean, interval])
@pytest.mark.parametrize("empty", [[], np.zeros((0, 4)), 1.0])
def test_no_seeds_are_refused(function, empty) -> None:
    with pytest.raises(ValueError, match="at least one seed"):
        function(empty)


def test_torch_is_not_needed() -> None:
    code = "import sys, clrl.report.aggregate; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@given(
    hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(-1e3, 1e3)),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_statistics_stay_inside_the_data(seeds, random) -> None:
    order = list(range(len(seeds)))
    random.shuffle(order)
    slack = 1e-9 * (1 + np.abs(seeds).max())
    for statistic in (mean, interquartile_mean):
        found = float(statistic(seeds))
        assert seeds.min() - slack <= found <= seeds.max() + slack
        assert float(statistic(seeds[order])) == pytest.approx(found, abs=slack)
        assert float(statistic(2 * seeds + 1)) == pytest.approx(2 * found + 1, abs=4 * slack)
    low, high = interval(seeds)
    assert np.isnan(low) or low <= mean(seeds) <= high
