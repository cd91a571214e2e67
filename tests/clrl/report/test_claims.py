"""What is claimed of methods: the tests by hand, and how often they claim what is not so."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from clrl.report.aggregate import interval
from clrl.report.analysis import Method, Study
from clrl.report.claims import LEVEL, compare, corrected, enough, least_p, rank_test
from clrl.report.runs import PERFORMANCES, Grid, Run
from clrl.report.verdict import comparisons, of_study

Draws = np.random.Generator


def outcomes(kind: str, generator: Draws, shape: tuple[int, ...]) -> np.ndarray:
    """Outcomes of seeds whose mean is 0."""
    if kind == "normal":
        return generator.normal(size=shape)
    if kind == "skewed":  # log-normal: a few far above the rest
        return generator.lognormal(size=shape) - np.exp(0.5)
    # Two modes: half of the seeds collapse, by six standard deviations of the others' spread.
    return generator.normal(size=shape) + 6.0 * (generator.random(shape) < 0.5) - 3.0


KINDS = ("normal", "skewed", "bimodal")


def study(values: np.ndarray) -> Study:
    """A benchmark on which each method's seeds had these values."""
    methods = []
    for number, of_method in enumerate(values):
        label = f"m{number}"
        runs = [
            Run("b", label, seed, "finished", performance=PERFORMANCES[0], online=float(value))
            for seed, value in enumerate(of_method)
        ]
        methods.append(Method(label, label, runs, runs))
    made = Study("b", PERFORMANCES[0], Grid.of(100, 10), methods, {}, [], False)
    made.claims = compare({"b": {method.label: made.scores(method) for method in methods}})["b"]
    return made


def false_claims(kind: str, seeds: int, methods: int, repetitions: int) -> float:
    """How often the verdict claims anything of methods that are alike."""
    generator = np.random.default_rng([seeds, methods, KINDS.index(kind)])
    drawn = outcomes(kind, generator, (repetitions, methods, seeds))
    said = [comparisons(study(values)) for values in drawn]
    return float(np.mean(["The seeds show " in one[0] for one in said]))


def coverage(kind: str, seeds: int, repetitions: int) -> float:
    """How often the interval holds the true mean."""
    generator = np.random.default_rng([seeds, KINDS.index(kind)])
    low, high = interval(outcomes(kind, generator, (seeds, repetitions)))
    return float(((low <= 0) & (high >= 0)).mean())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("methods", [2, 6])
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_one_report_in_twenty_claims_what_is_not_so_at_most(
    seeds: int, methods: int, kind: str
) -> None:
    # The tests are exact, so that the true share is below 5%: 4.4% at most. 600 put it off by 0.9.
    assert false_claims(kind, seeds, methods, 600) <= LEVEL + 0.015


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("methods", [2, 6])
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_so_it_is_over_many_reports(seeds: int, methods: int, kind: str) -> None:
    assert false_claims(kind, seeds, methods, 20_000) <= LEVEL


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seeds", [3, 4, 5, 7, 10, 20])
def test_intervals_hold_nine_times_in_ten(seeds: int, kind: str) -> None:
    assert coverage(kind, seeds, 40_000) >= 0.9


def test_two_seeds_have_no_interval() -> None:
    assert np.isnan(interval(outcomes("normal", np.random.default_rng(0), (2, 5)))).all()


def test_differences_that_are_there_are_shown() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(3, 10)) + np.array([[0.0], [6.0], [12.0]])
    claims = study(values).claims
    assert claims.made == 3 and claims.against is None
    assert {(one.better, one.than) for one in claims.comparisons} == {
        ("m1", "m0"), ("m2", "m0"), ("m2", "m1"),
    }  # fmt: skip
    assert all(one.shown and one.probability == 1 for one in claims.comparisons)
    assert claims.beaten("m2") == ["m0", "m1"] and claims.beaten("m0") == []


@pytest.mark.parametrize(("one", "other"), [(2, 3), (4, 4), (5, 3), (1, 6)])
@pytest.mark.parametrize("levels", [3, 1000])
def test_the_rank_test_counts_every_division(one: int, other: int, levels: int) -> None:
    # Against all divisions of the seeds in two, with many ties and with none.
    values = np.random.default_rng(one + levels).integers(0, levels, one + other).astype(float)
    places = scipy.stats.rankdata(values)
    centre = one * places.mean()
    sums = [sum(places[list(c)]) for c in itertools.combinations(range(one + other), one)]
    far = abs(places[:one].sum() - centre)
    expected = np.mean([abs(found - centre) >= far - 1e-9 for found in sums])
    assert rank_test(values[:one], values[one:]) == pytest.approx(expected)


def test_the_rank_test_is_scipys_where_there_are_no_ties() -> None:
    generator = np.random.default_rng(0)
    for one, other in ((3, 3), (5, 8), (10, 10), (30, 20)):
        x, y = generator.normal(0.5, 1, one), generator.normal(0, 1, other)
        expected = scipy.stats.mannwhitneyu(x, y, method="exact").pvalue
        assert rank_test(x, y) == pytest.approx(expected)
        assert rank_test(x, y) == rank_test(y, x)


def test_seeds_that_are_all_equal_show_nothing() -> None:
    assert rank_test([1.0] * 5, [1.0] * 5) == 1.0


def test_full_separation_has_the_least_p() -> None:
    assert rank_test([1.0, 2.0], [3.0, 4.0]) == least_p(2, 2) == pytest.approx(2 / 6)
    assert least_p(5, 5) == pytest.approx(2 / 252)
    # 4 seeds a method: 2 / 70; 5: 2 / 252, for up to 6 comparisons.
    assert [enough(number) for number in (1, 2, 6, 7)] == [4, 5, 5, 6]


def test_holm_by_hand() -> None:
    # 0.01 * 4, then 0.02 * 3, 0.03 * 2 and 0.04 * 1, none below the one before; at most 1.
    assert corrected([0.03, 0.01, 0.04, 0.02]).tolist() == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert corrected([0.9, 0.8]).tolist() == [1.0, 1.0] and corrected([]).tolist() == []


def test_what_is_compared_follows_from_the_numbers_of_seeds() -> None:
    def designs(**sizes: list[int]) -> dict[str, tuple[int, int, str | None]]:
        scores = {
            name: {str(i): list(np.arange(float(n))) for i, n in enumerate(of)}
            for name, of in sizes.items()
        }
        return {
            name: (len(one.comparisons), one.made, one.against)
            for name, one in compare(scores).items()
        }

    assert designs(b=[4, 4]) == {"b": (1, 1, None)}
    assert designs(b=[5] * 4) == {"b": (6, 6, None)}
    assert designs(b=[5] * 5) == {"b": (4, 4, "0")}  # ten pairs are too many for five seeds
    assert designs(b=[3, 3]) == designs(b=[4, 4, 4]) == designs(b=[5]) == {"b": (0, 0, None)}
    assert designs(b=[0, 5, 5]) == {"b": (1, 1, None)}  # a method that has not begun
    # All comparisons of a report are corrected together: 1 + 10 are too many, 1 + 4 are not.
    assert designs(a=[5, 5], b=[5] * 5) == {"a": (1, 5, None), "b": (4, 5, "0")}
    # What can show nothing is not made, and takes nothing from the rest.
    assert designs(a=[4, 4], b=[2] * 6) == {"a": (1, 1, None), "b": (0, 1, None)}


def test_the_verdict_of_few_seeds() -> None:
    (said,) = comparisons(study(np.array([[1.0, 2.0], [8.0, 9.0]])))
    assert said == (
        "2 seeds a method cannot show that one method is better than another: even if every seed "
        "of one did better than all of another, chance alone would do as much in 33% of cases. "
        "Nothing is compared; with 4 seeds a method, each could be compared with the suite's first."
    )
    text = " ".join(of_study(study(np.array([[1.0, 2.0], [8.0, 9.0]]))))
    assert text.startswith("Mean return over the whole run (2 seeds a method): m0 1.50; m1 8.50.")
    assert "[" not in text
    (many,) = comparisons(study(np.arange(40.0).reshape(10, 4)))
    assert "corrected for the comparisons to be made, no outcome would be beyond chance" in many


def test_the_verdict_of_enough_seeds() -> None:
    apart = np.arange(5.0) + np.array([[0.0], [10.0]])
    assert comparisons(study(apart)) == [
        "The seeds show m1 better than m0 (exact rank test, corrected for 1 comparison)."
    ]
    (said,) = comparisons(study(np.array([[1.0, 3.0, 5.0, 7.0], [2.0, 4.0, 6.0, 8.0]])))
    assert said.startswith("The seeds do not show either to be better than the other (exact rank")
    levels = np.array([[10.0], [20.0], [0.0], [10.5], [30.0]])
    (said,) = comparisons(study(np.arange(5.0) + levels))
    assert said.startswith("5 seeds a method cannot tell all pairs of these methods apart, so that")
    assert said.endswith(
        "The seeds show m1 and m4 better than m0; m2 worse than m0; nothing of m3 (exact rank "
        "test, corrected for 4 comparisons)."
    )
    generator = np.random.default_rng(0)
    (said,) = comparisons(study(generator.normal(size=(3, 10)) + np.array([[0.0], [0.0], [9.0]])))
    assert said.startswith("The seeds show m2 better than m0 and m1; nothing of the other 1 pair")
