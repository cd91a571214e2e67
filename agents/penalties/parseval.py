"""Parseval regularization: rows of hidden layers' weights kept orthogonal (Chung et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from clrl.agents.networks import Network, maps
from clrl.agents.penalties.base import Memory, Penalty, Sight
from clrl.agents.penalties.options import ParsevalOptions


class Parseval(Penalty):
    """``strength * (64 / width)^2 * |W W^T - scale I|^2``, summed over hidden layers.

    W [width, inputs] feeds a hidden layer, the first included (of a convolution it is flattened to
    a row a channel); heads, biases and a policy's spread are left alone. Source: Chung et al.,
    "Parseval regularization for continual reinforcement learning" (NeurIPS 2024); official code
    wechu/parseval_reg. Its learnable diagonal after each layer and the version that normalises
    rows are not here. Of a layer with more units than inputs the term cannot fall below
    ``scale^2 * (width - inputs)`` times its factor.

    Args:
        network: see `Penalty`.
        strength: lambda; the paper's is 1e-3, or 1e-4 in its longer tasks; 0 leaves the loss as it
            is.
        scale: the squared length that rows are to have. 2 is the network's own at the start with
            ``network.init orthogonal``, whose gain is sqrt(2); with another, the pull at the start
            is large.
        group: units side by side that are to be orthogonal among themselves alone; 0 for all of a
            layer.
    """

    def __init__(
        self,
        network: Network,
        strength: float = ParsevalOptions.strength,
        scale: float = ParsevalOptions.scale,
        group: int = ParsevalOptions.group,
    ) -> None:
        super().__init__(network)
        self._strength = strength
        self._names = [own.weight for own in maps(network) if own.hidden]
        self._wanted, self._counted = {}, {}
        for name in self._names:
            width = len(network.get_parameter(name))
            self._wanted[name] = scale * torch.eye(width)
            groups = torch.arange(width) // (group or width)
            self._counted[name] = (groups == groups.unsqueeze(1)).float()

    def term(self, sight: Sight, memory: Memory) -> Tensor:
        """See the class."""
        each = [self._of(sight.parameters[name].flatten(1), name) for name in self._names]
        return self._strength * sum(each[1:], each[0])

    def _of(self, weight: Tensor, name: str) -> Tensor:
        apart = weight @ weight.T - self._wanted[name].to(weight)
        apart = apart * self._counted[name].to(weight)
        return (64 / len(weight)) ** 2 * (apart * apart).sum()
