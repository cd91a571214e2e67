"""Where experience comes from, and how it changes. No torch here.

Importing this registers the benchmarks with Gymnasium::

    import clrl.envs
    import gymnasium

    env = gymnasium.make("clrl/OffsetCartPole-v0")

Any other environment becomes non-stationary with a change and a schedule::

    from clrl.envs import EverySteps, NonStationary, PermuteObservation, RandomPermutation, Schedule

    env = NonStationary(
        gymnasium.make("CartPole-v1"),
        PermuteObservation(),
        Schedule(EverySteps(10_000), RandomPermutation()),
    )
"""

from clrl.envs.changes import (
    DelayActions,
    FlipReward,
    MaskObservation,
    NoisyActions,
    NoisyObservation,
    OffsetObservation,
    PermuteActions,
    PermuteObservation,
    Physics,
    RotateObservation,
    ScaleObservation,
    ScaleReward,
    ShiftReward,
    SwitchTask,
)
from clrl.envs.control import Benchmark, Changing
from clrl.envs.episode_log import EpisodeLog
from clrl.envs.nonstationary import NonStationary, NonStationaryVector
from clrl.envs.physics import Parameter
from clrl.envs.registration import register
from clrl.envs.schedules import (
    AtSteps,
    Choice,
    Continuously,
    Cycle,
    EveryEpisodes,
    EverySteps,
    LinearDrift,
    LogUniform,
    Never,
    Normal,
    Planned,
    Poisson,
    RandomMask,
    RandomPermutation,
    RandomWalk,
    Schedule,
    SinusoidalDrift,
    Uniform,
)
from clrl.envs.state import load_state_dict, state_dict
from clrl.envs.streams.base import Stream
from clrl.envs.tasks import Tasks
from clrl.seeding import derived_seed, numpy_generator, seed_sequence

__all__ = [
    "AtSteps",
    "Benchmark",
    "Changing",
    "Choice",
    "Continuously",
    "Cycle",
    "DelayActions",
    "EpisodeLog",
    "EveryEpisodes",
    "EverySteps",
    "FlipReward",
    "LinearDrift",
    "LogUniform",
    "MaskObservation",
    "Never",
    "NoisyActions",
    "NoisyObservation",
    "NonStationary",
    "NonStationaryVector",
    "Normal",
    "OffsetObservation",
    "Parameter",
    "PermuteActions",
    "PermuteObservation",
    "Physics",
    "Planned",
    "Poisson",
    "RandomMask",
    "RandomPermutation",
    "RandomWalk",
    "RotateObservation",
    "ScaleObservation",
    "ScaleReward",
    "Schedule",
    "ShiftReward",
    "SinusoidalDrift",
    "Stream",
    "SwitchTask",
    "Tasks",
    "Uniform",
    "derived_seed",
    "load_state_dict",
    "numpy_generator",
    "register",
    "seed_sequence",
    "state_dict",
]

register()
