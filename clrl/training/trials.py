"""Episodes of a frozen policy on the tasks of a control benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

from clrl.envs.control import vector_of
from clrl.envs.nonstationary import NonStationaryVector
from clrl.seeding import derived_seed

Array = NDArray[Any]
Envs = VectorEnv[Any, Any, Any]


class Trials:
    """Environments of their own in which learners are tried on their tasks.

    They begin anew for every trial from (seed, ``test/<task>/<episode>``): a task's episodes begin
    alike whenever it is tried. A member's tasks are those of its training; a task that comes again
    is the same.

    Args:
        recipe: the benchmark.
        seeds: one a member.
        episodes: of each member, side by side.
        render_mode: see ``gymnasium.make``.

    Attributes:
        envs: the environments, those of a member side by side.
        has_tasks: whether the benchmark has tasks to come back to. Where it has none, every trial
            takes place in the world as it is at a training's start.
        stacked: there are several changes, and no list of what they will be together: which comes
            first may depend on when episodes end. There are no tasks to come back to then.

    Raises:
        UsageError: as `clrl.envs.control.vector_of` raises it.
    """

    def __init__(
        self, recipe: Any, seeds: Sequence[int], episodes: int, render_mode: str | None = None
    ) -> None:
        self._seeds = list(seeds)
        self._episodes = episodes
        lanes = episodes * len(self._seeds)
        self.envs: Envs = vector_of(recipe, lanes, len(self._seeds), render_mode=render_mode)
        self._changing = list(_changing(self.envs))
        self.stacked = len(self._changing) > 1
        self.has_tasks = len(self._changing) == 1 and not self._changing[0].drifts

    def values(self, member: int, task: int) -> list[Array]:
        """The values of a member's tasks up to one, each once, in the order they came."""
        return self.known(member, task)[0]

    def known(self, member: int, task: int) -> tuple[list[Array], int]:
        """As `values`, and which of them is the value of the task itself."""
        assert isinstance(self.envs, NonStationaryVector)
        self._begin_as_training()
        start = self.envs.value[member * self._episodes]
        planned = [one.value for one in self.envs.preview(task, member)]
        found: list[Array] = []
        for value in (start, *planned):
            same = [i for i, before in enumerate(found) if np.array_equal(value, before)]
            if not same:
                found.append(value)
        return found, same[0] if same else len(found) - 1

    def _begin_as_training(self) -> None:
        """Begin the worlds that the learners met in training."""
        first = [derived_seed(seed, "env/0") for seed in self._seeds]
        seeds = [seed for seed in first for _ in range(self._episodes)]
        self.envs.reset(seed=seeds)  # type: ignore[arg-type]

    def returns(
        self,
        answer: Callable[[Array], Array],
        index: int,
        values: Array | None,
        first: int = 0,
        watch: Callable[[Envs], None] = lambda envs: None,
    ) -> NDArray[np.float64]:
        """The return of each member's episodes on one task, [members, episodes].

        Args:
            answer: takes observations [lanes, size], gives actions.
            index: which task.
            values: its value for each member, [members, ...]; None where there are no tasks.
            first: number of the first episode.
            watch: called with the environments at the start and after each step.
        """
        lanes = range(first, first + self._episodes)
        seeds = [derived_seed(s, f"test/{index}/{lane}") for s in self._seeds for lane in lanes]
        held = [] if values is None else [values]
        if self.stacked:
            self._begin_as_training()
            held = [one.value[:: self._episodes] for one in self._changing]
        observations, _ = self.envs.reset(seed=seeds)  # type: ignore[arg-type]
        if held:
            for one, value in zip(self._changing, held, strict=True):
                one.hold(np.full(len(self._seeds), index), value)
            observations, _ = self.envs.reset()
        total = np.zeros(len(observations))
        going = np.ones(len(observations), np.bool_)
        watch(self.envs)
        while going.any():
            observations, rewards, terminated, truncated, _ = self.envs.step(answer(observations))
            total += np.where(going, rewards, 0.0)
            going &= ~(terminated | truncated)
            watch(self.envs)
        return total.reshape(len(self._seeds), -1)


def _changing(envs: Any) -> Iterator[NonStationaryVector]:
    """What makes environments change, from the outside in."""
    while isinstance(envs, VectorWrapper):
        if isinstance(envs, NonStationaryVector):
            yield envs
        envs = envs.env
