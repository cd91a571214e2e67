"""The loop for control tasks: rollouts in, updates, measurements out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clrl.agents.arrays import TorchArrays
from clrl.agents.device import CPU
from clrl.agents.networks import Network
from clrl.agents.table import AGENTS, NETWORKS
from clrl.envs.benchmarks import BENCHMARKS
from clrl.envs.control import vector_of
from clrl.envs.state import load_state_dict, state_dict
from clrl.errors import UsageError
from clrl.metrics import continual
from clrl.options import as_keywords
from clrl.seeding import derived_seed
from clrl.settings.config import RunConfig
from clrl.training.diagnostics import PROBE_EXAMPLES, Diagnostics
from clrl.training.loop import Clock, Loop, Sink, Sums, methods, penalties, placed, update_rule
from clrl.training.trials import Trials

RECENT = 100
"""Episodes of the running average of returns."""

Array = NDArray[Any]


class ControlTraining(Loop):
    """A population of runs on a control task that differ in nothing but their seed.

    Each member steps environments of its own; all members' environments are one vector
    environment, with a world for each member. A step is one of one environment, those that
    only reset it included. After every iteration of the agent (a rollout and an update) that
    passes a multiple of ``log_every`` there is a line a member.

    An agent is constructed with (seeds, observation space, action space, function that makes a
    network from (inputs, outputs, generator, gain of the last layer), update rule, options, chunk
    size), and where it is asked for ``consolidation`` and ``device``. It has:
    ``options.num_envs``; ``steps_per_iteration``; ``reset(observations)``; ``iterate(envs, watch,
    remaining)``, which gives tensors [members] to record; ``population``; ``probe(examples)``;
    and ``state_dict`` with ``load_state_dict``. One that can be tested and played has ``answer``,
    ``draw``, ``take_member`` and ``tasks`` besides, as `clrl.agents.PPO` documents them.

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
        lanes = getattr(config.agent.options, "num_envs", None)
        if lanes is None:
            raise UsageError(
                f"benchmark: {config.benchmark.name} is a control task, and "
                f"{config.agent.short_name} learns from streams; expected an agent such as ppo"
            )
        recipe = BENCHMARKS.find(config.benchmark.name).load()
        recipe = recipe(**as_keywords(config.benchmark.options))
        arrays = None if device == CPU else TorchArrays(device)
        self.envs = vector_of(recipe, lanes * len(self.seeds), len(self.seeds), arrays=arrays)
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
            **more,
            **placed(make_agent, device),
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
            remaining = 1 - self.step / self.config.steps
            more = {"over": self._tests.after} if self._tests else {}
            results = self.agent.iterate(self.envs, self._episodes, remaining, **more)
            self.step += self.agent.steps_per_iteration
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
            lines[-1] |= {key: column[member] for key, column in columns.items()}
            if self._tests:
                self._tests.add_to(member, lines)
            for line in lines:
                sinks[seed].write(self.step, line)

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
    that training is not disturbed by a bit.

    Args:
        recipe: the benchmark.
        agent: the learners; has ``answer`` and ``tasks``, and ``options.test_episodes``.
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
        if not self.trials.has_tasks:
            raise UsageError(
                "agent.test_episodes: expected 0, since this benchmark has no tasks to come back "
                f"to, got {episodes}"
            )
        # Of each member, the rows of its matrix of returns, and those still to be written.
        self._rows: list[list[list[float]]] = [[] for _ in seeds]
        self._waiting: list[dict[int, dict[str, float]]] = [{} for _ in seeds]

    def after(self, tasks: Array) -> None:
        """Test the members whose task is over; `tasks` are those that were, [members]."""
        self._test(tasks, np.flatnonzero(self._agent.tasks != tasks))

    def at_end(self) -> None:
        """Test all members, whose last task is over."""
        self._test(self._agent.tasks, np.arange(len(self._seeds)))

    def _test(self, tasks: Array, members: Array) -> None:
        values = [self.trials.values(member, int(task)) for member, task in enumerate(tasks)]
        rows: list[list[float]] = [[] for _ in self._seeds]
        for index in range(max(len(values[member]) for member in members)):
            held = [own[min(index, len(own) - 1)] for own in values]
            of_episodes = self.trials.returns(self._agent.answer, index, np.stack(held))
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
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._rows = [[list(row) for row in own] for own in state["rows"]]
        self._waiting = [dict(own) for own in state["waiting"]]


def _summary(rows: Sequence[Sequence[float]]) -> dict[str, float]:
    """Figures of a matrix of which each row has the tasks so far; none once tasks come again."""
    if len(rows) != len(rows[-1]):
        return {}
    matrix = np.array([[*row, *[np.nan] * (len(rows) - len(row))] for row in rows])
    found = continual.retention(matrix, "return")
    return {f"retention/{name}": float(value) for name, value in found.items()}


class Episodes:
    """Returns of episodes, by member and by task.

    Called after each step of the environments, it adds up each lane's rewards. An episode counts
    for the task in which it ended.
    """

    def __init__(self, members: int, lanes: int) -> None:
        self._lanes = lanes
        self._returns = np.zeros(members * lanes)
        self._lengths = np.zeros(members * lanes, np.int64)
        self._ended: list[list[tuple[float, int]]] = [[] for _ in range(members)]
        self._recent: list[deque[float]] = [deque(maxlen=RECENT) for _ in range(members)]
        # Of each member, task index -> sum and number of returns, for tasks not yet written.
        self._tasks: list[dict[int, list[float]]] = [{} for _ in range(members)]
        self._task = np.zeros(members * lanes, np.int64)

    def __call__(self, rewards: Array, ended: Array, valid: Array, info: Mapping[str, Any]) -> None:
        """Take one step of all lanes in, [lanes] each."""
        self._returns += np.where(valid, rewards, 0.0)
        self._lengths += valid
        if "task" in info:
            self._task = info["task"]
        for lane in np.flatnonzero(ended):
            member, total = int(lane) // self._lanes, float(self._returns[lane])
            self._ended[member].append((total, int(self._lengths[lane])))
            self._recent[member].append(total)
            sums = self._tasks[member].setdefault(int(self._task[lane]), [0.0, 0.0])
            sums[0] += total
            sums[1] += 1
        self._returns[ended] = 0.0
        self._lengths[ended] = 0

    def lines(self, member: int, over: bool) -> list[dict[str, float]]:
        """What to write of a member: a line for each task that is over, the last for the window.

        Args:
            member: which.
            over: the run is over, and its last task with it.
        """
        ended, self._ended[member] = self._ended[member], []
        first = member * self._lanes
        present = int(self._task[first : first + self._lanes].min())
        tasks = self._tasks[member]
        done = sorted(task for task in tasks if over or task < present)
        lines = []
        for task in done:
            total, count = tasks.pop(task)
            lines.append({"task/index": float(task), "task/return": total / count})
        window = {}
        if ended:
            returns, lengths = zip(*ended, strict=True)
            window["online/return"] = sum(returns) / len(ended)
            window["online/episode_length"] = sum(lengths) / len(ended)
            recent = self._recent[member]
            window["online/return_of_100"] = sum(recent) / len(recent)
        window["online/episodes"] = float(len(ended))
        if not lines:
            return [window]
        lines[-1] |= window
        return lines

    def state_dict(self) -> dict[str, Any]:
        """Everything so far, in plain values."""
        return {
            "returns": self._returns.tolist(),
            "lengths": self._lengths.tolist(),
            "ended": [[list(one) for one in own] for own in self._ended],
            "recent": [list(own) for own in self._recent],
            "tasks": [[[task, *sums] for task, sums in own.items()] for own in self._tasks],
            "task": self._task.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._returns = np.array(state["returns"])
        self._lengths = np.array(state["lengths"], np.int64)
        self._ended = [[(total, length) for total, length in own] for own in state["ended"]]
        self._recent = [deque(own, RECENT) for own in state["recent"]]
        self._tasks = [
            {int(task): [total, count] for task, total, count in own} for own in state["tasks"]
        ]
        self._task = np.array(state["task"], np.int64)
