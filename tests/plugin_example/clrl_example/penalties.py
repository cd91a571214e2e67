"""A penalty of one's own: the distance of how weights are distributed (Lewandowski et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clrl.networks import Network
from clrl.optim import Penalty, Sight


class WassersteinInit(Penalty):
    """L2 toward the parameters at the start, of each the sorted ones: which is which is free."""

    def __init__(self, network: Network, strength: float = 0.01) -> None:
        super().__init__(network)
        self.strength = strength

    def begin(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.flatten().sort().values for name, value in parameters.items()}

    def term(self, sight: Sight, memory: dict[str, Tensor]) -> Tensor:
        apart = [
            (value.flatten().sort().values - memory[name]).square().sum()
            for name, value in sight.parameters.items()
        ]
        return self.strength * sum(apart[1:], apart[0])
