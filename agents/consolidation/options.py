"""Options of the methods against forgetting; these dataclasses own the defaults. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clrl.options import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass(frozen=True)
class L2Options:
    """Options of `clrl.agents.consolidation.penalties.L2`.

    Attributes:
        strength: lambda; the penalty is half of it times the squared distance.
    """

    strength: NonNegativeFloat = 0.01


@dataclass(frozen=True)
class EWCOptions:
    """Options of `clrl.agents.consolidation.penalties.EWC`.

    Attributes:
        strength: lambda; the penalty is half of it times the weighted squared distance.
        fisher: the mean of the squared gradients, or their variance.
        examples: of a task, on which its Fisher information is estimated.
    """

    strength: NonNegativeFloat = 100.0
    fisher: Literal["mean", "variance"] = "mean"
    examples: PositiveInt = 1000


@dataclass(frozen=True)
class OnlineEWCOptions:
    """Options of `clrl.agents.consolidation.penalties.OnlineEWC`.

    Attributes:
        strength: lambda; the penalty is half of it times the weighted squared distance.
        fisher: the mean of the squared gradients, or their variance.
        examples: on which the Fisher information is estimated.
        decay: gamma, what is left of the importance so far at each consolidation.
        every: updates between two consolidations; at the end of each task unless given.
    """

    strength: NonNegativeFloat = 100.0
    fisher: Literal["mean", "variance"] = "mean"
    examples: PositiveInt = 1000
    decay: Fraction = 0.95
    every: PositiveInt | None = None


@dataclass(frozen=True)
class SIOptions:
    """Options of `clrl.agents.consolidation.penalties.SynapticIntelligence`.

    Attributes:
        strength: twice the c of the paper.
        damping: xi, added to the squared change of each parameter.
        every: updates between two consolidations; at the end of each task unless given.
    """

    strength: NonNegativeFloat = 50.0
    damping: PositiveFloat = 0.1
    every: PositiveInt | None = None


@dataclass(frozen=True)
class MASOptions:
    """Options of `clrl.agents.consolidation.penalties.MemoryAwareSynapses`.

    Attributes:
        strength: lambda; the penalty is half of it times the weighted squared distance.
        examples: on which the importance is estimated.
        every: updates between two consolidations; at the end of each task unless given.
    """

    strength: NonNegativeFloat = 0.1
    examples: PositiveInt = 1000
    every: PositiveInt | None = None


@dataclass(frozen=True)
class LowerRateOptions:
    """Options of `clrl.agents.consolidation.frames.LowerRate`.

    Attributes:
        factor: of the learning rate, from the end of the first task on.
    """

    factor: Fraction = 0.1


@dataclass(frozen=True)
class LwFOptions:
    """Options of `clrl.agents.consolidation.distillation.LwF`.

    Attributes:
        alpha: share of the loss on the labels; the rest is that of the teacher's outputs.
        temperature: by which both networks' outputs are divided.
    """

    alpha: Fraction = 0.5
    temperature: PositiveFloat = 2.0


@dataclass(frozen=True)
class RehearsalOptions:
    """Options of `clrl.agents.consolidation.rehearsal.Rehearsal`.

    Attributes:
        proportion: share of stored examples in a batch, less than 1.
        epoch: ``fixed``, a batch stays as large, and so many of its new examples are only stored;
            or ``growing``, the stored ones come on top of all the new ones.
        capacity: stored examples, a uniform sample of the past; all of it unless given.
    """

    proportion: Fraction = 0.5
    epoch: Literal["fixed", "growing"] = "fixed"
    capacity: PositiveInt | None = None


@dataclass(frozen=True)
class CloningOptions:
    """Options of `clrl.agents.consolidation.rehearsal.BehaviourCloning`.

    Attributes:
        examples: observations of each task that are kept, with what the policy answered.
        batch_size: of them in each gradient step.
        policy_weight: of the divergence from the kept policy.
        value_weight: of the squared distance from the kept values.
    """

    examples: PositiveInt = 1000
    batch_size: PositiveInt = 64
    policy_weight: NonNegativeFloat = 1.0
    value_weight: NonNegativeFloat = 0.5


@dataclass(frozen=True)
class AveragingOptions:
    """Options of `clrl.agents.consolidation.frames.Averaging`.

    Attributes:
        restart: each task's model starts from parameters of its own; else from the last one's.
    """

    restart: bool = True


@dataclass(frozen=True)
class FromScratchOptions:
    """Options of `clrl.agents.consolidation.frames.FromScratch`.

    Attributes:
        epochs: passes over everything so far, at the end of each task.
    """

    epochs: PositiveInt = 1
