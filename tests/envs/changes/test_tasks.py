from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from hypothesis import given, settings
from hypothesis import strategies as st

import clrl.envs
from clrl.envs import (
    AtSteps,
    Choice,
    Continuously,
    Cycle,
    EveryEpisodes,
    EverySteps,
    Never,
    NonStationary,
    NonStationaryVector,
    Poisson,
    RandomMask,
    Schedule,
    SwitchTask,
    Tasks,
    Uniform,
)
from clrl.errors import UsageError

F32 = np.float32


class Does(gym.Env[Any, Any]):
    """Shows its name and draws a number; remembers what it was told; ends after some steps."""

    def __init__(self, name: float, space: spaces.Space[Any], size: int = 2, end: int = 3) -> None:
        self.observation_space = spaces.Box(-9, 9, (size,), F32)
        self.action_space = space
        self.name, self.end = name, end
        self.done: list[Any] = []
        self.seeds: list[Any] = []
        self.options: Any = None

    def _see(self) -> Any:
        seen = np.full(self.observation_space.shape or (), self.name, F32)
        seen[-1] = self.np_random.random()
        return seen

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.options = options
        self.t = 0
        return self._see(), {"who": self.name}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        self.done.append(action)
        return self._see(), 10 * self.name, self.t == self.end, False, {"who": self.name}


D2, D3 = spaces.Discrete(2), spaces.Discrete(3)


def box(n: int, low: Any = -1.0, high: Any = 1.0) -> spaces.Box:
    return spaces.Box(np.full(n, low, F32), np.full(n, high, F32), dtype=F32)


def switching(*envs: Any, when: Any = None, to: Any = None) -> tuple[NonStationary, Tasks]:
    tasks = Tasks(envs)
    to = to or Cycle(range(len(envs)))
    return NonStationary(tasks, SwitchTask(), Schedule(when or EveryEpisodes(1), to)), tasks


# Spaces


def test_observations_are_filled_up_with_zeros() -> None:
    env, tasks = switching(Does(1, D2, size=2), Does(2, D2, size=4))
    assert env.observation_space == spaces.Box(-9, 9, (4,), F32)
    seen, _ = env.reset(seed=0)
    assert seen.dtype == F32
    assert seen[0] == 1 and 0 < seen[1] < 1 and seen[2:].tolist() == [0, 0]
    seen, reward, _, _, info = env.step(0)
    assert seen[0] == 1 and seen[2:].tolist() == [0, 0] and reward == 10 and info["who"] == 1
    seen, _ = env.reset()
    assert seen[:3].tolist() == [2, 2, 2] and seen[3] != 0
    assert tasks.task == 1


def test_the_bounds_hold_every_task_and_the_zeros() -> None:
    narrow, wide = Does(1, D2), Does(2, D2)
    narrow.observation_space = spaces.Box(np.array([1, 2], F32), np.array([3, 4], F32))
    wide.observation_space = spaces.Box(-5, np.inf, (3,), np.float64)
    space: Any = Tasks([narrow, wide]).observation_space
    assert space.dtype == F32
    np.testing.assert_array_equal(space.low, [-5, -5, -5])
    np.testing.assert_array_equal(space.high, [np.inf, np.inf, np.inf])
    wide.observation_space = spaces.Box(1, 2, (3,), F32)
    space = Tasks([narrow, wide]).observation_space
    np.testing.assert_array_equal(space.low, [1, 1, 0])
    np.testing.assert_array_equal(space.high, [3, 4, 2])


def test_discrete_actions_wrap_round() -> None:
    two, five = Does(1, spaces.Discrete(2, start=7)), Does(2, spaces.Discrete(5, start=-1))
    env, _ = switching(two, five)
    assert env.action_space == spaces.Discrete(5)
    env.reset(seed=0)
    for action in range(5):
        env.step(np.int64(action))
    env.reset()
    for action in range(5):
        env.step(action)
    assert two.done == [7, 8, 7, 8, 7]
    assert five.done == [-1, 0, 1, 2, 3]


def test_continuous_actions_are_stretched() -> None:
    space = spaces.Box(np.array([0, -3], F32), np.array([10, -1], F32))
    narrow, wide = Does(1, space), Does(2, box(3, -2, 2))
    env, _ = switching(narrow, wide)
    assert env.action_space == box(3)
    env.reset(seed=0)
    for action in ([-1, -1, 0.3], [1, 1, 1], [0, 0.5, -1], [-7, 7, 0]):
        env.step(np.array(action, F32))
    np.testing.assert_allclose(narrow.done, [[0, -3], [10, -1], [5, -1.5], [0, -1]])
    env.reset()
    env.step(np.array([0.5, -1, 0.25], F32))
    np.testing.assert_allclose(wide.done, [[1, -2, 0.5]])
    assert {one.dtype for one in narrow.done + wide.done} == {np.dtype(F32)}


@settings(deadline=None, max_examples=100)
@given(
    ends=st.tuples(st.floats(-100, 100, width=32), st.floats(-100, 100, width=32)),
    action=st.sampled_from([-1.0, 1.0, 0.0, 0.5, 0.9999999]),
)
def test_stretched_actions_are_of_the_tasks_space(ends: tuple[float, float], action: float) -> None:
    inside = Does(1, box(1, min(ends), max(ends)))
    env = Tasks([inside])
    env.reset(seed=0)
    env.step(np.array([action], F32))
    assert inside.action_space.contains(inside.done[0]), (inside.action_space, inside.done[0])


def test_a_task_with_the_agents_own_space_does_as_told() -> None:
    inside = Does(1, box(2))
    env = Tasks([inside])
    env.reset(seed=0)
    actions = [env.action_space.sample() for _ in range(20)]
    for action in actions:
        env.step(action)
    np.testing.assert_allclose(inside.done, actions, atol=1e-6)


# Switching


def test_tasks_change_at_resets_only() -> None:
    env, tasks = switching(Does(1, D2), Does(2, D2), when=EverySteps(2, at_episode_end=True))
    _, info = env.reset(seed=0)
    seen = [(info["who"], info["task"])]
    for _ in range(3):
        for _ in range(3):
            info = env.step(0)[4]
            seen.append((info["who"], info["task"]))
        info = env.reset()[1]
        seen.append((info["who"], info["task"]))
        assert info["task_changed"]
    assert seen == [(1, 0)] * 4 + [(2, 1)] * 4 + [(1, 2)] * 4 + [(2, 3)]


def test_the_number_of_steps_is_that_of_all_tasks() -> None:
    env, tasks = switching(
        Does(1, D2, end=2), Does(2, D2, end=5), when=EverySteps(6, at_episode_end=True)
    )
    env.reset(seed=0)
    of_steps = []
    for _ in range(30):
        of_steps.append(tasks.task)
        if env.step(0)[2]:
            env.reset()
    # Episodes of 2 until 6 steps are done, then of 5 until 6 are: 10.
    assert of_steps == [0] * 6 + [1] * 10 + [0] * 6 + [1] * 8


def test_a_chosen_task_waits_for_the_reset() -> None:
    tasks = Tasks([Does(1, D2), Does(2, D2)])
    assert tasks.reset(seed=0)[1]["who"] == 1
    tasks.choose(1)
    assert tasks.step(0)[4]["who"] == 1 and tasks.task == 0
    assert tasks.reset()[1]["who"] == 2 and tasks.task == 1
    assert tasks.reset()[1]["who"] == 2


def test_a_seed_is_for_all_tasks() -> None:
    def numbers(seed: int) -> list[float]:
        env, _ = switching(Does(1, D2), Does(2, D2), Does(3, D2))
        seen = [env.reset(seed=seed)[0][-1]]
        seen += [env.reset()[0][-1] if t % 3 else env.step(0)[0][-1] for t in range(12)]
        return [float(one) for one in seen]

    assert numbers(5) == numbers(5)
    assert not set(numbers(5)) & set(numbers(6))


def test_a_reset_without_seed_goes_on_in_each() -> None:
    envs = [Does(1, D2), Does(2, D2)]
    env, _ = switching(*envs)
    env.reset(seed=4)
    for _ in range(4):
        env.step(0)
        env.reset(options={"some": 1})
    assert [set(one.seeds) for one in envs] == [{4, None}, {4, None}]
    assert [one.seeds.count(4) for one in envs] == [1, 1]
    assert envs[0].options == {"some": 1}


def test_a_task_draws_what_it_draws_alone() -> None:
    env, _ = switching(Does(1, D2), Does(2, D2), to=Cycle([0]))
    alone = Does(1, D2)
    assert env.reset(seed=3)[0].tolist() == alone.reset(seed=3)[0].tolist()
    assert env.step(0)[0].tolist() == alone.step(0)[0].tolist()
    assert env.reset()[0].tolist() == alone.reset()[0].tolist()


def test_unseeded_tasks_work() -> None:
    env, _ = switching(Does(1, D2), Does(2, D2), to=Choice([0, 1]))
    first = [env.reset()[0][-1] for _ in range(10)]
    again, _ = switching(Does(1, D2), Does(2, D2), to=Choice([0, 1]))
    assert first != [again.reset()[0][-1] for _ in range(10)]


def test_time_limits_inside_and_outside() -> None:
    inner = TimeLimit(Does(1, D2, end=99), 2)
    outer = TimeLimit(Tasks([inner, Does(2, D2, end=99)]), 4)
    env = NonStationary(outer, SwitchTask(), Schedule(EveryEpisodes(1), Cycle([0, 1])))
    lengths = []
    env.reset(seed=0)
    for _ in range(4):
        length, over = 0, False
        while not over:
            _, _, terminated, over, _ = env.step(0)
            assert not terminated
            length += 1
        lengths.append(length)
        env.reset()
    assert lengths == [2, 4, 2, 4]


def test_registered_environments_by_id() -> None:
    tasks = Tasks(["CartPole-v1", "Acrobot-v1"], render_mode="rgb_array")
    env = NonStationary(tasks, SwitchTask(), Schedule(EveryEpisodes(1), Cycle([0, 1])))
    assert env.observation_space.shape == (6,) and env.action_space == spaces.Discrete(3)
    plain = [gym.make("CartPole-v1"), gym.make("Acrobot-v1")]
    expected = [one.reset(seed=7)[0] for one in plain]
    seen, _ = env.reset(seed=7)
    np.testing.assert_array_equal(seen, [*expected[0], 0, 0])
    np.testing.assert_array_equal(env.step(2)[0][:4], plain[0].step(0)[0])
    seen, _ = env.reset()
    np.testing.assert_array_equal(seen, plain[1].reset()[0])
    assert env.observation_space.contains(seen)
    env.close()


def test_rendering_is_the_tasks() -> None:
    class Draws(Does):
        def render(self) -> Any:
            return f"picture of {self.name}"

    env, _ = switching(Draws(1, D2), Draws(2, D2))
    env.reset(seed=0)
    assert env.render() == "picture of 1"
    env.step(0)
    env.reset()
    assert env.render() == "picture of 2"


def test_tasks_made_before_keep_their_render_mode() -> None:
    tasks = Tasks([gym.make("CartPole-v1", render_mode="rgb_array")])
    assert tasks.render_mode == "rgb_array"
    tasks.close()


def test_closing_closes_all() -> None:
    closed = []

    class Closes(Does):
        def close(self) -> None:
            closed.append(self.name)

    Tasks([Closes(1, D2), Closes(2, D2)]).close()
    assert closed == [1, 2]


# In batches


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_each_lane_switches_at_its_own_end(mode: AutoresetMode) -> None:
    def lane(first: int, second: int) -> Any:
        return lambda: Tasks([Does(1, D2, end=first), Does(2, D2, end=second)])

    inside = SyncVectorEnv([lane(2, 3), lane(4, 1)], autoreset_mode=mode)
    env = NonStationaryVector(
        inside, SwitchTask(), Schedule(EverySteps(5, at_episode_end=True), Cycle([0, 1]))
    )
    env.reset(seed=0)
    rows, over = [], np.zeros(2, np.bool_)
    for _ in range(12):
        if mode is AutoresetMode.DISABLED and over.any():
            env.reset(options={"reset_mask": over})
        observations, _, terminated, _, info = env.step(np.zeros(2, np.int64))
        np.testing.assert_array_equal(info["task"] % 2 + 1, info["who"])
        np.testing.assert_array_equal(observations[:, 0], info["who"])
        rows.append(tuple(info["who"]))
        over = terminated
    assert {1, 2} == {row[0] for row in rows} == {row[1] for row in rows}


def test_where_lanes_reset_at_once_the_task_is_the_one_that_is_told() -> None:
    """A reset inside comes before the switch: either it is refused, or what is told is true."""
    inside = SyncVectorEnv(
        [lambda: Tasks([Does(1, D2), Does(2, D2)])] * 2, autoreset_mode=AutoresetMode.SAME_STEP
    )
    try:
        env = NonStationaryVector(
            inside, SwitchTask(), Schedule(EveryEpisodes(1), Cycle([0, 1])), worlds=2
        )
    except UsageError as error:
        assert "SwitchTask" in str(error) and "\n" not in str(error)
        return
    env.reset(seed=0)
    for _ in range(12):
        info = env.step(np.zeros(2, np.int64))[4]
        np.testing.assert_array_equal(info["task"] % 2 + 1, info["who"])


# States


def cycle_of_two() -> NonStationary:
    return NonStationary(
        Tasks(["CartPole-v1", "Acrobot-v1"]),
        SwitchTask(),
        Schedule(EverySteps(30, at_episode_end=True), Choice([0, 1])),
    )


def future(env: NonStationary, n: int) -> list[Any]:
    env.action_space.seed(1)
    rows: list[Any] = []
    for _ in range(n):
        observation, *rest = env.step(env.action_space.sample())
        rows.append((observation.tolist(), *rest))
        if rest[1] or rest[2] or len(rows) % 50 == 0:
            rows.append((env.reset()[0].tolist(), env.value.tolist()))
    return rows


@pytest.mark.parametrize("before", [0, 7, 45, 120])
def test_a_saved_state_goes_on_alike(before: int) -> None:
    env = cycle_of_two()
    env.reset(seed=9)
    future(env, before)
    saved = json.loads(json.dumps(clrl.envs.state_dict(env)))
    other = cycle_of_two()
    other.reset(seed=1)
    future(other, 33)
    clrl.envs.load_state_dict(other, saved)
    assert future(env, 200) == future(other, 200)


@pytest.mark.parametrize(
    "others", [["Acrobot-v1", "CartPole-v1"], ["CartPole-v1", "MountainCar-v0"], ["CartPole-v1"]]
)
def test_the_state_of_other_tasks_is_refused(others: list[str]) -> None:
    env = cycle_of_two()
    env.reset(seed=9)
    saved = clrl.envs.state_dict(env)
    other = NonStationary(
        Tasks(others), SwitchTask(), Schedule(EverySteps(30, at_episode_end=True), Choice([0]))
    )
    other.reset(seed=1)
    before = clrl.envs.state_dict(other)
    with pytest.raises(UsageError, match="state") as error:
        clrl.envs.load_state_dict(other, saved)
    assert "\n" not in str(error.value)
    assert clrl.envs.state_dict(other) == before


# Mistakes


@pytest.mark.parametrize(
    "when",
    [
        EverySteps(10),
        Poisson(0.1),
        AtSteps([5]),
        Continuously(),
    ],
    ids=repr,
)
def test_schedules_that_do_not_wait_are_refused(when: Any) -> None:
    with pytest.raises(UsageError, match="SwitchTask: .*at_episode_end=True") as error:
        switching(Does(1, D2), Does(2, D2), when=when)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "when",
    [
        EverySteps(10, at_episode_end=True),
        Poisson(0.1, at_episode_end=True),
        AtSteps([5], at_episode_end=True),
        EveryEpisodes(2),
        Never(),
    ],
    ids=repr,
)
def test_schedules_that_wait_are_taken(when: Any) -> None:
    env, tasks = switching(Does(1, D2), Does(2, D2), when=when, to=Cycle([1, 0]))
    env.reset(seed=0)
    assert tasks.task == 1


@pytest.mark.parametrize(
    ("to", "message"),
    [
        (Cycle([0, 2]), "SwitchTask takes a task from 0 to 1, got 2"),
        (Cycle([-1]), "SwitchTask takes a task from 0 to 1, got -1"),
        (Cycle([0.5]), "SwitchTask takes a task from 0 to 1, got 0.5"),
        (Cycle(["CartPole-v1"]), "SwitchTask takes a task from 0 to 1, got 'CartPole-v1'"),
        (Uniform(0, 1), "Uniform"),
        (RandomMask(0.5), "RandomMask"),
    ],
    ids=repr,
)
def test_tasks_that_are_not_there_are_refused(to: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        switching(Does(1, D2), Does(2, D2), to=to)
    assert "\n" not in str(error.value)


def test_there_must_be_tasks_inside() -> None:
    with pytest.raises(UsageError, match="SwitchTask: expected clrl.envs.Tasks inside"):
        NonStationary(Does(1, D2), SwitchTask(), Schedule(Never(), Cycle([0])))
    with pytest.raises(UsageError, match="SwitchTask: expected clrl.envs.Tasks inside"):
        NonStationaryVector(
            SyncVectorEnv([lambda: Does(1, D2)] * 2), SwitchTask(), Schedule(Never(), Cycle([0]))
        )


def picture(space: spaces.Space[Any]) -> Any:
    env = Does(1, D2)
    env.observation_space = space  # type: ignore[assignment]
    return env


@pytest.mark.parametrize(
    "envs",
    [
        [],
        "CartPole-v1",
        [Does(1, D2), Does(2, box(2))],
        [Does(1, box(1)), Does(2, box(1, high=np.inf))],
        [Does(1, spaces.MultiDiscrete([2, 2]))],
        [Does(1, spaces.Box(-1, 1, (2, 2), F32))],
        [picture(spaces.Box(0, 255, (4,), np.uint8))],
        [picture(spaces.Box(-1, 1, (2, 2), F32))],
        [picture(D3)],
        [Does(1, D2), 3],
        3,
        None,
    ],
    ids=lambda envs: f"{len(envs)} envs" if isinstance(envs, list) else str(envs),
)
def test_what_cannot_be_aligned_is_refused_in_one_line(envs: Any) -> None:
    with pytest.raises(UsageError, match="Tasks.envs: .*expected") as error:
        Tasks(envs)
    assert "\n" not in str(error.value)
