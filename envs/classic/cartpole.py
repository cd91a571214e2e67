"""CartPole: a pole on a cart, held upright by pushing the cart left or right.

Source of the dynamics: `gymnasium.envs.classic_control.cartpole` (Barto, Sutton and
Anderson 1983), Euler integration.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv
from numpy.typing import NDArray

from clrl.envs.classic.base import Array, ClassicVectorEnv, constant
from clrl.envs.physics.classic import CartPoleParameters

_SINGLE = CartPoleEnv()
_X_LIMIT, _THETA_LIMIT = constant(_SINGLE.x_threshold), constant(_SINGLE.theta_threshold_radians)
_FOUR_THIRDS = constant(4.0 / 3.0)
_DIRECTION = np.array([-1.0, 1.0])  # of the force, by action


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
        state: Array, actions: Array, physics: Mapping[str, Array]
    ) -> tuple[Array, Array, Array]:
        """See `ClassicVectorEnv.dynamics`."""
        x_dot, theta, theta_dot = state[1], state[2], state[3]
        total_mass, polemass_length = physics["total_mass"], physics["polemass_length"]
        force = _DIRECTION[actions] * physics["force_mag"]
        cos, sin = np.cos(theta), np.sin(theta)

        push = (force + polemass_length * np.square(theta_dot) * sin) / total_mass
        theta_acc = (physics["gravity"] * sin - cos * push) / (
            physics["length"] * (_FOUR_THIRDS - physics["masspole"] * np.square(cos) / total_mass)
        )
        x_acc = push - polemass_length * theta_acc * cos / total_mass

        new = state + physics["tau"] * np.array((x_dot, x_acc, theta_dot, theta_acc))
        terminated = (np.abs(new[0]) > _X_LIMIT) | (np.abs(new[2]) > _THETA_LIMIT)
        return new, np.ones(len(force)), terminated

    @staticmethod
    def observe(state: Array) -> NDArray[np.float32]:
        """The state."""
        return state.T.astype(np.float32, order="C")

    @staticmethod
    def draw(rng: np.random.Generator, low: float, high: float) -> Array:
        """Four numbers between the bounds."""
        return rng.uniform(low, high, 4)
