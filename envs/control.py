"""The registered benchmarks: control tasks that change, as ``gymnasium.make`` makes them.

Each class is one benchmark: its fields are its options, which ``gymnasium.make`` takes as keywords.
Besides them all take ``render_mode``, ``reveal_task`` and ``task_seed`` (see `NonStationary`), and
vector versions ``worlds`` (see `NonStationaryVector`). Steps are those of a world. Where nothing
else is said, actions, rewards, ends of episodes and units are those of the Gymnasium environment
named.
"""

from __future__ import annotations

import abc
import contextlib
import importlib
import importlib.util
import inspect
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from annotated_types import Ge
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TimeLimit

from clrl.envs.changes import Change, OffsetObservation, PermuteObservation, Physics, SwitchTask
from clrl.envs.classic import VECTOR_ENVS
from clrl.envs.episode_log import EpisodeLog
from clrl.envs.mujoco import MUJOCO_IDS, MujocoVectorEnv
from clrl.envs.nonstationary import NonStationary, NonStationaryVector
from clrl.envs.registration import env_id
from clrl.envs.schedules import (
    Continuously,
    Cycle,
    EverySteps,
    LogUniform,
    Normal,
    RandomPermutation,
    Schedule,
    SinusoidalDrift,
    Uniform,
)
from clrl.envs.schedules.when import NEVER
from clrl.envs.tasks import Tasks
from clrl.errors import UsageError
from clrl.options import NonNegativeFloat, PositiveFloat, PositiveInt, as_keywords

Env = gym.Env[Any, Any]


class Benchmark(abc.ABC):
    """A control task and how it changes. Subclasses are frozen dataclasses.

    Attributes:
        base: id of the Gymnasium environment inside; empty where there are several.
        extra: the optional dependency that it needs; empty for none.
    """

    base: ClassVar[str] = ""
    extra: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: one is not of its type or out of its range.
        """
        for name, declared in typing.get_type_hints(type(self), include_extras=True).items():
            if typing.get_origin(declared) is not ClassVar:
                _check_option(name, declared, getattr(self, name))

    @abc.abstractmethod
    def change(self) -> tuple[Change, Schedule]:
        """What changes, when and to what."""

    def make_base(self, render_mode: str | None) -> Env:
        """The environment inside, without a time limit.

        Raises:
            UsageError: the optional dependency is not installed.
        """
        try:
            return _bare(self.base, render_mode=render_mode, **self.base_options())
        except (gym.error.DependencyNotInstalled, ModuleNotFoundError) as error:
            raise UsageError(
                f"{type(self).__name__} needs {self.extra}, which is not installed: "
                f"pip install 'clrl[{self.extra}]'"
            ) from error

    def base_options(self) -> dict[str, Any]:
        """Keywords for the environment inside."""
        return {}


@dataclass(frozen=True)
class Stationary:
    """Any environment that Gymnasium knows, as it is: one task that lasts for ever.

    Attributes:
        id: its id; ``module:id`` imports the module first.
    """

    id: str = "CartPole-v1"


def vector_of(
    recipe: Benchmark | Stationary,
    num_envs: int,
    worlds: int,
    autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    arrays: Any = None,
) -> VectorEnv[Any, Any, Any]:
    """The vector environment of a benchmark, for one learner or several.

    Args:
        recipe: the benchmark.
        num_envs: lanes in all.
        worlds: learners; see `NonStationaryVector`.
        autoreset_mode: see ``gymnasium.vector.AutoresetMode``.
        arrays: what the physics of classic control is computed with in place of NumPy; see
            `clrl.envs.classic.ClassicVectorEnv`.

    Raises:
        UsageError: there is no such environment, or an optional dependency is not installed.
    """
    if isinstance(recipe, Benchmark):
        name, options = env_id(type(recipe).__name__), as_keywords(recipe)
        if arrays is not None:
            options["arrays"] = arrays
        return gym.make_vec(
            name, num_envs=num_envs, worlds=worlds, autoreset_mode=autoreset_mode, **options
        )
    if recipe.id in VECTOR_ENVS:
        return VECTOR_ENVS[recipe.id](num_envs, autoreset_mode=autoreset_mode, arrays=arrays)
    try:
        if recipe.id in MUJOCO_IDS:
            limit = gym.spec(recipe.id).max_episode_steps
            bare = [lambda: _limited(_bare(recipe.id), limit)] * num_envs
            return MujocoVectorEnv(bare, autoreset_mode=autoreset_mode)
        with _deprecations_muted():
            return gym.make_vec(
                recipe.id,
                num_envs=num_envs,
                vectorization_mode="sync",
                vector_kwargs={"autoreset_mode": autoreset_mode},
                disable_env_checker=True,
            )
    except (gym.error.Error, ModuleNotFoundError) as error:
        raise UsageError(f"benchmark.id: {recipe.id}: {error}") from error


def _bare(base: str, **options: Any) -> Env:
    """A Gymnasium environment without any wrapper."""
    with _deprecations_muted():
        return gym.make(base, max_episode_steps=-1, disable_env_checker=True, **options).unwrapped


def _limited(env: Env, limit: int | None) -> Env:
    return TimeLimit(env, limit) if limit else env


@contextlib.contextmanager
def _deprecations_muted() -> Iterator[None]:
    """While Gymnasium's models are compiled: MuJoCo prints a line about some, each time."""
    if importlib.util.find_spec("mujoco") is None:
        yield
        return
    mujoco = importlib.import_module("mujoco")
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda _: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def make(
    benchmark: str,
    *,
    render_mode: str | None = None,
    reveal_task: bool = False,
    task_seed: int | None = None,
    **options: Any,
) -> Env:
    """Make a benchmark's environment; ``gymnasium.make`` calls this and adds the time limit.

    Args:
        benchmark: name of a class of this module.
        render_mode: see the Gymnasium environment.
        reveal_task: see `NonStationary`.
        task_seed: see `NonStationary`.
        options: the fields of the class.

    Raises:
        UsageError: an option is out of range, or an optional dependency is not installed.
    """
    recipe = BENCHMARKS[benchmark](**options)
    change, schedule = recipe.change()
    env = recipe.make_base(render_mode)
    return NonStationary(env, change, schedule, reveal_task=reveal_task, task_seed=task_seed)


def make_vector(
    benchmark: str,
    num_envs: int = 1,
    *,
    worlds: int = 1,
    max_episode_steps: int | None = None,
    render_mode: str | None = None,
    reveal_task: bool = False,
    task_seed: int | None = None,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    arrays: Any = None,
    **options: Any,
) -> NonStationaryVector:
    """Make a benchmark's vector environment; ``gymnasium.make_vec`` calls this.

    CartPole, Acrobot, MountainCar and Pendulum are stepped as arrays, Ant, HalfCheetah, Hopper and
    Walker2d by `MujocoVectorEnv`, the others one by one.

    Args:
        benchmark: name of a class of this module.
        num_envs: lanes.
        worlds: see `NonStationaryVector`.
        max_episode_steps: time limit; that of the Gymnasium environment unless given, -1 for
            none.
        render_mode: see the Gymnasium environment.
        reveal_task: see `NonStationary`.
        task_seed: see `NonStationary`.
        autoreset_mode: see ``gymnasium.vector.AutoresetMode``.
        arrays: see `vector_of`.
        options: the fields of the class.

    Raises:
        UsageError: as for `make`, or `worlds` does not divide `num_envs`.
    """
    recipe = BENCHMARKS[benchmark](**options)
    change, schedule = recipe.change()
    if num_envs < 1:
        raise UsageError(f"num_envs: expected an integer >= 1, got {num_envs}")
    limit = max_episode_steps
    if limit is None and recipe.base:
        limit = gym.spec(recipe.base).max_episode_steps
    elif limit == -1:
        limit = None
    env: VectorEnv[Any, Any, Any]
    if recipe.base in VECTOR_ENVS and render_mode is None:
        env = VECTOR_ENVS[recipe.base](
            num_envs,
            max_episode_steps=limit or NEVER,
            autoreset_mode=autoreset_mode,
            arrays=arrays,
        )
    else:
        lanes = [lambda: _limited(recipe.make_base(render_mode), limit)] * num_envs
        ours = recipe.base in MUJOCO_IDS and render_mode is None
        make_lanes = MujocoVectorEnv if ours else SyncVectorEnv
        env = make_lanes(lanes, autoreset_mode=autoreset_mode)
    return NonStationaryVector(
        env, change, schedule, worlds=worlds, reveal_task=reveal_task, task_seed=task_seed
    )


def _check_option(name: str, declared: Any, value: Any) -> None:
    """Compare an option with its declared type, such as ``Annotated[int, Ge(1)]``."""
    kind, *bounds = typing.get_args(declared)
    whole = isinstance(value, (int, np.integer))
    fits = (whole or (kind is float and isinstance(value, float))) and not isinstance(value, bool)
    for bound in bounds:
        low = bound.ge if isinstance(bound, Ge) else bound.gt
        fits = fits and (value >= low if isinstance(bound, Ge) else value > low)
        sign = ">=" if isinstance(bound, Ge) else ">"
        if not fits:
            what = "an integer" if kind is int else "a number"
            raise UsageError(f"{name}: expected {what} {sign} {low}, got {value!r}")


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


@dataclass(frozen=True)
class ClassicControlCycle(Benchmark):
    """CartPole, Acrobot and MountainCar in turn, again and again.

    Observations: 6 numbers, those of the shorter tasks filled up with zeros. Actions: 3; in
    CartPole the third does what the first does. Each task has its own time limit (500, 500 and
    200 steps). A change comes at the end of an episode.

    Source: ours, after the task sequences of continual control with padded spaces.

    Attributes:
        task_length: least number of steps between two changes.
    """

    task_length: PositiveInt = 50_000

    def change(self) -> tuple[Change, Schedule]:
        """The three in turn."""
        when = EverySteps(self.task_length, at_episode_end=True)
        return SwitchTask(), Schedule(when, Cycle([0, 1, 2]))

    def make_base(self, render_mode: str | None) -> Env:
        """All three behind one pair of spaces."""
        return Tasks(["CartPole-v1", "Acrobot-v1", "MountainCar-v0"], render_mode)


BENCHMARKS: dict[str, type[Benchmark]] = {
    name: value
    for name, value in vars(sys.modules[__name__]).items()
    if isinstance(value, type) and issubclass(value, Benchmark) and not inspect.isabstract(value)
    if not name.startswith("_")
}
