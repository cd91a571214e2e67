"""MountainCar and MountainCarContinuous: a weak car that must swing up out of a valley.

Source of the dynamics: `gymnasium.envs.classic_control.mountain_car` and
`continuous_mountain_car` (Moore 1990).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.envs.classic_control import Continuous_MountainCarEnv, MountainCarEnv

from clrl.envs.classic.base import Array, ClassicVectorEnv, constant
from clrl.envs.physics.classic import MountainCarContinuousParameters, MountainCarParameters

_SINGLE = MountainCarEnv()
_CONTINUOUS = Continuous_MountainCarEnv()


class _Car(ClassicVectorEnv):
    """What the two have in common: the state, which is seen as it is, and its reset."""

    state_size = 2
    reset_range = (-0.6, -0.4)

    @staticmethod
    def observe(state: Array, xp: Any) -> Array:
        """The state."""
        return state

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
    constants = {
        name: constant(getattr(_SINGLE, name))
        for name in ("min_position", "max_position", "goal_position", "goal_velocity")
    }
    parameters = MountainCarParameters.known

    @staticmethod
    def dynamics(
        state: Array, actions: Array, physics: Mapping[str, Array], xp: Any
    ) -> tuple[Array, Array, Array]:
        """See `ClassicVectorEnv.dynamics`."""
        position, velocity = state[0], state[1]
        limit = physics["max_speed"]
        push = (actions - 1) * physics["force"]
        velocity = velocity + (push - xp.cos(3 * position) * physics["gravity"])
        velocity = xp.minimum(xp.maximum(velocity, -limit), limit)
        position = xp.maximum(position + velocity, physics["min_position"])
        position = xp.minimum(position, physics["max_position"])
        at_wall = (position == physics["min_position"]) & (velocity < 0)
        velocity = xp.where(at_wall, 0.0, velocity)
        terminated = position >= physics["goal_position"]
        terminated &= velocity >= physics["goal_velocity"]
        return xp.array((position, velocity)), xp.full(len(push), -1.0), terminated


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
    constants = {  # Gymnasium's numbers, in the types that they take on there
        **{
            name: constant(getattr(_CONTINUOUS, name), np.float32)
            for name in (
                "min_action",
                "max_action",
                "min_position",
                "max_position",
                "goal_position",
                "goal_velocity",
            )
        },
        "three": constant(3, np.float32),
        "huge": constant(1e30, np.float32),
        "gravity": constant(0.0025),
        "prize": constant(100.0),
        "cost": constant(0.1),
    }
    parameters = MountainCarContinuousParameters.known

    @staticmethod
    def derived(parameters: Mapping[str, Array]) -> dict[str, Array]:
        """The parameters in float32, in which they meet an action or a velocity."""
        power, max_speed = (parameters[n].astype(np.float32) for n in ("power", "max_speed"))
        return {"power": power, "max_speed": max_speed, "min_speed": -max_speed}

    @staticmethod
    def dynamics(
        state: Array, actions: Array, physics: Mapping[str, Array], xp: Any
    ) -> tuple[Array, Array, Array]:
        """See `ClassicVectorEnv.dynamics`."""
        action, position, velocity = actions[:, 0], state[0], state[1]
        force = xp.minimum(xp.maximum(action, physics["min_action"]), physics["max_action"])
        angle = physics["three"] * position
        begun = state.dtype == xp.float64
        if begun:
            # Some lanes have just begun. The numbers of the others are float32 all the same.
            rounded = xp.asarray(position, xp.float32)
            angle = xp.where(rounded == position, physics["three"] * rounded, angle)
            velocity = xp.asarray(velocity, xp.float32)
        slope = physics["gravity"] * xp.cos(xp.asarray(angle, xp.float64))

        velocity = velocity + (force * physics["power"] - xp.asarray(slope, xp.float32))
        velocity = xp.minimum(xp.maximum(velocity, physics["min_speed"]), physics["max_speed"])
        position = position + velocity
        if begun:
            position = xp.asarray(position, xp.float32)
        position = xp.minimum(
            xp.maximum(position, physics["min_position"]), physics["max_position"]
        )
        # At the wall a velocity is at least 0; elsewhere this bound is far below any.
        velocity = xp.maximum(velocity, (physics["min_position"] - position) * physics["huge"])
        terminated = position >= physics["goal_position"]
        terminated &= velocity >= physics["goal_velocity"]
        cost = physics["cost"] * xp.square(xp.asarray(action, xp.float64))
        return xp.array((position, velocity)), physics["prize"] * terminated - cost, terminated
