"""The supervised learner: classification or regression on a stream, one update a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from clrl.agents.device import CPU
from clrl.agents.networks import Network
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import SupervisedOptions
from clrl.agents.population import Forward, Population
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


_LOSSES = {"classification": classification_loss, "regression": regression_loss}


class Supervised:
    """A population of learners of one supervised problem.

    Args:
        seeds: one a member.
        kind: the problem's kind, which fixes the loss.
        make_network: makes one network from the generator of its initial parameters.
        rule: how parameters are updated.
        options: see `SupervisedOptions`.
        chunk_size: see `Population`.
        device: where updates are computed.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        kind: Literal["classification", "regression"],
        make_network: Callable[[torch.Generator], Network],
        rule: UpdateRule,
        options: SupervisedOptions,
        chunk_size: int | None = None,
        device: torch.device = CPU,
    ) -> None:
        def generators(purpose: str) -> list[torch.Generator]:
            return [torch.Generator().manual_seed(derived_seed(s, purpose)) for s in seeds]

        self.options = options
        self._device = device
        self._seeds = list(seeds)
        self._make = make_network
        self._loss = _LOSSES[kind]
        self.population = Population(
            [make_network(generator) for generator in generators("network")],
            self._loss,
            rule,
            generators("update"),
            chunk_size,
            device=device,
        )

    def learn(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Learn examples in order, ``batch_size`` an update.

        Args:
            x: inputs [members, examples, inputs], the number of examples a multiple of the
                batch size.
            y: labels [members, examples] or targets [members, examples, outputs]. Both may be on
                the CPU, whatever the device.

        Returns:
            ``"loss"`` and, for classification, ``"accuracy"``: [members, updates], each
            measured before the update.
        """
        x, y = (
            value.to(self._device).view(len(value), -1, self.options.batch_size, *value.shape[2:])
            for value in (x, y)
        )
        return self.population.learn(x, y)

    def restart(self, task: int) -> None:
        """Make every learner new: another network, and an update rule without a past.

        A learner's network and what its update rule draws are decided by its seed and the task.

        Args:
            task: index of the task that begins.
        """

        def seed(member: int, purpose: str) -> int:
            return derived_seed(self._seeds[member], f"{purpose}/task-{task}")

        def fresh(member: int) -> Network:
            return self._make(torch.Generator().manual_seed(seed(member, "network")))

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
        last = self.options.batch_size
        batches = [value[:, -last:].to(self._device) for value in (x, y)]
        losses: Tensor = self.population.evaluate(
            lambda forward, *batch: self._loss(forward, *batch)[0], *batches
        )
        return losses

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the learners' future."""
        return self.population.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.population.load_state_dict(state)
