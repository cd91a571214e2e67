"""Toward the initial distribution of parameters (Lewandowski et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clrl.agents.networks import Network
from clrl.agents.penalties.base import Memory, Penalty, Sight
from clrl.agents.penalties.l2_init import regenerated
from clrl.agents.penalties.options import WassersteinInitOptions


class WassersteinInit(Penalty):
    """``strength / 2`` times the squared distance of each tensor's sorted numbers from the start's.

    It is the 2-Wasserstein distance between how the numbers of a parameter are distributed and how
    they were; which of them is which is free. Never more than ``l2-init`` of the same strength, and
    of the same parameters. Source: Lewandowski et al., "Directions of curvature as an explanation
    for loss of plasticity" (2023), after re-implementations, which scale it in ways of their own:
    the mean over each tensor (wechu/parseval_reg), or the length of all differences, not squared
    (Juliani & Ash 2024).

    Args:
        network: see `Penalty`.
        strength: lambda; 0 leaves the loss as it is.
    """

    def __init__(self, network: Network, strength: float = WassersteinInitOptions.strength) -> None:
        super().__init__(network)
        self._strength = strength
        self._names = regenerated(network)

    def begin(self, parameters: Mapping[str, Tensor]) -> Memory:
        """The numbers of each parameter at the start, sorted."""
        return {name: _sorted(parameters[name]) for name in self._names}

    def term(self, sight: Sight, memory: Memory) -> Tensor:
        """See the class."""
        apart = [_sorted(sight.parameters[name]) - memory[name] for name in self._names]
        each = [(d * d).sum() for d in apart]
        return 0.5 * self._strength * sum(each[1:], each[0])


def _sorted(values: Tensor) -> Tensor:
    return values.flatten().sort(stable=True).values
