"""Vector classic control with per-lane physics, stepped as NumPy arrays."""

from collections.abc import Mapping

from clrl.envs.classic.acrobot import AcrobotVectorEnv
from clrl.envs.classic.base import ClassicVectorEnv, default_max_episode_steps
from clrl.envs.classic.cartpole import CartPoleVectorEnv
from clrl.envs.classic.mountain_car import MountainCarContinuousVectorEnv, MountainCarVectorEnv
from clrl.envs.classic.pendulum import PendulumVectorEnv

__all__ = [
    "VECTOR_ENVS",
    "AcrobotVectorEnv",
    "CartPoleVectorEnv",
    "ClassicVectorEnv",
    "MountainCarContinuousVectorEnv",
    "MountainCarVectorEnv",
    "PendulumVectorEnv",
    "default_max_episode_steps",
]

# Our class, by Gymnasium's id of the task.
VECTOR_ENVS: Mapping[str, type[ClassicVectorEnv]] = {
    cls.env_id: cls
    for cls in (
        CartPoleVectorEnv,
        AcrobotVectorEnv,
        MountainCarVectorEnv,
        MountainCarContinuousVectorEnv,
        PendulumVectorEnv,
    )
}
