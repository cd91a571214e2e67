"""Rehearsal: what was seen before is kept, and learned again beside the new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from clrl.agents.calling import Forward, calling
from clrl.agents.consolidation.base import Batches, Examples, Learners, Method
from clrl.agents.consolidation.options import CloningOptions, RehearsalOptions
from clrl.errors import UsageError
from clrl.seeding import numpy_generator


class Store:
    """Examples of tasks that are over, a member apart.

    While a task goes on its examples are gathered; `close` makes them part of the past. With a
    capacity what is kept of the past is a uniform sample of everything so far (reservoir sampling,
    Vitter 1985, algorithm R).

    Args:
        seeds: one a member.
        capacity: examples of a member; all of them where None.

    Attributes:
        past: inputs and targets to draw from, [members, stored, ...] each; none at first.
    """

    def __init__(self, seeds: Sequence[int], capacity: int | None) -> None:
        self._capacity = capacity
        self._choices = [numpy_generator(seed, "rehearsal/store") for seed in seeds]
        self._draws = [numpy_generator(seed, "rehearsal/draws") for seed in seeds]
        self._seen = 0
        self.past: tuple[Tensor, ...] = ()
        self._gathered: list[tuple[Tensor, ...]] = []

    def __len__(self) -> int:
        """Examples of a member that can be drawn."""
        return self.past[0].shape[1] if self.past else 0

    def gather(self, *examples: Tensor) -> None:
        """Take examples of the present task in, [members, examples, ...] each."""
        if self._capacity is None:
            self._gathered.append(tuple(value.clone() for value in examples))
            return
        if not self._gathered:
            kept = self.past or tuple(value[:, :0] for value in examples)
            self._gathered = [tuple(value.clone() for value in kept)]
        (kept,) = self._gathered
        count = examples[0].shape[1]
        free = max(0, min(count, self._capacity - kept[0].shape[1]))
        if free:
            kept = tuple(
                torch.cat([old, new[:, :free]], dim=1)
                for old, new in zip(kept, examples, strict=True)
            )
            self._gathered = [kept]
        number = self._seen + 1 + np.arange(count)[free:]  # which example of all, from 1
        for member, rng in enumerate(self._choices):
            places = rng.integers(number)
            for source in np.flatnonzero(places < self._capacity):
                for old, new in zip(kept, examples, strict=True):
                    old[member, places[source]] = new[member, free + source]
        self._seen += count

    def close(self) -> None:
        """The task is over: what was gathered is of the past."""
        if not self._gathered:
            return
        parts = self._gathered
        if self._capacity is None and self.past:
            parts = [self.past, *parts]
        self.past = tuple(torch.cat(column, dim=1) for column in zip(*parts, strict=True))
        self._gathered = []

    def draw(self, count: int) -> tuple[Tensor, ...]:
        """Draw from the past, with replacement: [members, count, ...] each."""
        chosen = [torch.from_numpy(rng.integers(len(self), size=count)) for rng in self._draws]
        return tuple(
            torch.stack([own[index] for own, index in zip(value, chosen, strict=True)])
            for value in self.past
        )

    def kept(self) -> Mapping[str, Any]:
        """All tensors."""
        return {"past": list(self.past), "gathered": [list(part) for part in self._gathered]}

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the future."""
        return {
            **self.kept(),
            "seen": self._seen,
            "choices": [rng.bit_generator.state for rng in self._choices],
            "draws": [rng.bit_generator.state for rng in self._draws],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.past = tuple(value.clone() for value in state["past"])
        self._gathered = [tuple(value.clone() for value in part) for part in state["gathered"]]
        self._seen = state["seen"]
        for rngs, saved in ((self._choices, state["choices"]), (self._draws, state["draws"])):
            for rng, bits in zip(rngs, saved, strict=True):
                rng.bit_generator.state = bits


class Rehearsal(Method):
    """Experience replay of stored examples (Ratcliff 1990; Robins 1995).

    Of a batch of B, ``proportion * B`` examples, rounded, are drawn from earlier tasks. With a
    *fixed* epoch the batch has B examples in all, so that training costs what it costs without
    rehearsal, and the new examples beyond the rest of the batch are stored without being learned
    from. With a *growing* one all B new examples are learned, and stored ones are added in such a
    number that they have the same share.

    In the first task there is nothing to rehearse. A task's own examples are drawn from its end on.

    Args:
        learners: the learners.
        proportion: share of stored examples.
        epoch: see above.
        capacity: see `Store`.

    Raises:
        UsageError: a batch would have no new or no stored examples.
    """

    def __init__(
        self,
        learners: Learners,
        proportion: float = RehearsalOptions.proportion,
        epoch: Literal["fixed", "growing"] = RehearsalOptions.epoch,
        capacity: int | None = RehearsalOptions.capacity,
    ) -> None:
        super().__init__(learners)
        if proportion >= 1:
            raise UsageError(f"rehearsal.proportion: expected less than 1, got {proportion}")
        self._proportion, self._epoch = proportion, epoch
        self.store = Store(learners.seeds, capacity)
        self.counts(learners.batch_size)

    def counts(self, batch_size: int) -> tuple[int, int]:
        """How many new and how many stored examples a batch has, once there is a past.

        Raises:
            UsageError: one of both would be none.
        """
        if self._epoch == "fixed":
            stored = round(self._proportion * batch_size)
            counts = batch_size - stored, stored
        else:
            counts = batch_size, round(batch_size * self._proportion / (1 - self._proportion))
        if 0 in counts and self._proportion > 0:
            raise UsageError(
                f"rehearsal.proportion: expected new and stored examples in a batch of "
                f"{batch_size}, got {counts[0]} and {counts[1]}"
            )
        return counts

    def mix(self, batches: Batches) -> Batches:
        """Put stored examples into batches of new ones."""
        first = batches.examples[0]
        updates, size = first.shape[1:3]
        new, stored = self.counts(size)
        self.store.gather(*(value.flatten(1, 2) for value in batches.examples))
        if not len(self.store) or not stored:
            return batches
        drawn = self.store.draw(updates * stored)
        mixed = tuple(
            torch.cat([fresh[:, :, :new], torch.unflatten(old, 1, (updates, stored))], dim=2)
            for fresh, old in zip(batches.examples, drawn, strict=True)
        )
        is_new = torch.zeros(mixed[0].shape[:3])
        is_new[:, :, :new] = 1.0
        return Batches(mixed, is_new)

    def consolidate(self, members: Sequence[int], examples: Sequence[Examples]) -> None:
        """What was gathered is of the past."""
        self.store.close()

    def kept(self) -> Mapping[str, Any]:
        """The stored examples."""
        return self.store.kept()

    def state_dict(self) -> dict[str, Any]:
        """The store."""
        return self.store.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the store."""
        self.store.load_state_dict(state)


class BehaviourCloning(Method):
    """Rehearsal for a policy: on stored observations it is to answer as it did.

    At the end of a task the latest observations are stored, with the distribution of actions and
    the value that the networks gave then. Each gradient step draws some of them, and its loss gains
    ``policy_weight * KL(then || now) + value_weight * (value now - value then)^2``, means over what
    was drawn. Source: CLEAR (Rolnick et al. 2019), whose behavioural cloning this is; its replay by
    an off-policy gradient (V-trace) is not.

    Args:
        learners: the learners.
        examples: observations stored of each task.
        batch_size: of them in a gradient step.
        policy_weight: see above.
        value_weight: see above.
    """

    agents = ("ppo",)

    def __init__(
        self,
        learners: Learners,
        examples: int = CloningOptions.examples,
        batch_size: int = CloningOptions.batch_size,
        policy_weight: float = CloningOptions.policy_weight,
        value_weight: float = CloningOptions.value_weight,
    ) -> None:
        super().__init__(learners)
        assert learners.actions is not None
        self._actions = learners.actions
        self.examples = examples
        self._batch_size = batch_size
        self._policy_weight, self._value_weight = policy_weight, value_weight
        self._draws = [numpy_generator(seed, "cloning/draws") for seed in learners.seeds]
        # Of each member: observations, the policy's outputs and parameters, values.
        self._stored: list[list[Tensor]] = [[] for _ in learners.seeds]

    def consolidate(self, members: Sequence[int], examples: Sequence[Examples]) -> None:
        """Store what the networks answer to the latest observations."""
        population = self.learners.population
        for member, (observations, *_) in zip(members, examples, strict=True):
            forward, _ = calling(population.network, *population.member(member))
            with torch.no_grad():
                outputs, spread, values = forward(observations)
            new = [observations, outputs, spread.expand(len(observations), -1), values]
            old = self._stored[member] or [value[:0] for value in new]
            self._stored[member] = [
                torch.cat([before, after]) for before, after in zip(old, new, strict=True)
            ]

    def extras(self, batches: Batches) -> tuple[Tensor, ...]:
        """Stored observations, what was answered to them, and whether there are any."""
        steps, observation_size = batches.examples[0].shape[1::2]
        drawn = []
        for stored, rng in zip(self._stored, self._draws, strict=True):
            count = steps * self._batch_size
            if stored:
                index = torch.from_numpy(rng.integers(len(stored[0]), size=count))
                rows = [value[index] for value in stored]
            else:
                n, p = self._actions.num_outputs, self._actions.num_parameters
                shapes = [(observation_size,), (n,), (p,), ()]
                rows = [torch.zeros(count, *shape) for shape in shapes]
            weight = torch.full((steps,), float(bool(stored)))
            drawn.append(
                [*(row.view(steps, self._batch_size, *row.shape[1:]) for row in rows), weight]
            )
        return tuple(torch.stack(column) for column in zip(*drawn, strict=True))

    def adjust(self, losses: Tensor, outputs: Tensor, forward: Forward, *extras: Tensor) -> Tensor:
        """The loss and the cloning of what is stored, 0 where nothing is."""
        observations, then, parameters, values, weight = extras
        now, spread, now_values = forward(observations)
        apart = self._actions.divergence(then, parameters, now, spread).mean()
        error = now_values - values
        total: Tensor = self._policy_weight * apart + self._value_weight * (error * error).mean()
        return losses + weight * total

    def kept(self) -> Mapping[str, Any]:
        """What is stored."""
        return {"stored": self._stored}

    def state_dict(self) -> dict[str, Any]:
        """What is stored, and the generators."""
        return {
            "stored": [list(own) for own in self._stored],
            "draws": [rng.bit_generator.state for rng in self._draws],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._stored = [[value.clone() for value in own] for own in state["stored"]]
        for rng, bits in zip(self._draws, state["draws"], strict=True):
            rng.bit_generator.state = bits
