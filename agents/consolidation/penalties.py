"""Penalties that hold parameters near where they were, each weighted by how much it matters.

All have the same form, for one learner with parameters w::

    strength / 2 * sum_i  F_i * (w_i - c_i)^2

with the centre c and the importance F. They differ in the importance, and in what becomes of
earlier tasks' penalties. The sum is over products: each parameter has an importance of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from clrl.agents.calling import Forward
from clrl.agents.consolidation.base import Examples, Learners, Method
from clrl.agents.consolidation.importance import Moments, moments
from clrl.agents.consolidation.options import (
    EWCOptions,
    L2Options,
    MASOptions,
    OnlineEWCOptions,
    SIOptions,
)


class Penalty(Method):
    """A quadratic penalty; see the module.

    Args:
        learners: the learners.
        strength: lambda.
        decay: what is left of earlier importance at each consolidation.
        merge: the penalties of all tasks are kept, each about its own centre; else the centre is
            where the last consolidation was.

    Merging costs no memory: a sum of quadratics is one quadratic, up to a constant, with the sum
    of the importances about the mean of the centres that they weight.
    """

    agents = ("supervised", "ppo")

    def __init__(
        self, learners: Learners, strength: float, decay: float = 1.0, merge: bool = False
    ) -> None:
        super().__init__(learners)
        self._strength, self._decay, self._merge = strength, decay, merge
        self._centre = torch.zeros_like(learners.population.rows)
        self._importance = torch.zeros_like(learners.population.rows)
        self._active = False

    def importance(self, member: int, examples: Examples) -> Tensor:
        """How much each parameter of a member mattered since the last time, [numbers].

        The sum so far is kept from falling below 0.
        """
        raise NotImplementedError

    def penalise(self, members: slice, rows: Tensor, gradients: Tensor) -> None:
        """Add ``strength * F * (w - c)``."""
        if self._active:
            apart = rows - self._centre[members]
            gradients.addcmul_(apart, self._importance[members], value=self._strength)

    def consolidate(self, members: Sequence[int], examples: Sequence[Examples]) -> None:
        """Hold on to the present parameters."""
        self._active = True
        for member, own in zip(members, examples, strict=True):
            new = self.importance(member, own)
            row, centre = self.learners.population.rows[member], self._centre[member]
            old = self._importance[member].mul_(self._decay)
            old.add_(new).clamp_(min=0)
            if self._merge:
                share = torch.where(old > 0, new / old.clamp(min=1e-38), 1.0)
                centre.add_(share * (row - centre))
            else:
                centre.copy_(row)

    def penalty(self, member: int) -> float:
        """The penalty on a member's present parameters, up to a constant where merged."""
        apart = (self.learners.population.rows[member] - self._centre[member]).double()
        return float(self._strength / 2 * (self._importance[member] * apart**2).sum())

    def kept(self) -> Mapping[str, Tensor]:
        """Centre and importance, once there are any."""
        if not self._active:
            return {}
        return {"centre": self._centre, "importance": self._importance}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        self._active = "centre" in state

    def _row(self, values: Mapping[str, Tensor]) -> Tensor:
        """Values by parameter, as one row."""
        row = torch.zeros_like(self._importance[:1])
        for name, view in self.learners.population.views_of(row).items():
            view[0].copy_(values[name])
        return row[0]


class L2(Penalty):
    """Toward the parameters at the end of the last task, all alike: F = 1.

    Args:
        learners: the learners.
        strength: lambda.
    """

    def __init__(self, learners: Learners, strength: float = L2Options.strength) -> None:
        super().__init__(learners, strength, decay=0.0)

    def importance(self, member: int, examples: Examples) -> Tensor:
        """One for every parameter."""
        return torch.ones_like(self._importance[member])


class EWC(Penalty):
    """Elastic weight consolidation (Kirkpatrick et al. 2017): F is Fisher information.

    Its diagonal is estimated on the latest examples of the task, with their own labels (the
    "empirical" Fisher): the mean over examples of the squared gradient of the log-likelihood,
    E[g^2]; or its variance, E[g^2] - E[g]^2, which leaves out what the parameters still owe to the
    task. Neither is ever negative. The mean second derivative, which equals E[g^2] in theory, is:
    a parameter of negative importance is driven away from where it was. It is not offered.

    Each task's penalty is kept, about its own parameters. For a policy the log-likelihood is that
    of the actions taken; its value function counts as the mean of a normal distribution, whose
    Fisher information is the squared gradient of the value.

    Published code is seen to square the gradient of a batch's mean in place of each example's,
    which is too small by about the size of the batch; and to multiply a layer's summed importance
    with its summed squared distance.

    Args:
        learners: the learners.
        strength: lambda.
        fisher: mean of the squared gradients, or variance.
        examples: how many the estimate is from.
    """

    def __init__(
        self,
        learners: Learners,
        strength: float = EWCOptions.strength,
        fisher: Literal["mean", "variance"] = EWCOptions.fisher,
        examples: int = EWCOptions.examples,
        decay: float = 1.0,
        merge: bool = True,
    ) -> None:
        super().__init__(learners, strength, decay, merge)
        self._fisher = fisher
        self.examples = examples

    def importance(self, member: int, examples: Examples) -> Tensor:
        """The Fisher information, [numbers]."""
        total = torch.zeros_like(self._importance[member])
        for score in self.learners.scores:
            found = _moments(self.learners, member, score, examples)
            total += self._row(found.square if self._fisher == "mean" else found.variance)
        return total


class OnlineEWC(EWC):
    """Online EWC (Schwarz et al. 2018): one penalty, about the latest parameters.

    At each consolidation ``F <- decay * F + F_new``. With a decay of 0 only the last Fisher
    information counts. With `every` it needs to know of no task.

    Args:
        learners: the learners.
        strength: lambda.
        fisher: see `EWC`.
        examples: how many the estimate is from.
        decay: gamma.
        every: updates between two consolidations; at the end of each task where None.
    """

    def __init__(
        self,
        learners: Learners,
        strength: float = OnlineEWCOptions.strength,
        fisher: Literal["mean", "variance"] = OnlineEWCOptions.fisher,
        examples: int = OnlineEWCOptions.examples,
        decay: float = OnlineEWCOptions.decay,
        every: int | None = OnlineEWCOptions.every,
    ) -> None:
        super().__init__(learners, strength, fisher, examples, decay, merge=False)
        self.every = every


class MemoryAwareSynapses(Penalty):
    """Memory aware synapses (Aljundi et al. 2018): how much the outputs depend on a parameter.

    F is the mean over examples of abs(d ||f(x)||^2 / dw), added up over consolidations; no labels.
    The paper's penalty has no factor of a half: its lambda is half the strength. Of PPO f(x) is
    the policy's outputs, the standard deviation of its actions, and the value together, so that
    actor, critic and spread are all held. Values are in units of the return, and often much
    greater than a policy's outputs: so then is the critic's importance.

    Args:
        learners: the learners.
        strength: lambda.
        examples: how many the estimate is from.
        every: updates between two consolidations; at the end of each task where None.
    """

    def __init__(
        self,
        learners: Learners,
        strength: float = MASOptions.strength,
        examples: int = MASOptions.examples,
        every: int | None = MASOptions.every,
    ) -> None:
        super().__init__(learners, strength)
        self.examples = examples
        self.every = every

    def importance(self, member: int, examples: Examples) -> Tensor:
        """Mean absolute gradient of the squared norm of the outputs, [numbers]."""

        def score(forward: Forward, x: Tensor) -> Tensor:
            outputs = self.learners.outputs(forward, x)
            return (outputs * outputs).sum(dim=-1)

        return self._row(_moments(self.learners, member, score, examples[:1]).absolute)


class SynapticIntelligence(Penalty):
    """Synaptic intelligence (Zenke et al. 2017): what a parameter did for the loss on its way.

    Along the way ``path <- path - g * (change of w)``, g the gradient of the loss without any
    penalty; at each consolidation ``F <- max(F + path / ((w - w_before)^2 + damping), 0)``, the
    change being that since the consolidation before. The paper's penalty has no factor of a half:
    its c is half the strength. As in the official code (ganguli-lab/pathint) it is the running sum
    that is kept from being negative, so that a path on which the loss grew takes off what
    earlier tasks had put in; the paper says nothing of negative paths.

    Args:
        learners: the learners.
        strength: twice c.
        damping: xi.
        every: updates between two consolidations; at the end of each task where None.
    """

    def __init__(
        self,
        learners: Learners,
        strength: float = SIOptions.strength,
        damping: float = SIOptions.damping,
        every: int | None = SIOptions.every,
    ) -> None:
        super().__init__(learners, strength)
        self._damping = damping
        self.every = every
        self._path = torch.zeros_like(self._centre)
        self._start = learners.population.rows.clone()
        self._before = (self._path, self._path)  # parameters and gradients, within an update

    def observe(self, members: slice, rows: Tensor, gradients: Tensor) -> None:
        """Remember where the update starts."""
        self._before = rows.clone(), gradients.clone()

    def after_step(self, members: slice, rows: Tensor) -> None:
        """Add what the update did."""
        before, gradients = self._before
        self._path[members].addcmul_(gradients, rows - before, value=-1.0)

    def importance(self, member: int, examples: Examples) -> Tensor:
        """What each parameter did since the last time, over how far it went; starts anew.

        Below 0 where the loss grew on the way.
        """
        row, path, start = (
            own[member] for own in (self.learners.population.rows, self._path, self._start)
        )
        found = path / ((row - start) ** 2 + self._damping)
        path.zero_()
        start.copy_(row)
        return found

    def kept(self) -> Mapping[str, Tensor]:
        """Centre and importance, and the way so far with its start."""
        return {**super().kept(), "path": self._path, "start": self._start}


def _moments(learners: Learners, member: int, score: Any, examples: Examples) -> Moments:
    population = learners.population
    return moments(population.network, *population.member(member), score, examples)
