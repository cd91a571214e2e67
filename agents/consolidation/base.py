"""What a method against forgetting is, and how several act together on a population."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clrl.agents.actions import Actions
from clrl.agents.calling import Forward
from clrl.agents.compiled import Snapshot
from clrl.agents.population import Population
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
        outputs: maps `Forward` and inputs [examples, ...] to outputs [examples, outputs]; of PPO
            all that its networks say: the policy's outputs, the spread of its actions where that
            is a parameter, and the value.
        restart: makes all learners new, for a task: networks, and update rules without a past.
        learn: updates the learners on inputs and targets, [members, updates, batch, ...] each.
        batch_size: examples of an update.
        num_outputs: of a learner.
        head_size: outputs that compete with each other; see `clrl.agents.supervised`.
        actions: what learners that act decide; None for others.
    """

    seeds: Sequence[int]
    population: Population
    scores: Sequence[Score]
    outputs: Callable[[Forward, Tensor], Tensor]
    restart: Callable[[int], None]
    learn: Callable[[Tensor, Tensor], None]
    batch_size: int
    num_outputs: int
    head_size: int
    actions: Actions | None = None


@dataclass(frozen=True)
class Batches:
    """What is about to be learned, an update after another.

    Attributes:
        examples: [members, updates, batch, ...] each, as the agent's loss takes them: inputs and
            targets, or observations and what else there is of a transition.
        is_new: [members, updates, batch]: 1, and 0 for stored examples of the past; new ones
            come first.
    """

    examples: Examples
    is_new: Tensor


class Method:
    """One method, at work for the members of a population.

    A subclass is constructed with `Learners` and its options as keywords. It acts at the ends of
    tasks, of which it is told (`consolidate`); it may change what is learned (`mix`) and the loss
    (`extras`, `adjust`); and it acts around every update (`observe`, `penalise`, `after_step`).
    Whatever it does around an update is elementwise: it is written for one learner's row of
    parameters, and holds for all rows at once. What it adds to the loss is of one learner.

    Attributes:
        agents: the agents that it is for.
        problems: the kinds of stream that it is for.
        alone: it suits no other method beside it.
        examples: how many of the latest examples it is to be given when it consolidates.
        every: updates between two consolidations; None for the ends of tasks.
    """

    agents: ClassVar[tuple[str, ...]] = ("supervised",)
    problems: ClassVar[tuple[str, ...]] = ("classification", "regression")
    alone: ClassVar[bool] = False
    examples: int = 0
    every: int | None = None

    def __init__(self, learners: Learners) -> None:
        self.learners = learners

    def mix(self, batches: Batches) -> Batches | None:
        """What is learned in place of new examples of a stream.

        None where nothing is learned of them for now; the learners answer, and are measured.
        """
        return batches

    def extras(self, batches: Batches) -> tuple[Tensor, ...]:
        """What `adjust` needs in each update, [members, updates, ...] each."""
        return ()

    def adjust(self, losses: Tensor, outputs: Tensor, forward: Forward, *extras: Tensor) -> Tensor:
        """The loss of one learner in place of the agent's.

        Args:
            losses: of each example of a stream, [examples]; or of a whole minibatch, a scalar.
            outputs: of the network, for the batch.
            forward: the network.
            extras: of this update, what `extras` gave.

        Returns:
            As `losses`.
        """
        return losses

    @property
    def models(self) -> Sequence[Snapshot | None]:
        """Whose mean probabilities count where all tasks are tested; None is the present model."""
        return (None,)

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
        self._extras: list[int] = []  # how many each method has
        # Of each member, task -> its latest examples, for tasks that are not over.
        self._latest: list[dict[int, Examples]] = [{} for _ in range(members)]
        self._updates = 0

    @property
    def alters(self) -> bool:
        """Whether a method changes what is learned, or the loss."""
        return any(
            getattr(type(method), name) is not getattr(Method, name)
            for method in self.methods
            for name in ("mix", "adjust")
        )

    def mix(self, batches: Batches) -> Batches | None:
        """See `Method.mix`."""
        mixed: Batches | None = batches
        for method in self.methods:
            mixed = mixed and method.mix(mixed)
        return mixed

    def extras(self, batches: Batches) -> tuple[Tensor, ...]:
        """What `adjust` needs in each update."""
        of_each = [method.extras(batches) for method in self.methods]
        self._extras = [len(own) for own in of_each]
        return tuple(itertools.chain(*of_each))

    def adjust(self, losses: Tensor, outputs: Tensor, forward: Forward, *extras: Tensor) -> Tensor:
        """See `Method.adjust`."""
        rest = iter(extras)
        for method, count in zip(self.methods, self._extras, strict=False):
            losses = method.adjust(losses, outputs, forward, *itertools.islice(rest, count))
        return losses

    @property
    def models(self) -> Sequence[Snapshot | None]:
        """See `Method.models`."""
        return next((m.models for m in self.methods if tuple(m.models) != (None,)), (None,))

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

    def note(self, *batches: Tensor, tasks: NDArray[np.int64] | None = None) -> None:
        """Note examples of the present tasks, for those methods that are given the latest.

        Args:
            batches: as a `Score` takes them, [members, examples, ...] each.
            tasks: [members, examples], each one's task; one and the same unless given.
        """
        if not self.examples:
            return
        for member, latest in enumerate(self._latest):
            own = [batch[member] for batch in batches]
            for task in [0] if tasks is None else np.unique(tasks[member]).tolist():
                chosen = slice(None) if tasks is None else torch.from_numpy(tasks[member] == task)
                new = [value[chosen][-self.examples :] for value in own]
                old = latest.get(task) or [value[:0] for value in new]
                latest[task] = tuple(
                    torch.cat([before, after])[-self.examples :]
                    for before, after in zip(old, new, strict=True)
                )

    def learned(self, updates: int, *batches: Tensor) -> None:
        """Note updates, best not beyond `until_due`.

        Args:
            updates: how many.
            batches: the examples that they were on, where these are still to be noted; see `note`.
        """
        if batches:
            self.note(*batches)
        before, self._updates = self._updates, self._updates + updates
        due = [m for m in self.methods if m.every and before // m.every != self._updates // m.every]
        if due:
            latest = [_joined([own[task] for task in sorted(own)]) for own in self._latest]
            self._consolidate(due, range(self._members), latest)

    def end_task(
        self, members: Sequence[int], present: Sequence[int] | NDArray[np.int64] | None = None
    ) -> None:
        """The task of some members is over.

        Args:
            members: which.
            present: the task of each member of the population from now on, where examples were
                noted with their tasks: those of later ones are not of what is over.
        """
        examples = []
        for member in members:
            latest = self._latest[member]
            over = sorted(task for task in latest if present is None or task < present[member])
            examples.append(_joined([latest.pop(task) for task in over]))
        self._consolidate([m for m in self.methods if not m.every], members, examples)

    def _consolidate(
        self, methods: Sequence[Method], members: Sequence[int], examples: Sequence[Examples]
    ) -> None:
        for method in methods:
            if not method.examples:
                method.consolidate(members, [() for _ in members])
                continue
            # Where nothing was noted, there is nothing to keep.
            own = {m: latest for m, latest in zip(members, examples, strict=True) if latest}
            if own:
                cut = [tuple(value[-method.examples :] for value in one) for one in own.values()]
                method.consolidate(list(own), cut)

    @property
    def memory(self) -> float:
        """Bytes that are kept for one learner, besides its parameters and its optimizer."""
        return _bytes([self._latest, *(m.kept() for m in self.methods)]) / self._members

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the future."""
        return {
            "latest": [{task: list(own) for task, own in each.items()} for each in self._latest],
            "updates": self._updates,
            "methods": [method.state_dict() for method in self.methods],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, for the same methods."""
        self._latest = [
            {task: tuple(value.clone() for value in own) for task, own in each.items()}
            for each in state["latest"]
        ]
        self._updates = state["updates"]
        for method, own in zip(self.methods, state["methods"], strict=True):
            method.load_state_dict(own)


def check_methods(
    names: Sequence[str], methods: Sequence[type[Method]], agent: str, problem: str | None = None
) -> None:
    """Whether methods suit an agent, its problem, and each other.

    Args:
        names: what the user calls them.
        methods: their classes.
        agent: the agent's name.
        problem: the kind of the stream, if it is one.

    Raises:
        UsageError: one does not.
    """
    for name, method in zip(names, methods, strict=True):
        if agent not in method.agents:
            suits = " and ".join(method.agents)
            raise UsageError(f"consolidation: {name} is for {suits}, got the agent {agent}")
        if problem is not None and problem not in method.problems:
            suits = " and ".join(method.problems)
            raise UsageError(f"consolidation: {name} is for {suits}, got a stream of {problem}")
        if method.alone and len(methods) > 1:
            raise UsageError(f"consolidation: {name} suits no other method beside it")


def _joined(parts: Sequence[Examples]) -> Examples:
    """Examples one after another."""
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


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
    if isinstance(value, Mapping):
        return {key: _copy(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_copy(one) for one in value]
    return value
