"""When a change comes. Each class is a description; `Timeline` does the counting.

Steps are those of a world: of one environment, or of all the lanes that share a world in a
vector environment. The clock starts at 0 with ``reset(seed=...)`` and survives other resets.
A change that is due at step n comes after n steps, before the next one.
"""

from __future__ import annotations

import abc
import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from clrl.errors import UsageError, shown

NEVER = 2**62
"""A step that no clock reaches."""


class When(abc.ABC):
    """When a change comes.

    Attributes:
        unit: what the clock counts.
        at_episode_end: a change that is due waits for the end of the episode.
    """

    unit: ClassVar[Literal["steps", "episodes"]] = "steps"
    at_episode_end: bool = False

    @abc.abstractmethod
    def due(self, task: int, last: int, rng: np.random.Generator) -> int:
        """When the change to a task is due.

        Args:
            task: index of the coming task, from 1.
            last: when the change before was due; where changes wait for the end of an
                episode, when it came. 0 for the first.
            rng: the world's generator for times.

        Returns:
            The clock, counted in `unit`, at which the change is due; `NEVER` for none.
        """


def _count(name: str, n: int) -> int:
    """A plain integer; those of NumPy may be too small for sums."""
    if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 1:
        raise UsageError(f"{name}: expected an integer >= 1, got {shown(n)}")
    return int(n)


def _check_waiting(when: EverySteps | Poisson | AtSteps) -> None:
    if not isinstance(when.at_episode_end, bool):
        raise UsageError(
            f"{type(when).__name__}.at_episode_end: expected True or False, "
            f"got {shown(when.at_episode_end)}"
        )


@dataclass(frozen=True)
class EverySteps(When):
    """A change every n steps, or at the first end of an episode from then on.

    Where changes wait for the end of an episode, the next n steps are counted from the
    change, as in Dohare et al. (2024), so that no task is shorter than n steps.

    Attributes:
        n: steps, >= 1.
        at_episode_end: wait for the end of the episode.
    """

    n: int
    at_episode_end: bool = False

    def __post_init__(self) -> None:
        """Check."""
        object.__setattr__(self, "n", _count("EverySteps.n", self.n))
        _check_waiting(self)

    def due(self, task: int, last: int, rng: np.random.Generator) -> int:
        """See `When.due`."""
        return min(last + self.n, NEVER)


@dataclass(frozen=True)
class EveryEpisodes(When):
    """A change after every n episodes; a reset before the end ends an episode too.

    Attributes:
        n: episodes, >= 1; those of all lanes of a world count.
    """

    unit: ClassVar[Literal["steps", "episodes"]] = "episodes"
    n: int
    at_episode_end: bool = dataclasses.field(default=True, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check."""
        object.__setattr__(self, "n", _count("EveryEpisodes.n", self.n))

    def due(self, task: int, last: int, rng: np.random.Generator) -> int:
        """See `When.due`."""
        return min(task * self.n, NEVER)


@dataclass(frozen=True)
class Poisson(When):
    """Changes that come by chance, with the same chance at every step.

    The steps between two changes are geometric with mean ``1 / rate``: a Poisson process
    on a clock that counts whole steps.

    Attributes:
        rate: chance of a change at a step, in (0, 1].
        at_episode_end: wait for the end of the episode.
    """

    rate: float
    at_episode_end: bool = False

    def __post_init__(self) -> None:
        """Check."""
        if not isinstance(self.rate, (int, float, np.number)) or not 0 < self.rate <= 1:
            raise UsageError(
                f"Poisson.rate: expected a probability in (0, 1], got {shown(self.rate)}"
            )
        object.__setattr__(self, "rate", float(self.rate))
        _check_waiting(self)

    def due(self, task: int, last: int, rng: np.random.Generator) -> int:
        """See `When.due`."""
        return min(last + int(rng.geometric(self.rate)), NEVER)


@dataclass(frozen=True)
class AtSteps(When):
    """Changes at listed steps.

    Attributes:
        steps: increasing, each >= 1.
        at_episode_end: wait for the end of the episode; steps passed meanwhile are made up
            for at once.
    """

    steps: Sequence[int]
    at_episode_end: bool = False

    def __post_init__(self) -> None:
        """Check."""
        if not isinstance(self.steps, Iterable):
            raise UsageError(f"AtSteps.steps: expected a list of steps, got {shown(self.steps)}")
        steps = tuple(_count("AtSteps.steps", step) for step in self.steps)
        if not steps or any(b <= a for a, b in itertools.pairwise(steps)):
            raise UsageError(
                f"AtSteps.steps: expected one increasing step or more, got {shown(self.steps)}"
            )
        object.__setattr__(self, "steps", steps)
        _check_waiting(self)

    def due(self, task: int, last: int, rng: np.random.Generator) -> int:
        """See `When.due`."""
        return min(self.steps[task - 1], NEVER) if task <= len(self.steps) else NEVER


@dataclass(frozen=True)
class Never(When):
    """No change: the first task lasts for ever."""

    def due(self, task: int, last: int, rng: np.random.Generator) -> int:
        """See `When.due`."""
        return NEVER


@dataclass(frozen=True)
class Continuously(When):
    """A change at every step, for values that drift.

    There is no sequence of tasks then: the task index stays 0 and no change is announced.
    """

    def due(self, task: int, last: int, rng: np.random.Generator) -> int:
        """See `When.due`."""
        return task
