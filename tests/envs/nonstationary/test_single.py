from __future__ import annotations

import copy
import json
import pickle
import warnings
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import NormalizeObservation, RecordEpisodeStatistics, TimeLimit
from hypothesis import given, settings
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
    SwitchTask,
    Tasks,
    Uniform,
)
from clrl.errors import UsageError

F32 = np.float32


class Echo(gym.Env[Any, Any]):
    """Shows the steps of the episode, the action, a number drawn and the resets so far."""

    metadata = {"render_modes": ["ansi"]}
    observation_space = spaces.Box(-np.inf, np.inf, (4,), F32)
    action_space = spaces.Discrete(4)

    def __init__(self, end: int = 5, render_mode: str | None = None) -> None:
        self.end, self.render_mode = end, render_mode
        self.resets = 0

    def _see(self, action: Any) -> Any:
        return np.array([self.t, action, self.np_random.random(), self.resets], F32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.resets += 1
        self.t = 0
        return self._see(-1), {"own": "reset", "options": options}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self._see(action), self.t + action, self.t == self.end, False, {"own": self.t}

    def render(self) -> Any:
        return f"step {self.t}"


STEPS_OF_TEN = LinearDrift(0, 10, low=0, high=1e6)


def marked(when: Any, end: int = 5, **options: Any) -> NonStationary:
    """The offset at work is ten times the task."""
    return NonStationary(Echo(end), OffsetObservation(), Schedule(when, STEPS_OF_TEN), **options)


class Counted:
    """The contract in the simplest words: counts steps and episodes, and looks what is due."""

    def __init__(self, when: Any, gaps: list[int]) -> None:
        self.when, self.gaps = when, gaps
        self.task = self.clock = self.episodes = self.last = 0
        self.stepped = False

    def _due(self) -> bool:
        when = self.when
        if isinstance(when, EverySteps):
            return self.clock - self.last >= when.n
        if isinstance(when, EveryEpisodes):
            return self.episodes >= (self.task + 1) * when.n
        if isinstance(when, AtSteps):
            return self.task < len(when.steps) and self.clock >= when.steps[self.task]
        if isinstance(when, Poisson):
            return self.clock - self.last >= self.gaps[self.task]
        return False

    def _change(self) -> bool:
        before = self.task
        while self._due():
            self.task += 1
            self.last = self.clock
        return self.task != before

    def reset(self) -> bool:
        self.episodes += self.stepped
        self.stepped = False
        return self._change()

    def step(self) -> bool:
        changed = False if self.when.at_episode_end else self._change()
        self.clock += 1
        self.stepped = True
        return changed


WHENS = [
    EverySteps(1),
    EverySteps(3),
    EverySteps(5),
    EverySteps(17),
    EverySteps(1, at_episode_end=True),
    EverySteps(5, at_episode_end=True),
    EverySteps(11, at_episode_end=True),
    EveryEpisodes(1),
    EveryEpisodes(3),
    AtSteps([1]),
    AtSteps([2, 3, 20, 21, 40]),
    AtSteps([2, 3, 20, 21, 40], at_episode_end=True),
    Poisson(0.3),
    Poisson(1),
    Poisson(0.2, at_episode_end=True),
    Never(),
]


@pytest.mark.parametrize("when", WHENS, ids=repr)
@settings(deadline=None, max_examples=25)
@given(lengths=st.lists(st.integers(0, 7), min_size=1, max_size=15), seed=st.integers(0, 2**40))
def test_changes_come_exactly_when_they_are_due(when: Any, lengths: list[int], seed: int) -> None:
    gaps = []
    if isinstance(when, Poisson):  # when changes come is drawn: read from one that need not wait
        plan = marked(Poisson(when.rate))
        plan.reset(seed=seed)
        gaps = np.diff([0, *(planned.step for planned in plan.preview(200))]).tolist()
        assert min(gaps) >= 1
    counted = Counted(when, gaps)
    env = marked(when)
    observation, info = env.reset(seed=seed)
    assert (info["task"], info["task_changed"], observation[0]) == (0, False, 0)
    for length in lengths:
        for t in range(1, min(length, 5) + 1):
            changed = counted.step()
            observation, _, over, _, info = env.step(0)
            assert (info["task"], info["task_changed"]) == (counted.task, changed)
            assert observation[0] == t + 10 * counted.task
            assert env.task == counted.task and env.value[0] == 10 * counted.task
            assert over == (t == 5)
        changed = counted.reset()
        observation, info = env.reset()
        assert (info["task"], info["task_changed"]) == (counted.task, changed)
        assert observation[0] == 10 * counted.task


def test_the_nth_observation_is_the_old_tasks_and_the_resets_the_new_ones() -> None:
    env = marked(EverySteps(5))
    env.reset(seed=0)
    seen = [env.step(0)[0][0] for _ in range(5)]
    assert seen == [1, 2, 3, 4, 5]
    observation, info = env.reset()
    assert observation[0] == 10 and info["task"] == 1 and info["task_changed"]
    assert env.step(0)[4]["task_changed"] is False


def test_a_drift_moves_at_every_step_and_is_no_change_of_task() -> None:
    env = NonStationary(
        Echo(3), OffsetObservation(), Schedule(Continuously(), LinearDrift(0, 100, -1e9, 1e9))
    )
    rows = [env.reset(seed=0)]
    for t in range(1, 8):
        rows.append(env.step(0)[::4])
        if t % 3 == 0:
            rows.append(env.reset())
    # Step k is taken with value k - 1; the reset after it shows value k.
    assert [row[0][0] for row in rows] == [0, 1, 102, 203, 300, 301, 402, 503, 600, 601]
    assert all((row[1]["task"], row[1]["task_changed"]) == (0, False) for row in rows)


def test_what_is_told_is_plain() -> None:
    env = marked(EverySteps(2))
    _, info = env.reset(seed=0, options={"a": 1})
    assert info == {"own": "reset", "options": {"a": 1}, "task": 0, "task_changed": False}
    for _ in range(3):
        observation, reward, terminated, truncated, info = env.step(1)
    assert info == {"own": 3, "task": 1, "task_changed": True}
    kinds = (type(info["task"]), type(info["task_changed"]), type(reward))
    assert kinds == (int, bool, float)
    assert observation.dtype == F32


def test_a_seed_begins_everything_anew() -> None:
    schedule = Schedule(EverySteps(3), Normal(0, 1))
    env = NonStationary(Echo(), OffsetObservation(), schedule)
    env = NonStationary(env, NoisyObservation(), Schedule(Never(), Cycle([1])))
    env = NonStationary(env, NoisyActions(), Schedule(Poisson(0.4), Uniform(0, 1)))

    def rollout(**reset: Any) -> list[Any]:
        env.unwrapped.resets = 0  # type: ignore[attr-defined]
        observation, info = env.reset(**reset)
        rows = [(observation.tolist(), info)]
        for _ in range(17):
            observation, reward, terminated, _, info = env.step(2)
            rows.append((observation.tolist(), info))
            if terminated:
                rows.append((env.reset()[0].tolist(), {}))
        return rows

    first, goes_on, again = rollout(seed=5), rollout(), rollout(seed=5)
    assert first == again != goes_on
    assert goes_on[0][1]["task"] >= first[-1][1]["task"] > 0
    assert rollout(seed=6) != first


def test_without_any_seed() -> None:
    def values() -> list[float]:
        env = NonStationary(Echo(), OffsetObservation(), Schedule(EverySteps(1), Normal(0, 1)))
        env.reset()
        seen = [env.value[0]]
        env.step(0), env.step(0)
        return [*seen, env.value[0]]

    first, second = values(), values()
    assert len({*first, *second}) == 4


def test_a_first_reset_is_needed() -> None:
    env = marked(EverySteps(3))
    with pytest.raises(UsageError, match="reset"):
        env.preview(1)


@pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1"])
def test_the_environment_inside_draws_what_it_draws_alone(id: str) -> None:
    env: Any = gym.make(id, max_episode_steps=9)
    env = NonStationary(env, ScaleReward(), Schedule(Poisson(0.3), Normal(0, 1)))
    env = NonStationary(env, FlipReward(), Schedule(EveryEpisodes(1), RandomMask(0.5)))
    plain = gym.make(id, max_episode_steps=9)
    plain.action_space.seed(0)
    np.testing.assert_array_equal(env.reset(seed=3)[0], plain.reset(seed=3)[0])
    for _ in range(60):
        action = plain.action_space.sample()
        mine, other = env.step(action), plain.step(action)
        np.testing.assert_array_equal(mine[0], other[0])
        assert mine[2:4] == other[2:4]
        if mine[2] or mine[3]:
            np.testing.assert_array_equal(env.reset()[0], plain.reset()[0])


# Preview


@pytest.mark.parametrize("when", WHENS, ids=repr)
def test_what_is_previewed_comes(when: Any) -> None:
    env = NonStationary(Echo(), OffsetObservation(), Schedule(when, Normal(0, 1)))
    env.reset(seed=8)
    plan = env.preview(12)
    assert len(plan) == 12 or isinstance(when, (AtSteps, Never))
    assert [planned.task for planned in plan] == list(range(1, len(plan) + 1))
    came, clock, waiting = [], 0, when.at_episode_end
    for _ in range(100):
        assert all(
            np.array_equal(one.value, two.value)
            for one, two in zip(env.preview(3), plan[env.task :], strict=False)
        )
        before = env.task
        _, _, over, _, info = env.step(0)
        if info["task_changed"]:
            came.append((info["task"], clock, env.value))
        assert info["task_changed"] == (env.task != before)
        clock += 1
        if over:
            _, info = env.reset()
            if info["task_changed"]:
                came.append((info["task"], clock, env.value))
    by_task = {task: (step, value) for task, step, value in came}
    assert waiting or isinstance(when, Never) or len(by_task) >= min(5, len(plan))
    for planned in plan:
        assert (planned.step is None) == waiting
        if planned.task in by_task:
            step, value = by_task[planned.task]
            assert waiting or planned.step == step
            np.testing.assert_array_equal(planned.value, value)


def test_a_preview_disturbs_nothing() -> None:
    looked, left = (marked(Poisson(0.2)) for _ in range(2))
    for env in (looked, left):
        env.reset(seed=1)
    for _ in range(5):
        for _ in range(4):
            looked.preview(7)
            np.testing.assert_array_equal(looked.step(0)[0], left.step(0)[0])
        np.testing.assert_array_equal(looked.reset()[0], left.reset()[0])


def test_values_that_are_handed_out_belong_to_the_caller() -> None:
    env, plain = (
        NonStationary(Echo(), OffsetObservation(), Schedule(EverySteps(2), Normal(0, 1)))
        for _ in range(2)
    )
    env.reset(seed=0), plain.reset(seed=0)
    for _ in range(5):
        env.value[:] = 99
        for planned in env.preview(2):
            planned.value[:] = 99
        np.testing.assert_array_equal(env.step(0)[0], plain.step(0)[0])


# What the agent is told


def test_reveal_task_appends_the_index() -> None:
    env = marked(EverySteps(5), reveal_task=True)
    box: Any = env.observation_space
    assert box.shape == (5,) and box.dtype == F32
    assert box.low[4] == 0 and box.high[4] == np.inf
    observation, _ = env.reset(seed=0)
    rows = [observation]
    for _ in range(3):
        rows += [env.step(0)[0] for _ in range(5)]
        rows.append(env.reset()[0])
    assert [row[4] for row in rows] == [0] * 6 + [1] * 6 + [2] * 6 + [3]
    assert all(row.dtype == F32 and box.contains(row) for row in rows)
    assert all(row[0] % 10 == t for row, t in zip(rows, [0, 1, 2, 3, 4, 5] * 3, strict=False))


def test_reveal_task_of_a_change_that_is_not_seen() -> None:
    env = NonStationary(
        Echo(), ScaleReward(), Schedule(EverySteps(1), Cycle([1, 2])), reveal_task=True
    )
    env.reset(seed=0)
    assert [float(env.step(0)[0][4]) for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1"])
def test_reveal_task_leaves_the_rest_to_the_bit(id: str) -> None:
    schedule = Schedule(EverySteps(5), Normal(0, 1))
    pair = [
        NonStationary(gym.make(id), OffsetObservation(), schedule, reveal_task=reveal)
        for reveal in (True, False)
    ]
    first, second = (env.reset(seed=0)[0] for env in pair)
    pair[0].action_space.seed(0)
    for t in range(8):
        np.testing.assert_array_equal(first, [*second, max(t - 1, 0) // 5])
        action = pair[0].action_space.sample()
        first, second = (env.step(action)[0] for env in pair)


def test_stacked_wrappers_count_together() -> None:
    inner = marked(EverySteps(3), end=99)
    middle = TimeLimit(inner, 8)
    outer = NonStationary(middle, ScaleReward(), Schedule(EverySteps(4), Cycle([1, 2])))
    told = [outer.reset(seed=0)[1]]
    for t in range(1, 17):
        told.append(outer.step(0)[4])
        if t == 8:
            told.append(outer.reset()[1])
    tasks = [info["task"] for info in told]
    # Changes are seen with steps 4, 7, 10, ... and 5, (the reset after) 8, 13.
    steps = [0, 1, 2, 3, 4, 5, 6, 7, 8, 8.5, 9, 10, 11, 12, 13, 14, 15, 16]
    inside = [sum(step > n for n in (3, 6, 9, 12, 15)) for step in steps]
    outside = [sum(step > n for n in (4, 8, 12)) for step in steps]
    assert tasks == [a + b for a, b in zip(inside, outside, strict=True)]
    assert [info["task_changed"] for info in told] == [False, *(np.diff(tasks) > 0)]
    assert (inner.task, outer.task) == (5, 3)


def test_stacked_wrappers_draw_numbers_of_their_own() -> None:
    def noisy(env: Any) -> Any:
        return NonStationary(env, NoisyObservation(), Schedule(Never(), Cycle([1])))

    def drawn(env: Any) -> Any:
        return NonStationary(env, ShiftReward(), Schedule(EverySteps(1), Normal(0, 1)))

    env = noisy(noisy(Echo()))
    once, twice = noisy(Echo()).reset(seed=0)[0], env.reset(seed=0)[0]
    zeros = Echo().reset(seed=0)[0]
    first = once - zeros
    second = twice - once
    assert not np.isclose(first, second, rtol=1e-3).any()
    stacked = drawn(drawn(Echo()))
    stacked.reset(seed=0)
    assert stacked.value != stacked.env.value


# One sequence for many


def test_task_seed_decides_the_sequence_and_nothing_else() -> None:
    def make(**options: Any) -> NonStationary:
        return NonStationary(
            NonStationary(Echo(), NoisyObservation(), Schedule(Never(), Cycle([1]))),
            OffsetObservation(),
            Schedule(Poisson(0.2), Normal(0, 1)),
            **options,
        )

    def plan(env: NonStationary, seed: int | None) -> Any:
        observation, _ = env.reset(seed=seed)
        planned = [(one.task, one.step, one.value.tolist()) for one in env.preview(8)]
        return (env.value.tolist(), planned), (observation - env.value).tolist()

    shared = [plan(make(task_seed=7), seed) for seed in (1, 2, None)]
    assert shared[0][0] == shared[1][0] == shared[2][0]
    assert shared[0][1] != shared[1][1] != shared[2][1]
    own = [plan(make(), seed) for seed in (1, 2)]
    assert own[0][0] != own[1][0] != shared[0][0]
    assert own[0][1] == pytest.approx(shared[0][1])  # the environment and the noise are the seed's


def test_task_seed_does_not_touch_the_wrappers_own_noise() -> None:
    def seen(task_seed: int | None, seed: int) -> Any:
        env = NonStationary(
            Echo(), NoisyObservation(), Schedule(Never(), Cycle([1])), task_seed=task_seed
        )
        return env.reset(seed=seed)[0].tolist()

    assert seen(7, 1) == seen(8, 1) == seen(None, 1) != seen(7, 2)


# Among Gymnasium's own


def layered() -> Any:
    env: Any = gym.make("CartPole-v1")
    env = NonStationary(
        env,
        Physics(["length", "gravity"]),
        Schedule(EverySteps(9, True), Uniform([0.2, 5], [2, 20])),
    )
    env = NonStationary(env, DelayActions(), Schedule(AtSteps([30]), Cycle([0, 2])), task_seed=4)
    return NonStationary(
        env, PermuteObservation(), Schedule(Poisson(0.1), RandomPermutation()), reveal_task=True
    )


def rollout(env: Any, n: int, seed: int | None = None) -> list[Any]:
    """What comes of n steps of a single environment."""
    rng = np.random.default_rng(0)
    rows: list[Any] = []
    if seed is not None:
        observation, info = env.reset(seed=seed)
        rows.append((observation.tolist(), info))
    for _ in range(n):
        observation, *rest = env.step(action_of(env, rng))
        rows.append((observation.tolist(), *rest))
        if rest[1] or rest[2]:
            observation, info = env.reset()
            rows.append((observation.tolist(), info))
    return rows


def action_of(env: Any, rng: np.random.Generator) -> Any:
    space = env.action_space
    if isinstance(space, spaces.Discrete):
        return int(space.start + rng.integers(space.n))
    return rng.uniform(-1, 1, space.shape).astype(space.dtype)


def test_make_rebuilds_it_from_its_spec() -> None:
    env = layered()
    spec = pickle.loads(pickle.dumps(env.spec))
    again = gym.make(spec)
    assert str(again) == str(env)
    assert again.observation_space == env.observation_space
    assert again.spec == env.spec
    first, second = rollout(env, 150, seed=2), rollout(again, 150, seed=2)
    assert first == second
    assert first[-1][-1]["task"] > 10


def test_make_wraps_by_a_recipe() -> None:
    recipe = NonStationary.wrapper_spec(
        change=OffsetObservation(), schedule=Schedule(EverySteps(3), Normal(0, 1))
    )
    spec = gym.spec("CartPole-v1")
    spec = copy.deepcopy(spec)
    spec.additional_wrappers = (recipe,)
    env = gym.make(spec)
    by_hand = NonStationary(gym.make("CartPole-v1"), **recipe.kwargs)  # type: ignore[arg-type]
    assert rollout(env, 30, seed=0) == rollout(by_hand, 30, seed=0)


def test_gymnasiums_checker_is_content() -> None:
    env = NonStationary(
        gym.make("CartPole-v1"), OffsetObservation(), Schedule(EverySteps(3), Normal(0, 1))
    )
    with warnings.catch_warnings():
        # That it is wrapped, and that velocities have no bounds.
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        warnings.filterwarnings("ignore", message=".*Box observation space m.*imum value is")
        check_env(env, skip_render_check=True)


def test_attributes_and_rendering_pass_through() -> None:
    env = NonStationary(
        RecordEpisodeStatistics(Echo(render_mode="ansi")),
        ScaleReward(),
        Schedule(Never(), Cycle([1])),
    )
    env.reset(seed=0)
    env.step(0)
    assert env.render() == "step 1" and env.render_mode == "ansi"
    assert env.metadata == Echo.metadata
    assert env.get_wrapper_attr("episode_count") == 0
    assert env.unwrapped.resets == 1  # type: ignore[attr-defined]


def test_episode_statistics_inside_and_outside() -> None:
    schedule = Schedule(Never(), Cycle([2.0]))
    inside: Any = NonStationary(RecordEpisodeStatistics(Echo()), ScaleReward(), schedule)
    outside: Any = RecordEpisodeStatistics(NonStationary(Echo(), ScaleReward(), schedule))
    for env, expected in ((inside, 15), (outside, 30)):
        env.reset(seed=0)
        for _ in range(5):
            info = env.step(0)[4]
        assert info["episode"]["r"] == expected and info["episode"]["l"] == 5


def test_normalised_observations_around_it() -> None:
    plain = marked(EverySteps(3))
    env = NormalizeObservation(marked(EverySteps(3)))
    expected: Any = [plain.reset(seed=0)[0]]
    env.reset(seed=0)
    for _ in range(5):
        observation = env.step(0)[0]
        expected.append(plain.step(0)[0])
    np.testing.assert_allclose(env.obs_rms.mean, np.mean(expected, axis=0), atol=0.01)
    assert observation.shape == (4,) and np.isfinite(observation).all()


def test_vectorised_by_gymnasium() -> None:
    spec = layered().spec
    make = partial(gym.make, spec)
    # The workers begin with a fresh interpreter: forking a process that has threads is not safe.
    apart = AsyncVectorEnv([make] * 2, context="spawn")
    try:
        together = SyncVectorEnv([make] * 2)
        singles = [layered(), layered()]
        first, second = (envs.reset(seed=[3, 8]) for envs in (apart, together))
        alone = [env.reset(seed=seed) for env, seed in zip(singles, (3, 8), strict=True)]
        rng = np.random.default_rng(0)
        over = np.zeros(2, np.bool_)
        for _ in range(80):
            np.testing.assert_array_equal(first[0], second[0])
            np.testing.assert_array_equal(second[0], [one[0] for one in alone])
            for key in ("task", "task_changed"):
                told = [one[-1][key] for one in alone]
                assert first[-1][key].tolist() == second[-1][key].tolist() == told
            actions = rng.integers(2, size=2)
            first, second = (envs.step(actions) for envs in (apart, together))
            alone = [
                env.reset() if ended else env.step(action)
                for env, ended, action in zip(singles, over, actions, strict=True)
            ]
            over = second[2] | second[3]
        assert second[-1]["task"].max() > 5
    finally:
        apart.close()


def test_last_observations_where_gymnasium_resets_at_once() -> None:
    lanes = SyncVectorEnv([lambda: marked(EverySteps(5))], autoreset_mode=AutoresetMode.SAME_STEP)
    lanes.reset(seed=0)
    for _ in range(5):
        observations, _, _, _, info = lanes.step(np.zeros(1, np.int64))
    assert info["final_obs"][0][0] == 5 and info["final_info"]["task"].tolist() == [0]
    assert observations[0][0] == 10 and info["task"].tolist() == [1]


# States

ECHO: list[tuple[Any, Any]] = [
    (PermuteObservation(), RandomPermutation()),
    (OffsetObservation(), Normal(0, 2)),
    (OffsetObservation(), RandomWalk(0, 0.5)),
    (ScaleObservation(), SinusoidalDrift(1, 0.5, 40)),
    (RotateObservation(), Uniform(-3, 3)),
    (MaskObservation(), RandomMask(0.5)),
    (NoisyObservation(), Uniform(0, 1)),
    (PermuteActions(), RandomPermutation()),
    (DelayActions(), Choice([0, 1, 4])),
    (NoisyActions(), Uniform(0, 1)),
    (ScaleReward(), LogUniform(0.1, 10)),
    (ShiftReward(), LinearDrift(0, 0.3, low=-1, high=1)),
    (FlipReward(), Cycle([False, True, True])),
]


class Kept(Echo):
    """Its state can be saved."""

    def state_dict(self) -> dict[str, Any]:
        here = {"t": getattr(self, "t", None), "resets": self.resets}
        return {**here, "rng": self.np_random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.t, self.resets = state["t"], state["resets"]
        self.np_random.bit_generator.state = state["rng"]


def restored(make: Any, before: int, elsewhere: int, after: int) -> tuple[list[Any], list[Any]]:
    """Two futures: of an environment, and of another one that was put where it was."""
    env, other = make(), make()
    rollout(env, before, seed=5)
    saved = json.loads(json.dumps(clrl.envs.state_dict(env)))
    if elsewhere:
        rollout(other, elsewhere, seed=6)
    clrl.envs.load_state_dict(other, saved)
    assert json.loads(json.dumps(clrl.envs.state_dict(other))) == saved
    assert (other.task, other.value.tolist()) == (env.task, env.value.tolist())
    plans = [
        [(one.task, one.step, one.value.tolist()) for one in each.preview(5)]
        for each in (env, other)
    ]
    assert plans[0] == plans[1]
    return rollout(env, after), rollout(other, after)


@pytest.mark.parametrize("pair", ECHO, ids=lambda pair: f"{pair[0]}-{type(pair[1]).__name__}")
@settings(deadline=None, max_examples=12)
@given(
    when=st.sampled_from([*WHENS, Continuously()]),
    before=st.integers(0, 30),
    elsewhere=st.sampled_from([0, 13]),
    start=st.sampled_from(["drawn", "unchanged"]),
)
def test_a_saved_state_goes_on_alike(
    pair: Any, when: Any, before: int, elsewhere: int, start: Any
) -> None:
    change, to = pair

    def make() -> NonStationary:
        return NonStationary(Kept(), change, Schedule(when, to, start=start))

    first, second = restored(make, before, elsewhere, 40)
    assert first == second


@pytest.mark.parametrize("when", [*WHENS, Continuously()], ids=repr)
@pytest.mark.parametrize("before", [0, 23])
def test_a_saved_state_of_cartpole(when: Any, before: int) -> None:
    def make() -> NonStationary:
        env: Any = gym.make("CartPole-v1", max_episode_steps=20)
        env = NonStationary(env, Physics("length"), Schedule(when, LogUniform(0.2, 2)))
        return NonStationary(env, NoisyObservation(), Schedule(Poisson(0.1), Uniform(0, 1)))

    first, second = restored(make, before, 7, 60)
    assert first == second


def test_a_parameter_has_one_wrapper_that_sets_it() -> None:
    schedule = Schedule(EverySteps(3), Uniform(0.2, 2))
    env = NonStationary(gym.make("CartPole-v1"), Physics(["gravity", "length"]), schedule)
    both = NonStationary(env, Physics("masspole"), schedule)
    with pytest.raises(UsageError, match="a wrapper inside sets length already"):
        NonStationary(both, Physics("length"), schedule)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_go_on_alike_or_are_refused(copied: Any) -> None:
    env = NonStationary(
        gym.make("CartPole-v1"), Physics("length"), Schedule(EverySteps(3), Uniform(0.2, 2))
    )
    env.reset(seed=1)
    rows = [env.step(index % 2)[0].tolist() for index in range(4)]
    other = copied(env)
    for index in range(4):
        assert env.step(index % 2)[0].tolist() == other.step(index % 2)[0].tolist()
    assert rows


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
def test_copies_that_gymnasium_would_make_anew_are_refused(copied: Any) -> None:
    pytest.importorskip("mujoco")
    env = NonStationary(
        gym.make("Ant-v5"), Physics("friction"), Schedule(EverySteps(3), Uniform(0.2, 2))
    )
    envs = NonStationaryVector(
        gym.make_vec("Ant-v5", 2, vectorization_mode="sync"),
        Physics("friction"),
        Schedule(EverySteps(3), Uniform(0.2, 2)),
    )
    for one in (env, envs):
        one.reset(seed=1)
        with pytest.raises(UsageError, match="a copy would lose its physics"):
            copied(one)


@pytest.mark.parametrize("seed", [-1, 1.5, "a", [1], True])
def test_a_refused_seed_changes_nothing(seed: Any) -> None:
    env = NonStationary(
        gym.make("CartPole-v1"), OffsetObservation(), Schedule(EverySteps(3), Normal())
    )
    env.reset(seed=1)
    before = env.value.tolist()
    with pytest.raises(UsageError, match="seed: expected an integer >= 0, got"):
        env.reset(seed=seed)
    assert env.value.tolist() == before


def test_a_drift_has_no_tasks_to_reveal() -> None:
    schedule = Schedule(Continuously(), Uniform(0, 1))
    with pytest.raises(UsageError, match="reveal_task: there are no tasks"):
        NonStationary(gym.make("CartPole-v1"), OffsetObservation(), schedule, reveal_task=True)


def test_a_state_from_before_the_first_reset() -> None:
    saved = json.loads(json.dumps(clrl.envs.state_dict(layered())))
    env = layered()
    rollout(env, 20, seed=1)
    clrl.envs.load_state_dict(env, saved)
    assert rollout(env, 40, seed=3) == rollout(layered(), 40, seed=3)


def test_the_methods_are_the_functions() -> None:
    env, other = layered(), layered()
    rollout(env, 20, seed=1)
    assert env.state_dict() == clrl.envs.state_dict(env)
    other.load_state_dict(env.state_dict())
    assert rollout(env, 40) == rollout(other, 40)


def test_a_task_seed_of_numpy_can_be_saved() -> None:
    env = NonStationary(
        gym.make("CartPole-v1"),
        OffsetObservation(),
        Schedule(EverySteps(3), Normal(0, 1)),
        task_seed=np.int64(3),  # type: ignore[arg-type]
    )
    env.reset(seed=0)
    json.dumps(clrl.envs.state_dict(env))


def test_a_state_that_was_saved_does_not_move() -> None:
    env = layered()
    rollout(env, 20, seed=1)
    saved = clrl.envs.state_dict(env)
    before = copy.deepcopy(saved)
    rollout(env, 20)
    assert saved == before


def cartpole(change: Any, schedule: Any, **options: Any) -> NonStationary:
    return NonStationary(gym.make("CartPole-v1"), change, schedule, **options)


OFFSETS = Schedule(EverySteps(3), Normal(0, 1))
OTHERS: dict[str, Any] = {
    "no wrapper": lambda: gym.make("CartPole-v1"),
    "another environment": lambda: NonStationary(
        gym.make("Acrobot-v1"), OffsetObservation(), OFFSETS
    ),
    "a wrapper between": lambda: NonStationary(
        RecordEpisodeStatistics(gym.make("CartPole-v1")), OffsetObservation(), OFFSETS
    ),
    "a wrapper more": lambda: NonStationary(
        cartpole(OffsetObservation(), OFFSETS), OffsetObservation(), OFFSETS
    ),
    "another change": lambda: cartpole(ScaleObservation(), OFFSETS),
    "a change with other state": lambda: cartpole(
        NoisyObservation(), Schedule(EverySteps(3), Uniform(0, 1))
    ),
    "another when": lambda: cartpole(OffsetObservation(), Schedule(EveryEpisodes(3), Normal(0, 1))),
    "other values": lambda: cartpole(OffsetObservation(), Schedule(EverySteps(3), Uniform(0, 1))),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_state_of_something_else_is_refused_in_one_line(name: str) -> None:
    env = cartpole(OffsetObservation(), OFFSETS)
    rollout(env, 10, seed=0)
    saved = clrl.envs.state_dict(env)
    other = OTHERS[name]()
    rollout(other, 3, seed=1)
    before = clrl.envs.state_dict(other)
    with pytest.raises(UsageError, match="state") as error:
        clrl.envs.load_state_dict(other, saved)
    assert "\n" not in str(error.value)
    assert clrl.envs.state_dict(other) == before


# Shared descriptions

SHARED = [
    (PermuteObservation(), Schedule(EverySteps(3), RandomPermutation())),
    (OffsetObservation(), Schedule(AtSteps([2, 5]), Cycle([[1, 2, 3, 4], np.arange(4), 7]))),
    (OffsetObservation(), Schedule(Continuously(), RandomWalk(np.zeros(4), np.ones(4)))),
    (NoisyActions(), Schedule(Poisson(0.3), Choice([0.1, 0.9], [0.5, 0.5]))),
    (DelayActions(), Schedule(EveryEpisodes(1), Choice([0, 1, 2]))),
    (ScaleReward(), Schedule(EverySteps(2, True), SinusoidalDrift(1, 1, 9))),
]


@pytest.mark.parametrize("pair", SHARED, ids=lambda pair: str(pair[0]))
def test_a_change_and_a_schedule_serve_many(pair: Any) -> None:
    before = repr(pair)
    own = NonStationary(Echo(), *copy.deepcopy(pair))
    expected = rollout(own, 30, seed=1)
    envs = [NonStationary(Echo(), *pair) for _ in range(3)]
    rollout(envs[0], 13, seed=2)
    envs[2].reset(seed=7)
    assert rollout(envs[1], 30, seed=1) == expected
    rollout(envs[2], 11)
    assert repr(pair) == before


def test_descriptions_are_values() -> None:
    assert PermuteObservation() == PermuteObservation() != OffsetObservation()
    assert len({PermuteObservation(), PermuteObservation(), DelayActions()}) == 2
    with pytest.raises(AttributeError):
        PermuteObservation().names = 3  # type: ignore[attr-defined]


# Mistakes

SCHEDULE = Schedule(EverySteps(3), Normal(0, 1))
PERMUTED = Schedule(EverySteps(3), RandomPermutation())


class Square(Echo):
    observation_space = spaces.Box(-1, 1, (2, 2), F32)


class Whole(Echo):
    observation_space = spaces.Box(0, 255, (4,), np.uint8)


class One(Echo):
    observation_space = spaces.Discrete(4)  # type: ignore[assignment]


WRONG: dict[str, tuple[Any, str]] = {
    "swapped": (lambda: NonStationary(Echo(), SCHEDULE, OffsetObservation()), "change: expected"),  # type: ignore
    "a class": (lambda: NonStationary(Echo(), OffsetObservation, SCHEDULE), "change: expected"),  # type: ignore
    "a change in words": (lambda: NonStationary(Echo(), "offset", SCHEDULE), "change: expected"),  # type: ignore
    "no change": (lambda: NonStationary(Echo(), None, SCHEDULE), "change: expected"),  # type: ignore
    "a when for a schedule": (
        lambda: NonStationary(Echo(), OffsetObservation(), EverySteps(3)),  # type: ignore
        "schedule: expected a Schedule, got EverySteps",
    ),
    "values for a schedule": (
        lambda: NonStationary(Echo(), OffsetObservation(), Normal(0, 1)),  # type: ignore
        "schedule: expected a Schedule, got Normal",
    ),
    "a schedule in words": (
        lambda: NonStationary(Echo(), OffsetObservation(), "daily"),  # type: ignore
        "schedule: expected a Schedule",
    ),
    "an id": (
        lambda: NonStationary("CartPole-v1", OffsetObservation(), SCHEDULE),  # type: ignore
        "env: expected",
    ),
    "a vector environment": (
        lambda: NonStationary(SyncVectorEnv([Echo]), OffsetObservation(), SCHEDULE),  # type: ignore
        "env: expected.*NonStationaryVector",
    ),
    "reveal in a square": (
        lambda: NonStationary(Square(), PermuteObservation(), PERMUTED, reveal_task=True),
        "reveal_task: expected a Box of floats with one axis",
    ),
    "reveal among whole numbers": (
        lambda: NonStationary(Whole(), PermuteObservation(), PERMUTED, reveal_task=True),
        "reveal_task: expected a Box of floats with one axis",
    ),
    "reveal beside one number": (
        lambda: NonStationary(One(), PermuteObservation(), PERMUTED, reveal_task=True),
        "reveal_task: expected a Box of floats with one axis",
    ),
    "a negative task_seed": (
        lambda: NonStationary(Echo(), OffsetObservation(), SCHEDULE, task_seed=-1),
        "task_seed: expected an integer >= 0, got -1",
    ),
    "a task_seed in words": (
        lambda: NonStationary(Echo(), OffsetObservation(), SCHEDULE, task_seed="0"),  # type: ignore
        "task_seed: expected an integer >= 0, got '0'",
    ),
    "half a task_seed": (
        lambda: NonStationary(Echo(), OffsetObservation(), SCHEDULE, task_seed=0.5),  # type: ignore
        "task_seed: expected an integer >= 0, got 0.5",
    ),
    "whole tasks in the middle of an episode": (
        lambda: NonStationary(Tasks([Echo()]), SwitchTask(), Schedule(EverySteps(3), Cycle([0]))),
        "at_episode_end=True",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_refused_in_one_line(name: str) -> None:
    make, message = WRONG[name]
    with pytest.raises(UsageError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
