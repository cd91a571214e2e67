"""Pendulum: swing a pendulum up and hold it there, by torque.

Source of the dynamics: `gymnasium.envs.classic_control.pendulum`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.envs.classic_control import PendulumEnv
from gymnasium.envs.classic_control.pendulum import DEFAULT_X, DEFAULT_Y
from gymnasium.envs.classic_control.utils import verify_number_and_cast

from clrl.envs.classic.base import Array, ClassicVectorEnv, constant
from clrl.envs.physics.classic import PendulumParameters

_SINGLE = PendulumEnv()


class PendulumVectorEnv(ClassicVectorEnv):
    """Vector Pendulum-v1; see `ClassicVectorEnv`.

    State: angle (rad, 0 is upright, not wrapped) and angular velocity (rad/s). Observation:
    the angle's cosine and sine, and the angular velocity. Action: torque (N m), used within
    -2 and 2. The reward falls with the squares of the angle, the velocity and the torque used.
    """

    env_id = "Pendulum-v1"
    single_env = PendulumEnv
    state_size = 2
    constants = {
        "min_torque": constant(-_SINGLE.max_torque, np.float32),
        "max_torque": constant(_SINGLE.max_torque, np.float32),
        "min_speed": constant(-_SINGLE.max_speed),
        "max_speed": constant(_SINGLE.max_speed),
    }
    parameters = PendulumParameters.known

    def reset_bounds(
        self, options: dict[str, Any] | None
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        """Bounds of angle and velocity: the two lower ones, the two upper ones.

        Args:
            options: what `reset` was given; here ``x_init`` and ``y_init``, the largest angle
                and the largest angular velocity.

        Raises:
            ValueError: not numbers.
        """
        options = options or {}
        x = verify_number_and_cast(options.get("x_init", DEFAULT_X))
        y = verify_number_and_cast(options.get("y_init", DEFAULT_Y))
        return (-x, -y), (x, y)

    @staticmethod
    def derived(parameters: Mapping[str, Array]) -> dict[str, Array]:
        """Angular acceleration by gravity, and by a torque of 1 (float32, as torques are)."""
        gravity, mass, length = (parameters[name] for name in ("gravity", "mass", "length"))
        return {
            "swing": 3 * gravity / (2 * length),
            "push": (3.0 / (mass * length**2)).astype(np.float32),
        }

    @staticmethod
    def dynamics(
        state: Array, actions: Array, physics: Mapping[str, Array], xp: Any
    ) -> tuple[Array, Array, Array]:
        """See `ClassicVectorEnv.dynamics`."""
        theta, theta_dot = state
        dt = physics["dt"]
        torque = xp.maximum(actions[:, 0], physics["min_torque"])
        torque = xp.minimum(torque, physics["max_torque"])
        angle = (theta + np.pi) % (2 * np.pi) - np.pi
        costs = xp.square(angle) + 0.1 * xp.square(theta_dot) + 0.001 * xp.square(torque)

        acceleration = physics["swing"] * xp.sin(theta) + physics["push"] * torque
        theta_dot = theta_dot + acceleration * dt
        theta_dot = xp.maximum(theta_dot, physics["min_speed"])
        theta_dot = xp.minimum(theta_dot, physics["max_speed"])
        theta = theta + theta_dot * dt
        return xp.array((theta, theta_dot)), -costs, xp.zeros(len(costs), xp.bool_)

    @staticmethod
    def observe(state: Array, xp: Any) -> Array:
        """Cosine and sine of the angle, and the angular velocity."""
        theta, theta_dot = state
        seen: Array = xp.array((xp.cos(theta), xp.sin(theta), theta_dot))
        return seen

    @staticmethod
    def draw(
        rng: np.random.Generator, low: tuple[float, float], high: tuple[float, float]
    ) -> tuple[float, float]:
        """Angle and velocity, each within its bounds."""
        return rng.uniform(low[0], high[0]), rng.uniform(low[1], high[1])
