"""What the vector environments of classic control share: everything but the physics itself.

An environment here is many copies of one of Gymnasium's classic control tasks, its lanes,
stepped together as arrays. It gives what `gymnasium.vector.SyncVectorEnv` gives for the
same seeds and actions, at a small part of the cost, and every lane may have physical
parameters of its own.

The physics is written once, with NumPy's names, for NumPy's arrays and for others that are made
elsewhere, such as on a GPU. Everything around it is NumPy's: what comes in and goes out, random
numbers, episodes.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.utils import maybe_parse_reset_bounds
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.spaces import Discrete
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from clrl.envs.physics import Parameter, parameters_of
from clrl.errors import UsageError

Array = NDArray[Any]


def constant(value: float, dtype: type[np.number[Any]] = np.float64) -> Array:
    """A number as an array without axes, for what is done in every step.

    A Python number is converted anew in every operation, which for a hundred lanes takes as
    long as the operation itself.
    """
    return np.array(value, dtype)


_ONE = constant(1, np.int64)


def default_max_episode_steps(env_id: str) -> int:
    """The time limit that Gymnasium registers for an id, in steps."""
    steps = gym.spec(env_id).max_episode_steps
    if steps is None:
        raise UsageError(f"{env_id}: Gymnasium registers no time limit for it")
    return steps


class ClassicVectorEnv(VectorEnv[NDArray[np.float32], Array, Array], abc.ABC):
    """Many lanes of one classic control task, each with physics of its own.

    A lane is Gymnasium's own environment under its `TimeLimit`: the same arithmetic in the
    same order, and the same random draws, so that a rollout is that of
    `gymnasium.vector.SyncVectorEnv`. What a lane does depends neither on how many others
    there are nor on what they do.

    Args:
        num_envs: number of lanes, n.
        max_episode_steps: the step of an episode that truncates it; what Gymnasium registers
            for the id where not given.
        autoreset_mode: when a lane that ended is reset: `gymnasium.vector.AutoresetMode`, or
            its value (``"NextStep"``, ``"SameStep"``, ``"Disabled"``).
        render_mode: None, as nothing is drawn.
        arrays: what the physics is computed with in place of NumPy: something with those of
            NumPy's names that `dynamics` and `observe` use, with ``zeros``, ``array`` and
            ``asarray``, and with ``asnumpy``, which brings an array back. Its numbers may differ
            in the last bits.

    Attributes:
        env_id: Gymnasium's id of the task.
        single_env: Gymnasium's class for one lane.
        state_size: number of variables in a lane's state, k.
        reset_range: default bounds of what a reset draws.
        constants: fixed numbers of the physics, by name; `dynamics` gets them with the rest.
        parameters: what `set_parameter` can change, by name; the same as of a single
            environment, see `clrl.envs.physics.parameters_of`.
        max_episode_steps: see above.
        autoreset_mode: see above.
        state: float64 [k, n], or float32 where Gymnasium's own is; None before `reset`. An
            array of the kind that the physics is computed with.
        elapsed: steps that each lane's episode has had, int64 [n].

    Raises:
        UsageError: an argument is not what it should be.
    """

    env_id: ClassVar[str]
    single_env: ClassVar[type[gym.Env[Any, Any]]]
    state_size: ClassVar[int]
    reset_range: ClassVar[tuple[float, float]]
    constants: ClassVar[Mapping[str, Array]] = {}
    parameters: ClassVar[Mapping[str, Parameter]]

    def __init__(
        self,
        num_envs: int = 1,
        *,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        arrays: Any = None,
    ) -> None:
        if max_episode_steps is None:
            max_episode_steps = default_max_episode_steps(self.env_id)
        for name, value in (("num_envs", num_envs), ("max_episode_steps", max_episode_steps)):
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"{name}: expected an integer >= 1, got {value!r}")
        modes = [mode.value for mode in AutoresetMode]
        if autoreset_mode not in (*AutoresetMode, *modes):
            raise UsageError(
                f"autoreset_mode: expected one of {', '.join(modes)}, got {autoreset_mode!r}"
            )
        if render_mode is not None:
            raise UsageError(f"render_mode: expected None (nothing is drawn), got {render_mode!r}")

        single = self.single_env()
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self._time_limit = constant(max_episode_steps, np.int64)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {"render_modes": [], "autoreset_mode": self.autoreset_mode}
        self.spec = copy.deepcopy(gym.spec(self.env_id))
        self.spec.max_episode_steps = max_episode_steps
        self.single_observation_space = single.observation_space
        self.observation_space = batch_space(single.observation_space, num_envs)
        self.single_action_space = single.action_space
        self.action_space = batch_space(single.action_space, num_envs)
        self._choices: Array | None = None  # how many actions there are; None: real numbers
        if isinstance(single.action_space, Discrete):
            self._choices = constant(single.action_space.n, np.uint64)

        self._arrays = arrays
        self._default_bounds = self.reset_bounds(None)
        physics = parameters_of(single)
        self._values = {name: np.full(num_envs, physics.get(name)) for name in self.parameters}
        self._physics = self._all_physics()
        self.state: Any = None
        self.elapsed = np.zeros(num_envs, np.int64)
        self._ended = np.zeros(num_envs, np.bool_)  # lanes that await a reset
        seeded = [seeding.np_random() for _ in range(num_envs)]
        self._generators = [generator for generator, _ in seeded]
        self._seeds = [seed for _, seed in seeded]

    # What a task is made of.

    @staticmethod
    @abc.abstractmethod
    def dynamics(
        state: Array, actions: Array, physics: Mapping[str, Array], xp: Any
    ) -> tuple[Array, Array, Array]:
        """One step of every lane, a pure function of arrays.

        Args:
            state: float64 [k, n], or what this function returned.
            actions: int64 [n] or float32 [n, 1].
            physics: the parameters and what is derived from them, by name, each [n]; and
                `constants`.
            xp: NumPy, or what is there in its place.

        Returns:
            The state after the step, float64 or float32 [k, n]; its reward, float64 [n];
            whether it is terminal, bool [n].
        """

    @staticmethod
    @abc.abstractmethod
    def observe(state: Array, xp: Any) -> Array:
        """What an agent sees of a state [k, n]: [observation size, n]; xp as for `dynamics`."""

    @staticmethod
    @abc.abstractmethod
    def draw(rng: np.random.Generator, low: Any, high: Any) -> ArrayLike:
        """One lane's state after a reset [k], drawn with the lane's generator.

        Args:
            rng: the lane's generator.
            low: lower bound, see `reset_bounds`.
            high: upper bound.
        """

    @staticmethod
    def derived(parameters: Mapping[str, Array]) -> dict[str, Array]:
        """What `dynamics` needs besides the parameters and follows from them; each [n]."""
        return {}

    def reset_bounds(self, options: dict[str, Any] | None) -> tuple[Any, Any]:
        """The bounds of what a reset draws.

        Args:
            options: what `reset` was given; here ``low`` and ``high``, numbers.

        Raises:
            ValueError: not numbers, or not in this order.
        """
        return maybe_parse_reset_bounds(options, *self.reset_range)

    @property
    def xp(self) -> Any:
        """What the physics is computed with: NumPy, or what is there in its place."""
        return np if self._arrays is None else self._arrays

    # Gymnasium's interface.

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The lanes' generators."""
        return tuple(self._generators)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The lanes' seeds; -1 where the generator came with `load_state_dict`."""
        return tuple(self._seeds)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start new episodes.

        Args:
            seed: an integer (lane i takes seed + i), one integer for each lane, or None;
                where None, the lane's generator goes on.
            options: see `reset_bounds`, for this reset alone; and ``reset_mask``, bool [n],
                the lanes to reset where not all.

        Returns:
            Observations, float32 [n, observation size]; an empty dict.

        Raises:
            ValueError: an option is out of range, or the number of seeds is not n.
            TypeError: ``reset_mask`` is not a boolean array.
            gymnasium.error.Error: a seed is not an integer >= 0.
            gymnasium.error.ResetNeeded: the very first reset is not of all lanes.
        """
        n = self.num_envs
        if seed is None:
            seed = [None] * n
        elif isinstance(seed, int):
            seed = [seed + lane for lane in range(n)]
        if len(seed) != n:
            raise ValueError(f"seed: expected {n} seeds, got {len(seed)}")
        mask = np.ones(n, np.bool_)
        if options is not None and "reset_mask" in options:
            mask = _checked_mask(options["reset_mask"], n)
            options = {key: value for key, value in options.items() if key != "reset_mask"}
        bounds = self.reset_bounds(options)
        if self.state is None and not mask.all():
            raise ResetNeeded("reset_mask: the first reset is of all lanes")

        lanes = mask.nonzero()[0]
        seeded = {i: seeding.np_random(seed[i]) for i in lanes.tolist() if seed[i] is not None}
        for lane, (generator, used) in seeded.items():
            self._generators[lane], self._seeds[lane] = generator, used
        before = self.xp.zeros((self.state_size, n)) if self.state is None else self.state
        self.state = self._started(before, lanes, *bounds)
        self._ended[mask] = False
        return self._observe(self.state), {}

    def step(
        self, actions: Array
    ) -> tuple[NDArray[np.float32], Array, Array, Array, dict[str, Any]]:
        """One step of every lane.

        Args:
            actions: integers [n], or numbers [n, 1] which are taken as float32. Those of
                lanes that are reset in this step have no effect.

        Returns:
            Observations, float32 [n, observation size]; rewards, float64 [n]; terminated and
            truncated, bool [n]; infos: with `AutoresetMode.SAME_STEP` the ``final_obs`` and
            ``final_info`` of lanes that ended, with their masks; else empty.

        Raises:
            gymnasium.error.InvalidAction: shape, type or value of the actions.
            gymnasium.error.ResetNeeded: there was no `reset`, or with
                `AutoresetMode.DISABLED` a lane that ended was not reset.
        """
        if self.state is None:
            raise ResetNeeded("step before reset")
        mode = self.autoreset_mode
        ended = self._ended.nonzero()[0]
        if mode is AutoresetMode.DISABLED and len(ended):
            raise ResetNeeded(f"lanes {ended.tolist()} have ended and were not reset")

        actions, arrays = self._checked_actions(actions), self._arrays
        if arrays is None:
            state, reward, terminated = self.dynamics(self.state, actions, self._physics, np)
        else:
            actions = arrays.asarray(actions)
            state, reward, terminated = self.dynamics(self.state, actions, self._physics, arrays)
            reward, terminated = arrays.asnumpy(reward), arrays.asnumpy(terminated)
        self.elapsed += _ONE
        if len(ended):
            state = self._started(state, ended, *self._default_bounds)
            reward[ended] = 0.0
            terminated[ended] = False
        truncated = self.elapsed >= self._time_limit
        self._ended = terminated | truncated
        self.state = state
        observation = self._observe(state)
        if mode is AutoresetMode.SAME_STEP and np.count_nonzero(self._ended):
            infos = self._final_infos(observation)
            self.state = self._started(state, self._ended.nonzero()[0], *self._default_bounds)
            self._ended = np.zeros(self.num_envs, np.bool_)
            return self._observe(self.state), reward, terminated, truncated, infos
        return observation, reward, terminated, truncated, {}

    # Physics.

    def get_parameter(self, name: str) -> NDArray[np.float64]:
        """A parameter's value in every lane, [n], in the parameter's unit.

        Raises:
            UsageError: no parameter has this name.
        """
        self._check_known(name)
        return self._values[name].copy()

    def set_parameter(self, name: str, lanes: ArrayLike, values: ArrayLike) -> None:
        """Give a parameter values, from the next step on; they survive `reset`.

        Args:
            name: one of `parameters`.
            lanes: which lanes, bool [n] or integers [m].
            values: a number for all of these lanes, or one for each, [m].

        Raises:
            UsageError: an unknown name, no such lanes, or a value out of range.
        """
        self._check_known(name)
        lanes = np.asarray(lanes)
        if lanes.dtype == np.bool_ and lanes.shape == (self.num_envs,):
            lanes = lanes.nonzero()[0]
        elif lanes.dtype.kind not in "iu" or lanes.ndim != 1:
            raise UsageError(
                f"lanes: expected {self.num_envs} booleans or a list of integers, "
                f"got {lanes.dtype} {list(lanes.shape)}"
            )
        if len(lanes) and not 0 <= lanes.min() <= lanes.max() < self.num_envs:
            raise UsageError(
                f"lanes: expected integers from 0 to {self.num_envs - 1}, got {lanes.tolist()}"
            )
        values = np.asarray(values, np.float64)
        if values.shape not in ((), lanes.shape):
            raise UsageError(
                f"{name}: expected one value or {len(lanes)}, got shape {list(values.shape)}"
            )
        if values.size:  # a range holds what lies between two of its values; NaN is its own min
            self.parameters[name].check(values.min())
            self.parameters[name].check(values.max())
        self._values[name][lanes] = values
        self._physics = self._all_physics()

    # What decides the future.

    def state_dict(self) -> dict[str, Any]:
        """All that decides the future: states, episodes, generators, parameters; plain values."""
        return {
            "state": None if self.state is None else self.state.tolist(),
            "elapsed": self.elapsed.tolist(),
            "ended": self._ended.tolist(),
            "generators": [generator.bit_generator.state for generator in self._generators],
            "parameters": {name: values.tolist() for name, values in self._values.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where `state` was taken, in an environment made with the same arguments.

        Raises:
            UsageError: it was taken from another number of lanes.
        """
        if len(state["elapsed"]) != self.num_envs:
            raise UsageError(
                f"state: expected one of {self.num_envs} lanes, got {len(state['elapsed'])}"
            )
        saved = state["state"]
        self.state = None if saved is None else self.xp.asarray(np.array(saved, np.float64))
        self.elapsed = np.array(state["elapsed"], np.int64)
        self._ended = np.array(state["ended"], np.bool_)
        for generator, saved in zip(self._generators, state["generators"], strict=True):
            generator.bit_generator.state = saved
        self._seeds = [-1] * self.num_envs
        self._values = {
            name: np.array(state["parameters"][name], np.float64) for name in self.parameters
        }
        self._physics = self._all_physics()

    # Inside.

    def _all_physics(self) -> dict[str, Array]:
        physics = {**self._values, **self.derived(self._values), **self.constants}
        return {name: self.xp.asarray(value) for name, value in physics.items()}

    def _check_known(self, name: str) -> None:
        if name not in self.parameters:
            known = ", ".join(self.parameters)
            raise UsageError(f"physics: expected one of {known}, got {name!r}")

    def _checked_actions(self, actions: ArrayLike) -> Array:
        """The actions as `dynamics` takes them, if they are actions."""
        given = np.asarray(actions)
        space = self.action_space
        kinds = "iuf" if self._choices is None else "iu"
        if given.shape != space.shape or given.dtype.kind not in kinds:
            raise InvalidAction(
                f"actions: expected {space.dtype} of shape {space.shape}, "
                f"got {given.dtype} of shape {given.shape}"
            )
        # As an unsigned number, one below 0 is very large.
        if self._choices is not None and np.count_nonzero(given.astype(np.uint64) >= self._choices):
            raise InvalidAction(
                f"actions: expected integers from 0 to {self._choices - 1}, "
                f"got {given.min()} to {given.max()}"
            )
        return given.astype(space.dtype, copy=False)

    def _started(self, state: Array, lanes: Array, low: Any, high: Any) -> Array:
        """A state in which some lanes begin an episode."""
        arrays = self._arrays
        if arrays is None:  # one by one takes less time where lanes are few
            state = state.astype(np.float64)
            for lane in lanes.tolist():
                state[:, lane] = self.draw(self._generators[lane], low, high)
        else:
            drawn = [self.draw(self._generators[lane], low, high) for lane in lanes.tolist()]
            state = arrays.array(state, arrays.float64)
            state[:, arrays.asarray(lanes)] = arrays.asarray(np.array(drawn, np.float64).T)
        self.elapsed[lanes] = 0
        return state

    def _observe(self, state: Array) -> NDArray[np.float32]:
        """Observations of the current lanes; `elapsed` tells which have just begun."""
        return self._rows(self.observe(state, self.xp))

    def _rows(self, columns: Array) -> NDArray[np.float32]:
        """[observation size, n] to what an agent gets, a new array [n, observation size]."""
        if self._arrays is not None:
            columns = self._arrays.asnumpy(columns)
        return columns.T.astype(np.float32, order="C")

    def _final_infos(self, observation: NDArray[np.float32]) -> dict[str, Any]:
        """The infos of a step in which lanes ended, as `SyncVectorEnv` has them."""
        final = np.full(self.num_envs, None, dtype=object)
        for lane in self._ended.nonzero()[0]:
            final[lane] = observation[lane]
        return {
            "final_obs": final,
            "_final_obs": self._ended.copy(),
            "final_info": {},  # a lane's own info is empty
            "_final_info": self._ended.copy(),
        }


def _checked_mask(mask: Any, n: int) -> NDArray[np.bool_]:
    """``reset_mask`` if it is one."""
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise TypeError(f"reset_mask: expected a boolean array, got {mask!r}")
    if mask.shape != (n,):
        raise ValueError(f"reset_mask: expected shape [{n}], got {list(mask.shape)}")
    if not mask.any():
        raise ValueError("reset_mask: expected at least one lane to reset, got none")
    return mask
