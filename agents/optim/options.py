"""Options of the update rules; these dataclasses own the defaults. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clrl.options import (
    Decay,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)


@dataclass(frozen=True)
class SGDOptions:
    """Options of ``torch.optim.SGD``.

    Attributes:
        lr: step size.
        momentum: momentum factor; 0 for none.
        weight_decay: coupled L2: the gradient gains ``weight_decay * w``.
    """

    lr: NonNegativeFloat = 1e-2
    momentum: Decay = 0.0
    weight_decay: NonNegativeFloat = 0.0


@dataclass(frozen=True)
class RMSpropOptions:
    """Options of ``torch.optim.RMSprop``.

    Attributes:
        lr: step size.
        alpha: decay rate of the running average of g squared.
        eps: added to the root of that average.
        weight_decay: coupled L2: the gradient gains ``weight_decay * w``.
    """

    lr: NonNegativeFloat = 1e-2
    alpha: Decay = 0.99
    eps: NonNegativeFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.0


@dataclass(frozen=True)
class AdamOptions:
    """Options of ``torch.optim.Adam``.

    Attributes:
        lr: step size.
        betas: decay rates of the running averages of g and of g squared.
        eps: added to the root of the second average.
        weight_decay: coupled L2: the gradient gains ``weight_decay * w``.
    """

    lr: NonNegativeFloat = 1e-3
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: NonNegativeFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.0


@dataclass(frozen=True)
class AdamWOptions:
    """Options of ``torch.optim.AdamW``.

    Attributes:
        lr: step size.
        betas: decay rates of the running averages of g and of g squared.
        eps: added to the root of the second average.
        weight_decay: decoupled: each step also takes ``lr * weight_decay * w`` off w.
    """

    lr: NonNegativeFloat = 1e-3
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: NonNegativeFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.01


@dataclass(frozen=True)
class UPGDOptions:
    """Options of `clrl.agents.optim.upgd.UPGD`, which describes them."""

    lr: NonNegativeFloat = 1e-2
    sigma: NonNegativeFloat = 0.1
    beta_utility: Decay = 0.9999
    weight_decay: NonNegativeFloat = 0.01
    gate: Literal["update", "noise", "none"] = "update"
    utility_max: Literal["corrected", "raw"] = "corrected"
    lr_factor: NonNegativeFloat = 1.0


@dataclass(frozen=True)
class AdaUPGDOptions:
    """Options of `clrl.agents.optim.adaupgd.AdaUPGD`, which describes them."""

    lr: NonNegativeFloat = 3e-4
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: NonNegativeFloat = 1e-5
    sigma: NonNegativeFloat = 1e-3
    beta_utility: Decay = 0.999
    weight_decay: NonNegativeFloat = 1e-3
    gate: Literal["update", "noise", "none"] = "update"
    utility_max: Literal["corrected", "raw"] = "raw"
    lr_factor: NonNegativeFloat = 2.0


@dataclass(frozen=True)
class ShrinkAndPerturbOptions:
    """Options of `clrl.agents.optim.shrink_perturb.ShrinkAndPerturb`, which describes them."""

    noise_scale: NonNegativeFloat = 1e-3
    noise: Literal["normal", "initializer"] = "normal"
    scale_by_lr: bool = False
    shrink: Fraction = 1.0
    every: PositiveInt = 1
    when: Literal["step", "change"] = "step"
    part: Literal["all", "heads"] = "all"


@dataclass(frozen=True)
class WeightClippingOptions:
    """Options of `clrl.agents.optim.weight_clipping.WeightClipping`, which describes them."""

    bound: NonNegativeFloat = 3.0
    heads: bool = True


@dataclass(frozen=True)
class NormalizeAndProjectOptions:
    """Options of `clrl.agents.optim.normalize_project.NormalizeAndProject`."""

    every: PositiveInt = 1
    biases: bool = True
    norm_decay: Fraction = 0.0


@dataclass(frozen=True)
class HareAndTortoiseOptions:
    """Options of `clrl.agents.optim.hare_tortoise.HareAndTortoise`, which describes them."""

    decay: Fraction = 0.999
    every: PositiveInt = 1000


@dataclass(frozen=True)
class ContinualBackpropOptions:
    """Options of `clrl.agents.optim.continual_backprop.ContinualBackprop`."""

    replacement_rate: Fraction = 1e-4
    maturity_threshold: NonNegativeInt = 100
    decay_rate: Decay = 0.99
    utility: Literal["contribution", "adaptable-contribution"] = "adaptable-contribution"
    outgoing: Literal["mean", "sum"] = "mean"
    replacement: Literal["accumulate", "probabilistic"] = "accumulate"
    transfer_bias: bool = True
    reset_optimizer: bool = True


@dataclass(frozen=True)
class ReDoOptions:
    """Options of `clrl.agents.optim.redo.ReDo`, which describes them."""

    threshold: float = 0.025
    every: PositiveInt = 1000
    examples: PositiveInt = 256
    score: Literal["ratio-of-means", "mean-of-ratios"] = "ratio-of-means"
    outgoing: Literal["zero", "fresh", "keep"] = "zero"
    reset_optimizer: bool = True
    part: Literal["all", "actor", "critic"] = "all"


@dataclass(frozen=True)
class SelfNormalizedResetsOptions:
    """Options of `clrl.agents.optim.self_normalized_resets.SelfNormalizedResets`."""

    rejection: Fraction = 0.01
    every: PositiveInt = 10_000
    longest: PositiveInt = 1024
    above: float = 0.0


@dataclass(frozen=True)
class ReGraMaOptions:
    """Options of `clrl.agents.optim.regrama.ReGraMa`, which describes them."""

    threshold: float = 0.01
    every: PositiveInt = 1000
    updates: PositiveInt = 64
    fraction: Fraction = 1.0
    outgoing: Literal["keep", "zero", "fresh"] = "keep"


@dataclass(frozen=True)
class CalibratedPartialResetsOptions:
    """Options of `clrl.agents.optim.partial_resets.CalibratedPartialResets`."""

    rate: Fraction = 0.015
    sharpness: NonNegativeFloat = 16.0
    every: PositiveInt = 1000
    decay: Decay = 0.99


@dataclass(frozen=True)
class HeadResetOptions:
    """Options of `clrl.agents.optim.resets.HeadReset`, which describes them."""

    every: NonNegativeInt = 20_000
    times: NonNegativeInt = 0
    layers: PositiveInt = 1


@dataclass(frozen=True)
class FullResetOptions:
    """Options of `clrl.agents.optim.resets.FullReset`, which describes them."""

    every: NonNegativeInt = 200_000
    times: NonNegativeInt = 0


@dataclass(frozen=True)
class PlasticityInjectionOptions:
    """Options of `clrl.agents.optim.plasticity_injection.PlasticityInjection`."""

    after: NonNegativeInt = 0
    layers: PositiveInt = 2
    part: Literal["all", "actor", "critic"] = "all"


@dataclass(frozen=True)
class DASHOptions:
    """Options of `clrl.agents.optim.dash.DASH`, which describes them."""

    every: NonNegativeInt = 0
    times: NonNegativeInt = 0
    shrink: Fraction = 0.3
    rate: Fraction = 0.3


@dataclass(frozen=True)
class FIREOptions:
    """Options of `clrl.agents.optim.fire.FIRE`, which describes them."""

    every: NonNegativeInt = 0
    times: NonNegativeInt = 0
    iterations: PositiveInt = 10


@dataclass(frozen=True)
class OptimizerResetOptions:
    """Options of `clrl.agents.optim.optimizer_reset.OptimizerReset`, which describes them."""

    every: NonNegativeInt = 0
    times: NonNegativeInt = 0


@dataclass(frozen=True)
class AdamRelOptions:
    """Options of `clrl.agents.optim.optimizer_reset.AdamRel`, which describes them."""

    every: NonNegativeInt = 0
    times: NonNegativeInt = 0


@dataclass(frozen=True)
class TRACOptions:
    """Options of `clrl.agents.optim.trac.TRAC`, which describes them."""

    start: PositiveFloat = 1e-8
    parts: Literal["together", "apart"] = "together"


@dataclass(frozen=True)
class MuonOptions:
    """Options of `clrl.agents.optim.muon.Muon`, which describes them."""

    lr: NonNegativeFloat = 0.02
    momentum: Decay = 0.95
    weight_decay: NonNegativeFloat = 0.0
    others: NonNegativeFloat = 0.1
    betas: tuple[Decay, Decay] = (0.9, 0.95)


@dataclass(frozen=True)
class SOAPOptions:
    """Options of `clrl.agents.optim.soap.SOAP`, which describes them."""

    lr: NonNegativeFloat = 3e-3
    betas: tuple[Decay, Decay] = (0.95, 0.95)
    eps: NonNegativeFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.01
    every: PositiveInt = 10


@dataclass(frozen=True)
class KronOptions:
    """Options of `clrl.agents.optim.kron.Kron`, which describes them."""

    lr: NonNegativeFloat = 1e-3
    momentum: Decay = 0.9
    weight_decay: NonNegativeFloat = 0.0


@dataclass(frozen=True)
class ObGDOptions:
    """Options of `clrl.agents.optim.obgd.ObGD`, which describes them."""

    lr: NonNegativeFloat = 1.0
    kappa: NonNegativeFloat = 2.0
    trace: Decay = 0.8
