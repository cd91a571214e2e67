from __future__ import annotations

import copy
import json
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import clrl.envs
from clrl.envs import (
    AtSteps,
    Choice,
    Continuously,
    Cycle,
    DelayActions,
    EveryEpisodes,
    EverySteps,
    FlipReward,
    LinearDrift,
    LogUniform,
    MaskObservation,
    Never,
    NoisyActions,
    NoisyObservation,
    NonStationary,
    NonStationaryVector,
    Normal,
    OffsetObservation,
    PermuteActions,
    PermuteObservation,
    Physics,
    Poisson,
    RandomMask,
    RandomPermutation,
    RandomWalk,
    RotateObservation,
    ScaleObservation,
    ScaleReward,
    Schedule,
    ShiftReward,
    SinusoidalDrift,
    Uniform,
)
from clrl.envs.classic import CartPoleVectorEnv
from clrl.errors import UsageError

F32 = np.float32
NEXT, SAME, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED
every_mode = pytest.mark.parametrize("mode", AutoresetMode, ids=lambda mode: mode.value)


class Echo(gym.Env[Any, Any]):
    """Shows the steps of the episode, the action, a number drawn and the resets so far.

    An episode ends by chance, or after `end` steps where that is given.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (4,), F32)
    action_space = spaces.Discrete(4)

    def __init__(self, end: int | None = None) -> None:
        self.end = end
        self.t = self.resets = 0

    def _see(self, action: Any) -> Any:
        return np.array([self.t, action, self.np_random.random(), self.resets], F32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.resets += 1
        self.t = 0
        return self._see(-1), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        terminated = self.np_random.random() < 0.1 if self.end is None else self.t == self.end
        return self._see(action), self.t + float(action), bool(terminated), self.t == 15, {}

    def state_dict(self) -> dict[str, Any]:
        here = {"t": self.t, "resets": self.resets}
        return {**here, "rng": self.np_random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.t, self.resets = state["t"], state["resets"]
        self.np_random.bit_generator.state = state["rng"]


def cartpole() -> Any:
    return gym.make("CartPole-v1", max_episode_steps=20)


# One lane, and the vector environments of such lanes that are to behave alike.
SINGLE: dict[str, Any] = {"echo": Echo, "sync": cartpole, "array": cartpole}


def batch(base: str, n: int, mode: AutoresetMode = NEXT) -> VectorEnv[Any, Any, Any]:
    if base == "array":
        return CartPoleVectorEnv(n, max_episode_steps=20, autoreset_mode=mode)
    return SyncVectorEnv([SINGLE[base]] * n, autoreset_mode=mode)


CHANGES: dict[str, tuple[Any, Any]] = {
    "permuted observation": (PermuteObservation(), RandomPermutation()),
    "offset": (OffsetObservation(), Normal(0, 2)),
    "walking offset": (OffsetObservation(), RandomWalk(0, 0.5)),
    "scale": (ScaleObservation(), SinusoidalDrift(1, 0.5, 40)),
    "rotation": (RotateObservation(), Uniform(-3, 3)),
    "mask": (MaskObservation(), RandomMask(0.5)),
    "noise": (NoisyObservation(), Uniform(0, 1)),
    "permuted actions": (PermuteActions(), RandomPermutation()),
    "delay": (DelayActions(), Choice([0, 1, 4])),
    "random actions": (NoisyActions(), Uniform(0, 1)),
    "scaled reward": (ScaleReward(), LogUniform(0.1, 10)),
    "shifted reward": (ShiftReward(), LinearDrift(0, 0.3, low=-1, high=1)),
    "flipped reward": (FlipReward(), Cycle([False, True, True])),
    "length": (Physics("length"), LogUniform(0.2, 2)),
    "gravity and force": (Physics(["gravity", "force_mag"]), Uniform([2, 5], [20, 15])),
}

WHENS = [
    EverySteps(1),
    EverySteps(7),
    EverySteps(15, at_episode_end=True),
    EveryEpisodes(1),
    EveryEpisodes(3),
    AtSteps([3, 10, 11, 60]),
    AtSteps([3, 10, 11, 60], at_episode_end=True),
    Poisson(0.15),
    Poisson(0.1, at_episode_end=True),
    Continuously(),
    Never(),
]

modes = st.sampled_from(list(AutoresetMode))
whens = st.sampled_from(WHENS)
starts: Any = st.sampled_from(["drawn", "unchanged"])
seeds = st.integers(0, 2**31)


def bases(name: str) -> st.SearchStrategy[str]:
    physics = isinstance(CHANGES[name][0], Physics)
    return st.sampled_from(["sync", "array"] if physics else list(SINGLE))


# Examples are a choice of a few words; making failing ones smaller would take minutes.
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)


# What comes of a vector environment, comparable to the bit

TOLD = ("task", "_task", "task_changed", "_task_changed")


def bits(array: Any) -> Any:
    array = np.asarray(array)
    return array.dtype.str, array.shape, array.tolist()


def told(info: dict[str, Any], lanes: Any = slice(None)) -> Any:
    return {key: bits(info[key][lanes]) for key in TOLD}


def last(info: dict[str, Any]) -> Any:
    """What is said of episodes that ended, where lanes are reset at once."""
    if "final_obs" not in info:
        return None
    ended = info["_final_obs"]
    assert (ended == info["_final_info"]).all()
    assert all(one is None for one in info["final_obs"][~ended])
    shown = [bits(one) for one in info["final_obs"][ended]]
    return bits(ended), shown, told(info["final_info"])


def drive(env: Any, n: int, seed: Any, each: Any = None, actions: Any = None) -> list[Any]:
    """Everything that is seen in n steps with random actions; begins with a reset.

    Where ``seed`` is False, it goes on without a reset.
    """
    rng = np.random.default_rng(5)
    mode = AutoresetMode(env.metadata["autoreset_mode"])
    rows: list[Any] = []
    if seed is not False:
        observations, info = env.reset(seed=seed)
        rows.append((bits(observations), told(info)))
    for _ in range(n):
        chosen = rng.integers(env.single_action_space.n, size=env.num_envs)
        if actions is not None:
            chosen = actions(chosen)
        observations, *rest, info = env.step(chosen)
        rows.append((bits(observations), *map(bits, rest), told(info), last(info)))
        ended = rest[1] | rest[2]
        if mode is DISABLED and ended.any():
            observations, info = env.reset(options={"reset_mask": ended})
            rows.append((bits(observations), told(info, ended)))
        if each is not None:
            rows.append(each(env))
    return rows


def assert_same(first: list[Any], second: list[Any]) -> None:
    for t, (one, two) in enumerate(zip(first, second, strict=True)):
        assert one == two, f"row {t} of {len(first)}"


# A world of one lane is a single environment


@pytest.mark.parametrize("name", CHANGES)
@settings(deadline=None, max_examples=6, phases=UNSHRUNK)
@given(data=st.data(), when=whens, mode=modes, start=starts, reveal=st.booleans(), seed=seeds)
def test_lanes_with_worlds_of_their_own_are_single_environments(
    name: str, data: st.DataObject, when: Any, mode: Any, start: Any, reveal: bool, seed: int
) -> None:
    reveal &= not isinstance(when, Continuously)
    change, to = CHANGES[name]
    base = data.draw(bases(name))
    schedule = Schedule(when, to, start=start)

    def single() -> Any:
        return NonStationary(SINGLE[base](), change, schedule, reveal_task=reveal)

    expected = SyncVectorEnv([single] * 3, autoreset_mode=mode)
    env = NonStationaryVector(batch(base, 3, mode), change, schedule, worlds=3, reveal_task=reveal)
    assert env.single_observation_space == expected.single_observation_space
    assert env.observation_space == expected.observation_space
    assert env.single_action_space == expected.single_action_space
    assert env.action_space == expected.action_space
    mine = [seed, seed + 7, seed + 1]
    assert_same(drive(env, 120, mine), drive(expected, 120, mine))


@every_mode
@pytest.mark.parametrize("base", SINGLE)
@pytest.mark.parametrize("when", [EverySteps(7), EverySteps(15, at_episode_end=True)], ids=repr)
def test_hundreds_of_steps_of_three_changes(base: str, mode: AutoresetMode, when: Any) -> None:
    """Stacked, with noise in what is seen and done."""
    layers = [
        (NoisyActions(), Schedule(EveryEpisodes(2), Uniform(0, 0.5))),
        (NoisyObservation(), Schedule(Poisson(0.1), Uniform(0, 1))),
        (RotateObservation(), Schedule(when, Uniform(-3, 3))),
    ]

    def single() -> Any:
        env = SINGLE[base]()
        for change, schedule in layers:
            env = NonStationary(env, change, schedule)
        return env

    env: Any = batch(base, 4, mode)
    for change, schedule in layers:
        env = NonStationaryVector(env, change, schedule, worlds=4)
    expected = SyncVectorEnv([single] * 4, autoreset_mode=mode)
    mine = [4, 9, 2, 2]
    assert_same(drive(env, 200, mine), drive(expected, 200, mine))
    assert env.task.min() > 5


@every_mode
def test_lanes_that_all_end_at_once(mode: AutoresetMode) -> None:
    """Where no lane takes a step."""
    lane = partial(Echo, 3)
    for change, to in ((NoisyActions(), Uniform(0, 1)), (DelayActions(), Choice([0, 2]))):
        schedule = Schedule(EverySteps(4), to)
        env = NonStationaryVector(
            SyncVectorEnv([lane] * 2, autoreset_mode=mode), change, schedule, worlds=2
        )
        singles = [NonStationary(lane(), change, schedule) for _ in range(2)]
        expected = SyncVectorEnv(
            [partial(singles.__getitem__, i) for i in range(2)], autoreset_mode=mode
        )
        assert_same(drive(env, 30, [1, 2]), drive(expected, 30, [1, 2]))


@every_mode
@pytest.mark.parametrize("name", ["delay", "random actions", "noise"])
def test_continuous_actions(name: str, mode: AutoresetMode) -> None:
    change, to = CHANGES[name]
    schedule = Schedule(EverySteps(7), to)

    def pendulum() -> Any:
        return gym.make("Pendulum-v1", max_episode_steps=20)

    def single() -> Any:
        return NonStationary(pendulum(), change, schedule)

    env = NonStationaryVector(
        SyncVectorEnv([pendulum] * 3, autoreset_mode=mode), change, schedule, worlds=3
    )
    expected = SyncVectorEnv([single] * 3, autoreset_mode=mode)
    rng = np.random.default_rng(0)
    assert bits(env.reset(seed=3)[0]) == bits(expected.reset(seed=3)[0])
    for t in range(70):
        actions = rng.uniform(-2, 2, (3, 1)).astype(F32)
        if mode is DISABLED and t and t % 20 == 0:
            assert bits(env.reset()[0]) == bits(expected.reset()[0])
        *one, mine = env.step(actions)
        *two, other = expected.step(actions)
        assert [*map(bits, one), told(mine)] == [*map(bits, two), told(other)]


# Several lanes in a world


class Counted:
    """The contract in the simplest words, for one world."""

    def __init__(self, when: Any, lanes: int) -> None:
        self.when = when
        self.task = self.clock = self.episodes = self.last = 0
        self.tasks = [0] * lanes
        self.stepped = [False] * lanes

    def _due(self) -> bool:
        when = self.when
        if isinstance(when, EverySteps):
            since = self.last if when.at_episode_end else self.task * when.n
            return self.clock - since >= when.n
        if isinstance(when, EveryEpisodes):
            return self.episodes >= (self.task + 1) * when.n
        assert isinstance(when, AtSteps)
        return self.task < len(when.steps) and self.clock >= when.steps[self.task]

    def _bring(self, lanes: Any) -> list[bool]:
        """Changes that are due come, and these lanes have them; which of them changed."""
        while self._due():
            self.task += 1
            self.last = self.clock
        changed = [lanes[i] and self.tasks[i] != self.task for i in range(len(self.tasks))]
        self.tasks = [self.task if lanes[i] else task for i, task in enumerate(self.tasks)]
        return changed

    def begin(self, lanes: Any) -> list[bool]:
        if not any(lanes):
            return [False] * len(self.tasks)
        for i in np.flatnonzero(lanes):
            self.episodes += self.stepped[i]
            self.stepped[i] = False
        return self._bring(lanes)

    def step(self, live: Any) -> list[bool]:
        none = [False] * len(self.tasks)
        changed = none if self.when.at_episode_end else self._bring([True] * len(none))
        for i in np.flatnonzero(live):
            self.clock += 1
            self.stepped[i] = True
        return changed


MARKS = LinearDrift(0, 100, low=0, high=1e6)  # the offset is a hundred times the task


@every_mode
@pytest.mark.parametrize(
    "when",
    [
        EverySteps(1),
        EverySteps(2),
        EverySteps(7),
        EverySteps(25),
        EverySteps(1, at_episode_end=True),
        EverySteps(20, at_episode_end=True),
        EveryEpisodes(1),
        EveryEpisodes(2),
        EveryEpisodes(7),
        AtSteps([2, 3, 30, 31, 60]),
        AtSteps([2, 3, 30, 31, 60], at_episode_end=True),
    ],
    ids=repr,
)
def test_lanes_of_a_world_share_tasks_and_clock(when: Any, mode: AutoresetMode) -> None:
    ends = [3, 5, 8, 5]
    inside = SyncVectorEnv([partial(Echo, end) for end in ends], autoreset_mode=mode)
    env = NonStationaryVector(inside, OffsetObservation(), Schedule(when, MARKS))
    counted = Counted(when, 4)
    everyone = np.ones(4, np.bool_)

    def check(observations: Any, info: Any, changed: Any, t: Any) -> None:
        assert info["task"].tolist() == env.task.tolist() == counted.tasks
        assert info["task_changed"].tolist() == list(changed)
        assert observations[:, 0].tolist() == [
            100 * task + step for task, step in zip(counted.tasks, t, strict=True)
        ]

    observations, info = env.reset(seed=0)
    t = np.zeros(4, np.int64)
    check(observations, info, counted.begin(everyone), t)
    ended = ~everyone
    for _ in range(60):
        if mode is NEXT:
            first = counted.begin(ended)
            changed = np.array(first) | counted.step(~ended)
            t = np.where(ended, 0, t + 1)
        else:
            changed = np.array(counted.step(everyone))
            t = t + 1
        observations, _, terminated, _, info = env.step(np.zeros(4, np.int64))
        ended = terminated
        np.testing.assert_array_equal(ended, t == ends)
        if mode is SAME and ended.any():
            final = info["final_info"]
            assert final["task"].tolist() == (np.array(counted.tasks) * ended).tolist()
            assert final["task_changed"].tolist() == (changed & ended).tolist()
            for lane in np.flatnonzero(ended):
                assert info["final_obs"][lane][0] == 100 * counted.tasks[lane] + t[lane]
            changed = np.where(ended, counted.begin(ended), changed)
            t = np.where(ended, 0, t)
        check(observations, info, changed, t)
        if mode is DISABLED and ended.any():
            observations, info = env.reset(options={"reset_mask": ended})
            t = np.where(ended, 0, t)
            check(observations, info, counted.begin(ended), t)
    assert counted.task > 1


def test_the_first_end_brings_the_change_and_the_others_follow() -> None:
    inside = SyncVectorEnv([partial(Echo, end) for end in (3, 5, 9)])
    schedule = Schedule(EverySteps(6, at_episode_end=True), Cycle([1, 2, 3, 4]))
    env = NonStationaryVector(inside, ScaleReward(), schedule)
    env.reset(seed=0)
    tasks = []
    for _ in range(8):
        tasks.append(env.step(np.zeros(3, np.int64))[4]["task"].tolist())
    # 9 steps are done when the first lane ends; it is reset in the fourth call. Then 2 more until
    # the second lane ends, and 6 + 2 = 8 are enough for another change when the first ends again.
    assert tasks == [[0, 0, 0]] * 3 + [[1, 0, 0]] * 2 + [[1, 1, 0]] * 2 + [[2, 1, 0]]


@pytest.mark.parametrize("mode", [NEXT, SAME], ids=lambda mode: mode.value)
def test_a_drift_goes_by_the_steps_of_all_lanes(mode: AutoresetMode) -> None:
    inside = SyncVectorEnv([partial(Echo, end) for end in (3, 99)], autoreset_mode=mode)
    env = NonStationaryVector(inside, OffsetObservation(), Schedule(Continuously(), MARKS))
    env.reset(seed=0)
    offsets = []
    for _ in range(6):
        observations, _, _, _, info = env.step(np.zeros(2, np.int64))
        offsets.append((observations[1, 0] // 100).tolist())
        assert not info["task"].any() and not info["task_changed"].any()
    # The fourth call only resets the first lane, where that takes a call.
    assert offsets == ([0, 2, 4, 6, 7, 9] if mode is NEXT else [0, 2, 4, 6, 8, 10])


# Worlds do not touch each other


@every_mode
@pytest.mark.parametrize(
    "name", ["noise", "random actions", "offset", "delay", "scaled reward", "gravity and force"]
)
@settings(deadline=None, max_examples=2, phases=UNSHRUNK)
@given(data=st.data(), when=whens)
def test_a_world_does_not_depend_on_the_other(
    name: str, mode: AutoresetMode, data: st.DataObject, when: Any
) -> None:
    change, to = CHANGES[name]
    base = data.draw(bases(name))

    def world(n: int, worlds: int, mine: list[int], others: int) -> list[Any]:
        """What the first three lanes see, in calls of their own."""
        env = NonStationaryVector(batch(base, n, mode), change, Schedule(when, to), worlds=worlds)
        rng, rest = np.random.default_rng(5), np.random.default_rng(others)
        observations, info = env.reset(seed=[*mine, *(others + i for i in range(n - 3))])
        rows: list[Any] = []
        for _ in range(45):
            rows.append((bits(observations[:3]), told(info, slice(3)), plan(env, 0)))
            actions = np.append(rng.integers(2, size=3), rest.integers(2, size=n - 3))
            observations, *arrays, info = env.step(actions)
            ended = arrays[1] | arrays[2]
            rows.append([bits(array[:3]) for array in arrays])
            rows.append([bits(one) for one in info.get("final_obs", [None] * 3)[:3]])
            if mode is DISABLED and ended.any():
                observations, again = env.reset(options={"reset_mask": ended})
                if ended[:3].any():
                    rows.append(told(info, slice(3)))
                    info = again
        return rows

    alone = world(3, 1, [1, 2, 3], 0)
    assert_same(world(6, 2, [1, 2, 3], 50), alone)
    assert_same(world(6, 2, [1, 2, 3], 90), alone)
    assert_same(world(9, 3, [1, 2, 3], 70), alone)


def plan(env: Any, world: int) -> Any:
    return [(one.task, one.step, one.value.tolist()) for one in env.preview(3, world)]


def test_worlds_differ() -> None:
    env = NonStationaryVector(
        batch("echo", 6), OffsetObservation(), Schedule(EverySteps(5), Normal(0, 1)), worlds=3
    )
    env.reset(seed=0)
    for _ in range(10):
        values = env.value
        assert len(np.unique(values[:, 0])) == 3
        np.testing.assert_array_equal(values[::2], values[1::2])
        env.step(np.zeros(6, np.int64))


def test_a_task_seed_is_shared_by_all_worlds() -> None:
    def make(**options: Any) -> Any:
        schedule = Schedule(Poisson(0.2), Normal(0, 1))
        return NonStationaryVector(
            batch("echo", 4), OffsetObservation(), schedule, worlds=2, **options
        )

    env = make(task_seed=3)
    env.reset(seed=0)
    assert plan(env, 0) == plan(env, 1)
    single = NonStationary(
        Echo(), OffsetObservation(), Schedule(Poisson(0.2), Normal(0, 1)), task_seed=3
    )
    single.reset(seed=9)
    assert plan(env, 0) == [(p.task, p.step, p.value.tolist()) for p in single.preview(3)]
    other = make()
    other.reset(seed=0)
    assert plan(other, 0) != plan(other, 1)


# Seeds


def offsets(env: Any) -> list[float]:
    return [float(value) for value in env.value[:, 0]]


def drawn(n: int, worlds: int, **options: Any) -> NonStationaryVector:
    return NonStationaryVector(
        batch("echo", n),
        OffsetObservation(),
        Schedule(EverySteps(4), Normal(0, 1)),
        worlds=worlds,
        **options,
    )


def offset_of(seed: int) -> float:
    env = NonStationary(Echo(), OffsetObservation(), Schedule(EverySteps(4), Normal(0, 1)))
    env.reset(seed=seed)
    return float(env.value[0])


def test_a_number_seeds_lane_by_lane() -> None:
    env = drawn(3, 3)
    env.reset(seed=7)
    assert offsets(env) == [offset_of(7), offset_of(8), offset_of(9)]
    shared = drawn(6, 2)
    shared.reset(seed=7)
    assert offsets(shared) == [offset_of(7)] * 3 + [offset_of(10)] * 3


def test_a_list_of_seeds() -> None:
    env = drawn(4, 2)
    env.reset(seed=[5, 1, 3, 2])
    assert offsets(env) == [offset_of(5)] * 2 + [offset_of(3)] * 2


def test_a_list_with_gaps_goes_on_there() -> None:
    env, left = drawn(3, 3), drawn(3, 3)
    for each in (env, left):
        drive(each, 10, 0)
    left.reset()
    _, info = env.reset(seed=[5, None, 6])
    assert offsets(env) == [offset_of(5), offsets(left)[1], offset_of(6)]
    assert info["task"].tolist() == [0, left.task[1], 0] and left.task[1] > 0
    assert info["task_changed"].tolist()[::2] == [False, False]
    assert plan(env, 1) == plan(left, 1)
    assert plan(env, 0) != plan(left, 0)


def test_gaps_in_the_very_first_list() -> None:
    first, second = drawn(2, 2), drawn(2, 2)
    first.reset(seed=[5, None]), second.reset(seed=[5, None])
    assert offsets(first)[0] == offsets(second)[0] == offset_of(5)
    assert offsets(first)[1] != offsets(second)[1]


def test_no_seed_at_all() -> None:
    first, second = drawn(4, 2), drawn(4, 2)
    first.reset(), second.reset()
    assert len({*offsets(first), *offsets(second)}) == 4
    tasks = drive(first, 9, None) and first.task
    first.reset()
    assert (first.task >= tasks).all() and tasks.min() > 0


def test_a_seed_begins_everything_anew() -> None:
    env = NonStationaryVector(
        batch("array", 4), NoisyObservation(), Schedule(EverySteps(9), Uniform(0, 1)), worlds=2
    )
    first = drive(env, 40, 3)
    assert drive(env, 40, None) != first
    assert drive(env, 40, [3, 4, 5, 6]) == first
    assert drive(env, 40, 4) != first


@pytest.mark.parametrize("worlds", [1, 3])
@pytest.mark.parametrize("seed", [[1, 2], [1, 2, 3, 4], []], ids=str)
def test_too_few_or_too_many_seeds(worlds: int, seed: list[int | None]) -> None:
    env = drawn(3, worlds)
    with pytest.raises((UsageError, ValueError), match="3"):
        env.reset(seed=seed)


# Lanes that are reset by hand


def test_reset_mask_begins_episodes_in_these_lanes_alone() -> None:
    inside = SyncVectorEnv([partial(Echo, 99)] * 3, autoreset_mode=DISABLED)
    schedule = Schedule(EverySteps(4, at_episode_end=True), MARKS)
    env = NonStationaryVector(inside, OffsetObservation(), schedule)
    env.reset(seed=0)
    for _ in range(2):
        env.step(np.zeros(3, np.int64))
    options = {"reset_mask": np.array([False, True, False])}
    observations, info = env.reset(options=options)
    assert info["task"].tolist() == [0, 1, 0]
    assert info["task_changed"].tolist() == [False, True, False]
    assert observations[:, 0].tolist() == [2, 100, 2]
    assert options["reset_mask"].tolist() == [False, True, False]  # it is the caller's
    observations, _, _, _, info = env.step(np.zeros(3, np.int64))
    assert observations[:, 0].tolist() == [3, 101, 3]
    assert info["task"].tolist() == [0, 1, 0] and not info["task_changed"].any()


def test_lanes_that_go_on_show_the_same_again() -> None:
    """A mask resets some lanes; what the others show has been seen before, noise included."""
    for change, to in ((NoisyObservation(), Cycle([1.0])), (OffsetObservation(), Normal(0, 1))):
        for worlds in (1, 3):
            inside = SyncVectorEnv([partial(Echo, 99)] * 3, autoreset_mode=DISABLED)
            env = NonStationaryVector(inside, change, Schedule(EverySteps(2), to), worlds=worlds)
            env.reset(seed=0)
            for _ in range(5):
                before = env.step(np.zeros(3, np.int64))[0]
                mask = np.array([False, True, False])
                after = env.reset(options={"reset_mask": mask})[0]
                assert bits(after[~mask]) == bits(before[~mask])


@every_mode
@pytest.mark.parametrize("base", SINGLE)
@pytest.mark.parametrize("name", ["noise", "offset", "delay", "scaled reward"])
def test_any_lanes_can_be_reset_at_any_time(name: str, base: str, mode: AutoresetMode) -> None:
    """Gymnasium takes a mask in every mode, of lanes in the middle of an episode too."""
    change, to = CHANGES[name]
    schedule = Schedule(EveryEpisodes(2), to)
    env = NonStationaryVector(batch(base, 3, mode), change, schedule, worlds=3)
    expected = SyncVectorEnv(
        [lambda: NonStationary(SINGLE[base](), change, schedule)] * 3, autoreset_mode=mode
    )
    rng = np.random.default_rng(0)
    assert bits(env.reset(seed=1)[0]) == bits(expected.reset(seed=1)[0])
    for t in range(50):
        actions = rng.integers(2, size=3)
        *one, mine = env.step(actions)
        *two, other = expected.step(actions)
        assert [*map(bits, one), told(mine)] == [*map(bits, two), told(other)]
        mask = rng.random(3) < 0.2
        if mode is DISABLED:
            mask |= one[2] | one[3]
        if mask.any():
            seeds = [t, None, None] if t % 7 == 0 else None
            seen, mine = env.reset(seed=seeds, options={"reset_mask": mask.copy()})
            known, other = expected.reset(seed=seeds, options={"reset_mask": mask.copy()})
            assert bits(seen) == bits(known)
            assert told(mine, mask) == told(other, mask)
            assert mine["task"].tolist() == env.task.tolist()


def test_a_mask_with_seeds_begins_these_worlds_anew() -> None:
    inside = SyncVectorEnv([partial(Echo, 99)] * 3, autoreset_mode=DISABLED)
    env = NonStationaryVector(
        inside, OffsetObservation(), Schedule(EverySteps(2), Normal(0, 1)), worlds=3
    )
    env.reset(seed=0)
    for _ in range(5):
        env.step(np.zeros(3, np.int64))
    before = offsets(env)
    mask = np.array([True, False, True])
    _, info = env.reset(seed=[7, 8, None], options={"reset_mask": mask})
    assert offsets(env) == [offset_of(7), before[1], offsets(env)[2]]
    assert info["task"].tolist()[:2] == [0, 2] and info["task"][2] >= 2


@pytest.mark.parametrize("mode", [NEXT, SAME], ids=lambda mode: mode.value)
def test_a_reset_of_all_lanes_in_the_middle(mode: AutoresetMode) -> None:
    change, schedule = DelayActions(), Schedule(EveryEpisodes(2), Choice([1, 3]))
    env = NonStationaryVector(batch("echo", 3, mode), change, schedule, worlds=3)
    expected = SyncVectorEnv(
        [lambda: NonStationary(Echo(), change, schedule)] * 3, autoreset_mode=mode
    )
    for seed in (4, None, None, 4):
        for n in (0, 1, 7, 20):
            assert_same(drive(env, n, seed), drive(expected, n, seed))


# Spaces, and what passes through


def test_spaces_of_a_batch() -> None:
    env = NonStationaryVector(
        batch("sync", 3), OffsetObservation(), Schedule(Never(), Uniform(1, 2)), reveal_task=True
    )
    single: Any = env.single_observation_space
    assert single.shape == (5,) and env.observation_space.shape == (3, 5)
    assert single.high[0] == pytest.approx(4.8 + 2) and single.low[4] == 0
    assert env.observation_space == gym.vector.utils.batch_space(single, 3)
    assert env.single_action_space == spaces.Discrete(2)
    assert env.action_space == spaces.MultiDiscrete([2, 2, 2])
    observations, _ = env.reset(seed=0)
    assert observations.dtype == F32 and env.observation_space.contains(observations)
    assert env.num_envs == 3 and env.unwrapped.envs  # type: ignore[attr-defined]


@every_mode
def test_reveal_task_in_last_observations_too(mode: AutoresetMode) -> None:
    inside = SyncVectorEnv([partial(Echo, 3), partial(Echo, 4)], autoreset_mode=mode)
    schedule = Schedule(EverySteps(5, at_episode_end=True), Cycle([1]))
    env = NonStationaryVector(inside, ScaleReward(), schedule, reveal_task=True)
    observations, info = env.reset(seed=0)
    for _ in range(30):
        assert observations.shape == (2, 5)
        np.testing.assert_array_equal(observations[:, 4], info["task"])
        observations, _, ended, _, info = env.step(np.zeros(2, np.int64))
        if mode is SAME and ended.any():
            for lane in np.flatnonzero(ended):
                assert info["final_obs"][lane][4] == info["final_info"]["task"][lane]
        if mode is DISABLED and ended.any():
            observations, info = env.reset(options={"reset_mask": ended})
    assert info["task"].max() > 3


def test_inside_gymnasiums_vector_wrappers() -> None:
    env: Any = NonStationaryVector(
        batch("array", 3), ShiftReward(), Schedule(Never(), Cycle([1.0]))
    )
    env = gym.wrappers.vector.RecordEpisodeStatistics(env)
    env = gym.wrappers.vector.NormalizeObservation(env)
    env.reset(seed=0)
    returns = []
    for _ in range(60):
        observations, *_, info = env.step(np.ones(3, np.int64))
        if "episode" in info:
            ended = info["_episode"]
            returns += (info["episode"]["r"] - 2 * info["episode"]["l"])[ended].tolist()
    assert len(returns) > 3 and not any(returns)
    assert np.isfinite(observations).all()


def test_gymnasiums_vector_wrappers_inside() -> None:
    inside = gym.wrappers.vector.RecordEpisodeStatistics(batch("array", 3))
    env = NonStationaryVector(inside, Physics("length"), Schedule(Never(), Cycle([1.0])))
    env.reset(seed=0)
    seen = [env.step(np.ones(3, np.int64))[4] for _ in range(30)]
    assert any("episode" in info for info in seen)
    assert (env.unwrapped.get_parameter("length") == 1).all()  # type: ignore[attr-defined]


def test_arrays_that_come_from_inside_are_left_alone() -> None:
    """Also where they are the environment's own buffers."""
    inside = SyncVectorEnv([Echo] * 3, copy=False)
    plain = SyncVectorEnv([Echo] * 3)
    env: Any = NonStationaryVector(
        inside, OffsetObservation(), Schedule(EverySteps(2), Normal(0, 1))
    )
    env = NonStationaryVector(env, ScaleReward(), Schedule(EverySteps(3), Normal(0, 1)))
    env.reset(seed=0), plain.reset(seed=0)
    for _ in range(30):
        observations, rewards, *_ = env.step(np.ones(3, np.int64))
        expected = plain.step(np.ones(3, np.int64))
        observations[:], rewards[:] = 99, 99
        np.testing.assert_array_equal(inside._observations, expected[0])
        np.testing.assert_array_equal(inside._rewards, expected[1])


# Stacks


@every_mode
def test_stacked_wrappers_count_together(mode: AutoresetMode) -> None:
    inner = NonStationaryVector(
        batch("echo", 4, mode),
        OffsetObservation(),
        Schedule(EverySteps(11), Normal(0, 1)),
        worlds=2,
    )
    outer = NonStationaryVector(
        inner, ScaleReward(), Schedule(EveryEpisodes(2), Uniform(0, 1)), worlds=1
    )
    outer.reset(seed=0)
    before = np.zeros(4, np.int64)
    for _ in range(80):
        _, _, terminated, truncated, info = outer.step(np.zeros(4, np.int64))
        ended = terminated | truncated
        np.testing.assert_array_equal(info["task"], inner.task + outer.task)
        if mode is SAME and ended.any():
            final = info["final_info"]
            between = np.where(ended, final["task"], before)
            np.testing.assert_array_equal(final["task_changed"], ended & (between != before))
            before = between
        np.testing.assert_array_equal(info["task_changed"], info["task"] != before)
        before = info["task"]
        if mode is DISABLED and ended.any():
            _, info = outer.reset(options={"reset_mask": ended})
            np.testing.assert_array_equal(info["task"], inner.task + outer.task)
            np.testing.assert_array_equal(info["task_changed"], info["task"] != before)
            before = info["task"]
    assert inner.task.min() > 3 and outer.task.min() > 3


@every_mode
def test_wrapped_environments_inside_count_too(mode: AutoresetMode) -> None:
    """Either they are refused, or all is as if the outer change were around each of them, too."""
    layers = [
        (ShiftReward(), Schedule(EverySteps(5), Normal(0, 1))),
        (ScaleReward(), Schedule(EverySteps(5), Normal(0, 1))),
    ]

    def single(depth: int) -> Any:
        env: Any = Echo()
        for change, schedule in layers[:depth]:
            env = NonStationary(env, change, schedule)
        return env

    inside = SyncVectorEnv([partial(single, 1)] * 3, autoreset_mode=mode)
    try:
        env = NonStationaryVector(inside, *layers[1], worlds=3)
    except UsageError as error:
        assert "NonStationary" in str(error) and "\n" not in str(error)
        return
    expected = SyncVectorEnv([partial(single, 2)] * 3, autoreset_mode=mode)
    assert_same(drive(env, 60, [1, 2, 3]), drive(expected, 60, [1, 2, 3]))


def test_a_mask_says_no_wrong_task_of_lanes_that_go_on() -> None:
    def single() -> Any:
        return NonStationary(Echo(99), ShiftReward(), Schedule(EverySteps(3), Normal(0, 1)))

    singles = [single() for _ in range(3)]
    inside = SyncVectorEnv(
        [partial(singles.__getitem__, i) for i in range(3)], autoreset_mode=DISABLED
    )
    try:
        env = NonStationaryVector(inside, ScaleReward(), Schedule(EverySteps(5), Normal(0, 1)))
    except UsageError:
        return
    env.reset(seed=0)
    for _ in range(7):
        env.step(np.zeros(3, np.int64))
    _, info = env.reset(options={"reset_mask": np.array([False, True, False])})
    tasks = env.task + [one.task for one in singles]
    told = info["_task"]
    assert told[1] and info["task"][told].tolist() == tasks[told].tolist()


# States


def restored(make: Any, before: int, elsewhere: int, after: int) -> tuple[list[Any], list[Any]]:
    """Two futures: of an environment, and of another one that was put where it was."""
    env, other = make(), make()
    drive(env, before, 5)
    saved = json.loads(json.dumps(clrl.envs.state_dict(env)))
    if elsewhere:
        drive(other, elsewhere, 6)
    clrl.envs.load_state_dict(other, saved)
    assert json.loads(json.dumps(clrl.envs.state_dict(other))) == saved
    assert bits(other.task) == bits(env.task) and bits(other.value) == bits(env.value)
    plans = [[plan(each, w) for w in range(each._lanes.host.worlds)] for each in (env, other)]
    assert plans[0] == plans[1]
    # A reset in the middle, too.
    first = drive(env, after, False) + drive(env, after // 2, None)
    return first, drive(other, after, False) + drive(other, after // 2, None)


@pytest.mark.parametrize("name", CHANGES)
@settings(deadline=None, max_examples=6, phases=UNSHRUNK)
@given(
    data=st.data(),
    when=whens,
    mode=modes,
    start=starts,
    worlds=st.sampled_from([1, 2, 4]),
    before=st.integers(0, 40),
    elsewhere=st.sampled_from([0, 13]),
)
def test_a_saved_state_goes_on_alike(
    name: str,
    data: st.DataObject,
    when: Any,
    mode: Any,
    start: Any,
    worlds: int,
    before: int,
    elsewhere: int,
) -> None:
    change, to = CHANGES[name]
    base = data.draw(bases(name))

    def make() -> Any:
        return NonStationaryVector(
            batch(base, 4, mode), change, Schedule(when, to, start=start), worlds=worlds
        )

    assert_same(*restored(make, before, elsewhere, 40))


def stacked(base: str, mode: AutoresetMode = NEXT) -> Any:
    env = NonStationaryVector(
        batch(base, 4, mode), Physics("length"), Schedule(EverySteps(30, True), Uniform(0.2, 2))
    )
    return NonStationaryVector(env, NoisyActions(), Schedule(Poisson(0.1), Uniform(0, 1)), worlds=2)


@every_mode
@pytest.mark.parametrize("base", ["sync", "array"])
def test_a_saved_state_of_a_stack(base: str, mode: AutoresetMode) -> None:
    assert_same(*restored(lambda: stacked(base, mode), 37, 9, 60))


@pytest.mark.parametrize("base", ["sync", "array"])
def test_a_state_from_before_the_first_reset(base: str) -> None:
    saved = json.loads(json.dumps(stacked(base).state_dict()))
    env = stacked(base)
    drive(env, 20, 1)
    env.load_state_dict(saved)
    assert_same(drive(env, 40, 3), drive(stacked(base), 40, 3))


def offset_lanes(n: int = 4, worlds: int = 2, base: str = "sync", mode: Any = NEXT) -> Any:
    return NonStationaryVector(
        batch(base, n, mode),
        OffsetObservation(),
        Schedule(EverySteps(5), Normal(0, 1)),
        worlds=worlds,
    )


OTHERS: dict[str, Any] = {
    "fewer lanes": lambda: offset_lanes(n=2),
    "more lanes": lambda: offset_lanes(n=8),
    "one world": lambda: offset_lanes(worlds=1),
    "more worlds": lambda: offset_lanes(worlds=4),
    "another mode": lambda: offset_lanes(mode=SAME),
    "another class": lambda: offset_lanes(base="array"),
    "another environment": lambda: offset_lanes(base="echo"),
    "another change": lambda: NonStationaryVector(
        batch("sync", 4), ScaleObservation(), Schedule(EverySteps(5), Normal(0, 1)), worlds=2
    ),
    "no wrapper": lambda: batch("sync", 4),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_state_of_something_else_is_refused_in_one_line(name: str) -> None:
    env = offset_lanes()
    drive(env, 10, 0)
    saved = clrl.envs.state_dict(env)
    other = OTHERS[name]()
    other.reset(seed=1)
    before = clrl.envs.state_dict(other)
    with pytest.raises(UsageError, match="state") as error:
        clrl.envs.load_state_dict(other, saved)
    assert "\n" not in str(error.value)
    assert clrl.envs.state_dict(other) == before


def test_long_lists_of_numbers_make_no_long_message() -> None:
    """The state of a change of many entries is refused in one line too."""

    class Long(Echo):
        observation_space = spaces.Box(-1, 1, (60,), F32)

    def make(std: float) -> Any:
        to = Normal(np.arange(60.0), np.full(60, std))
        return NonStationaryVector(
            SyncVectorEnv([Long] * 2), OffsetObservation(), Schedule(EverySteps(5), to)
        )

    saved = clrl.envs.state_dict(make(1))
    with pytest.raises(UsageError, match="state") as error:
        clrl.envs.load_state_dict(make(2), saved)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("worlds", [2, 4])
def test_a_state_of_one_world_is_not_spread_over_several(worlds: int) -> None:
    saved = clrl.envs.state_dict(offset_lanes(worlds=1))
    with pytest.raises(UsageError, match="state"):
        clrl.envs.load_state_dict(offset_lanes(worlds=worlds), saved)


# Shared descriptions


def test_a_change_and_a_schedule_serve_many() -> None:
    pairs = [
        (OffsetObservation(), Schedule(AtSteps([2, 5]), Cycle([[1, 2, 3, 4], np.arange(4), 7]))),
        (NoisyActions(), Schedule(Poisson(0.3), Choice([0.1, 0.9], [0.5, 0.5]))),
        (DelayActions(), Schedule(EveryEpisodes(1), Choice([0, 1, 2]))),
    ]
    for pair in pairs:
        before = repr(pair)
        own = NonStationaryVector(batch("echo", 4), *copy.deepcopy(pair), worlds=2)
        expected = drive(own, 40, 1)
        envs = [NonStationaryVector(batch("echo", 4), *pair, worlds=2) for _ in range(2)]
        drive(envs[0], 13, 2)
        assert_same(drive(envs[1], 40, 1), expected)
        assert repr(pair) == before


# Mistakes

OFFSETS = Schedule(EverySteps(3), Normal(0, 1))
PERMUTED = Schedule(EverySteps(3), RandomPermutation())


class Silent(VectorEnv[Any, Any, Any]):
    """Does not say when lanes are reset."""

    num_envs = 2
    metadata: dict[str, Any] = {"render_modes": []}
    single_observation_space = spaces.Box(-1, 1, (2,), F32)
    observation_space = spaces.Box(-1, 1, (2, 2), F32)
    single_action_space = spaces.Discrete(2)
    action_space = spaces.MultiDiscrete([2, 2])


class Square(Echo):
    observation_space = spaces.Box(-1, 1, (2, 2), F32)


def vector(*args: Any, **options: Any) -> Any:
    return NonStationaryVector(
        batch("echo", 6), *(args or (OffsetObservation(), OFFSETS)), **options
    )


WRONG: dict[str, tuple[Any, str]] = {
    "no world": (lambda: vector(worlds=0), r"worlds: expected .*num_envs \(6\).*, got 0"),
    "less than none": (lambda: vector(worlds=-2), r"worlds: expected .*num_envs \(6\).*, got -2"),
    "worlds that do not fit": (lambda: vector(worlds=4), r"worlds: .*num_envs \(6\).*, got 4"),
    "more worlds than lanes": (lambda: vector(worlds=12), r"worlds: .*num_envs \(6\).*, got 12"),
    "half worlds": (lambda: vector(worlds=1.5), r"worlds: .*num_envs \(6\).*, got 1.5"),
    "worlds in words": (lambda: vector(worlds="2"), r"worlds: .*num_envs \(6\).*, got '2'"),
    "no worlds": (lambda: vector(worlds=None), r"worlds: .*num_envs \(6\).*, got None"),
    "no autoreset mode": (
        lambda: NonStationaryVector(Silent(), OffsetObservation(), OFFSETS),
        r"expected metadata\['autoreset_mode'\]",
    ),
    "a single environment": (
        lambda: NonStationaryVector(Echo(), OffsetObservation(), OFFSETS),  # type: ignore
        "env: expected.*NonStationary",
    ),
    "an id": (
        lambda: NonStationaryVector("CartPole-v1", OffsetObservation(), OFFSETS),  # type: ignore
        "env: expected",
    ),
    "swapped": (lambda: vector(OFFSETS, OffsetObservation()), "change: expected"),
    "a class": (lambda: vector(OffsetObservation, OFFSETS), "change: expected"),
    "a when for a schedule": (
        lambda: vector(OffsetObservation(), EverySteps(3)),
        "schedule: expected a Schedule, got EverySteps",
    ),
    "a negative task_seed": (
        lambda: vector(task_seed=-1),
        "task_seed: expected an integer >= 0, got -1",
    ),
    "reveal in a square": (
        lambda: NonStationaryVector(
            SyncVectorEnv([Square] * 2), PermuteObservation(), PERMUTED, reveal_task=True
        ),
        "reveal_task: expected a Box of floats with one axis",
    ),
    "physics that are not there": (
        lambda: vector(Physics("gravity"), Schedule(Never(), Cycle([1]))),
        "or one with physics_parameters, got <Echo",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_refused_in_one_line(name: str) -> None:
    make, message = WRONG[name]
    with pytest.raises(UsageError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
