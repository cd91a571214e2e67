"""Changes: what can change in an environment."""

from clrl.envs.changes.actions import DelayActions, NoisyActions, PermuteActions
from clrl.envs.changes.base import Change, Effect, Host
from clrl.envs.changes.observations import (
    MaskObservation,
    NoisyObservation,
    OffsetObservation,
    PermuteObservation,
    RotateObservation,
    ScaleObservation,
)
from clrl.envs.changes.physics import Physics
from clrl.envs.changes.rewards import FlipReward, ScaleReward, ShiftReward
from clrl.envs.changes.tasks import SwitchTask

__all__ = [
    "Change",
    "DelayActions",
    "Effect",
    "FlipReward",
    "Host",
    "MaskObservation",
    "NoisyActions",
    "NoisyObservation",
    "OffsetObservation",
    "PermuteActions",
    "PermuteObservation",
    "Physics",
    "RotateObservation",
    "ScaleObservation",
    "ScaleReward",
    "ShiftReward",
    "SwitchTask",
]
