"""Members of a population that are stepped together, with an update rule of their own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.func import vmap

from clrl.agents.calling import Call, Draw, draw, means, record_drawing, training
from clrl.agents.compiled import Snapshot
from clrl.agents.engine.work import Engine
from clrl.agents.even import ALIGNMENT
from clrl.agents.networks import Network
from clrl.agents.objective import Objective, network_buffers
from clrl.agents.optim.members import Flat
from clrl.agents.optim.rule import StackedOptimizer, UpdateRule
from clrl.agents.replay import Recording, Replay


class Companion(Protocol):
    """Acts around every update, elementwise: on rows of parameters, each for itself."""

    def before_step(self, members: slice, rows: Tensor, gradients: Tensor) -> None:
        """See the parameters of some members, and see or change their gradients."""

    def after_step(self, members: slice, rows: Tensor) -> None:
        """See the parameters after the update."""


def by_update(batches: Sequence[Tensor], members: slice) -> Iterator[tuple[Tensor, ...]]:
    """Some members' batches [members, updates, ...], one update after another: [members, ...] each.

    Every one begins where torch's own tensors do, so that it does not matter which it is.
    """
    parts = []
    for batch in batches:
        own = batch[members].transpose(0, 1)
        size = own[0].numel()
        unit = ALIGNMENT // own.element_size()
        padded = -(-size // unit) * unit
        place = own.new_empty(len(own), padded)[:, :size].view(own.shape)
        parts.append(place.copy_(own))
    return zip(*parts, strict=True)


class Chunk:
    """Members stepped together.

    Args:
        members: which of the population's.
        rows: their parameters [members, padded], edited in place.
        gradients: where their gradients go, in the same places.
        loss_gradients: where those of the loss alone go, where anything is added to it.
        generators: one a member.
        flat: where each parameter lies in a row.
        template: a network of the members' kind.
        kept: what else there is of each member (see `Objective`), [members, ...]; edited in place.
        objective: of one learner.
        rule: how parameters are updated.
        apart: whether each member gets a base optimizer of its own.
        recordings: computations of all chunks, by number of members and shapes of the batch, and
            the random numbers that each asks for.
        results: the names of what the loss gives, filled in when it is recorded.
        max_grad_norm: see `clrl.agents.population.Population`.
        halt: see there.
        engine: compiled code that takes the place of recorded operations.
    """

    def __init__(
        self,
        members: slice,
        rows: Tensor,
        gradients: Tensor,
        loss_gradients: Tensor,
        generators: Sequence[torch.Generator],
        flat: Flat,
        template: Network,
        kept: Mapping[str, Tensor],
        objective: Objective,
        rule: UpdateRule,
        apart: bool,
        recordings: dict[Any, tuple[Recording, Sequence[Draw]]],
        results: list[str],
        max_grad_norm: float,
        halt: tuple[str, float] | None,
        engine: Engine | None = None,
    ) -> None:
        self.members = members
        self.rows = rows
        self.gradients = gradients
        self.loss_gradients = loss_gradients
        rows.grad = gradients
        self._flat = flat
        self._template = template
        self._kept = kept
        self._objective = objective
        self._generators = generators
        self._tapped = template.hidden_layers if rule.needs_features else ()
        self._features: dict[str, Tensor] = {}
        self._parameters = flat.views(rows)
        self._recordings = recordings
        self._results = results
        self._max_grad_norm = max_grad_norm
        self._halt = halt
        self.engine = engine
        if engine is not None:
            self._results = list(engine.results)
        self.scale = rows.new_ones(len(rows), 1)  # of the last gradients
        self.noise: list[Tensor] = []  # what networks drew in the last update, if anything
        self._replays: dict[Any, tuple[Replay, Sequence[Draw]]] = {}
        buffers = network_buffers(kept)
        self.optimizer = StackedOptimizer(
            rule, rows, flat, template, generators, apart, self._features, buffers
        )

    def learn(
        self,
        batches: Sequence[Tensor],
        frozen: Tensor,
        safe: Snapshot,
        companion: Companion | None = None,
    ) -> dict[str, Tensor]:
        """Take one update a batch; see `clrl.agents.population.Population.learn`.

        Args:
            batches: of all members, [members, updates, ...].
            frozen: which of all members no longer move.
            safe: what those stay, of all members.
            companion: what acts around every update.
        """
        if self.engine is not None and self.engine.steps:
            return self._learn_compiled(self.engine, batches, frozen[self.members])
        still = torch.nonzero(frozen[self.members]).flatten()
        held = [(self.rows, safe.rows[self.members][still])]
        held += [(own, safe.kept[name][self.members][still]) for name, own in self._kept.items()]
        added_to = self._objective.penalised or companion is not None
        results = []
        with torch.no_grad():
            for batch in by_update(batches, self.members):
                features, values, kept = self.compute_gradients(batch, self._generators)
                for layer, value in zip(self._tapped, features, strict=True):
                    self._features[layer.name] = value
                for own, new in zip(self._kept.values(), kept, strict=True):
                    own.copy_(new)
                if companion is not None:
                    if not self._objective.penalised:
                        self.loss_gradients.copy_(self.gradients)
                    companion.before_step(self.members, self.rows, self.gradients)
                results.append((*values, *self._clip(added_to)))
                if self._halts(results[-1]):
                    break
                self.optimizer.step()
                if companion is not None:
                    companion.after_step(self.members, self.rows)
                if len(still):
                    for own, fixed in held:
                        own[still] = fixed
        stacked = [torch.stack(values, dim=1) for values in zip(*results, strict=True)]
        norms = ["grad_norm", "total_grad_norm"] if added_to else ["grad_norm"]
        names = [*self._results, *(norms if self._max_grad_norm else [])]
        return self._counted(dict(zip(names, stacked, strict=True)), batches[0].shape[1])

    def _learn_compiled(
        self, engine: Engine, batches: Sequence[Tensor], frozen: Tensor
    ) -> dict[str, Tensor]:
        halt = (self._results.index(self._halt[0]), self._halt[1]) if self._halt else None
        own = [batch[self.members] for batch in batches]
        # Add-ons act after every update.
        each = (
            [own]
            if engine.whole
            else zip(*(torch.split(one, 1, dim=1) for one in own), strict=True)
        )
        parts: list[dict[str, Tensor]] = []
        for some in each:
            results, norms, self.scale, features = engine.learn(
                self.rows, self.gradients, self.optimizer.base, self._generators, some, frozen,
                self._max_grad_norm, halt, bool(self._tapped),
            )  # fmt: skip
            named = dict(zip(self._results, results.unbind(2), strict=True))
            if norms is not None:
                named["grad_norm"] = norms
            parts.append(named)
            if halt and bool(results[0, -1, halt[0]] > halt[1]):
                break
            if not engine.whole:
                self._act_after(features, frozen)
        joined = {key: torch.cat([part[key] for part in parts], dim=1) for key in parts[0]}
        return self._counted(joined, batches[0].shape[1])

    def _act_after(self, features: Sequence[Tensor], frozen: Tensor) -> None:
        """Let add-ons act on members that move."""
        still = torch.nonzero(frozen).flatten()
        held = self.rows[still]
        for layer, value in zip(self._tapped, features, strict=True):
            self._features[layer.name] = value
        self.optimizer.after_base()
        self.rows[still] = held

    def _counted(self, named: dict[str, Tensor], updates: int) -> dict[str, Tensor]:
        """What `learn` gives, filled up where a member was halted before the last update."""
        if self._halt:
            taken = named["loss"].shape[1]
            named["counted"] = self.rows.new_ones(1, taken)
            for name, value in named.items():
                missing = value.new_zeros(1, updates - taken, *value.shape[2:])
                named[name] = torch.cat([value, missing], 1)
        return named

    def tell(self, changed: Collection[int]) -> None:
        """Tell the add-ons whose task changed, of all members of the population."""
        own = range(self.members.start, self.members.stop)
        self.optimizer.at_change([i for i, member in enumerate(own) if member in changed])

    def tell_of_experience(self, frozen: Tensor) -> None:
        """Tell the add-ons that those who are not frozen have collected new experience."""
        self.optimizer.at_experience(torch.nonzero(~frozen[self.members]).flatten().tolist())

    def _halts(self, results: Sequence[Tensor]) -> bool:
        if not self._halt:
            return False
        name, limit = self._halt
        return bool(results[self._results.index(name)] > limit)

    def _clip(self, added_to: bool) -> tuple[Tensor, ...]:
        """Scale long gradients down, if there is a bound.

        Returns:
            Norms [members] before: that of the loss's gradient, and that of the whole where
            something was added to it.
        """
        if not self._max_grad_norm:
            return ()
        norms = (self.gradients * self.gradients).sum(dim=1).sqrt()
        self.scale = (self._max_grad_norm / (norms + 1e-6)).clamp(max=1.0).unsqueeze(1)
        self.gradients.mul_(self.scale)
        if not added_to:
            return (norms,)
        own = self.loss_gradients
        return (own * own).sum(dim=1).sqrt(), norms

    def scale_rates(self, share: float) -> None:
        """Set the learning rates to a share of those that the rule was given."""
        for group in self.optimizer.base.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * share

    def compute_gradients(
        self, batch: Sequence[Tensor], generators: Sequence[torch.Generator] | None = None
    ) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
        """Fill the gradients for one batch.

        Args:
            batch: the loss's arguments, [members, ...] each.
            generators: of the members, for what their networks draw; without them nothing is
                drawn, and means take the place.

        Returns:
            Features if asked for, then results, and what is kept from now on.
        """
        if self.engine is not None:
            features, results = self.engine.gradients(
                self.rows, self.gradients, batch, bool(self._tapped)
            )
            return features, results, []
        replay, draws = self._replay(batch)
        if draws:
            drawn = draw(draws, generators) if generators else means(draws, len(self.rows))
            self.noise = [drawn.to(self.rows.device)]
        outputs = replay(*self.noise, *self._parameters.values(), *self._kept.values(), *batch)
        first, last = len(self._tapped), len(outputs) - len(self._kept)
        return outputs[:first], outputs[first:last], outputs[last:]

    def _replay(self, batch: Sequence[Tensor]) -> tuple[Replay, Sequence[Draw]]:
        key = (len(self.rows), *((value.shape, value.dtype) for value in batch))
        if key not in self._replays:
            if key not in self._recordings:
                inputs = [*self._parameters.values(), *self._kept.values(), *batch]
                members = len(self.rows) if self.rows.is_cpu else None
                with training(self._template):
                    self._recordings[key] = record_drawing(
                        self._compute, inputs, len(self._destinations()), members
                    )
            recording, draws = self._recordings[key]
            self._replays[key] = recording.bind(self._destinations()), draws
        return self._replays[key]

    def _destinations(self) -> list[Tensor]:
        """Where gradients go: of the whole objective; then of the loss, if they differ."""
        rows = [self.gradients, *([self.loss_gradients] if self._objective.penalised else [])]
        return [view for own in rows for view in self._flat.views(own).values()]

    def _compute(self, draws: list[Draw], noise: list[Tensor], *inputs: Tensor) -> Sequence[Tensor]:
        """Gradients of every member; features if asked for, loss, named tensors, what is kept."""
        names, others = list(self._parameters), list(self._kept)
        values = [value.detach().requires_grad_() for value in inputs[: len(names)]]
        kept = dict(zip(others, inputs[len(names) :], strict=False))
        batch = inputs[len(names) + len(others) :]

        def one(
            parameters: dict[str, Tensor], kept: dict[str, Tensor], noise: list[Tensor], *own: Any
        ) -> Any:
            others = own[-1:] if self._objective.needs_others else ()
            with Call(*noise) as call:
                batch = own[: len(own) - len(others)]
                results = self._objective(parameters, kept, *batch, others=others)
            draws[:] = call.draws
            return results

        parameters = dict(zip(names, values, strict=True))
        with torch.enable_grad():
            terms, losses, named, features, after = vmap(one)(parameters, kept, noise, *batch)
            ones = torch.ones_like(losses)  # of each its own: nothing is added up over members
            gradients = torch.autograd.grad(
                losses, values, ones, retain_graph=bool(terms), materialize_grads=True
            )
            for term in terms:
                added = torch.autograd.grad(term, values, ones, materialize_grads=True)
                whole = [own + more for own, more in zip(gradients, added, strict=True)]
                gradients = (*whole, *gradients)
        self._results[:] = ["loss", *named]
        pairs = zip(self._tapped, features, strict=True)
        features = [self._template.by_unit(layer, value, 1) for layer, value in pairs]
        # A named tensor may be a parameter, which the update is about to change.
        copies = [value.clone() for value in named.values()]
        outputs = [*features, losses, *copies, *(after[name] for name in others)]
        return [*gradients, *(value.detach() for value in outputs)]
