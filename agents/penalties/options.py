"""Options of the penalties on the loss; these dataclasses own the defaults. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clrl.options import NonNegativeFloat, NonNegativeInt, PositiveInt


@dataclass(frozen=True)
class L2InitOptions:
    """Options of `clrl.agents.penalties.l2_init.L2Init`, which describes them."""

    strength: NonNegativeFloat = 0.01
    form: Literal["l2", "l1", "huber", "norm"] = "l2"
    resample: bool = False


@dataclass(frozen=True)
class WassersteinInitOptions:
    """Options of `clrl.agents.penalties.wasserstein_init.WassersteinInit`."""

    strength: NonNegativeFloat = 0.01


@dataclass(frozen=True)
class ParsevalOptions:
    """Options of `clrl.agents.penalties.parseval.Parseval`, which describes them."""

    strength: NonNegativeFloat = 1e-3
    scale: NonNegativeFloat = 2.0
    group: NonNegativeInt = 0
    diagonal: bool = False


@dataclass(frozen=True)
class SpectralOptions:
    """Options of `clrl.agents.penalties.spectral.Spectral`, which describes them."""

    strength: NonNegativeFloat = 1e-3
    power: PositiveInt = 2


@dataclass(frozen=True)
class PFOOptions:
    """Options of `clrl.agents.penalties.pfo.PFO`, which describes them."""

    strength: NonNegativeFloat = 1.0
    layers: Literal["last", "all"] = "last"


@dataclass(frozen=True)
class InFeROptions:
    """Options of `clrl.agents.penalties.infer.InFeR`, which describes them."""

    strength: NonNegativeFloat = 0.1
    heads: PositiveInt = 10
    scale: float = 100.0


@dataclass(frozen=True)
class CChainOptions:
    """Options of `clrl.agents.penalties.c_chain.CChain`, which describes them."""

    strength: NonNegativeFloat = 1.0
    target: NonNegativeFloat = 1e4
    floor: NonNegativeFloat = 1.0
    warmup: NonNegativeInt = 10
    window: PositiveInt = 50
