"""An environment of one's own, and how it changes: a walk to the middle of a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from clrl.envs import Benchmark, EverySteps, PermuteActions, RandomPermutation, Schedule


class Line(gym.Env[np.ndarray, int]):
    """Go left, stay or go right; the reward is greater the nearer to 0."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(3)
    place = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = float(self.np_random.uniform(-1.0, 1.0))
        return self._seen(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.place = float(np.clip(self.place + 0.1 * (int(action) - 1), -1.0, 1.0))
        return self._seen(), 1.0 - abs(self.place), False, False, {}

    def _seen(self) -> np.ndarray:
        return np.array([self.place], np.float32)

    def state_dict(self) -> dict[str, Any]:
        """What decides the future, in plain values: with it, a run can go on where it stopped."""
        return {"place": self.place, "bits": self.np_random.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.place = state["place"]
        self.np_random.bit_generator.state = state["bits"]


@dataclass(frozen=True)
class PermutedLine(Benchmark):
    """`Line`, whose actions change places every so many steps."""

    task_length: int = 1000

    def change(self) -> tuple[Any, Schedule]:
        return PermuteActions(), Schedule(EverySteps(self.task_length), RandomPermutation())

    def make_base(self, render_mode: str | None) -> gym.Env[Any, Any]:
        return TimeLimit(Line(), 20)
