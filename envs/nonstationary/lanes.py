"""What the wrappers for one environment and for many share: the task at work in each lane."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import EzPickle
from gymnasium.vector import SyncVectorEnv, VectorEnv, VectorWrapper
from numpy.typing import NDArray

from clrl.envs import state
from clrl.envs.changes.base import Change, Effect, Host, Lanes
from clrl.envs.schedules import Continuously, Never, Schedule, Timeline
from clrl.envs.schedules.values import Array
from clrl.envs.tasks import Tasks
from clrl.errors import UsageError

ALL = slice(None)
"""Every lane."""


class Saved:
    """What both wrappers do alike: states, and copies that are refused.

    Attributes:
        owned: what this wrapper alone may set, by name.
    """

    _lanes: LaneTasks

    @property
    def owned(self) -> tuple[str, ...]:
        """See the class."""
        return self._lanes.effect.owns

    def state_dict(self) -> dict[str, Any]:
        """What decides the future of this wrapper and all inside; see `clrl.envs.state`."""
        return state.state_dict(self)  # type: ignore[arg-type]

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go to where `saved` was taken, by an environment made alike.

        Raises:
            UsageError: see `clrl.envs.state.check`.
        """
        state.load_state_dict(self, saved)  # type: ignore[arg-type]

    def __getstate__(self) -> dict[str, Any]:
        """For copies.

        Raises:
            UsageError: an environment inside cannot be copied as it is.
        """
        _refuse_copy(self)
        return self.__dict__


def _inside(env: Any) -> Iterator[Saved]:
    """These wrappers further in, those of the first lane or task among them."""
    while True:
        if isinstance(env, Saved):
            yield env
        if isinstance(env, (gym.Wrapper, VectorWrapper)):
            env = env.env
        elif isinstance(env, (SyncVectorEnv, Tasks)):
            env = env.envs[0]
        else:
            return


def count_inside(env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> int:
    """How many of these wrappers are inside."""
    count = 0
    while isinstance(env, (gym.Wrapper, VectorWrapper)):
        count += isinstance(env, Saved)
        env = env.env
    if isinstance(env, (SyncVectorEnv, Tasks)):
        count += max(count_inside(one) for one in env.envs)
    return count


def _refuse_copy(env: Any) -> None:
    """Gymnasium makes a copy of some environments by making them anew, as they were built."""
    try:
        lanes = getattr(env.unwrapped, "envs", [env])
    except AttributeError:
        return
    if any(isinstance(lane.unwrapped, EzPickle) for lane in lanes):
        raise UsageError(
            f"{env}: a copy would lose its physics; make another one and load the state_dict"
        )


def _check_seed(name: str, seed: Any) -> None:
    whole = isinstance(seed, (int, np.integer)) and not isinstance(seed, bool)
    if seed is not None and not (whole and seed >= 0):
        raise UsageError(f"{name}: expected an integer >= 0, got {seed!r}")


class LaneTasks:
    """What both wrappers share: lanes, their worlds, and the task at work in each lane.

    Attributes:
        host: the lanes.
        effect: what the change does.
        description: change and schedule in words.
        timeline: the worlds' clocks and sequences.
        observation_space: of one lane, as the agent sees it.
        acts: the effect is on actions; likewise `rewards`, and `shows` for observations.
    """

    def __init__(
        self,
        host: Host,
        change: Change,
        schedule: Schedule,
        reveal_task: bool,
        task_seed: int | None,
        depth: int,
    ) -> None:
        if not isinstance(change, Change):
            raise UsageError(f"change: expected such as PermuteObservation(), got {change!r}")
        if not isinstance(schedule, Schedule):
            raise UsageError(f"schedule: expected a Schedule, got {schedule!r}")
        when = schedule.when
        if change.between_episodes and not (when.at_episode_end or isinstance(when, Never)):
            raise UsageError(
                f"{type(change).__name__}: expected a schedule that waits for the end of an "
                f"episode (at_episode_end=True), got {when}"
            )
        _check_seed("task_seed", task_seed)
        if not isinstance(reveal_task, bool):
            raise UsageError(f"reveal_task: expected True or False, got {reveal_task!r}")
        if reveal_task and isinstance(when, Continuously):
            raise UsageError("reveal_task: there are no tasks to tell apart under Continuously()")
        self.host = host
        self.effect = change.bind(host)
        for inner in _inside(host.env):
            taken = set(inner.owned) & set(self.effect.owns)
            if taken:
                raise UsageError(f"{change}: a wrapper inside sets {', '.join(taken)} already")
        self.effect.fit(*schedule.bounds(self.effect.domain))
        # Stacked wrappers draw from generators of their own.
        self._purpose = f"nonstationary/{depth}"
        self.timeline = Timeline(schedule, self.effect.domain, host.worlds, self._purpose)
        self.description = f"{change}, {schedule}"
        if reveal_task:
            self.description += ", reveal_task=True"
        if task_seed is not None:
            self.description += f", task_seed={task_seed}"
        self._waits = when.at_episode_end
        self._task_seed = task_seed
        self._reveal = reveal_task
        self._world = np.repeat(np.arange(host.worlds), host.num_envs // host.worlds)
        self._begun = np.zeros(host.worlds, np.bool_)
        # How many changes of its world each lane has seen; -1 before the first value.
        self._seen = np.full(host.num_envs, -1)
        self._up_to_date = False  # all lanes, with their worlds
        self._stepped = np.zeros(host.num_envs, np.bool_)  # since their episode began
        self._all_steps = np.full(host.worlds, host.num_envs // host.worlds)
        self._no_steps = np.zeros(host.worlds, np.int64)
        self._nowhere = np.zeros(host.worlds, np.bool_)
        self._changed = np.zeros(host.num_envs, np.bool_)
        self.task = np.zeros(host.num_envs, np.int64)
        effect = type(self.effect)
        self.acts = effect.action is not Effect.action
        self.rewards = effect.reward is not Effect.reward
        self.shows = effect.observation is not Effect.observation or reveal_task
        self.observation_space = self.effect.observation_space
        if reveal_task:
            self.observation_space = _with_room_for_task(self.observation_space)

    def seed(self, seeds: Mapping[int, int | None]) -> None:
        """Begin some worlds anew; without a seed, only those that have not begun.

        Raises:
            UsageError: a seed is not an integer >= 0; nothing has changed then.
        """
        for seed in seeds.values():
            _check_seed("seed", seed)
        for world, seed in seeds.items():
            if seed is None and self._begun[world]:
                continue
            if seed is None:
                seed = int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
            task_seed = seed if self._task_seed is None else self._task_seed
            self.timeline.start(world, int(task_seed))
            self.effect.seed(world, int(seed), self._purpose)
            self._begun[world] = True
            mine = self._world == world
            self._seen[mine] = -1
            self._stepped[mine] = False
            self._up_to_date = False

    @property
    def begun(self) -> bool:
        """Whether all worlds have."""
        return bool(self._begun.all())

    def hold(self, tasks: NDArray[np.int64], values: Array) -> None:
        """Stay in one task; see `NonStationaryVector.hold`."""
        self.timeline.hold(tasks, values)
        self._seen[:] = -1
        self._up_to_date = False

    def begin(self, lanes: NDArray[np.bool_]) -> None:
        """Episodes begin in some lanes: end the ones before, carry out what waited for that."""
        timeline = self.timeline
        if not timeline.counts_steps:
            timeline.tick(self._no_steps, self._per_world(lanes & self._stepped))
            self._stepped[lanes] = False
        self._up_to_date &= not timeline.advance(self._per_world(lanes) > 0, everywhere=False)
        self.effect.begin(lanes)
        self._apply(lanes)

    def before_step(self) -> None:
        """Carry out changes that are due, in all lanes, where they need not wait."""
        if not self._waits:
            self._up_to_date &= not self.timeline.advance(self._nowhere)
            self._apply(ALL)

    def after_step(self, live: Lanes) -> None:
        """Count a step in the lanes that took one."""
        if self.timeline.counts_steps:
            steps = self._all_steps if isinstance(live, slice) else self._per_world(live)
            self.timeline.tick(steps, self._no_steps)
        else:
            self._stepped[live] = True

    def observe(self, observations: Array, lanes: Lanes) -> Array:
        """What the agent sees."""
        seen = self.effect.observation(observations, lanes)
        if self._reveal:
            task = self.task[lanes].astype(seen.dtype)[:, None]
            seen = np.concatenate([seen, task], axis=1)
        return seen

    def take_changed(self, lanes: Lanes) -> NDArray[np.bool_]:
        """Where, among some lanes, the task has changed since this was last asked."""
        changed = np.zeros(self.host.num_envs, np.bool_)
        changed[lanes] = self._changed[lanes]
        self._changed[lanes] = False
        return changed

    def _per_world(self, lanes: NDArray[np.bool_]) -> NDArray[np.int64]:
        rows = lanes.reshape(self.host.worlds, -1)
        counts: NDArray[np.int64] = np.add.reduce(rows, axis=1, dtype=np.int64)
        return counts

    def _apply(self, lanes: Lanes) -> None:
        """Bring lanes that are behind their world up to it."""
        if self._up_to_date:
            return
        current = self.timeline.changes[self._world]
        stale = self._seen != current
        behind = np.zeros_like(stale)
        behind[lanes] = stale[lanes]
        worlds = self._world[behind]
        self.effect.set(behind, self.timeline.values[worlds])
        if not self.timeline.drifts:
            self._changed |= behind & (self._seen >= 0)
        self._seen[behind] = current[behind]
        self.task[behind] = self.timeline.task[worlds]
        self._up_to_date = bool((behind == stale).all())

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the future of tasks and effect, in plain values."""
        return {
            "timeline": self.timeline.state_dict(),
            "values": self.effect.values.tolist(),
            "effect": self.effect.state_dict(),
            "begun": self._begun.tolist(),
            "seen": self._seen.tolist(),
            "stepped": self._stepped.tolist(),
            "task": self.task.tolist(),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.timeline.load_state_dict(saved["timeline"])
        # The environment inside has its physics and its task in a state of its own.
        self.effect.values[:] = saved["values"]
        self.effect.load_state_dict(saved["effect"])
        self._begun[:] = saved["begun"]
        self._seen[:] = saved["seen"]
        self._stepped[:] = saved["stepped"]
        self.task[:] = saved["task"]
        self._changed[:] = False
        self._up_to_date = False


def _with_room_for_task(space: spaces.Space[Any]) -> spaces.Box:
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or space.dtype.kind != "f":
        raise UsageError(f"reveal_task: expected a Box of floats with one axis, got {space}")
    return spaces.Box(
        np.append(space.low, 0).astype(space.dtype),
        np.append(space.high, np.inf).astype(space.dtype),
        dtype=space.dtype.type,
    )
