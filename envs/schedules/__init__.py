"""Schedules: when a change comes, and to what."""

from clrl.envs.schedules.schedule import Planned, Schedule, Timeline
from clrl.envs.schedules.values import (
    Choice,
    Cycle,
    Domain,
    LinearDrift,
    LogUniform,
    Normal,
    RandomMask,
    RandomPermutation,
    RandomWalk,
    SinusoidalDrift,
    Uniform,
    Values,
)
from clrl.envs.schedules.when import (
    AtSteps,
    Continuously,
    EveryEpisodes,
    EverySteps,
    Never,
    Poisson,
    When,
)

__all__ = [
    "AtSteps",
    "Choice",
    "Continuously",
    "Cycle",
    "Domain",
    "EveryEpisodes",
    "EverySteps",
    "LinearDrift",
    "LogUniform",
    "Never",
    "Normal",
    "Planned",
    "Poisson",
    "RandomMask",
    "RandomPermutation",
    "RandomWalk",
    "Schedule",
    "SinusoidalDrift",
    "Timeline",
    "Uniform",
    "Values",
    "When",
]
