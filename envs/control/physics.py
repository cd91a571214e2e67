"""Control tasks whose physics change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from clrl.envs.changes import Change, Physics
from clrl.envs.control.base import Benchmark
from clrl.envs.schedules import (
    Continuously,
    EverySteps,
    LogUniform,
    Schedule,
    SinusoidalDrift,
    Uniform,
)
from clrl.options import NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass(frozen=True)
class SwitchingCartPole(Benchmark):
    """CartPole with another pole length and gravity in every task.

    Half the pole's length is drawn uniformly from [0.25, 2] m (0.5 as built), gravity from
    [5, 20] m/s^2 (9.8 as built). The first task is CartPole as built; a change comes at the end
    of an episode.

    Source: ours, after the common practice of varying CartPole's physics between tasks.

    Attributes:
        task_length: least number of steps between two changes.
    """

    base: ClassVar[str] = "CartPole-v1"
    task_length: PositiveInt = 100_000

    def change(self) -> tuple[Change, Schedule]:
        """Length and gravity change together."""
        when = EverySteps(self.task_length, at_episode_end=True)
        to = Uniform(low=[0.25, 5.0], high=[2.0, 20.0])
        return Physics(["length", "gravity"]), Schedule(when, to, start="unchanged")


@dataclass(frozen=True)
class DriftingCartPole(Benchmark):
    """CartPole whose pole length and gravity drift without pause.

    Half the pole's length swings between 0.25 and 1.75 m once a period, gravity between 5 and
    15 m/s^2 once in two thirds of it, so that their combinations vary. There are no tasks: the task
    index stays 0.

    Source: ours, the drifting counterpart of `SwitchingCartPole`.

    Attributes:
        period: steps of one swing of the length.
    """

    base: ClassVar[str] = "CartPole-v1"
    period: PositiveInt = 200_000

    def change(self) -> tuple[Change, Schedule]:
        """Two swings of different periods."""
        to = SinusoidalDrift(
            mean=[1.0, 10.0], amplitude=[0.75, 5.0], period=[self.period, self.period * 2 / 3]
        )
        return Physics(["length", "gravity"]), Schedule(Continuously(), to)


@dataclass(frozen=True)
class _Slippery(Benchmark):
    """Friction that changes.

    Attributes:
        task_length: least number of steps between two changes.
        low: least friction.
        high: greatest friction.
    """

    extra: ClassVar[str] = "mujoco"
    task_length: PositiveInt = 2_000_000
    low: PositiveFloat = 0.02
    high: PositiveFloat = 2.0

    def change(self) -> tuple[Change, Schedule]:
        """A fresh friction for every task."""
        when = EverySteps(self.task_length, at_episode_end=True)
        return Physics("friction"), Schedule(when, LogUniform(self.low, self.high))


@dataclass(frozen=True)
class SlipperyAnt(_Slippery):
    """Ant on ground whose friction changes.

    The sliding friction of every contact is drawn log-uniformly from [0.02, 2] (1 as built), for
    the first task too. A change comes with the first end of an episode after 2 million steps.
    Observations: 27 numbers, positions (m, rad) and velocities, without contact forces. Needs
    MuJoCo.

    Source: Dohare et al. (2024). Deviations: Ant-v5 in place of Ant-v3, whose 84 contact forces
    were always zero with the MuJoCo of the time; here they are left out, and nothing is charged
    for them. Friction is set at floor and body, so that contacts have it.

    Attributes:
        task_length: least number of steps between two changes.
        low: least friction.
        high: greatest friction.
    """

    base: ClassVar[str] = "Ant-v5"

    def base_options(self) -> dict[str, Any]:
        """Without contact forces, which would tell the friction."""
        return {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.0}


@dataclass(frozen=True)
class SlipperyHalfCheetah(_Slippery):
    """HalfCheetah on ground whose friction changes.

    Sliding friction is drawn log-uniformly from [0.02, 2] (0.4 as built); see `SlipperyAnt`. Needs
    MuJoCo.

    Source: the mechanism of Dohare et al. (2024) on another body.

    Attributes:
        task_length: least number of steps between two changes.
        low: least friction.
        high: greatest friction.
    """

    base: ClassVar[str] = "HalfCheetah-v5"


@dataclass(frozen=True)
class SlipperyWalker2d(_Slippery):
    """Walker2d on ground whose friction changes.

    Sliding friction is drawn log-uniformly from [0.02, 2] (as built 0.7 on the ground, 0.9 and 1.9
    at the feet); see `SlipperyAnt`. Needs MuJoCo.

    Source: the mechanism of Dohare et al. (2024) on another body.

    Attributes:
        task_length: least number of steps between two changes.
        low: least friction.
        high: greatest friction.
    """

    base: ClassVar[str] = "Walker2d-v5"


@dataclass(frozen=True)
class _Gravity(Benchmark):
    """Gravity that changes.

    Attributes:
        task_length: least number of steps between two changes.
        low: least gravity, m/s^2.
        high: greatest gravity, m/s^2.
    """

    extra: ClassVar[str] = "mujoco"
    task_length: PositiveInt = 1_000_000
    low: NonNegativeFloat = 4.9
    high: NonNegativeFloat = 14.7

    def change(self) -> tuple[Change, Schedule]:
        """A fresh gravity for every task but the first."""
        when = EverySteps(self.task_length, at_episode_end=True)
        to = Uniform(self.low, self.high)
        return Physics("gravity"), Schedule(when, to, start="unchanged")


@dataclass(frozen=True)
class GravityAnt(_Gravity):
    """Ant under changing gravity.

    Gravity is drawn uniformly from [4.9, 14.7] m/s^2, half to one and a half times the 9.81 of the
    first task; a change comes at the end of an episode. Observations: 105 numbers, contact forces
    among them. Needs MuJoCo.

    Source: ours, after the gravity variants of the Gym Extensions (Henderson et al. 2017).

    Attributes:
        task_length: least number of steps between two changes.
        low: least gravity, m/s^2.
        high: greatest gravity, m/s^2.
    """

    base: ClassVar[str] = "Ant-v5"


@dataclass(frozen=True)
class GravityHalfCheetah(_Gravity):
    """HalfCheetah under changing gravity; see `GravityAnt`. Needs MuJoCo.

    Gravity is drawn uniformly from [4.9, 14.7] m/s^2; 9.81 in the first task.

    Source: as for `GravityAnt`.

    Attributes:
        task_length: least number of steps between two changes.
        low: least gravity, m/s^2.
        high: greatest gravity, m/s^2.
    """

    base: ClassVar[str] = "HalfCheetah-v5"


@dataclass(frozen=True)
class _Actuator(Benchmark):
    """Motors whose strength changes.

    Attributes:
        task_length: least number of steps between two changes.
        low: least strength, as a share of what was built in.
        high: greatest strength.
    """

    extra: ClassVar[str] = "mujoco"
    actuators: ClassVar[tuple[str, ...]]
    task_length: PositiveInt = 1_000_000
    low: NonNegativeFloat = 0.25
    high: NonNegativeFloat = 1.25

    def change(self) -> tuple[Change, Schedule]:
        """A fresh strength of every motor for every task but the first."""
        when = EverySteps(self.task_length, at_episode_end=True)
        change = Physics([f"strength/{name}" for name in self.actuators])
        return change, Schedule(when, Uniform(self.low, self.high), start="unchanged")


@dataclass(frozen=True)
class ActuatorAnt(_Actuator):
    """Ant whose 8 motors grow weaker or stronger, each for itself.

    The strength of each is drawn uniformly from [0.25, 1.25] of what was built in; 1 in the first
    task. A change comes at the end of an episode. Observations: 105 numbers, contact forces among
    them. Needs MuJoCo.

    Source: ours, after the crippled joints of Nagabandi et al. (2019).

    Attributes:
        task_length: least number of steps between two changes.
        low: least strength, as a share of what was built in.
        high: greatest strength.
    """

    base: ClassVar[str] = "Ant-v5"
    actuators: ClassVar[tuple[str, ...]] = (
        *("hip_1", "hip_2", "hip_3", "hip_4"),
        *("ankle_1", "ankle_2", "ankle_3", "ankle_4"),
    )


@dataclass(frozen=True)
class ActuatorHalfCheetah(_Actuator):
    """HalfCheetah whose 6 motors grow weaker or stronger, each for itself; see `ActuatorAnt`.

    The strength of each is drawn uniformly from [0.25, 1.25] of what was built in; 1 in the first
    task. Needs MuJoCo.

    Source: as for `ActuatorAnt`.

    Attributes:
        task_length: least number of steps between two changes.
        low: least strength, as a share of what was built in.
        high: greatest strength.
    """

    base: ClassVar[str] = "HalfCheetah-v5"
    actuators: ClassVar[tuple[str, ...]] = (
        *("bthigh", "bshin", "bfoot"),
        *("fthigh", "fshin", "ffoot"),
    )
