"""Environments of ours as Stable-Baselines3 takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

Array = NDArray[Any]
Watch = Callable[[Array, Array, Array, Mapping[str, Any]], None]
"""Takes a step's observations, rewards, ends of episodes and info; see `Lanes`."""


class Lanes(VecEnv):
    """A Gymnasium vector environment as Stable-Baselines3 takes it.

    A lane that ends is reset in the same step, so that every step is experience.

    Args:
        envs: without autoreset.
        seeds: of the lanes, for the first reset.
        watch: called after each step, with the observations that come next and the info of the
            step, where ``info["task"]`` [lanes] is the task in which it was taken.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any], seeds: Sequence[int], watch: Watch) -> None:
        self._envs = envs
        self._first_seeds: list[int] | None = list(seeds)
        self._watch = watch
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> Array:
        """Begin an episode in every lane; observations [lanes, ...]."""
        observations: Array
        observations, _ = self._envs.reset(seed=self._first_seeds)  # type: ignore[arg-type]
        self._first_seeds = None
        return observations

    def step_async(self, actions: Array) -> None:
        """Take the actions of the next step."""
        self._actions = actions

    def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
        """Step all lanes: observations, rewards, ends of episodes, and each lane's info."""
        observations, rewards, terminated, truncated, info = self._envs.step(self._actions)
        ended = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if ended.any():
            for lane in np.flatnonzero(ended):
                infos[lane]["terminal_observation"] = observations[lane].copy()
                infos[lane]["TimeLimit.truncated"] = bool(truncated[lane] and not terminated[lane])
            observations, _ = self._envs.reset(options={"reset_mask": ended})
        self._watch(observations, rewards, ended, info)
        return observations, np.array(rewards, np.float32), ended, infos

    def close(self) -> None:
        """Close the environments."""
        self._envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the vector environment, once a lane."""
        return [getattr(self._envs, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not to be had: lanes are no environments of their own."""
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, **options: Any) -> list[Any]:
        """Not to be had: lanes are no environments of their own."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No lane is wrapped."""
        return [False] * self.num_envs
