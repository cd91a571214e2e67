"""CartPole: a pole on a cart, held upright by pushing the cart left or right.

Source of the dynamics: `gymnasium.envs.classic_control.cartpole` (Barto, Sutton and
Anderson 1983), Euler integration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv

from clrl.envs.classic.base import Array, ClassicVectorEnv, constant
from clrl.envs.physics.classic import CartPoleParameters

_SINGLE = CartPoleEnv()


class CartPoleVectorEnv(ClassicVectorEnv):
    """Vector CartPole-v1; see `ClassicVectorEnv`.

    State: cart position (m) and velocity (m/s), pole angle (rad, 0 is upright) and angular
    velocity (rad/s); this is also the observation. Actions: 0 pushes left, 1 right. Reward 1
    for every step.
    """

    env_id = "CartPole-v1"
    single_env = CartPoleEnv
    state_size = 4
    reset_range = (-0.05, 0.05)
    constants = {
        "x_limit": constant(_SINGLE.x_threshold),
        "theta_limit": constant(_SINGLE.theta_threshold_radians),
        "four_thirds": constant(4.0 / 3.0),
        "direction": np.array([-1.0, 1.0]),  # of the force, by action
    }
    parameters = CartPoleParameters.known

    @staticmethod
    def derived(parameters: Mapping[str, Array]) -> dict[str, Array]:
        """The mass of all, and the pole's mass times its half length."""
        return {
            "total_mass": parameters["masspole"] + parameters["masscart"],
            "polemass_length": parameters["masspole"] * parameters["length"],
        }

    @staticmethod
    def dynamics(
        state: Array, actions: Array, physics: Mapping[str, Array], xp: Any
    ) -> tuple[Array, Array, Array]:
        """See `ClassicVectorEnv.dynamics`."""
        x_dot, theta, theta_dot = state[1], state[2], state[3]
        total_mass, polemass_length = physics["total_mass"], physics["polemass_length"]
        force = physics["direction"][actions] * physics["force_mag"]
        cos, sin = xp.cos(theta), xp.sin(theta)

        push = (force + polemass_length * xp.square(theta_dot) * sin) / total_mass
        theta_acc = (physics["gravity"] * sin - cos * push) / (
            physics["length"]
            * (physics["four_thirds"] - physics["masspole"] * xp.square(cos) / total_mass)
        )
        x_acc = push - polemass_length * theta_acc * cos / total_mass

        new = state + physics["tau"] * xp.array((x_dot, x_acc, theta_dot, theta_acc))
        terminated = xp.abs(new[0]) > physics["x_limit"]
        terminated |= xp.abs(new[2]) > physics["theta_limit"]
        return new, xp.ones(len(force)), terminated

    @staticmethod
    def observe(state: Array, xp: Any) -> Array:
        """The state."""
        return state

    @staticmethod
    def draw(rng: np.random.Generator, low: float, high: float) -> Array:
        """Four numbers between the bounds."""
        return rng.uniform(low, high, 4)
