"""Several environments behind one pair of spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from clrl.envs import state
from clrl.envs.schedules.values import Array
from clrl.errors import UsageError


class Tasks(gym.Env[Array, Any]):
    """Whole environments to switch between; one of them is at work.

    The spaces are aligned by padding. Observations are filled up with zeros to the longest of
    them, as float32. Of discrete actions there are as many as the environment with the most has;
    in the others an action beyond the last stands for ``action % n``. Continuous actions lie in
    [-1, 1], are stretched to each environment's bounds, and entries beyond its own are ignored.

    Args:
        envs: environments, or ids of registered ones; each with a Box of floats with one axis as
            observations, and all with discrete or all with bounded continuous actions with one
            axis.
        render_mode: for those that are made here from their id.

    Attributes:
        envs: the environments.
        task: index of the one at work.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 50}

    def __init__(
        self, envs: Sequence[gym.Env[Any, Any] | str], render_mode: str | None = None
    ) -> None:
        """See the class.

        Raises:
            UsageError: no environment is given, or the spaces cannot be aligned.
        """
        listed = isinstance(envs, Sequence) and not isinstance(envs, str) and len(envs) > 0
        if not listed or not all(isinstance(env, (str, gym.Env)) for env in envs):
            raise UsageError(f"Tasks.envs: expected a list of environments or ids, got {envs!r}")
        self.envs = [
            gym.make(env, render_mode=render_mode) if isinstance(env, str) else env for env in envs
        ]
        self.render_mode = render_mode or self.envs[0].render_mode
        self.observation_space = _padded([_observations(env) for env in self.envs])
        self.action_space = _aligned([env.action_space for env in self.envs])
        self.task = self._next = 0

    def choose(self, task: int) -> None:
        """Put another environment to work, from the next reset on."""
        self._next = task

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin an episode of the chosen environment; a seed is for all of them."""
        super().reset(seed=seed)
        self.task = self._next
        for index, env in enumerate(self.envs):
            if seed is not None and index != self.task:
                env.reset(seed=seed)
        observation, info = self.envs[self.task].reset(seed=seed, options=options)
        return self._pad(observation), info

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Step the environment at work."""
        env = self.envs[self.task]
        space = env.action_space
        if isinstance(space, spaces.Discrete):
            action = space.start + int(action) % int(space.n)
        else:
            assert isinstance(space, spaces.Box)
            share = (np.clip(action[: len(space.low)], -1, 1) + 1) / 2
            stretched = (space.low + share * (space.high - space.low)).astype(space.dtype)
            action = np.clip(stretched, space.low, space.high)  # rounding may lead beyond
        observation, reward, terminated, truncated, info = env.step(action)
        return self._pad(observation), float(reward), terminated, truncated, info

    def _pad(self, observation: Array) -> Array:
        padded = np.zeros(self.observation_space.shape or (), np.float32)
        padded[: len(observation)] = observation
        return padded

    def render(self) -> Any:
        """Render the environment at work."""
        return self.envs[self.task].render()

    def close(self) -> None:
        """Close all of them."""
        for env in self.envs:
            env.close()

    def state_dict(self) -> dict[str, Any]:
        """The states of all environments, and which is at work."""
        envs = [state.state_dict(env) for env in self.envs]
        return {"task": self.task, "next": self._next, "envs": envs}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go to where `saved` was taken, by an environment made alike.

        Raises:
            UsageError: the environments are others; nothing is changed then.
        """
        if len(saved["envs"]) != len(self.envs):
            raise UsageError(
                f"environment state: it is of {len(saved['envs'])} tasks, got {len(self.envs)}"
            )
        for env, one in zip(self.envs, saved["envs"], strict=True):
            state.check(env, one)
        self.task, self._next = int(saved["task"]), int(saved["next"])
        for env, one in zip(self.envs, saved["envs"], strict=True):
            state.load_state_dict(env, one)


def _observations(env: gym.Env[Any, Any]) -> spaces.Box:
    space = env.observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or space.dtype.kind != "f":
        raise UsageError(
            f"Tasks.envs: {env}: expected a one-dimensional Box of floats to observe, got {space}"
        )
    return space


def _padded(boxes: list[spaces.Box]) -> spaces.Box:
    size = max(len(box.low) for box in boxes)
    low = [np.pad(box.low.astype(np.float32), (0, size - len(box.low))) for box in boxes]
    high = [np.pad(box.high.astype(np.float32), (0, size - len(box.high))) for box in boxes]
    return spaces.Box(np.min(low, axis=0), np.max(high, axis=0), dtype=np.float32)


def _aligned(of_envs: list[spaces.Space[Any]]) -> spaces.Discrete | spaces.Box:
    if all(isinstance(space, spaces.Discrete) for space in of_envs):
        return spaces.Discrete(max(int(space.n) for space in of_envs))  # type: ignore[attr-defined]
    boxes = [space for space in of_envs if isinstance(space, spaces.Box)]
    if len(boxes) < len(of_envs) or not all(
        len(box.shape) == 1 and box.is_bounded() for box in boxes
    ):
        raise UsageError(
            "Tasks.envs: expected all discrete actions, or all bounded continuous ones with one "
            f"axis; these cannot be aligned: {', '.join(map(str, of_envs))}"
        )
    return spaces.Box(-1, 1, (max(len(box.low) for box in boxes),), np.float32)
