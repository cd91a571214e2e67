"""A vector environment in which something changes by a schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from clrl.envs.changes.base import Change, Host, Lanes
from clrl.envs.nonstationary.lanes import ALL, LaneTasks, Saved, count_inside
from clrl.envs.schedules import Planned, Schedule
from clrl.envs.schedules.values import Array
from clrl.errors import UsageError


class NonStationaryVector(Saved, VectorWrapper[Any, Any, Any, Any, Any]):
    """A vector environment in which something changes by a schedule.

    Lanes of one *world* share a sequence of tasks and a clock that counts the steps of all of
    them: n steps of experience, however many lanes they come from. Where changes come in the
    middle of episodes, all lanes of a world change together; where they wait for the end of an
    episode, the first end brings the change and each other lane follows at its own next end. A
    world of one lane behaves as `NonStationary` does.

    Args:
        env: any vector environment whose ``metadata["autoreset_mode"]`` is set. Physics and whole
            tasks can be changed where it is a ``SyncVectorEnv`` or one of this package's.
        change: what changes.
        schedule: when, and to what.
        worlds: groups of neighbouring lanes with a sequence of tasks each; a divisor of
            ``num_envs``. World w is seeded as its first lane is.
        reveal_task: see `NonStationary`.
        task_seed: see `NonStationary`; all worlds then share one sequence.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        change: Change,
        schedule: Schedule,
        *,
        worlds: int = 1,
        reveal_task: bool = False,
        task_seed: int | None = None,
    ) -> None:
        """See the class.

        Raises:
            UsageError: the change does not suit the environment, the schedule the change, or
                `worlds` does not divide ``num_envs``.
        """
        if not isinstance(env, VectorEnv):
            raise UsageError(
                f"NonStationaryVector.env: expected a vector environment, got {env!r}"
                + ("; NonStationary is for single ones" if isinstance(env, gym.Env) else "")
            )
        super().__init__(env)
        if type(worlds) is not int or worlds < 1 or env.num_envs % worlds:
            raise UsageError(
                f"worlds: expected a divisor of num_envs ({env.num_envs}), got {worlds!r}"
            )
        if "autoreset_mode" not in env.metadata:
            raise UsageError(f"{env}: expected metadata['autoreset_mode']; there is none")
        self._mode = AutoresetMode(env.metadata["autoreset_mode"])
        if self._mode is AutoresetMode.SAME_STEP and getattr(change, "between_episodes", False):
            raise UsageError(
                f"{type(change).__name__}: expected autoreset NextStep or Disabled; with SameStep "
                "an episode begins before the change can come"
            )
        self._inner = count_inside(env)
        host = Host(
            env, env.num_envs, worlds, env.single_observation_space, env.single_action_space
        )
        self._lanes = LaneTasks(host, change, schedule, reveal_task, task_seed, self._inner)
        self._ended = np.zeros(env.num_envs, np.bool_)
        self._everyone = np.ones(env.num_envs, np.bool_)
        self._last: Any = None
        self.single_observation_space = self._lanes.observation_space
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self.single_action_space = self._lanes.effect.action_space
        self.action_space = batch_space(self.single_action_space, env.num_envs)

    @property
    def task(self) -> NDArray[np.int64]:
        """Index of the task in each lane, int64 [num_envs]; this wrapper's own."""
        return self._lanes.task.copy()

    @property
    def value(self) -> Array:
        """The value at work in each lane, [num_envs, ...]."""
        return self._lanes.effect.values.copy()

    def preview(self, n: int, world: int = 0) -> list[Planned]:
        """The next n changes of a world, without going there; fewer where the schedule ends.

        Raises:
            UsageError: there was no reset yet.
        """
        return self._lanes.timeline.preview(n, world)

    @property
    def drifts(self) -> bool:
        """Whether values change at every step, so that there are no tasks."""
        return self._lanes.timeline.drifts

    def hold(self, tasks: NDArray[np.int64], values: Array) -> None:
        """Stay in one task from the next reset on, until a reset with a seed.

        Args:
            tasks: int64 [worlds], the task's index in each world.
            values: [worlds, ...], its value, as from `value` or `preview`.
        """
        self._lanes.hold(tasks, values)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Begin episodes in all lanes, or in those of ``options["reset_mask"]``.

        Raises:
            UsageError: seeds or mask are not what they should be; nothing has changed then.

        Args:
            seed: begins everything anew; lane i takes ``seed + i``, or its own of a list. A
                world begins anew where its first lane is reset with a seed.
            options: handed on.
        """
        n, worlds = self.num_envs, self._lanes.host.worlds
        mask = self._everyone
        if options is not None and "reset_mask" in options:
            mask = options["reset_mask"]
            if not isinstance(mask, np.ndarray) or mask.shape != (n,) or mask.dtype != np.bool_:
                raise UsageError(f"reset_mask: expected a bool array of shape ({n},), got {mask!r}")
            options = dict(options)  # Gymnasium's own takes the mask out
        if isinstance(seed, np.integer):
            seed = int(seed)
        if seed is not None or not self._lanes.begun:
            seeds: list[int | None] = [None] * n
            if seed is not None:
                seeds = [seed + i for i in range(n)] if isinstance(seed, int) else list(seed)
            if len(seeds) != n:
                raise UsageError(f"seed: expected {n} seeds, got {len(seeds)}")
            firsts = range(0, n, n // worlds)
            self._lanes.seed({w: seeds[lane] for w, lane in enumerate(firsts) if mask[lane]})
        self._lanes.begin(mask)
        self._ended[mask] = False
        observations, info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        if self._lanes.shows:
            seen = self._lanes.observe(observations[mask], mask)
            if mask.all():
                observations = seen
            else:  # the other lanes show what they showed
                observations = self._last.copy()
                observations[mask] = seen
        self._remember(observations)
        return observations, self._inform(info)

    def step(self, actions: Any) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        """Step all lanes, each under the task that is due in it."""
        lanes = self._lanes
        live: Lanes = ALL
        if self._mode is AutoresetMode.NEXT_STEP and self._ended.any():
            lanes.begin(self._ended)
            live = ~self._ended
        lanes.before_step()
        if lanes.acts:
            actions = np.array(actions)
            actions[live] = lanes.effect.action(actions[live], live)
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        if lanes.rewards:
            rewards = np.array(rewards)
            rewards[live] = lanes.effect.reward(rewards[live], live)
        lanes.after_step(live)
        self._ended = terminated | truncated
        if self._mode is AutoresetMode.SAME_STEP and self._ended.any():
            self._finish(info)
            lanes.begin(self._ended)
        observations = self._see(observations)
        self._remember(observations)
        return observations, rewards, terminated, truncated, self._inform(info)

    def _finish(self, info: dict[str, Any]) -> None:
        """Put the last observations of episodes, and their tasks, as the agent sees them."""
        lanes, ended = self._lanes, self._ended
        if lanes.shows:
            seen = lanes.observe(np.stack(list(info["final_obs"][ended])), ended)
            final = info["final_obs"].copy()
            for lane, one in zip(np.flatnonzero(ended), seen, strict=True):
                final[lane] = one
            info["final_obs"] = final
        task = lanes.task + (info["final_info"]["task"] if self._inner else 0)
        changed = lanes.take_changed(ended) | (
            info["final_info"]["task_changed"] if self._inner else False
        )
        info["final_info"] = _with_task(info["final_info"], task * ended, changed & ended, ended)

    def _see(self, observations: Any) -> Any:
        return self._lanes.observe(observations, ALL) if self._lanes.shows else observations

    def _remember(self, observations: Any) -> None:
        """Keep what is shown: a reset of some lanes shows the others' again."""
        if self._lanes.shows:
            self._last = observations.copy()

    def _inform(self, info: dict[str, Any]) -> dict[str, Any]:
        task, changed = self._lanes.task.copy(), self._lanes.take_changed(ALL)
        present = self._everyone
        if not self._inner and "task" in info and isinstance(self.unwrapped, AsyncVectorEnv):
            raise UsageError(
                "NonStationaryVector: the environments inside tell tasks of their own; wrap them, "
                "or the AsyncVectorEnv, not both"
            )
        if self._inner:
            task, changed = task + info["task"], changed | info["task_changed"]
            present = info["_task"]  # lanes that a reset left alone say nothing inside
        return _with_task(info, task, changed, present)

    @property
    def state_kind(self) -> str:
        """What a state has to come from, in words."""
        return f"NonStationaryVector({self._lanes.description}, worlds={self._lanes.host.worlds})"

    def own_state_dict(self) -> dict[str, Any]:
        """This wrapper's part of the state."""
        return {
            "lanes": self._lanes.state_dict(),
            "ended": self._ended.tolist(),
            "last": None if self._last is None else self._last.tolist(),
        }

    def load_own_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take this wrapper's part of the state back."""
        self._lanes.load_state_dict(saved["lanes"])
        self._ended = np.array(saved["ended"], np.bool_)
        dtype = self.observation_space.dtype
        self._last = None if saved["last"] is None else np.array(saved["last"], dtype)


def _with_task(
    info: Mapping[str, Any], task: Array, changed: Array, present: Array
) -> dict[str, Any]:
    return {
        **info,
        "task": task,
        "_task": present.copy(),
        "task_changed": changed,
        "_task_changed": present.copy(),
    }
