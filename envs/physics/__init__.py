"""Physical parameters of single environments, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym

from clrl.envs.physics.base import Parameter, Parameters
from clrl.envs.physics.classic import (
    AcrobotParameters,
    CartPoleParameters,
    MountainCarContinuousParameters,
    MountainCarParameters,
    PendulumParameters,
)
from clrl.envs.physics.declared import DeclaredParameters, declares
from clrl.envs.physics.lunar_lander import LunarLanderParameters
from clrl.envs.physics.mujoco import MujocoParameters
from clrl.errors import UsageError

__all__ = ["Parameter", "Parameters", "declares", "parameters_of"]

# By the name of the class, so that Box2D and MuJoCo are loaded by those who use them alone.
_FAMILIES: dict[str, Callable[[gym.Env[Any, Any]], Parameters]] = {
    "classic_control.acrobot.AcrobotEnv": AcrobotParameters,
    "classic_control.cartpole.CartPoleEnv": CartPoleParameters,
    "classic_control.continuous_mountain_car.Continuous_MountainCarEnv": (
        MountainCarContinuousParameters
    ),
    "classic_control.mountain_car.MountainCarEnv": MountainCarParameters,
    "classic_control.pendulum.PendulumEnv": PendulumParameters,
    "box2d.lunar_lander.LunarLander": LunarLanderParameters,
    "mujoco.mujoco_env.MujocoEnv": MujocoParameters,
}

# The parameters know what the environment was built with, so there is one object for each
# environment, whoever asks. It is kept by the environment itself: the two refer to each other,
# and a WeakKeyDictionary would keep both alive for ever.
_ATTRIBUTE = "_clrl_physics"


def parameters_of(env: gym.Env[Any, Any]) -> Parameters:
    """The physics of the bare environment inside; the same object each time.

    When it is asked for first, the environment is taken as built: factors are on what it is
    then.

    Args:
        env: a single environment, wrapped or not: one of Gymnasium's classic-control
            environments, LunarLander or MuJoCo environments, a subclass of one, or one that
            declares parameters; see `DeclaredParameters`.

    Raises:
        UsageError: it is none of these.
    """
    base = env.unwrapped
    if _ATTRIBUTE not in vars(base):
        setattr(base, _ATTRIBUTE, _family(base)(base))
    parameters: Parameters = vars(base)[_ATTRIBUTE]
    return parameters


def _family(base: gym.Env[Any, Any]) -> Callable[[gym.Env[Any, Any]], Parameters]:
    if declares(base):
        return DeclaredParameters
    for cls in type(base).__mro__:
        name = f"{cls.__module__}.{cls.__qualname__}".removeprefix("gymnasium.envs.")
        if name in _FAMILIES:
            return _FAMILIES[name]
    raise UsageError(
        "physics: expected one of Gymnasium's classic-control environments, LunarLander, a MuJoCo "
        f"environment, or one with physics_parameters, got {base}"
    )
