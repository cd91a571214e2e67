"""Acrobot: two links, swung up by a torque at the joint between them.

Source of the dynamics: `gymnasium.envs.classic_control.acrobot` (Sutton 1996; the equations
of Sutton and Barto's book), one fourth-order Runge-Kutta step.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import pi
from typing import Any

import numpy as np
from gymnasium.envs.classic_control import AcrobotEnv
from numpy.typing import NDArray

from clrl.envs.classic.base import Array, ClassicVectorEnv
from clrl.envs.physics.classic import AcrobotParameters

_GRAVITY = 9.8  # m/s^2, a number in the midst of Gymnasium's equations


class AcrobotVectorEnv(ClassicVectorEnv):
    """Vector Acrobot-v1; see `ClassicVectorEnv`.

    State: angle of the first link (rad, 0 hangs down), angle of the second relative to the
    first, and their velocities (rad/s). Observation: cosine and sine of the first angle, of
    the second, and the velocities. Actions: 0, 1 and 2 for a torque of -1, 0 and 1 N m.
    Reward -1 for every step that does not reach the goal.
    """

    env_id = "Acrobot-v1"
    single_env = AcrobotEnv
    state_size = 4
    reset_range = (-0.1, 0.1)
    constants = {
        "torques": np.array(AcrobotEnv.AVAIL_TORQUE),
        "max_speeds": np.array([[AcrobotEnv.MAX_VEL_1], [AcrobotEnv.MAX_VEL_2]]),
    }
    parameters = AcrobotParameters.known

    @staticmethod
    def derived(parameters: Mapping[str, Array]) -> dict[str, Array]:
        """The constant parts of the equations of motion."""
        m1, m2 = parameters["link_mass_1"], parameters["link_mass_2"]
        c1, c2 = parameters["link_com_1"], parameters["link_com_2"]
        l1, inertia = parameters["link_length_1"], parameters["link_moi"]
        return {
            "m1_c1_c1": m1 * c1**2,
            "l1_l1_c2_c2": l1**2 + c2**2,
            "c2_c2": c2**2,
            "l1_c2": l1 * c2,
            "l1_c2_2": 2 * l1 * c2,
            "m2_l1_c2": m2 * l1 * c2,
            "m2_l1_c2_2": 2 * m2 * l1 * c2,
            "weight_1": (m1 * c1 + m2 * l1) * _GRAVITY,
            "weight_2": m2 * c2 * _GRAVITY,
            "inertia_2": m2 * c2**2 + inertia,
        }

    @staticmethod
    def dynamics(
        state: Array, actions: Array, physics: Mapping[str, Array], xp: Any
    ) -> tuple[Array, Array, Array]:
        """See `ClassicVectorEnv.dynamics`."""
        torque = physics["torques"][actions] * physics["torque"]
        dt = physics["dt"]
        half = dt / 2.0
        k1 = _slope(state, torque, physics, xp)
        k2 = _slope(state + half * k1, torque, physics, xp)
        k3 = _slope(state + half * k2, torque, physics, xp)
        k4 = _slope(state + dt * k3, torque, physics, xp)
        new = state + dt / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)

        angles = new[:2] - 2 * pi * xp.rint(new[:2] / (2 * pi))
        limits = physics["max_speeds"]
        speeds = xp.minimum(xp.maximum(new[2:], -limits), limits)
        terminated = -xp.cos(angles[0]) - xp.cos(angles[1] + angles[0]) > 1.0
        reward = xp.asarray(terminated, xp.float64) - 1.0
        return xp.concatenate((angles, speeds)), reward, terminated

    @staticmethod
    def observe(state: Array, xp: Any) -> Array:
        """Cosine and sine of both angles, and their velocities."""
        cos, sin = xp.cos(state[:2]), xp.sin(state[:2])
        seen: Array = xp.array((cos[0], sin[0], cos[1], sin[1], state[2], state[3]))
        return seen

    @staticmethod
    def draw(rng: np.random.Generator, low: float, high: float) -> NDArray[np.float32]:
        """Four numbers between the bounds, which Gymnasium rounds to float32."""
        return rng.uniform(low, high, 4).astype(np.float32)

    def _observe(self, state: Array) -> NDArray[np.float32]:
        observation = super()._observe(state)
        begun = (self.elapsed == 0).nonzero()[0]
        if len(begun):  # Gymnasium takes the cosines of a float32 state in float32
            xp = self.xp
            first = xp.asarray(state[:, xp.asarray(begun)], xp.float32)
            observation[begun] = self._rows(self.observe(first, xp))
        return observation


def _slope(state: Array, torque: Array, physics: Mapping[str, Array], xp: Any) -> Array:
    """The state's derivative by time, [4, n].

    d1, d2, phi1 and phi2 are those of Sutton and Barto's book.
    """
    theta1, theta2, dtheta1, dtheta2 = state
    inertia, m2 = physics["link_moi"], physics["link_mass_2"]
    coupling = physics["m2_l1_c2"]
    cos, sin = xp.cos(theta2), xp.sin(theta2)
    d1 = (
        physics["m1_c1_c1"]
        + m2 * (physics["l1_l1_c2_c2"] + physics["l1_c2_2"] * cos)
        + inertia
        + inertia
    )
    d2 = m2 * (physics["c2_c2"] + physics["l1_c2"] * cos) + inertia
    phi2 = physics["weight_2"] * xp.cos(theta1 + theta2 - pi / 2.0)
    phi1 = (
        -coupling * xp.square(dtheta2) * sin
        - physics["m2_l1_c2_2"] * dtheta2 * dtheta1 * sin
        + physics["weight_1"] * xp.cos(theta1 - pi / 2)
        + phi2
    )
    acceleration2 = (torque + d2 / d1 * phi1 - coupling * xp.square(dtheta1) * sin - phi2) / (
        physics["inertia_2"] - xp.square(d2) / d1
    )
    acceleration1 = -(d2 * acceleration2 + phi1) / d1
    slope: Array = xp.array((dtheta1, dtheta2, acceleration1, acceleration2))
    return slope
