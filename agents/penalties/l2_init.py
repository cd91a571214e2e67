"""L2 toward the initial parameters (Kumar et al. 2023), also called regenerative regularization."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clrl.agents.networks import Network
from clrl.agents.penalties.base import Memory, Penalty, Sight
from clrl.agents.penalties.options import L2InitOptions


class L2Init(Penalty):
    """``strength / 2`` times the squared distance from the parameters at the start.

    Of all weights and biases, the last layer's included, but not of normalisation between layers.
    Source: Kumar, Marklund & Van Roy, "Maintaining plasticity in continual learning via
    regenerative regularization"; the form is that of the authors' code (skumar9876/L2_Init), whose
    strength is twice the paper's, where the squared distance is not halved.

    Args:
        network: see `Penalty`.
        strength: lambda; 0 leaves the loss as it is.
    """

    def __init__(self, network: Network, strength: float = L2InitOptions.strength) -> None:
        super().__init__(network)
        self._strength = strength
        norms = {layer.norm for layer in network.hidden_layers if layer.norm}
        self._names = [
            name for name, _ in network.named_parameters() if name.rpartition(".")[0] not in norms
        ]

    def begin(self, parameters: Mapping[str, Tensor]) -> Memory:
        """The parameters at the start."""
        return {name: parameters[name] for name in self._names}

    def term(self, sight: Sight, memory: Memory) -> Tensor:
        """See the class."""
        each = [((sight.parameters[name] - memory[name]) ** 2).sum() for name in self._names]
        return 0.5 * self._strength * sum(each[1:], each[0])
