"""Which loop a configuration needs, what it loads ahead of time, and how fast it trains."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from clrl.agents.device import CPU, device_of
from clrl.agents.options import SB3Options
from clrl.agents.table import AGENTS
from clrl.benchmarks import BENCHMARKS, is_control
from clrl.envs.control import vector_of
from clrl.errors import UsageError
from clrl.options import as_keywords
from clrl.settings.config import RunConfig
from clrl.training.control import ControlTraining
from clrl.training.streams import Training

if TYPE_CHECKING:
    from clrl.training.sb3 import SB3Training


def training(
    config: RunConfig, seeds: Sequence[int], device: str = "cpu"
) -> Training | ControlTraining | SB3Training:
    """The loop that a configuration needs: for a stream, or for a control task.

    Args:
        config: what a run is.
        seeds: one a member.
        device: what learners compute on, such as ``cuda``.

    Raises:
        UsageError: there is no such device, or the agent cannot do with it; see `Training`,
            `ControlTraining` and `clrl.training.sb3.SB3Training`.
    """
    chosen = device_of(device)
    if chosen != CPU and config.consolidation:
        raise UsageError(
            f"--device {device}: methods against forgetting compute on the CPU; expected "
            "--device cpu"
        )
    acts = is_control(config.benchmark.name)
    if acts and isinstance(config.agent.options, SB3Options):
        if config.penalties:
            raise UsageError(
                f"penalties: {config.agent.name} has a loss of its own; expected none, or an "
                "agent such as ppo"
            )
        if chosen != CPU:
            raise UsageError(
                f"--device {device}: {config.agent.name} trains its seeds one after another, on "
                "the CPU; expected --device cpu, or an agent such as ppo"
            )
        from clrl.training.sb3 import SB3Training  # loads Stable-Baselines3

        return SB3Training(config, seeds)
    return (ControlTraining if acts else Training)(config, seeds, chosen)


def prepare(config: RunConfig) -> None:
    """Load what all populations of a configuration share: data, simulators, libraries."""
    AGENTS.find(config.agent.name).load()
    make = BENCHMARKS.find(config.benchmark.name).load()
    options = as_keywords(config.benchmark.options)
    if is_control(config.benchmark.name):
        vector_of(make(**options), 1, 1).close()
    else:
        make(0, **options)
    if isinstance(config.agent.options, SB3Options):
        importlib.import_module("clrl.training.sb3")
    # The first optimizer has torch load its compiler, which takes seconds: last, so that nobody
    # waits for it whose data are not there.
    torch.optim.SGD([torch.zeros(1)])


def measure(config: RunConfig, seeds: Sequence[int], seconds: float, device: str = "cpu") -> float:
    """Steps a second of a population, over all members, from so many seconds of training.

    They begin at the second safe point, since much is set up before the first. What is measured
    in training goes nowhere.
    """
    loop = training(config, seeds, device)
    points: list[tuple[float, int]] = []

    def look(done: int, total: int) -> None:
        points.append((time.perf_counter(), done))
        if len(points) > 1 and points[-1][0] - points[min(1, len(points) - 2)][0] >= seconds:
            raise _Measured

    with contextlib.suppress(_Measured):
        loop.run(dict.fromkeys(seeds, _Nowhere()), look)
    (first, before), (last, after) = points[min(1, len(points) - 2)], points[-1]
    return (after - before) / (last - first)


class _Measured(Exception):
    pass


class _Nowhere:
    def write(self, step: int, values: Mapping[str, float]) -> None:
        pass
