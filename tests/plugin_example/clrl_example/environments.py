"""An environment of one's own, and how it changes: a walk to the middle of a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from clrl.envs import (
    Benchmark,
    EverySteps,
    Parameter,
    PermuteActions,
    Physics,
    RandomPermutation,
    Schedule,
    Uniform,
)


class Line(gym.Env[np.ndarray, int]):
    """Go left, stay or go right; the reward is greater the nearer to 0."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(3)
    physics_parameters = (Parameter("stride", "1", "how far a step goes", positive=True),)
    place = 0.0
    stride = 0.1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = float(self.np_random.uniform(-1.0, 1.0))
        return self._seen(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.place = float(np.clip(self.place + self.stride * (int(action) - 1), -1.0, 1.0))
        return self._seen(), 1.0 - abs(self.place), False, False, {}

    def _seen(self) -> np.ndarray:
        return np.array([self.place], np.float32)

    def state_dict(self) -> dict[str, Any]:
        """What decides the future, in plain values: with it, a run can go on where it stopped."""
        return {"place": self.place, "bits": self.np_random.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.place = state["place"]
        self.np_random.bit_generator.state = state["bits"]


gym.register("clrl_example/Line-v0", Line, max_episode_steps=20)


@dataclass(frozen=True)
class PermutedLine(Benchmark):
    """`Line`, whose actions change places every so many steps."""

    task_length: int = 1000

    def change(self) -> tuple[Any, Schedule]:
        return PermuteActions(), Schedule(EverySteps(self.task_length), RandomPermutation())

    def make_base(self, render_mode: str | None) -> gym.Env[Any, Any]:
        return TimeLimit(Line(), 20)


def striding_line(task_length: int = 1000) -> tuple[gym.Env[Any, Any], list[Any]]:
    """`Line`, whose strides and actions change: an environment, and how it changes."""
    strides = Schedule(EverySteps(task_length, at_episode_end=True), Uniform(0.05, 0.3))
    actions = Schedule(EverySteps(2 * task_length), RandomPermutation())
    return gym.make("clrl_example/Line-v0"), [
        (Physics("stride"), strides),
        (PermuteActions(), actions),
    ]
