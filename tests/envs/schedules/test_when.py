"""When changes come: what each class says, its parameters, and its value as a description."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from clrl.envs.schedules import (
    AtSteps,
    Continuously,
    EveryEpisodes,
    EverySteps,
    Never,
    Poisson,
    When,
)
from clrl.envs.schedules.when import NEVER
from clrl.errors import UsageError


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def dues(when: When, n: int, seed: int = 0) -> list[int]:
    """When the first n changes are due, each coming as soon as it is."""
    rng, found = generator(seed), [0]
    for task in range(1, n + 1):
        found.append(when.due(task, found[-1], rng))
    return found[1:]


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (EverySteps(5), [5, 10, 15, 20]),
        (EverySteps(1), [1, 2, 3, 4]),
        (EveryEpisodes(3), [3, 6, 9, 12]),
        (Poisson(1.0), [1, 2, 3, 4]),
        (AtSteps([2, 3, 50]), [2, 3, 50, NEVER]),
        (Never(), [NEVER]),
        (Continuously(), [1, 2, 3, 4]),
    ],
    ids=repr,
)
def test_due_by_hand(when: When, expected: list[int]) -> None:
    assert dues(when, len(expected)) == expected


def test_steps_are_counted_from_the_change_before_and_episodes_are_not() -> None:
    assert EverySteps(5, at_episode_end=True).due(2, 7, generator()) == 12
    assert EveryEpisodes(3).due(2, 5, generator()) == 6


def test_what_is_counted_and_what_waits() -> None:
    steps: list[When] = [EverySteps(2), Poisson(0.5), AtSteps([1]), Never(), Continuously()]
    assert {when.unit for when in steps} == {"steps"}
    assert not any(when.at_episode_end for when in steps)
    assert EveryEpisodes(2).unit == "episodes" and EveryEpisodes(2).at_episode_end
    assert EverySteps(2, at_episode_end=True).at_episode_end
    assert Poisson(0.5, at_episode_end=True).at_episode_end
    assert AtSteps([1], at_episode_end=True).at_episode_end


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.8])
def test_gaps_of_poisson_are_geometric(rate: float) -> None:
    n = 20_000
    gaps = np.diff(dues(Poisson(rate), n), prepend=0)
    assert gaps.min() >= 1
    # The standard deviation of a gap is sqrt(1 - rate) / rate; four of the mean's.
    assert abs(gaps.mean() - 1 / rate) < 4 * np.sqrt(1 - rate) / rate / np.sqrt(n)
    for k in range(1, 6):
        chance = (1 - rate) ** (k - 1) * rate
        assert abs((gaps == k).mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / n)
    # No memory: a gap tells nothing about the next.
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 4 / np.sqrt(n)


def test_gaps_of_poisson_come_from_the_generator_alone() -> None:
    assert dues(Poisson(0.1), 50, seed=3) == dues(Poisson(0.1), 50, seed=3)
    assert dues(Poisson(0.1), 50, seed=3) != dues(Poisson(0.1), 50, seed=4)


@pytest.mark.parametrize(
    "when", [Poisson(1e-300), EverySteps(2**70), EveryEpisodes(2**70), AtSteps([2**70])], ids=repr
)
def test_what_no_clock_reaches_is_never(when: When) -> None:
    assert dues(when, 3) == [NEVER] * 3


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    # Sums with small integer types would wrap.
    assert EverySteps(np.int8(100)).due(11, 1000, generator()) == 1100
    assert EveryEpisodes(np.int8(100)).due(11, 1000, generator()) == 1100
    assert dues(AtSteps(np.array([3, 90], np.int8)), 3) == [3, 90, NEVER]
    for plain in (dues(EverySteps(np.int64(3)), 2), dues(AtSteps(np.arange(1, 4)), 3)):
        assert all(type(step) is int for step in plain)


BAD: list[tuple[Callable[[], When], str]] = [
    (lambda: EverySteps(0), "EverySteps.n"),
    (lambda: EverySteps(-3), "EverySteps.n"),
    (lambda: EverySteps(1.5), "EverySteps.n"),  # type: ignore[arg-type]
    (lambda: EverySteps(2.0), "EverySteps.n"),  # type: ignore[arg-type]
    (lambda: EverySteps(True), "EverySteps.n"),
    (lambda: EverySteps("5"), "EverySteps.n"),  # type: ignore[arg-type]
    (lambda: EverySteps(None), "EverySteps.n"),  # type: ignore[arg-type]
    (lambda: EverySteps(np.nan), "EverySteps.n"),  # type: ignore[arg-type]
    (lambda: EverySteps(np.ones(99, int)), "EverySteps.n"),  # type: ignore[arg-type]
    (lambda: EverySteps(1000, 500), "EverySteps.at_episode_end"),  # type: ignore[arg-type]
    (lambda: EverySteps(1000, "no"), "EverySteps.at_episode_end"),  # type: ignore[arg-type]
    (lambda: EveryEpisodes(0), "EveryEpisodes.n"),
    (lambda: EveryEpisodes(1.5), "EveryEpisodes.n"),  # type: ignore[arg-type]
    (lambda: EveryEpisodes(True), "EveryEpisodes.n"),
    (lambda: Poisson(0), "Poisson.rate"),
    (lambda: Poisson(-0.1), "Poisson.rate"),
    (lambda: Poisson(1.5), "Poisson.rate"),
    (lambda: Poisson(np.nan), "Poisson.rate"),
    (lambda: Poisson(np.inf), "Poisson.rate"),
    (lambda: Poisson("0.5"), "Poisson.rate"),  # type: ignore[arg-type]
    (lambda: Poisson(None), "Poisson.rate"),  # type: ignore[arg-type]
    (lambda: Poisson([0.5]), "Poisson.rate"),  # type: ignore[arg-type]
    (lambda: Poisson(np.full(99, 0.5)), "Poisson.rate"),  # type: ignore[arg-type]
    (lambda: Poisson(0.5, "no"), "Poisson.at_episode_end"),  # type: ignore[arg-type]
    (lambda: AtSteps([]), "AtSteps.steps"),
    (lambda: AtSteps([0, 1]), "AtSteps.steps"),
    (lambda: AtSteps([3, 3]), "AtSteps.steps"),
    (lambda: AtSteps([3, 2]), "AtSteps.steps"),
    (lambda: AtSteps([1.5]), "AtSteps.steps"),  # type: ignore[list-item]
    (lambda: AtSteps([1, np.nan]), "AtSteps.steps"),  # type: ignore[list-item]
    (lambda: AtSteps([True]), "AtSteps.steps"),
    (lambda: AtSteps("12"), "AtSteps.steps"),  # type: ignore[arg-type]
    (lambda: AtSteps(1000), "AtSteps.steps"),  # type: ignore[arg-type]
    (lambda: AtSteps(None), "AtSteps.steps"),  # type: ignore[arg-type]
    (lambda: AtSteps([[1, 2]]), "AtSteps.steps"),  # type: ignore[list-item]
    (lambda: AtSteps(np.ones((3, 40), int)), "AtSteps.steps"),  # type: ignore[arg-type]
    (lambda: AtSteps([1], "no"), "AtSteps.at_episode_end"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "field"), BAD, ids=[field for _, field in BAD])
def test_bad_parameters_are_refused_at_once(make: Callable[[], When], field: str) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert str(caught.value).startswith(field)
    assert "\n" not in str(caught.value)


DESCRIPTIONS: list[Callable[[], When]] = [
    lambda: EverySteps(5, at_episode_end=True),
    lambda: EverySteps(np.int64(5)),
    lambda: EveryEpisodes(3),
    lambda: Poisson(0.25),
    lambda: Poisson(np.float64(0.25)),
    lambda: AtSteps([1, 2, 3]),
    lambda: AtSteps(np.arange(1, 4)),
    lambda: AtSteps(range(1, 4)),
    Never,
    Continuously,
]
every_description = pytest.mark.parametrize("make", DESCRIPTIONS)


@every_description
def test_descriptions_compare_and_copy(make: Callable[[], When]) -> None:
    when = make()
    assert when == make() and hash(when) == hash(make())
    assert copy.deepcopy(when) == when and pickle.loads(pickle.dumps(when)) == when
    with pytest.raises(AttributeError):
        when.at_episode_end = True


@every_description
def test_repr_is_how_it_is_made(make: Callable[[], When]) -> None:
    # Also without NumPy at hand: numbers are shown plainly.
    assert eval(repr(make())) == make()
    assert "np." not in repr(make()) and "\n" not in repr(make())


def test_how_steps_are_listed_does_not_matter() -> None:
    assert AtSteps([1, 2, 3]) == AtSteps((1, 2, 3)) == AtSteps(np.arange(1, 4))
    assert AtSteps([1, 2, 3]) != AtSteps([1, 2, 4])
    steps = [1, 2, 3]
    when = AtSteps(steps)
    steps[0] = 9
    assert when == AtSteps([1, 2, 3])
