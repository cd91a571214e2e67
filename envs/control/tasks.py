"""Whole control tasks in turn."""

from __future__ import annotations

from dataclasses import dataclass

from clrl.envs.changes import Change, SwitchTask
from clrl.envs.control.base import Benchmark, Env
from clrl.envs.schedules import Cycle, EverySteps, Schedule
from clrl.envs.tasks import Tasks
from clrl.options import PositiveInt


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
