"""Any environment made non-stationary: `NonStationary` for one, `NonStationaryVector` for many.

Both keep this contract:

* A change that is due after n steps comes before the next step, or before the next reset where an
  episode ended with the n-th. The observation that a step returns belongs to the task in which
  the step was taken.
* ``info["task"]`` is the index of the task, from 0, and ``info["task_changed"]`` says whether it
  changed since the call before. Of stacked wrappers, both are about all the changes together.
* The clock of the schedule counts real steps: in a vector environment the step that only resets
  a lane does not count.
* ``reset(seed=...)`` begins everything anew, the sequence of tasks and its clock included; a
  reset without a seed begins an episode and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import EzPickle, RecordConstructorArgs
from gymnasium.vector import (
    AsyncVectorEnv,
    AutoresetMode,
    SyncVectorEnv,
    VectorEnv,
    VectorWrapper,
)
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from clrl.envs import state
from clrl.envs.changes.base import Change, Effect, Host, Lanes
from clrl.envs.schedules import Continuously, Never, Planned, Schedule, Timeline
from clrl.envs.schedules.values import Array
from clrl.envs.tasks import Tasks
from clrl.errors import UsageError

_ALL = slice(None)


class _Saved:
    """What both wrappers do alike: states, and copies that are refused.

    Attributes:
        owned: what this wrapper alone may set, by name.
    """

    _lanes: _Lanes

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


class NonStationary(_Saved, gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
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
        self._inner = _count_inside(env)
        host = Host(env, 1, 1, env.observation_space, env.action_space)
        self._lanes = _Lanes(host, change, schedule, reveal_task, task_seed, self._inner)
        self.observation_space = self._lanes.observation_space
        self.action_space = self._lanes.effect.action_space

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
            action = lanes.effect.action(np.asarray(action)[None], _ALL)[0]
        observation, reward, terminated, truncated, info = self.env.step(action)
        if lanes.rewards:
            reward = lanes.effect.reward(np.asarray([reward], np.float64), _ALL)[0]
        lanes.after_step(_ALL)
        return self._see(observation), float(reward), terminated, truncated, self._inform(info)

    def _see(self, observation: Any) -> Any:
        if not self._lanes.shows:
            return observation
        return self._lanes.observe(np.asarray(observation)[None], _ALL)[0]

    def _inform(self, info: dict[str, Any]) -> dict[str, Any]:
        task, changed = self.task, bool(self._lanes.take_changed(_ALL)[0])
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


class NonStationaryVector(_Saved, VectorWrapper[Any, Any, Any, Any, Any]):
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
        self._inner = _count_inside(env)
        host = Host(
            env, env.num_envs, worlds, env.single_observation_space, env.single_action_space
        )
        self._lanes = _Lanes(host, change, schedule, reveal_task, task_seed, self._inner)
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
        if seed is None:
            seeds: list[int | None] = [None] * n
        else:
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
        live: Lanes = _ALL
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
        return self._lanes.observe(observations, _ALL) if self._lanes.shows else observations

    def _remember(self, observations: Any) -> None:
        """Keep what is shown: a reset of some lanes shows the others' again."""
        if self._lanes.shows:
            self._last = observations.copy()

    def _inform(self, info: dict[str, Any]) -> dict[str, Any]:
        task, changed = self._lanes.task.copy(), self._lanes.take_changed(_ALL)
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


def _inside(env: Any) -> Iterator[NonStationary | NonStationaryVector]:
    """These wrappers further in, those of the first lane or task among them."""
    while True:
        if isinstance(env, (NonStationary, NonStationaryVector)):
            yield env
        if isinstance(env, (gym.Wrapper, VectorWrapper)):
            env = env.env
        elif isinstance(env, (SyncVectorEnv, Tasks)):
            env = env.envs[0]
        else:
            return


def _check_seed(name: str, seed: Any) -> None:
    whole = isinstance(seed, (int, np.integer)) and not isinstance(seed, bool)
    if seed is not None and not (whole and seed >= 0):
        raise UsageError(f"{name}: expected an integer >= 0, got {seed!r}")


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


def _count_inside(env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> int:
    """How many of these wrappers are inside."""
    count = 0
    while isinstance(env, (gym.Wrapper, VectorWrapper)):
        count += isinstance(env, (NonStationary, NonStationaryVector))
        env = env.env
    if isinstance(env, (SyncVectorEnv, Tasks)):
        count += max(_count_inside(one) for one in env.envs)
    return count


class _Lanes:
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
            self._apply(_ALL)

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
