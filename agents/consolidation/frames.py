"""What the others are seen against: retraining from scratch, a lower rate, averaged models.

The lower line, sequential fine-tuning, is a learner without any method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clrl.agents.compiled import Snapshot
from clrl.agents.consolidation.base import Batches, Examples, Learners, Method
from clrl.agents.consolidation.options import (
    AveragingOptions,
    FromScratchOptions,
    LowerRateOptions,
)
from clrl.agents.consolidation.rehearsal import Store
from clrl.seeding import numpy_generator

_BLOCK_UPDATES = 100
"""Updates of a retraining that are gathered at once."""


class LowerRate(Method):
    """A lower learning rate from the end of the first task on.

    Args:
        learners: the learners.
        factor: of the learning rate.
    """

    def __init__(self, learners: Learners, factor: float = LowerRateOptions.factor) -> None:
        super().__init__(learners)
        self._factor = factor
        self._lowered = False

    def consolidate(self, members: Sequence[int], examples: Sequence[Examples]) -> None:
        """Lower the rate, once."""
        self._lowered = True
        self.learners.population.scale_rates(self._factor)

    def state_dict(self) -> dict[str, Any]:
        """Whether the rate is lowered."""
        return {"lowered": self._lowered}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._lowered = state["lowered"]
        if self._lowered:
            self.learners.population.scale_rates(self._factor)


class Averaging(Method):
    """A model a task; what counts is the mean of their probabilities.

    The models of earlier tasks answer along with the present one wherever all tasks are tested.
    Each is trained on its own task alone, either from new parameters or from the last one's.

    Args:
        learners: the learners.
        restart: whether each model starts from parameters of its own.
    """

    problems = ("classification",)

    def __init__(self, learners: Learners, restart: bool = AveragingOptions.restart) -> None:
        super().__init__(learners)
        self._restart = restart
        self._models: list[Snapshot] = []
        self._begun = True  # the present model has been trained since the last was kept

    @property
    def models(self) -> Sequence[Snapshot | None]:
        """Those of earlier tasks, and the present one."""
        return [*self._models, *([None] if self._begun else [])]

    def observe(self, members: slice, rows: Tensor, gradients: Tensor) -> None:
        """The present model is being trained."""
        self._begun = True

    def consolidate(self, members: Sequence[int], examples: Sequence[Examples]) -> None:
        """Keep the present model; begin another."""
        self._models.append(self.learners.population.snapshot())
        self._begun = False
        if self._restart:
            self.learners.restart(len(self._models))

    def kept(self) -> Mapping[str, Any]:
        """The models."""
        return {"models": [vars(model) for model in self._models]}

    def state_dict(self) -> dict[str, Any]:
        """The models, and whether there is one more in training."""
        return {**self.kept(), "begun": self._begun}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._models = [Snapshot.of(model) for model in state["models"]]
        self._begun = state["begun"]


class FromScratch(Method):
    """Retraining on everything so far: the upper line.

    A task's examples are stored while the model that there is answers. At the task's end a model
    of new parameters is trained on all examples so far, in an order drawn anew for each pass.

    Args:
        learners: the learners.
        epochs: passes.
    """

    alone = True

    def __init__(self, learners: Learners, epochs: int = FromScratchOptions.epochs) -> None:
        super().__init__(learners)
        self._epochs = epochs
        self._tasks = 0
        self._orders = [numpy_generator(seed, "from-scratch/order") for seed in learners.seeds]
        self.store = Store(learners.seeds, None)

    def mix(self, batches: Batches) -> None:
        """Store the examples; nothing is learned of them yet."""
        self.store.gather(*(value.flatten(1, 2) for value in batches.examples))

    def consolidate(self, members: Sequence[int], examples: Sequence[Examples]) -> None:
        """Train new models on everything so far; what does not fill a batch is left out."""
        batch_size = self.learners.batch_size
        self.store.close()
        self._tasks += 1
        self.learners.restart(self._tasks)
        updates = len(self.store) // batch_size
        for _ in range(self._epochs):
            orders = np.stack([rng.permutation(len(self.store)) for rng in self._orders])
            for first in range(0, updates, _BLOCK_UPDATES):
                last = min(first + _BLOCK_UPDATES, updates)
                index = torch.from_numpy(orders[:, first * batch_size : last * batch_size])
                x, y = (
                    torch.stack([own[chosen] for own, chosen in zip(value, index, strict=True)])
                    for value in self.store.past
                )
                shape = (len(x), last - first, batch_size)
                self.learners.learn(x.view(*shape, *x.shape[2:]), y.view(*shape, *y.shape[2:]))

    def kept(self) -> Mapping[str, Any]:
        """Everything so far."""
        return self.store.kept()

    def state_dict(self) -> dict[str, Any]:
        """Everything so far, and the orders to come."""
        return {
            "store": self.store.state_dict(),
            "tasks": self._tasks,
            "orders": [rng.bit_generator.state for rng in self._orders],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.store.load_state_dict(state["store"])
        self._tasks = state["tasks"]
        for rng, bits in zip(self._orders, state["orders"], strict=True):
            rng.bit_generator.state = bits
