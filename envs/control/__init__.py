"""The registered benchmarks: control tasks that change, as ``gymnasium.make`` makes them.

Each class is one benchmark: its fields are its options, which ``gymnasium.make`` takes as keywords.
Besides them all take ``render_mode``, ``reveal_task`` and ``task_seed`` (see `NonStationary`), and
vector versions ``worlds`` (see `NonStationaryVector`). Steps are those of a world. Where nothing
else is said, actions, rewards, ends of episodes and units are those of the Gymnasium environment
named.
"""

from clrl.envs.control.base import Benchmark
from clrl.envs.control.making import BENCHMARKS, make, make_vector, single_of, vector_of
from clrl.envs.control.observations import (
    OffsetAcrobot,
    OffsetCartPole,
    OffsetLunarLander,
    OffsetMountainCar,
    PermutedCartPole,
    PermutedHalfCheetah,
)
from clrl.envs.control.physics import (
    ActuatorAnt,
    ActuatorHalfCheetah,
    DriftingCartPole,
    GravityAnt,
    GravityHalfCheetah,
    SlipperyAnt,
    SlipperyHalfCheetah,
    SlipperyWalker2d,
    SwitchingCartPole,
)
from clrl.envs.control.registered import Changing, Stationary
from clrl.envs.control.tasks import ClassicControlCycle

__all__ = [
    "BENCHMARKS",
    "ActuatorAnt",
    "ActuatorHalfCheetah",
    "Benchmark",
    "Changing",
    "ClassicControlCycle",
    "DriftingCartPole",
    "GravityAnt",
    "GravityHalfCheetah",
    "OffsetAcrobot",
    "OffsetCartPole",
    "OffsetLunarLander",
    "OffsetMountainCar",
    "PermutedCartPole",
    "PermutedHalfCheetah",
    "SlipperyAnt",
    "SlipperyHalfCheetah",
    "SlipperyWalker2d",
    "Stationary",
    "SwitchingCartPole",
    "make",
    "make_vector",
    "single_of",
    "vector_of",
]
