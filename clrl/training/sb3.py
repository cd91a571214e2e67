"""The loop for Stable-Baselines3's algorithms, which bring their own: a callback measures."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from clrl.agents.sb3 import Diverged, Learner, own_generators
from clrl.agents.table import AGENTS
from clrl.benchmarks import BENCHMARKS
from clrl.envs.control import Benchmark, vector_of
from clrl.envs.state import load_state_dict, state_dict
from clrl.errors import UsageError
from clrl.options import as_keywords
from clrl.settings.config import RunConfig
from clrl.training.control import Episodes
from clrl.training.diagnostics import PROBE_EXAMPLES, Diagnostics
from clrl.training.loop import Clock, Sink, update_rule

_REPORT_EVERY = 0.1
"""Seconds between two reports of progress, at least."""

Array = NDArray[Any]


class SB3Training:
    """Runs of a Stable-Baselines3 algorithm that differ in nothing but their seed.

    Learners are trained one after another, each on environments of its own that share a sequence
    of tasks. An environment that ends is reset in the same step, so every step is experience.
    After every update that passes a multiple of ``log_every`` there is a line, with the tags of
    `clrl.training.control.ControlTraining`; what the algorithm logs of its training is under its
    name in small letters, such as ``ppo/value_loss``. The probe is the latest observations.

    Args:
        config: what a run is.
        seeds: one a learner.

    Raises:
        UsageError: algorithm, environment, network and options do not suit.
    """

    def __init__(self, config: RunConfig, seeds: Sequence[int]) -> None:
        if config.network.name != "mlp":
            raise UsageError(
                f"network: {config.agent.name} builds its own; expected mlp, "
                f"got {config.network.name}"
            )
        self.config = config
        self.seeds = list(seeds)
        self._make: Callable[..., Learner] = AGENTS.find(config.agent.name).load()
        self._rule = update_rule(config)
        recipe = BENCHMARKS.find(config.benchmark.name).load()
        self._recipe: Benchmark = recipe(**as_keywords(config.benchmark.options))
        self.lanes: int = config.agent.options.num_envs
        self.clock = Clock()
        self._states: dict[str, str] = {}  # how learners ended, by seed
        self._present: _Present | None = None
        self._to_load: Mapping[str, Any] | None = None
        with own_generators():
            self.learner(self.seeds[0], self.envs(), _Seen(self.lanes))  # whether it can be made

    def envs(self) -> VectorEnv[Any, Any, Any]:
        """Environments for one learner."""
        return vector_of(self._recipe, self.lanes, 1, AutoresetMode.DISABLED)

    def learner(self, seed: int, envs: VectorEnv[Any, Any, Any], seen: _Seen) -> Learner:
        """A learner at its start."""
        options = self.config.agent.options
        return self._make(seed, envs, self.config.network.options, self._rule, options, seen)

    @property
    def step(self) -> int:
        """Steps that all learners together have taken."""
        present = self._present.learner.model.num_timesteps if self._present else 0
        return len(self._states) * self.config.steps + int(present)

    def run(
        self,
        sinks: Mapping[int, Sink],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> dict[int, str]:
        """Train to the end; see `clrl.training.loop.Loop.run`.

        A learner that diverges stops, and the next one begins. A safe point is the start of a
        rollout.
        """
        steps, total = self.config.steps, self.config.steps * len(self.seeds)
        for done, seed in enumerate(self.seeds):
            if str(seed) in self._states:
                continue

            def report(step: int, before: int = done * steps) -> None:
                progress(before + min(step, steps), total)

            with own_generators():
                self._present = _Present(self, seed, sinks[seed], report)
                if self._to_load is None:
                    self.clock = Clock()
                else:
                    self._present.load_state_dict(self._to_load)
                    self._to_load = None
                self.clock.start(self.step)
                self._states[str(seed)] = self._present.run()
                self._present = None
            progress((done + 1) * steps, total)
        return {seed: self._states[str(seed)] for seed in self.seeds}

    def evenness(self) -> str:
        """See `clrl.training.loop.Loop.evenness`: they never meet."""
        return "one seed after another"

    def check_state(self) -> None:
        """See `clrl.training.loop.Loop.check_state`: some environments cannot be read."""
        state_dict(self.envs())

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the runs' future: how learners ended, and the present one."""
        return {
            "states": dict(self._states),
            "present": self._present and self._present.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, for the same configuration and seeds."""
        self._states = dict(state["states"])
        self._to_load = state["present"]


class _Present:
    """The learner that is being trained, its environments, and what it has seen."""

    def __init__(
        self, training: SB3Training, seed: int, sink: Sink, report: Callable[[int], None]
    ) -> None:
        self._steps = training.config.steps
        self.seen = _Seen(training.lanes)
        self._envs = training.envs()
        self.learner = training.learner(seed, self._envs, self.seen)
        self._measuring = _Measuring(training, self.learner, self.seen, sink, report)

    def run(self) -> str:
        """Train to the end, and say how it ended."""
        try:
            self.learner.learn(self._steps, self._measuring)
        except Diverged:
            return "diverged"
        return "finished"

    def state_dict(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state_dict(),
            "envs": state_dict(self._envs),
            "seen": self.seen.state_dict(),
            "logged": self._measuring.logged,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        load_state_dict(self._envs, state["envs"])
        self.seen.load_state_dict(state["seen"])
        self._measuring.logged = state["logged"]


class _Seen:
    """What a learner has seen: its latest observations, and the returns of its episodes."""

    def __init__(self, lanes: int) -> None:
        self.episodes = Episodes(1, lanes)
        self._latest: deque[Array] = deque(maxlen=-(-PROBE_EXAMPLES // lanes))

    def __call__(
        self, observations: Array, rewards: Array, ended: Array, info: Mapping[str, Any]
    ) -> None:
        """Take one step of all lanes in."""
        self._latest.append(observations)
        self.episodes(rewards, ended, info)

    def state_dict(self) -> dict[str, Any]:
        """Everything so far."""
        latest = [torch.from_numpy(observations) for observations in self._latest]
        return {"episodes": self.episodes.state_dict(), "latest": latest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.episodes.load_state_dict(state["episodes"])
        self._latest.extend(observations.numpy() for observations in state["latest"])

    def probe(self) -> Tensor:
        """The latest observations, [examples, size]."""
        latest = np.concatenate(self._latest)[-PROBE_EXAMPLES:]
        return torch.from_numpy(latest.astype(np.float32))


class _Measuring(BaseCallback):
    """Writes a run's lines while Stable-Baselines3 trains.

    Attributes:
        logged: the step up to which lines have been written, or would have been.
    """

    def __init__(
        self,
        training: SB3Training,
        learner: Learner,
        seen: _Seen,
        sink: Sink,
        report: Callable[[int], None],
    ) -> None:
        super().__init__()
        self._training = training
        self._config = training.config
        self._learner = learner
        self._seen = seen
        self._sink = sink
        self._report = report
        population: Any = learner  # of one member
        self._diagnostics = Diagnostics(population, training.config.metrics)
        self.logged = 0
        self._reported = time.monotonic()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        """After an update, or before the first."""
        step, every = self.num_timesteps, self._config.log_every
        if self.logged // every != step // every:
            self._log(step)
        self.logged = step
        now = time.monotonic()
        if now - self._reported >= _REPORT_EVERY:
            self._report(step)
            self._reported = now

    def _on_training_end(self) -> None:
        self._log(self.num_timesteps)

    def _log(self, step: int) -> None:
        name = self._config.agent.short_name.lower()
        values = {f"{name}/{key}": value for key, value in self._learner.losses().items()}
        tensors = self._diagnostics.of_features([self._seen.probe()])
        tensors |= self._diagnostics.of_gradients()
        tensors |= self._diagnostics.of_weights()
        self._learner.mark_safe()
        tensors |= self._training.clock.values(self._training.step, 1)
        values |= {key: value.item() for key, value in tensors.items()}
        lines = self._seen.episodes.lines(0, over=step >= self._config.steps)
        lines[-1][1].update(values)
        for at, line in lines:
            self._sink.write(at, line)
