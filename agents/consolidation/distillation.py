"""Learning without forgetting: the model of the last task teaches that of the present one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from clrl.agents.calling import Forward
from clrl.agents.compiled import Snapshot
from clrl.agents.consolidation.base import Batches, Examples, Learners, Method
from clrl.agents.consolidation.options import LwFOptions


def distillation(student: Tensor, teacher: Tensor, temperature: float, head_size: int) -> Tensor:
    """How far the student's softened outputs are from the teacher's, of one learner.

    ``T^2 * KL(softmax(teacher / T) || softmax(student / T))``; the factor keeps the size of its
    gradient independent of the temperature (Hinton et al. 2015).

    Args:
        student: outputs [examples, outputs].
        teacher: outputs [examples, outputs].
        temperature: T.
        head_size: outputs that form a distribution of their own.

    Returns:
        [examples, heads], >= 0.
    """
    soft, target = (
        torch.log_softmax(logits.view(*logits.shape[:-1], -1, head_size) / temperature, dim=-1)
        for logits in (student, teacher)
    )
    return temperature**2 * (target.exp() * (target - soft)).sum(dim=-1)


class LwF(Method):
    """Learning without forgetting (Li & Hoiem 2016), as a mixture of two losses.

    ``alpha * CE(student, label) + (1 - alpha) * T^2 * KL(teacher / T || student / T)`` with the
    network at the end of the last task as the teacher, on the examples of the present one: of the
    past it keeps the model alone. In the first task there is no teacher and the loss is the
    cross-entropy. Where tasks have outputs of their own the second part is the mean over those of
    earlier tasks.

    The paper adds the two losses with a weight; the mixture is the form of common tutorials.

    Args:
        learners: the learners.
        alpha: share of the loss on the labels.
        temperature: T.

    Attributes:
        tasks: how many tasks the teacher has learned.
    """

    problems = ("classification",)

    def __init__(
        self,
        learners: Learners,
        alpha: float = LwFOptions.alpha,
        temperature: float = LwFOptions.temperature,
    ) -> None:
        super().__init__(learners)
        self.alpha, self.temperature = alpha, temperature
        self.tasks = 0
        self._teacher: Snapshot | None = None
        self._answers = learners.population.compiled(learners.outputs)

    def extras(self, batches: Batches) -> tuple[Tensor, Tensor]:
        """The teacher's outputs, and what each of its heads counts.

        Returns:
            Outputs [members, updates, batch, outputs], zeros where there is no teacher; and
            weights [members, updates, heads] that add up to 1, or to 0 where there is none.
        """
        x, outputs = batches.examples[0], self.learners.num_outputs
        heads = outputs // self.learners.head_size
        weights = torch.zeros(*x.shape[:2], heads)
        if self._teacher is None:
            return torch.zeros(*x.shape[:3], outputs), weights
        known = min(self.tasks, heads)
        weights[..., :known] = 1 / known
        answers: Tensor = self._answers(x, of=self._teacher)
        return answers, weights

    def adjust(self, losses: Tensor, outputs: Tensor, forward: Forward, *extras: Tensor) -> Tensor:
        """The mixture of two losses, of each example."""
        teacher, weights = extras
        apart = distillation(outputs, teacher, self.temperature, self.learners.head_size)
        present = 1 - (1 - self.alpha) * weights.sum()
        return present * losses + (1 - self.alpha) * (apart * weights).sum(dim=-1)

    def consolidate(self, members: Sequence[int], examples: Sequence[Examples]) -> None:
        """The present model is the teacher from now on."""
        self._teacher = self.learners.population.snapshot()
        self.tasks += 1

    def kept(self) -> Mapping[str, Any]:
        """The teacher."""
        return {} if self._teacher is None else {"teacher": vars(self._teacher)}

    def state_dict(self) -> dict[str, Any]:
        """The teacher, and how many tasks it knows."""
        return {**self.kept(), "tasks": self.tasks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.tasks = state["tasks"]
        self._teacher = Snapshot.of(state["teacher"]) if "teacher" in state else None
