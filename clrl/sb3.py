"""The loop for Stable-Baselines3's algorithms, which bring their own: a callback measures."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from clrl.agents.sb3 import Diverged, Learner, own_generators
from clrl.agents.table import AGENTS
from clrl.config import RunConfig
from clrl.control import Episodes
from clrl.diagnostics import PROBE_EXAMPLES, Diagnostics
from clrl.envs.benchmarks import BENCHMARKS
from clrl.envs.control import Benchmark, Stationary, vector_of
from clrl.errors import UsageError
from clrl.loop import Clock, Sink, update_rule
from clrl.options import as_keywords

_PROGRESS_EVERY = 1_000
"""Steps between two reports of progress, at least."""

Array = NDArray[Any]


class SB3Training:
    """Runs of a Stable-Baselines3 algorithm that differ in nothing but their seed.

    Learners are trained one after another, each on environments of its own that share a sequence
    of tasks. An environment that ends is reset in the same step, so every step is experience.
    After every update that passes a multiple of ``log_every`` there is a line, with the tags of
    `clrl.control.ControlTraining`; what the algorithm logs of its training is under its name in
    small letters, such as ``ppo/value_loss``. The probe is the latest observations.

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
        self._recipe: Benchmark | Stationary = recipe(**as_keywords(config.benchmark.options))
        with own_generators():
            self._learner(self.seeds[0], _Seen(self._lanes))  # whether it can be made

    @property
    def _lanes(self) -> int:
        lanes: int = self.config.agent.options.num_envs
        return lanes

    def _learner(self, seed: int, seen: _Seen) -> Learner:
        return self._make(
            seed,
            vector_of(self._recipe, self._lanes, 1, AutoresetMode.DISABLED),
            self.config.network.options,
            self._rule,
            self.config.agent.options,
            seen,
        )

    def run(
        self,
        sinks: Mapping[int, Sink],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> dict[int, str]:
        """Train to the end; see `clrl.loop.Loop.run`.

        A learner that diverges stops, and the next one begins.
        """
        steps, total = self.config.steps, self.config.steps * len(self.seeds)
        states = {}
        for done, seed in enumerate(self.seeds):

            def report(step: int, before: int = done * steps) -> None:
                progress(before + min(step, steps), total)

            with own_generators():
                states[seed] = self._run(seed, sinks[seed], report)
            report(steps)
        return states

    def _run(self, seed: int, sink: Sink, report: Callable[[int], None]) -> str:
        seen = _Seen(self._lanes)
        learner = self._learner(seed, seen)
        try:
            learner.learn(self.config.steps, _Measuring(self.config, learner, seen, sink, report))
        except Diverged:
            return "diverged"
        return "finished"


class _Seen:
    """What a learner has seen: its latest observations, and the returns of its episodes."""

    def __init__(self, lanes: int) -> None:
        self.episodes = Episodes(1, lanes)
        self._valid = np.ones(lanes, np.bool_)
        self._latest: deque[Array] = deque(maxlen=-(-PROBE_EXAMPLES // lanes))

    def __call__(
        self, observations: Array, rewards: Array, ended: Array, info: Mapping[str, Any]
    ) -> None:
        """Take one step of all lanes in."""
        self._latest.append(observations)
        self.episodes(rewards, ended, self._valid, info)

    def probe(self) -> Tensor:
        """The latest observations, [examples, size]."""
        latest = np.concatenate(self._latest)[-PROBE_EXAMPLES:]
        return torch.from_numpy(latest.astype(np.float32))


class _Measuring(BaseCallback):
    """Writes a run's lines while Stable-Baselines3 trains."""

    def __init__(
        self,
        config: RunConfig,
        learner: Learner,
        seen: _Seen,
        sink: Sink,
        report: Callable[[int], None],
    ) -> None:
        super().__init__()
        self._config = config
        self._learner = learner
        self._seen = seen
        self._sink = sink
        self._report = report
        population: Any = learner  # of one member
        self._diagnostics = Diagnostics(population)
        self._clock = Clock(0)
        self._before = self._reported = 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        """After an update, or before the first."""
        step, every = self.num_timesteps, self._config.log_every
        if self._before // every != step // every:
            self._log(step)
        self._before = step
        if step - self._reported >= _PROGRESS_EVERY:
            self._report(step)
            self._reported = step

    def _on_training_end(self) -> None:
        self._log(self.num_timesteps)

    def _log(self, step: int) -> None:
        name = self._config.agent.short_name.lower()
        values = {f"{name}/{key}": value for key, value in self._learner.losses().items()}
        tensors = self._diagnostics.of_features([self._seen.probe()])
        tensors |= self._diagnostics.of_gradients()
        tensors |= self._diagnostics.of_weights()
        self._learner.mark_safe()
        tensors |= self._clock.values(step, 1)
        values |= {key: value.item() for key, value in tensors.items()}
        lines = self._seen.episodes.lines(0, over=step >= self._config.steps)
        lines[-1] |= values
        for line in lines:
            self._sink.write(step, line)
