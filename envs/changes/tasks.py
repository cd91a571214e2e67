"""Switching between whole tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from clrl.envs.changes.base import Change, Effect, Host
from clrl.envs.schedules.values import Array, Domain
from clrl.envs.tasks import Tasks
from clrl.errors import UsageError


@dataclass(frozen=True)
class SwitchTask(Change):
    """Switch between the environments of `clrl.envs.tasks.Tasks`.

    A task begins with an episode, so the schedule has to wait for the end of one.

    The value: the index of the environment.
    """

    between_episodes: ClassVar[bool] = True

    def bind(self, host: Host) -> Effect:
        """See `Change.bind`."""
        lanes = [lane.unwrapped for lane in host.lanes("SwitchTask")]
        tasks = [lane for lane in lanes if isinstance(lane, Tasks)]
        if len(tasks) < len(lanes):
            raise UsageError(f"SwitchTask: expected clrl.envs.Tasks inside, got {lanes[0]}")
        last = len(tasks[0].envs) - 1
        neutral = np.zeros((), np.int64)
        domain = Domain("SwitchTask", "integer", neutral, 0, last, f"a task from 0 to {last}")
        return _Switch(host, domain, tasks)


class _Switch(Effect):
    owns = ("the task at work",)

    def __init__(self, host: Host, domain: Domain, tasks: list[Tasks]) -> None:
        super().__init__(host, domain)
        self._tasks = tasks

    def set(self, lanes: NDArray[np.bool_], values: Array) -> None:
        super().set(lanes, values)
        for lane, value in zip(np.flatnonzero(lanes), values, strict=True):
            self._tasks[lane].choose(int(value))
