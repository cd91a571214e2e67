"""Gymnasium's MuJoCo runners, many at a time, with everything but the physics as arrays.

MuJoCo itself steps every lane on its own: `mj_step` on the lane's own model and data, as in the
environment itself, so that the physics is the same to the bit. What Gymnasium does around it in
Python (observations, rewards, ends of episodes, infos) is done here for all lanes at once.
"""

from __future__ import annotations

import abc
import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.error import InvalidAction
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

from clrl.errors import UsageError

Array = NDArray[Any]

MUJOCO_IDS = ("Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Walker2d-v5")
"""Gymnasium's ids of the environments that `MujocoVectorEnv` takes."""


class MujocoVectorEnv(SyncVectorEnv):
    """Ants, HalfCheetahs, Hoppers or Walker2ds (v5), stepped faster than one by one.

    What it gives is to the bit what `gymnasium.vector.SyncVectorEnv` gives for the same lanes,
    seeds and actions. The lanes are whole environments, in `envs`: they can be reset, stepped and
    given other physics there, and what a lane does does not depend on the others. All options
    of Gymnasium's classes are followed; they, frame skip and time step are read when
    this is made and at `set_attr`.

    Contact forces (``data.cfrc_ext``), which Gymnasium computes after every step, are computed
    only where observation or reward contain them: in Ant, unless they are neither observed nor
    charged for.

    With `AutoresetMode.SAME_STEP` a step is `SyncVectorEnv`'s, and no faster.

    Args:
        env_fns: make the lanes: bare environments, or `TimeLimit` directly around them; all of
            one class, with the same model and options.
        autoreset_mode: see `gymnasium.vector.AutoresetMode`.

    Raises:
        UsageError: the lanes are others, or not alike.
    """

    def __init__(
        self,
        env_fns: Sequence[Callable[[], gym.Env[Any, Any]]],
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        super().__init__(env_fns, autoreset_mode=autoreset_mode)
        self._prepare()

    def _prepare(self) -> None:
        """Look into the lanes: their tasks, and views of their memory."""
        envs = [_bare(env) for env in self.envs]
        self._task = _TASKS[_name(envs[0])](envs)
        self._limits: list[Any] = [env if isinstance(env, TimeLimit) else None for env in self.envs]
        self._controls = [env.data.ctrl for env in envs]
        self._physics = [_physics(env, self._task.needs_forces) for env in envs]

    def set_attr(self, name: str, values: list[Any] | tuple[Any, ...] | Any) -> None:
        """Set an attribute of the lanes; see `SyncVectorEnv.set_attr`.

        Raises:
            UsageError: the lanes are then no longer alike.
        """
        super().set_attr(name, values)
        self._prepare()

    def __getstate__(self) -> dict[str, Any]:
        """Without what points into the lanes' memory, which a copy has elsewhere."""
        inside = ("_task", "_limits", "_controls", "_physics")
        return {name: value for name, value in vars(self).items() if name not in inside}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy: look into its own lanes."""
        vars(self).update(state)
        self._prepare()

    def step(self, actions: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One step of every lane; with next-step autoreset, ended lanes are reset instead.

        Args:
            actions: numbers [n, action size]; those of lanes that are reset have no effect.

        Returns:
            Observations, float64 [n, observation size]; rewards, float64 [n]; terminated and
            truncated, bool [n]; infos, as of `SyncVectorEnv`.

        Raises:
            gymnasium.error.InvalidAction: the actions have another shape.
        """
        mode, ended = self.autoreset_mode, np.count_nonzero(self._autoreset_envs)
        refused = mode is AutoresetMode.DISABLED and ended
        if mode is AutoresetMode.SAME_STEP or refused or ended == self.num_envs:
            return super().step(actions)
        # In memory row by row, a row is summed as it is alone.
        actions = np.ascontiguousarray(actions)
        if actions.shape != self.action_space.shape:
            raise InvalidAction(
                f"actions: expected shape {self.action_space.shape}, got {actions.shape}"
            )

        task = self._task
        before = task.position()
        truncated = np.zeros(self.num_envs, np.bool_)
        reset_keys: set[str] = set()
        lanes = zip(
            self._autoreset_envs.tolist(),
            self._physics,
            self._controls,
            self._limits,
            actions,
            strict=True,
        )
        for lane, (resets, physics, control, limit, action) in enumerate(lanes):
            if resets:
                reset_keys.update(self.envs[lane].reset()[1])
                continue
            control[:] = action
            physics()
            if limit is not None:
                limit._elapsed_steps = elapsed = limit._elapsed_steps + 1
                if elapsed >= limit._max_episode_steps:
                    truncated[lane] = True

        observation, reward, terminated, values = task.outcome(actions, before)
        begun = self._autoreset_envs
        stepped = ~begun
        infos: dict[str, Any] = {}
        for key, value in values.items():
            infos[key], infos[f"_{key}"] = value, stepped.copy()
        if ended:
            reward[begun], terminated[begun] = 0, False
            for key, value in values.items():
                if key in reset_keys:
                    infos[f"_{key}"][:] = True
                else:
                    value[begun] = 0
        self._env_obs = list(observation.copy())
        self._autoreset_envs = terminated | truncated
        return observation, reward, terminated, truncated, infos


class _Task(abc.ABC):
    """What one of Gymnasium's classes does besides the physics, for all lanes.

    The arithmetic is that of the class, in its order and number types: where there is a single
    number there, there is an array here, with an entry a lane.

    Args:
        envs: the bare environments.

    Attributes:
        options: names of the attributes in which all lanes have to agree.
        needs_forces: contact forces are observed or charged for.
    """

    options: ClassVar[tuple[str, ...]] = (
        "_forward_reward_weight",
        "_ctrl_cost_weight",
        "_exclude_current_positions_from_observation",
    )
    needs_forces = False

    def __init__(self, envs: list[Any]) -> None:
        self._check_alike(envs)
        self.env: Any = envs[0]
        self.nq = int(self.env.model.nq)
        self.dt = np.array([env.dt for env in envs])
        self._states = [part for env in envs for part in (env.data.qpos, env.data.qvel)]

    def _check_alike(self, envs: list[Any]) -> None:
        first = envs[0]
        for lane, env in enumerate(envs):
            if type(env) is not type(first) or env.model.signature != first.model.signature:
                raise UsageError(
                    f"MujocoVectorEnv: expected lanes with the same model, got {first} in lane 0 "
                    f"and {env} in lane {lane}"
                )
            for name in self.options:
                # As text: 1 and 1.0 count as different, as their products are.
                here, there = repr(getattr(env, name)), repr(getattr(first, name))
                if here != there:
                    raise UsageError(
                        f"MujocoVectorEnv: expected lanes with the same options, got "
                        f"{name[1:]} {there} in lane 0 and {here} in lane {lane}"
                    )

    @abc.abstractmethod
    def position(self) -> Array:
        """Where the lanes are now, as far as their speed is measured by it."""

    @abc.abstractmethod
    def outcome(
        self, actions: Array, before: Array
    ) -> tuple[Array, Array, Array, dict[str, Array]]:
        """What a step comes to.

        Args:
            actions: the actions taken [n, nu].
            before: `position` before the physics.

        Returns:
            Observations, float64 [n, size]; rewards, float64 [n]; whether episodes end, bool [n];
            infos [n]. All are new arrays.
        """

    def state(self) -> Array:
        """``qpos`` and ``qvel``, float64 [n, nq + nv], a new array."""
        return _rows(self._states, len(self.dt))

    def control_cost(self, actions: Array) -> Array:
        """What the actions cost [n]."""
        cost: Array = self.env._ctrl_cost_weight * np.square(actions).sum(axis=1)
        return cost


class _HalfCheetah(_Task):
    def __init__(self, envs: list[Any]) -> None:
        super().__init__(envs)
        self._x = [env.data.qpos[:1] for env in envs]

    def position(self) -> Array:
        return np.concatenate(self._x)

    def motion(self, state: Array, before: Array) -> tuple[Array, Array, Array]:
        """Position, velocity and reward for it, each [n]."""
        x = state[:, 0].copy()
        velocity = (x - before) / self.dt
        return x, velocity, self.env._forward_reward_weight * velocity

    def outcome(
        self, actions: Array, before: Array
    ) -> tuple[Array, Array, Array, dict[str, Array]]:
        state = self.state()
        x, velocity, forward = self.motion(state, before)
        cost = self.control_cost(actions)
        infos = {
            "x_position": x,
            "x_velocity": velocity,
            "reward_forward": forward,
            "reward_ctrl": -cost,
        }
        skip = 1 if self.env._exclude_current_positions_from_observation else 0
        return state[:, skip:].copy(), forward - cost, np.zeros(len(x), np.bool_), infos


class _Walker2d(_HalfCheetah):
    options = (
        *_Task.options,
        "_healthy_reward",
        "_terminate_when_unhealthy",
        "_healthy_z_range",
        "_healthy_angle_range",
    )

    def __init__(self, envs: list[Any]) -> None:
        super().__init__(envs)
        self._z_at_first = np.array([env.init_qpos[1] for env in envs])

    def healthy(self, state: Array) -> Array:
        """Where the body is upright [n]."""
        z, angle = state[:, 1], state[:, 2]
        min_z, max_z = self.env._healthy_z_range
        min_angle, max_angle = self.env._healthy_angle_range
        upright: Array = (min_z < z) & (z < max_z) & (min_angle < angle) & (angle < max_angle)
        return upright

    def outcome(
        self, actions: Array, before: Array
    ) -> tuple[Array, Array, Array, dict[str, Array]]:
        state = self.state()
        x, velocity, forward = self.motion(state, before)
        healthy = self.healthy(state)
        survive = healthy * self.env._healthy_reward
        cost = self.control_cost(actions)
        infos = {
            "x_position": x,
            "z_distance_from_origin": state[:, 1] - self._z_at_first,
            "x_velocity": velocity,
            "reward_forward": forward,
            "reward_ctrl": -cost,
            "reward_survive": survive,
        }
        skip = 1 if self.env._exclude_current_positions_from_observation else 0
        observation = state[:, skip:].copy()
        speeds = observation[:, self.nq - skip :]
        np.clip(speeds, -10, 10, out=speeds)
        terminated = ~healthy & bool(self.env._terminate_when_unhealthy)
        return observation, forward + survive - cost, terminated, infos


class _Hopper(_Walker2d):
    options = (*_Walker2d.options, "_healthy_state_range")

    def healthy(self, state: Array) -> Array:
        low, high = self.env._healthy_state_range
        rest = state[:, 2:]
        sane: Array = ((low < rest) & (rest < high)).all(axis=1)
        return super().healthy(state) & sane


class _Ant(_Task):
    options = (
        *_Task.options,
        "_contact_cost_weight",
        "_healthy_reward",
        "_main_body",
        "_terminate_when_unhealthy",
        "_healthy_z_range",
        "_contact_force_range",
        "_include_cfrc_ext_in_observation",
    )

    def __init__(self, envs: list[Any]) -> None:
        super().__init__(envs)
        # It dates from within the last step, and so does Gymnasium's.
        body = self.env.model.body(self.env._main_body).id
        self._xy = [env.data.xpos[body, :2] for env in envs]
        self._forces = [env.data.cfrc_ext.reshape(-1) for env in envs]
        self._observes_forces = bool(self.env._include_cfrc_ext_in_observation)
        self.needs_forces = self._observes_forces or self.env._contact_cost_weight != 0

    def position(self) -> Array:
        return _rows(self._xy, len(self.dt))

    def outcome(
        self, actions: Array, before: Array
    ) -> tuple[Array, Array, Array, dict[str, Array]]:
        env, state = self.env, self.state()
        velocity = (self.position() - before) / self.dt[:, None]
        x_velocity, y_velocity = velocity.T.copy()
        forward = x_velocity * env._forward_reward_weight
        low, high = env._healthy_z_range
        z = state[:, 2]
        healthy = np.isfinite(state).all(axis=1) & (low <= z) & (z <= high)
        survive = healthy * env._healthy_reward
        cost = self.control_cost(actions)
        forces = np.zeros((len(state), 1))
        if self.needs_forces:
            forces = np.clip(_rows(self._forces, len(state)), *env._contact_force_range)
        contact_cost = env._contact_cost_weight * np.square(forces).sum(axis=1)
        xy = state[:, :2].copy()
        infos = {
            "x_position": xy[:, 0].copy(),
            "y_position": xy[:, 1].copy(),
            # A dot product, which may round otherwise than a sum of squares.
            "distance_from_origin": np.sqrt(np.vecdot(xy, xy)),
            "x_velocity": x_velocity,
            "y_velocity": y_velocity,
            "reward_forward": forward,
            "reward_ctrl": -cost,
            "reward_contact": -contact_cost,
            "reward_survive": survive,
        }
        skip = 2 if env._exclude_current_positions_from_observation else 0
        seen = [state[:, skip:]]
        if self._observes_forces:
            seen.append(forces[:, 6:])  # without the world's
        terminated = ~healthy & bool(env._terminate_when_unhealthy)
        reward = forward + survive - (cost + contact_cost)
        return np.concatenate(seen, axis=1), reward, terminated, infos


# By name: MuJoCo is loaded by those who use it alone.
_GYMNASIUM = "gymnasium.envs.mujoco"
_TASKS: dict[str, type[_Task]] = {
    f"{_GYMNASIUM}.ant_v5.AntEnv": _Ant,
    f"{_GYMNASIUM}.half_cheetah_v5.HalfCheetahEnv": _HalfCheetah,
    f"{_GYMNASIUM}.hopper_v5.HopperEnv": _Hopper,
    f"{_GYMNASIUM}.walker2d_v5.Walker2dEnv": _Walker2d,
}


def _name(env: Any) -> str:
    return f"{type(env).__module__}.{type(env).__qualname__}"


def _bare(env: gym.Env[Any, Any]) -> Any:
    """The environment of a lane, without its time limit."""
    bare: Any = env.env if type(env) is TimeLimit else env
    if _name(bare) not in _TASKS:
        raise UsageError(
            f"MujocoVectorEnv: expected {', '.join(MUJOCO_IDS)}, bare or in a TimeLimit and "
            f"nothing else, got {env}"
        )
    if bare.render_mode == "human":
        raise UsageError("MujocoVectorEnv: render_mode: expected another than 'human'")
    return bare


def _physics(env: Any, forces: bool) -> Callable[[], None]:
    """What steps a lane's simulation, and where asked for computes its contact forces."""
    mujoco = importlib.import_module("mujoco")
    step = partial(mujoco.mj_step, env.model, env.data, env.frame_skip)
    if not forces:
        return step

    def step_and_compute_forces() -> None:
        step()
        mujoco.mj_rnePostConstraint(env.model, env.data)

    return step_and_compute_forces


def _rows(parts: list[Array], n: int) -> Array:
    """Vectors one after the other, in n rows of the same length; a new array."""
    return np.concatenate(parts).reshape(n, -1)
