from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from clrl.envs import (
    Cycle,
    EverySteps,
    FlipReward,
    Never,
    NonStationary,
    NonStationaryVector,
    Normal,
    RandomMask,
    ScaleReward,
    Schedule,
    ShiftReward,
    Uniform,
)
from clrl.envs.changes.base import Change
from clrl.envs.classic import CartPoleVectorEnv
from clrl.errors import UsageError


class Pays(gym.Env[Any, Any]):
    """Pays 1, 2, 3, ... and ends after the third step."""

    observation_space = spaces.Discrete(1)
    action_space = spaces.Discrete(2)

    def __init__(self, kind: Any = float) -> None:
        self.kind = kind

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return 0, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.t += 1
        return 0, self.kind(self.t), self.t == 3, False, {}


BY_HAND: dict[str, tuple[Change, list[Any], list[float]]] = {
    "scale": (ScaleReward(), [2, -1, 0.5], [2, -2, 1.5]),
    "shift": (ShiftReward(), [10, -1, 0.25], [11, 1, 3.25]),
    "flip": (FlipReward(), [True, False, True], [-1, 2, -3]),
}


@pytest.mark.parametrize("kind", [float, int, np.float32, np.float64])
@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str, kind: Any) -> None:
    change, values, expected = BY_HAND[name]
    env = NonStationary(Pays(kind), change, Schedule(EverySteps(1), Cycle(values)))
    env.reset(seed=0)
    rewards = [env.step(0)[1] for _ in range(3)]
    assert rewards == expected
    assert all(type(reward) is float for reward in rewards)


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("name", BY_HAND)
def test_each_lane_of_a_batch(name: str, mode: AutoresetMode) -> None:
    change, values, _ = BY_HAND[name]
    inside = SyncVectorEnv([Pays] * 3, autoreset_mode=mode)
    env = NonStationaryVector(
        inside, change, Schedule(EverySteps(1), Cycle(values)), worlds=3, task_seed=0
    )
    env.reset(seed=0)
    single = NonStationary(Pays(), change, Schedule(EverySteps(1), Cycle(values)), task_seed=0)
    single.reset(seed=0)
    for _ in range(3):
        rewards = env.step(np.zeros(3, np.int64))[1]
        assert rewards.dtype == np.float64
        np.testing.assert_array_equal(rewards, [single.step(0)[1]] * 3)


UNCHANGED: dict[str, tuple[Change, Any]] = {
    "scale": (ScaleReward(), Uniform(2, 3)),
    "shift": (ShiftReward(), Normal(5, 1)),
    "flip": (FlipReward(), RandomMask(1)),
}


@pytest.mark.parametrize("name", UNCHANGED)
def test_unchanged_changes_nothing(name: str) -> None:
    change, to = UNCHANGED[name]
    env = NonStationary(Pays(), change, Schedule(Never(), to, start="unchanged"))
    env.reset(seed=0)
    assert [env.step(0)[1] for _ in range(3)] == [1, 2, 3]


def test_the_step_that_only_resets_pays_nothing() -> None:
    env = NonStationaryVector(
        SyncVectorEnv([Pays] * 2), ShiftReward(), Schedule(Never(), Cycle([10]))
    )
    env.reset(seed=0)
    rewards = [env.step(np.zeros(2, np.int64))[1].tolist() for _ in range(5)]
    assert rewards == [[11, 11], [12, 12], [13, 13], [0, 0], [11, 11]]


def test_where_lanes_reset_at_once_every_step_pays() -> None:
    inside = SyncVectorEnv([Pays] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    env = NonStationaryVector(inside, ShiftReward(), Schedule(Never(), Cycle([10])))
    env.reset(seed=0)
    rewards = [env.step(np.zeros(2, np.int64))[1].tolist() for _ in range(4)]
    assert rewards == [[11, 11], [12, 12], [13, 13], [11, 11]]


def test_cartpole_pays_nothing_for_a_reset_either() -> None:
    env = NonStationaryVector(
        CartPoleVectorEnv(4, max_episode_steps=25), ShiftReward(), Schedule(Never(), Cycle([-3]))
    )
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    ended = np.zeros(4, np.bool_)
    resets = 0
    for _ in range(100):
        _, rewards, terminated, truncated, _ = env.step(rng.integers(2, size=4))
        np.testing.assert_array_equal(rewards, np.where(ended, 0, -2))
        resets += int(ended.sum())
        ended = terminated | truncated
    assert resets > 8


def test_observations_of_any_kind_go_through() -> None:
    env = NonStationary(Pays(), ScaleReward(), Schedule(Never(), Cycle([2])))
    assert env.observation_space is Pays.observation_space
    observation, _ = env.reset(seed=0)
    assert observation == 0 and type(observation) is int


@pytest.mark.parametrize(
    ("change", "to", "message"),
    [
        (FlipReward(), Uniform(0, 1), "FlipReward takes true or false"),
        (FlipReward(), Cycle([2]), "FlipReward takes true or false, got 2"),
        (ScaleReward(), Cycle([np.inf]), "ScaleReward takes finite numbers, got inf"),
        (ScaleReward(), Cycle([[1, 2]]), "ScaleReward"),
        (ScaleReward(), RandomMask(0.5), "RandomMask"),
        (ShiftReward(), Cycle([None]), "ShiftReward takes finite numbers, got None"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(change: Change, to: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        NonStationary(Pays(), change, Schedule(Never(), to))
    assert "\n" not in str(error.value)
