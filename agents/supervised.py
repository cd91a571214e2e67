"""The supervised learner: classification or regression on a stream, one update a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clrl.agents.calling import Forward
from clrl.agents.compiled import Snapshot
from clrl.agents.consolidation.base import Batches, Consolidation, Learners, Method
from clrl.agents.device import CPU
from clrl.agents.engine.plan import EngineName, LossPlan
from clrl.agents.networks import Network
from clrl.agents.objective import Loss
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import SupervisedOptions
from clrl.agents.penalties.base import Penalty
from clrl.agents.population import Population
from clrl.seeding import derived_seed


def classification_loss(forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of one learner.

    Args:
        forward: maps inputs [batch, inputs] to logits [batch, classes].
        x: inputs.
        y: labels [batch], int64 in [0, classes).

    Returns:
        The mean cross-entropy in nats, and ``"accuracy"``: the fraction of examples whose
        largest logit is the label's.
    """
    logits = forward(x)
    chosen = torch.log_softmax(logits, dim=-1).gather(-1, y.unsqueeze(-1))
    accuracy = (logits.argmax(dim=-1) == y).to(logits.dtype).mean()
    return -chosen.mean(), {"accuracy": accuracy}


def regression_loss(forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Squared error of one learner.

    Args:
        forward: maps inputs [batch, inputs] to predictions [batch, outputs].
        x: inputs.
        y: targets [batch, outputs].

    Returns:
        The mean squared error, and nothing beside it.
    """
    error = forward(x) - y
    return (error * error).mean(), {}


_PLANS = {
    "classification": LossPlan("classification", ("loss", "accuracy")),
    "regression": LossPlan("regression", ("loss",)),
}

Answers = Callable[[Forward, Tensor, Tensor], tuple[Tensor, dict[str, Tensor], Tensor]]
"""One learner's loss on each example, what else is measured of each, and the outputs."""


def _classify(num_outputs: int, head_size: int) -> Answers:
    """Cross-entropy [examples] and ``"accuracy"``, among the outputs of each label's head."""
    groups = torch.arange(num_outputs) // head_size

    def answers(forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        logits = forward(x)
        label = y.unsqueeze(-1)
        seen = logits
        if head_size < num_outputs:
            of_each = groups.expand(*y.shape, -1)
            seen = torch.where(of_each == of_each.gather(-1, label), logits, -1e30)
        losses = -torch.log_softmax(seen, dim=-1).gather(-1, label).squeeze(-1)
        return losses, {"accuracy": (seen.argmax(dim=-1) == y).to(logits.dtype)}, logits

    return answers


def _predict(forward: Forward, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Squared error [examples]."""
    outputs = forward(x)
    return ((outputs - y) ** 2).mean(dim=-1), {}, outputs


class Supervised:
    """A population of learners of one supervised problem.

    Args:
        seeds: one a member.
        kind: the problem's kind, which fixes the loss.
        make_network: makes one network from the generator of its initial parameters.
        rule: how parameters are updated.
        options: see `SupervisedOptions`.
        chunk_size: see `Population`.
        consolidation: methods against forgetting, as classes with their keywords.
        num_outputs: of a network; needed where there is more than one head.
        head_size: classes that compete: of an example it is known that its label is one of those
            with the same ``y // head_size``. All of them where 0.
        device: where updates are computed.
        penalties: see `Population`.
        engine: see `Population`.

    Attributes:
        population: the learners.
        consolidation: the methods at work.
        examples_learned: examples in the updates of one learner so far, stored ones included.

    Raises:
        UsageError: a method that does not suit the problem or the batch size.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        kind: Literal["classification", "regression"],
        make_network: Callable[[torch.Generator], Network],
        rule: UpdateRule,
        options: SupervisedOptions,
        chunk_size: int | None = None,
        consolidation: Sequence[tuple[Callable[..., Method], Mapping[str, Any]]] = (),
        num_outputs: int = 0,
        head_size: int = 0,
        device: torch.device = CPU,
        penalties: Sequence[Callable[[Network], Penalty]] = (),
        engine: EngineName = "replay",
    ) -> None:
        def generators(purpose: str) -> list[torch.Generator]:
            return [torch.Generator().manual_seed(derived_seed(s, purpose)) for s in seeds]

        self.options = options
        self._device = device
        self._seeds = list(seeds)
        self._make_network = make_network
        self._loss: Loss = classification_loss if kind == "classification" else regression_loss
        self._answers: Answers = _predict
        if kind == "classification" and num_outputs:
            head_size = head_size or num_outputs
            self._answers = _classify(num_outputs, head_size)
            if head_size < num_outputs:
                self._loss = self._mean_loss
        self.population = Population(
            [make_network(generator) for generator in generators("network")],
            self._objective,
            rule,
            generators("update"),
            chunk_size,
            device=device,
            penalties=penalties,
            plan=None if self._loss == self._mean_loss else _PLANS[kind],
            engine=engine,
        )
        self._measured = self.population.compiled(self._answers_of_one)
        self._present_loss = self.population.compiled(
            lambda *batch: self._loss(*batch)[0], training=True
        )
        self._given = self.population.compiled(lambda forward, x: forward(x))
        self._probabilities = self.population.compiled(
            lambda forward, x: torch.softmax(forward(x), dim=-1)
        )
        self.examples_learned = 0
        self._new = options.batch_size  # new examples in the last update
        learners = Learners(
            seeds,
            self.population,
            [lambda forward, x, y: self._answers(forward, x, y)[0]],
            lambda forward, x: forward(x),
            self.restart,
            self._retrain,
            options.batch_size,
            num_outputs,
            head_size,
        )
        methods = [make(learners, **keywords) for make, keywords in consolidation]
        self.consolidation = Consolidation(methods, len(seeds))
        if methods:
            self.population.companion = self.consolidation

    def _objective(
        self, forward: Forward, x: Tensor, y: Tensor, *mixed: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return self._mixed_loss(forward, x, y, *mixed) if mixed else self._loss(forward, x, y)

    def _mean_loss(
        self, forward: Forward, x: Tensor, y: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        losses, named, _ = self._answers(forward, x, y)
        return losses.mean(), {name: value.mean() for name, value in named.items()}

    def _mixed_loss(
        self, forward: Forward, x: Tensor, y: Tensor, is_new: Tensor, *extras: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss on new and stored examples, of which the new ones alone are measured."""
        losses, named, outputs = self._answers(forward, x, y)
        share = is_new / is_new.sum()
        named = {"label_loss": losses.detach(), **named}
        losses = self.consolidation.adjust(losses, outputs, forward, *extras)
        return losses.mean(), {name: (value * share).sum() for name, value in named.items()}

    def learn(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Learn examples in order, ``batch_size`` an update.

        Args:
            x: inputs [members, examples, inputs], the number of examples a multiple of the
                batch size.
            y: labels [members, examples] or targets [members, examples, outputs]. Both may be on
                the CPU, whatever the device.

        Returns:
            ``"loss"`` and, for classification, ``"accuracy"``: [members, updates], each
            measured before the update; on the new examples, and without penalties.
        """
        x, y = (
            value.to(self._device).view(len(value), -1, self.options.batch_size, *value.shape[2:])
            for value in (x, y)
        )
        if not self.consolidation.methods:
            return self._update(x, y)
        parts: list[dict[str, Tensor]] = []
        start, updates = 0, x.shape[1]
        while start < updates:
            due = self.consolidation.until_due()
            stop = updates if due is None else min(updates, start + due)
            own = x[:, start:stop], y[:, start:stop]
            parts.append(self._learn(*own))
            self.consolidation.learned(stop - start, *(value.flatten(1, 2) for value in own))
            start = stop
        return {key: torch.cat([part[key] for part in parts], dim=1) for key in parts[0]}

    def _learn(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Learn, or store, as the methods would have it; [members, updates, batch, ...]."""
        if not self.consolidation.alters:
            return self._update(x, y)
        batches = self.consolidation.mix(Batches((x, y), torch.ones(x.shape[:3])))
        if batches is None:
            return self._measure(x, y)
        self._new = int(batches.is_new[0, -1].sum())
        extras = self.consolidation.extras(batches)
        results = self._update(*batches.examples, batches.is_new, *extras)
        results["loss"] = results.pop("label_loss")
        return results

    def _update(self, *batches: Tensor) -> dict[str, Tensor]:
        self.examples_learned += batches[0].shape[1] * batches[0].shape[2]
        return self.population.learn(*batches)

    def _answers_of_one(self, forward: Forward, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        losses, named, _ = self._answers(forward, x, y)
        return {"loss": losses, **named}

    def _measure(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """What `learn` gives, without learning."""
        each: dict[str, Tensor] = self._measured(x.flatten(1, 2), y.flatten(1, 2))
        return {key: value.view(x.shape[:3]).mean(dim=2) for key, value in each.items()}

    def restart(self, task: int) -> None:
        """Make every learner new: another network, and an update rule without a past.

        A learner's network and what its update rule draws are decided by its seed and the task.

        Args:
            task: index of the task that begins.
        """

        def seed(member: int, purpose: str) -> int:
            return derived_seed(self._seeds[member], f"{purpose}/task-{task}")

        def fresh(member: int) -> Network:
            return self._make_network(torch.Generator().manual_seed(seed(member, "network")))

        members = range(len(self._seeds))
        self.population.restart(members, fresh, lambda member: seed(member, "update"))

    def last_batch_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The present loss on the last batch of what was just learned.

        Args:
            x: as given to `learn`.
            y: as given to `learn`.

        Returns:
            Losses [members].
        """
        first = x.shape[1] - self.options.batch_size
        last = slice(first, first + self._new)
        own = (value[:, last].to(self._device) for value in (x, y))
        losses: Tensor = self._present_loss(*own)
        return losses

    def end_task(self) -> None:
        """The learners are told that a task is over.

        That is for methods against forgetting, and for add-ons that act at changes.
        """
        self.population.change(range(len(self.population)))
        self.consolidation.end_task(range(len(self.population)))

    def _retrain(self, x: Tensor, y: Tensor) -> None:
        self.population.freeze_diverged(self._update(x, y)["loss"])

    def accuracy(self, x: Tensor, y: Tensor) -> Tensor:
        """Share of examples that are classified rightly, without learning from them.

        Args:
            x: inputs [members, examples, inputs].
            y: labels [members, examples].

        Returns:
            [members].
        """
        models = self.consolidation.models
        if tuple(models) != (None,):
            return self._mean_accuracy(models, x, y)
        each = self._measured(*(value.to(self._device) for value in (x, y)))
        hits: Tensor = each["accuracy"]
        return hits.double().mean(dim=1)

    def answer(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """What the networks give, without learning: logits of classes, or predictions.

        Args:
            x: inputs [examples, inputs], as many for each member, those of a member side by side.

        Returns:
            [examples, outputs].
        """
        rows = np.array(x, np.float32).reshape(len(self.population), -1, x.shape[-1])
        given: Tensor = self._given(torch.from_numpy(rows).to(self._device))
        outputs: NDArray[np.float32] = given.flatten(0, 1).cpu().numpy()
        return outputs

    def take_member(self, state: Mapping[str, Any], member: int) -> None:
        """Answer from now on as one member of the learners whose `state_dict` this is.

        It is for a single learner, made alike.
        """
        self.population.take_member(state["population"], member)

    def _mean_accuracy(self, models: Sequence[Snapshot | None], x: Tensor, y: Tensor) -> Tensor:
        """Of the mean probabilities: as the log-probabilities of one network."""
        # One after another: a reduction may round by how many members there are.
        mean: Tensor = self._probabilities(x, of=models[0])
        for model in models[1:]:
            mean = mean + self._probabilities(x, of=model)
        mean = mean / len(models)
        hits = [
            self._answers(lambda _, own=own: own, own_x, own_y)[1]["accuracy"]
            for own, own_x, own_y in zip(mean, x, y, strict=True)
        ]
        return torch.stack(hits).double().mean(dim=1)

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the learners' future."""
        return {
            "population": self.population.state_dict(),
            "consolidation": self.consolidation.state_dict(),
            "examples_learned": self.examples_learned,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.population.load_state_dict(state["population"])
        self.consolidation.load_state_dict(state["consolidation"])
        self.examples_learned = state["examples_learned"]
