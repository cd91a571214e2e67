"""The physics of Gymnasium's LunarLander."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym

from clrl.envs.physics.base import Parameter, Parameters, by_name


class LunarLanderParameters(Parameters):
    """Gravity and wind of a LunarLander.

    Where the environment was made without wind, the first value that wind or turbulence is
    given turns the wind on, even a 0; until then both are 0. From then on every episode draws
    two more numbers when it begins: where in its pattern the wind starts, and the turbulence.
    A benchmark with wind therefore gives it its first value before the first reset, so that all
    of its episodes draw alike. Turned on within an episode, the wind draws the two at once,
    from the same generator.

    Args:
        env: the bare environment.
    """

    known = by_name(
        # Gymnasium's constructor refuses 0 and 12; 12 is harmless.
        Parameter("gravity", "m/s^2", "gravity, downwards", high=12.0, positive=True),
        Parameter("wind_power", "N", "largest force of the wind"),
        Parameter("turbulence_power", "N m", "largest torque of the wind"),
    )

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._env: Any = env

    def state_dict(self) -> dict[str, float]:
        """The values; without those of the wind while it is off."""
        names = self.known if self._env.enable_wind else ("gravity",)
        return {name: self._get(name) for name in names}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take over the values; without wind among them, it is turned off."""
        self._env.enable_wind = self._env.enable_wind and "wind_power" in state
        super().load_state_dict(state)

    def _get(self, name: str) -> float:
        if name == "gravity":
            return float(-self._env.gravity)
        return float(getattr(self._env, name)) if self._env.enable_wind else 0.0

    def _set(self, name: str, value: float) -> None:
        env = self._env
        if name == "gravity":
            env.gravity = -value  # every reset makes a new world, with this
            env.world.gravity = (0, -value)
            return
        if not env.enable_wind:
            self._turn_wind_on()
        setattr(env, name, value)

    def _turn_wind_on(self) -> None:
        env = self._env
        env.enable_wind = True
        env.wind_power = env.turbulence_power = 0.0
        if env.lander is not None:  # an episode is under way; otherwise reset draws them
            env.wind_idx = env.np_random.integers(-9999, 9999)
            env.torque_idx = env.np_random.integers(-9999, 9999)
