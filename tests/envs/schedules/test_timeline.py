"""Schedules and worlds that live by them, held against the plainest account of what is due."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clrl.envs.schedules import (
    AtSteps,
    Choice,
    Continuously,
    Cycle,
    Domain,
    EveryEpisodes,
    EverySteps,
    LinearDrift,
    LogUniform,
    Never,
    Normal,
    Planned,
    Poisson,
    RandomMask,
    RandomPermutation,
    RandomWalk,
    Schedule,
    SinusoidalDrift,
    Timeline,
    Uniform,
    Values,
    When,
)
from clrl.errors import UsageError

NUMBER = Domain("Test", "real", np.zeros(()))
PAIR = Domain("Test", "real", np.zeros(2))
TABLE = Domain("Test", "real", np.ones((2, 2)))
WHOLE = Domain("Test", "integer", np.zeros((), np.int64), 0, 9, "a whole number from 0 to 9")
MASK = Domain("Test", "boolean", np.zeros(3, np.bool_), 0, 1, "true or false")
ORDER = Domain("Test", "permutation", np.arange(4), 0, 3, "a permutation of 0 to 3")

WEEK = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0]
SEED, PURPOSE = 5, "test"


class Event(NamedTuple):
    """What happens in a world between two looks at its schedule."""

    steps: int
    episodes: int
    ended: bool  # an episode may end without a step in it, which counts as none


def timeline(
    when: When,
    to: Values,
    domain: Domain = NUMBER,
    *,
    worlds: int = 1,
    seeds: Iterable[int] | None = (SEED,),
    start: Any = "drawn",
    purpose: str = PURPOSE,
) -> Timeline:
    made = Timeline(Schedule(when, to, start), domain, worlds, purpose)
    for world, seed in enumerate(seeds or ()):
        made.start(world, seed)
    return made


def live(line: Timeline, *events: Event) -> None:
    """One event in every world."""
    line.tick(np.array([e.steps for e in events]), np.array([e.episodes for e in events]))
    line.advance(np.array([e.ended for e in events]))


def steps(line: Timeline, n: int, each: int = 1) -> None:
    for _ in range(n):
        live(line, *[Event(each, 0, False)] * len(line.clock))


def seen(line: Timeline) -> tuple[Any, ...]:
    """All that a user of a timeline can see, exactly."""
    return (line.task.tolist(), line.changes.tolist(), line.clock.tolist(), line.values.tobytes())


event = st.builds(
    lambda steps, episodes, reset: Event(steps, episodes, reset or episodes > 0),
    # Many lanes take many steps at once, and several of them may end.
    st.one_of(st.integers(0, 4), st.integers(0, 40)),
    st.sampled_from([0, 0, 0, 1, 1, 2, 5]),
    st.sampled_from([False, False, False, True]),
)
histories = st.lists(event, max_size=40)
seeds = st.integers(0, 2**63)
waiting = st.one_of(
    st.builds(EverySteps, st.integers(1, 30), st.booleans()),
    st.builds(EveryEpisodes, st.integers(1, 5)),
    st.builds(Poisson, st.floats(0.02, 1), st.booleans()),
    st.builds(
        AtSteps,
        st.lists(st.integers(1, 200), min_size=1, max_size=8, unique=True).map(sorted),
        st.booleans(),
    ),
    st.just(Never()),
)
whens = st.one_of(waiting, st.just(Continuously()))


# --------------------------------------------------------------------------------------
# Changes come when they are due


def changes_after(when: When, events: list[Event], gaps: list[int]) -> int:
    """How many changes have come: all events gone through again from the beginning."""
    clock = last = changes = 0
    for one in events:
        clock += one.episodes if isinstance(when, EveryEpisodes) else one.steps
        if isinstance(when, Continuously):
            changes = clock
        elif isinstance(when, EveryEpisodes):
            changes = clock // when.n
        elif isinstance(when, AtSteps):
            if one.ended or not when.at_episode_end:
                changes = sum(step <= clock for step in when.steps)
        elif isinstance(when, EverySteps) and not when.at_episode_end:
            changes = clock // when.n
        elif isinstance(when, Poisson) and not when.at_episode_end:
            changes = sum(sum(gaps[: k + 1]) <= clock for k in range(len(gaps)))
        elif isinstance(when, (EverySteps, Poisson)) and one.ended:
            gap = when.n if isinstance(when, EverySteps) else gaps[changes]
            if clock - last >= gap:
                changes, last = changes + 1, clock
    return changes


def gaps_of(when: When, seed: int, events: list[Event]) -> list[int]:
    """What a world's generator says about a Poisson process: steps between changes."""
    if not isinstance(when, Poisson):
        return []
    enough = sum(one.steps for one in events) + 1
    line = timeline(Poisson(when.rate), Cycle(WEEK), seeds=[seed])
    due = [planned.step or 0 for planned in line.preview(enough)]
    return np.diff(due, prepend=0).tolist()


def value_after(changes: int, start: str) -> float:
    if start == "drawn":
        return WEEK[changes % 7]
    return WEEK[(changes - 1) % 7] if changes else 0.0


@settings(deadline=None, max_examples=200)
@given(when=whens, events=histories, start=st.sampled_from(["drawn", "unchanged"]), seed=seeds)
def test_one_world(when: When, events: list[Event], start: str, seed: int) -> None:
    line = timeline(when, Cycle(WEEK), seeds=[seed], start=start)
    gaps = gaps_of(when, seed, events)
    for n in range(len(events) + 1):
        if n:
            live(line, events[n - 1])
        changes = changes_after(when, events[:n], gaps)
        assert line.changes.tolist() == [changes]
        assert line.task.tolist() == [0 if isinstance(when, Continuously) else changes]
        assert line.values.tolist() == [value_after(changes, start)]


@settings(deadline=None, max_examples=100)
@given(
    when=whens,
    together=st.lists(st.tuples(event, event, event), max_size=30),
    seed=st.lists(seeds, min_size=3, max_size=3),
)
def test_several_worlds(
    when: When, together: list[tuple[Event, Event, Event]], seed: list[int]
) -> None:
    line = timeline(when, Cycle(WEEK), worlds=3, seeds=seed)
    apart = [list(one) for one in zip(*together, strict=True)] or [[]] * 3
    gaps = [gaps_of(when, seed[world], apart[world]) for world in range(3)]
    for n, events in enumerate(together, 1):
        live(line, *events)
        expected = [changes_after(when, apart[world][:n], gaps[world]) for world in range(3)]
        assert line.changes.tolist() == expected
        assert line.values.tolist() == [value_after(changes, "drawn") for changes in expected]


def test_by_hand() -> None:
    line = timeline(EverySteps(3), Cycle([1, 2, 3]))
    tasks, values = [], []
    for _ in range(8):
        steps(line, 1)
        tasks.append(int(line.task[0]))
        values.append(float(line.values[0]))
    assert tasks == [0, 0, 1, 1, 1, 2, 2, 2]
    assert values == [1, 1, 2, 2, 2, 3, 3, 3]
    assert not line.drifts


def test_no_task_is_shorter_where_changes_wait_for_an_end() -> None:
    line = timeline(EverySteps(10, at_episode_end=True), Cycle([1, 2, 3]))
    steps(line, 25)
    assert line.task[0] == 0  # overdue, and the episode goes on
    live(line, Event(0, 1, True))
    assert line.task[0] == 1  # one change, though two would have been due
    steps(line, 9)
    live(line, Event(0, 1, True))
    assert line.task[0] == 1
    steps(line, 1)
    live(line, Event(0, 1, True))
    assert line.task[0] == 2


def test_several_episodes_that_end_at_once_may_bring_several_changes() -> None:
    line = timeline(EveryEpisodes(2), Cycle(WEEK))
    found = []
    for ended in (1, 3, 0, 5, 0):
        live(line, Event(1, ended, ended > 0))
        found.append((int(line.task[0]), float(line.values[0])))
    assert found == [(0, 10), (2, 30), (2, 30), (4, 50), (4, 50)]


def test_steps_missed_are_made_up_for_at_the_end() -> None:
    line = timeline(AtSteps([2, 4, 50], at_episode_end=True), Cycle(WEEK))
    steps(line, 9)
    live(line, Event(0, 1, True))
    assert line.task[0] == 2 and line.values[0] == 30


def test_a_drift_skips_what_it_steps_over() -> None:
    line = timeline(Continuously(), LinearDrift(0, 1))
    assert line.drifts
    for each in (1, 3, 0, 255, 1, 256, 1000, 7):
        steps(line, 1, each)
        assert line.values[0] == line.clock[0]
        assert line.task[0] == 0 and line.changes[0] == line.clock[0]
    assert line.clock[0] == 1523
    late = timeline(Continuously(), LinearDrift(0, 1), start="unchanged")
    steps(late, 1, 300)
    assert late.values[0] == 299  # the first change brought the first value


@pytest.mark.parametrize("to", [RandomWalk(0, 1), Normal(), Uniform(0, 1)], ids=repr)
def test_how_far_a_drift_goes_at_once_does_not_matter(to: Values) -> None:
    line, other = timeline(Continuously(), to, PAIR), timeline(Continuously(), to, PAIR)
    for each in (1, 3, 255, 1, 256, 600, 7):
        steps(line, 1, each)
        steps(other, each)
        assert seen(line) == seen(other)


def test_ticks_before_the_start_do_not_count() -> None:
    line = timeline(EverySteps(2), Cycle([1, 2]), worlds=2, seeds=[])
    steps(line, 5)
    assert line.task.tolist() == [0, 0] and line.values.tolist() == [0, 0]
    line.start(1, SEED)
    steps(line, 2)
    assert line.task.tolist() == [0, 1] and line.values.tolist() == [0, 2]


# --------------------------------------------------------------------------------------
# What decides a world's future

EVERYTHING: list[tuple[Values, Domain]] = [
    (Cycle(WEEK), NUMBER),
    (Cycle([[1, 2], 3]), PAIR),
    (Cycle([3, 1, 4, 1, 5]), WHOLE),
    (Cycle([[1, 0, 3, 2], [0, 1, 2, 3]]), ORDER),
    (Choice([1.0, 2.0, 3.0], [0.2, 0.3, 0.5]), NUMBER),
    (Choice([[True, False, True], False]), MASK),
    (Uniform(-1, 1), TABLE),
    (LogUniform(0.02, 2), NUMBER),
    (Normal(), PAIR),
    (RandomPermutation(), ORDER),
    (RandomMask(0.3), MASK),
    (LinearDrift(0, 0.1, -1, 1), PAIR),
    (SinusoidalDrift(0, 1, 77.7), TABLE),
    (RandomWalk(0, 0.1, 0.01, -1, 1), NUMBER),
    (RandomWalk(0, 1), TABLE),
]
everything = st.sampled_from(EVERYTHING)
RANDOM = [
    (to, domain)
    for to, domain in EVERYTHING
    if not isinstance(to, (Cycle, LinearDrift, SinusoidalDrift))
]


@settings(deadline=None, max_examples=100)
@given(
    when=whens,
    what=everything,
    together=st.lists(st.tuples(event, event, event), max_size=15),
    seed=st.lists(seeds, min_size=3, max_size=3),
)
def test_worlds_are_independent(
    when: When,
    what: tuple[Values, Domain],
    together: list[tuple[Event, Event, Event]],
    seed: list[int],
) -> None:
    to, domain = what
    line = timeline(when, to, domain, worlds=3, seeds=seed)
    alone = [timeline(when, to, domain, seeds=[one]) for one in seed]
    for events in together:
        live(line, *events)
        for world in range(3):
            live(alone[world], events[world])
            assert line.values[world].tobytes() == alone[world].values[0].tobytes()
            assert line.changes[world] == alone[world].changes[0]
            assert line.task[world] == alone[world].task[0]
    for world in range(3):
        assert told(line.preview(5, world)) == told(alone[world].preview(5))


@pytest.mark.parametrize(("to", "domain"), RANDOM, ids=repr)
def test_values_depend_on_seed_and_purpose_only(to: Values, domain: Domain) -> None:
    def values(when: When, seed: int = SEED, purpose: str = PURPOSE) -> bytes:
        line = timeline(when, to, domain, seeds=[seed], purpose=purpose)
        later = [planned.value for planned in line.preview(299)]
        return np.stack([line.values[0], *later]).tobytes()

    expected = values(EverySteps(1))
    ways: list[When] = [
        EverySteps(3),
        EverySteps(3, at_episode_end=True),
        EveryEpisodes(2),
        Poisson(0.3),
        Continuously(),
    ]
    for when in ways:
        assert values(when) == expected
    assert values(EverySteps(1), seed=SEED + 1) != expected
    assert values(EverySteps(1), purpose="other") != expected
    late = timeline(EverySteps(1), to, domain, start="unchanged")
    assert late.values[0].tobytes() == domain.neutral.tobytes()
    assert np.stack([planned.value for planned in late.preview(300)]).tobytes() == expected


def test_times_depend_on_seed_and_purpose_only() -> None:
    def times(to: Values, seed: int = SEED, purpose: str = PURPOSE) -> list[int | None]:
        line = timeline(Poisson(0.1), to, seeds=[seed], purpose=purpose)
        return [planned.step for planned in line.preview(50)]

    assert times(Normal()) == times(Cycle(WEEK)) == times(RandomWalk(0, 1))
    assert times(Normal(), seed=SEED + 1) != times(Normal())
    assert times(Normal(), purpose="other") != times(Normal())


@settings(deadline=None, max_examples=50)
@given(when=whens, what=everything, events=histories, old=seeds, new=seeds)
def test_a_fresh_start_forgets_everything(
    when: When, what: tuple[Values, Domain], events: list[Event], old: int, new: int
) -> None:
    used = timeline(when, *what, worlds=2, seeds=[old, old])
    for one in events:
        live(used, one, one)
    neighbour = seen_of(used, 1)
    used.start(0, new)
    assert seen_of(used, 1) == neighbour
    fresh = timeline(when, *what, worlds=2, seeds=[new, new])
    assert seen_of(used, 0) == seen_of(fresh, 0)
    for one in events:
        live(used, one, one)
        live(fresh, one, one)
        assert seen_of(used, 0) == seen_of(fresh, 0)


def seen_of(line: Timeline, world: int) -> tuple[Any, ...]:
    return (
        int(line.task[world]),
        int(line.changes[world]),
        int(line.clock[world]),
        line.values[world].tobytes(),
        told(line.preview(5, world)),
    )


# --------------------------------------------------------------------------------------
# Preview


def told(plan: list[Planned]) -> list[tuple[int, int | None, bytes]]:
    return [(planned.task, planned.step, planned.value.tobytes()) for planned in plan]


@settings(deadline=None, max_examples=100)
@given(when=whens, what=everything, events=histories, n=st.integers(0, 12), seed=seeds)
def test_preview_is_what_happens(
    when: When, what: tuple[Values, Domain], events: list[Event], n: int, seed: int
) -> None:
    line = timeline(when, *what, worlds=2, seeds=[0, seed])
    for one in events:
        live(line, Event(1, 0, False), one)
    before = line.state_dict()
    plan = line.preview(n, 1)
    assert line.state_dict() == before
    assert told(line.preview(n, 1)) == told(plan)
    assert told(line.preview(n + 3, 1))[: len(plan)] == told(plan)
    assert len(plan) <= n
    if len(plan) < n:
        assert isinstance(when, (AtSteps, Never))
    for planned in plan:
        assert planned.value.shape == line.domain.shape
        assert planned.value.dtype == line.domain.dtype
        if when.at_episode_end:
            # However long it takes, this is the change that comes next.
            assert planned.step is None
            while line.changes[1] < planned.task:
                count = isinstance(when, EveryEpisodes)
                live(line, Event(0, 0, False), Event(0, int(count), True))
                live(line, Event(0, 0, False), Event(int(not count), 0, False))
            if line.changes[1] > planned.task:  # several at once: the last is what is seen
                assert isinstance(when, AtSteps)
                continue
        else:
            assert type(planned.step) is int and planned.step > line.clock[1]
            if planned.step > line.clock[1] + 1:
                ahead = planned.step - int(line.clock[1]) - 1
                live(line, Event(0, 0, False), Event(ahead, 0, False))
            assert line.changes[1] == planned.task - 1
            live(line, Event(0, 0, False), Event(1, 0, False))
        assert line.changes[1] == planned.task
        assert line.values[1].tobytes() == planned.value.tobytes()


def test_preview_by_hand() -> None:
    line = timeline(AtSteps([2, 5]), Cycle(WEEK))
    assert [(task, step, float(value)) for task, step, value in line.preview(9)] == [
        (1, 2, 20.0),
        (2, 5, 30.0),
    ]
    steps(line, 3)
    assert [(task, step, float(value)) for task, step, value in line.preview(9)] == [(2, 5, 30.0)]
    assert line.preview(0) == []
    steps(line, 3)
    assert line.preview(9) == []
    assert timeline(Never(), Normal()).preview(3) == []


def test_preview_of_a_drift_tells_steps() -> None:
    line = timeline(Continuously(), LinearDrift(0, 1))
    steps(line, 1, 300)
    plan = [(task, step, float(value)) for task, step, value in line.preview(2)]
    assert plan == [(301, 301, 301.0), (302, 302, 302.0)]


def test_what_is_done_with_a_preview_does_not_matter() -> None:
    line, other = timeline(EverySteps(1), Normal(), PAIR), timeline(EverySteps(1), Normal(), PAIR)
    for planned in line.preview(3):
        planned.value[:] = 99
    steps(line, 4)
    steps(other, 4)
    assert seen(line) == seen(other)


def test_whole_numbers_of_numpy_are_planned_as_plain_ones() -> None:
    for when in (EverySteps(np.int64(3)), AtSteps(np.arange(1, 4))):
        assert all(type(planned.step) is int for planned in timeline(when, Normal()).preview(3))


def test_no_preview_before_the_start() -> None:
    line = timeline(EverySteps(1), Normal(), worlds=2)
    line.preview(1, 0)
    with pytest.raises(UsageError, match="reset") as caught:
        line.preview(1, 1)
    assert "\n" not in str(caught.value)


# --------------------------------------------------------------------------------------
# State


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    restored: dict[str, Any] = json.loads(json.dumps(state, allow_nan=False))
    assert restored == state
    return restored


@settings(deadline=None, max_examples=150)
@given(
    when=whens,
    what=everything,
    start=st.sampled_from(["drawn", "unchanged"]),
    begun=st.integers(0, 2),
    past=st.lists(st.tuples(event, event), max_size=15),
    future=st.lists(st.tuples(event, event), max_size=15),
    used=st.booleans(),
    seed=seeds,
)
def test_a_restored_timeline_goes_on_as_it_would_have(
    when: When,
    what: tuple[Values, Domain],
    start: str,
    begun: int,
    past: list[tuple[Event, Event]],
    future: list[tuple[Event, Event]],
    used: bool,
    seed: int,
) -> None:
    line = timeline(when, *what, worlds=2, seeds=[seed, seed + 1][:begun], start=start)
    for events in past:
        live(line, *events)
    saved = through_json(line.state_dict())
    other = timeline(when, *what, worlds=2, seeds=[1, 2] if used else [], start=start)
    if used:
        live(other, Event(300, 7, True), Event(2, 1, True))
    other.load_state_dict(saved)
    assert other.state_dict() == saved and seen(other) == seen(line)
    for world in range(begun):
        assert told(other.preview(4, world)) == told(line.preview(4, world))
    for world in range(begun, 2):
        with pytest.raises(UsageError):
            other.preview(4, world)
    for events in future:
        live(line, *events)
        live(other, *events)
        assert seen(other) == seen(line)
    assert other.state_dict() == line.state_dict()


@pytest.mark.parametrize(("to", "domain"), EVERYTHING, ids=repr)
@pytest.mark.parametrize("clock", [0, 1, 100, 254, 255, 256, 257, 511, 512, 700])
def test_a_drift_is_restored_in_the_middle(to: Values, domain: Domain, clock: int) -> None:
    line = timeline(Continuously(), to, domain)
    steps(line, 1, clock)
    other = timeline(Continuously(), to, domain, seeds=[])
    other.load_state_dict(through_json(line.state_dict()))
    assert told(other.preview(300)) == told(line.preview(300))
    for each in (1, 1, 254, 1, 1, 600):
        steps(line, 1, each)
        steps(other, 1, each)
        assert seen(other) == seen(line)


def test_a_state_is_not_touched_by_what_comes_after() -> None:
    line = timeline(Poisson(0.5), RandomWalk(0, 1), PAIR)
    steps(line, 5)
    saved = line.state_dict()
    before = copy.deepcopy(saved)
    steps(line, 50)
    assert saved == before
    other = timeline(Poisson(0.5), RandomWalk(0, 1), PAIR, seeds=[])
    other.load_state_dict(saved)
    steps(other, 50)
    assert saved == before and seen(other) == seen(line)


def test_a_seed_of_numpy_is_a_seed() -> None:
    line = timeline(EverySteps(1), Normal(), seeds=[np.int64(SEED)])
    assert seen(line) == seen(timeline(EverySteps(1), Normal(), seeds=[SEED]))
    through_json(line.state_dict())


# --------------------------------------------------------------------------------------
# The description


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ((5, Normal()), "Schedule.when"),
        ((EverySteps, Normal()), "Schedule.when"),
        ((Normal(), EverySteps(1)), "Schedule.when"),
        ((EverySteps(1), 5), "Schedule.to"),
        ((EverySteps(1), Normal), "Schedule.to"),
        ((EverySteps(1), [1, 2]), "Schedule.to"),
        ((EverySteps(1), np.zeros((40, 40))), "Schedule.to"),
        ((EverySteps(1), Normal(), "now"), "Schedule.start"),
        ((EverySteps(1), Normal(), True), "Schedule.start"),
        ((EverySteps(1), Normal(), None), "Schedule.start"),
        ((EverySteps(1), Normal(), np.zeros((40, 40))), "Schedule.start"),
    ],
)
def test_bad_parts_are_refused_at_once(parts: tuple[Any, ...], field: str) -> None:
    with pytest.raises(UsageError) as caught:
        Schedule(*parts)
    assert str(caught.value).startswith(field)
    assert "\n" not in str(caught.value)


def test_schedules_compare_and_copy() -> None:
    one = Schedule(AtSteps([1, 2]), Cycle([[1, 2], [3, 4]]), "unchanged")
    two = Schedule(AtSteps((1, 2)), Cycle(np.array([[1, 2], [3, 4]])), "unchanged")  # type: ignore[arg-type]
    assert one == two and copy.deepcopy(one) == one and pickle.loads(pickle.dumps(one)) == one
    assert one != Schedule(AtSteps([1, 2]), Cycle([[1, 2], [3, 4]]))
    assert one != Schedule(AtSteps([1, 3]), Cycle([[1, 2], [3, 4]]), "unchanged")
    assert "\n" not in repr(one)
