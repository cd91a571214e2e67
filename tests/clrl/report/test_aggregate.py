"""Statistics over seeds, against numbers worked by hand and by simulation."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from clrl.report.aggregate import bootstrap_interval, interquartile_mean, mean


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
    # Seeds 0 and 1: the mean of two draws is 0, 1/2, 1 with chances 1/4, 1/2, 1/4. The 2.5%
    # and 97.5% quantiles are 0 and 1; those of a 40% interval (30% and 70%) both 1/2.
    assert bootstrap_interval([0.0, 1.0]) == (0.0, 1.0)
    assert bootstrap_interval([0.0, 1.0], confidence=0.4) == (0.5, 0.5)


def test_interval_close_to_the_normal_one() -> None:
    # 0..99: standard deviation sqrt((100^2 - 1) / 12) = 28.866, of the mean 2.8866; the normal
    # interval is 49.5 -/+ 1.96 * 2.8866. 2,000 draws put a bound off by about 0.2.
    low, high = bootstrap_interval(np.arange(100.0))
    assert float(low) == pytest.approx(49.5 - 5.658, abs=0.7)
    assert float(high) == pytest.approx(49.5 + 5.658, abs=0.7)


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_interval_is_the_statistic_of_resampled_seeds(statistic) -> None:
    # One resample: both bounds are the statistic of one draw of whole curves with replacement.
    curves = np.random.default_rng(0).normal(size=(3, 2))
    low, high = bootstrap_interval(curves, statistic, resamples=1)
    draws = [curves[[i, j, k]] for i in range(3) for j in range(3) for k in range(3)]
    assert low.tolist() == high.tolist()
    assert any(np.allclose(low, statistic(draw), rtol=1e-12) for draw in draws)


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_coverage_of_normal_data(statistic) -> None:
    # 1,000 experiments of 20 seeds at once, true value 0. The percentile bootstrap of the mean
    # is known to be a little narrow at n = 20: about 92 to 93% in place of 95%.
    experiments = np.random.default_rng(7).normal(size=(20, 1000))
    low, high = bootstrap_interval(experiments, statistic, resamples=1000)
    covered = ((low <= 0) & (high >= 0)).mean()
    assert 0.89 <= covered <= 0.97
    low, high = bootstrap_interval(experiments, statistic, confidence=0.5, resamples=1000)
    assert 0.43 <= ((low <= 0) & (high >= 0)).mean() <= 0.54


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
