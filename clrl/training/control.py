"""The loop for control tasks: rollouts in, updates, measurements out."""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from clrl.agents.arrays import TorchArrays
from clrl.agents.device import CPU
from clrl.agents.networks import Network
from clrl.agents.table import AGENTS, NETWORKS
from clrl.benchmarks import BENCHMARKS
from clrl.envs.control import vector_of
from clrl.envs.state import load_state_dict, state_dict
from clrl.errors import UsageError
from clrl.metrics import continual
from clrl.options import as_keywords
from clrl.seeding import derived_seed
from clrl.settings.config import RunConfig
from clrl.training.diagnostics import PROBE_EXAMPLES, Diagnostics
from clrl.training.fitting import check_agent
from clrl.training.loop import (
    Clock,
    Loop,
    Sink,
    Sums,
    engine_of,
    methods,
    penalties,
    placed,
    taken,
    update_rule,
)
from clrl.training.trials import Trials

RECENT = 100
"""Episodes of the running average of returns."""

Array = NDArray[Any]


class ControlTraining(Loop):
    """A population of runs on a control task that differ in nothing but their seed.

    Each member steps environments of its own; all members' environments are one vector
    environment, with a world for each member. A step is a transition of one of them: n steps are
    n transitions of a member's world, for tasks, lines and the end. Where a member has several
    environments they step together, so that whatever comes at a step comes with the first row of
    transitions that reaches it, and the last row is taken whole.

    After every iteration of the agent (a rollout and an update) that passes a multiple of
    ``log_every`` there is a line a member; a task that is over has one at the step at which it
    was, written along with the next of these.

    An agent is constructed with (seeds, observation space, action space, function that makes a
    network from (inputs, outputs, generator, gain of the last layer), update rule, options,
    chunk size), and where it is asked for ``consolidation``, ``penalties`` and ``device``. It
    has: ``options.num_envs``; ``reset(observations)``; ``iterate(envs, watch, remaining,
    left)``, which gives tensors [members] to record; ``population``; ``probe(examples)``; and
    ``state_dict`` with ``load_state_dict``. In an iteration it steps the environments, at most
    until ``left`` transitions of a member were taken; after each step it calls ``watch`` with
    rewards, whether each lane's episode has ended, and the step's info, and resets the lanes
    where it has, with ``options={"reset_mask": ended}``: the environments do not reset
    themselves. One that can be tested and played has ``answer``, ``draw``, ``take_member`` and
    ``tasks`` besides, as `clrl.agents.PPO` documents them.

    Args:
        config: what a run is.
        seeds: one a member.
        device: what learners compute on, and the physics of classic control; other environments
            stay on the CPU.

    Raises:
        UsageError: the agent learns from streams, or agent and environment do not suit.
    """

    def __init__(self, config: RunConfig, seeds: Sequence[int], device: torch.device = CPU) -> None:
        self.config = config
        self.seeds = list(seeds)
        make_agent = AGENTS.find(config.agent.name).load()
        check_agent(config, acts=True)
        lanes = config.agent.options.num_envs
        recipe = BENCHMARKS.find(config.benchmark.name).load()
        recipe = recipe(**as_keywords(config.benchmark.options))
        arrays = None if device == CPU else TorchArrays(device)
        members = len(self.seeds)
        self.envs = vector_of(
            recipe, lanes * members, members, AutoresetMode.DISABLED, arrays=arrays
        )
        make_network = NETWORKS.find(config.network.name).load()

        def network(inputs: int, outputs: int, generator: torch.Generator, gain: float) -> Network:
            made: Network = make_network(inputs, outputs, config.network.options, generator, gain)
            return made

        more: dict[str, Any] = {}
        if config.consolidation:
            more["consolidation"] = methods(config)
        if config.penalties:
            more["penalties"] = penalties(config)
        self.agent: Any = make_agent(
            self.seeds,
            self.envs.single_observation_space,
            self.envs.single_action_space,
            network,
            update_rule(config),
            config.agent.options,
            config.chunk_size,
            **taken(config, make_agent, more, "ppo"),
            **placed(make_agent, device),
            **engine_of(config, make_agent),
        )
        self.diagnostics = Diagnostics(self.agent.population, config.metrics)
        self.step = 0
        self.clock = Clock()
        self._lanes = lanes
        self._window = Sums()
        self._episodes = Episodes(len(self.seeds), lanes)
        self._tests: Tests | None = None
        if getattr(config.agent.options, "test_episodes", 0):
            self._tests = Tests(recipe, self.agent, self.seeds)

    def steps(self, sinks: Mapping[int, Sink]) -> Iterator[int]:
        """Train iteration by iteration: yields the step after each, up to the last.

        Ends early where every member has diverged.
        """
        self.clock.start(self.step)
        if self.step == 0:
            seeds = [derived_seed(s, f"env/{i}") for s in self.seeds for i in range(self._lanes)]
            observations, _ = self.envs.reset(seed=seeds)  # type: ignore[arg-type]
            self.agent.reset(observations)
        while self.step < self.config.steps and not all(self._frozen()):
            before = self.step
            left = self.config.steps - self.step
            remaining = left / self.config.steps
            more = {"over": self._tests.after} if self._tests else {}
            results = self.agent.iterate(self.envs, self._episodes, remaining, left, **more)
            self.step = self._episodes.steps
            if self._tests and self.step >= self.config.steps:
                self._tests.at_end()
            self._window.add({key: value.double() for key, value in results.items()})
            every = self.config.log_every
            if before // every != self.step // every or self.step >= self.config.steps:
                self._log(sinks)
            yield self.step

    def _log(self, sinks: Mapping[int, Sink]) -> None:
        name = self.config.agent.short_name
        values = {f"{name}/{key}": value for key, value in self._window.means().items()}
        values |= self.diagnostics.of_features(self.agent.probe(PROBE_EXAMPLES))
        values |= self.diagnostics.of_gradients()
        values |= self.diagnostics.of_weights()
        self.agent.population.mark_safe()
        values |= self.clock.values(self.step, len(self.seeds))
        columns = {key: value.tolist() for key, value in values.items()}
        ended = self.step >= self.config.steps
        for member, (seed, frozen) in enumerate(zip(self.seeds, self._frozen(), strict=True)):
            lines = self._episodes.lines(member, ended)
            if frozen:
                continue
            lines[-1][1].update({key: column[member] for key, column in columns.items()})
            if self._tests:
                self._tests.add_to(member, [line for _, line in lines])
            for step, line in lines:
                sinks[seed].write(step, line)

    def check_state(self) -> None:
        """See `clrl.training.loop.Loop.check_state`: some environments cannot be read."""
        state_dict(self.envs)

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the runs' future: agent, environments, windows, position."""
        return {
            "step": self.step,
            "agent": self.agent.state_dict(),
            "envs": state_dict(self.envs),
            "window": self._window.state_dict(),
            "episodes": self._episodes.state_dict(),
            "tests": self._tests and self._tests.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, for the same configuration and seeds."""
        self.step = state["step"]
        self.agent.load_state_dict(state["agent"])
        load_state_dict(self.envs, state["envs"])
        self._window.load_state_dict(state["window"])
        self._episodes.load_state_dict(state["episodes"])
        if self._tests:
            self._tests.load_state_dict(state["tests"])


class Tests:
    """Tests of the policy on every task so far, at the end of each.

    The policy is frozen and takes its likeliest action. The environments are those of `Trials`, so
    that training is not disturbed by a bit. Where the agent normalises observations by running
    statistics, and its ``options.test_statistics`` is ``"task"``, those at the end of a task (of
    its last time, where it came again) are kept, and used in every test of it.

    Args:
        recipe: the benchmark.
        agent: the learners; has ``answer`` and ``tasks``, and ``options.test_episodes``; and
            ``statistics`` where its options have ``test_statistics``.
        seeds: one a member.

    Attributes:
        trials: where they take place.

    Raises:
        UsageError: the benchmark has no tasks.
    """

    def __init__(self, recipe: Any, agent: Any, seeds: Sequence[int]) -> None:
        self._agent = agent
        self._seeds = seeds
        episodes: int = agent.options.test_episodes
        self.trials = Trials(recipe, seeds, episodes)
        if self.trials.stacked:
            raise UsageError(
                "agent.test_episodes: expected 0, since this benchmark has several changes, and "
                f"what they are together cannot be told ahead, got {episodes}"
            )
        if not self.trials.has_tasks:
            raise UsageError(
                "agent.test_episodes: expected 0, since this benchmark has no tasks to come back "
                f"to, got {episodes}"
            )
        # Of each member, the rows of its matrix of returns, and those still to be written.
        self._rows: list[list[list[float]]] = [[] for _ in seeds]
        self._waiting: list[dict[int, dict[str, float]]] = [{} for _ in seeds]
        # Of each member, the statistics at the end of its tasks, by the task's index of value.
        self._statistics: list[dict[int, Array]] = [{} for _ in seeds]

    def after(self, tasks: Array) -> None:
        """Test the members whose task is over; `tasks` are those that were, [members]."""
        self._test(tasks, np.flatnonzero(self._agent.tasks != tasks))

    def at_end(self) -> None:
        """Test all members, whose last task is over."""
        self._test(self._agent.tasks, np.arange(len(self._seeds)))

    def _test(self, tasks: Array, members: Array) -> None:
        known = [self.trials.known(member, int(task)) for member, task in enumerate(tasks)]
        values = [own for own, _ in known]
        present = None
        if getattr(self._agent.options, "test_statistics", "present") == "task":
            present = self._agent.statistics()
        if present is not None:
            for member in members:
                self._statistics[member][known[member][1]] = present[member]
        rows: list[list[float]] = [[] for _ in self._seeds]
        for index in range(max(len(values[member]) for member in members)):
            held = [own[min(index, len(own) - 1)] for own in values]
            answer = self._agent.answer
            if present is not None:
                each = zip(self._statistics, present, strict=True)
                then = np.stack([own.get(index, now) for own, now in each])
                answer = functools.partial(answer, statistics=then)
            of_episodes = self.trials.returns(answer, index, np.stack(held))
            returns = of_episodes.mean(axis=1)
            for member in members:
                if index < len(values[member]):
                    rows[member].append(float(returns[member]))
        memory = self._agent.consolidation.memory / 1e6
        for member in members:
            row = rows[member]
            line = {f"retention/return/{i}": value for i, value in enumerate(row)}
            self._rows[member].append(row)
            self._waiting[member][int(tasks[member])] = {
                **line,
                **_summary(self._rows[member]),
                "cost/memory": memory,
            }

    def add_to(self, member: int, lines: Sequence[dict[str, float]]) -> None:
        """Put a member's tests on the lines that end their tasks."""
        for line in lines:
            if "task/index" in line:
                line |= self._waiting[member].pop(int(line["task/index"]), {})

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, in plain values."""
        return {
            "rows": [[list(row) for row in own] for own in self._rows],
            "waiting": [dict(own) for own in self._waiting],
            "statistics": [
                {index: value.tolist() for index, value in own.items()} for own in self._statistics
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._rows = [[list(row) for row in own] for own in state["rows"]]
        self._waiting = [dict(own) for own in state["waiting"]]
        self._statistics = [
            {index: np.array(value) for index, value in own.items()} for own in state["statistics"]
        ]


def _summary(rows: Sequence[Sequence[float]]) -> dict[str, float]:
    """Figures of a matrix of which each row has the tasks so far; none once tasks come again."""
    if len(rows) != len(rows[-1]):
        return {}
    matrix = np.array([[*row, *[np.nan] * (len(rows) - len(row))] for row in rows])
    found = continual.retention(matrix, "return")
    return {f"retention/{name}": float(value) for name, value in found.items()}


class Episodes:
    """Returns of episodes, by member and by task, and the clock of all members.

    Called after each step of the environments, it adds up each lane's rewards. An episode counts
    for the task in which it ended. A member's task is the earliest of its lanes': it is over with
    the last lane that leaves it.

    Attributes:
        steps: transitions of each member so far.
    """

    def __init__(self, members: int, lanes: int) -> None:
        self.steps = 0
        self._lanes = lanes
        self._returns = np.zeros(members * lanes)
        self._lengths = np.zeros(members * lanes, np.int64)
        self._ended: list[list[tuple[float, int]]] = [[] for _ in range(members)]
        self._recent: list[deque[float]] = [deque(maxlen=RECENT) for _ in range(members)]
        # Of each member, task index -> sum and number of returns, for tasks not yet written.
        self._tasks: list[dict[int, list[float]]] = [{} for _ in range(members)]
        self._task = np.zeros(members * lanes, np.int64)
        # Of each member, its task, and those that are over and not yet written: task, last step.
        self._present = np.zeros(members, np.int64)
        self._over: list[list[tuple[int, int]]] = [[] for _ in range(members)]

    def __call__(self, rewards: Array, ended: Array, info: Mapping[str, Any]) -> None:
        """Take one step of all lanes in, [lanes] each."""
        if "task" in info and not np.array_equal(info["task"], self._task):
            self._enter(info["task"])
        self.steps += self._lanes
        self._returns += rewards
        self._lengths += 1
        for lane in np.flatnonzero(ended):
            member, total = int(lane) // self._lanes, float(self._returns[lane])
            self._ended[member].append((total, int(self._lengths[lane])))
            self._recent[member].append(total)
            sums = self._tasks[member].setdefault(int(self._task[lane]), [0.0, 0.0])
            sums[0] += total
            sums[1] += 1
        self._returns[ended] = 0.0
        self._lengths[ended] = 0

    def _enter(self, tasks: Array) -> None:
        """Some lanes have taken this step in another task."""
        self._task = tasks.copy()
        present = self._task.reshape(-1, self._lanes).min(axis=1)
        for member in np.flatnonzero(present > self._present):
            first, last = int(self._present[member]), int(present[member])
            passed = [t for t in range(first + 1, last) if t in self._tasks[member]]
            self._over[member] += [(task, self.steps) for task in (first, *passed)]
        self._present = present

    def lines(self, member: int, over: bool) -> list[tuple[int, dict[str, float]]]:
        """What to write of a member, and at which step.

        Args:
            member: which.
            over: the run is over, and its last task with it.

        Returns:
            A line for each task that is over, ``task/return`` being nan where no episode ended in
            it, and the last for the window; that of the last task is the last.
        """
        ended, self._ended[member] = self._ended[member], []
        tasks, present = self._tasks[member], int(self._present[member])
        done, self._over[member] = self._over[member], []
        if over and (present or tasks):
            done += [
                (task, self.steps) for task in sorted({present, *tasks} - {t for t, _ in done})
            ]
        lines = []
        for task, step in done:
            total, count = tasks.pop(task, (math.nan, 1.0))
            lines.append((step, {"task/index": float(task), "task/return": total / count}))
        window = {}
        if ended:
            returns, lengths = zip(*ended, strict=True)
            window["online/return"] = sum(returns) / len(ended)
            window["online/episode_length"] = sum(lengths) / len(ended)
            recent = self._recent[member]
            window["online/return_of_100"] = sum(recent) / len(recent)
        window["online/episodes"] = float(len(ended))
        if over and lines:
            lines[-1][1].update(window)
        else:
            lines.append((self.steps, window))
        return lines

    def state_dict(self) -> dict[str, Any]:
        """Everything so far, in plain values."""
        return {
            "steps": self.steps,
            "returns": self._returns.tolist(),
            "lengths": self._lengths.tolist(),
            "ended": [[list(one) for one in own] for own in self._ended],
            "recent": [list(own) for own in self._recent],
            "tasks": [[[task, *sums] for task, sums in own.items()] for own in self._tasks],
            "task": self._task.tolist(),
            "present": self._present.tolist(),
            "over": [[list(one) for one in own] for own in self._over],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.steps = state["steps"]
        self._returns = np.array(state["returns"])
        self._lengths = np.array(state["lengths"], np.int64)
        self._ended = [[(total, length) for total, length in own] for own in state["ended"]]
        self._recent = [deque(own, RECENT) for own in state["recent"]]
        self._tasks = [
            {int(task): [total, count] for task, total, count in own} for own in state["tasks"]
        ]
        self._task = np.array(state["task"], np.int64)
        self._present = np.array(state["present"], np.int64)
        self._over = [[(task, step) for task, step in own] for own in state["over"]]
