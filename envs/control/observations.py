"""Control tasks whose observations change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clrl.envs.changes import Change, OffsetObservation, PermuteObservation
from clrl.envs.control.base import Benchmark, Env
from clrl.envs.episode_log import EpisodeLog
from clrl.envs.schedules import EverySteps, Normal, RandomPermutation, Schedule
from clrl.options import NonNegativeFloat, PositiveInt


@dataclass(frozen=True)
class _Offset(Benchmark):
    """Observations shifted by a constant.

    Attributes:
        task_length: steps between two changes.
        std: standard deviation of the offsets.
    """

    task_length: PositiveInt = 160_000
    std: NonNegativeFloat = 2.0

    def change(self) -> tuple[Change, Schedule]:
        """A fresh offset for every task but the first."""
        when = EverySteps(self.task_length)
        return OffsetObservation(), Schedule(when, Normal(0, self.std), start="unchanged")


@dataclass(frozen=True)
class OffsetCartPole(_Offset):
    """CartPole whose observations are shifted by a constant, drawn anew for every task.

    To each of the 4 entries (m, m/s, rad, rad/s; float32, unbounded once shifted) a normal number
    of standard deviation 2 is added, the same for the whole task; 0 in the first task. Episodes
    end after 400 steps at the latest.

    Source: the setting of TRAC (Muppidi et al. 2024) and C-CHAIN (Tang et al. 2025): 10 tasks of
    200 iterations of 800 steps. There a task begins with an episode; here the offset changes in
    the middle of one, so that every task of every seed has the same length. They divide rewards
    by 20 for learning; here they are as they are.

    Attributes:
        task_length: steps between two changes.
        std: standard deviation of the offsets.
    """

    base: ClassVar[str] = "CartPole-v1"


@dataclass(frozen=True)
class OffsetAcrobot(_Offset):
    """Acrobot whose observations are shifted by a constant, drawn anew for every task.

    To each of the 6 entries (cosine and sine of two angles, two velocities in rad/s; float32,
    unbounded once shifted) a normal number of standard deviation 2 is added; 0 in the first task.
    Episodes end after 400 steps at the latest.

    Source and deviations: see `OffsetCartPole`.

    Attributes:
        task_length: steps between two changes.
        std: standard deviation of the offsets.
    """

    base: ClassVar[str] = "Acrobot-v1"


@dataclass(frozen=True)
class OffsetMountainCar(_Offset):
    """MountainCar whose observations are shifted by a constant, drawn anew for every task.

    To both entries (position, velocity; float32, unbounded once shifted) a normal number of
    standard deviation 2 is added; 0 in the first task. Episodes end after 400 steps at the latest.

    Source and deviations: see `OffsetCartPole`.

    Attributes:
        task_length: steps between two changes.
        std: standard deviation of the offsets.
    """

    base: ClassVar[str] = "MountainCar-v0"


@dataclass(frozen=True)
class OffsetLunarLander(_Offset):
    """LunarLander whose observations are shifted by a constant, drawn anew for every task.

    To each of the 8 entries (position, velocity, angle, angular velocity, two contacts; float32,
    unbounded once shifted) a normal number of standard deviation 2 is added; 0 in the first task.
    Episodes end after 400 steps at the latest. Needs Box2D.

    Source and deviations: see `OffsetCartPole`.

    Attributes:
        task_length: steps between two changes.
        std: standard deviation of the offsets.
    """

    base: ClassVar[str] = "LunarLander-v3"
    extra: ClassVar[str] = "box2d"

    def make_base(self, render_mode: str | None) -> Env:
        """With a log of the episode, from which the state of Box2D can be had."""
        return EpisodeLog(super().make_base(render_mode))


@dataclass(frozen=True)
class PermutedCartPole(Benchmark):
    """CartPole whose 4 observation entries change places.

    For every task, the first too, a permutation is drawn uniformly from all 24, so that the same
    order may come again. Observations lie within the widest bounds of the four entries.

    Source: the mechanism of permuted MNIST, and of the observation shuffling of Juliani & Ash
    (2024), on CartPole; the task length is ours.

    Attributes:
        task_length: steps between two changes.
    """

    base: ClassVar[str] = "CartPole-v1"
    task_length: PositiveInt = 100_000

    def change(self) -> tuple[Change, Schedule]:
        """A fresh permutation for every task."""
        return _permuted(self.task_length)


@dataclass(frozen=True)
class PermutedHalfCheetah(Benchmark):
    """HalfCheetah whose 17 observation entries change places.

    For every task, the first too, a permutation is drawn uniformly. Needs MuJoCo.

    Source: as for `PermutedCartPole`; the task length is ours.

    Attributes:
        task_length: steps between two changes.
    """

    base: ClassVar[str] = "HalfCheetah-v5"
    extra: ClassVar[str] = "mujoco"
    task_length: PositiveInt = 1_000_000

    def change(self) -> tuple[Change, Schedule]:
        """A fresh permutation for every task."""
        return _permuted(self.task_length)


def _permuted(task_length: int) -> tuple[Change, Schedule]:
    return PermuteObservation(), Schedule(EverySteps(task_length), RandomPermutation())
