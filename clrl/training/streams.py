"""The loop over streams: examples in, updates, measurements out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clrl.agents.device import CPU
from clrl.agents.networks import Network
from clrl.agents.supervised import Supervised
from clrl.agents.table import AGENTS, NETWORKS
from clrl.benchmarks import BENCHMARKS
from clrl.envs.streams.base import Stream
from clrl.metrics import continual
from clrl.options import as_keywords
from clrl.settings.config import RunConfig
from clrl.training.diagnostics import PROBE_EXAMPLES, Diagnostics
from clrl.training.fitting import check_agent, check_batch_size
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

_BLOCK_UPDATES = 100
"""Updates between two looks at the losses; a block's examples fit the processor's cache."""


class Training(Loop):
    """A population of runs that differ in nothing but their seed.

    The loop hands each member its own stream, lets the agent learn a block of examples and
    adds up what it measured. At every ``log_every`` examples and at every change of task the
    sums become one line a member.

    Args:
        config: what a run is.
        seeds: one a member.
        device: what learners compute on; streams stay on the CPU.

    Raises:
        UsageError: the agent acts in control tasks; the batch size does not divide ``steps``,
            ``log_every`` or the task length; or the benchmark's data cannot be had.
    """

    def __init__(self, config: RunConfig, seeds: Sequence[int], device: torch.device = CPU) -> None:
        self.config = config
        self.seeds = list(seeds)
        make_stream = BENCHMARKS.find(config.benchmark.name).load()
        check_agent(config, acts=False)
        options = as_keywords(config.benchmark.options)
        self.streams: list[Stream] = [make_stream(seed, **options) for seed in self.seeds]
        stream = self.streams[0]
        make_network = NETWORKS.find(config.network.name).load()

        def network(generator: torch.Generator) -> Network:
            made: Network = make_network(
                stream.input_size, stream.num_outputs, config.network.options, generator
            )
            return made

        # What only some problems have is given only to agents that have to do with it.
        more: dict[str, Any] = {}
        if stream.num_tasks:
            more |= {"num_outputs": stream.num_outputs, "head_size": stream.head_size}
        if config.consolidation:
            more["consolidation"] = methods(config, stream.kind)
            more["num_outputs"] = stream.num_outputs
        if config.penalties:
            more["penalties"] = penalties(config, acts=False)
        make_agent = AGENTS.find(config.agent.name).load()
        self.agent: Supervised = make_agent(
            self.seeds,
            stream.kind,
            network,
            update_rule(config),
            config.agent.options,
            config.chunk_size,
            **taken(config, make_agent, more, "supervised"),
            **placed(make_agent, device),
            **engine_of(config, make_agent),
        )
        self.diagnostics = Diagnostics(self.agent.population, config.metrics)
        self.step = 0
        self.clock = Clock()
        self._buffers: dict[int, tuple[Tensor, Tensor]] = {}
        self._window = Sums()
        self._task = Sums()
        self._samples = Sums()
        self._retention = Retention(self.agent, self.streams)
        lengths = {
            "steps": config.steps,
            "log_every": config.log_every,
            "task_length": stream.task_length,
            "first_task_length": stream.first_task_length,
        }
        check_batch_size(self.agent.options.batch_size, lengths)

    def steps(self, sinks: Mapping[int, Sink]) -> Iterator[int]:
        """Train block by block: yields the step after each block, up to the last.

        Ends early where every member has diverged.
        """
        self.clock.start(self.step)
        while self.step < self.config.steps and not all(self._frozen()):
            if self.step == 0:
                self._write(sinks, self._begin_task())
            self._learn_block()
            values = self._at_boundary()
            if values:
                self._write(sinks, {**values, **self.clock.values(self.step, len(self.seeds))})
            yield self.step

    def _learn_block(self) -> None:
        """Learn up to the next point at which something is measured."""
        options, batch = self.agent.options, self.agent.options.batch_size
        stream = self.streams[0]
        lengths = (
            self.config.steps,
            self.config.log_every,
            _BLOCK_UPDATES * batch,
            options.diagnose_every * batch,
        )
        ahead = [length - self.step % length for length in lengths]
        ahead.insert(0, stream.task_start(stream.task + 1) - self.step)
        count = min(ahead)
        x, y = self.next_examples(count)
        results = self.agent.learn(x, y)
        self.step += count
        sums = {key: value.double().sum(dim=1) for key, value in results.items()}
        self._window.add(sums, count // batch)
        self._task.add(sums, count // batch)
        if ahead[-1] == count:
            after = self.agent.last_batch_loss(x, y)
            before = results["loss"][:, -1]
            self._samples.add(
                {
                    **self.diagnostics.of_losses(before, after),
                    **self.diagnostics.of_gradients(),
                }
            )
        self.agent.population.freeze_diverged(results["loss"])

    def next_examples(self, count: int) -> tuple[Tensor, Tensor]:
        """Every member's next examples, [members, count, ...], in buffers that are reused."""
        if count not in self._buffers:
            stream, members = self.streams[0], len(self.streams)
            x = torch.empty(members, count, stream.input_size)
            if stream.kind == "classification":
                y = torch.empty(members, count, dtype=torch.int64)
            else:
                y = torch.empty(members, count, stream.num_outputs)
            self._buffers[count] = (x, y)
        x, y = self._buffers[count]
        for stream, own_x, own_y in zip(self.streams, x.numpy(), y.numpy(), strict=True):
            stream.fill(own_x, own_y)
        return x, y

    def _at_boundary(self) -> dict[str, Tensor]:
        """What is to be written at this step; nothing between boundaries."""
        values: dict[str, Tensor] = {}
        end = self.step == self.config.steps
        if self.step % self.config.log_every == 0 or end:
            values |= {f"online/{key}": value for key, value in self._window.means().items()}
            values |= self._samples.means()
            values |= self.diagnostics.of_weights()
            self.agent.population.mark_safe()
        stream = self.streams[0]
        index = stream.task_at(self.step - 1)
        over = stream.task != index
        if over or end:
            values |= {f"task/{key}": value for key, value in self._task.means().items()}
            values["task/index"] = torch.full((len(self.seeds),), float(index))
            if self.config.consolidation or getattr(self.agent.population, "needs_changes", False):
                self.agent.end_task()
            values |= self._retention.after(index)
        if over and not end:
            if getattr(self.agent.options, "reset_at_change", False):
                self.agent.restart(stream.task)
            values |= self._begin_task()
        return values

    def _begin_task(self) -> dict[str, Tensor]:
        """The unit metrics at the start of a task, before any training on it."""
        probes = (torch.from_numpy(stream.probe(PROBE_EXAMPLES)) for stream in self.streams)
        return self.diagnostics.of_features(probes)

    def _write(self, sinks: Mapping[int, Sink], values: Mapping[str, Tensor]) -> None:
        columns = {key: value.tolist() for key, value in values.items()}
        for member, (seed, frozen) in enumerate(zip(self.seeds, self._frozen(), strict=True)):
            if not frozen:
                sinks[seed].write(
                    self.step, {key: column[member] for key, column in columns.items()}
                )

    def check_state(self) -> None:
        """See `clrl.training.loop.Loop.check_state`."""
        self.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the runs' future: agent, streams, windows, position."""
        return {
            "step": self.step,
            "agent": self.agent.state_dict(),
            "streams": [stream.state_dict() for stream in self.streams],
            "window": self._window.state_dict(),
            "task": self._task.state_dict(),
            "samples": self._samples.state_dict(),
            "retention": self._retention.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, for the same configuration and seeds."""
        self.step = state["step"]
        self.agent.load_state_dict(state["agent"])
        for stream, own in zip(self.streams, state["streams"], strict=True):
            stream.load_state_dict(own)
        self._window.load_state_dict(state["window"])
        self._task.load_state_dict(state["task"])
        self._samples.load_state_dict(state["samples"])
        self._retention.load_state_dict(state["retention"])


class Retention:
    """How well every task is known after each, where tasks stay testable.

    Args:
        agent: the learners.
        streams: one a member.
    """

    def __init__(self, agent: Supervised, streams: Sequence[Stream]) -> None:
        self._agent = agent
        self._streams = streams
        tasks = streams[0].num_tasks
        self._examples = agent.options.test_examples if tasks else 0
        self._tasks = tasks or 0
        # Rows of the matrix so far, [members, tasks] each.
        self._rows: list[Tensor] = []

    def after(self, task: int) -> dict[str, Tensor]:
        """What is to be written at the end of a task, [members] each; nothing where none is."""
        if not self._examples:
            return {}
        row = [self._accuracy(i) for i in range(self._tasks)]
        self._rows.append(torch.stack(row, dim=1))
        values = {f"retention/accuracy/{i}": value for i, value in enumerate(row)}
        known = len(self._rows)
        if known <= self._tasks:
            matrix = torch.stack(self._rows, dim=1)[:, :, :known].numpy()
            values |= {
                f"retention/{name}": torch.from_numpy(value)
                for name, value in continual.retention(matrix, "accuracy").items()
            }
        members = len(self._streams)
        values["cost/examples"] = torch.full((members,), float(self._agent.examples_learned))
        memory = self._agent.consolidation.memory / 1e6
        values["cost/memory"] = torch.full((members,), memory)
        return values

    def _accuracy(self, task: int) -> Tensor:
        tests = [stream.test(task, self._examples) for stream in self._streams]
        x, y = (torch.from_numpy(np.stack(column)) for column in zip(*tests, strict=True))
        return self._agent.accuracy(x, y)

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": list(self._rows)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._rows = list(state["rows"])
