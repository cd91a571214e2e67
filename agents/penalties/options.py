"""Options of the penalties on the loss; these dataclasses own the defaults. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from clrl.options import NonNegativeFloat


@dataclass(frozen=True)
class L2InitOptions:
    """Options of `clrl.agents.penalties.l2_init.L2Init`.

    Attributes:
        strength: lambda; the penalty is half of it times the squared distance.
    """

    strength: NonNegativeFloat = 0.01
