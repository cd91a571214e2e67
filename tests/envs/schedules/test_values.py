"""The values of changes: what each class promises, distributions, parameters, descriptions."""

from __future__ import annotations

import copy
import math
import pickle
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clrl.envs.schedules import (
    Choice,
    Cycle,
    Domain,
    EverySteps,
    LinearDrift,
    LogUniform,
    Normal,
    RandomMask,
    RandomPermutation,
    RandomWalk,
    Schedule,
    SinusoidalDrift,
    Uniform,
    Values,
)
from clrl.envs.schedules.values import reflect
from clrl.errors import UsageError

Array = NDArray[Any]
inf, nan = math.inf, math.nan


def real(*shape: int) -> Domain:
    return Domain("Test", "real", np.zeros(shape))


def positive(*shape: int) -> Domain:
    return Domain("Test", "real", np.ones(shape), np.nextafter(0, 1), inf, "numbers > 0")


def whole(low: int = 0, high: int = 9) -> Domain:
    neutral = np.full((), low)
    return Domain("Test", "integer", neutral, low, high, f"a whole number from {low} to {high}")


def truth(*shape: int) -> Domain:
    return Domain("Test", "boolean", np.zeros(shape, np.bool_), 0, 1, "true or false")


def permutation(n: int) -> Domain:
    return Domain("Test", "permutation", np.arange(n), 0, n - 1, f"a permutation of 0 to {n - 1}")


def drawn(values: Values, domain: Domain, n: int, seed: int = 0, cuts: tuple[int, ...] = ()) -> Any:
    """The first n values, drawn in one call or in several."""
    rng, last, pieces = np.random.default_rng(seed), None, []
    edges = sorted({0, n, *(cut for cut in cuts if 0 < cut < n)})
    for begin, end in zip(edges, edges[1:], strict=False):
        piece = values.draw(np.arange(begin, end), last, rng, domain)
        assert piece.shape == (end - begin, *domain.shape) and piece.dtype == domain.dtype
        last = piece[-1]
        pieces.append(piece)
    return np.concatenate(pieces)


def far_from(sample: Array, cdf: Callable[[Array], Array]) -> float:
    """Kolmogorov's distance from a distribution, times sqrt(n): above 1.95 once in a thousand."""
    x = np.sort(sample.ravel())
    expected, n = cdf(x), x.size
    above, below = np.arange(1, n + 1) / n - expected, expected - np.arange(n) / n
    return float(max(above.max(), below.max()) * math.sqrt(n))


# --------------------------------------------------------------------------------------
# What all promise

numbers = st.floats(-100, 100)
amounts = st.one_of(st.just(0.0), st.floats(1e-3, 50))
shapes = st.sampled_from([(), (1,), (3,), (2, 2)])


@st.composite
def entries(
    draw: st.DrawFn, one: st.SearchStrategy[float], shape: tuple[int, ...]
) -> float | Array:
    """A number for all entries, or one an entry."""
    if draw(st.booleans()):
        return draw(one)
    count = math.prod(shape)
    return np.reshape(draw(st.lists(one, min_size=count, max_size=count)), shape)


@st.composite
def reals(draw: st.DrawFn) -> tuple[Values, Domain]:
    """Any values for real numbers."""
    shape = draw(shapes)

    def some(one: st.SearchStrategy[float]) -> float | Array:
        return draw(entries(one, shape))

    middle, below, above = some(numbers), some(amounts), some(amounts)
    low = -inf if draw(st.booleans()) else np.subtract(middle, below)
    high = inf if draw(st.booleans()) else np.add(middle, above)
    listed = [some(numbers) for _ in range(draw(st.integers(1, 5)))]
    positive_low = some(st.floats(1e-6, 1e3))
    steep = st.one_of(numbers, st.floats(-1e300, 1e300))
    values = draw(
        st.sampled_from(
            [
                Cycle(listed),
                Choice(listed),
                Uniform(np.subtract(middle, below), np.add(middle, above)),
                LogUniform(positive_low, positive_low * np.add(1, above)),
                Normal(middle, below),
                LinearDrift(middle, some(steep), low, high),
                SinusoidalDrift(middle, below, some(st.floats(0.1, 1000)), some(numbers)),
                RandomWalk(middle, some(amounts), draw(st.floats(0, 1)), low, high),
            ]
        )
    )
    return values, real(*shape)


@st.composite
def others(draw: st.DrawFn) -> tuple[Values, Domain]:
    """Any values for whole numbers, truth values and permutations."""
    digits = draw(st.lists(st.integers(0, 9), min_size=1, max_size=5))
    shape = draw(shapes)
    size = math.prod(shape)
    bits = st.lists(st.booleans(), min_size=size, max_size=size)
    masks = [np.reshape(draw(bits), shape) for _ in range(draw(st.integers(1, 4)))]
    n = draw(st.integers(1, 6))
    orders = [draw(st.permutations(range(n))) for _ in range(draw(st.integers(1, 4)))]
    return draw(
        st.sampled_from(
            [
                (Cycle(digits), whole()),
                (Choice(digits), whole()),
                (Cycle(masks), truth(*shape)),
                (Choice(masks), truth(*shape)),
                (RandomMask(draw(st.floats(0, 1))), truth(*shape)),
                (Cycle(orders), permutation(n)),
                (Choice(orders), permutation(n)),
                (RandomPermutation(), permutation(n)),
            ]
        )
    )


anything = st.one_of(reals(), others())


@settings(deadline=None, max_examples=200)
@given(made=anything, seed=st.integers(0, 2**32))
def test_values_stay_within_their_bounds(made: tuple[Values, Domain], seed: int) -> None:
    values, domain = made
    values.check(domain)
    low, high = values.bounds(domain)
    assert np.shape(low) == np.shape(high) == domain.shape
    sample = drawn(values, domain, 60, seed)
    assert ((low <= sample) & (sample <= high)).all()
    assert np.isfinite(sample).all()


@settings(deadline=None, max_examples=200)
@given(made=anything, cuts=st.lists(st.integers(1, 59), max_size=6), seed=st.integers(0, 2**32))
def test_how_it_is_cut_does_not_matter(
    made: tuple[Values, Domain], cuts: list[int], seed: int
) -> None:
    values, domain = made
    whole_run = drawn(values, domain, 60, seed)
    assert drawn(values, domain, 60, seed, tuple(cuts)).tobytes() == whole_run.tobytes()
    assert drawn(values, domain, 60, seed, tuple(range(60))).tobytes() == whole_run.tobytes()


@settings(deadline=None, max_examples=100)
@given(made=others())
def test_every_value_is_one_of_the_domain(made: tuple[Values, Domain]) -> None:
    values, domain = made
    for value in drawn(values, domain, 20):
        assert np.array_equal(domain.value(value, "Test.values"), value)


@pytest.mark.parametrize(
    "values",
    [
        Uniform(0, 1),
        LogUniform(1, 2),
        Normal(),
        RandomMask(0.5),
        RandomPermutation(),
        RandomWalk(0, 1),
        Choice([0, 1]),
    ],
    ids=repr,
)
def test_chance_comes_from_the_generator_alone(values: Values) -> None:
    domain = {"boolean": truth(8), "permutation": permutation(8)}.get(values.kinds[0], real(8))
    one, two = drawn(values, domain, 30, seed=1), drawn(values, domain, 30, seed=1)
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != drawn(values, domain, 30, seed=2).tobytes()


@pytest.mark.parametrize("values", [Uniform(0, 1), Normal(), LogUniform(1, 2), RandomWalk(0, 1)])
def test_entries_have_numbers_of_their_own(values: Values) -> None:
    sample = drawn(values, real(3, 2), 20)
    assert len(np.unique(sample[1])) == 6


# --------------------------------------------------------------------------------------
# Permutations and masks


@settings(deadline=None, max_examples=50)
@given(n=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_permutations_are_bijections_and_invert(n: int, seed: int) -> None:
    for p in drawn(RandomPermutation(), permutation(n), 5, seed):
        assert sorted(p) == list(range(n))
        x = np.arange(100, 100 + n)
        assert np.array_equal(x[p][np.argsort(p)], x)


def test_all_permutations_are_equally_likely() -> None:
    n = 12_000
    sample = drawn(RandomPermutation(), permutation(3), n)
    counts = Counter(map(tuple, sample.tolist()))
    assert len(counts) == 6
    # Chi-square with 5 degrees of freedom: above 20.5 once in a thousand.
    assert sum((count - n / 6) ** 2 / (n / 6) for count in counts.values()) < 20.5
    # One after the other: all 36 pairs, above 66.6 once in a thousand.
    pairs = Counter(map(tuple, sample.reshape(n // 2, 6).tolist()))
    assert len(pairs) == 36
    assert sum((count - n / 72) ** 2 / (n / 72) for count in pairs.values()) < 66.6


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
def test_masks_are_true_as_often_as_asked(probability: float) -> None:
    sample = drawn(RandomMask(probability), truth(50), 400)
    spread = math.sqrt(probability * (1 - probability) / sample.size)
    assert abs(sample.mean() - probability) <= 4 * spread


# --------------------------------------------------------------------------------------
# Distributions


def test_uniform_is_uniform() -> None:
    sample = drawn(Uniform([-2.0, 5.0], [1.0, 5.5]), real(2), 10_000)
    assert far_from(sample[:, 0], lambda x: (x + 2) / 3) < 1.95
    assert far_from(sample[:, 1], lambda x: (x - 5) / 0.5) < 1.95
    assert abs(np.corrcoef(sample.T)[0, 1]) < 0.04


def test_the_logarithm_of_log_uniform_is_uniform() -> None:
    sample = drawn(LogUniform(0.02, 2.0), real(), 20_000)
    assert far_from(np.log(sample), lambda x: (x - np.log(0.02)) / np.log(100)) < 1.95
    # As often in [.02, .2) as in [.2, 2).
    assert abs((sample < 0.2).mean() - 0.5) < 4 * 0.5 / math.sqrt(20_000)


@pytest.mark.parametrize(("low", "high"), [(1e-300, 1e300), (5e-324, 1.0)])
def test_log_uniform_of_any_range(low: float, high: float) -> None:
    middle = math.exp((math.log(low) + math.log(high)) / 2)
    sample = drawn(LogUniform(low, high), real(), 2000)
    assert abs((sample < middle).mean() - 0.5) < 4 * 0.5 / math.sqrt(2000)


def test_normal_is_normal() -> None:
    sample = drawn(Normal([3.0, -1.0], [2.0, 0.5]), real(2), 20_000)
    for entry, (mean, std) in zip(sample.T, [(3.0, 2.0), (-1.0, 0.5)], strict=True):
        erf = np.vectorize(lambda x, m=mean, s=std: (1 + math.erf((x - m) / s / math.sqrt(2))) / 2)
        assert far_from(entry, erf) < 1.95
        assert abs(entry.mean() - mean) < 4 * std / math.sqrt(20_000)
        assert abs(entry.std() - std) < 4 * std / math.sqrt(2 * 20_000)


def test_normal_without_deviation_is_its_mean() -> None:
    assert drawn(Normal(3.5, 0), real(2), 5).tolist() == [[3.5, 3.5]] * 5
    low, high = Normal([1.0, 2.0], [0.0, 1.0]).bounds(real(2))
    assert low.tolist() == [1, -inf] and high.tolist() == [1, inf]


@pytest.mark.parametrize(
    ("given", "chances"),
    [(None, [1 / 3] * 3), ([0.2, 0.3, 0.5], [0.2, 0.3, 0.5]), ([0, 1, 0], [0, 1, 0])],
)
def test_choice_keeps_to_its_probabilities(given: Any, chances: list[float]) -> None:
    n = 20_000
    sample = drawn(Choice([7.0, 8.0, 9.0], given), real(), n)
    for value, chance in zip([7.0, 8.0, 9.0], chances, strict=True):
        spread = math.sqrt(chance * (1 - chance) / n)
        assert abs((sample == value).mean() - chance) <= 4 * spread
    # The same may come twice: neighbours are alike as often as by chance.
    alike = sum(chance**2 for chance in chances)
    assert abs((sample[1:] == sample[:-1]).mean() - alike) <= 4 * math.sqrt(alike / n) + 1e-9


def test_what_has_no_chance_never_comes() -> None:
    class Edges(np.random.Generator):
        """The least and the greatest number that can be drawn."""

        def random(self, *args: Any, **kwargs: Any) -> Any:
            return np.array([0.0, np.nextafter(1, 0)])

    choice = Choice([1.0, 2.0, 3.0], [0, 1, 0])
    ends = choice.draw(np.arange(2), None, Edges(np.random.PCG64(0)), real())
    assert ends.tolist() == [2, 2]


def test_choice_takes_values_whole() -> None:
    sample = drawn(Choice([[1, 2, 3], [4, 5, 6]]), real(3), 50).tolist()
    assert {tuple(value) for value in sample} == {(1, 2, 3), (4, 5, 6)}


# --------------------------------------------------------------------------------------
# Cycles and drifts by hand


def test_cycle_by_hand() -> None:
    assert drawn(Cycle([5, 1, 3]), real(), 7).tolist() == [5, 1, 3, 5, 1, 3, 5]
    assert drawn(Cycle([0, [1, 2]]), real(2), 3).tolist() == [[0, 0], [1, 2], [0, 0]]
    assert drawn(Cycle([3, 1]), whole(), 3).tolist() == [3, 1, 3]
    assert drawn(Cycle([True, 0]), truth(2), 2).tolist() == [[True] * 2, [False] * 2]
    assert drawn(Cycle([[2, 0, 1], [0, 1, 2]]), permutation(3), 2).tolist() == [
        [2, 0, 1],
        [0, 1, 2],
    ]
    low, high = Cycle([[1, 5], [2, 3]]).bounds(real(2))
    assert low.tolist() == [1, 3] and high.tolist() == [2, 5]


@pytest.mark.parametrize(
    ("drift", "expected"),
    [
        (LinearDrift(1, 2), [1, 3, 5, 7, 9, 11]),
        (LinearDrift(1, -2), [1, -1, -3, -5, -7, -9]),
        (LinearDrift(0, 1, 0, 3), [0, 1, 2, 3, 2, 1]),
        (LinearDrift(1, -1, 0, 3), [1, 0, 1, 2, 3, 2]),
        (LinearDrift(1, 5, 0, 3), [1, 0, 1, 2, 3, 2]),  # one whole turn in six units
        (LinearDrift(2, 1, high=4), [2, 3, 4, 3, 2, 1]),
        (LinearDrift(2, -1.5, low=0), [2, 0.5, 1, 2.5, 4, 5.5]),
        (LinearDrift(4, 3, 4, 4), [4] * 6),
        (LinearDrift(1, 0, 0, 3), [1] * 6),
    ],
    ids=repr,
)
def test_straight_lines_by_hand(drift: LinearDrift, expected: list[float]) -> None:
    assert drawn(drift, real(), 6).tolist() == expected


def test_straight_lines_are_exact_far_out() -> None:
    index = np.array([10**9, 10**9 + 1, 10**9 + 2])
    rng = np.random.default_rng(0)
    far = LinearDrift(0, 0.25, 0, 3).draw(index, None, rng, real())
    # 24 units a turn, of which 10**9 leaves 16: 4 up to 3, and 1 down.
    assert far.tolist() == [2.0, 1.75, 1.5]


@pytest.mark.parametrize("slope", [1e307, -1.7e308])
def test_however_steep_a_line_it_stays_within_its_bounds(slope: float) -> None:
    sample = drawn(LinearDrift(0.5, slope, 0, 1), real(), 60)
    assert ((sample >= 0) & (sample <= 1)).all()


def test_swings_by_hand() -> None:
    swing = SinusoidalDrift(mean=10, amplitude=5, period=4)
    assert drawn(swing, real(), 6) == pytest.approx([10, 15, 10, 5, 10, 15])
    shifted = SinusoidalDrift(mean=10, amplitude=5, period=8, phase=0.25)
    half = 5 * math.sqrt(0.5)
    assert drawn(shifted, real(), 4) == pytest.approx([15, 10 + half, 10, 10 - half])
    several = SinusoidalDrift([1, 2], [1, 0], [4, 2], [0, 0.5])
    assert drawn(several, real(2), 3) == pytest.approx(np.array([[1, 2], [2, 2], [1, 2]]))
    low, high = swing.bounds(real())
    assert (low, high) == (5, 15)


def test_swings_are_exact_far_out() -> None:
    index = np.array([10**9 + k for k in range(5)])
    far = SinusoidalDrift(0, 1, 4).draw(index, None, np.random.default_rng(0), real())
    assert far == pytest.approx([0, 1, 0, -1, 0], abs=1e-12)


def test_walks_start_at_their_mean_and_add_up_their_noise() -> None:
    walk = drawn(RandomWalk(3.0, 0.5, pull=0.0), real(4000), 40)
    assert (walk[0] == 3).all()
    steps = np.diff(walk, axis=0)
    assert abs(steps.mean()) < 4 * 0.5 / math.sqrt(steps.size)
    assert abs(steps.std() - 0.5) < 4 * 0.5 / math.sqrt(2 * steps.size)
    assert abs(np.corrcoef(steps[:-1].ravel(), steps[1:].ravel())[0, 1]) < 4 / math.sqrt(steps.size)
    # Without pull the variance grows by one step's at every step.
    assert walk[39].var() == pytest.approx(39 * 0.25, rel=4 * math.sqrt(2 / 4000))


@pytest.mark.parametrize("pull", [0.1, 0.5, 1.0])
def test_pulled_walks_settle(pull: float) -> None:
    std, lanes = 0.5, 5000
    walk = drawn(RandomWalk(3.0, std, pull), real(lanes), 80)
    settled = walk[60:]
    expected = std**2 / (1 - (1 - pull) ** 2)
    assert walk[-1].mean() == pytest.approx(3, abs=4 * math.sqrt(expected / lanes))
    assert walk[-1].var() == pytest.approx(expected, rel=4 * math.sqrt(2 / lanes))
    # Neighbours are correlated as the pull says.
    correlation = np.mean((settled[:-1] - 3) * (settled[1:] - 3)) / expected
    assert correlation == pytest.approx(1 - pull, abs=0.03)


def test_walks_bounce() -> None:
    free = drawn(RandomWalk(1.0, 0.3), real(50), 2)
    bound = drawn(RandomWalk(1.0, 0.3, low=1.0, high=1.5), real(50), 2)
    expected = [float(bounced(x, 1.0, 1.5)) for x in free[1]]
    assert bound[1] == pytest.approx(expected)
    long = drawn(RandomWalk(0.0, 0.5, low=0.0, high=1.0), real(200), 200)
    # A reflected walk fills its range evenly.
    assert long[100:].mean() == pytest.approx(0.5, abs=0.02)
    assert (long[100:] < 0.25).mean() == pytest.approx(0.25, abs=0.02)


# --------------------------------------------------------------------------------------
# Reflection


def bounced(x: float, low: float, high: float) -> Fraction | float:
    """Where a ball lands: one bounce after the other, in exact numbers."""
    if low == high:
        return low
    place = Fraction(x)
    while True:
        if low > -inf and place < low:
            place = 2 * Fraction(low) - place
        elif high < inf and place > high:
            place = 2 * Fraction(high) - place
        else:
            return place


spans = st.one_of(st.just(0.0), st.just(inf), st.floats(1, 50))


@settings(deadline=None, max_examples=300)
@given(x=st.floats(-1000, 1000), low=st.one_of(st.just(-inf), numbers), span=spans, at=numbers)
def test_reflection_is_bouncing(x: float, low: float, span: float, at: float) -> None:
    high = inf if math.isinf(span) else (at if math.isinf(low) else low + span)
    landed = reflect(np.float64(x), np.float64(low), np.float64(high))
    assert low <= landed <= high
    assert float(landed) == pytest.approx(float(bounced(x, low, high)), abs=1e-9)
    if low <= x <= high:
        assert landed == x


def test_reflection_entry_by_entry() -> None:
    x = np.array([[-1.0, -1.0, -1.0, -1.0], [5.0, 5.0, 5.0, 5.0]])
    low, high = np.array([-inf, 0.0, -inf, 0.0]), np.array([inf, inf, 2.0, 2.0])
    assert reflect(x, low, high).tolist() == [[-1, 1, -1, 1], [5, 5, -1, 1]]
    ends = reflect(np.array([0.0, 2.0, -0.5, 2.5]), np.zeros(4), np.full(4, 2.0))
    assert ends.tolist() == [0, 2, 0.5, 1.5]


# --------------------------------------------------------------------------------------
# Bounds, and what does not fit


def bounds(values: Values, domain: Domain, start: Any = "drawn") -> tuple[Array, Array]:
    return Schedule(EverySteps(1), values, start).bounds(domain)


def test_bounds_by_hand() -> None:
    for values, expected in [
        (Uniform(1, 2), (1, 2)),
        (LogUniform(1, 2), (1, 2)),
        (Normal(1, 2), (-inf, inf)),
        (LinearDrift(1, 1, -5, 5), (-5, 5)),
        (LinearDrift(1, 1), (-inf, inf)),
        (SinusoidalDrift(1, 3, 10), (-2, 4)),
        (RandomWalk(1, 1, 0.1, -5, 5), (-5, 5)),
        (Cycle([3, -1, 2]), (-1, 3)),
        (Choice([3, -1, 2]), (-1, 3)),
    ]:
        low, high = bounds(values, real(2))
        assert low.tolist() == [expected[0]] * 2 and high.tolist() == [expected[1]] * 2
    low, high = bounds(RandomMask(0.5), truth(2))
    assert low.tolist() == [False] * 2 and high.tolist() == [True] * 2
    low, high = bounds(RandomPermutation(), permutation(3))
    assert low.tolist() == [0] * 3 and high.tolist() == [2] * 3


def test_an_unchanged_start_counts_among_the_bounds() -> None:
    domain = Domain("Test", "real", np.array([0.0, 1.5, 9.0]))
    low, high = bounds(Uniform(1, 2), domain, "unchanged")
    assert low.tolist() == [0, 1, 1] and high.tolist() == [2, 2, 9]
    low, high = bounds(Cycle([True]), truth(2), "unchanged")
    assert low.tolist() == [False] * 2 and high.tolist() == [True] * 2


def test_values_up_to_the_edge_of_the_domain_fit() -> None:
    domain = Domain("Test", "real", np.full(2, 0.5), [0, -1], [1, 5], "numbers in a range")
    for values in (Uniform(0, 1), LinearDrift(0, 1, 0, 1), Uniform([0, -1], [1, 5]), Cycle([0, 1])):
        bounds(values, domain)
    bounds(Uniform(np.nextafter(0, 1), 3), positive())
    bounds(Cycle([0, 9]), whole())


BAD: list[tuple[Callable[[], Values], Domain, str]] = [
    # What is asked for cannot be: the message names class and field.
    (lambda: Uniform(2, 1), real(), "Uniform low"),
    (lambda: Uniform(nan, 1), real(), "Uniform low"),
    (lambda: Uniform(0, nan), real(), "Uniform high"),
    (lambda: Uniform([0, nan], 1), real(2), "Uniform low"),
    (lambda: Uniform(0, inf), real(), "Uniform high"),
    (lambda: Uniform(-inf, inf), real(), "Uniform low"),
    (lambda: Uniform("0", 1), real(), "Uniform low"),
    (lambda: Uniform("low", 1), real(), "Uniform low"),
    (lambda: Uniform(0, None), real(), "Uniform high"),
    (lambda: Uniform([0, 0], 1), real(3), "Uniform.low (3,)"),
    (lambda: Uniform(0, [1, 1]), real(), "Uniform.high ()"),
    (lambda: Uniform([0, 0], [1, 1, 1]), real(3), "Uniform low"),
    (lambda: Uniform([0, [0, 1]], 1), real(2), "Uniform low"),  # type: ignore[list-item]
    (lambda: Uniform(np.zeros(99), 1), real(3), "Uniform.low (3,)"),
    (lambda: Uniform(np.ones(99), 0), real(99), "Uniform low"),
    (lambda: LogUniform(0, 1), real(), "LogUniform low"),
    (lambda: LogUniform(-1, 1), real(), "LogUniform low"),
    (lambda: LogUniform([1, 0], 1), real(2), "LogUniform low"),
    (lambda: LogUniform(np.linspace(0, 1, 99), 1), real(99), "LogUniform low"),
    (lambda: LogUniform(2, 1), real(), "LogUniform low"),
    (lambda: LogUniform(nan, 1), real(), "LogUniform low"),
    (lambda: LogUniform(1, inf), real(), "LogUniform high"),
    (lambda: LogUniform("1", "2"), real(), "LogUniform low"),
    (lambda: LogUniform([1, 1], 2), real(3), "LogUniform.low (3,)"),
    (lambda: Normal(nan, 1), real(), "Normal mean"),
    (lambda: Normal([0, nan], 1), real(2), "Normal mean"),
    (lambda: Normal(None, 1), real(), "Normal mean"),  # type: ignore[arg-type]
    (lambda: Normal(inf, 0), real(), "Normal mean"),
    (lambda: Normal(inf, 1), real(), "Normal mean"),
    (lambda: Normal("0", 1), real(), "Normal mean"),
    (lambda: Normal("a", 1), real(), "Normal mean"),
    (lambda: Normal(0, -1), real(), "Normal std"),
    (lambda: Normal(0, [1, -1]), real(2), "Normal std"),
    (lambda: Normal(0, nan), real(), "Normal std"),
    (lambda: Normal(0, inf), real(), "Normal std"),
    (lambda: Normal(0, "1"), real(), "Normal std"),
    (lambda: Normal(0, None), real(), "Normal std"),  # type: ignore[arg-type]
    (lambda: Normal(0, -np.ones(99)), real(99), "Normal std"),
    (lambda: Normal([0, 0], 1), real(3), "Normal.mean (3,)"),
    (lambda: RandomMask(1.2), truth(2), "RandomMask.probability"),
    (lambda: RandomMask(-0.1), truth(2), "RandomMask.probability"),
    (lambda: RandomMask(nan), truth(2), "RandomMask.probability"),
    (lambda: RandomMask("0.5"), truth(2), "RandomMask.probability"),  # type: ignore[arg-type]
    (lambda: RandomMask(None), truth(2), "RandomMask.probability"),  # type: ignore[arg-type]
    (lambda: RandomMask([0.5, 0.5]), truth(2), "RandomMask.probability"),  # type: ignore[arg-type]
    (lambda: RandomMask(np.full(99, 0.5)), truth(99), "RandomMask.probability"),  # type: ignore[arg-type]
    (lambda: LinearDrift(2, 1, 0, 1), real(), "LinearDrift start"),
    (lambda: LinearDrift(-1, 1, 0, 1), real(), "LinearDrift start"),
    (lambda: LinearDrift(0, 1, 1, -1), real(), "LinearDrift low"),
    (lambda: LinearDrift(nan, 1), real(), "LinearDrift start"),
    (lambda: LinearDrift(inf, 1), real(), "LinearDrift start"),
    (lambda: LinearDrift(-inf, 1), real(), "LinearDrift start"),
    (lambda: LinearDrift(0, nan), real(), "LinearDrift slope"),
    (lambda: LinearDrift(0, [1, nan]), real(2), "LinearDrift slope"),
    (lambda: LinearDrift(0, inf), real(), "LinearDrift slope"),
    (lambda: LinearDrift(0, None), real(), "LinearDrift slope"),  # type: ignore[arg-type]
    (lambda: LinearDrift(0, "1"), real(), "LinearDrift slope"),
    (lambda: LinearDrift(0, "a"), real(), "LinearDrift slope"),
    (lambda: LinearDrift(0, [1, 1]), real(3), "LinearDrift.slope (3,)"),
    (lambda: LinearDrift([0, 0], 1), real(3), "LinearDrift.start (3,)"),
    (lambda: LinearDrift(0, 1, [-1, -1]), real(3), "LinearDrift.low (3,)"),
    (lambda: LinearDrift(0, 1, nan), real(), "LinearDrift low"),
    (lambda: LinearDrift(0, 1, high=nan), real(), "LinearDrift high"),
    (lambda: SinusoidalDrift(nan, 1, 9), real(), "SinusoidalDrift mean"),
    (lambda: SinusoidalDrift(inf, 0, 9), real(), "SinusoidalDrift mean"),
    (lambda: SinusoidalDrift("0", 1, 9), real(), "SinusoidalDrift mean"),
    (lambda: SinusoidalDrift(0, -1, 9), real(), "SinusoidalDrift amplitude"),
    (lambda: SinusoidalDrift(0, nan, 9), real(), "SinusoidalDrift amplitude"),
    (lambda: SinusoidalDrift(0, inf, 9), real(), "SinusoidalDrift amplitude"),
    (lambda: SinusoidalDrift(0, "1", 9), real(), "SinusoidalDrift amplitude"),
    (lambda: SinusoidalDrift(0, 1, 0), real(), "SinusoidalDrift period"),
    (lambda: SinusoidalDrift(0, 1, -4), real(), "SinusoidalDrift period"),
    (lambda: SinusoidalDrift(0, 1, nan), real(), "SinusoidalDrift period"),
    (lambda: SinusoidalDrift(0, 1, inf), real(), "SinusoidalDrift period"),
    (lambda: SinusoidalDrift(0, 1, "9"), real(), "SinusoidalDrift period"),
    (lambda: SinusoidalDrift(0, 1, [4, 0]), real(2), "SinusoidalDrift period"),
    (lambda: SinusoidalDrift(0, 1, [4, 4]), real(3), "SinusoidalDrift.period (3,)"),
    (lambda: SinusoidalDrift(0, 1, 9, nan), real(), "SinusoidalDrift phase"),
    (lambda: SinusoidalDrift(0, 1, 9, inf), real(), "SinusoidalDrift phase"),
    (lambda: SinusoidalDrift(0, 1, 9, "0"), real(), "SinusoidalDrift phase"),
    (lambda: SinusoidalDrift(0, 1, 9, [0, 0]), real(3), "SinusoidalDrift.phase (3,)"),
    (lambda: RandomWalk(5, 1, 0, 0, 1), real(), "RandomWalk mean"),
    (lambda: RandomWalk(nan, 1), real(), "RandomWalk mean"),
    (lambda: RandomWalk(0, 1, low=nan), real(), "RandomWalk low"),
    (lambda: RandomWalk(0, 1, high="9"), real(), "RandomWalk high"),
    (lambda: RandomWalk(inf, 1), real(), "RandomWalk mean"),
    (lambda: RandomWalk(0, -1), real(), "RandomWalk std"),
    (lambda: RandomWalk(0, nan), real(), "RandomWalk std"),
    (lambda: RandomWalk(0, inf), real(), "RandomWalk std"),
    (lambda: RandomWalk(0, "1"), real(), "RandomWalk std"),
    (lambda: RandomWalk([0, 0], 1), real(3), "RandomWalk.mean (3,)"),
    (lambda: RandomWalk(0, [1, 1]), real(3), "RandomWalk.std (3,)"),
    (lambda: RandomWalk(0, 1, high=[9, 9]), real(3), "RandomWalk.high (3,)"),
    (lambda: RandomWalk(0, 1, 1.5), real(), "RandomWalk pull"),
    (lambda: RandomWalk(0, 1, -0.5), real(), "RandomWalk pull"),
    (lambda: RandomWalk(0, 1, nan), real(), "RandomWalk pull"),
    (lambda: RandomWalk(0, 1, "0.5"), real(), "RandomWalk pull"),  # type: ignore[arg-type]
    (lambda: RandomWalk(0, 1, [0.1, 2.0]), real(2), "RandomWalk pull"),  # type: ignore[arg-type]
    (lambda: Cycle([]), real(), "Cycle.values"),
    (lambda: Cycle(np.zeros((0, 3))), real(3), "Cycle.values"),  # type: ignore[arg-type]
    (lambda: Cycle(5), real(), "Cycle.values"),  # type: ignore[arg-type]
    (lambda: Cycle(None), real(), "Cycle.values"),  # type: ignore[arg-type]
    (lambda: Cycle("123"), real(), "Cycle.values"),
    (lambda: Cycle(["1"]), real(), "Cycle.values"),
    (lambda: Cycle([None]), real(), "Cycle.values"),
    (lambda: Cycle([1j]), real(), "Cycle.values"),
    (lambda: Cycle([nan]), real(), "Cycle.values"),
    (lambda: Cycle([1, [2, nan]]), real(2), "Cycle.values"),
    (lambda: Cycle([inf]), real(), "Cycle.values"),
    (lambda: Cycle([-inf]), real(), "Cycle.values"),
    (lambda: Cycle([10**400]), real(), "Cycle.values"),
    (lambda: Cycle([[1, 2]]), real(3), "Cycle.values"),
    (lambda: Cycle([[1, [2, 3], 1]]), real(3), "Cycle.values"),
    (lambda: Cycle([np.zeros((2, 99))]), real(3), "Cycle.values"),
    (lambda: Cycle([np.zeros((1, 99))]), real(3), "Cycle.values"),
    (lambda: Cycle([[0, 0, 1]]), permutation(3), "Cycle.values"),
    (lambda: Cycle([[1, 2, 3]]), permutation(3), "Cycle.values"),
    (lambda: Cycle([[0, 1]]), permutation(3), "Cycle.values"),
    (lambda: Cycle([[0.0, 1.5, 2.0]]), permutation(3), "Cycle.values"),
    (lambda: Cycle([0]), permutation(3), "Cycle.values"),
    (lambda: Cycle([10]), whole(), "Cycle.values"),
    (lambda: Cycle([0.5]), whole(), "Cycle.values"),
    (lambda: Cycle([inf]), whole(), "Cycle.values"),
    (lambda: Cycle([nan]), whole(), "Cycle.values"),
    (lambda: Cycle([2**64]), whole(), "Cycle.values"),
    (lambda: Cycle([2]), truth(), "Cycle.values"),
    (lambda: Cycle([0.5]), truth(), "Cycle.values"),
    (lambda: Cycle([0]), positive(), "Cycle.values"),
    (lambda: Choice([]), real(), "Choice.values"),
    (lambda: Choice([nan]), real(), "Choice.values"),
    (lambda: Choice([1, 2], [0.5, 0.6]), real(), "Choice.probabilities"),
    (lambda: Choice([1, 2], [1.5, -0.5]), real(), "Choice.probabilities"),
    (lambda: Choice([1, 2], [0, 0]), real(), "Choice.probabilities"),
    (lambda: Choice([1, 2], [1]), real(), "Choice.probabilities"),
    (lambda: Choice([1, 2], []), real(), "Choice.probabilities"),
    (lambda: Choice([1, 2], [nan, 1]), real(), "Choice.probabilities"),
    (lambda: Choice([1, 2], ["a", "b"]), real(), "Choice.probabilities"),  # type: ignore[list-item]
    (lambda: Choice([1, 2], ["0.5", "0.5"]), real(), "Choice.probabilities"),  # type: ignore[list-item]
    (lambda: Choice([1, 2], 0.5), real(), "Choice.probabilities"),  # type: ignore[arg-type]
    (lambda: Choice([1, 2], np.full((2, 2), 0.5)), real(), "Choice.probabilities"),  # type: ignore[arg-type]
    # It does not fit the domain: the message names class and domain.
    (lambda: Uniform(0, 1), permutation(3), "Uniform Test permutation"),
    (lambda: Uniform(0, 1), truth(3), "Uniform Test"),
    (lambda: Normal(), whole(), "Normal Test"),
    (lambda: RandomMask(0.5), real(), "RandomMask Test"),
    (lambda: RandomPermutation(), real(3), "RandomPermutation Test"),
    (lambda: Normal(1, 1), positive(), "Normal Test > 0"),
    (lambda: Uniform(0, 1), positive(), "Uniform Test > 0"),
    (lambda: Uniform(-1, 1), positive(2, 2), "Uniform Test > 0"),
    (lambda: Uniform([1, -1], 2), positive(2), "Uniform Test > 0"),
    (lambda: LinearDrift(1, 0), positive(), "LinearDrift Test > 0"),
    (lambda: LinearDrift(1, 1, 0, 2), positive(), "LinearDrift Test > 0"),
    (lambda: SinusoidalDrift(1, 1, 9), positive(), "SinusoidalDrift Test > 0"),
    (lambda: RandomWalk(1, 1), positive(), "RandomWalk Test > 0"),
]


@pytest.mark.parametrize(("make", "domain", "words"), BAD, ids=[words for *_, words in BAD])
def test_bad_values_are_refused_before_they_are_drawn(
    make: Callable[[], Values], domain: Domain, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        bounds(make(), domain)
    message = str(caught.value)
    assert all(word in message for word in words.split(" "))
    assert message.startswith(words.split(".")[0].split(" ")[0])
    assert "\n" not in message


def test_values_of_a_domain() -> None:
    value = real(2).value(3, "Test.values")
    assert value.tolist() == [3, 3] and value.dtype == np.float64
    assert whole().value(3.0, "Test.values").dtype == np.int64
    assert truth().value(1, "Test.values").dtype == np.bool_
    assert permutation(3).value((2, 0, 1), "Test.values").tolist() == [2, 0, 1]
    given = np.ones(2)
    taken = real(2).value(given, "Test.values")
    given[0] = 7
    assert taken.tolist() == [1, 1]


# --------------------------------------------------------------------------------------
# Descriptions

a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0])
DESCRIPTIONS: list[Callable[[], Values]] = [
    lambda: Uniform(0, 1),
    lambda: Uniform([0, 1], [2, 3]),
    lambda: Uniform(a.copy(), b.copy()),
    lambda: Uniform(np.zeros((2, 2)), np.ones((2, 2))),
    lambda: LogUniform(a.copy(), b.copy()),
    lambda: Normal(a.copy(), b.copy()),
    lambda: Normal(np.float64(1), np.float32(2)),
    lambda: RandomMask(np.float64(0.5)),
    RandomPermutation,
    lambda: LinearDrift(a.copy(), b.copy()),
    lambda: LinearDrift([1, 2], [3, 4], [0, 0], [9, 9]),
    lambda: SinusoidalDrift(a.copy(), b.copy(), 5),
    lambda: SinusoidalDrift(0, 1, a.copy(), b.copy()),
    lambda: RandomWalk(a.copy(), b.copy()),
    lambda: Cycle(a.copy()),  # type: ignore[arg-type]
    lambda: Cycle([a.copy(), b.copy()]),
    lambda: Cycle([np.eye(2), [[1, 2], [3, 4]]]),
    lambda: Cycle(np.zeros((3, 2, 2))),  # type: ignore[arg-type]
    lambda: Choice([a.copy(), b.copy()], np.array([0.25, 0.75])),  # type: ignore[arg-type]
]
every_description = pytest.mark.parametrize("make", DESCRIPTIONS)


@every_description
def test_descriptions_compare_and_copy(make: Callable[[], Values]) -> None:
    values = make()
    assert values == make()
    assert Schedule(EverySteps(1), values) == Schedule(EverySteps(1), make())
    assert copy.deepcopy(values) == make() and pickle.loads(pickle.dumps(values)) == make()
    assert hash(values) == hash(make())


@every_description
def test_repr_is_one_line_of_plain_numbers(make: Callable[[], Values]) -> None:
    shown = repr(make())
    assert "\n" not in shown and "array" not in shown and "np." not in shown
    assert eval(shown, {**globals(), "inf": inf}) == make()


def test_different_descriptions_differ() -> None:
    assert Uniform(0, 1) != Uniform(0, 2)
    assert Uniform(0, 1) != LogUniform(1, 2)
    assert Uniform(a, b) != Uniform(a, b + 1)
    assert Cycle([1, 2]) != Cycle([2, 1])


def test_how_numbers_are_written_does_not_matter() -> None:
    assert Uniform([1, 2], [3, 4]) == Uniform((1, 2), (3.0, 4.0)) == Uniform(a, b)
    assert Cycle([[1, 2], [3, 4]]) == Cycle(((1, 2), (3, 4))) == Cycle([a, b])


@pytest.mark.parametrize("make", [lambda low: Uniform(low, 9), lambda low: Cycle([low])])
@pytest.mark.parametrize("low", [[1.0, 2.0], np.array([1.0, 2.0])], ids=["list", "array"])
def test_what_is_changed_afterwards_does_not_matter(
    make: Callable[[Any], Values], low: Any
) -> None:
    low = copy.copy(low)
    values = make(low)
    before = drawn(values, real(2), 5)
    low[0] = -1000.0
    assert np.array_equal(drawn(values, real(2), 5), before)
