"""A single environment in which something changes by a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv

from clrl.envs.changes.base import Change, Host
from clrl.envs.nonstationary.lanes import ALL, LaneTasks, Saved, count_inside
from clrl.envs.schedules import Planned, Schedule
from clrl.envs.schedules.values import Array
from clrl.errors import UsageError


class NonStationary(Saved, gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """An environment in which something changes by a schedule.

    Args:
        env: the environment; it may itself be a `NonStationary`.
        change: what changes.
        schedule: when, and to what.
        reveal_task: append the index of the task, this wrapper's own, to the observation (a Box
            with one axis); the agent is not told otherwise.
        task_seed: decides the sequence of tasks in place of the seed given to ``reset``, so that
            several copies of an environment with seeds of their own share it.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        change: Change,
        schedule: Schedule,
        *,
        reveal_task: bool = False,
        task_seed: int | None = None,
    ) -> None:
        """See the class.

        Raises:
            UsageError: the change does not suit the environment, or the schedule the change.
        """
        if not isinstance(env, gym.Env):
            raise UsageError(
                f"NonStationary.env: expected a Gymnasium environment, got {env!r}"
                + ("; NonStationaryVector is for those" if isinstance(env, VectorEnv) else "")
            )
        if isinstance(env, gym.wrappers.Autoreset):
            raise UsageError("NonStationary.env: put Autoreset around it, which hides the resets")
        RecordConstructorArgs.__init__(
            self, change=change, schedule=schedule, reveal_task=reveal_task, task_seed=task_seed
        )
        gym.Wrapper.__init__(self, env)
        self._inner = count_inside(env)
        host = Host(env, 1, 1, env.observation_space, env.action_space)
        self._lanes = LaneTasks(host, change, schedule, reveal_task, task_seed, self._inner)
        self.observation_space = self._lanes.observation_space
        self.action_space = self._lanes.effect.action_space

    @property
    def made_with(self) -> dict[str, Any]:
        """The arguments that this was made with but for the environment: for another one alike."""
        return dict(self._saved_kwargs)

    @property
    def task(self) -> int:
        """Index of the current task, from 0; this wrapper's own."""
        return int(self._lanes.task[0])

    @property
    def value(self) -> Array:
        """The value now at work."""
        value: Array = self._lanes.effect.values[0].copy()
        return value

    def preview(self, n: int) -> list[Planned]:
        """The next n changes, without going there; fewer where the schedule ends.

        Raises:
            UsageError: there was no reset yet.
        """
        return self._lanes.timeline.preview(n)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; with a seed, begin everything anew.

        Raises:
            UsageError: the seed is not an integer >= 0.
        """
        self._lanes.seed({0: seed})
        self._lanes.begin(np.ones(1, np.bool_))
        observation, info = self.env.reset(seed=seed, options=options)
        return self._see(observation), self._inform(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the environment under the task that is due."""
        lanes = self._lanes
        lanes.before_step()
        if lanes.acts:
            action = lanes.effect.action(np.asarray(action)[None], ALL)[0]
        observation, reward, terminated, truncated, info = self.env.step(action)
        if lanes.rewards:
            reward = lanes.effect.reward(np.asarray([reward], np.float64), ALL)[0]
        lanes.after_step(ALL)
        return self._see(observation), float(reward), terminated, truncated, self._inform(info)

    def _see(self, observation: Any) -> Any:
        if not self._lanes.shows:
            return observation
        return self._lanes.observe(np.asarray(observation)[None], ALL)[0]

    def _inform(self, info: dict[str, Any]) -> dict[str, Any]:
        task, changed = self.task, bool(self._lanes.take_changed(ALL)[0])
        if self._inner:
            task, changed = task + info["task"], changed or info["task_changed"]
        return {**info, "task": task, "task_changed": changed}

    @property
    def state_kind(self) -> str:
        """What a state has to come from, in words."""
        return f"NonStationary({self._lanes.description})"

    def own_state_dict(self) -> dict[str, Any]:
        """This wrapper's part of the state."""
        return self._lanes.state_dict()

    def load_own_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take this wrapper's part of the state back."""
        self._lanes.load_state_dict(saved)
