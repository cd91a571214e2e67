"""What a method against forgetting is, and how several act together on a population."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from clrl.agents.population import Forward, Population
from clrl.errors import UsageError

Score = Callable[..., Tensor]
"""One learner's examples to a number each: takes `Forward` and a batch, gives [examples]."""

Examples = tuple[Tensor, ...]
"""Examples of one learner, [examples, ...] each, as a `Score` takes them."""


@dataclass(frozen=True)
class Learners:
    """What a method sees of the learners that it is for.

    Attributes:
        seeds: one a member.
        population: the learners.
        scores: log-likelihoods, up to sign, of what a learner's outputs say about an example,
            each of parts that are independent; what Fisher information is of.
        outputs: maps `Forward` and inputs [examples, ...] to outputs [examples, outputs].
        restart: makes all learners new, for a task: networks, and update rules without a past.
        num_outputs: of a learner.
        head_size: outputs that compete with each other; see `clrl.agents.supervised`.
    """

    seeds: Sequence[int]
    population: Population
    scores: Sequence[Score]
    outputs: Callable[[Forward, Tensor], Tensor]
    restart: Callable[[int], None]
    num_outputs: int
    head_size: int


class Method:
    """One method, at work for the members of a population.

    A subclass is constructed with `Learners` and its options as keywords. It acts at the ends of
    tasks, of which it is told, and around every update. Whatever it does around an update is
    elementwise: it is written for one learner's row of parameters, and holds for all rows at once.

    Attributes:
        agents: the agents that it is for.
        alone: it suits no other method beside it.
        examples: how many of the latest examples it is to be given when it consolidates.
        every: updates between two consolidations; None for the ends of tasks.
    """

    agents: ClassVar[tuple[str, ...]] = ("supervised",)
    alone: ClassVar[bool] = False
    examples: int = 0
    every: int | None = None

    def __init__(self, learners: Learners) -> None:
        self.learners = learners

    def observe(self, members: slice, rows: Tensor, gradients: Tensor) -> None:
        """See parameters and gradients of the loss before an update, [members, numbers] each."""

    def penalise(self, members: slice, rows: Tensor, gradients: Tensor) -> None:
        """Add the gradient of a penalty on the parameters; both [members, numbers]."""

    def after_step(self, members: slice, rows: Tensor) -> None:
        """See the parameters after an update."""

    def consolidate(self, members: Sequence[int], examples: Sequence[Examples]) -> None:
        """What has been learned is to be kept from now on.

        Args:
            members: whose task is over.
            examples: the latest examples of each of these, at most `examples` of them.
        """

    def kept(self) -> Mapping[str, Any]:
        """What is kept besides the learner: tensors [members, ...], or lists of them."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the future; what is kept, unless there is more."""
        return dict(self.kept())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name, value in state.items():
            setattr(self, f"_{name}", _copy(value))


class Consolidation:
    """Methods that act together, in order.

    Args:
        methods: the methods.
        members: of the population.
    """

    def __init__(self, methods: Sequence[Method], members: int) -> None:
        self.methods = tuple(methods)
        self.examples = max((method.examples for method in methods), default=0)
        self._members = members
        self._latest: list[Examples] = [() for _ in range(members)]
        self._updates = 0

    def before_step(self, members: slice, rows: Tensor, gradients: Tensor) -> None:
        """Let the methods see the gradients of the loss, then add those of their penalties."""
        for method in self.methods:
            method.observe(members, rows, gradients)
        for method in self.methods:
            method.penalise(members, rows, gradients)

    def after_step(self, members: slice, rows: Tensor) -> None:
        """Let the methods see the parameters after an update."""
        for method in self.methods:
            method.after_step(members, rows)

    def until_due(self) -> int | None:
        """Updates until a method consolidates that does so within tasks."""
        ahead = [m.every - self._updates % m.every for m in self.methods if m.every]
        return min(ahead, default=None)

    def learned(self, updates: int, *batches: Tensor) -> None:
        """Note updates, best not beyond `until_due`, and the examples they were on.

        Args:
            updates: how many.
            batches: as a `Score` takes them, [members, examples, ...] each.
        """
        if self.examples:
            for member in range(self._members):
                new = [batch[member, -self.examples :] for batch in batches]
                old = self._latest[member] or [value[:0] for value in new]
                self._latest[member] = tuple(
                    torch.cat([before, after])[-self.examples :]
                    for before, after in zip(old, new, strict=True)
                )
        before, self._updates = self._updates, self._updates + updates
        due = [m for m in self.methods if m.every and before // m.every != self._updates // m.every]
        self._consolidate(due, range(self._members))

    def end_task(self, members: Sequence[int]) -> None:
        """The task of some members is over."""
        self._consolidate([m for m in self.methods if not m.every], members)
        for member in members:
            self._latest[member] = ()

    def _consolidate(self, methods: Sequence[Method], members: Sequence[int]) -> None:
        for method in methods:
            latest = [
                tuple(value[-method.examples :] for value in self._latest[member])
                if method.examples
                else ()
                for member in members
            ]
            method.consolidate(members, latest)

    @property
    def memory(self) -> float:
        """Bytes that are kept for one learner, besides its parameters and its optimizer."""
        return _bytes([self._latest, *(m.kept() for m in self.methods)]) / self._members

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the future."""
        return {
            "latest": [list(own) for own in self._latest],
            "updates": self._updates,
            "methods": [method.state_dict() for method in self.methods],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, for the same methods."""
        self._latest = [tuple(value.clone() for value in own) for own in state["latest"]]
        self._updates = state["updates"]
        for method, own in zip(self.methods, state["methods"], strict=True):
            method.load_state_dict(own)


def check_methods(names: Sequence[str], methods: Sequence[type[Method]], agent: str) -> None:
    """Whether methods suit an agent, and each other.

    Args:
        names: what the user calls them.
        methods: their classes.
        agent: the agent's name.

    Raises:
        UsageError: one does not.
    """
    for name, method in zip(names, methods, strict=True):
        if agent not in method.agents:
            suits = " and ".join(method.agents)
            raise UsageError(f"consolidation: {name} is for {suits}, got the agent {agent}")
        if method.alone and len(methods) > 1:
            raise UsageError(f"consolidation: {name} suits no other method beside it")


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(_bytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_bytes, value))
    return 0


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, list):
        return [_copy(one) for one in value]
    return value
