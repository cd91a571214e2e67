"""A schedule, and the worlds that live by it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clrl.envs.schedules.values import Array, Domain, Values
from clrl.envs.schedules.when import NEVER, Continuously, When
from clrl.errors import UsageError, shown
from clrl.seeding import numpy_generator

_BLOCK = 256
"""Values of a drift that are drawn at once."""


@dataclass(frozen=True)
class Schedule:
    """When something changes, and to what.

    Attributes:
        when: when the changes come.
        to: the values.
        start: ``drawn``: the first task has the first value; ``unchanged``: the first task is
            the environment as it is, and the first change brings the first value.
    """

    when: When
    to: Values
    start: Literal["drawn", "unchanged"] = "drawn"

    def __post_init__(self) -> None:
        """Check.

        Raises:
            UsageError: a part is not what it should be.
        """
        if not isinstance(self.when, When):
            raise UsageError(
                f"Schedule.when: expected such as EverySteps(1000), got {shown(self.when)}"
            )
        if not isinstance(self.to, Values):
            raise UsageError(f"Schedule.to: expected such as Uniform(0, 1), got {shown(self.to)}")
        if not isinstance(self.start, str) or self.start not in ("drawn", "unchanged"):
            raise UsageError(
                f"Schedule.start: expected drawn or unchanged, got {shown(self.start)}"
            )

    def bounds(self, domain: Domain) -> tuple[Array, Array]:
        """The smallest and the largest value that can come, [*domain.shape] each.

        Raises:
            UsageError: the values do not fit the domain.
        """
        self.to.check(domain)
        low, high = self.to.bounds(domain)
        if self.start == "unchanged" and domain.kind != "permutation":
            low, high = np.minimum(low, domain.neutral), np.maximum(high, domain.neutral)
        return low, high


class Planned(NamedTuple):
    """One change to come.

    Attributes:
        task: index of the task that it begins (with `Continuously`, the step).
        step: the clock at which it is due; ``None`` where that depends on when episodes end.
        value: the value from then on.
    """

    task: int
    step: int | None
    value: Array


class Timeline:
    """The schedules of worlds that run side by side, each with a clock and a future of its own.

    A world is what shares one sequence of tasks: one environment, or several lanes of a vector
    environment.

    Args:
        schedule: when and to what, for all worlds.
        domain: what the values are for.
        worlds: how many.
        purpose: names the generators; different for each user of the same seed.

    Attributes:
        task: int64 [worlds], index of the current task.
        values: [worlds, *domain.shape], the current values.
        clock: int64 [worlds], steps or episodes so far, as the schedule counts.
        changes: int64 [worlds], how many changes have come; the task index, but for drifts.
        drifts: whether values change at every step.
        counts_steps: whether the clock counts steps; episodes otherwise.
    """

    def __init__(self, schedule: Schedule, domain: Domain, worlds: int, purpose: str) -> None:
        self.schedule = schedule
        self.domain = domain
        self.purpose = purpose
        self.drifts = isinstance(schedule.when, Continuously)
        self.clock = np.zeros(worlds, np.int64)
        self.changes = np.zeros(worlds, np.int64)
        self.values = np.repeat(domain.neutral[None], worlds, axis=0)
        self._due = np.full(worlds, NEVER)
        self._courses: list[_Course | None] = [None] * worlds
        self._is_due = False  # in some world
        self.counts_steps = schedule.when.unit == "steps"

    @property
    def task(self) -> NDArray[np.int64]:
        """Index of each world's current task, int64 [worlds]; 0 for ever where values drift."""
        return np.zeros_like(self.changes) if self.drifts else self.changes

    def start(self, world: int, seed: int) -> None:
        """Begin a world anew, at its first task and with its clock at 0.

        Args:
            world: which.
            seed: decides its whole future, an integer >= 0.
        """
        course = _Course(self.schedule, self.domain, seed, self.purpose)
        self._courses[world] = course
        self.clock[world] = self.changes[world] = 0
        unchanged = self.schedule.start == "unchanged"
        self.values[world] = self.domain.neutral if unchanged else course.value()
        self._due[world] = course.due(1, 0)

    def hold(self, tasks: NDArray[np.int64], values: Array) -> None:
        """Stay in one task: no change comes any more, until a world begins anew.

        Args:
            tasks: int64 [worlds], its index in each world.
            values: [worlds, *domain.shape], the value in each.
        """
        self.changes[:] = tasks
        self.values[:] = values
        self._due[:] = NEVER
        self._is_due = False

    def tick(self, steps: NDArray[np.int64], episodes: NDArray[np.int64]) -> None:
        """Let time pass.

        Args:
            steps: int64 [worlds], steps taken in each.
            episodes: int64 [worlds], episodes ended in each.
        """
        self.clock += steps if self.counts_steps else episodes
        self._is_due = bool((self.clock >= self._due).any())

    def advance(self, ended: NDArray[np.bool_], everywhere: bool = True) -> bool:
        """Carry out the changes that are due.

        Args:
            ended: bool [worlds], where an episode has ended just now; only there do changes
                come that wait for it.
            everywhere: others come in all worlds; else in these alone.

        Returns:
            Whether any world has changed.
        """
        if not self._is_due:
            return False
        ready = self.clock >= self._due
        if self.schedule.when.at_episode_end or not everywhere:
            ready &= ended
        for world in np.flatnonzero(ready):
            self._change(int(world))
        self._is_due = bool((self.clock >= self._due).any())
        return bool(ready.any())

    def _change(self, world: int) -> None:
        course = self._course(world)
        if self.drifts:
            self.values[world] = course.value(int(self.clock[world] - self.changes[world]))
            self.changes[world] = self.clock[world]
            self._due[world] = self.clock[world] + 1
            return
        while self.clock[world] >= self._due[world]:
            self.changes[world] += 1
            self.values[world] = course.value()
            waits = self.schedule.when.at_episode_end
            last = self.clock[world] if waits else self._due[world]
            self._due[world] = course.due(int(self.changes[world]) + 1, int(last))

    def preview(self, n: int, world: int = 0) -> list[Planned]:
        """The next changes of a world, which is not disturbed.

        Of several changes that have come due since the last step, all are listed, and the last
        is what will be seen.

        Args:
            n: how many; fewer come back where the schedule ends.
            world: which.

        Raises:
            UsageError: there is no such world, or it has not begun.
        """
        if not 0 <= world < len(self.clock):
            raise UsageError(
                f"world: expected an integer from 0 to {len(self.clock) - 1}, got {world}"
            )
        course = copy.deepcopy(self._course(world))
        task, due = int(self.changes[world]), int(self._due[world])
        waits = self.schedule.when.at_episode_end
        planned: list[Planned] = []
        while len(planned) < n and due < NEVER:
            task += 1
            planned.append(Planned(task, None if waits else due, course.value()))
            due = course.due(task + 1, due)
        return planned

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the future, in plain values."""
        return {
            "clock": self.clock.tolist(),
            "changes": self.changes.tolist(),
            "values": self.values.tolist(),
            "due": self._due.tolist(),
            "courses": [course and course.state_dict() for course in self._courses],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where `state` was taken, by a timeline made alike.

        Raises:
            UsageError: it was taken from another number of worlds.
        """
        if len(state["clock"]) != len(self.clock):
            raise UsageError(
                f"schedule state: it is of {len(state['clock'])} worlds, got {len(self.clock)}"
            )
        self.clock[:] = state["clock"]
        self.changes[:] = state["changes"]
        self.values[:] = state["values"]
        self._due[:] = state["due"]
        self._is_due = bool((self.clock >= self._due).any())
        for world, saved in enumerate(state["courses"]):
            self._courses[world] = saved and _Course.restored(
                self.schedule, self.domain, self.purpose, saved
            )

    def _course(self, world: int) -> _Course:
        course = self._courses[world]
        if course is None:
            raise UsageError("the schedule begins with reset(seed=...); call that first")
        return course


class _Course:
    """One world's future: the values and the times that are still to come."""

    def __init__(self, schedule: Schedule, domain: Domain, seed: int, purpose: str) -> None:
        self._schedule = schedule
        self._domain = domain
        self._seed = int(seed)
        self._times = numpy_generator(seed, f"{purpose}/times")
        self._rng = numpy_generator(seed, f"{purpose}/values")
        self._block_size = _BLOCK if isinstance(schedule.when, Continuously) else 1
        self._index = 0  # of the first value of the block
        self._before: Array | None = None  # the value before that
        self._bits = self._rng.bit_generator.state  # of the generator before the block
        self._block: Array = np.empty((0, *domain.shape), domain.dtype)
        self._used = 0

    def value(self, ahead: int = 1) -> Array:
        """The next value, or one further ahead; those in between are passed over."""
        self._used += ahead
        while self._used > len(self._block):
            if len(self._block):
                self._before = self._block[-1]
            self._used -= len(self._block)
            self._index += len(self._block)
            self._draw()
        value: Array = self._block[self._used - 1]
        return value

    def _draw(self) -> None:
        self._bits = self._rng.bit_generator.state
        index = np.arange(self._index, self._index + self._block_size)
        self._block = self._schedule.to.draw(index, self._before, self._rng, self._domain)

    def due(self, task: int, last: int) -> int:
        """When the change to a task is due; see `When.due`."""
        return self._schedule.when.due(task, last, self._times)

    def state_dict(self) -> dict[str, Any]:
        return {
            "seed": self._seed,
            "times": self._times.bit_generator.state,
            "bits": self._bits,
            "index": self._index,
            "before": None if self._before is None else self._before.tolist(),
            "drawn": len(self._block) > 0,
            "used": self._used,
        }

    @classmethod
    def restored(
        cls, schedule: Schedule, domain: Domain, purpose: str, state: Mapping[str, Any]
    ) -> _Course:
        course = cls(schedule, domain, int(state["seed"]), purpose)
        course._times.bit_generator.state = state["times"]
        course._rng.bit_generator.state = state["bits"]
        course._index = int(state["index"])
        if state["before"] is not None:
            course._before = np.array(state["before"], domain.dtype)
        if state["drawn"]:
            course._draw()
            course._used = int(state["used"])
        return course
