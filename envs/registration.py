"""Makes the benchmarks known to Gymnasium, as ``clrl/NAME-v0``."""

from __future__ import annotations

import gymnasium as gym

NAMESPACE = "clrl"
# Class in `clrl.envs.control` and time limit in steps; None where the tasks inside have theirs.
_TIME_LIMITS = {
    "OffsetCartPole": 400,
    "OffsetAcrobot": 400,
    "OffsetMountainCar": 400,
    "OffsetLunarLander": 400,
    "PermutedCartPole": 500,
    "PermutedHalfCheetah": 1000,
    "SwitchingCartPole": 500,
    "DriftingCartPole": 500,
    "SlipperyAnt": 1000,
    "SlipperyHalfCheetah": 1000,
    "SlipperyWalker2d": 1000,
    "GravityAnt": 1000,
    "GravityHalfCheetah": 1000,
    "ActuatorAnt": 1000,
    "ActuatorHalfCheetah": 1000,
    "ClassicControlCycle": None,
}


def env_id(name: str) -> str:
    """The id by which ``gymnasium.make`` knows a class of `clrl.envs.control`."""
    return f"{NAMESPACE}/{name}-v0"


def register() -> None:
    """Register every benchmark; once is enough, and importing `clrl.envs` does it."""
    for name, limit in _TIME_LIMITS.items():
        gym.register(
            id=env_id(name),
            entry_point="clrl.envs.control:make",
            vector_entry_point="clrl.envs.control:make_vector",
            max_episode_steps=limit,
            kwargs={"benchmark": name},
        )
