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
    bootstrap_interval,
    interquartile_mean,
    mean,
    median,
    performance_profile,
    probability_of_improvement,
    rank_correlation,
    ranking,
    ranks,
    resampled,
    stratified_interval,
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


def test_interval_by_hand() -> None:
    # Seeds 0 and 1: the mean of two draws is 0, 1/2, 1 with chances 1/4, 1/2, 1/4. With one degree
    # of freedom t = tan(pi (p - 1/2)). A 95% interval (t = 12.7) has quantiles 0 and 1; one of
    # 10% (p = 0.45, t = -0.158, times sqrt 2 -0.224, Phi 0.411) has those of 0.411 and 0.589: 1/2.
    assert bootstrap_interval([0.0, 1.0]) == (0.0, 1.0)
    assert bootstrap_interval([0.0, 1.0], confidence=0.1) == (0.5, 0.5)
    # 40%: p = 0.3, t = -0.727, times sqrt 2 -1.027, Phi 0.152, below the 1/4 of mean 0.
    assert bootstrap_interval([0.0, 1.0], confidence=0.4) == (0.0, 1.0)


def test_interval_close_to_the_normal_one() -> None:
    # 0..99: their standard deviation, with 99 in the denominator, is 29.011, of the mean 2.9011;
    # Student's interval is 49.5 -/+ 1.984 * 2.9011. 2,000 draws put a bound off by about 0.2.
    low, high = bootstrap_interval(np.arange(100.0))
    assert float(low) == pytest.approx(49.5 - 5.756, abs=0.7)
    assert float(high) == pytest.approx(49.5 + 5.756, abs=0.7)


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_interval_is_the_statistic_of_resampled_seeds(statistic) -> None:
    # One resample: both bounds are the statistic of one draw of whole curves with replacement.
    curves = np.random.default_rng(0).normal(size=(3, 2))
    low, high = bootstrap_interval(curves, statistic, resamples=1)
    draws = [curves[[i, j, k]] for i in range(3) for j in range(3) for k in range(3)]
    assert low.tolist() == high.tolist()
    assert any(np.allclose(low, statistic(draw), rtol=1e-12) for draw in draws)


def expanded(confidence: float, seeds: int) -> float:
    """The plain percentile interval whose quantiles ours has, by SciPy's distributions."""
    t = scipy.stats.t.ppf((1 + confidence) / 2, seeds - 1)
    return float(1 - 2 * scipy.stats.norm.sf(np.sqrt(seeds / (seeds - 1)) * t))


@pytest.mark.parametrize("statistic", [mean, interquartile_mean, median])
@pytest.mark.parametrize("seeds", [7, 20])
def test_interval_against_scipy(statistic, seeds) -> None:
    # Other draws of the same distribution: 20,000 on both sides put a bound off by some percent of
    # the width. Exponential data, so that the sides differ.
    values = np.random.default_rng(3).exponential(size=seeds)
    low, high = bootstrap_interval(values, statistic, resamples=20_000)
    other = scipy.stats.bootstrap(
        (values,),
        lambda draws, axis: statistic(np.moveaxis(draws, axis, 0)),
        n_resamples=20_000,
        confidence_level=expanded(0.95, seeds),
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    width = other.high - other.low
    assert float(low) == pytest.approx(other.low, abs=0.05 * width)
    assert float(high) == pytest.approx(other.high, abs=0.05 * width)


def test_stratified_interval_against_scipy() -> None:
    # SciPy draws each of several samples apart, which is what strata are.
    generator = np.random.default_rng(5)
    groups = (generator.normal(1, 1, 12), generator.normal(0, 3, 12))
    low, high = stratified_interval(
        groups, lambda draws: draws[0].mean(axis=0) - draws[1].mean(axis=0), resamples=20_000
    )
    other = scipy.stats.bootstrap(
        groups,
        lambda one, two, axis: one.mean(axis=axis) - two.mean(axis=axis),
        n_resamples=20_000,
        confidence_level=expanded(0.95, 12),
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    width = other.high - other.low
    assert low == pytest.approx(other.low, abs=0.05 * width)
    assert high == pytest.approx(other.high, abs=0.05 * width)


def test_strata_keep_apart() -> None:
    # Two constant groups: every draw gives the same difference, whatever is drawn.
    groups = (np.full(5, 3.0), np.full(4, 1.0))
    low, high = stratified_interval(groups, lambda d: d[0].mean(axis=0) - d[1].mean(axis=0))
    assert (low, high) == (2.0, 2.0)
    assert np.isnan(stratified_interval(([1.0], [2.0]), lambda d: d[0].mean(axis=0))).all()
    assert [draw.shape for draw in resampled(groups, 7)] == [(5, 7), (4, 7)]


@pytest.mark.parametrize(
    ("statistic", "seeds", "least", "most"),
    [
        # 1,000 experiments put a share off by 0.007. The plain percentile interval of the mean has
        # 0.84 at 5 seeds, 0.91 at 10 and 0.93 at 20.
        (mean, 5, 0.90, 0.95),
        (mean, 10, 0.92, 0.96),
        (mean, 20, 0.93, 0.97),
        (interquartile_mean, 5, 0.91, 0.97),
        (interquartile_mean, 20, 0.93, 0.99),
    ],
)
def test_coverage_of_normal_data(statistic, seeds, least, most) -> None:
    experiments = np.random.default_rng(7).normal(size=(seeds, 1000))
    low, high = bootstrap_interval(experiments, statistic, resamples=1000)
    assert least <= ((low <= 0) & (high >= 0)).mean() <= most
    low, high = bootstrap_interval(experiments, mean, confidence=0.5, resamples=1000)
    assert 0.44 <= ((low <= 0) & (high >= 0)).mean() <= 0.56


@pytest.mark.slow
def test_coverage_of_skewed_data_and_of_comparisons() -> None:
    # 2,000 experiments of 10 exponential seeds: the plain interval has 0.86, a t interval 0.90.
    experiments = np.random.default_rng(8).exponential(size=(10, 2000))
    low, high = bootstrap_interval(experiments)
    assert 0.89 <= ((low <= 1) & (high >= 1)).mean() <= 0.95
    # Two normal methods a standard deviation apart: one is better with chance Phi(1 / sqrt 2).
    true, covered = 0.7602, 0
    generator = np.random.default_rng(9)
    for _ in range(1000):
        groups = generator.normal(1, 1, 10), generator.normal(0, 1, 10)
        bounds = stratified_interval(
            groups, lambda d: probability_of_improvement(*d), resamples=500
        )
        covered += bounds[0] <= true <= bounds[1]
    assert 0.90 <= covered / 1000 <= 0.98


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


def test_ranking_by_hand() -> None:
    # Constant seeds: no draw differs. First benchmark 2 > 1 > 0, second 1 > 0 > 2.
    first = [[1.0] * 4, [2.0] * 4, [3.0] * 4]
    second = [[2.0] * 4, [9.0] * 4, [0.0] * 4]
    found = ranking([first])
    assert found.rank.tolist() == found.low.tolist() == found.high.tolist() == [3.0, 2.0, 1.0]
    assert found.best.tolist() == [0.0, 0.0, 1.0]
    both = ranking([first, second])
    assert both.rank.tolist() == [2.5, 1.5, 2.0]
    # Draws of benchmarks: both are the first or both the second (1/4 each), or one of either.
    assert (both.low[0], both.high[0]) == (2.0, 3.0)
    assert (both.low[1], both.high[1]) == (1.0, 2.0)
    # 0 never leads; 1 leads alone when the second is drawn, or one of either (3/4); 2 else.
    assert both.best == pytest.approx([0.0, 0.75, 0.25], abs=0.04)


def test_ranking_is_unsure_where_methods_are_alike() -> None:
    generator = np.random.default_rng(1)
    found = ranking([[generator.normal(size=10) for _ in range(2)]])
    assert (found.low == 1).all() and (found.high == 2).all()
    assert found.best.sum() == pytest.approx(1.0)


def test_the_seed_decides_the_draws() -> None:
    curves = np.random.default_rng(0).normal(size=(6, 3))
    first = np.stack(bootstrap_interval(curves, seed=1))
    assert np.array_equal(first, np.stack(bootstrap_interval(curves, seed=1)))
    assert not np.array_equal(first, np.stack(bootstrap_interval(curves, seed=2)))


def test_global_generators_are_left_alone() -> None:
    np.random.seed(0)
    before = np.random.get_state()[2]
    bootstrap_interval([1.0, 2.0, 3.0])
    assert np.random.get_state()[2] == before


def test_a_long_curve_is_each_of_its_points() -> None:
    # Longer than is drawn at once (5 seeds x 2,000 draws x 400 points).
    curves = np.random.default_rng(0).normal(size=(5, 400))
    low, high = bootstrap_interval(curves)
    assert low.shape == high.shape == (400,)
    for point in range(400):
        alone = bootstrap_interval(curves[:, point])
        assert (low[point], high[point]) == pytest.approx([float(bound) for bound in alone])


def test_an_empty_curve() -> None:
    low, high = bootstrap_interval(np.zeros((3, 0)))
    assert low.shape == high.shape == (0,)


def test_constant_data_has_an_interval_without_width() -> None:
    low, high = bootstrap_interval(np.full((7, 2), 0.1), interquartile_mean)
    assert low.tolist() == pytest.approx([0.1, 0.1]) and high.tolist() == pytest.approx([0.1, 0.1])


def test_one_seed_has_no_interval() -> None:
    low, high = bootstrap_interval([3.0])
    assert low.shape == high.shape == () and np.isnan(low) and np.isnan(high)
    low, high = bootstrap_interval([[3.0, 4.0]])
    assert low.shape == high.shape == (2,) and np.isnan([low, high]).all()


@pytest.mark.parametrize("function", [mean, interquartile_mean, bootstrap_interval])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(function, bad) -> None:
    with pytest.raises(ValueError, match="not finite"):
        function([1.0, bad, 2.0])


@pytest.mark.parametrize("function", [mean, interquartile_mean, bootstrap_interval])
@pytest.mark.parametrize("empty", [[], np.zeros((0, 4)), 1.0])
def test_no_seeds_are_refused(function, empty) -> None:
    with pytest.raises(ValueError, match="at least one seed"):
        function(empty)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"confidence": 0.0}, "confidence"),
        ({"confidence": 1.0}, "confidence"),
        ({"confidence": 95}, "confidence"),
        ({"resamples": 0}, "resamples"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval([1.0, 2.0], **setting)


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
    low, high = bootstrap_interval(seeds, resamples=50)
    assert len(seeds) == 1 or seeds.min() - slack <= low <= high <= seeds.max() + slack
