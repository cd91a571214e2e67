"""What every training loop shares: where measurements go, sums over windows, the clock."""

from __future__ import annotations

import abc
import functools
import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from clrl.agents.consolidation.base import Method, check_methods
from clrl.agents.consolidation.table import CONSOLIDATION
from clrl.agents.device import CPU
from clrl.agents.networks import Network
from clrl.agents.optim.base import AddOn
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.optim.table import ADDONS, OPTIMIZERS
from clrl.agents.penalties.base import Penalty
from clrl.agents.penalties.table import PENALTIES
from clrl.agents.table import AGENTS
from clrl.benchmarks import is_control
from clrl.errors import UsageError
from clrl.options import as_keywords
from clrl.settings.config import RunConfig


class Sink(Protocol):
    """Where one run's measurements go."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values measured at a step."""


def update_rule(config: RunConfig) -> UpdateRule:
    """The update rule that a configuration describes.

    Raises:
        UsageError: what stands for the optimizer is an add-on, or its examples would be in no
            order.
    """
    base = OPTIMIZERS.find(config.optimizer.name).load()
    if isinstance(base, type) and issubclass(base, AddOn):
        raise UsageError(
            f"optimizer: {config.optimizer.name} is an add-on; expected it under addons"
        )
    options = as_keywords(config.optimizer.options)
    if getattr(base, "needs_order", lambda _: False)(options) and _in_batches(config):
        raise UsageError(
            f"optimizer.trace: {config.optimizer.name} goes from one example to the next, and "
            f"{config.agent.name} learns from batches; expected 0, or a stream with "
            "agent.batch_size 1"
        )
    return UpdateRule(
        base,
        options,
        [(ADDONS.find(addon.name).load(), as_keywords(addon.options)) for addon in config.addons],
    )


def _in_batches(config: RunConfig) -> bool:
    """Whether the examples of an update are several, or stand in no order."""
    agent = AGENTS.find(config.agent.name)
    acts = is_control(config.benchmark.name) and agent.source == "built in"
    return acts or getattr(config.agent.options, "batch_size", 1) != 1


def methods(
    config: RunConfig, problem: str | None = None
) -> list[tuple[type[Method], dict[str, Any]]]:
    """The methods against forgetting that a configuration names, with their keywords.

    Args:
        config: what a run is.
        problem: the kind of its stream, if it is one.

    Raises:
        UsageError: they do not suit the agent, or each other.
    """
    names = [choice.name for choice in config.consolidation]
    classes = [CONSOLIDATION.find(name).load() for name in names]
    check_methods(names, classes, config.agent.short_name, problem)
    keywords = [as_keywords(choice.options) for choice in config.consolidation]
    return list(zip(classes, keywords, strict=True))


def penalties(config: RunConfig, acts: bool = True) -> list[Callable[[Network], Penalty]]:
    """What makes the penalties on the loss that a configuration names, given a network.

    Args:
        config: what a run is.
        acts: whether its agent collects experience.

    Raises:
        UsageError: one of them goes by experience, and there is none.
    """
    made: list[Callable[[Network], Penalty]] = []
    for choice in config.penalties:
        make = PENALTIES.find(choice.name).load()
        if not acts and getattr(make, "needs_experience", False):
            raise UsageError(
                f"penalties: {choice.name} goes by what an agent collects, and "
                f"{config.benchmark.name} is a stream; expected a control task with ppo"
            )
        made.append(functools.partial(make, **as_keywords(choice.options)))
    return made


def taken(
    config: RunConfig, make_agent: Callable[..., Any], more: dict[str, Any], such: str
) -> dict[str, Any]:
    """Keywords that an agent is given in some runs only, as they are.

    Args:
        config: what a run is.
        make_agent: its agent.
        more: the keywords.
        such: an agent that takes them all.

    Raises:
        UsageError: it has no parameter of one of these names.
    """
    for name in more:
        if not _takes(make_agent, name):
            agent = config.agent.name
            raise UsageError(f"agent: {agent} takes no {name}; expected one such as {such}")
    return more


def engine_of(config: RunConfig, make_agent: Callable[..., Any]) -> dict[str, str]:
    """The keyword by which an agent learns how to compute updates: none where it has no choice.

    Raises:
        UsageError: it has none, and one was made.
    """
    if _takes(make_agent, "engine"):
        return {"engine": config.engine}
    if config.engine == "compiled":
        raise UsageError(f"engine: {config.agent.name} takes no engine; expected auto or replay")
    return {}


def _takes(make_agent: Callable[..., Any], name: str) -> bool:
    parameters = inspect.signature(make_agent).parameters
    return name in parameters or any(
        one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()
    )


def placed(make_agent: Callable[..., Any], device: torch.device) -> dict[str, torch.device]:
    """The keywords by which an agent learns where to compute: none for the CPU.

    Raises:
        UsageError: it computes on the CPU alone, having no parameter ``device``.
    """
    if device == CPU:
        return {}
    if not _takes(make_agent, "device"):
        name = getattr(make_agent, "__name__", make_agent)
        raise UsageError(f"--device {device}: {name} takes no device; expected --device cpu")
    return {"device": device}


class Loop(abc.ABC):
    """What trains a population of runs that differ in nothing but their seed.

    Attributes:
        config: what a run is.
        seeds: one a member.
        agent: the learners; it has a ``population``.
        step: how far every member is.
        clock: how long it takes.
    """

    config: RunConfig
    seeds: list[int]
    agent: Any
    step: int
    clock: Clock

    @abc.abstractmethod
    def steps(self, sinks: Mapping[int, Sink]) -> Iterator[int]:
        """Train piece by piece: yields the step after each, up to the last."""

    def run(
        self,
        sinks: Mapping[int, Sink],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> dict[int, str]:
        """Train to the end.

        Args:
            sinks: seed to where its measurements go.
            progress: called at safe points, where `state_dict` may be asked for, with steps
                taken so far and in all, over all members.

        Returns:
            Seed to ``"finished"`` or ``"diverged"``.
        """
        total = self.config.steps * len(self.seeds)
        for _ in self.steps(sinks):
            progress(min(self.step, self.config.steps) * len(self.seeds), total)
        return {
            seed: "diverged" if frozen else "finished"
            for seed, frozen in zip(self.seeds, self._frozen(), strict=True)
        }

    @abc.abstractmethod
    def check_state(self) -> None:
        """See whether `state_dict` will be possible once training has begun.

        Raises:
            UsageError: it will not.
        """

    def evenness(self) -> str:
        """How members are kept the same alone and among others; see `Population.evenness`."""
        text: str = self.agent.population.evenness()
        return text

    def _frozen(self) -> list[bool]:
        frozen: list[bool] = self.agent.population.frozen.tolist()
        return frozen


class Sums:
    """Sums of measurements since the last time their means were taken, a member apart."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, sums: Mapping[str, Tensor], count: int = 1) -> None:
        """Add so many measurements, each summed up to [members], on any device."""
        for key, value in sums.items():
            before = self._sums.get(key)
            value = value.to("cpu", torch.float64)
            self._sums[key] = value if before is None else before + value
        self._count += count

    def means(self) -> dict[str, Tensor]:
        """Mean of each measurement, [members]; starts the sums anew."""
        means = {key: value / self._count for key, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """The sums so far."""
        return {"sums": dict(self._sums), "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._sums, self._count = dict(state["sums"]), state["count"]


class Clock:
    """Wall time and rate; the only measurements that differ between equal runs.

    Attributes:
        elapsed_before: seconds that earlier attempts at the same run took.
    """

    def __init__(self) -> None:
        self.elapsed_before = 0.0
        self._first: tuple[float, int] | None = None

    def start(self, step: int) -> None:
        """Begin to count, at a step."""
        self._first = (time.perf_counter(), step)

    def elapsed(self) -> float:
        """Seconds of training so far, over all attempts."""
        now = 0.0 if self._first is None else time.perf_counter() - self._first[0]
        return self.elapsed_before + now

    def values(self, step: int, members: int) -> dict[str, Tensor]:
        """Seconds since the start, and steps a second lately, of each member, [members]."""
        assert self._first is not None
        rate = (step - self._first[1]) / (time.perf_counter() - self._first[0])
        return {
            "time/elapsed": torch.full((members,), self.elapsed()),
            "time/steps_per_second": torch.full((members,), rate),
        }
