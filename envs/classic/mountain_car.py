"""MountainCar and MountainCarContinuous: a weak car that must swing up out of a valley.

Source of the dynamics: `gymnasium.envs.classic_control.mountain_car` and
`continuous_mountain_car` (Moore 1990).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from gymnasium.envs.classic_control import Continuous_MountainCarEnv, MountainCarEnv
from numpy.typing import NDArray

from clrl.envs.classic.base import Array, ClassicVectorEnv, constant
from clrl.envs.physics.classic import MountainCarContinuousParameters, MountainCarParameters

_SINGLE = MountainCarEnv()
_CONTINUOUS = Continuous_MountainCarEnv()
# Gymnasium's numbers for the continuous one, in the types that they take on there.
_MIN_ACTION, _MAX_ACTION, _MIN_POSITION, _MAX_POSITION, _GOAL_POSITION, _GOAL_VELOCITY = (
    constant(getattr(_CONTINUOUS, name), np.float32)
    for name in (
        "min_action",
        "max_action",
        "min_position",
        "max_position",
        "goal_position",
        "goal_velocity",
    )
)
_THREE, _HUGE = constant(3, np.float32), constant(1e30, np.float32)
_GRAVITY, _PRIZE, _COST = constant(0.0025), constant(100.0), constant(0.1)


class _Car(ClassicVectorEnv):
    """What the two have in common: the state, which is seen as it is, and its reset."""

    state_size = 2
    reset_range = (-0.6, -0.4)

    @staticmethod
    def observe(state: Array) -> NDArray[np.float32]:
        """The state."""
        return state.T.astype(np.float32, order="C")

    @staticmethod
    def draw(rng: np.random.Generator, low: float, high: float) -> tuple[float, float]:
        """A position between the bounds, at rest."""
        return rng.uniform(low, high), 0.0


class MountainCarVectorEnv(_Car):
    """Vector MountainCar-v0; see `ClassicVectorEnv`.

    State and observation: position (the goal is to the right) and velocity (per step).
    Actions: 0 pushes left, 1 not at all, 2 right. Reward -1 for every step.
    """

    env_id = "MountainCar-v0"
    single_env = MountainCarEnv
    parameters = MountainCarParameters.known

    @staticmethod
    def dynamics(
        state: Array, actions: Array, physics: Mapping[str, Array]
    ) -> tuple[Array, Array, Array]:
        """See `ClassicVectorEnv.dynamics`."""
        position, velocity = state[0], state[1]
        limit = physics["max_speed"]
        push = (actions - 1) * physics["force"]
        velocity = velocity + (push - np.cos(3 * position) * physics["gravity"])
        velocity = np.minimum(np.maximum(velocity, -limit), limit)
        position = np.maximum(position + velocity, _SINGLE.min_position)
        position = np.minimum(position, _SINGLE.max_position)
        at_wall = (position == _SINGLE.min_position) & (velocity < 0)
        velocity = np.where(at_wall, 0.0, velocity)
        terminated = (position >= _SINGLE.goal_position) & (velocity >= _SINGLE.goal_velocity)
        return np.array((position, velocity)), np.full(len(push), -1.0), terminated


class MountainCarContinuousVectorEnv(_Car):
    """Vector MountainCarContinuous-v0; see `ClassicVectorEnv`.

    State and observation: position (the goal is to the right) and velocity (per step).
    Action: a force, used within -1 and 1. Reward: 100 at the goal, less a tenth of the square
    of the action as given.

    Gymnasium's state is float64 after a reset and float32 after a step, and its arithmetic
    follows these types and that of the actions, float32. So does this; only an action out of
    its range, which Gymnasium replaces by a float64, may here round otherwise in the last bit.
    """

    env_id = "MountainCarContinuous-v0"
    single_env = Continuous_MountainCarEnv
    parameters = MountainCarContinuousParameters.known

    @staticmethod
    def derived(parameters: Mapping[str, Array]) -> dict[str, Array]:
        """The parameters in float32, in which they meet an action or a velocity."""
        power, max_speed = (parameters[n].astype(np.float32) for n in ("power", "max_speed"))
        return {"power": power, "max_speed": max_speed, "min_speed": -max_speed}

    @staticmethod
    def dynamics(
        state: Array, actions: Array, physics: Mapping[str, Array]
    ) -> tuple[Array, Array, Array]:
        """See `ClassicVectorEnv.dynamics`."""
        action, position, velocity = actions[:, 0], state[0], state[1]
        force = np.minimum(np.maximum(action, _MIN_ACTION), _MAX_ACTION)
        angle = _THREE * position
        if state.dtype == np.float64:
            # Some lanes have just begun. The numbers of the others are float32 all the same.
            rounded = position.astype(np.float32)
            angle = np.where(rounded == position, _THREE * rounded, angle)
            velocity = velocity.astype(np.float32)
        slope = _GRAVITY * np.cos(angle.astype(np.float64))

        velocity = velocity + (force * physics["power"] - slope.astype(np.float32))
        velocity = np.minimum(np.maximum(velocity, physics["min_speed"]), physics["max_speed"])
        position = (position + velocity).astype(np.float32, copy=False)
        position = np.minimum(np.maximum(position, _MIN_POSITION), _MAX_POSITION)
        # At the wall a velocity is at least 0; elsewhere this bound is far below any.
        velocity = np.maximum(velocity, (_MIN_POSITION - position) * _HUGE)
        terminated = (position >= _GOAL_POSITION) & (velocity >= _GOAL_VELOCITY)
        reward = _PRIZE * terminated - _COST * np.square(action.astype(np.float64))
        return np.array((position, velocity)), reward, terminated
