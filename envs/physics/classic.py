"""The physics of Gymnasium's classic-control environments: attributes of the environment.

Names, units and built-in values are those of ``gymnasium.envs.classic_control``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym

from clrl.envs.physics.base import Parameter, Parameters, by_name

# The observation space ends there, and observations stay inside their space.
_MOUNTAIN_CAR_SPEED = Parameter(
    "max_speed", "1/step", "fastest that the car can go", high=0.07, positive=True
)


class ClassicParameters(Parameters):
    """Parameters that are attributes of the environment itself.

    Args:
        env: the bare environment.
    """

    attributes: ClassVar[Mapping[str, str]] = {}
    """The attribute of a parameter, where it is not called the same."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._env: Any = env

    def _get(self, name: str) -> float:
        return float(getattr(self._env, self.attributes.get(name, name)))

    def _set(self, name: str, value: float) -> None:
        # On the instance, also where the attribute is the class's: others share the class.
        setattr(self._env, self.attributes.get(name, name), value)


class CartPoleParameters(ClassicParameters):
    """CartPole; the total mass and the pole's mass moment follow."""

    known = by_name(
        Parameter("gravity", "m/s^2", "gravity"),
        Parameter("masscart", "kg", "mass of the cart", positive=True),
        Parameter("masspole", "kg", "mass of the pole", positive=True),
        Parameter("length", "m", "half the pole's length", positive=True),
        Parameter("force_mag", "N", "force of a push"),
        Parameter("tau", "s", "time between two states", positive=True),
    )

    def _set(self, name: str, value: float) -> None:
        super()._set(name, value)
        env = self._env
        env.total_mass = env.masspole + env.masscart
        env.polemass_length = env.masspole * env.length


class MountainCarParameters(ClassicParameters):
    """MountainCar, in its own units: the track is 1.8 long, time goes in steps."""

    known = by_name(
        Parameter("force", "1/step^2", "what the engine adds to the speed in a step"),
        Parameter("gravity", "1/step^2", "what the steepest slope adds to the speed in a step"),
        _MOUNTAIN_CAR_SPEED,
    )


class MountainCarContinuousParameters(ClassicParameters):
    """MountainCarContinuous, in its own units, as MountainCar; its gravity is fixed."""

    known = by_name(
        Parameter("power", "1/step^2", "what the engine at full force adds to the speed in a step"),
        _MOUNTAIN_CAR_SPEED,
    )


class AcrobotParameters(ClassicParameters):
    """Acrobot; its gravity is fixed at 9.8 m/s^2."""

    known = by_name(
        Parameter("link_length_1", "m", "length of the upper link", positive=True),
        Parameter("link_mass_1", "kg", "mass of the upper link", positive=True),
        Parameter("link_mass_2", "kg", "mass of the lower link", positive=True),
        Parameter("link_com_1", "m", "from the upper link's start to its centre of mass"),
        Parameter("link_com_2", "m", "from the lower link's start to its centre of mass"),
        Parameter("link_moi", "kg m^2", "moment of inertia of each link", positive=True),
        Parameter("torque", "factor", "on the torques of the actions, built as -1, 0, 1 N m"),
        Parameter("dt", "s", "time between two states", positive=True),
    )
    attributes = {
        "link_length_1": "LINK_LENGTH_1",
        "link_mass_1": "LINK_MASS_1",
        "link_mass_2": "LINK_MASS_2",
        "link_com_1": "LINK_COM_POS_1",
        "link_com_2": "LINK_COM_POS_2",
        "link_moi": "LINK_MOI",
    }

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._built_torques = tuple(self._env.AVAIL_TORQUE)
        self._torque = 1.0

    def _get(self, name: str) -> float:
        return self._torque if name == "torque" else super()._get(name)

    def _set(self, name: str, value: float) -> None:
        if name == "torque":
            self._torque = value
            self._env.AVAIL_TORQUE = [value * torque for torque in self._built_torques]
        else:
            super()._set(name, value)


class PendulumParameters(ClassicParameters):
    """Pendulum."""

    known = by_name(
        Parameter("gravity", "m/s^2", "gravity"),
        Parameter("mass", "kg", "mass of the pendulum", positive=True),
        Parameter("length", "m", "length of the pendulum", positive=True),
        Parameter("dt", "s", "time between two states", positive=True),
    )
    attributes = {"gravity": "g", "mass": "m", "length": "l"}
