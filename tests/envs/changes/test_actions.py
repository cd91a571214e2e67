from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from clrl.envs import (
    AtSteps,
    Choice,
    Continuously,
    Cycle,
    DelayActions,
    EverySteps,
    LinearDrift,
    Never,
    NoisyActions,
    NonStationary,
    NonStationaryVector,
    Normal,
    PermuteActions,
    RandomMask,
    RandomPermutation,
    Schedule,
    Uniform,
)
from clrl.envs.changes.base import Change
from clrl.errors import UsageError

F32 = np.float32


class Does(gym.Env[Any, Any]):
    """Remembers what it was told to do; shows the number of steps."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.action_space = space
        self.observation_space = spaces.Box(0, np.inf, (1,), F32)
        self.done: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, F32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        self.done.append(np.array(action))
        return np.full(1, self.t, F32), 1.0, False, False, {}


def done(change: Change, space: spaces.Space[Any], actions: Any, schedule: Schedule) -> Any:
    """What the environment does when the agent chooses these, in one episode."""
    base = Does(space)
    env = NonStationary(base, change, schedule)
    env.reset(seed=0)
    for action in actions:
        env.step(action)
    assert all(space.contains(action) for action in base.done)
    return np.array(base.done)


def fixed(value: Any) -> Schedule:
    return Schedule(Never(), Cycle([value]))


def every_step(*values: Any) -> Schedule:
    return Schedule(EverySteps(1), Cycle(values))


def box(*shape: int, low: Any = -1.0, high: Any = 1.0) -> spaces.Box:
    return spaces.Box(low, high, shape or None, F32)


# Permuted


@pytest.mark.parametrize("start", [0, 3, -1])
def test_names_of_discrete_actions_are_permuted(start: int) -> None:
    space = spaces.Discrete(4, start=start)
    chosen = start + np.arange(4)
    did = done(PermuteActions(), space, chosen, fixed([2, 0, 3, 1]))
    np.testing.assert_array_equal(did, start + np.array([2, 0, 3, 1]))


def test_entries_of_continuous_actions_are_permuted() -> None:
    did = done(PermuteActions(), box(3), [np.array([0.1, 0.2, 0.3], F32)], fixed([2, 0, 1]))
    np.testing.assert_array_equal(did, [np.array([0.3, 0.1, 0.2], F32)])
    assert did.dtype == F32
    matrix = np.array([[0.1, 0.2], [0.3, 0.4]], F32)
    did = done(PermuteActions(), box(2, 2), [matrix], fixed([3, 2, 1, 0]))
    np.testing.assert_array_equal(did, [np.array([[0.4, 0.3], [0.2, 0.1]], F32)])


@pytest.mark.parametrize("space", [spaces.Discrete(5), box(5)], ids=str)
@given(p=st.permutations(range(5)))
def test_the_inverse_permutation_gives_back(space: spaces.Space[Any], p: list[int]) -> None:
    base = Does(space)
    env: Any = base
    for value in (p, np.argsort(p)):
        env = NonStationary(env, PermuteActions(), fixed(value))
    env.reset(seed=0)
    chosen = [space.sample() for _ in range(3)]
    for action in chosen:
        env.step(action)
    np.testing.assert_array_equal(base.done, chosen)


# Delayed


def test_delay_by_hand() -> None:
    space = spaces.Discrete(10)
    np.testing.assert_array_equal(
        done(DelayActions(), space, [1, 2, 3, 4, 5], fixed(2)), [0, 0, 1, 2, 3]
    )
    np.testing.assert_array_equal(done(DelayActions(), space, [4, 5, 6], fixed(0)), [4, 5, 6])


def test_until_an_action_is_old_enough_the_first_or_rest_is_done() -> None:
    assert done(DelayActions(), spaces.Discrete(3, start=7), [9], fixed(1)).tolist() == [7]
    space = spaces.Box(np.array([-1, 0.5, -3], F32), np.array([1, 2, -2], F32))
    did = done(DelayActions(), space, [np.array([1, 2, -2.5], F32)] * 2, fixed(1))
    np.testing.assert_array_equal(did, [[0, 0.5, -2], [1, 2, -2.5]])
    assert did.dtype == F32
    unbounded = done(DelayActions(), box(2, low=-np.inf, high=np.inf), [np.ones(2, F32)], fixed(1))
    np.testing.assert_array_equal(unbounded, [[0, 0]])


def test_a_delay_can_change_in_an_episode() -> None:
    # Step t carries out what was chosen at t - delay: 0-0, 1-0, 2-2, 3-2, 4-0, 5-1, 6-1
    schedule = Schedule(AtSteps([2, 4, 5]), Cycle([0, 2, 0, 1]))
    did = done(DelayActions(), spaces.Discrete(20), range(10, 17), schedule)
    np.testing.assert_array_equal(did, [10, 11, 10, 11, 14, 14, 15])


def test_an_episode_begins_at_rest() -> None:
    base = Does(spaces.Discrete(10))
    env = NonStationary(base, DelayActions(), fixed(2))
    for _ in range(2):
        env.reset()
        for action in (5, 6, 7):
            env.step(action)
    np.testing.assert_array_equal(base.done, [0, 0, 5] * 2)


def test_the_chosen_array_may_be_written_over() -> None:
    base = Does(box(1))
    env = NonStationary(base, DelayActions(), fixed(1))
    env.reset(seed=0)
    action = np.array([0.5], F32)
    env.step(action)
    action[:] = -1
    env.step(action)
    np.testing.assert_array_equal(base.done, [[0], [0.5]])


@settings(deadline=None, max_examples=60)
@given(
    delays=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    continuous=st.booleans(),
)
def test_delays_against_a_list_of_all_actions(
    delays: list[int], lengths: list[int], continuous: bool
) -> None:
    space: Any = box(2) if continuous else spaces.Discrete(100)
    rest = np.zeros(2, F32) if continuous else 0
    base = Does(space)
    env = NonStationary(base, DelayActions(), every_step(*delays))
    env.reset(seed=0)
    step, expected = 0, []
    for length in lengths:
        env.reset()
        chosen = [space.sample() for _ in range(length)]
        for t, action in enumerate(chosen):
            env.step(action)
            delay = delays[step % len(delays)]
            expected.append(chosen[t - delay] if t >= delay else rest)
            step += 1
    np.testing.assert_array_equal(base.done, expected)


# Noisy


def test_random_actions_come_with_the_given_probability() -> None:
    n, p = 6000, 0.3
    did = done(NoisyActions(), spaces.Discrete(4, start=2), [3] * n, fixed(p))
    counts = np.bincount(did, minlength=6)[2:]
    # A random action may be the chosen one.
    expected = n * np.array([p / 4, 1 - p + p / 4, p / 4, p / 4])
    assert (np.abs(counts - expected) < 4.5 * np.sqrt(expected)).all()
    noisy = (did != 3).astype(float)
    assert abs(np.corrcoef(noisy[1:], noisy[:-1])[0, 1]) < 4 / np.sqrt(n)


def test_probability_none_and_one() -> None:
    chosen = [0, 1, 2] * 20
    np.testing.assert_array_equal(
        done(NoisyActions(), spaces.Discrete(3), chosen, fixed(0)), chosen
    )
    did = done(NoisyActions(), spaces.Discrete(3), [1] * 900, fixed(1))
    assert (np.bincount(did, minlength=3) > 230).all()


def test_continuous_noise_is_a_share_of_half_the_range() -> None:
    space = spaces.Box(np.array([-1, 0], F32), np.array([1, 10], F32))
    middle = np.array([0, 5], F32)
    did = done(NoisyActions(), space, [middle] * 5000, fixed(0.1))
    assert did.dtype == F32
    noise = (did - middle).astype(np.float64)
    n = len(noise)
    np.testing.assert_allclose(noise.std(axis=0), [0.1, 0.5], rtol=4 / np.sqrt(2 * n))
    assert (np.abs(noise.mean(axis=0)) < 4 * np.array([0.1, 0.5]) / np.sqrt(n)).all()
    assert abs(np.corrcoef(noise.T)[0, 1]) < 4 / np.sqrt(n)


def test_continuous_noise_is_clipped_to_the_bounds() -> None:
    did = done(NoisyActions(), box(2), [np.ones(2, F32)] * 200, fixed(1))
    assert did.max() == 1 and did.min() == -1
    assert 0.4 < (did == 1).mean() < 0.6


def test_without_noise_actions_are_the_agents_own_to_the_bit() -> None:
    chosen = [np.array([0.1, -0.7], F32), np.array([1, -1], F32)]
    did = done(NoisyActions(), box(2), chosen, fixed(0))
    assert did.tobytes() == np.array(chosen).tobytes()


@pytest.mark.parametrize("space", [spaces.Discrete(1000), box(2)], ids=str)
def test_noise_is_the_seeds_and_each_lanes(space: spaces.Space[Any]) -> None:
    def lanes(worlds: int, seeds: list[int], n: int = 20) -> Any:
        bases = [Does(space) for _ in seeds]
        env = NonStationaryVector(
            gym.vector.SyncVectorEnv([lambda base=base: base for base in bases]),
            NoisyActions(),
            fixed(1),
            worlds=worlds,
        )
        env.reset(seed=seeds)
        chosen = np.array([space.low if isinstance(space, spaces.Box) else 0] * len(seeds))
        for _ in range(n):
            env.step(chosen.astype(space.dtype))
        return np.array([base.done for base in bases])

    one = lanes(2, [1, 2])
    np.testing.assert_array_equal(one, lanes(2, [1, 2]))
    assert (one[0] != one[1]).any()
    np.testing.assert_array_equal(lanes(2, [1, 3])[0], one[0])
    np.testing.assert_array_equal(lanes(1, [2])[0], one[1])
    shared = lanes(1, [1, 2])
    assert (shared[0] != shared[1]).any()


# In general

CHANGES: dict[str, tuple[Change, Any]] = {
    "permute": (PermuteActions(), RandomPermutation()),
    "delay": (DelayActions(), Choice([0, 1, 3])),
    "noise": (NoisyActions(), Uniform(0, 1)),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4),
        spaces.Discrete(4, start=-7),
        box(3),
        box(2, 2, low=-0.3, high=1.7),
        spaces.Box(-2, 2, (2,), np.float64),
    ],
    ids=str,
)
def test_the_environment_gets_actions_of_its_space(name: str, space: spaces.Space[Any]) -> None:
    change, to = CHANGES[name]
    base = Does(space)
    env = NonStationary(base, change, Schedule(EverySteps(3), to))
    assert env.action_space == space
    space.seed(0)
    for _ in range(3):
        env.reset()
        for _ in range(20):
            env.step(env.action_space.sample())
    assert len(base.done) == 60
    assert all(space.contains(action) for action in base.done)
    if isinstance(space, spaces.Box):
        assert {action.dtype for action in base.done} == {space.dtype}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("space", [spaces.Discrete(4, start=2), box(3)], ids=str)
def test_unchanged_changes_nothing(name: str, space: spaces.Space[Any]) -> None:
    change, to = CHANGES[name]
    chosen = [space.sample() for _ in range(20)]
    did = done(change, space, chosen, Schedule(Never(), to, start="unchanged"))
    assert did.tobytes() == np.array(chosen).tobytes()


def test_the_agents_action_array_is_left_alone() -> None:
    for change, to in CHANGES.values():
        env = NonStationaryVector(
            gym.vector.SyncVectorEnv([lambda: Does(box(2))] * 3),
            change,
            Schedule(EverySteps(1), to),
        )
        env.reset(seed=0)
        actions = env.action_space.sample()
        before = actions.copy()
        env.step(actions)
        np.testing.assert_array_equal(actions, before)


# Mistakes

UNEQUAL = spaces.Box(np.array([-1, -2], F32), np.array([1, 2], F32))
D3 = spaces.Discrete(3)
WRONG: dict[str, tuple[Change, spaces.Space[Any], Any, str]] = {
    "entries of different bounds": (
        PermuteActions(),
        UNEQUAL,
        RandomPermutation(),
        "PermuteActions: expected the same bounds",
    ),
    "permute several": (
        PermuteActions(),
        spaces.MultiDiscrete([2, 3]),
        RandomPermutation(),
        "PermuteActions: expected Discrete or Box actions",
    ),
    "no permutation": (PermuteActions(), D3, Cycle([[0, 0, 1]]), "permutation of 0 to 2"),
    "negative delay": (
        DelayActions(),
        D3,
        Cycle([1, -1]),
        "a whole number from 0 to 10000, got -1",
    ),
    "half a delay": (DelayActions(), D3, Cycle([0.5]), "from 0 to 10000, got 0.5"),
    "delay of real numbers": (DelayActions(), D3, Uniform(0, 3), "Uniform"),
    "delay without bound": (DelayActions(), D3, Normal(2, 1), "Normal"),
    "delay that drifts": (DelayActions(), D3, LinearDrift(0, 1), "LinearDrift"),
    "delay of truth values": (DelayActions(), D3, RandomMask(0.5), "RandomMask"),
    "delay of several": (
        DelayActions(),
        spaces.MultiBinary(3),
        Cycle([1]),
        "DelayActions: expected Discrete or Box actions",
    ),
    "delay longer than any memory": (DelayActions(), D3, Cycle([2**40]), "DelayActions"),
    "probability above one": (NoisyActions(), D3, Uniform(0, 1.5), r"a probability in \[0, 1\]"),
    "probability below none": (NoisyActions(), D3, Cycle([-0.1]), r"a probability in \[0, 1\]"),
    "noise below none": (NoisyActions(), box(2), Uniform(-1, 1), "a number >= 0"),
    "share of no range": (
        NoisyActions(),
        box(2, low=-np.inf),
        Uniform(0, 1),
        "NoisyActions: expected Discrete or bounded Box",
    ),
    "normal noise on whole numbers": (
        NoisyActions(),
        spaces.Box(-128, 127, (2,), np.int8),
        Uniform(0, 1),
        "NoisyActions: expected Discrete or bounded Box",
    ),
    "noise on several": (
        NoisyActions(),
        spaces.MultiDiscrete([2, 2]),
        Uniform(0, 1),
        "NoisyActions: expected Discrete or bounded Box",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_in_one_line(name: str) -> None:
    change, space, to, message = WRONG[name]
    with pytest.raises(UsageError, match=message) as error:
        NonStationary(Does(space), change, Schedule(Never(), to))
    assert "\n" not in str(error.value)


def test_a_drifting_probability_stays_one() -> None:
    schedule = Schedule(Continuously(), LinearDrift(0, 0.3, low=0, high=1))
    base = Does(spaces.Discrete(2))
    env = NonStationary(base, NoisyActions(), schedule)
    env.reset(seed=0)
    seen = []
    for _ in range(6):
        env.step(0)
        seen.append(float(env.value))
    np.testing.assert_allclose(seen, [0, 0.3, 0.6, 0.9, 0.8, 0.5])
